"""What a shared container goes on with after a test: how the next one tells of it, and how to wait for its end."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress import CallError, Request
from pytest_egress.errors import HandlerError, NeverCalledError, UnroutedError
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.report import Shared, shared_note
from pytest_egress.ledger.verdict import judge
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import INTERCEPT_TLS
from pytest_egress.traffic.entries import Exchange
from tests.support.attempts import attempt, query, route_in


def shared(**fields: Any) -> Shared:
    about: dict[str, Any] = {
        "container": "shop",
        "scope": "module",
        "place": "conftest.py:7",
        "fixture": "web",
        "test": "test_x.py::test_a",
        "previous": "test_x.py::test_b",
        "opened": 0.5,
    }
    return Shared(**{**about, **fields})


# The verdict.


def test_a_verdict_on_a_shared_container_says_who_started_it_and_what_ran_before() -> None:
    verdict = judge(Window(entries=[attempt()]), [], shared=[shared()])
    assert isinstance(verdict, UnroutedError)
    assert str(verdict).split("\n\n")[-1] == (
        "shop is shared by all tests of its module. "
        "It was started by the fixture 'web' for test_x.py::test_a at conftest.py:7.\n"
        "  test_x.py::test_b ran before this test, and may have set this off: "
        "the first of it came 0.500 s into this test.\n"
        "  To let a test wait for what it sets off: egress.wait_until_quiet(seconds)\n"
        "  If the container sends this by itself, declare the route on module_egress: it then answers in every test."
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"fixture": ""}, "started by test_x.py::test_a at conftest.py:7."),
        ({"test": "", "place": ""}, "started by the fixture 'web'."),
        ({"fixture": "", "test": "", "place": ""}, "started."),
    ],
)
def test_of_who_started_it_the_verdict_says_what_is_known(
    fields: dict[str, Any], text: str
) -> None:
    verdict = judge(Window(entries=[attempt()]), [], shared=[shared(**fields)])
    assert f"its module. It was {text}\n" in str(verdict)


def test_where_no_test_ran_before_there_is_nothing_to_say() -> None:
    verdict = judge(Window(entries=[attempt()]), [], shared=[shared(previous="")])
    assert "shared" not in str(verdict)


def test_what_a_handler_raised_for_a_shared_container_keeps_its_cause() -> None:
    error = LookupError("no such charge")
    verdict = judge(Window(entries=[attempt("routed", error=error)]), [], shared=[shared()])
    assert isinstance(verdict, HandlerError)
    assert "shop is shared" in str(verdict)
    assert verdict.__cause__ is error


def test_a_verdict_on_a_tests_own_container_says_nothing_of_shared_ones() -> None:
    verdict = judge(Window(entries=[attempt(container="own")]), [], shared=[shared()])
    assert "shared" not in str(verdict)


def test_beside_a_failure_of_the_test_itself_it_is_a_note() -> None:
    assert list(shared_note([attempt()], [shared()])) == [
        "shop is shared: what test_x.py::test_b set off, which ran before, may be among this.",
        "  To let a test wait for that: egress.wait_until_quiet(seconds)",
    ]
    assert not [*shared_note([attempt(container="own"), query()], [shared()])]
    assert not [*shared_note([attempt()], [shared(previous="")])]


@pytest.mark.parametrize(
    ("running", "text"),
    [
        ([], ""),
        (["shop"], "\n  shop still runs, and may call later: wait_for_call() waits for that"),
        (["a", "b"], "\n  a and b still run, and may call later: wait_for_call() waits for that"),
    ],
)
def test_a_call_that_is_missing_names_wait_for_call_while_a_container_runs(
    running: list[str], text: str
) -> None:
    log = Ledger()
    log.running = lambda: running
    with pytest.raises(CallError) as caught:
        route_in(log).assert_called_once()
    assert (
        str(caught.value) == f'intercept_https("api.test"): expected 1 call, there was none{text}'
    )
    with pytest.raises(CallError) as caught:
        route_in(log).assert_called_with(path="/")
    assert str(caught.value) == f'intercept_https("api.test"): was not called{text}'


def test_calls_that_are_too_many_or_other_ones_name_it_where_it_helps() -> None:
    log, window = Ledger(), Window()
    log.running = lambda: ["shop"]
    route = route_in(log)
    request = Request(method="GET", scheme="https", host="api.test", port=443, path="/a")
    about: dict[str, Any] = {"container": "shop", "started": 1.0, "outcome": "routed"}
    for _ in range(2):
        log.count(route, window, Exchange(**about, host="api.test", port=443, request=request))
    with pytest.raises(CallError) as caught:
        route.assert_called_once()
    assert "wait_for_call" not in str(caught.value)
    with pytest.raises(CallError) as caught:
        route.assert_called_with(path="/b")
    assert str(caught.value).endswith("may call later: wait_for_call(3) waits for that")


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ([{}], "wait_for_call()"),
        ([{"times": 3}], "wait_for_call(3)"),
        ([{"times": 2}, {}], "wait_for_call(times)"),
    ],
)
def test_a_route_that_was_not_called_often_enough_names_it_too(
    options: list[dict[str, Any]], call: str
) -> None:
    routes = [route_in(Ledger(), **each) for each in options]
    ended, running = judge(Window(), routes), judge(Window(), routes, running=lambda: ["shop"])
    assert isinstance(running, NeverCalledError)
    assert f"\nshop still runs, and may call later: {call} waits for that.\n" in str(running)
    assert "wait_for_call" not in str(ended)


def test_where_a_handshake_failed_waiting_is_no_advice() -> None:
    entry = attempt()
    entry.note = "the target does not trust the CA"
    route: InnerRoute = InnerRoute(
        declare(INTERCEPT_TLS, "db.test"), scope="test", declared_at="", log=Ledger()
    )
    entry.outcome = "recorded"
    verdict = judge(Window(entries=[entry]), [route], running=lambda: ["shop"])
    assert isinstance(verdict, NeverCalledError)
    assert entry.note in str(verdict)
    assert "wait_for_call" not in str(verdict)
