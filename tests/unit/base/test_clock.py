"""Clocks go forward, and stand still while a prompt is open."""

from __future__ import annotations

import time

import pytest

from pytest_egress.ledger.ledger import Ledger

STEP = 1.0  # seconds by which the wall clock may have been set meanwhile


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
