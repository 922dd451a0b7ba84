"""The order in which routes were called."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress.errors import CallError
from pytest_egress.ledger.order import check_before, check_order
from pytest_egress.routes.inner_route import InnerRoute
from tests.support.routes import Routes

TOKEN, CHARGE = "https://auth.test/", "https://api.test/"


@pytest.fixture
def routes() -> Routes:
    return Routes()


def called(routes: Routes, *order: tuple[InnerRoute, str]) -> None:
    """Have routes called, each a second after the one before."""
    for second, (route, url) in enumerate(order):
        routes.call(route, url).started = float(second)


@pytest.fixture
def token(routes: Routes) -> InnerRoute:
    return routes.https("auth.test")


@pytest.fixture
def charge(routes: Routes) -> InnerRoute:
    return routes.https("api.test")


def failure(check: Any, *order: InnerRoute) -> CallError:
    with pytest.raises(CallError) as caught:
        check(*order)
    return caught.value


def test_the_first_difference_is_marked_in_both_orders(
    routes: Routes, token: InnerRoute, charge: InnerRoute
) -> None:
    called(routes, (token, TOKEN), (charge, CHARGE), (token, TOKEN), (charge, CHARGE))
    check_order([token, charge, token, charge])
    error = failure(lambda *order: check_order(order), token, charge, charge, token)
    assert str(error) == (
        "expected these calls in order:\n"
        '    intercept_https("auth.test")\n'
        '    intercept_https("api.test")\n'
        '  > intercept_https("api.test")\n'
        '    intercept_https("auth.test")\n'
        "there were:\n"
        "    GET https://auth.test/\n"
        "    GET https://api.test/\n"
        "  > GET https://auth.test/\n"
        "    GET https://api.test/"
    )
    assert error.headline == (
        'GET https://auth.test/: it came where the order has intercept_https("api.test")'
    )


def test_a_call_too_few_or_too_many_is_a_difference(
    routes: Routes, token: InnerRoute, charge: InnerRoute
) -> None:
    error = failure(lambda *order: check_order(order), token)
    assert str(error).endswith('> intercept_https("auth.test")\nthere were:\n  > no further call')
    called(routes, (token, TOKEN), (charge, CHARGE))
    error = failure(lambda *order: check_order(order), token, charge, token)
    assert str(error).endswith("    GET https://api.test/\n  > no further call")
    assert error.headline == (
        'intercept_https("auth.test"): expected next, and there was no further call'
    )
    routes.call(charge, CHARGE).started = 9.0
    error = failure(lambda *order: check_order(order), token, charge)
    expected, _, found = str(error).partition("there were:")
    assert expected.endswith('    intercept_https("api.test")\n  > no further call\n')
    assert found.endswith("    GET https://api.test/\n  > GET https://api.test/")
    assert error.headline == "GET https://api.test/: it came after the end of the order"


def test_what_no_route_of_the_order_answered_does_not_matter(
    routes: Routes, token: InnerRoute, charge: InnerRoute
) -> None:
    called(routes, (charge, CHARGE), (token, TOKEN), (charge, CHARGE))
    check_order([token])
    check_order([])


# Before.


def test_the_first_call_of_one_route_comes_before_that_of_another_whatever_comes_later(
    routes: Routes, token: InnerRoute, charge: InnerRoute
) -> None:
    called(routes, (token, TOKEN), (charge, CHARGE), (token, TOKEN))
    check_before(token, charge)
    error = failure(check_before, charge, token)
    assert str(error) == (
        'expected the first call of intercept_https("api.test")\n'
        "    GET https://api.test/\n"
        'before the first call of intercept_https("auth.test")\n'
        "    GET https://auth.test/"
    )
    assert error.headline == (
        'GET https://auth.test/: it came before the first call of intercept_https("api.test")'
    )


def test_calls_count_by_their_begin_and_not_by_their_end(
    routes: Routes, token: InnerRoute, charge: InnerRoute
) -> None:
    routes.call(charge, CHARGE).started = 2.0  # it was answered first
    routes.call(token, TOKEN).started = 1.0
    check_before(token, charge)
    check_order([token, charge])


@pytest.mark.parametrize("first_is_called", [True, False])
def test_both_routes_have_to_be_called(
    routes: Routes, token: InnerRoute, charge: InnerRoute, first_is_called: bool
) -> None:
    called(routes, (token, TOKEN) if first_is_called else (charge, CHARGE))
    error = failure(check_before, token, charge)
    assert "\n    never called" in str(error)
    missing = "api.test" if first_is_called else "auth.test"
    assert error.headline == f'{missing}: never called, intercept_https("{missing}")'


def test_a_route_does_not_come_before_itself(token: InnerRoute) -> None:
    with pytest.raises(ValueError, match="takes two routes, and both are intercept_https"):
        check_before(token, token)
