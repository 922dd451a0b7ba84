"""How a request begins and how it is refused: empty lines, stalls, and bodies that are not whole."""

from __future__ import annotations

import time

import pytest
import trustme

from pytest_egress.gateway import dispatch
from pytest_egress.gateway.dispatch import may_become_request
from pytest_egress.gateway.http import bodies
from pytest_egress.ledger.windows import Window
from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.search.leaks import leaks
from pytest_egress.traffic.search.secrets import Secret
from tests.support.loopback import LoopbackLink
from tests.support.stage import ADDRESS, GET, SECONDS, Stage, ask, end_of, eventually, read_reply

STALL = 0.6
"""Seconds; more than the first byte is waited for here."""


@pytest.fixture
def stage(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", STALL / 2)
    return stage


# What may become a request.


@pytest.mark.parametrize("empty", [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\r\n"])
@pytest.mark.parametrize("secure", [True, False])
def test_empty_lines_before_the_very_first_request_are_ignored(
    stage: Stage, empty: bytes, secure: bool
) -> None:
    stage.http("api.test", b"yes")
    stage.https("api.test", b"yes")
    sock = stage.tls() if secure else stage.dial(port=80)
    for _ in range(2):
        assert ask(sock, empty + GET).body == b"yes"
    assert len(stage.entries(Exchange)) == len(stage.window.entries) == 2


@pytest.mark.parametrize("empty", [b"\r\n", b"\n", b"\r\n\r\n"])
@pytest.mark.parametrize("more", [b"", GET], ids=["alone", "pipelined"])
def test_empty_lines_that_come_with_a_body_are_ignored(
    stage: Stage, empty: bytes, more: bytes
) -> None:  # as of old clients (RFC 9112 section 2.2)
    route, sock = stage.http("api.test", b"yes"), stage.dial(port=80)
    post = b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 2\r\n\r\nhi"
    assert ask(sock, post + empty + more).body == b"yes"
    if not more:
        assert ask(sock, GET).body == b"yes"
    route.wait_for_call(2)
    assert route.call_count == len(stage.window.entries) == 2


@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (
            b"POST / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
            {},
        ),
        (b"POST / HTTP/1.0\r\nHost: api.test\r\nContent-Length: 2\r\n\r\nhi", {}),
        (
            b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 2\r\n\r\nhi",
            {"Connection": "close"},
        ),
    ],
    ids=["closes", "HTTP/1.0", "closed"],
)
def test_what_is_sent_behind_a_last_request_is_an_attempt(
    stage: Stage, secure: bool, head: bytes, answer: dict[str, str]
) -> None:
    declare = stage.https if secure else stage.http
    route = declare("api.test", Response(text="yes", headers=answer), path="/")
    more = GET + b"\r\n" + GET.replace(b"/", b"/x", 1) + b"GET /y"
    assert ask(stage.tls() if secure else stage.dial(port=80), head + more).body == b"yes"
    stage.settle()
    first, again, other, begun = stage.window.entries
    assert [route.call_count, first.note] == [1, ""]
    assert [entry.outcome for entry in (first, again, other, begun)] == [
        "routed",
        "recorded",
        "unrouted",
        "unrouted",
    ]
    assert isinstance(other, Exchange)
    assert other.request.path == "/x"
    assert isinstance(begun, TcpConnection)
    assert begun.first_bytes == b"GET /y"


def test_a_path_in_utf8_may_come_with_the_request_before(stage: Stage) -> None:
    route, sock = stage.http("api.test", b"yes"), stage.dial(port=80)
    assert ask(sock, GET + GET.replace(b"GET /", b"GET /\xc3\xa9", 1)).status == 200
    assert route.wait_for_call(2).request.path == "/%C3%A9"


def test_a_client_that_waits_after_an_empty_line_is_answered(stage: Stage) -> None:
    stage.http("api.test", b"yes")
    sock = stage.dial(port=80)
    for byte in (b"\r", b"\n"):
        sock.sendall(byte)
        time.sleep(STALL)
    assert ask(sock).body == b"yes"
    assert stage.only(Exchange).outcome == "routed"


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 9, 16])
def test_a_request_line_that_stalls_is_a_request_all_the_same(stage: Stage, cut: int) -> None:
    stage.http("api.test", b"yes")
    sock = stage.dial(port=80)
    sock.sendall(GET[:cut])
    time.sleep(STALL)
    assert ask(sock, GET[cut:]).body == b"yes"
    assert stage.only(Exchange).outcome == "routed"


def test_what_stalls_and_does_not_become_a_request_is_recorded_and_reset(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "STALLED_SECONDS", STALL)
    sock = stage.dial(port=5432)
    sock.sendall(b"ruok")  # ZooKeeper's client waits for an answer to these four letters
    assert end_of(sock) == "reset"
    entry = stage.only(TcpConnection)
    assert (entry.outcome, entry.first_bytes) == ("unrouted", b"ruok")


def test_a_raw_route_does_not_wait_for_what_might_become_a_request(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "STALLED_SECONDS", 100 * SECONDS)
    stage.tcp(f"{ADDRESS}:5432", lambda sock: sock.sendall(sock.recv(4)))
    sock = stage.dial(port=5432)
    sock.sendall(b"ruok")
    sock.settimeout(SECONDS)
    assert sock.recv(4) == b"ruok"


def test_what_may_pass_waits_no_longer_than_for_a_first_byte(
    ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "STALLED_SECONDS", 100 * SECONDS)
    nobody = ("127.0.0.1", 9)
    stage = Stage(ca, LoopbackLink([nobody]))
    with stage.open:
        stage.window = stage.ledger.window = Window(policy="passthrough")
        stage.gateway.start()
        sock = stage.dial(*nobody)
        sock.sendall(b"ruok")
        assert end_of(sock) == "reset"
        assert stage.only(TcpConnection).note  # it has been tried


@pytest.mark.parametrize(
    ("data", "may"),
    [
        (b"", True),
        (b"\r\n", True),
        (b"GE", True),
        (b"\r\nGE", True),
        (b"GET ", True),
        (b"GET x", True),
        (b"GET x y", False),
        (b"GET x\r\n", False),
        (b"PING\r\n", False),
        (b"\x00", False),
        (b"\r\n\x00", False),
        (b"G" * 25, False),
        (b" /", False),
        (b"\n" * 64, False),
        (b"A " + b"x" * 62, False),
    ],
)
def test_what_may_become_a_request_is_told_by_its_beginning(data: bytes, may: bool) -> None:
    assert may_become_request(data) is may


# What is refused.


def test_what_a_refused_body_was_answered_is_in_the_ledger(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 1000)
    sock = stage.tls()
    reply = ask(sock, b"PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1001\r\n\r\n", "PUT")
    assert reply.status == 413
    sock.close()
    response = stage.only(Exchange).response
    assert response is not None
    assert (response.status_code, response.content) == (413, reply.body)


def test_what_a_body_that_breaks_off_was_answered_is_in_the_ledger(stage: Stage) -> None:
    sock = stage.dial(port=80)
    sock.sendall(
        b"PUT / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"
    )
    reply = read_reply(sock, "PUT")
    assert reply.status == 400
    sock.close()
    response = stage.only(Exchange).response
    assert response is not None
    assert (response.status_code, response.content) == (400, reply.body)


# What is searched for secrets.

KEY = "sk-of-the-test-1"


@pytest.mark.parametrize("policy", ["fail", "block"])
@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET / HTTP/1.1\r\nX-Key: sk-of-", b"the-test-1\r\nno field\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nX-Key: sk-of-", b"the-test-1\r\n"],
        [GET + b"GET / HTTP/1.1\r\nX-Key: sk-of-", b"the-test-1\r\nno field\r\n\r\n"],
    ],
    ids=["malformed", "broken off", "pipelined"],
)
def test_a_head_that_cannot_be_read_is_searched_for_secrets(
    stage: Stage, pieces: list[bytes], secure: bool, policy: str
) -> None:
    made = Secret(KEY)
    stage.window.account._others.secrets = KnownValues([(KEY, made)])
    stage.window.policy = policy  # type: ignore[assignment]
    stage.http("api.test", b"yes", optional=True)
    stage.https("api.test", b"yes", optional=True)
    sock = stage.tls() if secure else stage.dial(port=80)
    for piece in pieces:
        sock.sendall(piece)
        eventually(lambda: not stage.gateway.unread())
    sock.close()
    (leak,) = leaks(stage.entries(TcpConnection), [made])
    assert leak.told == "the secret of a marker in its bytes"
