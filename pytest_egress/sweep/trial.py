"""`SweepTrial`: one run of a test whose calls are counted, and of which one fails.

Threads: those of the gateway call `intervene` and `intervene_in_connection`. What it changes, it changes under a lock
of its own, and calls nothing while it holds that.
"""

from __future__ import annotations

import threading
from typing import Final

from pytest_egress.base.clock import monotonic
from pytest_egress.routes.table import Instead, SweptFault
from pytest_egress.sweep.calls import call_of, connection_call, is_whole
from pytest_egress.sweep.cells import Cell, Seen
from pytest_egress.sweep.faults import FAULTS
from pytest_egress.sweep.verdict import ContainerEnd
from pytest_egress.traffic.http.request import Request

MAX_CALLS: Final = 1000
"""Different calls that are told apart: those beyond are not swept."""

LEAST_SECONDS: Final = 0.1


class SweepTrial:
    """A run of a test.

    Args:
        cell: What fails; None on the happy path.
        seconds: How long the run may take.

    Attributes:
        calls: What has come so far, in the order of arrival.
        is_over_limit: Whether more different calls came than are told apart.
        ended: The containers that have ended, by name.
        late: The containers that still ran when the time was over.
        has_asked: Whether the test has asked for `egress.fault`.
    """

    def __init__(self, cell: Cell | None, seconds: float) -> None:
        self.cell: Final = cell
        self.began: Final = monotonic()
        self._deadline = self.began + seconds
        self._lock = threading.Lock()
        self.calls: dict[str, Seen] = {}
        self.is_over_limit = False
        self.ended: dict[str, ContainerEnd] = {}
        self.late: list[str] = []
        self.has_asked = False

    def intervene(self, request: Request) -> Instead | None:
        return self._intervene(call_of(request), has_one_answer=is_whole(request))

    def intervene_in_connection(self, host: str, port: int) -> Instead | None:
        return self._intervene(connection_call(host, port), has_one_answer=False)

    def _intervene(self, call: str, *, has_one_answer: bool) -> Instead | None:
        with self._lock:
            seen = self.calls.get(call, Seen(0))
            if not seen.times and len(self.calls) >= MAX_CALLS:
                self.is_over_limit = True
                return None
            number = seen.times + 1
            self.calls[call] = Seen(number, seen.is_whole and has_one_answer)
        cell = self.cell
        if cell is None or call != cell.row.call or not cell.has_fail(number):
            return None
        return FAULTS[cell.fault].instead(self.seconds_left())

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
