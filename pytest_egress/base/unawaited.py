"""`Unawaited`: what the tasks and callbacks of an event loop raise that nobody awaits. asyncio logs it, and goes on.

A handler whose task fails has failed, whether or not it awaits that task: the test is told.

Threads: the loop's thread uses everything; `check` may be called when the loop has been closed.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterable
from typing import Any


class Unawaited:
    """Nothing has run yet on `loop`. With `of_transports`, what a protocol's own callbacks raise counts too."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        told: Callable[[], object] = lambda: None,
        *,
        of_transports: bool = False,
    ) -> None:
        self._told, self._of_transports = told, of_transports
        self._raised: list[BaseException] = []
        # In the order in which they began, as a set has none.
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], None] = (
            weakref.WeakKeyDictionary()
        )
        loop.set_exception_handler(self._keep)
        loop.set_task_factory(self._task)

    def _keep(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            return  # it has left the loop already
        if error is None or ("transport" in context and not self._of_transports):
            loop.default_exception_handler(context)
            return
        self._raised.append(error)
        self._told()

    def _task(
        self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **options)
        self._tasks[task] = None
        return task

    def check(self, *lesser: type[BaseException]) -> None:
        """Raise the first error; one of the types `lesser` where there is no other. A task that still runs has none."""
        # A task whose error nobody has asked for: asyncio logs it when the task is dropped, which may be later.
        failed = (task.exception() for task in [*self._tasks] if is_lost(task))
        error = first_error((*self._raised, *failed), lesser)
        self._raised = []
        if error is not None:
            raise_again(error)


def is_lost(task: asyncio.Task[Any]) -> bool:
    """Whether a task has raised, and nobody has asked for that yet."""
    return bool(task._log_traceback)


def first_error(
    errors: Iterable[BaseException | None], lesser: tuple[type[BaseException], ...]
) -> BaseException | None:
    there = [error for error in errors if error is not None]
    return min(there, key=lambda error: isinstance(error, lesser), default=None)


def raise_again(error: BaseException) -> None:
    """Raise an error that was raised before, as it was: without what is being handled now as its context."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
