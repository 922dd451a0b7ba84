"""`Workers`: threads that run jobs, each kept for a while after its job.

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
    """The place of one worker: the lock that it waits for, and its next job, or None where it has to end."""

    def __init__(self, job: Job) -> None:
        self.wake = threading.Lock()
        self.wake.acquire()
        self.job: Job | None = job

    def run(self) -> None:
        """No reference to the job is kept: it may hold a connection, and its thread may long wait."""
        job, self.job = self.job, None
        assert job is not None
        job()


class Workers:
    """Threads for jobs.

    Args:
        name: The name of a thread that has no job. A job may give its thread another one.
        most: How many jobs may run at once; more wait for one to end.
        seconds: How long an idle thread is kept; None is until `stop`.
        most_idle: How many idle threads are kept; None is all.
    """

    def __init__(
        self,
        name: str,
        most: int,
        seconds: float | None = KEPT_SECONDS,
        most_idle: int | None = None,
    ) -> None:
        self._name, self._most, self._seconds = name, most, seconds
        self._most_idle = most if most_idle is None else most_idle
        self._lock = threading.Lock()
        self._idle: list[Seat] = []
        self._waiting: deque[Job] = deque()
        self._threads: set[threading.Thread] = set()
        self._is_stopped = False

    def run(self, job: Job) -> None:
        """A job must not raise. RuntimeError: no thread can be started, and none runs that would take it later."""
        with self._lock:
            if self._idle:
                seat = self._idle.pop()
                seat.job = job
                seat.wake.release()
                return
            if len(self._threads) >= self._most:
                self._waiting.append(job)
                return
            thread = threading.Thread(
                target=self._work, args=(Seat(job),), name=self._name, daemon=True
            )
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self._not_started(thread, job)

    def _not_started(self, thread: threading.Thread, job: Job) -> None:
        with self._lock:
            self._threads.discard(thread)
            if not self._threads:
                raise RuntimeError("no thread can be started")
            self._waiting.append(job)

    def stop(self) -> None:
        """Jobs that run go on, and those that wait are run."""
        with self._lock:
            self._is_stopped = True
            idle, self._idle = self._idle, []
        for seat in idle:
            seat.wake.release()

    def join(self, deadline: float) -> bool:
        """Wait until no thread but the calling one is left, after `stop`. `deadline` is by `time.monotonic`."""
        with self._lock:
            threads = list(self._threads - {threading.current_thread()})
        for thread in threads:
            thread.join(max(deadline - monotonic(), 0))
        return not any(thread.is_alive() for thread in threads)

    def __len__(self) -> int:
        with self._lock:
            return len(self._threads)

    def _work(self, seat: Seat) -> None:
        thread = threading.current_thread()
        try:
            while seat.job is not None:
                seat.run()
                thread.name = self._name
                self._await_job(seat, thread)
        finally:
            with self._lock:
                self._threads.discard(thread)

    def _await_job(self, seat: Seat, thread: threading.Thread) -> None:
        """Wait for the next job of a worker; it gets none where none comes for a while, or enough others wait.

        The thread is then counted no more: a job would wait for it in vain.
        """
        with self._lock:
            if self._waiting:
                seat.job = self._waiting.popleft()
                return
            if self._is_stopped or len(self._idle) >= self._most_idle:
                self._threads.discard(thread)
                return
            self._idle.append(seat)
        if not seat.wake.acquire(timeout=-1 if self._seconds is None else self._seconds):
            with self._lock:
                if seat in self._idle:
                    self._idle.remove(seat)
                    self._threads.discard(thread)
                    return
            seat.wake.acquire()  # a job was given to it in the same moment
