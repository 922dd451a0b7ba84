"""Which verdict a window gets, and whose traffic it is: the ledger and the judge without a container."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pytest_egress.errors import (
    EgressError,
    HandlerError,
    NeverCalledError,
    TamperingError,
    UnroutedError,
)
from pytest_egress.ledger.ledger import MAX_COMPLAINTS, MAX_ENTRIES, MAX_HELD_BYTES, Ledger
from pytest_egress.ledger.verdict import judge
from pytest_egress.ledger.windows import Activity, Window
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import BLOCK, INTERCEPT_HTTPS
from pytest_egress.routes.route import Declaration, Route, Scope
from pytest_egress.traffic.entries import DnsQuery, Exchange, Outcome, TcpConnection
from pytest_egress.traffic.messages import Request

SECONDS = 10.0
STEP = 1.0  # seconds by which the wall clock may have been set meanwhile
LEDGER = Ledger()


def attempt(outcome: Outcome = "unrouted") -> TcpConnection:
    about: dict[str, Any] = {"container": "shop", "started": 1.0, "outcome": outcome}
    return TcpConnection(**about, host="db.test", port=5432, address="198.18.0.1")


def exchange(error: BaseException | None = None, route: Route[Any] | None = None) -> Exchange:
    request = Request(method="GET", scheme="https", host="api.test", port=443, path="/")
    about: dict[str, Any] = {"container": "shop", "started": 1.0, "outcome": "routed"}
    return Exchange(**about, host="api.test", port=443, request=request, error=error, route=route)


def route_of(declaration: Declaration, scope: Scope = "test") -> Route[Any]:
    return Route(declaration, scope=scope, declared_at="test_it.py:7", log=LEDGER)


def route(scope: Scope = "test", **options: Any) -> Route[Any]:
    return route_of(declare(INTERCEPT_HTTPS, "api.test", **options), scope)


def test_a_quiet_window_gets_no_verdict() -> None:
    assert judge(Window(), []) is None


def test_the_most_telling_verdict_comes_first() -> None:
    error = LookupError("no such charge")
    window = Window(
        complaints=["shop: a rule is gone"],
        entries=[attempt(), exchange(error)],
        stuck=["a handler still ran"],
    )
    idle = [route()]

    def verdict() -> type[EgressError] | None:
        found = judge(window, idle)
        return type(found) if found else None

    assert verdict() is TamperingError
    window.complaints.clear()
    assert verdict() is HandlerError
    window.entries.pop()
    assert str(judge(window, idle)) == "a handler still ran"
    window.stuck.clear()
    assert verdict() is UnroutedError
    window.entries.clear()
    assert verdict() is NeverCalledError
    idle.clear()
    assert verdict() is None


def test_every_complaint_is_told() -> None:
    verdict = judge(Window(complaints=["one", "two"]), [])
    assert str(verdict) == "one\ntwo"


def test_every_handler_that_still_ran_is_told() -> None:
    verdict = judge(Window(stuck=["one", "two"]), [])
    assert isinstance(verdict, HandlerError)
    assert str(verdict) == "one\ntwo"


def test_a_handlers_error_is_the_cause_and_the_first_of_them_counts() -> None:
    first, second = LookupError("first"), LookupError("second")
    entries = [exchange(), exchange(first, route()), exchange(second)]
    verdict = judge(Window(entries=list(entries)), [])
    assert verdict is not None
    assert verdict.__cause__ is first
    assert str(verdict) == (
        'the handler of intercept_https("api.test")  declared at test_it.py:7'
        " raised LookupError: first\n"
        "  for GET https://api.test/ of shop"
    )


def test_a_predicates_error_says_that_it_is_one() -> None:
    verdict = judge(Window(entries=[exchange(AssertionError())]), [])
    assert str(verdict) == (
        "a match= predicate raised AssertionError\n  for GET https://api.test/ of shop"
    )


@pytest.mark.parametrize("outcome", ["routed", "blocked", "recorded"])
def test_only_what_is_unrouted_fails(outcome: Outcome) -> None:
    assert judge(Window(entries=[attempt(outcome)]), []) is None


def test_a_name_that_nobody_declared_fails_once_whatever_types_it_is_asked_for() -> None:
    about: dict[str, Any] = {"container": "shop", "started": 1.0, "outcome": "unrouted"}
    queries = [DnsQuery(**about, host="x.test", type=kind) for kind in ("A", "AAAA")]
    assert str(judge(Window(entries=[*queries]), [])) == (
        "1 unrouted attempt of shop; nothing got out:\n"
        "\n"
        "  DNS x.test\n"
        '      to answer it: egress.intercept_https("x.test")\n'
        '      to expect that it does not exist: egress.dns("x.test", "NXDOMAIN")'
    )


# Never called.


def removed(route: Route[Any]) -> Route[Any]:
    route.remove()
    return route


def expected_idle(route: Route[Any]) -> Route[Any]:
    route.assert_not_called()
    return route


def called(route: Route[Any], times: int = 1) -> Route[Any]:
    for _ in range(times):
        route.count(None, exchange())
    return route


@pytest.mark.parametrize(
    ("idle", "is_required"),
    [
        (route(), True),
        (route(times=1), True),
        (called(route()), False),
        (called(route(times=2)), True),
        (called(route(times=2), 2), False),
        (called(route(times=2, optional=True)), False),
        (route(optional=True), False),
        (removed(route()), False),
        (expected_idle(route()), False),
        (route_of(declare(BLOCK, "api.test")), False),
        (route("class"), False),
        (route("module", times=2), False),
        (route("session"), False),
    ],
)
def test_a_route_of_the_test_alone_must_be_called(idle: Route[Any], is_required: bool) -> None:
    assert (judge(Window(), [idle]) is not None) is is_required
    assert judge(Window(), [idle], assert_all_called=False) is None


def test_every_route_that_was_not_called_is_told_and_no_other() -> None:
    verdict = judge(Window(), [route(path="/a"), called(route(path="/b")), route(path="/c")])
    text = str(verdict)
    assert text.startswith("2 routes were never called:\n")
    assert [path for path in ("/a", "/b", "/c") if f"path='{path}'" in text] == ["/a", "/c"]
    assert "declared at test_it.py:7" in text


def test_without_a_container_the_verdict_says_so() -> None:
    with_one, without = (
        str(judge(Window(), [route()], any_container=some)) for some in (True, False)
    )
    assert "No container ran in this test." in without
    assert "No container ran in this test." not in with_one
    assert str(judge(Window(), [route()])) == with_one


# The ledger.


def is_woken(ledger: Ledger, condition: Callable[[], bool], action: Callable[[], None]) -> bool:
    """Whether an action ends a wait by itself: while a prompt is open no wait ends by its time."""
    asked = threading.Event()

    def holds() -> bool:
        asked.set()
        return condition()

    ledger.enter_prompt()
    thread = threading.Thread(target=ledger.wait_for, args=(holds, 0.01))
    thread.start()
    assert asked.wait(SECONDS)
    action()  # takes the lock, which the wait gives up
    thread.join(SECONDS)
    woken = not thread.is_alive()
    ledger.leave_prompt()
    thread.join(SECONDS)
    return woken


def test_a_window_waits_for_what_goes_on_in_it() -> None:
    ledger, window, activity = Ledger(), Window(), Activity()
    ledger.begin(window, activity)
    assert not ledger.wait_for(lambda: not window.activities, 0.01)
    assert is_woken(ledger, lambda: not window.activities, lambda: ledger.end(window, activity))
    ledger.end(window, activity)  # again is harmless


def test_whoever_waits_is_woken_by_an_entry_a_beginning_and_a_call() -> None:
    ledger, window, called = Ledger(), Window(), route()
    assert is_woken(ledger, lambda: bool(window.entries), lambda: ledger.record(window, attempt()))
    assert is_woken(
        ledger, lambda: bool(window.activities), lambda: ledger.begin(window, Activity())
    )
    assert is_woken(ledger, lambda: called.called, lambda: ledger.count(called, window, exchange()))


def test_whoever_waits_is_woken_by_a_complaint() -> None:
    ledger, window = Ledger(), Window()
    assert is_woken(
        ledger, lambda: bool(window.complaints), lambda: ledger.complain(window, "a rule is gone")
    )


def test_a_window_begins_without_anything_and_with_the_strict_policy() -> None:
    window = Window()
    assert (window.policy, window.dns) == ("fail", "synthetic")
    assert (window.repeated, window.unrecorded, window.held, window.calls) == (0, 0, 0, 0)


def test_what_a_full_window_does_not_take_is_counted_and_fails_the_test() -> None:
    ledger = Ledger()
    window = Window(entries=[attempt("routed")] * (MAX_ENTRIES - 1))
    ledger.record(window, attempt("routed"))
    assert (len(window.entries), window.unrecorded) == (MAX_ENTRIES, 0)
    assert judge(window, []) is None
    for number in (1, 2):
        ledger.record(window, attempt("routed"))
        assert (len(window.entries), window.unrecorded) == (MAX_ENTRIES, number)
    assert isinstance(judge(window, []), TamperingError)


def test_attempts_of_which_nothing_is_known_add_up_and_fail_the_test() -> None:
    ledger, window = Ledger(), Window()
    ledger.miss(window, 3)
    ledger.miss(window, 2)
    assert window.unrecorded == 5
    assert isinstance(judge(window, []), TamperingError)


def test_bytes_are_kept_up_to_the_limit_of_their_window() -> None:
    ledger, window = Ledger(), Window()
    assert ledger.hold(window, MAX_HELD_BYTES - 1)
    assert ledger.hold(window, 1)
    assert not ledger.hold(window, 1)


def test_a_complaint_is_kept_once_and_so_many_different_ones_are() -> None:
    ledger, window = Ledger(), Window()
    texts = [f"rule {number} is gone" for number in range(MAX_COMPLAINTS)]
    for text in texts:
        ledger.complain(window, text)
    assert (window.complaints, window.repeated) == (texts, 0)
    for number, text in enumerate((texts[0], "another", "another"), 1):
        ledger.complain(window, text)
        assert (window.complaints, window.repeated) == (texts, number)


def test_a_complaint_that_comes_again_takes_no_room() -> None:
    ledger, window = Ledger(), Window()
    for text in ("a rule is gone", "a rule is gone", "a route is gone"):
        ledger.complain(window, text)
    assert (window.complaints, window.repeated) == (["a rule is gone", "a route is gone"], 1)


def test_calls_are_kept_as_far_as_entries_are() -> None:
    ledger, window, called = Ledger(), Window(calls=MAX_ENTRIES - 1), route()
    for _ in range(3):
        ledger.count(called, window, exchange())
    assert (window.calls, called.lifetime_count) == (MAX_ENTRIES + 2, 1)


def test_only_the_running_tests_calls_are_visible_but_while_a_wider_fixture_is_set_up() -> None:
    ledger, ours, others = Ledger(), Window(), Window()
    assert ledger.visible(ours)
    assert ledger.visible(others)
    ledger.window = ours

    def visible() -> tuple[bool, bool]:
        return ledger.visible(ours), ledger.visible(others)

    assert visible() == (True, False)
    with ledger.wide_set_up():
        with ledger.wide_set_up():
            assert visible() == (True, True)
        assert visible() == (True, True)
    assert visible() == (True, False)
    with pytest.raises(LookupError), ledger.wide_set_up():
        raise LookupError("no such fixture")
    assert visible() == (True, False)


def test_the_clock_of_deadlines_stands_still_while_a_prompt_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("pytest_egress.ledger.ledger.monotonic", lambda: now[0])
    ledger = Ledger()
    begun = ledger.clock()

    def passed_after(seconds: float) -> float:
        now[0] += seconds
        return ledger.clock() - begun

    assert passed_after(1) == 1
    ledger.enter_prompt()
    assert passed_after(2) == 1
    ledger.enter_prompt()  # of another thread
    ledger.leave_prompt()
    assert passed_after(4) == 1
    ledger.leave_prompt()
    assert passed_after(8) == 9
    ledger.enter_prompt()
    assert passed_after(16) == 9
    ledger.leave_prompt()
    assert passed_after(32) == 41


def test_the_clock_of_entries_is_the_wall_clock_and_goes_forward_only() -> None:
    before, ledger = time.time(), Ledger()  # noqa: TID251
    moments = [ledger.now() for _ in range(1000)]
    assert moments == sorted(moments)
    assert before - STEP < moments[0] < time.time() + STEP  # noqa: TID251


def test_what_goes_on_is_named_by_its_request() -> None:
    assert Activity().what == ""
    assert str(exchange()) == "GET https://api.test/"
