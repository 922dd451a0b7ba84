"""Connections that wait for their client: without a thread, closed after a while, and told of where they are cut."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import trustme

from pytest_egress.base.sockets import await_ready
from pytest_egress.errors import TamperingError
from pytest_egress.gateway import connection as connection_module
from pytest_egress.gateway import connections as connections_module
from pytest_egress.gateway import dispatch
from pytest_egress.gateway.connection import Connection
from pytest_egress.gateway.connections import IDLE_THREADS
from pytest_egress.gateway.destination import Destination
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.faults import disconnect
from pytest_egress.traffic.entries import Exchange, TcpConnection, TlsFailure
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.loopback import LoopbackLink
from tests.support.stage import ADDRESS, GET, SECONDS, Stage, ask, end_of, eventually, read_reply

FEW = 3
"""Threads that a gateway may have here."""

MANY = 20
"""Connections at once."""


@pytest.fixture
def stage(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Threads wait for a moment only."""
    monkeypatch.setattr(connection_module, "PARK_SECONDS", 0.01)
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 0.2)
    return stage


@pytest.fixture
def impatient(ca: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """An idle connection is closed at once, one that has not been used never."""
    monkeypatch.setattr(connection_module, "PARK_SECONDS", 0.01)
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 0.2)
    stage = Stage(ca, idle_seconds=0.1, unused_seconds=10 * SECONDS)
    with stage.open:
        stage.gateway.start()
        yield stage
    assert not stage.window.complaints


@pytest.fixture
def narrow(ca: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """There are few threads."""
    monkeypatch.setattr(connections_module, "MAX_CONNECTIONS", FEW)
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 0.2)
    stage = Stage(ca)
    with stage.open:
        stage.gateway.start()
        yield stage
    assert not stage.window.complaints


def parked(stage: Stage, count: int = 1) -> bool:
    """Whether so many connections come to wait without a thread."""
    return eventually(lambda: len(stage.gateway.connections.parked) == count)


def connect(stage: Stage, secure: bool) -> socket.socket:
    """A connection to a host for which there is a route, whether or not it is named in a request."""
    return stage.tls() if secure else stage.dial(stage.resolve("api.test"), 80)


# More connections than threads.


@pytest.mark.slow
def test_connections_that_are_used_again_later_need_no_threads_meanwhile(narrow: Stage) -> None:
    route = narrow.https("api.test", b"yes")
    socks = [narrow.tls() for _ in range(MANY)]
    for _ in range(2):
        assert [ask(sock).body for sock in socks] == [b"yes"] * MANY
        assert parked(narrow, MANY)
    assert route.call_count == 2 * MANY
    assert not narrow.window.evicted


@pytest.mark.slow
@pytest.mark.parametrize("secure", [True, False])
def test_connections_that_are_opened_first_and_used_afterwards_are_all_answered(
    narrow: Stage, secure: bool
) -> None:
    route = narrow.https("api.test", b"yes") if secure else narrow.http("api.test", b"yes")
    socks = [connect(narrow, secure) for _ in range(MANY)]
    assert parked(narrow, MANY)
    for sock in socks:
        sock.sendall(GET)
    assert [read_reply(sock).body for sock in socks] == [b"yes"] * MANY
    assert route.call_count == MANY
    assert not narrow.window.evicted
    silent = narrow.entries(TlsFailure) if secure else narrow.entries(TcpConnection)
    assert [entry.outcome for entry in silent] == ["recorded"] * MANY


def test_a_connection_that_waits_has_no_thread(stage: Stage) -> None:
    stage.https("api.test", b"yes")
    socks = [stage.tls() for _ in range(MANY)]
    assert [ask(sock).body for sock in socks] == [b"yes"] * MANY
    assert eventually(lambda: not serving(stage))
    assert len(stage.gateway.connections) == MANY
    assert ask(socks[0]).body == b"yes"


def serving(stage: Stage) -> list[str]:
    """The names of the threads that serve a connection."""
    names = [thread.name for thread in threading.enumerate()]
    mine = [name for name in names if name.startswith(f"egress {stage.name} ")]
    return [name for name in mine if not name.endswith(" idle")]


def test_a_thread_serves_one_connection_after_the_other(stage: Stage) -> None:
    threads: list[threading.Thread] = []
    names: list[str] = []

    def handler(request: Request) -> None:
        threads.append(threading.current_thread())
        names.append(threads[-1].name)

    stage.https("api.test", handler)
    ports = []
    for _ in range(5):
        with contextlib.closing(stage.tls()) as sock:
            ports.append(sock.getsockname()[1])
            assert ask(sock).status == 200
        assert eventually(lambda: not serving(stage))
    assert len(set(threads)) == 1
    assert names == [f"egress {stage.name} {port}" for port in ports]
    stage.gateway.stop()
    assert not threads[0].is_alive()


def test_only_so_many_idle_threads_are_kept(stage: Stage) -> None:
    met = threading.Barrier(IDLE_THREADS + 10)
    stage.https("api.test", lambda request: str(met.wait(SECONDS)))
    socks = [stage.tls() for _ in range(met.parties)]
    for sock in socks:
        sock.sendall(GET)
    assert [read_reply(sock).status for sock in socks] == [200] * met.parties
    for sock in socks:
        sock.close()
    name = f"egress {stage.name} idle"

    def idle() -> int:
        return sum(thread.name == name for thread in threading.enumerate())

    assert eventually(lambda: not serving(stage) and idle() == IDLE_THREADS)


@pytest.mark.slow
def test_a_handler_that_waits_for_a_later_connection_gets_it(narrow: Stage) -> None:
    others = threading.Semaphore(0)

    def last(request: object) -> str:
        return "all" if all(others.acquire(timeout=SECONDS) for _ in range(MANY)) else "some"

    narrow.https("api.test", lambda request: others.release())
    narrow.https("api.test", last, path="/last")
    socks = [narrow.tls() for _ in range(MANY)]
    first = narrow.tls()
    first.sendall(GET.replace(b" / ", b" /last "))
    for sock in socks:
        assert ask(sock).status == 200
    assert read_reply(first).body == b"all"


# What is cut is told.


def test_what_is_cut_since_too_many_are_open_is_counted_and_fails_the_test(
    ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "MAX_OPEN", 3)
    stage = Stage(ca)
    with stage.open:
        stage.gateway.start()
        stage.https("api.test", b"yes")
        socks = [stage.tls() for _ in range(3)]
        for sock in socks:
            assert ask(sock).body == b"yes"
            stage.settle()
        for _ in range(2):
            assert ask(stage.tls()).body == b"yes"
        assert [end_of(sock) for sock in socks[:2]] == ["closed", "closed"]
        assert ask(socks[2]).body == b"yes"
    error = judge(stage.window, [])
    assert isinstance(error, TamperingError)
    assert str(error) == (
        "2 idle connections were cut to make room for others, the longest idle first: as many as 3 were open at once "
        "(MAX_OPEN, or less by `ulimit -n` and the link)\n"
        "  have the target close what it does not use, or give this process more descriptors"
    )


def test_a_link_with_little_room_has_some_for_the_next(ca: trustme.CA) -> None:
    link = LoopbackLink()
    link.most = 4  # over a stream link more than these are not even seen
    stage = Stage(ca, link)
    with stage.open:
        stage.gateway.start()
        stage.https("api.test", b"yes")
        socks = [stage.tls() for _ in range(3)]
        for sock in socks:
            assert ask(sock).body == b"yes"
            stage.settle()
        assert ask(stage.tls()).body == b"yes"
        assert end_of(socks[0]) == "closed"
    assert sum(stage.window.evicted.values()) == 1


def test_a_raw_connection_that_is_cut_for_its_thread_is_told_of_and_is_the_only_one(
    narrow: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "ROOM_SECONDS", 0)  # its thread takes longer to end
    narrow.tcp(f"{ADDRESS}:5432", b"hello")
    narrow.http("api.test", b"yes")
    raw = []
    for _ in range(FEW):
        raw.append(narrow.dial(port=5432))
        assert raw[-1].recv(5) == b"hello"
        narrow.settle()
    assert ask(narrow.dial(port=80)).body == b"yes"
    assert end_of(raw[0]) == "closed"
    ((why, count),) = narrow.window.evicted.items()
    assert count == 1
    assert why == "as many as 3 were at work at once (MAX_CONNECTIONS, or a quarter of `ulimit -n`)"


def test_what_waits_for_a_thread_at_the_end_of_its_test_is_counted(narrow: Stage) -> None:
    go_on = threading.Event()
    narrow.https("api.test", b"yes")
    narrow.https("api.test", lambda request: 200 if go_on.wait(SECONDS) else 500, path="/slow")
    late = narrow.tls()
    assert ask(late).status == 200
    busy = [narrow.tls() for _ in range(FEW)]
    assert parked(narrow, 1 + FEW)
    for sock in busy:
        sock.sendall(GET.replace(b" / ", b" /slow "))
    assert eventually(lambda: narrow.count("/slow") == FEW)
    late.sendall(GET)
    assert eventually(narrow.gateway.unread)
    narrow.gateway.turn_away()
    assert narrow.window.unrecorded == 1
    go_on.set()
    assert end_of(late) in ("closed", "reset")
    assert [read_reply(sock).status for sock in busy] == [200] * FEW


# Windows.


def test_a_request_at_a_connection_without_a_thread_is_unread_until_it_belongs_to_a_window(
    stage: Stage,
) -> None:
    stage.https("api.test")
    sock = stage.tls()
    ask(sock)
    assert parked(stage)
    with stage.ledger.changed:  # nothing can begin
        sock.sendall(GET)
        assert eventually(stage.gateway.unread)
        for _ in range(20):  # time enough for the reader to take it
            time.sleep(0.01)
            assert stage.gateway.unread()
    assert read_reply(sock).status == 200
    assert len(stage.entries(Exchange)) == 2


def test_a_request_at_a_connection_without_a_thread_belongs_to_the_window_that_is_open(
    stage: Stage,
) -> None:
    stage.https("api.test")
    sock = stage.tls()
    ask(sock)
    assert parked(stage)
    first, second = stage.window, stage.next_window()
    ask(sock)
    stage.settle()
    assert [len(window.entries) for window in (first, second)] == [1, 1]


@pytest.mark.parametrize("secure", [True, False])
def test_the_end_of_a_connection_without_a_thread_is_seen(stage: Stage, secure: bool) -> None:
    stage.http("api.test")
    stage.https("api.test")
    sock = connect(stage, secure)
    ask(sock)
    assert parked(stage)
    sock.close()
    assert eventually(lambda: not stage.gateway.connections)
    assert stage.only(Exchange).outcome == "routed"


# Idle for too long.


def test_an_idle_connection_is_closed_and_tls_is_told(impatient: Stage) -> None:
    impatient.https("api.test", b"yes")
    sock = impatient.strict_tls()
    assert ask(sock).body == b"yes"
    assert sock.recv(1) == b""  # an end without close_notify would raise
    sock.close()
    assert eventually(lambda: not impatient.gateway.connections)
    assert impatient.only(Exchange).outcome == "routed"
    assert not impatient.window.evicted


def test_an_idle_connection_without_tls_is_closed_whether_or_not_its_client_closes(
    impatient: Stage,
) -> None:
    impatient.http("api.test", b"yes")
    sock = impatient.dial(port=80)
    assert ask(sock).body == b"yes"
    assert end_of(sock) == "closed"
    assert eventually(lambda: not impatient.gateway.connections)


@pytest.mark.parametrize("secure", [True, False])
def test_a_connection_that_has_not_been_used_has_more_time(impatient: Stage, secure: bool) -> None:
    impatient.http("api.test", b"yes")
    impatient.https("api.test", b"yes")
    unused = connect(impatient, secure)
    used = impatient.tls()
    ask(used)
    assert end_of(used) == "closed"
    assert ask(unused).body == b"yes"
    assert end_of(unused) == "closed"


def test_a_request_that_comes_in_the_moment_of_the_end_is_answered(impatient: Stage) -> None:
    impatient.https("api.test", b"yes")
    sock = impatient.tls()
    for _ in range(3):
        ask(sock)
        assert parked(impatient)
        with impatient.ledger.changed:  # it is overdue, and nobody can look
            time.sleep(2 * impatient.gateway.connections.idle_seconds)
            sock.sendall(GET)
        assert read_reply(sock).body == b"yes"


def test_no_connection_is_closed_while_a_prompt_is_open(impatient: Stage) -> None:
    impatient.https("api.test", b"yes")
    sock = impatient.tls()
    ask(sock)
    impatient.ledger.enter_prompt()
    time.sleep(5 * impatient.gateway.connections.idle_seconds)
    assert ask(sock).body == b"yes"
    impatient.ledger.leave_prompt()
    assert end_of(sock) == "closed"


@pytest.mark.parametrize(("path", "outcome"), [("/", "recorded"), ("/undeclared", "unrouted")])
@pytest.mark.parametrize("secure", [True, False])
def test_a_request_that_crosses_the_end_is_recorded_as_one_that_a_route_would_have_answered(
    impatient: Stage, secure: bool, path: str, outcome: str
) -> None:
    impatient.http("api.test", b"yes", path="/")
    impatient.https("api.test", b"yes", path="/")
    sock = connect(impatient, secure)
    ask(sock)
    assert await_ready(sock, select.POLLRDHUP, SECONDS)
    sock.sendall(GET.replace(b"/", path.encode(), 1))
    assert end_of(sock) == "closed"
    _, late = impatient.entries(Exchange)
    assert (late.outcome, late.request.path) == (outcome, path)
    assert late.note == (
        "sent something in the moment in which it was closed: it had been idle for 0.1 s"
    )


def test_a_request_that_crosses_the_end_and_is_made_again_had_a_turn_of_its_own(
    stage: Stage,
) -> None:
    route = stage.https("api.test", sequence(disconnect(b"1"), b"2"))
    sock = stage.tls()
    sock.sendall(GET)
    assert read_reply(sock).body == b"1"
    (connection,) = stage.gateway.connections
    assert eventually(lambda: connection.is_ending and parked(stage))
    sock.sendall(GET[:20])
    assert parked(stage, 0)
    again = stage.tls()
    assert ask(again).body == b"2"
    sock.sendall(GET[20:])
    assert end_of(sock) == "closed"
    assert eventually(lambda: len(stage.entries(Exchange)) == 3)
    third = stage.tls()
    assert ask(third).status == 502
    outcomes = [each.outcome for each in stage.entries(Exchange)]
    assert outcomes == ["routed", "routed", "recorded", "unrouted"]
    assert route.call_count == 2


def test_how_long_a_connection_is_kept_is_announced_where_it_is_kept(stage: Stage) -> None:
    stage.https("api.test", b"yes")
    sock = stage.tls()
    headers = ask(sock).headers
    assert (headers["connection"], headers["keep-alive"]) == ("keep-alive", "timeout=15")
    last = ask(sock, b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").headers
    assert last["connection"] == "close"
    assert "keep-alive" not in last
    old = ask(stage.tls(), b"GET / HTTP/1.0\r\nHost: api.test\r\n\r\n").headers
    assert "keep-alive" not in old


def test_what_a_handler_says_of_its_connection_is_kept(stage: Stage) -> None:
    own = Response(headers={"Keep-Alive": "timeout=3, max=7"})
    stage.https("api.test", own, path="/own")
    stage.https("api.test", Response(headers={"Connection": "close"}), path="/close")
    sock = stage.tls()
    assert ask(sock, GET.replace(b" / ", b" /own ")).headers["keep-alive"] == "timeout=3, max=7"
    assert "keep-alive" not in ask(sock, GET.replace(b" / ", b" /close ")).headers
    assert end_of(sock) == "closed"


# The end of the gateway.


def test_stopping_ends_what_has_no_thread(stage: Stage) -> None:
    stage.http("api.test", b"yes")
    stage.https("api.test", b"yes")
    socks: list[socket.socket] = [stage.tls() for _ in range(MANY)]
    for sock in socks:
        ask(sock)
    socks += [connect(stage, secure=False) for _ in range(MANY)]
    assert parked(stage, 2 * MANY)
    assert stage.gateway.stop(SECONDS) == []
    assert not stage.gateway.connections
    assert [end_of(sock) for sock in socks] == ["closed"] * 2 * MANY


def test_a_connection_without_a_thread_is_cut_like_any_other(stage: Stage) -> None:
    stage.https("api.test", b"yes")
    sock = stage.tls()
    ask(sock)
    assert parked(stage)
    (connection,) = stage.gateway.connections
    connection.cut()
    assert end_of(sock) == "closed"
    assert eventually(lambda: connection.ended)
    with pytest.raises(ssl.SSLError):
        ask(sock)


def test_a_forked_child_keeps_no_waiting_connection_open(stage: Stage) -> None:
    stage.https("api.test", b"yes")
    sock = stage.strict_tls()
    ask(sock)
    assert parked(stage)
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: a fork beside threads
        child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the test is over
        os._exit(0)
    try:
        assert ask(sock).body == b"yes"  # the parent's poller has not been touched
        assert parked(stage)
        stage.gateway.stop()
        assert end_of(sock) == "closed"
    finally:
        os.close(write)
        os.waitpid(child, 0)
        os.close(read)


def test_a_request_that_tls_throws_away_at_the_end_is_recorded(stage: Stage) -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(
        ours,
        ("10.0.0.1", 1),
        lambda connection: None,
        registry=stage.gateway.connections,
        recorder=stage.gateway.recorder,
    )
    connection.destination = Destination(host="api.test", port=443)
    context = stage.gateway.authority.context("api.test", None)
    with ThreadPoolExecutor(1) as pool:
        client = pool.submit(stage.trusting.wrap_socket, theirs, server_hostname="api.test")
        connection.sock = context.wrap_socket(ours, server_side=True)
        client.result().sendall(GET)  # it has come, and nobody has looked yet
    connection.end()
    connection.tell_end()
    connection.close()
    client.result().close()
    assert "in the moment in which it was closed" in stage.only(TcpConnection).note
