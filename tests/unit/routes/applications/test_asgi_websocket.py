"""WebSockets of ASGI applications: what arrives in them, what comes out, refusals and errors."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fastapi
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from pytest_egress.routes.applications.asgi import asgi
from pytest_egress.routes.applications.asgi_websocket import AsgiWebSocket
from tests.support.stage import reset
from tests.support.websocket_server import DuplexServer, serving


@contextmanager
def served(app: Any) -> Iterator[DuplexServer]:
    """Serve an application's WebSockets; it is used by one route meanwhile."""
    application = asgi(app)
    application.acquire()
    try:
        with serving(AsgiWebSocket(application)) as server:
            yield server
    finally:
        application.release()


def starlette(endpoint: Any) -> Starlette:
    return Starlette(routes=[WebSocketRoute("/", endpoint)])


def test_an_application_of_starlette_speaks() -> None:
    async def echo(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_json({"hello": ws.url.path})
        await ws.send_bytes(await ws.receive_bytes())
        await ws.send_text(await ws.receive_text())
        await ws.close(4001, "enough")

    with served(starlette(echo)) as server, connect(server.url) as client:
        assert client.recv() == '{"hello":"/"}'
        client.send(b"\0bytes")
        assert client.recv() == b"\0bytes"
        client.send("text")
        assert client.recv() == "text"
        with pytest.raises(ConnectionClosed, match="4001"):
            client.recv()
        call = server.call()
        assert call.done.wait(20)
        assert call.error is None
        assert [message.content for message in call.exchange.messages][-2:] == ["text", "text"]


def test_an_application_of_fastapi_speaks_until_its_client_leaves() -> None:
    app, left = fastapi.FastAPI(), threading.Event()

    @app.websocket("/rooms/{room}")
    async def chat(ws: fastapi.WebSocket, room: str, user: str = "nobody") -> None:
        await ws.accept()
        try:
            async for text in ws.iter_text():
                await ws.send_text(f"{room}/{user}: {text}")
        finally:
            left.set()

    with served(app) as server:
        with connect(f"{server.url}rooms/lobby") as client:
            client.send("hi")
            assert client.recv() == "lobby/nobody: hi"
        assert left.wait(20)
        assert server.call().done.wait(20)
        assert server.call().error is None


def test_the_scope_is_that_of_the_request() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["pool"] = 5
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        scopes.append(scope)
        assert await receive() == {"type": "websocket.connect"}
        fields = [(b"X-Room", b"lobby")]
        await send({"type": "websocket.accept", "subprotocol": "chat", "headers": fields})
        assert (await receive())["type"] == "websocket.disconnect"

    offered: Any = ["other", "chat"]
    with served(app) as server:
        with connect(f"{server.url}a%20b", subprotocols=offered) as client:
            assert client.subprotocol == "chat"
            assert client.response is not None
            assert client.response.headers["X-Room"] == "lobby"
        assert server.call().done.wait(20)
    (scope,) = scopes
    assert (scope["type"], scope["scheme"], scope["path"]) == ("websocket", "ws", "/a b")
    assert scope["subprotocols"] == ["other", "chat"]
    assert scope["state"] == {"pool": 5}
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert "method" not in scope


def test_a_refusal_is_403_or_the_response_of_the_application() -> None:
    async def closes(ws: WebSocket) -> None:
        await ws.close()

    async def denies(ws: WebSocket) -> None:
        await ws.send_denial_response(PlainTextResponse("who are you?", 401))

    for endpoint, status, body in ((closes, 403, b""), (denies, 401, b"who are you?")):
        with served(starlette(endpoint)) as server:
            with pytest.raises(InvalidStatus) as refused, connect(server.url):
                pass
            response = refused.value.response
            assert (response.status_code, response.body or b"") == (status, body)
            assert server.calls[0].done.wait(20)
            assert server.calls[0].counted.is_set()
            assert server.calls[0].error is None


def test_an_application_that_raises_closes_with_1011() -> None:
    async def fails(ws: WebSocket) -> None:
        await ws.accept()
        raise ZeroDivisionError(await ws.receive_text())

    with served(starlette(fails)) as server, connect(server.url) as client:
        client.send("mine")
        with pytest.raises(ConnectionClosed, match="1011"):
            client.recv()
        assert server.call().done.wait(20)
        assert isinstance(server.call().error, ZeroDivisionError)


def test_an_application_that_ends_before_it_accepts_is_an_error_that_says_so() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    with served(app) as server:
        with pytest.raises(Exception), connect(server.url):  # noqa: B017 - the connection breaks off
            pass
        assert server.calls[0].done.wait(20)
        with pytest.raises(RuntimeError, match="ended before it accepted or closed"):
            raise server.calls[0].error or AssertionError


def test_a_client_that_leaves_is_no_error_of_an_application_that_reads_or_sends() -> None:
    async def reads(ws: WebSocket) -> None:
        await ws.accept()
        while True:
            await ws.receive_text()  # raises WebSocketDisconnect

    async def sends(ws: WebSocket) -> None:
        await ws.accept()
        while True:
            await ws.send_text("x" * 1000)

    for endpoint in (reads, sends):
        with served(starlette(endpoint)) as server:
            with connect(server.url):
                pass
            assert server.call().done.wait(20)
            assert server.call().error is None


def test_an_application_that_waits_elsewhere_is_cancelled_after_its_client_has_left() -> None:
    cancelled = threading.Event()

    async def waits(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with served(starlette(waits)) as server:
        with connect(server.url):
            pass
        assert server.call().done.wait(20)
        assert server.call().error is None
    assert cancelled.is_set()


def test_what_an_application_sends_at_once_goes_out_in_its_order() -> None:
    async def sends(ws: WebSocket) -> None:
        await ws.accept()
        await asyncio.gather(*(ws.send_text(str(number)) for number in range(50)))

    with served(starlette(sends)) as server, connect(server.url) as client:
        assert [client.recv() for _ in range(50)] == [str(number) for number in range(50)]


def test_the_end_of_the_test_closes_with_1001_and_the_application_is_told() -> None:
    codes: list[int] = []

    async def waits(ws: WebSocket) -> None:
        await ws.accept()
        message = await ws.receive()
        codes.append(message["code"])

    with served(starlette(waits)) as server, connect(server.url) as client:
        call = server.call()
        assert call.end is not None
        call.end()
        with pytest.raises(ConnectionClosed, match="1001"):
            client.recv()
        assert call.done.wait(20)
    assert codes == [1001]


def test_what_comes_out_of_turn_is_an_error_that_names_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.send", "text": "too early"})

    with served(app) as server:
        with pytest.raises(Exception), connect(server.url):  # noqa: B017 - the connection breaks off
            pass
        assert server.calls[0].done.wait(20)
        with pytest.raises(RuntimeError, match=r"sent 'websocket\.send' out of turn"):
            raise server.calls[0].error or AssertionError


class WebSocketDisconnect(Exception):
    """The end of a WebSocket to a server of the application's own."""


def asks_a_server_that_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    socket.create_connection(("127.0.0.1", port), 20)


def asks_a_server_that_closes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.getsockname()[1], 20)
        client.request("GET", "/")
        sock, _ = server.accept()
        with sock:
            sock.recv(65536)
        client.getresponse()


def asks_a_server_that_resets() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        sock, _ = server.accept()
        reset(sock)
        client.recv(1)


def asks_by_a_websocket() -> None:
    raise WebSocketDisconnect(1006)


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (asks_a_server_that_refuses, ConnectionRefusedError),
        (asks_a_server_that_closes, http.client.RemoteDisconnected),
        (asks_a_server_that_resets, ConnectionResetError),
        (asks_by_a_websocket, WebSocketDisconnect),
    ],
)
def test_an_error_about_a_server_of_its_own_is_not_excused_by_the_end_of_its_client(
    ask: Callable[[], None], error: type[Exception]
) -> None:
    async def asks_in_the_end(ws: WebSocket) -> None:
        await ws.accept()
        message = await ws.receive()
        assert message["type"] == "websocket.disconnect"
        ask()

    with served(starlette(asks_in_the_end)) as server:
        with connect(server.url):
            pass
        assert server.call().done.wait(20)
        assert isinstance(server.call().error, error)


def test_an_application_may_raise_that_its_client_has_left() -> None:
    async def raises(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        if message["type"] == "websocket.disconnect":
            raise ConnectionError("the client has left")

    async def sends(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "x" * 1000})

    for app in (raises, sends):
        with served(app) as server:
            with connect(server.url):
                pass
            assert server.call().done.wait(20)
            assert server.call().error is None
