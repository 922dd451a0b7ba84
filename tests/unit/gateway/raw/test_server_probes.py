"""A connection that ends with no byte either way is no call of a raw route, and is recorded all the same."""

from __future__ import annotations

import contextlib
import socket
import threading
from unittest.mock import Mock

import pytest

import pytest_egress.gateway.dispatch as dispatch
import pytest_egress.gateway.raw.server as raw_server
from pytest_egress import HandlerError, NeverCalledError
from pytest_egress.base.polling import has_ended
from pytest_egress.gateway.raw.server import CUT_SILENT, NO_CALL, RawServer
from pytest_egress.gateway.tcp_info import ANYTHING, NOTHING, traffic
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward, sequence
from pytest_egress.traffic.entries import TcpConnection
from tests.support.stage import (
    ADDRESS,
    SECONDS,
    Stage,
    end_of,
    eventually,
    expects_a_message,
    greets,
    reset,
)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, a probe is there until it has closed."""
    monkeypatch.setattr(raw_server, "PROBE_SECONDS", 10)


def probe(stage: Stage, *, by_reset: bool = False) -> TcpConnection:
    """Connect, close, and wait until that has been dealt with."""
    before = len(stage.window.entries)
    client = stage.dial(port=5432)
    if by_reset:
        reset(client)
    else:
        client.close()
    assert eventually(lambda: len(stage.window.entries) > before and not stage.gateway.connections)
    entry = stage.window.entries[before]
    assert isinstance(entry, TcpConnection)
    return entry


def talk(stage: Stage, data: bytes = b"hello") -> bytes:
    """Say something, close for writing, and read to the end."""
    client = stage.dial(port=5432)
    client.settimeout(SECONDS)
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            got += piece
    return got


def answers_hello(sock: socket.socket) -> None:
    if sock.recv(100):
        sock.sendall(b"answer")


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("by_reset", [False, True])
@pytest.mark.parametrize("handler", [expects_a_message, greets, lambda sock: sock.recv(1)[0]])
def test_a_probe_is_no_call_whatever_the_handler_makes_of_it(
    stage: Stage, handler: object, by_reset: bool
) -> None:
    route = stage.tcp(ADDRESS, handler, times=1)
    entry = probe(stage, by_reset=by_reset)
    assert (entry.outcome, entry.error, entry.route) == ("recorded", None, route)
    assert entry.note.startswith(NO_CALL)
    assert entry.duration is not None
    assert route.call_count == 0
    assert isinstance(judge(stage.window, [route]), NeverCalledError)
    talk(stage)
    route.wait_for_call(timeout=SECONDS)
    assert route.call_count == 1
    assert judge(stage.window, [route]) is None


def test_what_a_handler_raised_for_a_probe_is_in_the_timeline(stage: Stage) -> None:
    stage.tcp(ADDRESS, expects_a_message)
    assert outcome_text(probe(stage)) == (
        f"TCP {ADDRESS}:5432  [connected and closed, no byte either way; its handler raised AssertionError]"
    )


def test_the_route_that_was_only_probed_says_so(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, expects_a_message)
    probe(stage)
    assert f"{NO_CALL};\n" in str(judge(stage.window, [route]))


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("answer", [None, b"welcome"])
def test_a_probe_of_a_static_answer_is_none_either(stage: Stage, answer: bytes | None) -> None:
    route = stage.tcp(ADDRESS, answer, times=1)
    assert probe(stage).note == NO_CALL
    assert route.call_count == 0
    assert talk(stage) == (answer or b"")
    assert eventually(lambda: route.call_count == 1)


def test_a_client_that_waits_at_a_route_without_an_answer_is_no_call_until_it_speaks(
    stage: Stage,
) -> None:
    route = stage.tcp(ADDRESS)
    client = stage.dial(port=5432)
    assert eventually(lambda: stage.window.entries)
    assert route.call_count == 0
    client.sendall(b"x")
    assert route.wait_for_call(timeout=SECONDS) is stage.window.entries[0]


def test_a_client_that_only_reads_is_a_call(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, lambda sock: sock.sendall(b"noon"), times=1)
    assert talk(stage, b"") == b"noon"
    route.wait_for_call(timeout=SECONDS)
    client = stage.dial(port=5432)
    client.close()
    stage.settle()
    assert [entry.outcome for entry in stage.entries(TcpConnection)] == ["routed", "unrouted"]


def test_a_client_that_resets_what_it_has_been_sent_is_a_call(stage: Stage) -> None:
    greeted = threading.Event()

    @stage.tcp(ADDRESS)
    def handler(sock: socket.socket) -> None:
        sock.sendall(b"220 mail.test\r\n")
        greeted.set()
        assert sock.recv(100) == b"hello"

    client = stage.dial(port=5432)
    assert greeted.wait(SECONDS)
    assert client.recv(1) == b"2"
    client.close()  # with something unread: a reset
    call = handler.wait_for_call(timeout=SECONDS)
    assert (call.outcome, call.error) == ("routed", None)


@pytest.mark.parametrize("sends", ["a byte", "an urgent byte", "a byte that nobody reads"])
def test_one_byte_makes_it_a_call(stage: Stage, sends: str) -> None:
    gone = threading.Event()

    def handler(sock: socket.socket) -> None:
        gone.wait(SECONDS)
        if sends != "a byte that nobody reads":
            sock.recv(1)
        raise LookupError("of the handler")

    route = stage.tcp(ADDRESS, handler, times=1)
    client = stage.dial(port=5432)
    client.send(b"x", socket.MSG_OOB if sends == "an urgent byte" else 0)
    client.close()
    gone.set()
    assert eventually(lambda: stage.window.entries and not stage.gateway.connections)
    (entry,) = stage.entries(TcpConnection)
    assert isinstance(entry.error, LookupError)
    assert isinstance(judge(stage.window, [route]), HandlerError)


def test_a_handler_that_hangs_up_has_answered(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, lambda sock: sock.close(), times=1)
    client = stage.dial(port=5432)
    assert end_of(client) == "closed"
    route.wait_for_call(timeout=SECONDS)
    assert stage.only(TcpConnection).outcome == "routed"


def test_so_has_one_that_ends_its_side_and_waits_for_the_clients(stage: Stage) -> None:
    @stage.tcp(ADDRESS, times=1)
    def handler(sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""

    client = stage.dial(port=5432)
    assert end_of(client) == "closed"
    client.close()
    handler.wait_for_call(timeout=SECONDS)


def test_what_a_handler_raises_with_a_silent_client_still_there_is_an_error(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, lambda sock: 1 / 0)
    client = stage.dial(port=5432)
    assert end_of(client) == "reset"
    assert isinstance(judge(stage.window, [route]), HandlerError)


def test_a_pools_connection_that_is_cut_unused_is_no_call(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, lambda sock: sock.recv(1)[0], times=1)
    client = stage.dial(port=5432)
    assert eventually(lambda: stage.window.entries)
    (connection,) = stage.gateway.revise(test_over=True)
    assert stage.ledger.wait_for(lambda: connection.ended, SECONDS)
    entry = stage.only(TcpConnection)
    assert (entry.outcome, entry.error) == ("recorded", None)
    assert entry.note == f"{CUT_SILENT}; its handler raised IndexError"
    assert route.call_count == 0
    client.close()


@pytest.mark.usefixtures("patience")
def test_a_sequence_begins_with_what_is_no_probe(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, sequence(b"first", b"second"))
    got = []
    for _ in range(2):
        probe(stage)
        got.append(talk(stage))
    assert got == [b"first", b"second"]
    assert eventually(lambda: route.call_count == 2)


def test_what_follows_a_probe_waits_for_it_to_give_back_its_turn(stage: Stage) -> None:
    asked, go_on = threading.Event(), threading.Event()

    @stage.tcp(ADDRESS, times=1)
    def handler(sock: socket.socket) -> None:
        if sock.recv(100):
            sock.sendall(b"answer")
        else:  # it takes its time
            asked.set()
            go_on.wait(SECONDS)

    stage.dial(port=5432).close()
    assert asked.wait(SECONDS)
    client = stage.dial(port=5432)
    client.sendall(b"hello")
    assert eventually(lambda: len(stage.gateway.connections) == 2)
    go_on.set()
    assert client.recv(100) == b"answer"
    assert [entry.outcome for entry in stage.entries(TcpConnection)] == ["recorded", "routed"]


@pytest.mark.usefixtures("patience")
def test_what_comes_beside_a_silent_connection_waits_for_it_to_prove_what_it_is(
    stage: Stage,
) -> None:
    stage.tcp(ADDRESS, answers_hello, times=1)
    spare = stage.dial(port=5432)
    assert eventually(lambda: stage.window.entries)  # and it has a while to close
    client = stage.dial(port=5432)
    client.sendall(b"hello")
    assert eventually(lambda: len(stage.gateway.connections) == 2)
    spare.close()
    assert client.recv(100) == b"answer"
    assert [entry.outcome for entry in stage.entries(TcpConnection)] == ["recorded", "routed"]


def test_what_waits_for_a_turn_goes_on_once_the_client_that_has_it_speaks(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "TURN_SECONDS", 10 * SECONDS)
    is_silent = RawServer.is_silent
    called, waits, go_on = threading.Event(), threading.Event(), threading.Event()

    def is_looked_at(server: RawServer) -> bool:
        is_so = is_silent(server)
        waits.set()
        return is_so

    monkeypatch.setattr(RawServer, "is_silent", is_looked_at)

    @stage.tcp(ADDRESS, times=1)
    def holds(sock: socket.socket) -> None:
        called.set()
        sock.recv(1)
        go_on.wait(SECONDS)

    stage.tcp("203.0.113.0/24", b"another route's")
    first = stage.dial(port=5432)
    assert called.wait(SECONDS)
    second = stage.dial(port=5432)
    assert waits.wait(SECONDS)
    first.sendall(b"x")
    second.settimeout(SECONDS / 2)
    assert second.recv(100) == b"another route's"
    go_on.set()


def test_a_sequence_waits_for_a_probe_to_give_back_its_turn(stage: Stage) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def first(sock: socket.socket) -> None:
        if sock.recv(100):
            sock.sendall(b"first")
        else:
            asked.set()
            go_on.wait(SECONDS)

    stage.tcp(ADDRESS, sequence(first, b"second"))
    stage.dial(port=5432).close()
    assert asked.wait(SECONDS)
    client = stage.dial(port=5432)
    client.sendall(b"hello")
    assert eventually(lambda: len(stage.gateway.connections) == 2)
    go_on.set()
    assert client.recv(100) == b"first"


def test_who_came_first_is_taken_up_first_whatever_their_threads_do(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination, came, go_on = stage.link.destination, threading.Semaphore(0), threading.Event()

    def late_for_the_first(sock: socket.socket) -> tuple[str, int] | None:
        came.release()
        if has_ended(sock):
            go_on.wait(SECONDS)
        return destination(sock)

    monkeypatch.setattr(stage.link, "destination", late_for_the_first)
    stage.tcp(ADDRESS, answers_hello, times=1)
    stage.dial(port=5432).close()
    assert came.acquire(timeout=SECONDS)
    client = stage.dial(port=5432)
    client.sendall(b"hello")
    assert came.acquire(timeout=SECONDS)
    go_on.set()
    assert client.recv(100) == b"answer"
    assert [entry.outcome for entry in stage.entries(TcpConnection)] == ["recorded", "routed"]


def test_of_many_probes_at_once_none_takes_the_turn_of_what_follows(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, answers_hello, times=1)
    for _ in range(60):
        stage.dial(port=5432).close()
    client = stage.dial(port=5432)
    client.sendall(b"hello")
    assert client.recv(100) == b"answer"
    route.wait_for_call(timeout=SECONDS)
    assert route.call_count == 1
    assert {entry.outcome for entry in stage.entries(TcpConnection)} == {"recorded", "routed"}


def test_a_turn_that_is_taken_again_at_once_is_that_of_who_took_it(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, times=1)
    probe, other = Mock(), Mock()
    with contextlib.ExitStack() as others:
        with route.turns.turn_of(probe) as turn:
            assert turn is not None
            route.turns.give_back(turn)
            assert others.enter_context(route.turns.turn_of(other)) == turn
        assert route.turns.may_come_free
    assert not route.turns.may_come_free


def test_a_probe_of_what_leads_to_another_server_is_no_call(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        route = stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{server.getsockname()[1]}"), times=1)
        stage.dial(port=5432).close()
        theirs, _ = server.accept()
        assert theirs.recv(1) == b""
        theirs.close()
        assert eventually(lambda: not stage.gateway.connections)
        assert stage.only(TcpConnection).note == NO_CALL
        client = stage.dial(port=5432)
        client.sendall(b"hello")
        route.wait_for_call(timeout=SECONDS)
        theirs, _ = server.accept()
        theirs.close()


def test_a_probe_of_a_server_that_cannot_be_reached_says_both(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    route = stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{port}"))
    assert probe(stage).note == (
        f"{NO_CALL}; 127.0.0.1:{port} cannot be reached: [Errno 111] Connection refused"
    )
    assert route.call_count == 0


def test_a_probe_that_no_route_claims_is_unrouted(stage: Stage) -> None:
    assert probe(stage).outcome == "unrouted"


def test_a_probe_of_a_route_of_http_or_tls_is_recorded_and_no_call(stage: Stage) -> None:
    routes = [stage.https("203.0.113.9:443"), stage.http("203.0.113.9:80", times=1)]
    routes.append(stage.tls_route("203.0.113.9:8443", times=1))
    for count, port in enumerate((443, 80, 8443), 1):
        stage.dial(port=port).close()
        assert eventually(lambda count=count: len(stage.window.entries) == count)  # type: ignore[misc]  # cannot infer
    assert {entry.outcome for entry in stage.entries(TcpConnection)} == {"recorded"}
    assert [route.lifetime_count for route in routes] == [0, 0, 0]


def test_where_the_kernel_does_not_count_it_is_a_call() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert traffic(one, NOTHING) is ANYTHING


@pytest.mark.usefixtures("patience")
def test_a_sequence_that_is_given_after_a_probe_owes_no_call_for_that(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, b"before")
    probe(stage)
    route.respond(sequence(b"a", b"b"))
    assert [talk(stage), talk(stage)] == [b"a", b"b"]
    stage.settle()
    assert judge(stage.window, [route]) is None
