"""`websocket`: the answer of a route that opens WebSockets, and what becomes of a handler's call.

A handler runs on the thread that calls `WebSocketAnswer.converse`. It is a call of its route once the handshake is
answered, and keeps no window open from then on, as a raw connection does.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import Final, NoReturn

from pytest_egress.base.unset import UNSET
from pytest_egress.errors import WebSocketClosedError
from pytest_egress.routes.answers import place_of, takes, unwrapped
from pytest_egress.routes.duplex import ClientLeftError, Conversation, Duplex, DuplexAnswer
from pytest_egress.routes.faults import Disconnect, End, Fault, Raw, Reset, Silence, shown_answer
from pytest_egress.routes.websocket.asynchronous import AsyncWebSocket, run_handler
from pytest_egress.routes.websocket.open import OpenWebSocket, WebSocket
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response, reason_phrase
from pytest_egress.traffic.shown import shown
from pytest_egress.traffic.websocket import (
    INTERNAL_ERROR,
    OpeningError,
    accept,
    check_subprotocols,
)

WebSocketHandler = Callable[[WebSocket], object] | Callable[[AsyncWebSocket], Awaitable[object]]

NOT_SENT: Final = (
    *(str, bytes, bytearray, dict, list, tuple, Response),
    *(GeneratorType, AsyncGeneratorType),
)
"""Types of return values that show a mistake: the handler's author expects them to be sent."""


def websocket(
    handler: WebSocketHandler | End | None = None, subprotocols: Sequence[str] = ()
) -> WebSocketAnswer:
    """Answer a route's requests by opening a WebSocket, over HTTP/1.1 (RFC 6455) or HTTP/2 (RFC 8441).

    Args:
        handler: A function of the `WebSocket`, which is closed when it returns; an `async def` gets an
            `AsyncWebSocket`. It may return a fault, by which the WebSocket ends without a close frame: `reset()`,
            `disconnect()`, `silence()` or `raw(...)`; or be that fault, which then follows the handshake. Without one
            the WebSocket stays open for the test, which sends by `route.wait_for_call().send(...)`.
        subprotocols: The subprotocols that the handler speaks, the best one first. The first that the client offers
            too is agreed on.

    Raises:
        TypeError, ValueError: An argument is refused; the text quotes it and lists what is accepted.
    """
    check_handler(handler)
    return WebSocketAnswer(handler, check_subprotocols(subprotocols))


def check_handler(handler: object) -> None:
    """None stands for the test itself. A handler that cannot be called with a WebSocket raises TypeError."""
    if isinstance(handler, Fault):
        if not is_end(handler):
            raise TypeError(NO_END.format(f"websocket({handler})", handler))
        return
    if handler is None or (
        callable(handler) and not isinstance(handler, type) and takes(handler, 1)
    ):
        return
    raise TypeError(
        f"websocket({handler!r}): it takes a function of one argument, the WebSocket; without one, the test sends "
        "and closes"
    )


NO_END: Final = (
    "{0}: a WebSocket ends by reset(), disconnect(), silence(...) or raw(...), and {1} is none of these; what goes "
    "before is sent by ws.send(...), and delayed, throttled and truncated are put around websocket(...)"
)
"""The error about another fault than the ends of a WebSocket; the fault, where it was found, comes before it."""


def is_end(fault: object) -> bool:
    is_bare = getattr(fault, "answer", UNSET) is UNSET
    return isinstance(fault, (Reset, Disconnect, Silence, Raw)) and is_bare


class WebSocketAnswer(DuplexAnswer):
    """An answer that opens WebSockets, many at once: for a function, for the test (None), or to end them by a fault."""

    def __init__(
        self, handler: WebSocketHandler | End | None, subprotocols: tuple[str, ...]
    ) -> None:
        self.handler, self.subprotocols = handler, subprotocols

    def __repr__(self) -> str:
        given = [] if self.handler is None else [shown_answer(self.handler)]
        given += [f"subprotocols={[*self.subprotocols]!r}"] if self.subprotocols else []
        return f"websocket({', '.join(given)})"

    def refusal(self, request: Request) -> tuple[Response, str] | None:
        return refusal_of(request)

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
        handshake = accept(request, self.subprotocols)
        messages, is_bounded = conversation.exchange.messages, self.handler is not None
        ws = OpenWebSocket(
            duplex,
            request,
            handshake,
            messages,
            conversation.account,
            now=conversation.now,
            refuse=conversation.note_unreadable,
            is_bounded=is_bounded,
        )
        if isinstance(self.handler, End):
            ws.fall_silent()  # before anything comes that would be answered
        with opened(ws, conversation):
            if self.handler is None:
                ws.wait_until_over()
            elif isinstance(self.handler, End):
                fail(self.handler, ws, conversation)
            elif (fault := call(self.handler, ws, conversation)) is not None:
                fail(fault, ws, conversation)


def refuse(response: Response, duplex: Duplex, conversation: Conversation) -> None:
    """Send a response that opens no WebSocket."""
    conversation.exchange.response = response
    conversation.count()
    with contextlib.suppress(ClientLeftError):
        duplex.respond(response)


def refusal_of(request: Request) -> tuple[Response, str] | None:
    """None for a handshake of a WebSocket."""
    try:
        accept(request)
    except OpeningError as error:
        text = f"pytest-egress: {error}\n"
        return Response(error.status_code, headers=error.headers.raw, text=text), str(error)
    return None


@contextlib.contextmanager
def opened(
    ws: OpenWebSocket, conversation: Conversation, server: OpenWebSocket | None = None
) -> Iterator[None]:
    """Answer a handshake, so that the WebSocket is open within the `with` block, and closed at its end.

    The call is counted before its client can know of it; what a test sends from then on waits for the handshake.

    Args:
        server: The WebSocket to a real server, which ends with its test as well.
    """
    exchange, handshake = conversation.exchange, ws.handshake
    reason = reason_phrase(handshake.status_code)
    exchange.response = Response.received(handshake.status_code, handshake.headers, reason=reason)
    exchange.websocket = ws
    conversation.count()
    try:
        ws.open()
        conversation.detach(partial(ws.go_away, server))
        yield
    except BaseException as error:
        conversation.note_error(error)  # before the client can know: its test may end by that
        ws.close(INTERNAL_ERROR, ascii(f"the handler raised {type(error).__name__}")[1:-1][:100])
        raise
    finally:
        ws.end()


def fail(fault: End, ws: OpenWebSocket, conversation: Conversation) -> NoReturn:
    """Nothing is sent of the protocol any more."""
    ws.fall_silent()
    conversation.fail(fault, lambda: ws.is_dismissed)


def call(handler: WebSocketHandler, ws: OpenWebSocket, conversation: Conversation) -> End | None:
    """A client that has ended the WebSocket is no error of the handler's."""
    try:
        is_async = inspect.iscoroutinefunction(unwrapped(handler))
        result = conversation.run(*((run_handler, handler) if is_async else (handler,)), ws)
        check_result(handler, result)
        return result if isinstance(result, End) else None
    except WebSocketClosedError as error:
        if not (ws.is_lost and ws.has_raised(error)):  # else it is about another WebSocket
            raise
        return None


def check_result(handler: object, result: object) -> None:
    """A value that was returned to be sent raises TypeError, and so does a coroutine that nobody has awaited."""
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(
            f"{place_of(handler)} returned a coroutine: give websocket() the async function itself, or a "
            "functools.partial of it"
        )
    if isinstance(result, Fault) and not is_end(result):
        raise TypeError(NO_END.format(f"{place_of(handler)} returned {result}", result))
    if isinstance(result, NOT_SENT):
        raise TypeError(
            f"{place_of(handler)} returned {shown(result)}: a handler of a WebSocket sends by ws.send(...)"
        )
