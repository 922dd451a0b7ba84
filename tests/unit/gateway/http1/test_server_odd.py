"""Odd clients of HTTP/1.1: slow, impatient, gone, endless. Each ends in a record, and none leaves a thread behind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Final

import pytest

from pytest_egress.gateway import connection as connection_module
from pytest_egress.gateway.http import bodies
from pytest_egress.traffic.entries import Entry, Exchange, TcpConnection
from pytest_egress.traffic.http.head import MAX_BODY_BYTES, MAX_HEADER_BYTES
from tests.support.stage import GET, Stage, ask, drain, eventually, read_reply, reset

HEAD: Final = b"POST / HTTP/1.1\r\nHost: api.test\r\n"
CHUNKED: Final = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LIMIT: Final = 100_000
Leave = Callable[[socket.socket], object]


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "LINGER_SECONDS", 0.05)


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", LIMIT)


def threads_of(stage: Stage) -> list[str]:
    """The threads that serve connections of the stage's target, by their names."""
    names = {thread.name for thread in threading.enumerate()} - {f"egress {stage.name} idle"}
    return [name for name in names if name.startswith(f"egress {stage.name} ")]


def served(stage: Stage) -> list[Exchange | TcpConnection]:
    """What has been recorded of connections so far."""
    with stage.ledger.changed:
        entries = list(stage.window.entries)
    return [entry for entry in entries if isinstance(entry, (Exchange, TcpConnection))]


def half_closes(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)
    drain(sock)


def closes(sock: socket.socket) -> None:
    sock.close()


LEAVING: Final[dict[str, Leave]] = {"closes": closes, "resets": reset, "half-closes": half_closes}


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
@pytest.mark.parametrize(
    "begun",
    [
        b"GET /",
        GET[:-1],
        HEAD + b"Content-Length: 5\r\n\r\n",
        HEAD + b"Content-Length: 999999999\r\n\r\nhi",
        CHUNKED,
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n",
        GET + HEAD,
        GET + GET + CHUNKED,
    ],
    ids=lambda data: f"{data[-24:]!r}",
)
def test_a_client_that_leaves_before_the_end_is_recorded(
    stage: Stage, begun: bytes, leave: Leave
) -> None:
    stage.http("api.test", b"yes")
    sock = stage.dial(stage.resolve("api.test"), 80)
    sock.sendall(begun)
    assert eventually(lambda: len(served(stage)) == begun.count(GET))
    leave(sock)
    assert eventually(lambda: len(served(stage)) > begun.count(GET) and not threads_of(stage))
    *answered, broken = served(stage)
    assert [entry.outcome for entry in answered] == ["routed"] * begun.count(GET)
    if isinstance(broken, Exchange):
        assert broken.outcome == "recorded"
    assert broken.note


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
def test_a_client_that_leaves_after_its_request_was_answered_all_the_same(
    stage: Stage, leave: Leave
) -> None:
    route = stage.http("api.test", b"yes")
    sock = stage.dial(port=80)
    sock.sendall(GET)
    route.wait_for_call()
    leave(sock)
    assert eventually(lambda: not threads_of(stage))
    assert stage.only(Exchange).outcome == "routed"


def test_a_client_that_half_closes_behind_its_request_gets_its_response(stage: Stage) -> None:
    stage.http("api.test", b"yes")
    sock = stage.dial(port=80)
    sock.sendall(GET + GET)
    sock.shutdown(socket.SHUT_WR)
    answer = b""
    while data := sock.recv(65536):
        answer += data
    assert answer.count(b"yes") == 2
    assert eventually(lambda: not threads_of(stage))


# Waiting for 100.


def test_a_client_that_expects_100_and_sends_at_once_is_read_once(stage: Stage) -> None:
    route = stage.http("api.test", lambda request: request.content)
    expects = HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
    sock = stage.dial(port=80)
    for _ in range(2):
        assert ask(sock, expects, "POST").body == b"hi"
    assert route.call_count == 2


def test_a_client_of_http_1_0_that_expects_100_gets_none(stage: Stage) -> None:
    stage.http("api.test", lambda request: request.content)
    expects = HEAD.replace(b"1.1", b"1.0") + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    sock = stage.dial(port=80)
    sock.sendall(expects)
    sock.sendall(b"hi")
    reply = read_reply(sock, "POST")
    assert (reply.body, reply.interim) == (b"hi", [])


def test_a_client_that_sends_a_response_is_recorded(stage: Stage) -> None:
    stage.http("api.test", b"yes")
    sock = stage.dial(port=80)
    ask(sock)
    assert ask(sock, b"HTTP/1.1 100 Continue\r\n\r\n").status == 400
    assert [entry.outcome for entry in stage.entries(Entry)] == ["routed", "unrouted"]


# Much.


@pytest.mark.parametrize("piece", [1 << 20, 1000])
def test_a_head_without_end_is_431_and_recorded(stage: Stage, piece: int) -> None:
    route = stage.http("api.test", b"yes")
    sock = stage.dial(stage.resolve("api.test"), 80)
    head = HEAD + b"X: " + b"y" * 2 * MAX_HEADER_BYTES
    for at in range(0, len(head), piece):
        sock.sendall(head[at : at + piece])
    assert read_reply(sock, "POST").status == 431
    assert stage.only(TcpConnection).outcome == "unrouted"
    assert route.call_count == 0
    assert eventually(lambda: not threads_of(stage))


def test_thousands_of_fields_are_kept(stage: Stage) -> None:
    route, sock = stage.http("api.test", b"yes"), stage.dial(port=80)
    many = GET[:-2] + b"".join(b"X: %04d\r\n" % number for number in range(7000)) + b"\r\n"
    assert ask(sock, many).status == 200
    values = route.assert_called_once().request.headers.get_all("x")
    assert [*map(int, values)] == [*range(7000)]


def test_gigabytes_that_are_announced_and_not_sent_are_refused_at_once(stage: Stage) -> None:
    stage.http("api.test", b"yes")
    head = HEAD + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1)
    sock = stage.dial(port=80)
    assert ask(sock, head, "POST").status == 413
    entry = stage.only(Exchange)
    assert (entry.outcome, entry.request.content) == ("unrouted", b"")
    assert eventually(lambda: not threads_of(stage))


@pytest.mark.parametrize("chunk", [b"1\r\ny\r\n", b"4000\r\n" + bytes(0x4000) + b"\r\n"])
def test_chunks_without_end_are_refused_at_the_limit(
    stage: Stage, low_limit: None, chunk: bytes
) -> None:
    stage.http("api.test", b"yes")
    sock = stage.dial(port=80)
    sock.sendall(CHUNKED)
    while not stage.window.entries:
        try:
            sock.sendall(chunk * max(1, LIMIT // len(chunk)))
        except OSError:  # it has been refused
            break
    entry = stage.only(Exchange)
    assert (entry.outcome, entry.response.status_code) == ("unrouted", 413)
    assert LIMIT < len(entry.request.content) < 2 * LIMIT
    assert eventually(lambda: not threads_of(stage))


def test_a_hundred_thousand_chunks_are_one_body(stage: Stage) -> None:
    route = stage.http("api.test", lambda request: str(len(request.content)))
    sock = stage.dial(port=80)
    sock.sendall(CHUNKED + b"1;extension=value\r\ny\r\n" * 100_000 + b"0\r\n\r\n")
    assert read_reply(sock, "POST").body == b"100000"
    assert route.call_count == 1


def test_hundreds_of_pipelined_requests_in_one_write_are_answered_in_order(stage: Stage) -> None:
    route = stage.http("api.test", lambda request: request.path)
    sock = stage.dial(port=80)
    sock.sendall(b"".join(GET.replace(b" / ", b" /%d " % number) for number in range(700)))
    sock.shutdown(socket.SHUT_WR)
    answer = b""
    while data := sock.recv(65536):
        answer += data
    paths = [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert paths == [b"/%d" % number for number in range(700)]
    assert route.call_count == 700


@pytest.mark.parametrize("count", [50])
def test_many_odd_clients_at_once_leave_nothing_behind(stage: Stage, count: int) -> None:
    stage.http("api.test", b"yes")
    begun = [b"GET /", HEAD + b"Content-Length: 9\r\n\r\nhi", CHUNKED + b"5\r\nhel", b"\r\n\r\n"]
    socks = [stage.dial(stage.resolve("api.test"), 80) for _ in range(count)]
    for number, sock in enumerate(socks):
        sock.sendall(begun[number % len(begun)])
    for number, sock in enumerate(socks):
        [reset, closes, closes][number % 3](sock)
    assert eventually(lambda: len(served(stage)) == count and not threads_of(stage))
