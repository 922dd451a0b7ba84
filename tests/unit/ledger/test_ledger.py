"""The ledger wakes whoever waits, and tells whose calls are visible."""

from __future__ import annotations

import pytest

from pytest_egress.ledger.ledger import MAX_ENTRIES, Ledger
from pytest_egress.ledger.windows import Activity, Window
from tests.support.attempts import attempt, exchange, is_woken, route

SECONDS = 10.0


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


def test_calls_are_kept_as_far_as_entries_are() -> None:
    ledger, window, called = Ledger(), Window(calls=MAX_ENTRIES - 1), route()
    for _ in range(3):
        ledger.count(called, window, exchange())
    assert (window.calls, called.lifetime_count) == (MAX_ENTRIES + 2, 1)


def test_only_the_running_tests_calls_are_visible_but_while_a_wider_fixture_is_set_up() -> None:
    ledger, ours = Ledger(), Window()
    assert ledger.visible_window() is None
    ledger.window = ours
    assert ledger.visible_window() is ours
    with ledger.wide_set_up():
        with ledger.wide_set_up():
            assert ledger.visible_window() is None
        assert ledger.visible_window() is None
    assert ledger.visible_window() is ours
    with pytest.raises(LookupError), ledger.wide_set_up():
        raise LookupError("no such fixture")
    assert ledger.visible_window() is ours
