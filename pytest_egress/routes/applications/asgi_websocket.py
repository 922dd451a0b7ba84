"""WebSockets of ASGI applications: the `websocket` scope of the ASGI specification (3.0).

The application runs on the event loop of its `AsgiApplication`. What it sends goes out on threads of that loop, which
may wait for the client, one message after the other: each `send` of the application returns when its message has gone
out. The thread that called `converse` opens the WebSocket, and waits for the application's end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from pytest_egress.base.loops import in_thread
from pytest_egress.base.raising import at_hand, claim, is_claimed
from pytest_egress.errors import WebSocketClosedError
from pytest_egress.routes.applications.asgi import (
    AppCall,
    AppEnded,
    AppThread,
    AsgiApplication,
    Message,
    response_of,
    scope_of,
)
from pytest_egress.routes.duplex import ClientLeftError, Conversation, Duplex, DuplexAnswer
from pytest_egress.routes.websocket.answer import opened, refusal_of
from pytest_egress.routes.websocket.open import OpenWebSocket
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.websocket import (
    BROKEN_OFF,
    NO_CODE,
    NORMAL,
    accept,
    can_be_sent,
    items,
)

# With 2.4 an application may count on an OSError where it sends to a client that has left.
ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
DISCONNECT: Final = "websocket.disconnect"
DENIAL: Final = "websocket.http.response"
"""The extension by which an application refuses a handshake with a response of its own."""


class AsgiWebSocket(DuplexAnswer):
    """The answer of an ASGI application to a request that opens a WebSocket.

    Its application is acquired and released by the route, as the application's own answer is.
    """

    def __init__(self, application: AsgiApplication) -> None:
        self._application = application

    def refusal(self, request: Request) -> tuple[Response, str] | None:
        return refusal_of(request)

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
        def begin() -> tuple[AsgiSocket, Callable[[], None]]:
            return self._application.begin(partial(AsgiSocket, request))

        asgi_socket, let_go = conversation.run(begin)
        try:
            answer(asgi_socket, request, duplex, conversation)
        finally:
            let_go()


def answer(
    asgi_socket: AsgiSocket, request: Request, duplex: Duplex, conversation: Conversation
) -> None:
    """Answer the handshake as the application says, and send what it sends, until its end."""
    try:
        first = asgi_socket.next_item(lambda: duplex.disconnected)
    except ClientLeftError:
        asgi_socket.disconnect()
        first = asgi_socket.items.get()
        if isinstance(first, AppEnded) and (
            first.error is None or asgi_socket.has_ended_by(first.error)
        ):
            raise
    if isinstance(first, AppEnded):
        raise first.error or RuntimeError(
            f"{asgi_socket.thread.name} ended before it accepted or closed"
        )
    if isinstance(first, Response):
        send_denial(first, duplex, conversation)
        asgi_socket.disconnect()
        if (error := asgi_socket.items.get().error) is not None:
            raise error
        return
    wanted = [] if first.subprotocol is None else [first.subprotocol]
    handshake = accept(request, wanted)
    fields = Headers([*handshake.headers.raw, *first.headers.raw])
    agreed = replace(handshake, headers=fields, subprotocol=first.subprotocol)
    ws = OpenWebSocket(
        duplex,
        request,
        agreed,
        conversation.exchange.messages,
        conversation.account,
        now=conversation.now,
        refuse=conversation.note_unreadable,
    )
    with opened(ws, conversation):
        asgi_socket.accepted(ws)
        error = asgi_socket.items.get().error
        if error is not None and not (ws.is_lost and asgi_socket.has_ended_by(error)):
            raise error


def send_denial(response: Response, duplex: Duplex, conversation: Conversation) -> None:
    """The response is the application's."""
    conversation.count()
    with contextlib.suppress(ClientLeftError):
        duplex.respond(response)


def is_disconnect(value: object) -> bool:
    """Whether a value is the event that tells an application of the end of its WebSocket."""
    return type(value) is dict and value.get("type") == DISCONNECT


@dataclass(frozen=True, kw_only=True)
class Accept:
    subprotocol: str | None
    headers: Headers


class AsgiSocket(AppCall):
    """One WebSocket of an ASGI application. Its `items` are `Accept` or a `Response`, and the `AppEnded`."""

    def __init__(self, request: Request, thread: AppThread) -> None:
        self._opened, self._arrived = asyncio.Event(), asyncio.Event()
        super().__init__(request, thread, self._opened, self._arrived)
        self._mark: Final = object()
        self._turn = asyncio.Lock()
        self._ws: OpenWebSocket | None = None
        self._is_connected = self._is_decided = False
        self._denial: Response | None = None
        self._denied = bytearray()

    # For the thread that serves the client.

    def accepted(self, ws: OpenWebSocket) -> None:
        self._ws = ws
        ws.listen(lambda: self.thread.call(self._wake))
        self.thread.call(self._opened.set)
        self.thread.call(self._wake)

    def disconnect(self) -> None:
        """The application's refusal has been sent, or the client has left before the application said anything."""
        self.thread.call(self.leave)

    def has_ended_by(self, error: BaseException) -> bool:
        """Whether an application raised because its client had left, and not about a server behind it.

        It is our error, or what a framework has made of that, or what was raised where the event of the end had come.
        """
        is_framework = type(error).__name__ == "WebSocketDisconnect"
        cause = error.__context__ if is_framework else error
        if cause is not None and is_claimed(cause, self._mark):
            return True
        is_made = isinstance(error, ConnectionError) and error.errno is None  # not by the kernel
        return (is_framework or is_made) and any(map(is_disconnect, at_hand(error)))

    # For the loop.

    def _wake(self) -> None:
        self._arrived.set()
        if self._ws is not None and self._ws.is_over:
            self.leave()

    # What the application calls.

    def _scope(self, state: dict[str, Any]) -> dict[str, Any]:
        scope = scope_of(self.request, state)
        del scope["method"]
        return {
            **scope,
            "type": "websocket",
            "asgi": dict(ASGI),
            "scheme": "wss" if self.request.scheme == "https" else "ws",
            "subprotocols": items(self.request.headers.get("sec-websocket-protocol", "")),
            "extensions": {DENIAL: {}},
        }

    async def _receive(self) -> Message:
        if not self._is_connected:
            self._is_connected = True
            return {"type": "websocket.connect"}
        await self._opened.wait()
        while True:
            self._arrived.clear()  # before looking: what comes meanwhile sets it again
            message = self._taken()
            if message is not None:
                return message
            await self._arrived.wait()

    def _taken(self) -> Message | None:
        if self._ws is None or self._cut is not None:  # refused, or ended
            return {"type": DISCONNECT, "code": BROKEN_OFF, "reason": ""}
        try:
            content = self._ws.take_message()
        except WebSocketClosedError as error:
            return {"type": DISCONNECT, "code": error.code, "reason": error.reason}
        if content is None:
            return None
        return {
            "type": "websocket.receive",
            "text" if isinstance(content, str) else "bytes": content,
        }

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind.startswith(f"{DENIAL}."):
            await self._deny(kind, message)
        elif not self._is_decided and kind == "websocket.accept":
            self._is_decided = True
            headers = response_of({"status": 200, "headers": message.get("headers", ())}).headers
            self.items.put(Accept(subprotocol=message.get("subprotocol"), headers=headers))
            await self._opened.wait()
        elif not self._is_decided and kind == "websocket.close":
            await self._decline(Response(403))
        elif self._is_decided and kind == "websocket.send":
            content = content_of(message)
            await self._act(lambda ws: ws.send(content))
        elif self._is_decided and kind == "websocket.close":
            await self._close(message)
        else:
            raise RuntimeError(f"{self.thread.name} sent {kind!r} out of turn")

    async def _close(self, message: Message) -> None:
        code, reason = message.get("code", NORMAL), message.get("reason") or ""
        code = NORMAL if code == NO_CODE or not can_be_sent(code) else code
        with contextlib.suppress(ConnectionError):
            await self._act(lambda ws: ws.close(code, reason))

    async def _act(self, act: Callable[[OpenWebSocket], None]) -> None:
        """Do something with the WebSocket on a thread that may wait for the client, in the order of the calls."""
        async with self._turn:
            if self._ws is None:  # refused, or the client has left
                await asyncio.sleep(0)  # lets the loop cancel an application that sends endlessly
                return
            try:
                await in_thread(partial(act, self._ws))
            except WebSocketClosedError as error:
                left = ConnectionError(str(error))
                claim(left, self._mark)
                raise left from None

    async def _decline(self, response: Response) -> None:
        self._is_decided = True
        self.items.put(response)
        await self._opened.wait()

    async def _deny(self, kind: str, message: Message) -> None:
        if kind.endswith(".start") and not self._is_decided and self._denial is None:
            self._denial = response_of(message)
            return
        if not kind.endswith(".body") or self._denial is None or self._is_decided:
            raise RuntimeError(f"{self.thread.name} sent {kind!r} out of turn")
        self._denied += message.get("body", b"")
        if not message.get("more_body", False):
            head = self._denial
            fields = head.headers.raw
            await self._decline(
                Response(head.status_code, headers=fields, content=bytes(self._denied))
            )


def content_of(message: Message) -> str | bytes:
    text, data = message.get("text"), message.get("bytes")
    return text if text is not None else bytes(data or b"")
