"""How the cost of one step grows with how many there are: routes, calls, entries, containers, names.

The last column has the exponent of the growth between the first and the last size: 0 is flat, 1 in proportion, and more
than 1 would be worse than that. Times are CPU time of one thread, but for containers, where most of it is the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

import dns.message
import trustme

from benchmarks.figures import number
from benchmarks.parts import progress
from benchmarks.routes import microseconds, request_to, with_routes
from benchmarks.start import IMAGE, milliseconds
from pytest_egress import Egress
from pytest_egress.gateway.tls.authority import Authority
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.route import Route
from pytest_egress.routes.table import decide, nearest_by_address
from pytest_egress.traffic.dns.resolver import Resolver
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.response import Response

TRIES: Final = 5  # of which the least counts: what else runs only adds
HUNDREDS: Final = (100, 1000, 10_000)
THOUSANDS: Final = (1000, 10_000, 50_000)

Costs = Mapping[str, Mapping[int, float]]
"""The cost of each step by how many there are."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Steps whose cost may grow with how many there are of something.

    Attributes:
        of: What there are many of.
        costs: Returns the cost of each step, in this unit, with so many.
    """

    of: str
    unit: str
    sizes: Sequence[int]
    costs: Callable[[int], Mapping[str, float]]


def measured() -> str:
    """Measure all, and return a table for each."""
    tables = []
    for growth in GROWTHS:
        progress(f"growth: {growth.of}")
        tables.append(table(growth, measure(growth)) + "\n")
    return "\n".join(tables)


def measure(growth: Growth) -> Costs:
    found = {size: growth.costs(size) for size in growth.sizes}
    return {
        step: {size: found[size][step] for size in growth.sizes} for step in found[growth.sizes[0]]
    }


def table(growth: Growth, costs: Costs) -> str:
    """The costs in Markdown, with the exponent of the growth."""
    sizes = [f"{size:,}" for size in growth.sizes]
    lines = [
        f"| by {growth.of}, {growth.unit} | {' | '.join(sizes)} | exponent |",
        f"|---{'|---:' * (len(sizes) + 1)}|",
    ]
    for step, by_size in costs.items():
        cells = [number(value) for value in by_size.values()]
        lines.append(f"| {step} | {' | '.join(cells)} | {exponent(by_size):.2f} |")
    return "\n".join(lines)


def exponent(by_size: Mapping[int, float]) -> float:
    """The power of the size by which the cost grows from the first size to the last."""
    (least, first), *_, (most, last) = by_size.items()
    return math.log(last / first) / math.log(most / least)


def by_routes(size: int) -> Mapping[str, float]:
    egress, numbers = with_routes(size), count()
    tables, request = egress._inner.tables(), request_to("host0.test")
    return {
        "finding the route of a request": least(lambda: decide(tables, request), 300),
        "declaring one more": least(
            lambda: egress.intercept_https(f"more{next(numbers)}.test", {}, optional=True), 10
        ),
        "near misses of an unrouted attempt": least(
            lambda: nearest_by_address(tables, "https", f"host{next(numbers)}.example", 443), 2
        ),
    }


def by_matchers(size: int) -> Mapping[str, float]:
    egress = Egress()
    for n in range(size):
        egress.intercept_https("api.test", {}, path=f"/{n}", optional=True)
    tables, last = egress._inner.tables(), request_to("api.test", "/0")
    return {"finding the one that was declared first": least(lambda: decide(tables, last), 5)}


def by_calls(size: int) -> Mapping[str, float]:
    egress, route, window = with_a_window()
    for exchange in exchanges(egress, route, size):
        record(egress, window, exchange)
    more = exchanges(egress, route, 100 * TRIES)
    return {
        "recording one more": least(lambda: record(egress, window, next(more)), 100),
        "route.call_count": least(lambda: route.call_count, 20),
        "egress.ledger": least(lambda: egress.ledger, 2),
        "egress.exchanges": least(lambda: egress.exchanges, 2),
    }


def with_a_window() -> tuple[Egress, Route[Exchange], Window]:
    """A scope with one route, whose window is open as in a test."""
    egress = Egress()
    route = egress.intercept_https("api.test", {}, optional=True)
    egress._inner.window = egress._inner.session.open_window()
    return egress, route, egress._inner.window


def exchanges(egress: Egress, route: Route[Exchange], many: int) -> Iterator[Exchange]:
    """As many exchanges as a gateway would have made."""
    for _ in range(many):
        yield Exchange(
            container="benchmark",
            started=egress._inner.session.ledger.now(),
            outcome="routed",
            host="api.test",
            port=443,
            request=request_to("api.test"),
            response=Response(),
            route=route,
        )


def record(egress: Egress, window: Window, exchange: Exchange) -> None:
    """Record a call, as the gateway does."""
    egress._inner.session.ledger.record(window, exchange)
    egress._inner.session.ledger.count(exchange.route, window, exchange)


def by_containers(size: int) -> Mapping[str, float]:
    with Egress() as egress:
        for _ in range(size):
            egress.start(IMAGE, ["sleep", "infinity"])
        run = [milliseconds(lambda: egress.run(IMAGE, ["true"])) for _ in range(TRIES)]
        return {"running one more": min(run)}


def by_names(size: int) -> Mapping[str, float]:
    resolver = Resolver(ipv6=True)
    queries = (dns.message.make_query(f"name{n}.test", "A").to_wire() for n in count())
    for _ in range(size):
        resolver.answer(next(queries))
    known = dns.message.make_query("name1.test", "A").to_wire()
    ahead = iter([next(queries) for _ in range(100 * TRIES)])
    return {
        "answering for one more": least(lambda: resolver.answer(next(ahead)), 100),
        "answering for one again": least(lambda: resolver.answer(known), 100),
    }


def by_leaves(size: int) -> Mapping[str, float]:
    authority, numbers = Authority(trustme.CA()), count()
    for _ in range(size):
        authority.context(f"name{next(numbers)}.test")
    return {
        "making one more": least(lambda: authority.context(f"name{next(numbers)}.test"), 5),
        "using one again": least(lambda: authority.context(f"name{next(numbers) * 0}.test"), 20),
    }


def least(action: Callable[[], object], times: int) -> float:
    """The least of several tries, each of which does it so many times."""
    return min(microseconds(action, times) for _ in range(TRIES))


GROWTHS: Final = (
    Growth(of="routes for a host each", unit="µs", sizes=HUNDREDS, costs=by_routes),
    Growth(of="routes for one host", unit="µs", sizes=(10, 100, 1000), costs=by_matchers),
    Growth(of="calls in a test", unit="µs", sizes=THOUSANDS, costs=by_calls),
    Growth(of="names looked up", unit="µs", sizes=HUNDREDS, costs=by_names),
    Growth(of="leaf certificates", unit="µs", sizes=(10, 100), costs=by_leaves),
    Growth(of="containers alive", unit="ms", sizes=(1, 5, 10), costs=by_containers),
)
