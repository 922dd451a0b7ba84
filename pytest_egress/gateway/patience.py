"""`Patience`: how long a client may send nothing of a head or a body that it has begun.

The time is the ledger's, which stands still while a debugger's prompt is open: what a prompt holds up is no stall. No
socket is touched here. Whoever waits, by whatever call, waits for `seconds_left` and asks `is_over` when nothing came.

A body that a handler reads as it comes has no such limit: that client may have nothing to say for hours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pytest_egress.base.clock import LOOK_SECONDS
from pytest_egress.routes.duplex import ClientStoppedError

STALL_SECONDS: Final = 60.0
"""Between two bytes, as nginx allows by default (client_body_timeout). A client that is at work sends sooner, so what
ends here has stopped for good, and would keep a thread for as long as its container runs."""


class StalledError(ClientStoppedError):
    """A client has stopped within a head or a body."""

    def __str__(self) -> str:
        return f"the client sent nothing for {STALL_SECONDS:g} s"


class Patience:
    """Measures how long nothing has come, by `Ledger.clock`. One thread uses it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        self._deadline = self._clock() + STALL_SECONDS

    @property
    def is_over(self) -> bool:
        return self._clock() >= self._deadline

    @property
    def seconds_left(self) -> float:
        """At least `LOOK_SECONDS`, so that there is a wait before `is_over` is asked: the clock may stand still."""
        return max(self._deadline - self._clock(), LOOK_SECONDS)
