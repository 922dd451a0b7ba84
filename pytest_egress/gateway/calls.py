"""Handlers are run here, on the thread that asks, and in the context of their route's declaration. No lock is held."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import AsyncIterable, Callable, Iterator
from contextvars import Context
from typing import Any, Final

from pytest_egress.gateway.loops import AsyncPieces, OwnLoop, run_async
from pytest_egress.routes.answers import Handler, answered_by, line_of, name_of, place_of
from pytest_egress.traffic.fields import carries_body
from pytest_egress.traffic.messages import Request, Response, check_length, shown

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours


def call(handler: Handler, argument: object, context: Context) -> Any:
    """What a handler returns, awaited where it is async.

    Args:
        argument: The socket of a raw handler.
        context: Of the route's declaration, for this call alone.
    """
    result = context.run(handler, argument)
    if inspect.isawaitable(result):
        result = context.run(run_async, result)
    return result


def answer_request(answer: Handler | Response, request: Request, context: Context) -> Response:
    """What a handler, or a static answer, gives; of a streamed body the first piece is made.

    The loop of what is async is closed with the body where that is streamed.
    """
    loop = OwnLoop()
    try:
        response = prime(ask(answer, request, context.run, loop), answer, context.run, loop)
        if response.stream is None and carries_body(request.method, response):
            check_length(response.headers, len(response.content))
    except BaseException:
        loop.close()
        raise
    if response.stream is None:
        loop.close()
    return response


def ask(
    answer: Handler | Response, request: Request, run: Callable[..., Any], loop: OwnLoop
) -> Response:
    """What a handler answers, once it has been awaited; of a static answer itself."""
    if isinstance(answer, Response):
        return answer
    result = run(answer, request)
    if inspect.isawaitable(result):
        result = run(loop.run, result)
    return answered_by(answer, result)


class PrimedStream:
    """A streamed body of which the first piece has been made; each piece is made in one context.

    Args:
        pieces: Of bytes or text.
        handler: What gave them, for an error.
        run: Runs a function in that context.
        loop: What an async body needs; it is closed with the body.
    """

    def __init__(
        self, pieces: Iterator[Any], handler: object, run: Callable[..., Any], loop: OwnLoop
    ) -> None:
        self._pieces, self._handler, self._run, self._loop = pieces, handler, run, loop
        first = []
        with contextlib.suppress(StopIteration):
            first.append(run(next, pieces))
        self.is_text: Final = bool(first) and isinstance(first[0], str)
        try:
            self._first = [self._bytes_of(piece) for piece in first]
        except TypeError:  # nobody else is to close it
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first:
            return self._first.pop()
        return self._bytes_of(self._run(next, self._pieces))

    def _bytes_of(self, piece: object) -> bytes:
        if isinstance(piece, str):
            return piece.encode()
        if isinstance(piece, (bytes, bytearray)):
            return bytes(piece)
        where = place_of_piece(self._pieces) or place_of(self._handler)
        raise TypeError(
            f"{where} yielded {shown(piece)}: a streamed body is of bytes or str, and this is "
            f"{type(piece).__name__}"
        )

    def close(self) -> None:
        """Let a generator end its work."""
        try:
            self._run(getattr(self._pieces, "close", lambda: None))
        finally:
            self._loop.close()


def prime(response: Response, handler: object, run: Callable[..., Any], loop: OwnLoop) -> Response:
    """A response whose body has begun; what the body raises before its first piece is raised here."""
    if response.stream is None:
        return response
    is_async = isinstance(response.stream, AsyncIterable)
    pieces = AsyncPieces(response.stream, loop) if is_async else iter(response.stream)
    streaming = copy.copy(response)
    streaming.stream = body = PrimedStream(pieces, handler, run, loop)
    if body.is_text:
        streaming._default_type("text/plain; charset=utf-8")
    return streaming


def place_of_piece(pieces: Any) -> str:
    """Where a generator stands: `lines, at test_shop.py:12,`; "" of what is none."""
    generator = getattr(pieces, "source", pieces)
    frame = getattr(generator, "gi_frame", None) or getattr(generator, "ag_frame", None)
    return f"{name_of(generator)}, at {line_of(frame.f_code, frame.f_lineno)}," if frame else ""
