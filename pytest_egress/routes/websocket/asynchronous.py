"""`AsyncWebSocket`: a WebSocket for an `async def` handler, on an event loop of its own.

The loop runs on the thread that called the handler. Messages come by the reader of the `WebSocket`, which wakes the
loop; what waits for the client, sending and closing, runs on threads of the loop's executor.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pytest_egress.base.clock import check_seconds, monotonic
from pytest_egress.base.loops import run_here
from pytest_egress.errors import WebSocketClosedError
from pytest_egress.routes.websocket.open import OpenWebSocket
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.websocket import NORMAL, WebSocketMessage

AsyncWebSocketHandler = Callable[["AsyncWebSocket"], Awaitable[Any]]


class AsyncWebSocket:
    """A WebSocket for an `async def` handler: `async for message in ws: await ws.send(message)`.

    Its attributes are those of `WebSocket`, and its methods are that one's as coroutines.
    """

    def __init__(self, ws: OpenWebSocket) -> None:
        self._ws = ws
        self._arrived = asyncio.Event()
        self._is_listening = False

    def __repr__(self) -> str:
        return f"<Async{repr(self._ws).removeprefix('<')}"

    @property
    def request(self) -> Request:
        """The request that opened it."""
        return self._ws.request

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on, or None."""
        return self._ws.subprotocol

    @property
    def messages(self) -> list[WebSocketMessage]:
        """The messages of both directions, in order."""
        return self._ws.messages

    @property
    def close_code(self) -> int | None:
        """The code that the client closed it with, as of `WebSocket`; None while it is open."""
        return self._ws.close_code

    @property
    def close_reason(self) -> str:
        """The reason that the client closed it with, or ""."""
        return self._ws.close_reason

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Each message, until the client closes or breaks off."""
        while True:
            try:
                message = await self.recv()
            except WebSocketClosedError:
                return
            yield message

    async def recv(self, timeout: float | None = None) -> str | bytes:
        """Wait for the next message, and return it: str for a text, bytes for a binary one. It may be cancelled.

        Args:
            timeout: Seconds to wait; None is without end.

        Raises:
            WebSocketClosedError: There is no further message.
            TimeoutError: None came in time.
        """
        self._listen()
        if timeout is not None:
            check_seconds(timeout)
        end = None if timeout is None else monotonic() + timeout
        while True:
            self._arrived.clear()  # before looking: what comes meanwhile sets it again
            if (message := self._ws.take_message()) is not None:
                return message
            left = None if end is None else max(end - monotonic(), 0)
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except asyncio.TimeoutError:  # no TimeoutError on Python 3.10
                what = f"waited {timeout:g} s for a message of {self.request.shown_url}"
                raise TimeoutError(what) from None

    def _listen(self) -> None:
        """Have the reader's thread wake this event loop."""
        if self._is_listening:
            return
        self._is_listening = True
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._arrived.set)

        self._ws.listen(wake)

    async def send(self, message: str | bytes | dict[str, Any] | list[Any]) -> None:
        """Send a message, as `WebSocket.send` does."""
        await asyncio.to_thread(self._ws.send, message)

    async def ping(self, payload: bytes = b"") -> None:
        """Send a ping, as `WebSocket.ping` does."""
        await asyncio.to_thread(self._ws.ping, payload)

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close, as `WebSocket.close` does."""
        await asyncio.to_thread(self._ws.close, code, reason)


def run_handler(handler: AsyncWebSocketHandler, ws: OpenWebSocket) -> Any:
    """The event loop is the handler's own. An exception of a task that nobody has awaited is raised too."""

    async def main() -> Any:
        return await handler(AsyncWebSocket(ws))

    return run_here(main(), WebSocketClosedError)
