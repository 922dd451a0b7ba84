"""`Deputy`: the second thread of a connection, which takes over its reading where a request keeps the first one.

The thread that reads a busy connection serves the requests itself, one after the other: to wake a thread for each costs
more than the rest of a request, since the threads then compete for the interpreter's lock. But a request that takes
long must hold up no other one, and no PING. So the deputy looks every few milliseconds whether the reader still serves
the request of the last look. If so it takes over: it reads, and has all other requests served, until the first thread
is back.

Threads: the one that is watched calls `begin`, `step`, `end`, `relieve` and `dismiss`, and alone writes `_steps` and
`is_awaited`. The deputy calls `watch` and `report`. The wire's lock guards the rest.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Final

LOOK_SECONDS: Final = 0.005
STUCK_LOOKS: Final = 2  # at one request: a single one may be a pause of the whole process
IDLE_LOOKS: Final = 20  # without a request, after which the deputy leaves


class Relieved(Exception):
    """A deputy has served the connection to its end: raised on the thread from which it has taken over.

    Args:
        error: What was raised on the deputy's thread, `Parked` among others; None for nothing.
    """

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error


class Deputy:
    """Watches one thread, and takes over from it once.

    Args:
        lock: The wire's lock.

    Attributes:
        has_left: Whether it does not watch any more.
        is_awaited: Whether the first thread is back, and waits to be told how to go on.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._bell = threading.Lock()
        self._bell.acquire()
        self._is_watching = self._serves = self._has_taken_over = False
        self._steps = 0
        self.has_left = self.is_awaited = False
        self._reports: SimpleQueue[Relieved | None] = SimpleQueue()

    # The thread that is watched.

    def begin(self) -> bool:
        """Note that requests are about to be served; False where nobody watches."""
        with self._lock:
            self._serves = self._is_watching
            return self._serves

    def step(self) -> None:
        """Note that the next request begins."""
        self._steps += 1

    def end(self) -> bool:
        """Note that no request is being served any more; False where the deputy has taken over meanwhile."""
        self._steps += 1
        with self._lock:
            self._serves = False
            return not self._has_taken_over

    def relieve(self) -> None:
        """Wait, after it has taken over, until the deputy gives the reading back.

        Raises:
            Relieved: It has served the connection to its end.
        """
        self.is_awaited = True
        report = self._reports.get()
        if report is not None:
            raise report

    def dismiss(self) -> None:
        """Have the deputy leave; called once."""
        self._bell.release()

    # The deputy.

    def watch(self) -> bool:
        """Watch until the deputy has to take over; False where it is not needed any longer."""
        with self._lock:
            self._is_watching = True
        seen = looks = 0
        while not self._bell.acquire(timeout=LOOK_SECONDS):
            if self._steps != seen:
                seen, looks = self._steps, 0
                continue
            looks += 1
            with self._lock:
                if looks >= (STUCK_LOOKS if self._serves else IDLE_LOOKS):
                    self._has_taken_over = self._serves
                    return self._leave()
        with self._lock:
            return self._leave()

    def _leave(self) -> bool:
        self._is_watching, self.has_left = False, True
        return self._has_taken_over

    def report(self, report: Relieved | None) -> None:
        """Let the first thread go on: None gives the reading back to it."""
        self._reports.put(report)
