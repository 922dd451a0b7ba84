"""The request that came nearest to a route which was not called, and what answered it in the route's place.

Predicates (`match=`) are not called here: they are functions of the test's, and its requests are over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import address_miss, by_address_and_path, similar_routes
from pytest_egress.traffic.entries import Entry, Exchange

LOOKED_INTO: Final = 20  # requests that are equally near by their heads, whose bodies are compared


class Nearest(NamedTuple):
    """A request, and why a route has not answered it."""

    exchange: Exchange
    reasons: list[str]


def nearest_lines(
    route: InnerRoute, entries: Sequence[Entry], declared: Sequence[InnerRoute]
) -> Iterator[str]:
    """Lines about the nearest request; none where no request was for an address like the route's.

    Args:
        declared: The routes of the test, in the order of their declarations.
    """
    if (nearest := nearest_request(route, entries, declared)) is None:
        return
    exchange, reasons = nearest
    yield f"nearest request: {exchange}"
    yield from (f"    {reason}" for reason in reasons)
    yield f"    {answered_text(exchange)}"


def nearest_request(
    route: InnerRoute, entries: Sequence[Entry], declared: Sequence[InnerRoute]
) -> Nearest | None:
    """By the address, then the path, then the method, then the number of differences; the first of the nearest."""
    if not route.kind.reads_requests:
        return None
    addresses: dict[tuple[str, str, int], list[str] | None] = {}
    found: list[tuple[tuple[object, ...], Nearest]] = []
    for entry in entries:
        if not isinstance(entry, Exchange) or entry.route is route:
            continue
        request = entry.request
        asked = request.scheme, request.host, request.port
        if asked not in addresses:
            addresses[asked] = address_differences(route, *asked)
        of_address = addresses[asked]
        if of_address is not None and not is_of_another(route, entry):
            differences = [*of_address, *route.matcher.head_differences(request)]
            remoteness = (bool(of_address), *route.matcher.remoteness(request), len(differences))
            found.append((remoteness, Nearest(entry, differences)))
    least = min((remoteness for remoteness, _ in found), default=None)
    nearest = [each for remoteness, each in found if remoteness == least][:LOOKED_INTO]
    explained = [Nearest(each.exchange, all_reasons(route, each, declared)) for each in nearest]
    return min(explained, key=lambda each: len(each.reasons), default=None)


def address_differences(route: InnerRoute, scheme: str, host: str, port: int) -> list[str] | None:
    """Empty where the route claims the address; None where that is nothing like the route's."""
    if route.claims(scheme == "https", host, port):
        return []
    alike = next(similar_routes(host, [route]), None)
    return None if alike is None else [*address_miss(alike, scheme, host, port)[1].differences]


def is_of_another(route: InnerRoute, exchange: Exchange) -> bool:
    """Whether a request was for another host, and answered by a route for exactly that one: it was not misspelt."""
    answered, address = exchange.route, route.parsed_address
    is_exact = answered is not None and answered.parsed_address.is_exact
    return is_exact and not address.matches(exchange.request.host, address.port or 0)


def all_reasons(route: InnerRoute, nearest: Nearest, declared: Sequence[InnerRoute]) -> list[str]:
    exchange, differences = nearest
    reasons = [*differences, *body_differences(route, exchange)]
    if reasons:
        return reasons
    if exchange.route is not None and comes_first(exchange.route, route, declared):
        return [f"it fits, and {FIRST}"]
    if route.matcher.match is not None:
        return [exchange.note or route.matcher.refusal("did not accept it")]
    return []


FIRST: Final = (
    "another route comes first: its address or path is more specific, or it was declared later"
)


def body_differences(route: InnerRoute, exchange: Exchange) -> list[str]:
    """None of a body that was streamed or did not come whole: it is not there to be compared."""
    try:
        return route.matcher.body_differences(exchange.request)
    except Exception:  # also of a value of the test's own that compares as it likes
        return []


def comes_first(one: InnerRoute, other: InnerRoute, declared: Sequence[InnerRoute]) -> bool:
    """Whether a request is offered to the first route before `other`, which is the test's own."""
    if one not in declared:  # it is of a wider scope
        return False
    ranks = by_address_and_path(one), by_address_and_path(other)
    return ranks[0] > ranks[1] or (
        ranks[0] == ranks[1] and declared.index(one) > declared.index(other)
    )


def answered_text(exchange: Exchange) -> str:
    route = exchange.route
    if route is None:
        policies = {
            "passthrough": 'passed on by unrouted="passthrough"',
            "blocked": 'refused by unrouted="block"',
        }
        return policies.get(exchange.outcome, "not answered")
    verb = (
        "refused"
        if route.kind.refuses
        else "passed on"
        if route.kind.passes_through
        else "answered"
    )
    return f"{verb} by {route}" + (
        f", declared at {route.declared_at}" if route.declared_at else ""
    )
