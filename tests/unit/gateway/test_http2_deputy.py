"""Requests that are served on the thread that reads, and the deputy that takes over from it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pytest_egress.gateway.http2_deputy import Deputy, Relieved
from pytest_egress.gateway.http2_server import Http2Server
from pytest_egress.gateway.http2_stream import INTERNAL_ERROR
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.messages import Request, Response
from tests.support.http2_client import Http2Client
from tests.support.stage import ADDRESS, MEGABYTE, SECONDS, Stage, eventually

MANY = 20


@pytest.fixture
def takeovers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads of deputies that have taken over."""
    threads: list[int] = []
    take_over = Http2Server._take_over

    def noting(server: Http2Server) -> None:
        threads.append(threading.get_ident())
        take_over(server)

    monkeypatch.setattr(Http2Server, "_take_over", noting)
    return threads


def reads(thread: threading.Thread) -> bool:
    """Whether a thread is that of a connection, and no worker."""
    return not thread.name.endswith("request")


class TellingHandler:
    """Answers at once, but for what it is told to wait with; notes which requests the thread that reads has served."""

    def __init__(self) -> None:
        self.goes, self.here, self.stuck = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, request: Request) -> Response | str:
        if reads(threading.current_thread()):
            self.here.set()
        if request.path == "/wait":
            if self.here.is_set():
                self.stuck.set()
            assert self.goes.wait(SECONDS)
        if request.path == "/raise":
            raise ValueError("a defect of the test")
        if request.path == "/stream":
            return Response(stream=iter(["one", "two"]))
        if request.path == "/long":
            return "long" * 4000
        return request.path


def busy(stage: Stage, handler: TellingHandler) -> Http2Client:
    """A client that has asked so often that its requests are served on the thread that reads."""
    stage.http("api.test", handler)
    client = Http2Client(stage.dial(ADDRESS, 80), "http")
    make_busy(client, handler)
    return client


def make_busy(client: Http2Client, handler: TellingHandler) -> None:
    handler.here.clear()
    assert eventually(lambda: client.ask("/").status == 200 and handler.here.is_set())


def test_a_client_that_asks_all_the_time_is_served_on_the_thread_that_reads(stage: Stage) -> None:
    client = busy(stage, TellingHandler())
    numbers = [client.begin(f"/{number}") for number in range(MANY)]
    client.flush()
    assert [client.answer(n).body for n in numbers] == [b"/%d" % number for number in range(MANY)]
    assert all(entry.outcome == "routed" for entry in stage.entries(Exchange))


def test_a_client_that_asks_now_and_then_is_served_by_workers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.gateway.http2_server.BUSY_SECONDS", 0.0)
    handler = TellingHandler()
    stage.http("api.test", handler)
    client = Http2Client(stage.dial(ADDRESS, 80), "http")
    assert [client.ask("/").status for _ in range(MANY)] == [200] * MANY
    assert not handler.here.is_set()


def test_quick_requests_that_add_up_are_served_by_workers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.gateway.http2_server.BATCH_SECONDS", 0.0)
    handler, here = TellingHandler(), []

    def noting(request: Request) -> Response | str:
        here.append(reads(threading.current_thread()))
        return handler(request)

    stage.http("api.test", noting)
    client = Http2Client(stage.dial(ADDRESS, 80), "http")
    make_busy(client, handler)
    here.clear()
    numbers = [client.begin(f"/{number}") for number in range(MANY)]
    client.flush()
    assert [client.answer(n).body for n in numbers] == [b"/%d" % number for number in range(MANY)]
    assert len(here) == MANY
    assert not all(here)


def test_a_request_that_waits_holds_up_no_other(stage: Stage, takeovers: list[int]) -> None:
    handler = TellingHandler()
    client = busy(stage, handler)
    while not takeovers:  # a machine that stands still may have workers serve a while
        waits = [client.begin("/wait") for _ in range(MANY)]
        client.flush()
        assert client.ask("/other").body == b"/other"
        handler.goes.set()
        assert [client.answer(number).body for number in waits] == [b"/wait"] * MANY
        handler.goes.clear()
        make_busy(client, handler)


def test_a_thread_reads_again_after_its_deputy(stage: Stage, takeovers: list[int]) -> None:
    handler = TellingHandler()
    client = busy(stage, handler)
    stuck_on(client, handler, takeovers)
    handler.goes.set()
    for _ in range(3):
        make_busy(client, handler)
    assert eventually(lambda: not stage.window.activities)
    assert len(threads_of(stage)) < MANY


def threads_of(stage: Stage) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("egress target")]


def stuck_on(client: Http2Client, handler: TellingHandler, takeovers: list[int]) -> int:
    """Have a request wait on the thread that reads until its deputy has taken over; return its stream."""
    while True:
        number = client.begin("/wait")
        client.flush()
        assert client.ask("/other").body == b"/other"
        if takeovers:
            return number
        handler.goes.set()
        client.answer(number)
        handler.goes.clear()
        make_busy(client, handler)


@pytest.mark.parametrize("path", ["/raise", "/stream"])
def test_every_kind_of_answer_comes_from_the_thread_that_reads(stage: Stage, path: str) -> None:
    client = busy(stage, TellingHandler())
    numbers = [client.begin(each) for each in ("/a", path, "/b")]
    client.flush()
    first, odd, last = [client.answer(number) for number in numbers]
    assert (first.body, last.body) == (b"/a", b"/b")
    assert (odd.status, odd.body) == (200, b"onetwo") if path == "/stream" else odd.status == 500


def test_a_deputy_finds_the_end_of_the_connection(stage: Stage, takeovers: list[int]) -> None:
    handler = TellingHandler()
    client = busy(stage, handler)
    stuck_on(client, handler, takeovers)
    client.close()
    handler.goes.set()
    assert eventually(lambda: not len(stage.gateway.connections))
    exchange = [entry for entry in stage.entries(Exchange) if entry.request.path == "/wait"][-1]
    assert exchange.outcome == "routed"


def test_a_deputy_parks_an_idle_connection(
    stage: Stage, takeovers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = TellingHandler()
    client = busy(stage, handler)
    number = stuck_on(client, handler, takeovers)
    handler.goes.set()
    assert client.answer(number).body == b"/wait"
    assert eventually(lambda: bool(stage.gateway.connections.parked))
    assert client.ask("/again").body == b"/again"


def test_a_body_that_ends_its_thread_does_not_end_the_thread_that_reads(stage: Stage) -> None:
    handler, served_here = TellingHandler(), threading.Event()

    def leave() -> Iterator[str]:
        yield "one"
        if reads(threading.current_thread()):
            served_here.set()
        raise GeneratorExit("a defect of the test")

    stage.http("api.test", lambda r: Response(stream=leave()) if r.path == "/leave" else handler(r))
    client = Http2Client(stage.dial(ADDRESS, 80), "http")
    while not served_here.is_set():
        make_busy(client, handler)
        numbers = [client.begin(path) for path in ("/a", "/leave", "/b")]
        client.flush()
        first, broken, last = [client.answer(number) for number in numbers]
        assert (first.body, last.body) == (b"/a", b"/b")
        assert broken.reset == INTERNAL_ERROR
    assert eventually(lambda: not stage.window.activities)
    assert all("GeneratorExit: a defect of the test" in text for text in stage.window.complaints)
    stage.window.complaints.clear()


def test_responses_that_nobody_reads_end_with_their_client(stage: Stage) -> None:
    handler = TellingHandler()
    client = busy(stage, handler)
    client.h2.increment_flow_control_window(2 * MEGABYTE)
    (connection,) = stage.gateway.connections
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    make_busy(client, handler)
    for _ in range(2 * MANY):  # more than buffers hold
        client.begin("/long")
    client.flush()
    client.sock.shutdown(socket.SHUT_WR)
    assert eventually(lambda: stage.count("/long") == 2 * MANY)
    assert eventually(lambda: not stage.window.activities)


# `Deputy` alone.


def watched(work: Callable[[Deputy], None]) -> bool:
    """Whether a deputy has taken over from a thread that does this."""
    deputy, took_over = Deputy(threading.Lock()), []
    thread = threading.Thread(target=lambda: took_over.append(deputy.watch()))
    thread.start()
    while not deputy.begin():
        time.sleep(0.001)
    work(deputy)
    thread.join(SECONDS)
    return took_over == [True]


def test_a_deputy_takes_over_where_no_step_comes() -> None:
    def work(deputy: Deputy) -> None:
        deputy.step()
        assert eventually(lambda: deputy.has_left)
        assert not deputy.end()

    assert watched(work)


def test_a_deputy_leaves_when_nothing_is_served() -> None:
    def work(deputy: Deputy) -> None:
        deputy.step()
        assert deputy.end()
        assert eventually(lambda: deputy.has_left)
        assert not deputy.begin()

    assert not watched(work)


def test_a_deputy_leaves_when_it_is_dismissed() -> None:
    def work(deputy: Deputy) -> None:
        assert deputy.end()
        deputy.dismiss()

    assert not watched(work)


def test_the_first_thread_waits_for_the_report() -> None:
    deputy = Deputy(threading.Lock())
    deputy.report(None)
    deputy.relieve()
    assert deputy.is_awaited
    error = OSError("broken")
    deputy.report(Relieved(error))
    with pytest.raises(Relieved) as raised:
        deputy.relieve()
    assert raised.value.error is error
