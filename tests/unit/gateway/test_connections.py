"""Connections that are open: their cap, who gives way, and the window of what they bring."""

from __future__ import annotations

import errno
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trustme

from pytest_egress.gateway import connections as connections_module
from pytest_egress.gateway import dispatch
from pytest_egress.gateway.server import Gateway
from pytest_egress.ledger.windows import Window
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from tests.support.loopback import LoopbackLink
from tests.support.stage import FIRST, GET, SECONDS, Stage, ask, end_of, eventually, read_reply

# Each shortens one wait alone: on a busy machine the others still have to be long enough.


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 0.3)


# Windows.


def test_a_request_belongs_to_the_window_in_which_it_begins(stage: Stage) -> None:
    stage.https("api.test")
    sock = stage.tls()
    ask(sock)
    stage.settle()
    first, stage.window = stage.window, Window()
    ask(sock)
    stage.settle()
    assert [len(window.entries) for window in (first, stage.window)] == [1, 1]


def test_a_pipelined_request_belongs_to_the_window_in_which_it_was_read(stage: Stage) -> None:
    first, second = stage.window, Window()

    def handler(request: Request) -> None:
        stage.window = second

    stage.https("api.test", handler)
    sock = stage.tls()
    sock.sendall(GET * 3)
    received = b""
    while received.count(b"HTTP/1.1 200") < 3:
        received += sock.recv(65536)
    stage.settle()
    assert (len(first.entries), len(second.entries)) == (3, 0)
    assert eventually(lambda: not first.activities)


def test_an_idle_connection_keeps_no_window_open(stage: Stage) -> None:
    stage.https("api.test")
    ask(stage.tls())
    stage.settle()  # would not return
    assert stage.gateway.connections


def test_a_request_that_has_arrived_is_unread_until_it_belongs_to_a_window(stage: Stage) -> None:
    stage.https("api.test")
    sock = stage.tls()
    ask(sock)
    stage.settle()
    with stage.ledger.changed:  # nothing can begin
        sock.sendall(GET)
        assert eventually(stage.gateway.unread)
        for _ in range(20):  # time enough for the connection's thread to take it
            time.sleep(0.01)
            assert stage.gateway.unread()
    assert read_reply(sock).status == 200


def test_a_request_that_has_begun_keeps_its_window_open(stage: Stage) -> None:
    stage.https("api.test")
    sock = stage.tls()
    ask(sock)
    stage.settle()
    sock.sendall(b"GET / HTTP/1.1\r\n")
    assert eventually(stage.window.activities.__len__)
    assert not stage.ledger.wait_for(lambda: not stage.window.activities, 0.05)
    ask(sock, b"Host: api.test\r\n\r\n")
    stage.settle()


# Many connections.


def test_at_the_cap_the_longest_idle_connection_gives_way(
    ca: trustme.CA, monkeypatch: pytest.MonkeyPatch, short_silence: None
) -> None:
    monkeypatch.setattr(connections_module, "MAX_OPEN", 3)
    stage = Stage(ca)
    with stage.open:
        stage.gateway.start()
        stage.https("api.test", b"yes")
        oldest, *others = socks = [stage.tls() for _ in range(3)]
        for sock in socks:
            assert ask(sock).body == b"yes"
            stage.settle()
        newest = stage.tls()
        assert ask(newest).body == b"yes"
        assert end_of(oldest) == "closed"
        for sock in (*others, newest):
            assert ask(sock).body == b"yes"
        assert len(stage.gateway.connections) == 3


def test_while_the_cap_is_held_names_resolve_and_the_next_waits(
    ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "MAX_CONNECTIONS", 2)
    stage, go_on = Stage(ca), threading.Event()
    with stage.open:
        stage.gateway.start()
        stage.https("api.test", lambda request: 200 if go_on.wait(SECONDS) else 500)
        busy = [stage.tls() for _ in range(2)]
        for sock in busy:
            sock.sendall(GET)
        waiting = stage.dial()
        waiting.sendall(b"\x00garbage")
        assert stage.resolve("api.test") == FIRST
        assert len(stage.gateway.connections) == 2
        go_on.set()
        assert [read_reply(sock).status for sock in busy] == [200, 200]
        assert end_of(waiting) == "reset"


def test_what_waits_at_the_cap_when_its_test_ends_is_reset_and_counted(
    ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "MAX_CONNECTIONS", 2)
    stage, go_on = Stage(ca), threading.Event()
    with stage.open:
        stage.gateway.start()
        stage.https("api.test", lambda request: 200 if go_on.wait(SECONDS) else 500)
        first, second = (stage.tls() for _ in range(2))
        first.sendall(GET)
        second.sendall(GET)
        assert eventually(lambda: len(stage.gateway.busy()) == 2)
        waiting = [stage.dial() for _ in range(3)]
        stage.gateway.turn_away()
        assert stage.window.unrecorded == 3
        assert [end_of(sock) for sock in waiting] == ["reset"] * 3
        go_on.set()
        assert [read_reply(sock).status for sock in (first, second)] == [200, 200]


def test_what_waits_for_want_of_a_descriptor_is_told_at_the_end_of_its_test(
    ca: trustme.CA,
) -> None:
    tried = threading.Event()

    class Listener(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            tried.set()
            raise OSError(errno.EMFILE, "Too many open files")

    link = LoopbackLink()
    link.tcp = tuple(Listener(fileno=sock.detach()) for sock in link.tcp)
    stage = Stage(ca, link)
    with stage.open:
        stage.gateway.start()
        stage.dial()
        assert tried.wait(SECONDS)
        stage.gateway.turn_away()
        (complaint,) = stage.window.complaints
        assert "connections were left waiting that nobody counted ([Errno 24]" in complaint
        assert "`ulimit -n`" in complaint


def test_without_a_free_descriptor_an_idle_connection_gives_way(ca: trustme.CA) -> None:
    gateways: list[Gateway] = []

    class Listener(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            if gateways[0].connections:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    link = LoopbackLink()
    link.tcp = tuple(Listener(fileno=sock.detach()) for sock in link.tcp)
    stage = Stage(ca, link)
    gateways.append(stage.gateway)
    with stage.open:
        stage.gateway.start()
        stage.https("api.test", b"yes")
        first = stage.tls()
        assert ask(first).body == b"yes"
        assert ask(stage.tls()).body == b"yes"
        assert end_of(first) == "closed"


def test_200_connections_at_once_leave_a_whole_ledger_in_order(stage: Stage) -> None:
    route = stage.https("api.test", lambda request: request.path)

    def client(number: int) -> list[bytes]:
        sock = stage.tls()
        paths = [b"/%d/%d" % (number, turn) for turn in range(3)]
        return [ask(sock, b"GET %b HTTP/1.1\r\nHost: api.test\r\n\r\n" % p).body for p in paths]

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(client, range(200)))
    assert answers == [[b"/%d/%d" % (number, turn) for turn in range(3)] for number in range(200)]
    exchanges = stage.entries(Exchange)
    assert len(exchanges) == len(stage.window.entries) == route.call_count == 600
    assert all(e.response is not None and e.outcome == "routed" for e in exchanges)
    turns: dict[str, list[str]] = {}
    for exchange in exchanges:
        _, number, turn = exchange.request.path.split("/")
        turns.setdefault(number, []).append(turn)
    assert all(order == ["0", "1", "2"] for order in turns.values())
    assert len(turns) == 200
