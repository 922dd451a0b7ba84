"""The ways in which a sweep has a call fail. `FAULTS` has them in the order of a matrix's columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pytest_egress.base.unset import UNSET
from pytest_egress.routes.faults import Fault, Truncated, reset, silence
from pytest_egress.routes.table import Instead
from pytest_egress.traffic.http.response import Response

PAGE: Final = "<!doctype html><title>Be right back</title><p>We are down for maintenance.</p>"


@dataclass(frozen=True, kw_only=True)
class Failing:
    """One way in which a call fails.

    Attributes:
        answer: Makes what is sent in place of the answer; it is given the seconds until the client must have given up.
        is_processed: Whether the request is processed all the same, as a call of its route.
        is_of_connections: Whether raw connections fail so too.
    """

    answer: Callable[[float], Response | Fault]
    is_processed: bool = False
    is_of_connections: bool = False

    def instead(self, seconds: float) -> Instead:
        return Instead(answer=self.answer(seconds), is_processed=self.is_processed)


def unavailable(seconds: float) -> Response:
    return Response(503, text="Service Unavailable")


def too_many(seconds: float) -> Response:
    return Response(429, headers={"Retry-After": "1"}, text="Too Many Requests")


def page(seconds: float) -> Response:
    return Response(200, headers={"Content-Type": "text/html; charset=utf-8"}, text=PAGE)


FAULTS: Final = {
    "503": Failing(answer=unavailable),
    "429": Failing(answer=too_many),
    "reset": Failing(answer=lambda seconds: reset(), is_of_connections=True),
    "html": Failing(answer=page, is_processed=True),
    "empty": Failing(answer=lambda seconds: Response(200), is_processed=True),
    "lost": Failing(answer=lambda seconds: reset(), is_processed=True),
    "cut": Failing(answer=lambda seconds: Truncated(UNSET, 1), is_processed=True),
    "silence": Failing(answer=lambda seconds: silence(round(seconds, 1)), is_of_connections=True),
}
"""By name. Silence is the last, since it takes the longest."""
