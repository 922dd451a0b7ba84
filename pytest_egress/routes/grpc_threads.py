"""The threads of a `grpc_server`: the event loop of its async servicers, and the order in which threads send.

Threads: any thread calls a `Loop`, which has one of its own while calls need one, and further ones for what blocks.
`Turns` has a lock, which is held for its own fields alone: nothing is called meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar

from pytest_egress.base.clock import run_by_real_clock
from pytest_egress.routes.asgi import end_everything
from pytest_egress.routes.unawaited import Unawaited, first_of, is_lost

END_SECONDS: Final = 10.0  # for everything to end; then an error names the server
MAX_THREADS: Final = (
    1000  # for what blocks; each stream of an async servicer needs one for each direction
)
Result = TypeVar("Result")


class OverError(Exception):
    """The call is over: nothing can be sent any more."""


class Turns:
    """Lets one thread at a time send, and one thread end the call: the first that wants to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed: threading.Condition | None = None  # made by the first thread that waits
        self._taken = self._over = False
        self._last: Callable[[], None] | None = None

    @property
    def over(self) -> bool:
        """Whether the call has ended."""
        return self._over

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other thread sends.

        Raises:
            OverError: The call has ended.
        """
        with self._lock:
            if self._taken and not self._over:
                self._changed = self._changed or threading.Condition(self._lock)
                self._changed.wait_for(lambda: self._over or not self._taken)
            if self._over:
                raise OverError
            self._taken = True
        try:
            yield
        finally:
            with self._lock:
                self._taken = False
                last, self._last = self._last, None
                self._wake()
            if last is not None:
                last()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.notify_all()

    def end(self, last: Callable[[], None]) -> bool:
        """End the call; False where it has ended before.

        Args:
            last: Sends the status. It is called here; while another thread sends, that one calls it afterwards.
        """
        with self._lock:
            if self._over:
                return False
            self._over = True
            self._wake()
            if self._taken:
                self._last = last
                return True
        last()
        return True


class Callbacks:
    """The functions to call when a call is over. Each is called once, on the thread that finds it over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed: threading.Condition | None = None  # made by the first function
        self._functions: list[Callable[[], object]] = []
        self._over = False
        self._calling = 0  # threads
        self._errors: list[BaseException] = []

    def __bool__(self) -> bool:
        return bool(self._functions)

    def add(self, function: Callable[[], object]) -> bool:
        """Add a function; False where the call is over already."""
        with self._lock:
            if not self._over:
                self._changed = self._changed or threading.Condition(self._lock)
                self._functions.append(function)
            return not self._over

    def call(self) -> None:
        """Call the functions that have not been called. What they raise is kept for `check`."""
        with self._lock:
            self._over = True
            functions, self._functions = self._functions, []
            if self._changed is None:
                return
            self._calling += 1
        for function in functions:
            try:
                function()
            except BaseException as error:
                self._errors.append(error)
        with self._lock:
            self._calling -= 1
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until no other thread calls a function any more."""
        with self._lock:
            if self._changed is not None:
                self._changed.wait_for(lambda: not self._calling)

    def check(self) -> None:
        """Raise the first exception of a function."""
        if self._errors:
            raise self._errors[0]


class Timer:
    """A function that is called later, until that is cancelled."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None
        self._cancelled = False

    def start(self, seconds: float, function: Callable[[], object]) -> None:
        """Begin to wait; called on the loop's thread."""
        if not self._cancelled:
            loop = asyncio.get_running_loop()
            self._handle = loop.call_later(seconds, loop.run_in_executor, None, function)

    def cancel(self) -> None:
        """Do not call the function any more; any thread may call this."""
        self._cancelled = True
        self._loop.call(self._cancel)

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class Loop:
    """An event loop on a thread of its own, which starts when it is first needed.

    Args:
        name: The name of the thread, and of the server in an error.

    Attributes:
        is_ending: Whether what runs on it is cancelled, since it is to end.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None
        self._open: set[Running[Any]] = set()
        self._errors: list[BaseException] = []
        self._unawaited: OfCalls
        self.is_ending = False

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the loop's thread, unless the loop has not started, or has ended."""
        if (loop := self._loop) is not None:
            with contextlib.suppress(RuntimeError):  # closed
                loop.call_soon_threadsafe(function, *arguments)

    def later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Call a function after so many seconds by the kernel's clock, on a thread where it may block."""
        timer = Timer(self)
        self._started().call_soon_threadsafe(timer.start, seconds, function)
        return timer

    def submit(self, function: Callable[[], object]) -> None:
        """Call a function on a thread where it may block."""
        with contextlib.suppress(RuntimeError):  # closed: nobody is there whom it would concern
            self.later(0, function)

    def begin(
        self, make: Callable[[], Coroutine[Any, Any, Result]], context: Context
    ) -> Running[Result]:
        """Run a coroutine on the loop.

        Args:
            make: Makes the coroutine; called on the loop's thread.
            context: The context variables in which it runs.
        """
        loop = self._started()
        running: Running[Result] = Running(self)
        self._open.add(running)
        running.add_done_callback(self._open.discard)
        loop.call_soon_threadsafe(running.start, make, context=context)
        return running

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                run_by_real_clock(self._loop)
                self._unawaited = OfCalls(self._loop)
                self._loop.set_default_executor(ThreadPoolExecutor(MAX_THREADS, self._name))
                self._stopping = asyncio.Event()
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    def _run(self) -> None:
        loop, stopping = self._loop, self._stopping
        assert loop is not None
        assert stopping is not None
        try:
            self._run_on(loop, stopping.wait())
            self._run_on(loop, end_everything())
        finally:
            loop.close()  # from here on `begin` raises
            for running in list(self._open):  # begun too late for the loop to see
                running.set_exception(RuntimeError(f"{self._name} has ended: no route uses it"))

    def _run_on(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine to its end, whatever a task of a servicer raises meanwhile.

        asyncio lets KeyboardInterrupt and SystemExit of any task out of the loop, besides whoever awaits that task.
        """
        task = loop.create_task(coroutine)
        while not task.done():
            try:
                loop.run_until_complete(task)
            except (KeyboardInterrupt, SystemExit) as error:
                self._errors.append(error)

    def was_raised(self, error: BaseException) -> None:
        """Note that a call has raised an error: `stop` does not; called on the loop's thread."""
        self._errors = [each for each in self._errors if each is not error]

    def stop(self) -> None:
        """Cancel what runs on the loop, and end its threads. Where none has started, there is nothing to do.

        Raises:
            RuntimeError: They do not end.
            BaseException: A task has raised it that nobody awaits, and that ended after its call.
        """
        self.is_ending = True
        if self._thread is None:
            return
        assert self._stopping is not None
        self.call(self._stopping.set)
        self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError(
                f"{self._name} has not ended {END_SECONDS:g} seconds after its last route: a servicer still runs"
            )
        if self._errors:
            raise self._errors[0]
        with contextlib.suppress(OverError):
            self._unawaited.check(OverError)


class OfCalls(Unawaited):
    """What tasks of async servicers raise that nobody awaits: those of a call while that runs, and the others."""

    def _task(
        self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> asyncio.Task[Any]:
        task = super()._task(loop, coro, **options)
        if (running := RUNNING.get()) is not None:
            running.adopt(task)
        return task


RUNNING: Final[ContextVar[Running[Any] | None]] = ContextVar("RUNNING", default=None)
"""The call in which a task begins."""


class Running(Future[Result]):
    """A coroutine that runs on a loop: `result` waits for it, on any thread but that of the loop.

    An exception of the coroutine is that of `result`, a cancellation too: CancelledError of asyncio.

    A task that the coroutine has started, and that fails until its end without having been awaited, is an error of it.

    Attributes:
        task: The task that runs it, once that has begun.
    """

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._on = loop
        self.task: asyncio.Task[None] | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order in which they began
        self._cut = False

    def start(self, make: Callable[[], Coroutine[Any, Any, Result]]) -> None:
        """Start the task; called on the loop's thread, in the context that it runs in."""
        self.task = asyncio.get_running_loop().create_task(self._run(make))
        self.task.add_done_callback(self._on_end)
        if self._cut:
            self.task.cancel()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """Settle the result where the task was cancelled before it had begun, so that `_run` never ran."""
        if not self.done():
            self.set_exception(asyncio.CancelledError())

    async def _run(self, make: Callable[[], Coroutine[Any, Any, Result]]) -> None:
        RUNNING.set(self)
        try:
            result = await make()
            if self._tasks:
                await asyncio.sleep(0)  # the last may have yet to begin
                self._check()
            self.set_result(result)
        except asyncio.CancelledError as error:  # it may have waited for a task that had failed
            self.set_exception(self._lost() or error)
        except BaseException as error:  # SystemExit would leave the loop
            self._on.was_raised(error)
            self._lost()  # the servicer's own error counts more
            self.set_exception(error)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Note that the coroutine has started a task."""
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        if not is_lost(task):
            self._tasks.pop(task, None)

    def _check(self) -> None:
        if (error := self._lost()) is not None:
            raise error

    def _lost(self) -> BaseException | None:
        """The first error of its tasks that nobody has asked for."""
        error = first_of([task.exception() for task in self._tasks if is_lost(task)], (OverError,))
        self._tasks.clear()  # those that still run are the loop's
        return error

    def interrupt(self) -> None:
        """Cancel the coroutine; any thread may call this."""
        self._on.call(self._interrupt)

    def _interrupt(self) -> None:
        self._cut = True
        if self.task is not None:
            self.task.cancel()


class SharedLoop:
    """The loop of a server, for as long as routes use it.

    Args:
        name: The name of its thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._users = 0
        self._loop = Loop(name)

    def acquire(self) -> None:
        """Note that a route begins to use it."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Note that a route has ended. After the last one, cancel what runs on the loop, and end its threads.

        Raises:
            RuntimeError: They do not end, or a route is released twice.
        """
        with self._lock:
            if not self._users:
                raise RuntimeError(f"{self._name} is released more often than acquired")
            self._users -= 1
            loop = self._loop
            if not self._users:
                self._loop = Loop(self._name)
        if loop is not self._loop:
            loop.stop()

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Loop]:
        """The loop for one call. Without a route the call has one of its own."""
        with self._lock:
            alone = not self._users
            loop = Loop(self._name) if alone else self._loop
        try:
            yield loop
        finally:
            if alone:
                loop.stop()
