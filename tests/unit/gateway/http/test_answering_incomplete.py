"""A request that does not come whole is recorded; it fails its test where no route would have answered it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import h2.errors
import pytest
import trustme

from pytest_egress.gateway import connection as connection_module
from pytest_egress.gateway import patience
from pytest_egress.ledger.windows import Window
from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.http.request import Request
from tests.support.http2_client import Http2Client
from tests.support.stage import ADDRESS, SECONDS, Stage, ask, client_context, eventually, reset

UPLOAD = b"POST /%b HTTP/1.1\r\nHost: %b\r\nContent-Length: 9\r\n\r\nhalf"


@pytest.fixture
def stage(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(connection_module, "LINGER_SECONDS", 0.05)
    return stage


def tls_client(stage: Stage, ca: trustme.CA) -> Http2Client:
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    return Http2Client(stage.tls(context=context))


Cut = Callable[[Stage, trustme.CA, str, str], None]
"""Sends a part of a request to a path and a host, over TLS to api.test, and ends it."""


def begin(stage: Stage, path: str, host: str) -> socket.socket:
    sock = stage.tls()
    sock.sendall(UPLOAD % (path.encode(), host.encode()))
    return sock


def begin_http2(stage: Stage, ca: trustme.CA, path: str, host: str) -> Http2Client:
    client = tls_client(stage, ca)
    number = client.begin(f"/{path}", "POST", host=host, ends=False)
    client.h2.send_data(number, b"half")
    client.flush()
    return client


def read_by_us(stage: Stage) -> None:
    """Wait until what was sent has been read."""
    assert eventually(lambda: stage.window.activities and not stage.gateway.unread())


def closes(stage: Stage, ca: trustme.CA, path: str, host: str) -> None:
    begin(stage, path, host).close()


def resets(stage: Stage, ca: trustme.CA, path: str, host: str) -> None:
    sock = begin(stage, path, host)
    read_by_us(stage)
    reset(sock)


def breaks_its_chunks(stage: Stage, ca: trustme.CA, path: str, host: str) -> None:
    head = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    stage.tls().sendall(head.encode())


def stalls(stage: Stage, ca: trustme.CA, path: str, host: str) -> None:
    begin(stage, path, host)


def sends_on_at_the_end_of_its_test(stage: Stage, ca: trustme.CA, path: str, host: str) -> None:
    begin(stage, path, host)
    cut_all(stage)


def cut_all(stage: Stage) -> None:
    read_by_us(stage)
    for activity in [*stage.window.activities]:
        activity.cut()


def resets_its_stream(stage: Stage, ca: trustme.CA, path: str, host: str) -> None:
    client = begin_http2(stage, ca, path, host)
    client.h2.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
    client.flush()


def closes_its_connection(stage: Stage, ca: trustme.CA, path: str, host: str) -> None:
    begin_http2(stage, ca, path, host).close()


def resets_its_connection(stage: Stage, ca: trustme.CA, path: str, host: str) -> None:
    client = begin_http2(stage, ca, path, host)
    read_by_us(stage)
    reset(client.sock)


def sends_on_by_http2(stage: Stage, ca: trustme.CA, path: str, host: str) -> None:
    begin_http2(stage, ca, path, host)
    cut_all(stage)


SHAPES = [
    *(closes, resets, breaks_its_chunks, stalls, sends_on_at_the_end_of_its_test),
    *(resets_its_stream, closes_its_connection, resets_its_connection, sends_on_by_http2),
]


@pytest.fixture(params=SHAPES, ids=lambda shape: shape.__name__)
def end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cut:
    if request.param is stalls:
        monkeypatch.setattr(patience, "STALL_SECONDS", 0.2)
    shape: Cut = request.param
    return shape


def the_only(stage: Stage) -> Exchange:
    assert eventually(lambda: stage.window.entries)
    return stage.only(Exchange)


@pytest.mark.parametrize(
    ("conditions", "path", "host", "difference"),
    [
        ({"path": "/a"}, "b", "api.test", "path: '/b' is not '/a'"),
        ({"method": "GET"}, "a", "api.test", "method: POST is not GET"),
        ({"match": lambda request: request.path == "/a"}, "b", "api.test", "match: <lambda>"),
        ({"match": lambda request: request.headers["x"]}, "b", "api.test", "raised AbsentError"),
        ({}, "a", "other.test", ""),
    ],
    ids=["path", "method", "predicate", "predicate that raises", "host"],
)
def test_what_no_route_would_have_answered_is_unrouted(
    stage: Stage, ca: trustme.CA, end: Cut, conditions: Any, path: str, host: str, difference: str
) -> None:
    stage.https("api.test", b"never", optional=True, **conditions)
    end(stage, ca, path, host)
    entry = the_only(stage)
    assert (entry.outcome, entry.request.path) == ("unrouted", f"/{path}")
    assert difference in str(entry.near[0].differences if entry.near else "")
    assert "half" in repr(entry.request.content) or end is breaks_its_chunks


@pytest.mark.parametrize(
    "conditions",
    [
        {"path": "/a", "method": "POST"},
        {"json": {"id": 1}},
        {"content": b"half of"},
        {"match": lambda request: request.path == "/a"},
        {"match": lambda request: request.json() == 1},
        {"times": 1},
    ],
    ids=["head", "json", "content", "predicate", "predicate of the body", "times"],
)
def test_what_a_route_might_have_answered_is_recorded(
    stage: Stage, ca: trustme.CA, end: Cut, conditions: Any
) -> None:
    route = stage.https("api.test", b"never", optional=True, **conditions)
    end(stage, ca, "a", "api.test")
    entry = the_only(stage)
    assert (entry.outcome, entry.near, route.call_count) == ("recorded", (), 0)


def test_what_comes_when_all_times_are_used_up_is_unrouted(
    stage: Stage, ca: trustme.CA, end: Cut
) -> None:
    stage.https("api.test", b"once", times=1)
    ask(stage.tls())
    end(stage, ca, "a", "api.test")
    assert eventually(lambda: len(stage.window.entries) == 2)
    _, entry = stage.entries(Exchange)
    assert entry.outcome == "unrouted"
    assert entry.near[0].differences[0].startswith("times: ")


def test_a_connection_without_the_certificate_that_its_route_requires_is_answered_by_none(
    stage: Stage,
) -> None:
    sock = stage.tls()  # connected before the route was declared
    sock.sendall(b"P")
    stage.https("api.test", b"never", client_certificate="require", optional=True)
    sock.sendall((UPLOAD % (b"a", b"api.test"))[1:])
    sock.close()
    assert the_only(stage).outcome == "unrouted"


def test_with_the_policy_block_it_is_unrouted_where_it_names_a_claimed_host(
    stage: Stage, ca: trustme.CA, end: Cut
) -> None:
    """As one that has come whole: a target must not get at a route's host under another name."""
    stage.window = stage.ledger.window = Window(policy="block")
    stage.https("claimed.test", b"never", optional=True)
    end(stage, ca, "a", "claimed.test")
    assert the_only(stage).outcome == "unrouted"


# Heads.


@pytest.mark.parametrize("leave", [reset, socket.socket.close], ids=["reset", "closed"])
@pytest.mark.parametrize("before", [0, 1])
def test_a_head_that_breaks_off_is_unrouted_though_a_route_claims_its_address(
    stage: Stage, leave: Callable[[socket.socket], None], before: int
) -> None:
    stage.http("api.test", b"yes", path="/a", optional=True)
    sock = stage.dial(stage.resolve("api.test"), 80)
    for _ in range(before):
        ask(sock, b"GET /a HTTP/1.1\r\nHost: api.test\r\n\r\n")
    sock.sendall(b"GET /what-nobody-declared HTTP/1.1\r\nHo")
    read_by_us(stage)
    leave(sock)
    assert eventually(lambda: stage.entries(TcpConnection))
    (cut,) = stage.entries(TcpConnection)
    assert cut.outcome == "unrouted"


@pytest.mark.parametrize("leave", [reset, socket.socket.close], ids=["reset", "closed"])
@pytest.mark.parametrize(("size", "outcome"), [(2, "recorded"), (12, "unrouted"), (-1, "unrouted")])
def test_a_head_of_http2_that_breaks_off_is_unrouted_and_three_bytes_may_be_anything(
    stage: Stage, leave: Callable[[socket.socket], None], size: int, outcome: str
) -> None:
    stage.http(f"{ADDRESS}:80", b"yes", optional=True)
    client = Http2Client(stage.dial(ADDRESS, 80), "http")
    assert client.ask().body == b"yes"
    client.begin("/cut")
    head = bytearray(client.h2.data_to_send())
    if size == -1:
        head[4] &= ~0x4  # END_HEADERS
    client.sock.sendall(head[:size] if size > 0 else head)
    read_by_us(stage)
    leave(client.sock)
    assert eventually(lambda: len(stage.window.entries) == 2)
    (cut,) = stage.entries(TcpConnection)
    assert cut.outcome == outcome


# Predicates that do not return.


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "cut"])
def test_an_attempt_is_recorded_before_a_predicate_is_asked_about_it(
    stage: Stage, ca: trustme.CA, http2: bool, is_whole: bool
) -> None:
    go, asked = threading.Event(), threading.Event()

    def matches(request: Request) -> bool:
        asked.set()
        return go.wait(SECONDS)

    route = stage.https("api.test", b"yes", match=matches)
    if http2:
        client = tls_client(stage, ca)
        client.begin("/", "POST", ends=is_whole)
        client.flush()
        sock = client.sock
    else:
        sock = stage.tls()
        sock.sendall(
            b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n" if is_whole else UPLOAD % (b"", b"api.test")
        )
    if not is_whole:
        sock.close()
    assert asked.wait(SECONDS)
    (entry,) = stage.window.entries
    assert entry.outcome == "unrouted"
    assert entry.note == "a match= predicate has not said yet whether its route answers it"
    (activity,) = (each for each in stage.window.activities if each.route is not None)
    assert (activity.route, activity.what, activity.part) == (route, entry, "match= predicate")
    go.set()
    assert eventually(lambda: not activity.route)
    stage.settle()
    assert stage.window.entries == [entry]
    assert [e.outcome for e in stage.entries(Exchange)] == ["routed" if is_whole else "recorded"]
    assert "has not said" not in entry.note
    assert activity.part == "handler"
