"""The order in which routes were called: the checks of `assert_order` and `assert_before`, and their texts.

A call is where its request, connection or lookup began. Calls of other routes do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

from pytest_egress.errors import CallError
from pytest_egress.routes.route import Route
from pytest_egress.traffic.entries import Entry
from pytest_egress.traffic.shown import shown

NO_CALL: Final = "no further call"
MARK: Final = "  > "


def check_routes(method: str, routes: Sequence[object]) -> None:
    for route in routes:
        if not isinstance(route, Route):
            raise TypeError(
                f"{method}() takes routes, as intercept_https() returns them, not {shown(route)}"
            )


def check_order(routes: Sequence[Route[Any]]) -> None:
    """Raise CallError where these routes were called in another order, or not as often."""
    check_routes("assert_order", routes)
    calls = {id(call): (call, route) for route in routes for call in route.calls}
    happened = sorted(calls.values(), key=lambda found: found[0].started)
    pairs = zip_longest(routes, happened)
    for number, (route, found) in enumerate(pairs):
        if found is None or found[1] is not route:
            raise out_of_order(routes, [call for call, _ in happened], number)


def out_of_order(routes: Sequence[Route[Any]], calls: Sequence[Entry], at: int) -> CallError:
    """The error where the calls differ from the routes first at an index, which is marked in both."""
    lines = ["expected these calls in order:", *marked(routes, at)]
    error = CallError("\n".join([*lines, "there were:", *marked(calls, at)]))
    if at >= len(calls):
        error.headline = f"{routes[at]}: expected next, and there was no further call"
    elif at >= len(routes):
        error.headline = f"{calls[at]}: it came after the end of the order"
    else:
        error.headline = f"{calls[at]}: it came where the order has {routes[at]}"
    return error


def marked(items: Sequence[object], at: int) -> list[str]:
    shown_items = [*items] if at < len(items) else [*items, NO_CALL]
    return [f"{MARK if i == at else '    '}{each}" for i, each in enumerate(shown_items)]


def check_before(first: Route[Any], second: Route[Any]) -> None:
    """Raise CallError where a route was not called, or the first call of `second` began before that of `first`."""
    check_routes("assert_before", [first, second])
    if first is second:
        raise ValueError(f"assert_before() takes two routes, and both are {first}")
    one, two = first_call(first), first_call(second)
    if one is not None and two is not None and one.started <= two.started:
        return
    error = CallError(
        f"expected the first call of {first}\n    {one or NEVER}\n"
        f"before the first call of {second}\n    {two or NEVER}"
    )
    if one is None or two is None:
        missing = first if one is None else second
        error.headline = f"{missing.address}: never called, {missing}"
    else:
        error.headline = f"{two}: it came before the first call of {first}"
    raise error


NEVER: Final = "never called"


def first_call(route: Route[Any]) -> Entry | None:
    return min(route.calls, key=lambda call: call.started, default=None)
