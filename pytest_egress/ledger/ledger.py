"""`Ledger`: the windows of a run, the entries in them, and the activities that have not ended.

A `Window` holds the attempts that are judged together: those of a test, of a container's start, or between tests.

Threads: any thread may call. `Ledger.changed` is one lock for a whole run. It is the outer lock: never acquire it while
holding `Connections.lock`, or any other lock of a gateway. The fields of a window, the calls of a route, and the lists
of scopes and containers change under it. An entry is complete when it is recorded, except `response`, `duration`,
`note`, `error`, `kept`, `first_bytes`, `sent` and `received`, which its connection's thread sets later, without the
lock, and `outcome`, which `Recorder.take_back` changes under it. No function of a user runs while the lock is held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from pytest_egress.base.account import Accounts
from pytest_egress.base.alarms import Alarms
from pytest_egress.base.clock import monotonic, wall
from pytest_egress.ledger.windows import Activity, Pause, Window
from pytest_egress.routes.answers import HEAD_SECONDS
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.entries import Entry, Handshake, PacketAttempt, TlsFailure, TlsPeers
from pytest_egress.traffic.redaction.redactor import BY_NAMES, Redactor

CUT_SECONDS: Final = 1.0  # for the threads of connections that were cut to end
MAX_ENTRIES: Final = 100_000
"""The most entries of a window, and the most calls: some 200 MB, where requests have no bodies."""

MAX_COMPLAINTS: Final = 100
"""The most different complaints of a window: a target that causes more has been reported well enough."""


def is_of_the_kernel(entry: Entry) -> bool:
    """Whether an entry is a packet that is no offence: one of the kernel's own, or QUIC that falls back to HTTPS."""
    return isinstance(entry, PacketAttempt) and entry.outcome == "recorded"


class Ledger:
    """The state that all egresses of a run share: the lock, the test's window, and the debugger prompts that are open.

    Attributes:
        changed: The lock. A thread waits for a change by `wait_for`, and is woken by `tell`.
        closing: The window of a test whose raw connections are being cut, or None. What those still do is judged in it.
        routes_changed: Called, without the lock, after a route was added or removed.
        turns_changed: Called, without the lock, after a route with a fault of connecting among its answers has taken or
            given back a turn.
        has_learned: Called, within the lock, after the redactor was replaced by one that knows more.
        learn: Called, without the lock, before and after a fixture for more than one test is set up.
        wide_set_ups: The fixtures for more than one test that are being set up, the innermost last.
        late_heads: Calls what sends the head of a response alone, where its body is late.
        pauses: The attempts that wait for a fault, in the order in which they began to, and whether without end.
        begun: The number of activities that have begun, and of attempts that have joined an entry.
        running: Called, without the lock, for the names of the running containers.
        open_window_if_used: Called where no window is open. It opens one where a running test turns out to use egress.
        witness: All entries since they were last taken, the kernel's too; None where nobody asks for them.
    """

    def __init__(self) -> None:
        # The lock itself, and no condition: to enter one is a call of Python more, ten times a request.
        self.changed: Any = threading.RLock()
        self._told = threading.Condition(self.changed)
        self._waiting = 0  # threads in `wait_for`
        self._window: Window | None = None
        self.closing: Window | None = None
        self.routes_changed: Callable[[], None] = lambda: None
        self.turns_changed: Callable[[], None] = lambda: None
        self.running: Callable[[], list[str]] = list
        self.open_window_if_used: Callable[[], None] = lambda: None
        self.learn: Callable[[], None] = lambda: None
        self.has_learned: Callable[[Redactor], None] = lambda _: None
        self.wide_set_ups: list[str] = []
        self.late_heads: Final = Alarms("egress head", HEAD_SECONDS)
        self.under_way: set[Activity] = set()
        self.pauses: dict[Pause, bool] = {}
        self.begun = 0
        self.accounts = Accounts()
        self._watchers: list[list[Entry]] = []
        self.witness: list[Entry] | None = None
        self.prompts = 0
        self._prompted_at = 0.0
        self._prompted = 0.0  # seconds that closed prompts were open
        self._epoch = wall() - monotonic()

    @property
    def window(self) -> Window | None:
        if self._window is None:
            self.open_window_if_used()
        return self._window

    @window.setter
    def window(self, window: Window | None) -> None:
        self._window = window

    def visible_window(self) -> Window | None:
        """The only window whose calls count now; None where all count.

        During the set-up of a fixture for several tests all count: it is not part of the test that comes first.
        """
        return None if self.wide_set_ups else self.window

    @contextmanager
    def wide_set_up(self, fixture: str = "") -> Iterator[None]:
        self.learn()
        with self.changed:
            self.wide_set_ups.append(fixture)
        try:
            yield
        finally:
            self.learn()
            with self.changed:
                self.wide_set_ups.pop()

    @contextmanager
    def watch(self) -> Iterator[list[Entry]]:
        """Collect the attempts that are recorded within the `with` block, in any window."""
        seen: list[Entry] = []
        with self.changed:
            self._watchers.append(seen)
        try:
            yield seen
        finally:
            with self.changed:  # by identity: two watchers may have equal lists
                self._watchers = [other for other in self._watchers if other is not seen]

    def take_witnessed(self) -> list[Entry]:
        """The entries that have been recorded since this was called last."""
        with self.changed:
            taken, self.witness = self.witness or [], []
            return taken

    @property
    def redactor(self) -> Redactor:
        """What hides secrets in what is shown, at present."""
        return self.accounts.redactor or BY_NAMES

    def hide_by(self, redactor: Redactor) -> None:
        """Have all that is shown from now on pass another redactor."""
        with self.changed:
            before, self.accounts.redactor = self.redactor.secrets, redactor
            if redactor.secrets != before:
                self.has_learned(redactor)

    def record(self, window: Window, entry: Entry) -> None:
        entry._account = window.account
        with self.changed:
            if len(window.entries) < MAX_ENTRIES:
                window.entries.append(entry)
            else:
                window.unrecorded += 1
            if self._watchers and not is_of_the_kernel(entry):
                for seen in self._watchers:
                    if len(seen) < MAX_ENTRIES:
                        seen.append(entry)
            if self.witness is not None and len(self.witness) < MAX_ENTRIES:
                self.witness.append(entry)
            self.tell()

    def record_handshake(self, window: Window, peers: TlsPeers, handshake: Handshake) -> None:
        """A success excuses earlier failures of the same client."""
        with self.changed:
            latest = window.handshakes.get(peers, handshake)
            if peers in window.handshakes or len(window.handshakes) < MAX_ENTRIES:
                window.handshakes[peers] = max(latest, handshake)

    def count_unrecorded(self, window: Window, attempts: int) -> None:
        """Attempts that could not be recorded fail their test."""
        with self.changed:
            window.unrecorded += attempts

    def evict(self, window: Window, why: str) -> None:
        """A connection that was cut to make room fails its test; `why` names the resource that was short."""
        with self.changed:
            window.evicted[why] = window.evicted.get(why, 0) + 1

    def complain(self, window: Window, text: str) -> None:
        """Add a sentence to a window that fails its test, whatever else happened."""
        with self.changed:
            if text in window.complaints or len(window.complaints) >= MAX_COMPLAINTS:
                window.repeated += 1
            else:
                window.complaints.append(text)
            self.tell()

    def note_closed_port(self, window: Window, container: str, port: int) -> None:
        """Note that the test has connected to a port of a container where nothing listens."""
        with self.changed:
            closed = window.closed_ports
            closed[container, port] = closed.get((container, port), 0) + 1

    def count(self, route: InnerRoute, window: Window, call: Entry) -> None:
        """Count a call of a route, after its handler has returned and before its answer is sent."""
        with self.changed:
            window.calls += 1
            if window.calls <= MAX_ENTRIES:  # else its entry is missing too, and fails the test
                route.count(window, call)
            self.tell()

    def add_failure(self, route: InnerRoute, window: Window, failure: TlsFailure) -> None:
        with self.changed:
            if len(window.entries) < MAX_ENTRIES:  # else its entry is missing: that fails the test
                route.add_failure(window, failure)
            self.tell()

    def begin(self, window: Window, activity: Activity) -> None:
        """The window waits for the activity when it is closed."""
        with self.changed:
            window.activities.add(activity)
            self.under_way.add(activity)
            self.begun += 1
            self.tell()  # a thread may wait until all that has arrived is being served

    def stir(self) -> None:
        """Note an attempt that joins an entry, and so is none: without it the container would seem to be quiet."""
        with self.changed:
            self.begun += 1
            self.tell()

    def end(self, window: Window, activity: Activity) -> None:
        with self.changed:
            window.activities.discard(activity)
            self.under_way.discard(activity)
            self.tell()

    @contextmanager
    def pausing(
        self, pause: Pause, activity: Activity | None, *, is_endless: bool
    ) -> Iterator[None]:
        """Note that an attempt waits for a fault, within the `with` block.

        Args:
            is_endless: Whether nothing will happen by itself. Then the activity is not under way meanwhile.
        """
        with self.changed:
            self.pauses[pause] = is_endless
            rests = self.under_way & {activity} if is_endless else set()
            self.under_way -= rests
            if activity is not None:
                activity.pause = pause
            self.tell()
        try:
            yield
        finally:
            with self.changed:
                del self.pauses[pause]
                self.under_way |= rests
                if activity is not None:
                    activity.pause = None
                self.tell()

    @property
    def is_busy(self) -> bool:
        """Whether an activity is under way, or anything waits for the end of a delay. The caller holds the lock.

        A late answer of DNS, which has no activity, does: its client goes on when it comes.
        """
        return any(not activity.is_abandoned() for activity in self.under_way) or not all(
            self.pauses.values()
        )

    def pauses_of(self, container: str) -> list[Pause]:
        with self.changed:
            return [pause for pause in self.pauses if pause.entry.container == container]

    def now(self) -> float:
        """Seconds since the epoch, by a clock that never jumps; entries are sorted by them."""
        return self._epoch + monotonic()

    def clock(self) -> float:
        """Seconds by a clock that stops while a debugger's prompt is open. Every deadline of this package uses it."""
        with self.changed:
            now = self._prompted_at if self.prompts else monotonic()
            return now - self._prompted

    def wait_for(
        self, condition: Callable[[], bool], timeout: float, look: float | None = None
    ) -> bool:
        """Wait until a condition holds; return whether it does.

        Args:
            condition: Called under the lock.
            timeout: Seconds by `clock`.
            look: Seconds between two looks, where no thread tells of all that the condition depends on.
        """
        with self.changed:
            deadline = self.clock() + timeout
            while not condition():
                if (left := deadline - self.clock()) <= 0:
                    return False
                self._waiting += 1
                try:
                    self._told.wait(look if self.prompts else min(left, look or left))
                finally:
                    self._waiting -= 1
            return True

    def tell(self) -> None:
        """The caller holds the lock."""
        if self._waiting:
            self._told.notify_all()

    def enter_prompt(self) -> None:
        with self.changed:
            if not self.prompts:
                self._prompted_at = monotonic()
            self.prompts += 1

    def leave_prompt(self) -> None:
        with self.changed:
            self.prompts -= 1
            if not self.prompts:
                self._prompted += monotonic() - self._prompted_at
                self.tell()
