"""`Workers`: threads that run jobs, each kept for a second after its job.

There are as many as there are jobs at once, up to a limit: jobs may wait for each other, so that a smaller pool of
fixed size would deadlock. Starting a thread for each job costs more than twice as much as waking one that is kept.

Threads: any thread may call. The lock guards which workers are idle and which jobs wait; no job runs while it is held,
and no other lock is acquired under it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from pytest_egress.base.clock import monotonic

KEPT_SECONDS: Final = 1.0  # that a thread waits for its next job

Job: TypeAlias = "Callable[[], None]"


class Seat:
    """The place of one worker: the lock that it waits for, and its next job."""

    def __init__(self) -> None:
        self.wake = threading.Lock()
        self.wake.acquire()
        self.job: Job | None = None


class Workers:
    """Threads for jobs.

    Args:
        name: The threads' name.
        most: How many jobs may run at once; more wait for one to end.
        seconds: How long an idle thread is kept.
    """

    def __init__(self, name: str, most: int, seconds: float = KEPT_SECONDS) -> None:
        self._name, self._most, self._seconds = name, most, seconds
        self._lock = threading.Lock()
        self._idle: list[Seat] = []
        self._waiting: deque[Job] = deque()
        self._threads: set[threading.Thread] = set()
        self._is_stopped = False

    def run(self, job: Job) -> None:
        """Run a job on a thread; it must not raise.

        Raises:
            RuntimeError: No thread can be started, and none runs that would take the job later.
        """
        with self._lock:
            if self._idle:
                seat = self._idle.pop()
                seat.job = job
                seat.wake.release()
                return
            if len(self._threads) >= self._most:
                self._waiting.append(job)
                return
            thread = threading.Thread(target=self._work, args=(job,), name=self._name, daemon=True)
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self._not_started(thread, job)

    def _not_started(self, thread: threading.Thread, job: Job) -> None:
        """Leave a job to the threads that there are."""
        with self._lock:
            self._threads.discard(thread)
            if not self._threads:
                raise RuntimeError("no thread can be started")
            self._waiting.append(job)

    def stop(self) -> None:
        """Keep no thread any longer. Jobs that run go on, and those that wait are run."""
        with self._lock:
            self._is_stopped = True
            idle, self._idle = self._idle, []
        for seat in idle:
            seat.wake.release()

    def join(self, deadline: float) -> bool:
        """Wait until no thread is left, after `stop`; return whether that is so.

        Args:
            deadline: When to give up, by `time.monotonic`.
        """
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(deadline - monotonic(), 0))
        return not any(thread.is_alive() for thread in threads)

    def __len__(self) -> int:
        """How many threads there are."""
        with self._lock:
            return len(self._threads)

    def _work(self, job: Job | None) -> None:
        try:
            seat = Seat()
            while job is not None:
                job()
                job = self._next(seat)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _next(self, seat: Seat) -> Job | None:
        """The next job of a worker; None where it has none for a while."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._is_stopped:
                return None
            self._idle.append(seat)
        if not seat.wake.acquire(timeout=self._seconds):
            with self._lock:
                if seat in self._idle:
                    self._idle.remove(seat)
                    return None
            seat.wake.acquire()  # a job was given to it in the same moment
        job, seat.job = seat.job, None
        return job
