"""What routes cost where there are many: to find the one that answers, to declare one more, and to say what came near.

Nothing goes over a wire here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Final

from benchmarks.figures import Row
from benchmarks.parts import Measure, Part
from pytest_egress import Egress, Request
from pytest_egress.routes.table import decide, nearest_by_address

UNIT: Final = "µs"
LOOK_UP, DECLARE = "finding the route of a request", "declaring a route"
NEAR: Final = "near misses of an unrouted attempt"
FEW, THOUSAND, MANY = "with 10 routes", "with 1,000 routes", "with 10,000 routes"
SIZES: Final = {FEW: 10, THOUSAND: 1000, MANY: 10_000}
TIMES: Final = {LOOK_UP: 500, DECLARE: 50, NEAR: 5}
"""How often each is done at once."""

ROWS: Final = (
    Row(subject=LOOK_UP, unit=UNIT, ours=MANY, against=FEW),
    Row(subject=DECLARE, unit=UNIT, ours=MANY, against=FEW),
    Row(subject=NEAR, unit=UNIT, ours=THOUSAND, against=FEW),
)


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    numbers = count()
    actions = {
        (subject, size): action_on(subject, with_routes(SIZES[size]), numbers)
        for subject in TIMES
        for size in of
    }

    def measure(subject: str, size: str) -> Mapping[str, float]:
        return {UNIT: microseconds(actions[subject, size], TIMES[subject])}

    yield measure


def with_routes(size: int) -> Egress:
    """Routes for that many hosts."""
    egress = Egress()
    for number in range(size):
        egress.intercept_https(f"host{number}.test", {"ok": True}, optional=True)
    return egress


def action_on(subject: str, egress: Egress, numbers: Iterator[int]) -> Callable[[], object]:
    """Return what is measured; numbers make names that have not been asked for yet, since answers are remembered."""
    tables, request = egress._inner.tables(), request_to("host0.test")
    return {
        LOOK_UP: lambda: decide(tables, request),
        DECLARE: lambda: egress.intercept_https(f"more{next(numbers)}.test", {}, optional=True),
        NEAR: lambda: nearest_by_address(tables, "https", f"host{next(numbers)}.example", 443),
    }[subject]


def request_to(host: str, path: str = "/") -> Request:
    return Request(method="GET", scheme="https", host=host, port=443, path=path)


def microseconds(action: Callable[[], object], times: int) -> float:
    """The CPU time of this thread for one of so many."""
    began = time.thread_time()
    for _ in range(times):
        action()
    return (time.thread_time() - began) / times * 1e6


PART: Final = Part(name="routes", rows=ROWS, rounds=7, prepare=prepare)
