"""What a window keeps, and how much of it."""

from __future__ import annotations

import pytest

from pytest_egress.base import account
from pytest_egress.errors import TamperingError
from pytest_egress.ledger.ledger import MAX_COMPLAINTS, MAX_ENTRIES, Ledger
from pytest_egress.ledger.verdict import judge
from pytest_egress.ledger.windows import Activity, Window
from tests.support.attempts import attempt, exchange, is_woken


def test_a_window_waits_for_what_goes_on_in_it() -> None:
    ledger, window, activity = Ledger(), Window(), Activity()
    ledger.begin(window, activity)
    assert not ledger.wait_for(lambda: not window.activities, 0.01)
    assert is_woken(ledger, lambda: not window.activities, lambda: ledger.end(window, activity))
    ledger.end(window, activity)  # again is harmless


def test_a_window_begins_without_anything_and_with_the_strict_policy() -> None:
    window = Window()
    assert (window.policy, window.dns) == ("fail", "synthetic")
    assert (window.repeated, window.unrecorded, window.account.held, window.calls) == (0, 0, 0, 0)


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
    ledger.count_unrecorded(window, 3)
    ledger.count_unrecorded(window, 2)
    assert window.unrecorded == 5
    assert isinstance(judge(window, []), TamperingError)


def test_what_a_window_has_no_room_for_fails_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "MAX_HELD_BYTES", 1000)
    window = Window()
    assert window.account.has_room(1000, "mails")
    assert judge(window, []) is None
    assert not window.account.has_room(2000, "mails")
    verdict = judge(window, [])
    assert isinstance(verdict, TamperingError)
    assert str(verdict) == (
        "2,000 bytes of mails were cut: all that is kept of a test is over MAX_HELD_BYTES, 1000 bytes"
    )


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


def test_what_goes_on_is_named_by_its_request() -> None:
    assert Activity().what == ""
    assert str(exchange()) == "GET https://api.test/"
