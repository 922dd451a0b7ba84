"""Whose traffic it is: windows, the entries in them, and what is still going on.

A `Window` is a stretch of time whose attempts are judged together: a test's, a container's start, or what falls
between.

Threads: any. `Ledger.changed` is one lock for a whole run, and the outer one: never acquire it while holding
`Connections.lock`, or any other lock of a gateway. What a window holds, a route's calls, and which scopes and
containers there are change under it. An entry is complete when it is recorded, except `response`, `duration`, `note`,
`error`, `kept`, `first_bytes`, `sent` and `received`, which its connection's thread sets later, without the lock, and
`outcome`, which `Recorder.take_back` changes under it. No function of a user runs while it is held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from pytest_egress.base.clock import monotonic, wall
from pytest_egress.ledger.windows import Activity, Window
from pytest_egress.routes.route import Route
from pytest_egress.traffic.entries import Entry, PacketAttempt, TlsPeers

CUT_SECONDS: Final = 1.0  # for the threads of connections that we have cut
MAX_ENTRIES: Final = 100_000
"""Of a window, and of the calls in it: up to a gigabyte, where each is a request by a connection of its own."""

MAX_HELD_BYTES: Final = 2 << 30
"""What the requests and raw connections of a window may send that is kept: twice the longest body."""

MAX_COMPLAINTS: Final = 100
"""Different ones of a window: whoever brings about more of them has been told of."""


def is_of_the_kernel(entry: Entry) -> bool:
    """Whether it is a packet that no program has asked for, or that comes to nothing, as of QUIC beside HTTPS."""
    return isinstance(entry, PacketAttempt) and entry.outcome == "recorded"


class Ledger:
    """What every egress of a run shares: the lock, the test's window, and the prompts that are open.

    Attributes:
        changed: The lock; notified of everything that happens.
        closing: That of a test whose raw connections are being cut, or None: what they bring about is judged with it.
        routes_changed: Called, without the lock, when a route has come or gone.
        wide_set_ups: The fixtures of more than one test that are being set up, the innermost last.
        under_way: What has begun and not ended, in any window.
        begun: How much has begun so far.
        running: Called, without the lock, for the names of the containers that run.
        look: Called where no window is open: opens that of a test which is seen to use egress only while it runs.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._window: Window | None = None
        self.closing: Window | None = None
        self.routes_changed: Callable[[], None] = lambda: None
        self.running: Callable[[], list[str]] = list
        self.look: Callable[[], None] = lambda: None
        self.wide_set_ups: list[str] = []
        self.under_way: set[Activity] = set()
        self.begun = 0
        self._watchers: list[list[Entry]] = []
        self.prompts = 0
        self._prompted_at = 0.0
        self._prompted = 0.0  # seconds, of prompts that are closed
        self._epoch = wall() - monotonic()

    @property
    def window(self) -> Window | None:
        """The running test's, or None."""
        if self._window is None:
            self.look()
        return self._window

    @window.setter
    def window(self, window: Window | None) -> None:
        self._window = window

    def visible(self, window: object) -> bool:
        """Whether a call in that window counts now: during a test its own, otherwise all.

        What is set up for several tests is not part of the one that happens to come first.
        """
        return self.window is None or window is self.window or bool(self.wide_set_ups)

    @contextmanager
    def wide_set_up(self, fixture: str = "") -> Iterator[None]:
        """A fixture of several tests is being set up."""
        with self.changed:
            self.wide_set_ups.append(fixture)
        try:
            yield
        finally:
            with self.changed:
                self.wide_set_ups.pop()

    @contextmanager
    def watch(self) -> Iterator[list[Entry]]:
        """The attempts that are recorded meanwhile, in any window."""
        seen: list[Entry] = []
        with self.changed:
            self._watchers.append(seen)
        try:
            yield seen
        finally:
            with self.changed:  # two may have seen the same
                self._watchers = [other for other in self._watchers if other is not seen]

    def record(self, window: Window, entry: Entry) -> None:
        """Put an entry into its window; where that is full, only count it."""
        with self.changed:
            if len(window.entries) < MAX_ENTRIES:
                window.entries.append(entry)
            else:
                window.unrecorded += 1
            if not is_of_the_kernel(entry):
                for seen in self._watchers:
                    seen.append(entry)
            self.changed.notify_all()

    def shook_hands(self, window: Window, peers: TlsPeers, started: float) -> None:
        """Note that a handshake succeeded: failures of the same client before it are no offence any more."""
        with self.changed:
            latest = window.handshakes.get(peers, started)
            if peers in window.handshakes or len(window.handshakes) < MAX_ENTRIES:
                window.handshakes[peers] = max(latest, started)

    def miss(self, window: Window, attempts: int) -> None:
        """Count attempts of which nothing else is known: their test fails."""
        with self.changed:
            window.unrecorded += attempts

    def evict(self, window: Window, why: str) -> None:
        """Count a connection that we cut for want of room: its test fails.

        Args:
            why: What there was too little of.
        """
        with self.changed:
            window.evicted[why] = window.evicted.get(why, 0) + 1

    def hold(self, window: Window, size: int) -> bool:
        """Count bytes that are to be kept; False where they must not be."""
        with self.changed:
            window.held += size
            return window.held <= MAX_HELD_BYTES

    def complain(self, window: Window, text: str) -> None:
        """Fail the test, whatever else happened."""
        with self.changed:
            if text in window.complaints or len(window.complaints) >= MAX_COMPLAINTS:
                window.repeated += 1
            else:
                window.complaints.append(text)
            self.changed.notify_all()

    def count(self, route: Route[Any], window: Window, call: Entry) -> None:
        """Count a call: its handler has returned, nothing has been sent."""
        with self.changed:
            window.calls += 1
            if window.calls <= MAX_ENTRIES:  # else its entry is missing too, and fails the test
                route.count(window, call)
            self.changed.notify_all()

    def begin(self, window: Window, activity: Activity) -> None:
        """Note that something goes on in a window; its end waits for it."""
        with self.changed:
            window.activities.add(activity)
            self.under_way.add(activity)
            self.begun += 1
            self.changed.notify_all()  # whoever waits until all that has arrived has been taken up

    def end(self, window: Window, activity: Activity) -> None:
        """Note that it has ended."""
        with self.changed:
            window.activities.discard(activity)
            self.under_way.discard(activity)
            self.changed.notify_all()

    def now(self) -> float:
        """Seconds since the epoch, by a clock that never jumps: entries are sorted by it."""
        return self._epoch + monotonic()

    def clock(self) -> float:
        """Seconds that go on only while no debugger's prompt is open: the clock of every deadline of ours."""
        with self.changed:
            now = self._prompted_at if self.prompts else monotonic()
            return now - self._prompted

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until the condition holds; it is asked under the lock.

        Args:
            timeout: Seconds by `clock`.
        """
        with self.changed:
            deadline = self.clock() + timeout
            while not condition():
                if (left := deadline - self.clock()) <= 0:
                    return False
                self.changed.wait(None if self.prompts else left)
            return True

    def enter_prompt(self) -> None:
        """A debugger's prompt opens, on whichever thread."""
        with self.changed:
            if not self.prompts:
                self._prompted_at = monotonic()
            self.prompts += 1

    def leave_prompt(self) -> None:
        """It is closed."""
        with self.changed:
            self.prompts -= 1
            if not self.prompts:
                self._prompted += monotonic() - self._prompted_at
                self.changed.notify_all()
