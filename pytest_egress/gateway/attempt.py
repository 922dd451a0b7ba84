"""`Attempt`: something that a target has begun, with all that an entry about it needs."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_egress.gateway.destination import Destination
from pytest_egress.ledger.windows import Activity, AttemptContext


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A connection that opens, or a request. A connection of HTTP/1.1 has one at a time.

    Attributes:
        context: Its window and the routes that may answer it.
        destination: What its connection is for.
        started: When it began, as entries have it.
        activity: Keeps its window open.
    """

    context: AttemptContext
    destination: Destination
    started: float
    activity: Activity
