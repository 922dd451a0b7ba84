"""Calls handlers: on the asking thread, in the context of their route's declaration, holding no lock.

What an async handler awaits, and all pieces of its streamed body, run on one event loop, on the thread that answers. It
is closed when the answer has been sent: a queue or a client that the handler made belongs to it. What is awaited is
cancelled when the client leaves. A task that has failed, and that nobody has awaited, is the handler's error then.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
from collections.abc import AsyncIterable, Callable, Iterator
from contextvars import Context
from functools import partial
from typing import Any, Final

from pytest_egress.base.loops import OwnLoop, run_here
from pytest_egress.base.unset import UNSET
from pytest_egress.routes.answers import (
    Application,
    Begin,
    Handler,
    answered_by,
    held,
    line_of,
    name_of,
    place_of,
)
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.routes.faults import Fault, layers, with_answer
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.shown import shown

AT_ONCE: Final = frozenset({dict, list, str, bytes, int, tuple, type(None)})
"""The types of answers that nobody has to await."""


def call(
    handler: Handler, argument: object, context: Context, has_left: Callable[[], bool] | None = None
) -> Any:
    """Call a raw handler with its socket, and await its result where it is async.

    Args:
        context: A copy of the context of the route's declaration, for this call alone.

    Raises:
        ClientLeftError: `has_left` returned True, so that what was awaited was cancelled.
    """
    result = context.run(handler, argument)
    if inspect.isawaitable(result):
        result = context.run(run_here, result, ClientLeftError, has_left)
    return result


def answer_request(
    answer: Handler | Response, request: Request, context: Context, begin: Begin
) -> Response | Fault:
    """The response of a handler or a static answer, or the fault that the handler has returned.

    The first piece of a streamed body has been made, also within a fault. The event loop of an async answer is closed
    at once, or together with its streamed body.

    Args:
        begin: Has the head of a streamed response sent where its first piece takes long.

    Raises:
        AnsweredError: It is an application, which has raised after its answer.
        ClientLeftError: The client has left: what an async answer awaited was cancelled, or the body broke off.
    """
    if isinstance(answer, Response):
        returned: object = answer
    elif isinstance(answer, Application):
        returned = context.run(answer.answer, request, begin)
    else:
        returned = context.run(answer, request)
    if type(returned) in AT_ONCE:
        returned = answered_by(answer, returned)
    if type(returned) is Response and returned.stream is None and not returned.trailers.raw:
        return checked(returned, request)  # as a rule: no event loop is needed
    loop = OwnLoop(ClientLeftError, lambda: request.disconnected)
    try:
        made = awaited(answer, returned, context.run, loop)
        if isinstance(made, Fault):
            return failing(made, answer, context, loop)
        response = checked(prime(made, answer, context.run, loop, begin), request)
    except BaseException as error:
        loop.close(error)
        raise
    if response.stream is None:
        loop.close()
    return response


def checked(response: Response, request: Request) -> Response:
    """Raise ValueError where the body is not what the status and the fields say."""
    response.check(request.method)
    return response


def failing(fault: Fault, handler: object, context: Context, loop: OwnLoop) -> Fault:
    """A fault that a handler has returned; the first piece of a streamed body within it is made."""
    _, response = layers(fault)
    if response is not UNSET:
        response = prime(response, handler, context.run, loop, held)
    if response is UNSET or response.stream is None:
        loop.close()
    return fault if response is UNSET else with_answer(fault, response)


def awaited(
    answer: Handler | Response, returned: object, run: Callable[..., Any], loop: OwnLoop
) -> Response | Fault:
    if inspect.isawaitable(returned):
        returned = run(loop.run, returned)
    return answered_by(answer, returned)


END: Final = object()
"""The mark in the queue that follows the last piece."""


class AsyncPieces(Iterator[Any]):
    """The pieces of an async body, each made when it is asked for.

    One task makes them all, so that a generator may hold a timeout or a task group open from one piece to the next.
    """

    def __init__(self, source: AsyncIterable[Any], loop: OwnLoop) -> None:
        self.source: Final = source
        self._loop = loop
        self._made: asyncio.Queue[Any] = asyncio.Queue()
        self._wanted = asyncio.Semaphore(0)
        self._task: asyncio.Task[None] | None = None

    def __next__(self) -> Any:
        piece = self._loop.run(self._next())
        if piece is END:
            raise StopIteration
        return piece

    async def _next(self) -> Any:
        if self._task is None:
            self._task = asyncio.create_task(self._make())
            self._task.add_done_callback(lambda _: self._made.put_nowait(END))
        else:
            self._wanted.release()
        if (piece := await self._made.get()) is END:
            self._made.put_nowait(END)  # for a caller that asks again
            await self._task  # raises what the source has raised
        return piece

    async def _make(self) -> None:
        try:
            async for piece in self.source:
                self._made.put_nowait(piece)
                await self._wanted.acquire()
        finally:
            if (close := getattr(self.source, "aclose", None)) is not None:
                await close()

    def close(self) -> None:
        """End the generator, so that its `finally` runs; an exception that it raises comes through."""
        if self._task is not None:
            self._loop.run(self._end(self._task), to_its_end=True)

    async def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


class PrimedStream:
    """A streamed body whose first piece may have been made. All pieces are made in the same context.

    Args:
        encode: Makes the bytes of a piece; None where pieces are bytes or text.
        run: Runs a function in that context.
        loop: The loop of an async body; it is closed with the body.
    """

    def __init__(
        self,
        pieces: Iterator[Any],
        encode: Callable[[Any], bytes] | None,
        handler: object,
        run: Callable[..., Any],
        loop: OwnLoop,
    ) -> None:
        self._pieces, self._handler, self._run, self._loop = pieces, handler, run, loop
        self._encode = encode
        self._first: list[bytes] = []
        self.is_text = False

    def make_first(self) -> None:
        """The body is closed where it has no piece."""
        first = []
        with contextlib.suppress(StopIteration):
            first.append(self._run(next, self._pieces))
        self.is_text = bool(first) and isinstance(first[0], str)
        try:
            self._first = [self._bytes_of(piece) for piece in first]
        except (TypeError, ValueError):  # nobody else is to close it
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first:
            return self._first.pop()
        return self._bytes_of(self._run(next, self._pieces))

    def _bytes_of(self, piece: object) -> bytes:
        if self._encode is not None:
            return self._encoded(self._encode, piece)
        if isinstance(piece, str):
            return piece.encode()
        if isinstance(piece, (bytes, bytearray)):
            return bytes(piece)
        raise TypeError(
            f"{self._where} yielded {shown(piece)}: a streamed body is of bytes or str, and this is "
            f"{type(piece).__name__}"
        )

    @property
    def _where(self) -> str:
        return place_of_piece(self._pieces) or place_of(self._handler)

    def _encoded(self, encode: Callable[[Any], bytes], piece: object) -> bytes:
        try:
            return encode(piece)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{self._where} yielded {error}") from None

    def close(self) -> None:
        """The loop is closed after the generator. An exception that either raises comes through."""
        try:
            self._run(getattr(self._pieces, "close", lambda: None))
        except BaseException as error:
            self._loop.close(error)
            raise
        self._loop.close()


def prime(
    response: Response, handler: object, run: Callable[..., Any], loop: OwnLoop, begin: Begin
) -> Response:
    """Make the first piece of a streamed body, so that an error before it is raised here and can still be answered.

    An application that has sent its head alone has decided that, and is not waited for.
    """
    if response.stream is None and not response.trailers.raw:
        return response
    streaming = copy.copy(response)
    if response.stream is None:  # one that was recorded, with trailers: those follow a stream alone
        streaming.stream = (response.content,)
    is_async = isinstance(streaming.stream, AsyncIterable)
    pieces = AsyncPieces(streaming.stream, loop) if is_async else iter(streaming.stream)
    streaming.stream = body = PrimedStream(pieces, response.encode_piece, handler, run, loop)
    if response.make_trailers is not None:
        streaming.make_trailers = partial(run, response.make_trailers)
    if getattr(response.stream, "has_begun", False):
        return streaming
    with begin(streaming) as head:
        body.make_first()
    try:
        head.check()
    except BaseException:  # nobody else is to close it
        body.close()
        raise
    if body.is_text and response.encode_piece is None and not head.has_gone:
        streaming._default_type("text/plain; charset=utf-8")
    return streaming


def place_of_piece(pieces: Any) -> str:
    """Where a generator is suspended: `lines, at test_shop.py:12,`; "" for any other iterator."""
    generator = getattr(pieces, "source", pieces)
    frame = getattr(generator, "gi_frame", None) or getattr(generator, "ag_frame", None)
    return f"{name_of(generator)}, at {line_of(frame.f_code, frame.f_lineno)}," if frame else ""
