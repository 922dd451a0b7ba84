"""Handlers are run here, on the thread that asks, and in the context of their route's declaration. No lock is held."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context
from typing import Any

from pytest_egress.answers import Handler, response_from
from pytest_egress.clock import run_by_real_clock
from pytest_egress.messages import Request, Response

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours


def call(handler: Handler, argument: object, context: Context) -> Any:
    """What a handler returns, awaited where it is async.

    Args:
        argument: The `Request`, or a socket.
        context: Of the route's declaration, for this call alone.
    """
    result = context.run(handler, argument)
    if inspect.isawaitable(result):
        result = context.run(run_async, result)
    return result


def answer_request(handler: Handler, request: Request, context: Context) -> Response:
    """What a handler answers; of a streamed body the first piece is made."""
    return prime(response_from(call(handler, request, context), of_function=True), context.run)


class PrimedStream:
    """A streamed body of which the first piece has been made; each piece is made in one context.

    Args:
        run: Runs a function in that context.
        first: The first piece, or none where there is no piece at all.
        rest: Makes the others.
    """

    def __init__(
        self, run: Callable[..., Any], first: Sequence[bytes], rest: Iterator[bytes]
    ) -> None:
        self._run, self._first, self._rest = run, [*first], rest

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece: bytes = self._first.pop() if self._first else self._run(next, self._rest)
        return piece

    def close(self) -> None:
        """Let a generator end its work."""
        self._run(getattr(self._rest, "close", lambda: None))


def prime(response: Response, run: Callable[..., Any]) -> Response:
    """A function's response; what it raises before the first piece of a streamed body is raised here."""
    if not isinstance(response.stream, Iterator):
        return response
    pieces = response.stream
    try:
        first = [run(next, pieces)]
    except StopIteration:
        first = []
    streaming = copy.copy(response)
    streaming.stream = PrimedStream(run, first, pieces)
    return streaming


async def await_it(awaitable: Any) -> Any:
    """The coroutine that `asyncio.run` wants of any awaitable."""
    run_by_real_clock(asyncio.get_running_loop())
    return await awaitable


def run_async(awaitable: Any) -> Any:
    """Run an async handler to its end, on a loop of its own."""
    return asyncio.run(await_it(awaitable))
