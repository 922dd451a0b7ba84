"""A fault's wait ends by its time, its client or its window, and no test has to wait for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.pauses import PauseEnd, pause
from pytest_egress.ledger.windows import Activity, Window
from pytest_egress.routes.faults import delayed, silence
from tests.support.attempts import exchange, route

SECONDS = 30.0


class Waiting:
    """A thread in a pause."""

    def __init__(self, seconds: float | None = None) -> None:
        self.ledger, self.window, self.activity = Ledger(), Window(), Activity(container="shop")
        self.activity.route = self.route = route()
        self.has_left, self.ends = threading.Event(), list[PauseEnd]()
        self.ledger.begin(self.window, self.activity)
        self.seconds = seconds
        self.thread = threading.Thread(target=self.wait, daemon=True)

    def wait(self) -> None:
        end = pause(
            self.ledger,
            self.window,
            exchange(),
            silence(),
            self.seconds,
            has_left=self.has_left.is_set,
            activity=self.activity,
        )
        self.ends.append(end)

    def end(self) -> PauseEnd:
        self.thread.join(SECONDS)
        (end,) = self.ends
        return end


@contextmanager
def waiting(seconds: float | None = None) -> Iterator[Waiting]:
    made = Waiting(seconds)
    made.thread.start()
    assert made.ledger.wait_for(lambda: bool(made.ledger.pauses), SECONDS)
    yield made
    made.window.over.set()
    made.thread.join(SECONDS)


def test_it_ends_with_its_time() -> None:
    assert pause(Ledger(), Window(), exchange(), silence(), 0.01) == "elapsed"
    assert pause(Ledger(), Window(), exchange(), silence(), 0) == "elapsed"


def test_it_ends_when_its_client_leaves() -> None:
    with waiting() as made:
        made.has_left.set()
        assert made.end() == "left"


def test_it_ends_when_its_window_has_been_closed() -> None:
    with waiting(1000) as made:
        made.window.over.set()
        assert made.end() == "over"
    assert pause(made.ledger, made.window, exchange(), delayed(1, 1), 1) == "over"


def test_its_time_stands_still_while_a_prompt_is_open() -> None:
    ledger = Ledger()
    ledger.enter_prompt()
    looked = threading.Event()
    ends: list[PauseEnd] = []

    def has_left() -> bool:
        looked.set()
        return False

    def wait() -> None:
        ends.append(pause(ledger, Window(), exchange(), silence(), 0.001, has_left=has_left))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    for _ in range(3):
        looked.clear()
        assert looked.wait(SECONDS)
    assert not ends
    ledger.leave_prompt()
    thread.join(SECONDS)
    assert ends == ["elapsed"]


def test_its_activity_tells_of_it() -> None:
    with waiting() as made:
        assert str(made.activity.pause) == "GET https://api.test/ -> silence()"
        made.has_left.set()
        made.end()
        assert not made.activity.pause


@pytest.mark.parametrize(("seconds", "is_under_way"), [(None, False), (1000.0, True)])
def test_only_what_will_happen_by_itself_is_under_way(
    seconds: float | None, is_under_way: bool
) -> None:
    with waiting(seconds) as made:
        assert (made.activity in made.ledger.under_way) is is_under_way
        assert made.activity in made.window.activities
        made.has_left.set()
        made.end()
        assert made.activity in made.ledger.under_way


def test_the_ledger_tells_what_a_container_waits_for() -> None:
    with waiting() as made:
        (told,) = made.ledger.pauses_of("shop")
        assert str(told) == "GET https://api.test/ -> silence()"
        assert made.ledger.pauses_of("other") == []
    assert made.ledger.pauses_of("shop") == []


def test_it_needs_no_activity() -> None:
    ledger = Ledger()
    assert pause(ledger, Window(), exchange(), silence(), 0.01) == "elapsed"
    assert not ledger.under_way
