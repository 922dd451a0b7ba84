"""When the close frame of a client is answered: once the handler knows of it, so that its last answers arrive."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect

from pytest_egress.errors import WebSocketClosedError
from pytest_egress.routes.applications.asgi import AsgiApplication
from pytest_egress.routes.applications.asgi_websocket import AsgiWebSocket
from pytest_egress.routes.duplex import DuplexAnswer
from pytest_egress.routes.websocket import open as open_websocket
from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.routes.websocket.asynchronous import AsyncWebSocket
from pytest_egress.routes.websocket.open import WebSocket
from pytest_egress.traffic.websocket import Closing
from tests.support.raw_websockets import RawSide, client_of
from tests.support.stage import SECONDS, eventually
from tests.support.websocket_server import DuplexServer, serving

CLOSED = Closing(code=4001, reason="enough", reply=False)


@contextlib.contextmanager
def opened(answer: DuplexAnswer) -> Iterator[tuple[RawSide, DuplexServer]]:
    with serving(answer) as server, socket.create_connection(("127.0.0.1", server.port)) as sock:
        yield client_of(sock), server


def say(client: RawSide, *messages: str) -> None:
    """Send messages, and a close frame together with them."""
    client.send(*map(client.frames.message, messages), client.frames.close(4001, "enough"))


def answers_late(ws: WebSocket) -> None:
    for message in ws:
        assert eventually(lambda: ws.close_code == 4001)
        ws.send(str(message).upper())


async def answers_late_async(ws: AsyncWebSocket) -> None:
    async for message in ws:
        assert eventually(lambda: ws.close_code == 4001)
        await ws.send(str(message).upper())


async def answers_late_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    ws = StarletteWebSocket(scope, receive, send)
    await ws.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            message = await ws.receive_text()
            await ws.send_text(message.upper())


def asgi_answer() -> DuplexAnswer:
    return AsgiWebSocket(AsgiApplication(answers_late_asgi))


ANSWERS: dict[str, Callable[[], DuplexAnswer]] = {
    "plain": lambda: websocket(answers_late),
    "async": lambda: websocket(answers_late_async),
    "asgi": asgi_answer,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_what_came_before_a_close_frame_is_answered(answer: Callable[[], DuplexAnswer]) -> None:
    with opened(answer()) as (client, server):
        say(client, "one", "two")
        assert client.rest() == ["ONE", "TWO", CLOSED]
        call = server.call()
        assert call.done.wait(SECONDS)
        assert call.error is None
        messages = [message.content for message in call.exchange.messages]
        assert messages == ["one", "two", "ONE", "TWO"]


def test_a_handler_that_knows_of_the_end_can_send_no_more() -> None:
    told: list[BaseException] = []

    def handler(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)
        with pytest.raises(WebSocketClosedError) as caught:
            ws.send("too late")
        told.append(caught.value)
        assert go_on.wait(SECONDS)

    go_on = threading.Event()
    with opened(websocket(handler)) as (client, _):
        say(client, "one")
        assert [client.next(), client.next()] == ["one", CLOSED]  # the handler still runs
        go_on.set()
    assert [error.code for error in told if isinstance(error, WebSocketClosedError)] == [4001]


def test_a_handler_that_never_receives_holds_no_close_frame_back() -> None:
    go_on = threading.Event()

    def handler(ws: WebSocket) -> None:
        assert go_on.wait(SECONDS)

    with opened(websocket(handler)) as (client, _):
        say(client)
        assert client.next() == CLOSED
        go_on.set()


def test_a_handler_that_works_for_long_holds_it_back_for_no_longer_than_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_websocket, "CLOSE_SECONDS", 0.05)
    go_on, told = threading.Event(), []

    def handler(ws: WebSocket) -> None:
        ws.recv()
        assert go_on.wait(SECONDS)
        with pytest.raises(WebSocketClosedError):
            ws.send("too late")
        told.append("closed")

    with opened(websocket(handler)) as (client, server):
        say(client, "one")
        assert client.next() == CLOSED
        go_on.set()
        assert server.call().done.wait(SECONDS)
    assert told == ["closed"]


def test_a_handler_may_answer_it_by_a_code_of_its_own() -> None:
    def handler(ws: WebSocket) -> None:
        ws.recv()
        assert eventually(lambda: ws.close_code == 4001)
        ws.close(4005, "I too")

    with opened(websocket(handler)) as (client, _):
        say(client, "one")
        assert client.rest() == [Closing(code=4005, reason="I too", reply=False)]


def test_without_a_handler_it_is_answered_at_once() -> None:
    with opened(websocket()) as (client, _):
        say(client, "one")
        assert client.rest() == [CLOSED]
