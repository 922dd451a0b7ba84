"""`Attempt`: a connection or request that a target has begun, with all that an entry about it needs."""

from __future__ import annotations

from typing import NamedTuple

from pytest_egress.gateway.destination import Destination
from pytest_egress.ledger.windows import Activity, AttemptContext


class Attempt(NamedTuple):
    """A connection that opens, or a request. An HTTP/1.1 connection has one attempt at a time.

    Attributes:
        started: When it began, in the time of entries (`Entry.started`).
        activity: What keeps its window open until it has ended.
    """

    context: AttemptContext
    destination: Destination
    started: float
    activity: Activity
