"""Event loops: `LoopThread`s and `SharedLoop`s on threads of their own, and `OwnLoop`s on the thread that calls.

All that runs on a loop ends with it. What a task has raised that nobody awaits is raised where the loop is ended, if
not before.

Threads: any thread calls a `LoopThread` or a `SharedLoop`. A lock guards when a loop starts, and who uses it; nothing
of others is called while it is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar
from typing import Any, Final, Generic, TypeVar

from pytest_egress.base.clock import LOOK_SECONDS, monotonic
from pytest_egress.base.unawaited import Unawaited, first_error, is_lost

END_SECONDS: Final = 10.0  # for everything on a loop to end; then an error names it
MAX_THREADS: Final = 1000  # for what blocks; each stream of gRPC needs one for each direction
Result = TypeVar("Result")
LoopT = TypeVar("LoopT", bound="LoopThread")


class LoopThread:
    """An event loop on a thread of its own, which starts when it is first needed.

    Args:
        name: The name of the thread, and of what runs there in an error.
        left: The error of what speaks to a client that has left, which is no failure of a task that nobody awaits. None
            has asyncio log the failures of such tasks.
    """

    def __init__(self, name: str, left: type[BaseException] | None = None) -> None:
        self.name, self.left = name, left
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._unawaited: OfCalls | None = None
        self.open: set[Running[Any]] = set()
        self.errors: list[BaseException] = []
        self.stopping = asyncio.Event()
        self.is_ending = False

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        if (loop := self._loop) is not None:
            with contextlib.suppress(RuntimeError):  # closed
                loop.call_soon_threadsafe(function, *arguments)

    def later(self, seconds: float, function: Callable[[], object]) -> Callable[[], None]:
        """Call a function after so many seconds by the kernel's clock, on a thread where it may block.

        Any thread may call the function that is returned, which takes it back.
        """
        loop, timers = self._started(), []

        def start() -> None:
            timers.append(loop.call_later(seconds, loop.run_in_executor, None, function))

        loop.call_soon_threadsafe(start)
        return lambda: self.call(lambda: timers[0].cancel())

    def submit(self, function: Callable[[], object]) -> None:
        """The function is called on a thread where it may block, unless the loop has ended."""
        with contextlib.suppress(RuntimeError):  # nobody is there whom it would concern
            self.later(0, function)

    def run(
        self, make: Callable[[], Coroutine[Any, Any, Result]], context: Context
    ) -> Running[Result]:
        """`make` is called on the loop's thread; where the loop has ended, RuntimeError is raised."""
        return self.begin(Running(self, make), context)

    def begin(self, running: RunningT, context: Context) -> RunningT:
        loop = self._started()
        self.open.add(running)
        running.add_done_callback(self.open.discard)
        loop.call_soon_threadsafe(running.start, context=context)
        return running

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                if self.is_ending:
                    raise RuntimeError(f"{self.name} has ended: nothing uses it any more")
                loop = new_loop()
                loop.set_default_executor(ThreadPoolExecutor(MAX_THREADS, self.name))
                self._unawaited = None if self.left is None else OfCalls(loop)
                thread = threading.Thread(
                    target=self._run, args=[loop], name=self.name, daemon=True
                )
                try:
                    thread.start()
                except BaseException:  # no thread can be had: the next call tries again
                    loop.close()
                    raise
                self._loop, self._thread = loop, thread
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            try:
                run_to_end(loop, self.main(), self.raised)
            # What runs here has stopped the loop, or cancelled `main`.
            except BaseException as error:
                self.raised(error)
            run_to_end(loop, end_everything(), self.raised)
        finally:
            loop.close()  # from here on `begin` raises
            for running in list(self.open):  # begun too late for the loop to see
                running.set_exception(RuntimeError(f"{self.name} has ended its event loop"))

    async def main(self) -> None:
        """The loop runs until this returns."""
        await self.stopping.wait()

    def raised(self, error: BaseException) -> None:
        """The error has left the loop: KeyboardInterrupt or SystemExit of a task, or what has ended `main` early."""
        self.errors.append(error)

    def was_raised(self, error: BaseException) -> None:
        """`stop` does not raise an error that somebody gets. Called on the loop's thread."""
        self.errors = [each for each in self.errors if each is not error]

    def stop(self) -> None:
        """Cancel what runs on the loop, and end its threads. Where none has started, there is nothing to do.

        Raises:
            RuntimeError: They do not end.
            BaseException: A task has raised it that nobody awaits.
        """
        with self._lock:
            self.is_ending = True
        if self._thread is None:
            return
        self.call(self.stopping.set)
        self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError(
                f"{self.name} has not ended {END_SECONDS:g} seconds after it was told to"
            )
        if self.errors:
            raise self.errors[0]
        if self._unawaited is not None and self.left is not None:
            with contextlib.suppress(self.left):
                self._unawaited.check(self.left)


class OfCalls(Unawaited):
    """Also tells each `Running` of the tasks that its coroutine starts: their errors are its own while it runs."""

    def _task(
        self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> asyncio.Task[Any]:
        task = super()._task(loop, coro, **options)
        if (running := RUNNING.get()) is not None:
            running.adopt(task)
        return task


class Running(Future[Result]):
    """A coroutine that runs on a loop: `result` waits for it, on any thread but that of the loop.

    An exception of the coroutine is that of `result`, a cancellation too: CancelledError of asyncio.

    A task that the coroutine has started, and that fails until its end without having been awaited, is an error of it.
    """

    def __init__(self, loop: LoopThread, make: Callable[[], Coroutine[Any, Any, Result]]) -> None:
        super().__init__()
        self._on, self._make = loop, make
        self.task: asyncio.Task[None] | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order in which they began
        self._is_interrupted = False

    def start(self) -> None:
        """Called on the loop's thread, in the context that the coroutine runs in."""
        self.task = asyncio.get_running_loop().create_task(self._run(self._make))
        del self._make  # it may hold this object
        self.task.add_done_callback(self._on_end)
        if self._is_interrupted:
            self.task.cancel()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """A task that was cancelled before it had begun never ran `_run`, which settles the result."""
        if not self.done():
            self.set_exception(asyncio.CancelledError())

    async def _run(self, make: Callable[[], Coroutine[Any, Any, Result]]) -> None:
        if self._on.left is not None:
            RUNNING.set(self)
        try:
            result = await make()
            if self._tasks:
                await asyncio.sleep(0)  # the last may have yet to begin
                if (error := self._lost()) is not None:
                    raise error
            self.set_result(result)
        except asyncio.CancelledError as error:  # it may have waited for a task that had failed
            self.set_exception(self._lost() or error)
        except BaseException as error:  # SystemExit would leave the loop
            self._on.was_raised(error)
            self._lost()  # the coroutine's own error counts more
            self.set_exception(error)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        if not is_lost(task):
            self._tasks.pop(task, None)

    def _lost(self) -> BaseException | None:
        failed = [task.exception() for task in self._tasks if is_lost(task)]
        self._tasks.clear()  # those that still run are the loop's
        return first_error(failed, () if self._on.left is None else (self._on.left,))

    def interrupt(self) -> None:
        """Any thread may call this."""
        self._on.call(self.cancel_task)

    def cancel_task(self) -> None:
        """Called on the loop's thread."""
        self._is_interrupted = True
        if self.task is not None:
            self.task.cancel()


RunningT = TypeVar("RunningT", bound=Running[Any])
RUNNING: Final[ContextVar[Running[Any] | None]] = ContextVar("RUNNING", default=None)
"""That of which a task is which begins now."""


class SharedLoop(Generic[LoopT]):
    """A loop for as long as it has users. `make` makes a `LoopThread` that has not started; `name` is for errors."""

    def __init__(self, name: str, make: Callable[[], LoopT]) -> None:
        self._name, self._make = name, make
        self._lock = threading.Lock()
        self._users = 0
        self._loop = make()

    def acquire(self) -> None:
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """The last user's release ends the loop, and raises as `LoopThread.stop`. One too many is a RuntimeError."""
        with self._lock:
            if not self._users:
                raise RuntimeError(f"{self._name} is released more often than acquired")
            self._users -= 1
            if self._users:
                return
            loop, self._loop = self._loop, self._make()
        loop.stop()

    def borrow(self) -> tuple[LoopT, Callable[[], None]]:
        """The function is to be called after the one call; without a user, that has a loop of its own."""
        with self._lock:
            if self._users:
                return self._loop, lambda: None
        alone = self._make()
        return alone, alone.stop


class OwnLoop:
    """The event loop of one answer, made at the first await. One thread uses it.

    Args:
        left: The error of what speaks to a client that has left, which is no failure of a task that nobody awaits.
        has_left: Tells whether the client has left, which cancels what is awaited. None where it cancels nothing: a
            task's `left` is raised then too, since it may be about another client.
    """

    def __init__(
        self, left: type[BaseException], has_left: Callable[[], bool] | None = None
    ) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unawaited: Unawaited
        self._left, self._has_left = left, has_left
        self._excused = () if has_left is None else (left,)

    def run(self, awaitable: Any, *, to_its_end: bool = False) -> Any:
        """Tasks that an awaitable has started continue when the next one is run.

        `to_its_end` has it go on when the client leaves. Otherwise it is cancelled then, and `left` is raised.
        """
        if self._loop is None:
            self._loop = new_loop()
            self._unawaited = Unawaited(self._loop)
        loop, is_cut = self._loop, False
        task = loop.create_task(awaited(awaitable))
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal is_cut, timer
            if self._has_left is not None and self._has_left():
                is_cut = task.cancel()
            else:
                timer = loop.call_later(LOOK_SECONDS, look)

        if self._has_left is not None and not to_its_end:
            timer = loop.call_later(LOOK_SECONDS, look)
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError:
            if is_cut:
                raise self._left("the client has closed the connection") from None
            raise
        finally:
            if timer is not None:
                timer.cancel()
            task.cancel()  # where another task has raised KeyboardInterrupt or SystemExit

    def close(self, error: BaseException | None = None) -> None:
        """Cancel the tasks that still run and close the loop, as `asyncio.run` does; calling it again does nothing.

        Args:
            error: The handler's error, which counts more than those of its tasks, unless its client has left: it may
                have waited for a task that had failed.

        Raises:
            BaseException: A task has raised it: KeyboardInterrupt, SystemExit, or what nobody has awaited.
        """
        loop, self._loop = self._loop, None
        if loop is None:
            return
        raised: list[BaseException] = []
        try:
            run_to_end(loop, end_everything(), raised.append)
        finally:
            loop.close()
        if raised:
            raise raised[0]
        if error is None or isinstance(error, self._left):
            with contextlib.suppress(*self._excused):
                self._unawaited.check(self._left)


def run_here(
    awaitable: Any, left: type[BaseException], has_left: Callable[[], bool] | None = None
) -> Any:
    """Run an awaitable to its end, or until its client has left, on a loop of its own.

    An error of a task that nobody has awaited is raised too.
    """
    loop = OwnLoop(left, has_left)
    try:
        result = loop.run(awaitable)
    except BaseException as error:
        loop.close(error)
        raise
    loop.close()
    return result


async def awaited(awaitable: Any) -> Any:
    """A coroutine can be a task; other awaitables cannot."""
    return await awaitable


class Reads:
    """Calls a function that may block on a thread of the running loop, one call after the other.

    Where a call is cancelled its result is not lost: the next call gets it.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._next: asyncio.Future[Any] | None = None

    async def __call__(self) -> Any:
        if self._next is None:
            self._next = in_thread(self._function)
            self._next.add_done_callback(note_error)  # where nobody awaits it any more
        result = await asyncio.shield(self._next)
        self._next = None
        return result


def in_thread(function: Callable[[], Any]) -> asyncio.Future[Any]:
    return asyncio.get_running_loop().run_in_executor(None, function)


# Making and ending a loop.


def new_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    with contextlib.suppress(AttributeError):  # uvloop has a clock of its own
        loop.time = monotonic  # type: ignore[method-assign]  # asyncio's stops where a test freezes `time`
    loop.set_exception_handler(log_unless_raised)
    return loop


def log_unless_raised(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """KeyboardInterrupt and SystemExit of a task come out of the loop at once, and its task is never asked for them."""
    if not isinstance(context.get("exception"), (KeyboardInterrupt, SystemExit)):
        loop.default_exception_handler(context)


def run_to_end(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any],
    raised: Callable[[BaseException], object],
) -> None:
    """Run a coroutine to its end, whatever a task raises meanwhile.

    `raised` gets KeyboardInterrupt and SystemExit of any task: asyncio lets them out of the loop, besides whoever
    awaits that task.
    """
    task = loop.create_task(coroutine)
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit) as error:
            raised(error)


async def end_everything() -> None:
    """End all tasks and generators of the loop, as `asyncio.run` does, and those that appear meanwhile."""
    loop = asyncio.get_running_loop()
    cancelled: set[asyncio.Task[Any]] = set()
    await cancel_others(cancelled)
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
    await cancel_others(cancelled)


async def cancel_others(cancelled: set[asyncio.Task[Any]]) -> None:
    """Cancel every task but this one, and wait until they have ended. What they raise then is not reported.

    Those in `cancelled` have been cancelled before: doing so again would interrupt their clean-up.
    """
    while others := await other_tasks():
        for task in others - cancelled:
            task.cancel()
        cancelled |= others
        await asyncio.wait(others)  # `gather` would cancel them again where it is cancelled
        for task in others:
            note_error(task)


async def other_tasks() -> set[asyncio.Task[Any]]:
    """Tasks that close a generator which was just dropped are included."""
    for _ in range(2):  # one turn to make that task, one for it to begin
        await asyncio.sleep(0)
    return asyncio.all_tasks() - {asyncio.current_task()}


def note_error(future: asyncio.Future[Any]) -> None:
    """An exception that nobody has looked at is reported as lost by asyncio."""
    if not future.cancelled():
        future.exception()
