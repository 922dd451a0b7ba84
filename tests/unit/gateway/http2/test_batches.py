"""Requests that one read has brought: one worker serves them, and none holds up another."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

import pytest_egress.gateway.http2.batches as http2_batches
from pytest_egress import disconnect
from pytest_egress.base.workers import Workers
from pytest_egress.gateway.http2.batches import (
    APART_SECONDS,
    MOST_GATHERED,
    QUICK_SECONDS,
    SLOW_COUNTS,
    STUCK_SECONDS,
    Batches,
)
from pytest_egress.gateway.http2.stream import INTERNAL_ERROR
from pytest_egress.gateway.http2.wire import Http2Wire
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.http2_client import Http2Client
from tests.support.stage import ADDRESS, MEGABYTE, SECONDS, Stage, eventually

MANY = 20


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, no request is slow, nor is a worker stuck."""
    monkeypatch.setattr(http2_batches, "QUICK_SECONDS", inf)
    monkeypatch.setattr(http2_batches, "STUCK_SECONDS", 2 * SECONDS)


class HoldingHandler:
    """Answers at once, but for what it is told to wait with; notes which thread has served which request."""

    def __init__(self) -> None:
        self.goes, self.waits = threading.Event(), threading.Event()
        self.threads: dict[str, int] = {}

    def __call__(self, request: Request) -> Response | str:
        self.threads[request.path] = threading.get_ident()
        if request.path == "/wait":
            self.waits.set()
            assert self.goes.wait(SECONDS)
        if request.path == "/go":
            self.goes.set()
        if request.path == "/raise":
            raise ValueError("a defect of the test")
        if request.path == "/stream":
            return Response(stream=iter(["one", "two"]))
        if request.path == "/long":
            return "long" * 4000
        return request.path


def connect(stage: Stage, handler: Callable[[Request], object]) -> Http2Client:
    stage.http("api.test", handler)
    return Http2Client(stage.dial(ADDRESS, 80), "http")


def begin(client: Http2Client, *paths: str) -> list[int]:
    """Make requests that come at once."""
    numbers = [client.begin(path) for path in paths]
    client.flush()
    return numbers


def begin_many(stage: Stage, client: Http2Client, handler: HoldingHandler) -> list[int]:
    """Make many requests of which the first goes on when all have been read."""
    numbers = begin(client, "/wait", *(f"/{number}" for number in range(1, MANY)))
    assert eventually(lambda: len(stage.window.activities) == MANY)
    handler.goes.set()
    return numbers


@pytest.mark.usefixtures("patient")
def test_one_thread_serves_what_came_at_once(stage: Stage) -> None:
    handler = HoldingHandler()
    client = connect(stage, handler)
    numbers = begin_many(stage, client, handler)
    bodies = [client.answer(number).body for number in numbers]
    assert bodies == [b"/wait", *(b"/%d" % number for number in range(1, MANY))]
    assert len(handler.threads) == MANY
    assert len(set(handler.threads.values())) == 1
    assert all(entry.outcome == "routed" for entry in stage.entries(Exchange))


@pytest.mark.usefixtures("patient")
def test_one_write_sends_the_responses_of_what_came_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, flush, sizes = HoldingHandler(), Http2Wire.flush, []

    def counting(wire: Http2Wire) -> None:
        if handler.goes.is_set() and wire.has_unsent:
            sizes.append(len(wire._unsent))
        flush(wire)

    monkeypatch.setattr(Http2Wire, "flush", counting)
    client = connect(stage, handler)
    assert client.ask("/").status == 200  # what it sends of its own accord is on its way
    assert eventually(lambda: not stage.window.activities)
    numbers = begin_many(stage, client, handler)
    assert all(client.answer(number).status == 200 for number in numbers)
    assert len(sizes) == 1


def test_a_request_that_waits_holds_up_no_other(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.gateway.http2.server.PARK_SECONDS", 2 * SECONDS)
    handler = HoldingHandler()
    client = connect(stage, handler)
    before, *waits, behind = begin(client, "/before", *["/wait"] * MANY, "/behind")
    assert client.answer(before).body == b"/before"
    assert client.answer(behind).body == b"/behind"
    assert client.ask("/later").body == b"/later"
    client.h2.ping(b"are you?")
    client.flush()
    assert client.until(lambda: client.pongs)
    assert not any(client.answers[number].ended for number in waits)
    handler.goes.set()
    assert [client.answer(number).body for number in waits] == [b"/wait"] * MANY
    assert eventually(lambda: not stage.window.activities)


@pytest.mark.usefixtures("patient")
def test_a_request_that_waits_holds_up_no_other_when_its_client_has_ended(stage: Stage) -> None:
    handler = HoldingHandler()
    client = connect(stage, handler)
    begin(client, "/wait", "/go")
    client.sock.shutdown(socket.SHUT_WR)
    assert eventually(lambda: not len(stage.gateway.connections))
    assert [entry.outcome for entry in stage.entries(Exchange)] == ["routed"] * 2


def test_slow_requests_are_served_at_the_same_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_batches, "STUCK_SECONDS", 2 * SECONDS)
    monkeypatch.setattr(http2_batches, "QUICK_SECONDS", 0.0)
    monkeypatch.setattr(http2_batches, "APART_SECONDS", inf)
    together = threading.Barrier(MANY)

    def handler(request: Request) -> str:
        if request.path == "/meet":
            together.wait(SECONDS)
        return request.path

    client = connect(stage, handler)
    assert [client.ask("/slow").status for _ in range(2)] == [200] * 2
    assert [client.answer(n).body for n in begin(client, *["/meet"] * MANY)] == [b"/meet"] * MANY


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("path", ["/raise", "/stream"])
def test_every_kind_of_answer_may_be_among_others(stage: Stage, path: str) -> None:
    client = connect(stage, HoldingHandler())
    first, odd, last = [client.answer(number) for number in begin(client, "/a", path, "/b")]
    assert (first.body, last.body) == (b"/a", b"/b")
    assert (odd.status, odd.body) == (200, b"onetwo") if path == "/stream" else odd.status == 500


@pytest.mark.usefixtures("patient")
def test_a_body_that_would_end_its_thread_ends_no_other_request(stage: Stage) -> None:
    handler = HoldingHandler()

    def leave() -> Iterator[str]:
        yield "one"
        raise GeneratorExit("a defect of the test")

    client = connect(
        stage, lambda r: Response(stream=leave()) if r.path == "/leave" else handler(r)
    )
    numbers = begin(client, "/a", "/leave", "/b")
    first, broken, last = [client.answer(number) for number in numbers]
    assert (first.body, last.body) == (b"/a", b"/b")
    assert broken.reset == INTERNAL_ERROR
    assert eventually(lambda: not stage.window.activities)
    assert all("GeneratorExit: a defect of the test" in text for text in stage.window.complaints)
    stage.window.complaints.clear()


def test_responses_that_nobody_reads_hold_up_no_request_and_end_with_their_client(
    stage: Stage,
) -> None:
    client = connect(stage, HoldingHandler())
    client.h2.increment_flow_control_window(2 * MEGABYTE)
    assert client.ask("/").status == 200
    (connection,) = stage.gateway.connections
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    begin(client, *["/long"] * 2 * MANY)  # more than buffers hold
    assert eventually(lambda: stage.count("/long") == 2 * MANY)
    begin(client, "/later")
    assert eventually(lambda: stage.count("/later") == 1)
    assert stage.window.activities
    client.sock.shutdown(socket.SHUT_WR)
    assert eventually(lambda: not stage.window.activities)


def test_a_fault_that_ends_the_connection_lets_the_client_have_what_was_gathered(
    stage: Stage, patient: None
) -> None:
    client = connect(stage, HoldingHandler())
    stage.http("api.test", disconnect(Response(text="x" * 60_000)), path="/last")
    assert client.ask("/").status == 200
    (connection,) = stage.gateway.connections
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    (number,) = begin(client, "/last")
    assert eventually(lambda: stage.count("/last") == 1)
    assert len(client.answer(number).body) == 60_000


def test_requests_that_get_no_thread_are_reset_and_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(stage, HoldingHandler())

    def fail(job: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(stage.gateway.workers, "run", fail)
    numbers = begin(client, "/a", "/b")
    assert [client.answer(number).reset for number in numbers] == [INTERNAL_ERROR] * 2
    assert eventually(lambda: not stage.window.activities)
    (text,) = stage.window.complaints
    assert text == "target: a request was not looked at: can't start new thread"
    stage.window.complaints.clear()


# `Batches` alone, step by step.


class Scene:
    """Batches whose streams are numbers, on a clock that stands still unless a stream takes its time.

    Attributes:
        jobs: What workers are to run.
        took: How many seconds a stream takes; 0 where that is not said.
        served, closed, apart: The streams of which that is so.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.wire = Http2Wire(self.ours)
        self.now, self.took = 0.0, dict[int, float]()
        self.jobs, self.served, self.closed, self.apart = [], [], [], []  # type: ignore[var-annotated]
        self.during: dict[int, Callable[[], None]] = {}
        self.streams = {number: self.stream(number) for number in range(3 * MOST_GATHERED)}
        monkeypatch.setattr(http2_batches, "monotonic", lambda: self.now)
        workers: Any = SimpleNamespace(run=self.jobs.append)
        self.batches = Batches(self.wire, workers, self._serve, self._close, self._serve_apart)

    def stream(self, number: int) -> Any:
        return SimpleNamespace(number=number, disconnected=False)

    def serve(self, *numbers: int) -> None:
        self.batches.serve([self.streams[number] for number in numbers])

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()

    def ask(self, took: float, number: int = 0) -> bool:
        """Have a request served that takes so long; return whether it had a worker of its own."""
        self.took[number], before = took, len(self.apart)
        self.serve(number)
        self.work()
        return len(self.apart) > before

    def came(self) -> bytes:
        """What the client has got."""
        try:
            return self.theirs.recv(1 << 16)
        except BlockingIOError:
            return b""

    def _serve(self, stream: Any) -> None:
        self.served.append(stream.number)
        with self.wire.lock:
            assert self.wire.gather(b"%d " % stream.number)
        self.now += self.took.get(stream.number, 0.0)
        self.during.get(stream.number, lambda: None)()

    def _close(self, stream: Any) -> None:
        self.closed.append(stream.number)

    def _serve_apart(self, stream: Any) -> None:
        self.apart.append(stream.number)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    scene = Scene(monkeypatch)
    with scene.ours, scene.theirs:
        yield scene


def test_streams_that_come_meanwhile_have_the_same_worker(scene: Scene) -> None:
    scene.during[1] = lambda: scene.serve(3)
    scene.serve(1, 2)
    assert scene.batches.seconds_left == STUCK_SECONDS
    assert len(scene.jobs) == 1
    scene.work()
    assert scene.served == scene.closed == [1, 2, 3]
    assert scene.came() == b"1 2 3 "
    assert scene.batches.seconds_left == inf


def test_a_stream_is_closed_when_its_response_has_been_sent(scene: Scene) -> None:
    seen: list[object] = []
    scene.during[2] = lambda: seen.append((scene.came(), list(scene.closed)))
    scene.serve(1, 2)
    scene.work()
    assert seen == [(b"", [])]
    assert (scene.came(), scene.closed) == (b"1 2 ", [1, 2])


def test_a_write_sends_no_more_than_so_many_responses(scene: Scene) -> None:
    seen: list[int] = []
    scene.during[MOST_GATHERED] = lambda: seen.extend(scene.closed)
    scene.serve(*range(2 * MOST_GATHERED))
    scene.work()
    assert seen == list(range(MOST_GATHERED))
    assert scene.closed == list(range(2 * MOST_GATHERED))


def test_a_look_sends_what_a_stuck_worker_has_gathered_and_gives_out_what_waits(
    scene: Scene,
) -> None:
    seen: list[object] = []

    def stand() -> None:
        scene.batches.look()
        seen.append((scene.came(), list(scene.apart)))
        scene.now += STUCK_SECONDS
        scene.batches.look()
        seen.append((scene.came(), list(scene.apart)))
        scene.work()
        seen.append(list(scene.closed))

    scene.during[2] = stand
    scene.serve(1, 2, 3, 4)
    scene.work()
    assert seen == [(b"", []), (b"1 2 ", [3, 4]), [1]]
    assert scene.served == scene.closed == [1, 2]


def test_a_stuck_worker_takes_no_other_stream(scene: Scene) -> None:
    def stand() -> None:
        scene.now += STUCK_SECONDS
        scene.batches.look()
        scene.serve(3)

    scene.during[1] = stand
    scene.serve(1)
    scene.jobs.pop(0)()
    assert scene.served == [1]
    scene.work()
    assert scene.served == [1, 3]


def test_a_worker_that_comes_late_finds_nothing_to_do(scene: Scene) -> None:
    scene.serve(1, 2)
    scene.now += STUCK_SECONDS
    scene.batches.look()
    scene.work()
    assert (scene.served, scene.apart) == ([], [1, 2])


def test_a_slow_request_among_quick_ones_parts_none(scene: Scene) -> None:
    for _ in range(3):
        assert not scene.ask(QUICK_SECONDS)
        assert not any(scene.ask(0) for _ in range(SLOW_COUNTS))


def test_slow_requests_part_those_that_wait_and_those_that_come_soon(scene: Scene) -> None:
    scene.took = {1: QUICK_SECONDS, 2: QUICK_SECONDS}
    scene.serve(1, 2, 3)
    scene.work()
    assert (scene.served, scene.apart) == ([1, 2], [3])
    assert scene.ask(0)
    scene.now += APART_SECONDS
    assert not scene.ask(QUICK_SECONDS)  # one more slow one is enough
    assert scene.ask(0)
    scene.now += APART_SECONDS
    assert not any(scene.ask(0) for _ in range(2 * SLOW_COUNTS))
    assert not scene.ask(QUICK_SECONDS)
    assert not scene.ask(0)


def test_responses_are_sent_where_no_thread_can_be_started_for_it(scene: Scene) -> None:
    def fail(job: object) -> None:
        raise RuntimeError("can't start new thread")

    def stand() -> None:
        scene.now += STUCK_SECONDS
        scene.batches._workers = SimpleNamespace(run=fail)  # type: ignore[assignment]
        scene.batches.look()

    scene.during[2] = stand
    scene.serve(1, 2)
    scene.work()
    assert (scene.came(), scene.closed) == (b"1 2 ", [1, 2])


def test_nobody_waits_for_a_response_whose_client_has_left() -> None:
    ours, theirs = socket.socketpair()
    workers, closed = Workers("test", 1), threading.Event()
    stream: Any = SimpleNamespace(disconnected=False)
    with ours, theirs:
        wire = Http2Wire(ours)

        def serve(stream: object) -> None:
            with wire.lock:
                wire.queue(bytes(8 * MEGABYTE))

        batches = Batches(wire, workers, serve, lambda _: closed.set(), lambda _: None)
        batches.serve([stream])
        assert eventually(lambda: wire.has_unsent)
        assert not closed.is_set()
        stream.disconnected = True
        assert closed.wait(SECONDS)
    workers.stop()
