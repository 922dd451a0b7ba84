"""What is noted of connections, requests, names and messages while it is asked for, and that nothing is otherwise."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_egress import websocket
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.answers import forward
from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange, TcpConnection, TlsFailure
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.notes import Notes
from tests.support.raw_websockets import HANDSHAKE
from tests.support.stage import ADDRESS, SECONDS, Stage, ask, drain, eventually

POST = b"POST /x HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture
def noting(stage: Stage) -> Stage:
    stage.ledger.accounts.notes = Notes(stage.ledger.now)
    stage.window = stage.ledger.window = Window(account=stage.ledger.accounts.open())
    return stage


def times_of(entry: Entry) -> list[float]:
    """The marks of an exchange that has ended."""
    marks = entry.marks
    assert marks is not None
    assert eventually(lambda: marks.sent is not None)
    return [getattr(marks, name) for name in ("begun", "whole", "called", "answered", "sent")]


def test_the_marks_of_each_request_are_in_order_and_share_a_connection(noting: Stage) -> None:
    noting.https("api.test", lambda request: request.content)
    sock = noting.tls()
    assert ask(sock, POST, "POST").body == b"hello"
    assert ask(sock, POST, "POST").body == b"hello"
    first, second = noting.entries(Exchange)
    for entry in (first, second):
        times = times_of(entry)
        assert times == sorted(times)
        assert times[0] == entry.started
    note = first.connection
    assert note is not None
    assert note is second.connection
    assert (note.address, note.port, note.sni, note.presented) == (ADDRESS, 443, "api.test", "")
    assert note.tls is not None
    assert note.library is not None
    moments: list[Any] = [note.opened, note.hello, note.secured]
    assert moments == sorted(moments)


def test_what_is_refused_and_what_breaks_off_has_its_connection_too(noting: Stage) -> None:
    noting.https("api.test", certificate="expired")
    ask(noting.tls("other.test"))
    with pytest.raises(OSError, match="expired"):
        noting.tls("api.test")
    (unrouted,) = noting.entries(Exchange)
    (rejected,) = noting.entries(TlsFailure)
    assert times_of(unrouted) == sorted(times_of(unrouted))
    assert rejected.connection is not None
    assert rejected.connection is not unrouted.connection
    assert rejected.connection.presented == "an expired certificate of api.test"
    assert rejected.connection.secured is None


def test_the_pieces_of_a_stream_are_messages(noting: Stage) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        yield b"four"

    noting.https("api.test", lambda request: Response(stream=pieces()))
    ask(noting.tls())
    (entry,) = noting.entries(Exchange)
    assert entry.noted is not None
    assert [(m.from_client, m.content) for m in entry.noted] == [(False, b"one"), (False, b"four")]


def test_what_passes_a_raw_socket_are_messages_both_ways(noting: Stage) -> None:
    def handler(sock: Any) -> None:
        sock.sendall(b"220 hello\r\n")
        sock.readexactly(4)
        sock.send(b"bye")

    noting.tcp(ADDRESS, handler)
    sock = noting.dial(port=5432)
    sock.sendall(b"QUIT")
    drain(sock)
    (entry,) = noting.entries(TcpConnection)
    assert entry.noted is not None
    assert [(m.from_client, m.content) for m in entry.noted] == [
        (False, b"220 hello\r\n"),
        (True, b"QUIT"),
        (False, b"bye"),
    ]
    assert entry.connection is not None


def test_the_messages_of_a_websocket_have_the_time_of_the_ledgers_clock(
    noting: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    noting.https("api.test", websocket(lambda ws: ws.send("hello")))
    monkeypatch.setattr(noting.ledger, "_epoch", noting.ledger._epoch + 1e6)
    sock = noting.tls()
    sock.sendall(HANDSHAKE)
    sock.settimeout(SECONDS)
    while b"hello" not in sock.recv(65536):
        pass
    sock.close()
    (entry,) = noting.entries(Exchange)
    times = times_of(entry)
    assert times == sorted(times)
    assert entry.started <= entry.messages[0].at <= times[-1]


def test_a_question_of_dns_has_two_marks(noting: Stage) -> None:
    noting.query("api.test")
    (entry,) = noting.entries(DnsQuery)
    assert entry.marks is not None
    assert entry.marks.answered is not None
    assert entry.marks.begun <= entry.marks.answered
    assert entry.marks.called is None


def test_nothing_is_noted_unless_it_is_asked_for(stage: Stage) -> None:
    stage.https("api.test", lambda request: Response(stream=iter([b"x"])))
    stage.tcp("192.0.2.9", b"x")
    ask(stage.tls())
    stage.query("api.test")
    for entry in (*stage.entries(Exchange), *stage.entries(DnsQuery)):
        assert (entry.marks, entry.connection, entry.noted) == (None, None, None)
        assert not {"marks", "connection", "noted"} & entry.__dict__.keys()


def test_a_request_that_a_real_server_got_has_got_out(
    stage: Stage, answering: Callable[..., str]
) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    stage.https("by-route.test", forward(answering(whole)))
    server = answering(whole)
    stage.https("by-handler.test", lambda request: request.forward(server))
    stage.https("nobody.test", forward(nobody))
    stage.https("here.test", lambda request: b"ok")
    for host in ("by-route.test", "by-handler.test", "nobody.test", "here.test"):
        ask(stage.tls(host), f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert {entry.host: entry.request._got_out for entry in stage.entries(Exchange)} == {
        "by-route.test": True,
        "by-handler.test": True,
        "nobody.test": False,
        "here.test": False,
    }
