"""HTTP/2 under clients that stop, die, pile up or come back: each request is accounted for, and no thread stays."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator

import h2.errors
import pytest
import trustme

from pytest_egress import Request, Response
from pytest_egress.gateway import connection as connection_module
from pytest_egress.gateway import patience
from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.http.http2 import MAX_STREAMS
from tests.support.http2_client import Http2Client
from tests.support.stage import SECONDS, Stage, client_context, drain, eventually, reset

STALL = 0.3
Connect = Callable[[], Http2Client]


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "LINGER_SECONDS", 0.05)


@pytest.fixture
def connect(stage: Stage, ca: trustme.CA) -> Connect:
    """Connects by TLS and ALPN."""
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    return lambda: Http2Client(stage.tls(context=context))


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What handlers wait for; it opens when the test ends."""
    event = threading.Event()
    yield event
    event.set()


def threads_of(stage: Stage) -> list[str]:
    """The threads that serve connections and requests of the stage's target, but for those that are kept idle."""
    names = {thread.name for thread in threading.enumerate()} - {f"egress {stage.name} idle"}
    return [name for name in names if name.startswith(f"egress {stage.name} ")]


def exchanges(stage: Stage) -> list[Exchange]:
    """The requests that have been recorded so far."""
    with stage.ledger.changed:
        return [entry for entry in stage.window.entries if isinstance(entry, Exchange)]


def begun(client: Http2Client, count: int, **said: object) -> list[int]:
    """Begin so many requests at once."""
    numbers = [client.begin(f"/{number}", **said) for number in range(count)]  # type: ignore[arg-type]
    client.flush()
    return numbers


# Clients that stop.


def test_a_body_that_stalls_is_an_attempt_with_what_came_and_holds_no_other_back(
    stage: Stage, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "STALL_SECONDS", STALL)
    route, client = stage.https("api.test", b"yes"), connect()
    number = client.begin("/slow", "POST", ends=False)
    client.h2.send_data(number, b"hello")
    client.flush()
    answer = client.answer(number)
    assert answer.status == 408
    assert client.ask("/other").body == b"yes"
    slow = next(each for each in exchanges(stage) if each.request.path == "/slow")
    assert slow.note == "the client sent nothing for 0.3 s after 5 bytes of a body"
    assert (slow.outcome, slow.request.content) == ("recorded", b"hello")
    assert route.call_count == 1


@pytest.mark.parametrize(
    "size", [1, 12, -1], ids=["in its head", "in its block", "to be continued"]
)
@pytest.mark.parametrize("before", [0, 1])
def test_a_head_that_stalls_is_recorded(
    stage: Stage, connect: Connect, monkeypatch: pytest.MonkeyPatch, size: int, before: int
) -> None:
    monkeypatch.setattr(patience, "STALL_SECONDS", STALL)
    monkeypatch.setattr("pytest_egress.gateway.http2.server.FIRST_REQUEST_SECONDS", STALL / 2)
    stage.https("api.test", b"yes")
    client = connect()
    for _ in range(before):
        client.ask()
    client.begin()
    head = bytearray(client.h2.data_to_send())
    if size == -1:
        head[4] &= ~0x4  # END_HEADERS
    client.sock.sendall(head[: size if size > 0 else len(head)])
    drain(client.sock)  # to its end, and sends no more
    notes = [entry.note for entry in stage.entries(TcpConnection)]
    assert "the client sent nothing for 0.3 s within the head of a request" in notes


def test_a_prompt_is_no_stall_of_a_stream(
    stage: Stage, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "STALL_SECONDS", STALL)
    stage.https("api.test", lambda request: request.content)
    client = connect()
    stage.ledger.enter_prompt()
    number = client.begin("/", "POST", ends=False)
    client.flush()
    time.sleep(3 * STALL)
    client.h2.send_data(number, b"hello", end_stream=True)
    client.flush()
    assert client.answer(number).body == b"hello"
    stage.ledger.leave_prompt()


# Clients that die.


@pytest.mark.parametrize("leave", [reset, socket.socket.close], ids=["reset", "closed"])
def test_a_client_that_dies_within_many_streams_leaves_their_entries_and_no_thread(
    stage: Stage, connect: Connect, gate: threading.Event, leave: Callable[[socket.socket], None]
) -> None:
    def handler(request: Request) -> bytes:
        gate.wait(SECONDS)
        return b"late"

    stage.https("api.test", handler)
    client = connect()
    begun(client, 40)
    begun(client, 20, method="POST", ends=False)
    assert eventually(lambda: len(exchanges(stage)) == 40)
    leave(client.sock)
    gate.set()
    assert eventually(lambda: len(exchanges(stage)) == 60 and not stage.window.activities)
    assert eventually(lambda: not threads_of(stage))
    outcomes = sorted(entry.outcome for entry in exchanges(stage))
    assert outcomes == ["recorded"] * 20 + ["routed"] * 40
    assert not list(stage.gateway.connections)


def test_a_client_that_dies_within_streamed_answers_ends_their_bodies(
    stage: Stage, connect: Connect
) -> None:
    closed: list[str] = []

    def endless(path: str) -> Iterator[bytes]:
        try:
            while True:
                yield bytes(1000)
        finally:
            closed.append(path)

    stage.https("api.test", lambda request: Response(stream=endless(request.path)))
    client = connect()
    client.reads = False
    numbers = begun(client, 30)
    assert client.until(lambda: all(client.answers[number].status for number in numbers))
    reset(client.sock)
    assert eventually(lambda: len(closed) == 30)
    assert eventually(lambda: not threads_of(stage))


# Windows.


def test_the_streams_of_a_test_that_is_over_are_cut_and_the_next_has_none_of_them(
    stage: Stage, connect: Connect, gate: threading.Event
) -> None:
    def handler(request: Request) -> bytes:
        if request.headers.get("x-waits"):
            gate.wait(SECONDS)
        return b"yes"

    stage.https("api.test", handler)
    client = connect()
    waiting = begun(client, 30, headers=[("x-waits", "1")])
    halves = begun(client, 30, method="POST", ends=False)
    assert eventually(lambda: len(exchanges(stage)) == 30 and len(stage.window.activities) == 60)
    first, activities = stage.window, list(stage.window.activities)
    second = stage.next_window()
    for activity in activities:
        activity.cut()
    for number in (*waiting, *halves):
        assert client.answer(number).reset == h2.errors.ErrorCodes.CANCEL
    assert client.ask("/next").body == b"yes"
    gate.set()
    assert eventually(lambda: not first.activities)
    assert len([entry for entry in first.entries if isinstance(entry, Exchange)]) == 60
    stage.settle()
    assert [entry.request.path for entry in second.entries if isinstance(entry, Exchange)] == [
        "/next"
    ]


def test_what_arrives_as_a_window_closes_is_in_it_or_in_the_next(
    stage: Stage, connect: Connect
) -> None:
    stage.https("api.test", b"yes")
    client, windows, asked = connect(), [stage.window], 0
    for number in range(40):
        begun(client, 5)
        asked += 5
        if number % 4 == 0:
            stage.settle()
            windows.append(stage.next_window())
    assert client.until(lambda: sum(each.ended for each in client.answers.values()) == asked)
    stage.settle()
    entries = [e for window in windows for e in window.entries if isinstance(e, Exchange)]
    assert len(entries) == asked
    assert not any(window.activities for window in windows)


# Many.


def test_thousands_of_streams_of_one_connection_are_all_answered(
    stage: Stage, connect: Connect
) -> None:
    route = stage.https("api.test", lambda request: request.path)
    client = connect()
    for _ in range(30):
        for number in begun(client, MAX_STREAMS):
            assert client.answer(number).status == 200
    assert route.call_count == 30 * MAX_STREAMS
    assert eventually(lambda: not stage.window.activities)


def test_more_streams_than_threads_wait_and_are_answered(
    stage: Stage, connect: Connect, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.gateway.workers, "_most", 10)
    running: list[str] = []

    def handler(request: Request) -> bytes:
        running.append(request.path)
        gate.wait(SECONDS)
        return b"yes"

    stage.https("api.test", handler)
    clients = [connect() for _ in range(3)]
    numbers = [begun(client, 20) for client in clients]
    assert eventually(lambda: len(running) == 10 and len(stage.window.activities) == 60)
    gate.set()
    for client, each in zip(clients, numbers, strict=True):
        assert all(client.answer(number).body == b"yes" for number in each)
    assert len(exchanges(stage)) == 60


def test_a_stream_that_waits_for_a_thread_and_is_reset_meanwhile_is_recorded(
    stage: Stage, connect: Connect, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.gateway.workers, "_most", 1)

    def handler(request: Request) -> bytes:
        gate.wait(SECONDS)
        return b"yes"

    stage.https("api.test", handler)
    client = connect()
    first, second, third = begun(client, 3)
    assert eventually(lambda: len(stage.window.activities) == 3)
    client.h2.reset_stream(second)
    client.flush()
    gate.set()
    assert client.answer(first).body == client.answer(third).body == b"yes"
    assert eventually(lambda: len(exchanges(stage)) == 3)
    assert eventually(lambda: not stage.window.activities)


def test_many_connections_with_many_streams_end_in_any_order(
    stage: Stage, connect: Connect
) -> None:
    stage.https("api.test", lambda request: request.content)
    rng, clients = random.Random(7), []
    whole = halves = 0
    for _ in range(12):
        clients.append(client := connect())  # one that asked for nothing within a second is told of
        whole += len(begun(client, rng.randrange(1, 40)))
        halves += len(begun(client, rng.randrange(1, 40), method="POST", ends=False))
    assert eventually(lambda: len(exchanges(stage)) == whole)
    for client in rng.sample(clients, len(clients)):
        rng.choice([reset, socket.socket.close])(client.sock)
    assert eventually(lambda: len(exchanges(stage)) == whole + halves)
    assert eventually(lambda: not threads_of(stage) and not stage.window.activities)
    stage.settle()
    others = [entry for entry in stage.window.entries if not isinstance(entry, Exchange)]
    assert [(str(entry), entry.note) for entry in others] == []


def test_an_idle_connection_of_http_2_is_cut_where_too_many_are_open(
    stage: Stage, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.https("api.test", b"yes")
    clients = [connect() for _ in range(4)]
    for client in clients:
        client.ask()
        assert eventually(lambda: not stage.window.activities)  # so that the first is idle longest
    assert eventually(lambda: len(stage.gateway.connections.parked) == 4)
    monkeypatch.setattr(stage.gateway.connections, "_most_open", 4)
    late = connect()
    assert late.ask().body == b"yes"
    assert clients[0].until(lambda: clients[0].closed) or clients[0].closed
    assert clients[3].ask().body == b"yes"
    assert stage.window.evicted
    stage.window.evicted.clear()


def test_a_gateway_that_stops_within_streams_ends_them(
    stage: Stage, connect: Connect, gate: threading.Event
) -> None:
    stage.https("api.test", lambda request: str(gate.wait(SECONDS)))
    client = connect()
    begun(client, 10)
    begun(client, 10, method="POST", ends=False)
    assert eventually(lambda: len(exchanges(stage)) == 10)
    gate.set()
    stage.gateway.stop(SECONDS)
    assert eventually(lambda: not threads_of(stage))
