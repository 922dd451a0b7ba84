"""`Attempt`: a connection or request that a target has begun, with all that an entry about it needs."""

from __future__ import annotations

from typing import NamedTuple

from pytest_egress.gateway.destination import Destination
from pytest_egress.ledger.windows import Activity, AttemptContext
from pytest_egress.traffic.notes import ConnectionNote


class Attempt(NamedTuple):
    """A connection that opens, or a request. An HTTP/1.1 connection has one attempt at a time.

    Attributes:
        started: When it began, in the time of entries (`Entry.started`).
        activity: What keeps its window open until it has ended.
        connection: The note of its connection, where notes are asked for; else None.
    """

    context: AttemptContext
    destination: Destination
    started: float
    activity: Activity
    connection: ConnectionNote | None = None
