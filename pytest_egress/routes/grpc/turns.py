"""The threads of a call of gRPC: the order in which they send, and what they call when it is over.

Threads: any thread calls. `SendTurns` and `Callbacks` have a lock each, which is held for their own fields alone:
nothing is called meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class OverError(Exception):
    pass


class SendTurns:
    """Lets one thread at a time send, and one thread end the call: the first that wants to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed: threading.Condition | None = None  # made by the first thread that waits
        self._taken = self._over = False
        self._last: Callable[[], None] | None = None

    @property
    def over(self) -> bool:
        return self._over

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other thread sends. A call that has ended raises OverError."""
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

    def end(self, last: Callable[[], None], note: Callable[[], None] = lambda: None) -> bool:
        """False where the call has ended. `last` sends the status: here, or afterwards on the thread that sends now.

        `note` is called before any other thread can find the call over.
        """
        with self._lock:
            if self._over:
                return False
            note()
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
        """False where the call is over already."""
        with self._lock:
            if not self._over:
                self._changed = self._changed or threading.Condition(self._lock)
                self._functions.append(function)
            return not self._over

    def call(self) -> None:
        """Each function is called once. An exception is kept for `check`."""
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
        with self._lock:
            if self._changed is not None:
                self._changed.wait_for(lambda: not self._calling)

    def check(self) -> None:
        if self._errors:
            raise self._errors[0]
