"""The event loop of an async handler: one for each answer, on the thread that answers.

All that the handler awaits and all pieces of its streamed body run on this loop. The loop is closed when the answer has
been sent: a queue or a client that the handler made belongs to it. What is awaited is cancelled when the client leaves.
A task that has failed, and that nobody has awaited, is the handler's error when the loop is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any, Final

from pytest_egress.base.loops import close_loop, new_loop
from pytest_egress.base.unawaited import Unawaited
from pytest_egress.ledger.windows import stays
from pytest_egress.routes.duplex import ClientLeftError

LOOK_SECONDS: Final = 0.05  # between two looks at whether a client has left


class OwnLoop:
    """The event loop of one answer, made at the first await. One thread uses it.

    Args:
        has_left: Tells whether the client has left.
    """

    def __init__(self, has_left: Callable[[], bool] = stays) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unawaited: Unawaited
        self._has_left = has_left

    def run(self, awaitable: Any, *, to_its_end: bool = False) -> Any:
        """Await something. Tasks that it started continue when the next awaitable is run.

        Args:
            to_its_end: Whether it goes on when the client leaves.

        Raises:
            ClientLeftError: The client has left, and the awaitable was cancelled therefore.
        """
        if self._loop is None:
            self._loop = new_loop()
            self._unawaited = Unawaited(self._loop)
        if to_its_end:
            return self._loop.run_until_complete(awaited(awaitable))
        watch = Watch(self._loop.create_task(awaited(awaitable)), self._has_left)
        return watch.run(self._loop)

    def close(self, error: BaseException | None = None) -> None:
        """Cancel the tasks that still run and close the loop, as `asyncio.run` does; calling it again does nothing.

        Args:
            error: The handler's error, which counts more than those of its tasks, unless its client has left: it may
                have waited for a task that had failed.

        Raises:
            BaseException: A task has raised it that nobody has awaited.
        """
        loop, self._loop = self._loop, None
        if loop is None:
            return
        close_loop(loop)
        if error is None or isinstance(error, ClientLeftError):
            with contextlib.suppress(ClientLeftError):  # of a task that has read or sent
                self._unawaited.check(ClientLeftError)


class Watch:
    """Cancels a task when the client leaves."""

    def __init__(self, task: asyncio.Task[Any], has_left: Callable[[], bool]) -> None:
        self._task, self._has_left = task, has_left
        self._is_cut = False

    def run(self, loop: asyncio.AbstractEventLoop) -> Any:
        """Run the task to its end.

        Raises:
            ClientLeftError: It was cancelled.
        """
        self._look_later(loop)
        try:
            return loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            if self._is_cut:
                raise ClientLeftError("the client has closed the connection") from None
            raise
        finally:
            self._timer.cancel()
            self._task.cancel()  # where another task has raised KeyboardInterrupt or SystemExit

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(LOOK_SECONDS, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._has_left():
            self._is_cut = True
            self._task.cancel()
        else:
            self._look_later(loop)


async def awaited(awaitable: Any) -> Any:
    """Wrap any awaitable in a coroutine, which `run_until_complete` can cancel as a task."""
    return await awaitable


def run_async(awaitable: Any, has_left: Callable[[], bool] = stays) -> Any:
    """Run an async handler to its end, or until its client has left, on a loop of its own.

    Raises:
        BaseException: What the handler raised, or a task of its that nobody has awaited.
    """
    loop = OwnLoop(has_left)
    try:
        result = loop.run(awaitable)
    except BaseException as error:
        loop.close(error)
        raise
    loop.close()
    return result


END: Final = object()
"""The mark in the queue that follows the last piece."""


class AsyncPieces(Iterator[Any]):
    """The pieces of an async body, each made when it is asked for.

    One task makes them all, so that a generator may hold a timeout or a task group open from one piece to the next.

    Attributes:
        source: The async generator, or whatever iterates.
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
