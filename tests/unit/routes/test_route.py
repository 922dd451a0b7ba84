"""What a test can ask a route, and what a route keeps."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from pytest_egress.errors import CallError
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.faults import blackhole, refuse
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.http.request import Request
from tests.support.routes import Routes, called

SECONDS = 10.0


@pytest.fixture
def routes() -> Routes:
    return Routes()


# Its answer.


def test_as_a_decorator_a_route_takes_a_function_and_stays_a_route(routes: Routes) -> None:
    @routes.https()
    def charges(request: Request) -> dict[str, str]:
        return {"path": request.path}

    assert isinstance(charges, InnerRoute)
    assert called(charges) == {"path": "/"}
    with pytest.raises(TypeError) as caught:
        routes.https()({"id": 1})  # type: ignore[call-overload]  # what the error is for
    assert str(caught.value) == "@intercept_https('api.test') decorates a function, not {'id': 1}"


def test_the_answer_can_be_changed_in_place(routes: Routes) -> None:
    route = routes.https(answer={"id": 1})
    assert route.respond(503) is route
    assert route.turns.answer()[0].status_code == 503


# Its calls.


def test_calls_come_in_order_and_count(routes: Routes) -> None:
    route = routes.https()
    assert (route.called, route.call_count, route.calls) == (False, 0, [])
    exchanges = [routes.call(route), routes.call(route)]
    assert (route.called, route.call_count, route.calls) == (True, 2, exchanges)


def test_a_call_that_has_happened_is_returned_at_once_and_not_consumed(routes: Routes) -> None:
    route = routes.https()
    first, second = routes.call(route), routes.call(route)
    assert [route.wait_for_call(n, timeout=0) for n in (1, 2, 1)] == [first, second, first]


def test_a_call_is_waited_for(routes: Routes) -> None:
    route = routes.https()
    timer = threading.Timer(0.05, routes.call, [route])
    timer.start()
    assert route.wait_for_call(timeout=SECONDS) in route.calls
    timer.join()


@pytest.mark.parametrize(("calls", "there"), [(0, "was none"), (1, "was 1"), (2, "were 2")])
def test_a_call_that_does_not_come_is_an_error(routes: Routes, calls: int, there: str) -> None:
    route = routes.https(path="/v1", times=3, name="charge")
    for _ in range(calls):
        routes.call(route)
    with pytest.raises(CallError) as caught:
        route.wait_for_call(calls + 1, timeout=0.01)
    assert str(caught.value) == (
        "intercept_https(\"api.test\", path='/v1', times=3, name='charge'): "
        f"waited 0.01 s for call {calls + 1}; there {there}"
    )


def test_calls_are_counted_from_1(routes: Routes) -> None:
    with pytest.raises(ValueError, match="count=0: calls are counted from 1"):
        routes.https().wait_for_call(0)


def test_no_wait_expires_while_a_prompt_is_open(routes: Routes) -> None:
    route, waits = routes.https(), threading.Event()
    found: list[object] = []

    def wait() -> None:
        waits.set()
        found.append(route.wait_for_call(timeout=0.2))

    routes.ledger.enter_prompt()
    thread = threading.Thread(target=wait)
    thread.start()
    assert waits.wait(SECONDS)
    thread.join(0.5)
    assert thread.is_alive()
    exchange = routes.call(route)
    thread.join(SECONDS)
    assert found == [exchange]
    routes.ledger.leave_prompt()


def test_a_wait_goes_on_for_its_rest_when_the_prompt_is_closed(routes: Routes) -> None:
    route = routes.https()
    routes.ledger.enter_prompt()
    routes.ledger.enter_prompt()  # on another thread
    timers = [threading.Timer(0.1, routes.ledger.leave_prompt) for _ in range(2)]
    for timer in timers:
        timer.start()
    with pytest.raises(CallError):
        route.wait_for_call(timeout=0.01)
    for timer in timers:
        timer.join()
    assert not routes.ledger.prompts


def test_assert_called_once_lists_the_calls(routes: Routes) -> None:
    route = routes.https()
    with pytest.raises(CallError) as caught:
        route.assert_called_once()
    assert str(caught.value) == 'intercept_https("api.test"): expected 1 call, there was none'
    exchange = routes.call(route)
    assert route.assert_called_once() is exchange
    routes.call(route, "https://api.test/x", method="PUT")
    with pytest.raises(CallError) as caught:
        route.assert_called_once()
    assert str(caught.value) == (
        'intercept_https("api.test"): expected 1 call, there were 2\n'
        "  GET https://api.test/\n"
        "  PUT https://api.test/x"
    )


def test_a_predicate_that_raises_for_a_call_does_not_match_it(routes: Routes) -> None:
    route = routes.https()
    calls = [routes.call(route, f"https://api.test/{n}", method="PUT") for n in (0, 1)]

    def even(request: Request) -> bool:
        return 1 // int(request.path[1:]) == 1

    assert route.assert_any_call(match=even) is calls[1]
    routes.call(route, "https://api.test/0", method="PUT")
    with pytest.raises(
        CallError, match=r"match: .*even raised ZeroDivisionError: .*, at test_route"
    ):
        route.assert_called_with(match=even)


def test_assert_any_call_returns_the_first_call_that_matches(routes: Routes) -> None:
    route = routes.https()
    calls = [routes.call(route, f"https://api.test/{n}", method="PUT") for n in (1, 2, 2)]
    assert route.assert_any_call(path="/2", method="put") is calls[1]
    with pytest.raises(CallError) as caught:
        route.assert_any_call(path="/3", method="POST")
    assert str(caught.value) == (
        "intercept_https(\"api.test\"): none of 3 calls matches method='POST', path='/3'\n"
        "  PUT https://api.test/1\n"
        "      method: PUT is not POST\n"
        "      path: '/1' is not '/3'\n"
        "  PUT https://api.test/2\n"
        "      method: PUT is not POST\n"
        "      path: '/2' is not '/3'\n"
        "  PUT https://api.test/2\n"
        "      method: PUT is not POST\n"
        "      path: '/2' is not '/3'"
    )


def test_assert_called_with_is_of_the_last_call(routes: Routes) -> None:
    route = routes.https()
    calls = [routes.call(route, f"https://api.test/{n}") for n in (1, 2, 3)]
    assert route.assert_called_with(path="/3") is calls[2]
    assert route.assert_called_with() is calls[2]
    with pytest.raises(CallError) as caught:
        route.assert_called_with(path="/2")
    assert str(caught.value) == (
        "intercept_https(\"api.test\"): the last of 3 calls does not match path='/2'\n"
        "  GET https://api.test/3\n"
        "      path: '/3' is not '/2'\n"
        "  call 2 of 3 matches, which assert_any_call(...) finds"
    )
    with pytest.raises(CallError) as caught:
        route.assert_called_with(path="/4")
    assert str(caught.value).endswith("\n      path: '/3' is not '/4'")


def test_assert_called_once_with_is_of_the_only_call(routes: Routes) -> None:
    route = routes.https()
    with pytest.raises(CallError, match="expected 1 call, there was none"):
        route.assert_called_once_with(path="/1")
    call = routes.call(route, "https://api.test/1")
    assert route.assert_called_once_with(path="/1") is call
    with pytest.raises(CallError, match=r"path: '/1' is not '/2'"):
        route.assert_called_once_with(path="/2")
    routes.call(route, "https://api.test/1")
    with pytest.raises(CallError, match="expected 1 call, there were 2"):
        route.assert_called_once_with(path="/1")


def test_assert_called_with_of_the_only_call_calls_it_so(routes: Routes) -> None:
    route = routes.https()
    routes.call(route)
    with pytest.raises(CallError, match=r": its call does not match method='PUT'\n"):
        route.assert_called_with(method="PUT")


@pytest.mark.parametrize("method", ["assert_called_with", "assert_any_call"])
def test_what_was_not_called_matches_nothing(routes: Routes, method: str) -> None:
    with pytest.raises(CallError, match=r'^intercept_https\("api\.test"\): was not called$'):
        getattr(routes.https(), method)(path="/x")


def test_assert_not_sent_searches_the_calls_of_the_route_alone(routes: Routes) -> None:
    route, other = routes.https(), routes.https()
    with pytest.raises(CallError, match=r"was not called, so that nothing can be found$"):
        route.assert_not_sent("ann")
    routes.call(route, "https://api.test/of/bob")
    routes.call(other, "https://api.test/of/ann")
    route.assert_not_sent("ann", b"ann", re.compile("an+"))
    with pytest.raises(CallError) as caught:
        route.assert_not_sent("ann", "bob")
    assert str(caught.value) == (
        "this must not be sent, and was:\n\n"
        "  GET https://api.test/of/bob\n"
        "      'bob' in url path: '/of/bob'"
    )


def test_assert_not_called_lists_the_calls_or_frees_the_route(routes: Routes) -> None:
    route = routes.https()
    route.assert_not_called()
    assert route.expected_idle
    called = routes.https()
    routes.call(called)
    with pytest.raises(CallError) as caught:
        called.assert_not_called()
    assert str(caught.value) == (
        'intercept_https("api.test"): expected no call, there was 1\n  GET https://api.test/'
    )
    assert not called.expected_idle


def test_a_route_shows_its_declaration_and_calls(routes: Routes) -> None:
    route = routes.https("*.test", json={"a": 1}, headers={"x": "y"})
    routes.call(route)
    text = "intercept_https(\"*.test\", headers={'x': 'y'}, json={'a': 1})"
    assert str(route) == text
    assert repr(route) == f"<Route {text}, 1 call>"
    assert isinstance(route.matcher.headers, Mapping)


@pytest.mark.parametrize("timeout", [None, "5", -1, float("inf"), float("nan"), True])
def test_what_is_no_time_to_wait_is_refused(timeout: Any) -> None:
    route = Routes().https()
    with pytest.raises(TypeError, match=r"timeout=\S+: it takes a number of seconds"):
        route.wait_for_call(timeout=timeout)


def test_a_route_tells_of_a_change_only_where_faults_of_connecting_are_concerned(
    routes: Routes,
) -> None:
    route = routes.add("intercept_tcp", "db.test:5432", b"ready")
    told: list[bool] = []
    routes.ledger.routes_changed = lambda: told.append(route.turns.refuses)
    for answer in (b"others", refuse(), sequence(b"ready", blackhole()), b"others", b"ready"):
        route.respond(answer)
    assert told == [True, True, False]
