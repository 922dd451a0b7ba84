"""A route is one object, of which tests see a part."""

from __future__ import annotations

from pytest_egress import Egress, Route
from pytest_egress.routes.inner_route import InnerRoute

FOR_TESTS = [
    "address", "assert_any_call", "assert_called_once", "assert_called_once_with",
    "assert_called_with", "assert_not_called",
    "assert_not_sent", "assert_rejected", "call_count", "called", "calls", "intervals", "name", "rejections",
    "remove", "respond", "times", "wait_for_call",
]  # fmt: skip


def test_what_a_test_holds_completes_to_the_names_for_tests_alone() -> None:
    route = Egress().intercept_https("a.test")
    assert isinstance(route, InnerRoute)
    assert [name for name in dir(route) if not name.startswith("_")] == FOR_TESTS


def test_each_of_these_is_documented_where_type_checkers_find_it() -> None:
    methods = {*FOR_TESTS} - {"name"}  # an attribute, in the text of the class
    assert all(vars(Route)[name].__doc__ for name in methods)
    assert methods.isdisjoint(vars(InnerRoute))
