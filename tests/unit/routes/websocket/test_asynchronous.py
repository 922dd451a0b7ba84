"""WebSockets for `async def` handlers."""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.routes.websocket.asynchronous import AsyncWebSocket
from tests.support.websocket_server import serving


async def echo(ws: AsyncWebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def test_an_async_handler_iterates_and_sends() -> None:
    with serving(websocket(echo)) as server:
        with connect(server.url) as client:
            for message in ("one", b"two", "three"):
                client.send(message)
                assert client.recv() == message
        call = server.call()
        assert call.done.wait(20)
    assert call.error is None
    assert [message.content for message in call.exchange.messages][::2] == ["one", b"two", "three"]


def test_it_has_the_attributes_of_a_websocket() -> None:
    told: list[Any] = []

    async def handler(ws: AsyncWebSocket) -> None:
        told.append((ws.request.path, ws.subprotocol, ws.close_code))
        await ws.ping()
        await ws.close(4000, "done")
        told.append((ws.close_code, ws.close_reason, len(ws.messages)))

    with serving(websocket(handler, ["chat"])) as server:
        with (
            connect(f"{server.url}a", subprotocols=["chat"]) as client,  # type: ignore[list-item]
            pytest.raises(ConnectionClosed, match="4000"),
        ):
            client.recv()
        assert server.call().done.wait(20)
    assert told == [("/a", "chat", None), (4000, "done", 0)]
    assert server.call().error is None


def test_recv_gives_up_in_time_and_no_message_is_lost_by_it() -> None:
    gave_up = threading.Event()

    async def handler(ws: AsyncWebSocket) -> None:
        with pytest.raises(TimeoutError, match=r"waited 0\.01 s for a message of http://ws\.test/"):
            await ws.recv(timeout=0.01)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.01)
        gave_up.set()
        await ws.send(await ws.recv())

    with serving(websocket(handler)) as server, connect(server.url) as client:
        assert gave_up.wait(20)
        client.send("kept")
        assert client.recv() == "kept"
        assert server.call().done.wait(20)
        assert server.call().error is None


def test_tasks_of_a_handler_send_while_it_waits_and_end_with_it() -> None:
    cancelled = threading.Event()

    async def ticks(ws: AsyncWebSocket) -> None:
        try:
            while True:
                await ws.send("tick")
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def handler(ws: AsyncWebSocket) -> None:
        task = asyncio.create_task(ticks(ws))
        await ws.recv()
        assert not task.done()

    with serving(websocket(handler)) as server, connect(server.url) as client:
        assert [client.recv(), client.recv()] == ["tick", "tick"]
        client.send("stop")
        assert server.call().done.wait(20)
        assert server.call().error is None
    assert cancelled.is_set()


def test_an_async_handler_may_be_a_partial() -> None:
    async def handler(room: str, ws: AsyncWebSocket) -> None:
        await ws.send(room)

    with (
        serving(websocket(functools.partial(handler, "lobby"))) as server,
        connect(server.url) as client,
    ):
        assert client.recv() == "lobby"


def test_a_client_that_leaves_ends_the_iteration_and_is_no_error() -> None:
    with serving(websocket(echo)) as server:
        with connect(server.url) as client:
            call = server.call()
            client.socket.shutdown(socket.SHUT_RDWR)
        assert call.done.wait(20)
        assert call.error is None
        assert call.exchange.websocket.close_code == 1006
