"""A task that an async handler starts and nobody awaits fails the test, whatever the handler answers."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.stage import ADDRESS, GET, SECONDS, Stage, ask, end_of, reset
from tests.support.websocket_clients import websocket_client

ERROR = LookupError("in a task")


async def fail() -> None:
    raise ERROR


async def fail_later() -> None:
    await asyncio.sleep(0)
    raise ERROR


def fail_in_callback() -> None:
    raise ERROR


KEPT: list[asyncio.Task[None]] = []


def kept_task() -> None:
    KEPT.append(asyncio.create_task(fail()))


STARTS: dict[str, Callable[[], object]] = {
    "dropped": lambda: asyncio.create_task(fail()),
    "kept": kept_task,
    "callback": lambda: asyncio.get_running_loop().call_soon(fail_in_callback),
    "future": lambda: asyncio.get_running_loop().create_future().set_exception(ERROR),
}
each_start = pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Any:
    """What the test is told of is not logged as lost."""
    yield
    KEPT.clear()
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]


@each_start
def test_a_request_fails_whose_handler_has_started_it(
    stage: Stage, start: Callable[[], object]
) -> None:
    async def handler(request: Request) -> str:
        start()
        return "ok"

    stage.http(ADDRESS, handler)
    assert ask(stage.dial(ADDRESS, 80)).status == 500
    assert stage.only(Exchange).error is ERROR


@each_start
def test_a_body_that_streams_ends_and_its_request_fails(
    stage: Stage, start: Callable[[], object]
) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "one"
        start()
        await asyncio.sleep(0.01)
        yield "two"

    stage.http(ADDRESS, handler)
    assert ask(stage.dial(ADDRESS, 80)).body == b"onetwo"
    assert stage.only(Exchange).error is ERROR


def test_a_task_that_fails_while_its_handler_waits_for_it_in_vain_is_told_of(stage: Stage) -> None:
    async def handler(request: Request) -> Response:
        queue: asyncio.Queue[str] = asyncio.Queue()
        task = asyncio.create_task(fail_later())

        async def made() -> AsyncIterator[str]:
            yield "first"
            yield await queue.get()
            await task

        return Response(stream=made())

    stage.http(ADDRESS, handler)
    sock = stage.dial(ADDRESS, 80)
    sock.sendall(GET)
    sock.settimeout(SECONDS)
    data = b""
    while b"first" not in data:
        data += sock.recv(4096)
    reset(sock)
    assert stage.only(Exchange).error is ERROR


def test_the_handlers_own_error_counts_more(stage: Stage) -> None:
    own = ValueError("of the handler")

    async def handler(request: Request) -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(0.01)
        assert task.done()
        raise own

    stage.http(ADDRESS, handler)
    assert ask(stage.dial(ADDRESS, 80)).status == 500
    assert stage.only(Exchange).error is own


def test_what_somebody_has_awaited_or_cancelled_is_no_error(stage: Stage) -> None:
    async def handler(request: Request) -> str:
        awaited = asyncio.create_task(fail())
        done, _ = await asyncio.wait([awaited])
        results = await asyncio.gather(fail(), *done, return_exceptions=True)
        cancelled, still = asyncio.create_task(asyncio.sleep(60)), asyncio.create_task(fail_later())
        cancelled.cancel()
        still.cancel()
        asyncio.create_task(asyncio.sleep(60))  # noqa: RUF006 - it is the loop's to end
        return str(len(results))

    stage.http(ADDRESS, handler)
    assert ask(stage.dial(ADDRESS, 80)).body == b"2"
    assert stage.only(Exchange).error is None


def test_a_task_whose_client_has_left_is_no_error(stage: Stage) -> None:
    has_read = threading.Event()

    async def handler(request: Request) -> str:
        async def read() -> None:
            pieces = request.stream()
            has_read.set()
            await asyncio.to_thread(lambda: [*pieces])

        task = asyncio.create_task(read())
        await asyncio.wait([task])
        return "ok"

    stage.http(ADDRESS, handler, stream=True)
    sock = stage.dial(ADDRESS, 80)
    sock.sendall(b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nhe")
    assert has_read.wait(SECONDS)
    sock.close()
    assert stage.only(Exchange).error is None


@each_start
def test_a_raw_connection_fails_whose_handler_has_started_it(
    stage: Stage, start: Callable[[], object]
) -> None:
    async def handler(sock: socket.socket) -> None:
        await asyncio.to_thread(sock.sendall, b"hello")
        start()

    stage.tcp(f"{ADDRESS}:5432", handler)
    sock = stage.dial(ADDRESS, 5432)
    assert sock.recv(5) == b"hello"
    assert end_of(sock) == "reset"
    assert stage.only(TcpConnection).error is ERROR


@each_start
def test_a_websocket_fails_whose_handler_has_started_it(
    stage: Stage, start: Callable[[], object]
) -> None:
    async def handler(ws: Any) -> None:
        start()
        await asyncio.sleep(0.01)

    stage.http("api.test", websocket(handler))
    with websocket_client(stage, secure=False) as client, pytest.raises(ConnectionClosed) as caught:
        client.recv(SECONDS)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1011
    assert stage.only(Exchange).error is ERROR


def test_a_websocket_that_waits_for_a_task_in_vain_is_told_of_it(stage: Stage) -> None:
    async def handler(ws: Any) -> None:
        asyncio.create_task(fail_later())  # noqa: RUF006 - nobody awaits it
        async for _ in ws:
            pass
        await ws.recv()

    stage.http("api.test", websocket(handler))
    with websocket_client(stage, secure=False):
        pass
    assert stage.only(Exchange).error is ERROR


def test_a_task_that_sends_to_a_websocket_that_is_over_is_no_error(stage: Stage) -> None:
    async def handler(ws: Any) -> None:
        async def send() -> None:
            while True:
                await ws.send("tick")

        task = asyncio.create_task(send())
        async for _ in ws:
            pass
        await asyncio.wait([task])

    stage.http("api.test", websocket(handler))
    with websocket_client(stage, secure=False):
        pass
    assert stage.only(Exchange).error is None
