"""`SweepTrial`: one run of a test whose calls are counted, and of which one fails.

Threads: those of the gateway call `intervene` and `intervene_in_connection`. What it changes, it changes under a lock
of its own, and calls nothing while it holds that.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from pytest_egress.base.clock import monotonic
from pytest_egress.routes.table import Instead, RouteTable, SweptFault
from pytest_egress.sweep.calls import CallKind, call_of, connection_call, kind_of
from pytest_egress.sweep.cells import Cell, Seen
from pytest_egress.sweep.faults import FAULTS
from pytest_egress.sweep.verdict import ContainerEnd
from pytest_egress.traffic.http.request import Request

MAX_CALLS: Final = 1000
"""Different calls that are told apart: those beyond are not swept."""

LEAST_SECONDS: Final = 0.1

QUIET_SECONDS: Final = 1.5
"""How long a call does not come again until nobody tries it any more: first pauses of clients are a second at most."""

PAUSES: Final = 3
"""So many of the longest pause between two tries have to pass: a client that waits longer each time doubles it."""


class SweepTrial:
    """A run of a test.

    Args:
        cell: What fails; None on the happy path.
        seconds: How long the run may take.
        tables: What fails before there is a call (`outages`).

    Attributes:
        tables: These, until the fault is over.
        calls: What has come so far, in the order of arrival.
        is_over_limit: Whether more different calls came than are told apart.
        ended: The containers that have ended, by name.
        late: The containers that still ran when the time was over.
        has_asked: Whether the test has asked for `egress.fault`.
        late_tries: How often the call came after the fault was over.
    """

    def __init__(
        self, cell: Cell | None, seconds: float, tables: Sequence[RouteTable] = ()
    ) -> None:
        self.cell: Final = cell
        self.tables = tables
        self._outage = None if cell is None else FAULTS[cell.fault].outage
        # A client's time-out is no pause between its tries.
        self._is_silent = cell is not None and cell.fault == "silence"
        self.began: Final = monotonic()
        self._deadline = self.began + seconds
        self._lock = threading.Lock()
        self.calls: dict[str, Seen] = {}
        self.is_over_limit = False
        self.ended: dict[str, ContainerEnd] = {}
        self.late: list[str] = []
        self.has_asked = False
        self.late_tries = 0
        self._is_over = False
        self._latest_try: float | None = None
        self._longest_pause = 0.0

    def intervene(self, request: Request) -> Instead | None:
        return self._intervene(call_of(request), kind_of(request))

    def intervene_in_connection(self, host: str, port: int) -> Instead | None:
        return self._intervene(connection_call(host, port), "tcp")

    def _intervene(self, call: str, kind: CallKind) -> Instead | None:
        with self._lock:
            seen = self.calls.get(call, Seen(0, frozenset()))
            if not seen.times and len(self.calls) >= MAX_CALLS:
                self.is_over_limit = True
                return None
            number = seen.times + 1
            self.calls[call] = Seen(number, seen.kinds | {kind})
            cell = self.cell
            if cell is None or not self._is_try(cell, call, number):
                return None
            self._note_try()
            if self._is_over or not cell.has_fail(number):
                return None
        return FAULTS[cell.fault].instead(self.seconds_left())

    def _is_try(self, cell: Cell, call: str, number: int) -> bool:
        """Whether a call is the one that fails, or comes after it; of what fails before any call, once that is over."""
        if self._outage is not None:
            return self._is_over
        return call == cell.row.call and number >= cell.row.number

    def _note_try(self) -> None:
        """The caller holds the lock."""
        now, latest = monotonic(), self._latest_try
        self.late_tries += self._is_over
        if latest is not None and not self._is_over and not self._is_silent:
            self._longest_pause = max(self._longest_pause, now - latest)
        self._latest_try = now

    def end_fault(self) -> None:
        """Have the call work from now on."""
        with self._lock:
            self._is_over, self.tables = True, ()

    def restless_seconds(self, since: float) -> float:
        """How long the call must still not come until nobody is left who has met the fault, and tries again.

        A try that comes after the fault is over works, and is the last one of its client.

        Args:
            since: When the last client has got its answer, or left.
        """
        with self._lock:
            latest = max(since, self._latest_try or since)
            pause = 0.0 if self.late_tries else PAUSES * self._longest_pause
            return max(latest + max(pause, QUIET_SECONDS) - monotonic(), 0.0)

    def asked_fault(self) -> SweptFault | None:
        if self.cell is None:
            return None
        self.has_asked = True
        return SweptFault(self.cell.row.call, self.cell.fault)

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return monotonic() - self.began

    def seconds_left(self) -> float:
        return max(self._deadline - monotonic(), LEAST_SECONDS)

    def note_end(self, container: str, exit_code: int, *, has_spoken: bool) -> None:
        self.ended[container] = ContainerEnd(exit_code, has_spoken=has_spoken)

    def note_late(self, container: str) -> None:
        self.late.append(container)
