"""`Alarms`: calls functions after a while, unless that is called off before, which is the usual case.

All wait for the same time, so that they are a queue: to set an alarm costs no more than to add to one. The thread
starts with the first alarm, and ends when none waits.

Threads: any thread sets alarms and calls them off. The lock guards the queue; no function is called while it is held.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from pytest_egress.base.clock import monotonic


class Alarm:
    """`due` is by `clock.monotonic`."""

    __slots__ = ("_ring", "due")

    def __init__(self, due: float, ring: Callable[[], object]) -> None:
        self.due = due
        self._ring: Callable[[], object] | None = ring

    def call_off(self) -> None:
        """The function may still be called in this moment."""
        self._ring = None

    def ring(self, name: str) -> None:
        """The function has a thread of its own, since it may block."""
        if (ring := self._ring) is not None:
            threading.Thread(target=ring, name=name, daemon=True).start()


class Alarms:
    """`name` is that of the threads; `seconds` pass between setting an alarm and its call."""

    def __init__(self, name: str, seconds: float) -> None:
        self._name, self._seconds = name, seconds
        self._lock = threading.Lock()
        self._waiting: deque[Alarm] = deque()
        self._is_running = False
        self._never = threading.Event()  # is waited for: a test may have replaced `time.sleep`

    def set(self, ring: Callable[[], object]) -> Alarm:
        """The function is called on a thread of its own; where no thread can be started, it is never called."""
        alarm = Alarm(monotonic() + self._seconds, ring)
        with self._lock:
            self._waiting.append(alarm)
            if self._is_running:
                return alarm
            self._is_running = True
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._is_running = False
                self._waiting.clear()
        return alarm

    def _run(self) -> None:
        while (alarm := self._next()) is not None:
            self._never.wait(max(alarm.due - monotonic(), 0))
            try:
                alarm.ring(self._name)
            except RuntimeError:  # no thread can be started
                alarm.call_off()

    def _next(self) -> Alarm | None:
        with self._lock:
            self._is_running = bool(self._waiting)
            return self._waiting.popleft() if self._waiting else None
