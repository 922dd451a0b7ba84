"""Late answers wait for their time, and go with their test, their client or their route."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pytest_egress.base.clock import monotonic
from pytest_egress.base.workers import Workers
from pytest_egress.gateway import late_answers
from pytest_egress.gateway.late_answers import LateAnswers, Lateness
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.windows import AttemptContext, Window
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.faults import Seconds, delayed
from pytest_egress.routes.kinds import DNS
from pytest_egress.routes.route import Route, Scope
from tests.support.attempts import query
from tests.support.stage import eventually

LONG = 10_000.0


class LateScene:
    """Late answers, what was sent of them, and the target that they are for."""

    name, is_ending, hints = "shop", False, ()

    def __init__(self) -> None:
        self.ledger, self.window = Ledger(), Window()
        self.ledger.window = self.window
        self.workers = Workers("late", 8)
        self.late = LateAnswers(Recorder(self, self.ledger), self.workers)  # type: ignore[arg-type]
        self.sent: list[object] = []

    def attempt_context(self) -> AttemptContext:
        return AttemptContext(window=self.window, tables=[])

    def add(
        self, what: object, *seconds: Seconds, owner: object = None, scope: Scope = "test"
    ) -> Any:
        lateness = []
        for each in seconds:
            declaration = declare(DNS, "db.test", delayed("192.0.2.7", each))
            route: Route[Any] = Route(declaration, scope=scope, declared_at="", log=self.ledger)
            answer, context = route.answer()
            lateness.append(Lateness(delays=(answer,), route=route, context=context))
        entry = query()
        self.ledger.record(self.window, entry)
        context_ = self.attempt_context()
        self.late.add(context_, entry, tuple(lateness), owner, lambda: self.sent.append(what))
        return entry

    def look(self) -> int:
        """Send what is due; return how much has been sent."""
        self.late.send_due(None)
        return len(self.sent)


def test_an_answer_is_sent_when_it_is_due_and_in_that_order() -> None:
    waiting = LateScene()
    assert waiting.late.seconds_left(None) is None
    waiting.add("never", LONG)
    waiting.add("second", 0.02)
    waiting.add("first", 0)
    waiting.add("sum", LONG, LONG)
    assert eventually(lambda: waiting.look() == 2)
    assert waiting.sent == ["first", "second"]
    left = waiting.late.seconds_left(None)
    assert left is not None
    assert LONG - 1000 < left <= LONG
    assert [str(pause) for pause in waiting.ledger.pauses_of("shop")] == [
        "db.test A -> delayed('192.0.2.7', 10000.0)"
    ] * 2


def test_each_owner_sends_its_own_and_one_that_ends_takes_them_with_it() -> None:
    waiting = LateScene()
    waiting.add("of a connection", 0, owner="tcp")
    waiting.late.send_due(None)
    assert waiting.late.seconds_left(None) is None
    assert waiting.sent == []
    waiting.late.send_due("tcp")
    assert waiting.sent == ["of a connection"]
    waiting.add("too late", 0, owner="tcp")
    waiting.late.forget("tcp")
    waiting.late.send_due("tcp")
    assert waiting.sent == ["of a connection"]
    assert waiting.ledger.pauses_of("shop") == []


def test_what_is_late_goes_with_its_test_or_its_wider_scope() -> None:
    waiting = LateScene()
    waiting.add("of the test", 0)
    waiting.add("of the module", 0, scope="module")
    waiting.late.revise(test_over=False)
    assert len(waiting.ledger.pauses) == 2
    waiting.late.revise(test_over=True)
    waiting.late.send_due(None)
    assert waiting.sent == ["of the module"]


def test_what_is_late_goes_with_its_target() -> None:
    waiting = LateScene()
    waiting.add("of the module", 0, scope="module")
    waiting.late.stop()
    assert (waiting.look(), waiting.ledger.pauses) == (0, {})


def test_the_time_stands_still_while_a_prompt_is_open() -> None:
    waiting = LateScene()
    waiting.ledger.enter_prompt()
    waiting.add("late", 1e-6)
    waiting.late.send_due(None)
    assert waiting.late.seconds_left(None) == late_answers.LOOK_SECONDS
    assert waiting.sent == []
    waiting.ledger.leave_prompt()
    assert eventually(lambda: waiting.look() == 1)


def test_a_function_of_seconds_holds_up_nobody() -> None:
    waiting, go_on, asked_on = LateScene(), threading.Event(), list[int]()

    def seconds() -> float:
        asked_on.append(threading.get_ident())
        go_on.wait()
        return 0

    waiting.add("drawn", seconds, LONG and 0)
    waiting.add("known", 0)
    waiting.late.send_due(None)
    assert waiting.sent == ["known"]
    assert waiting.late.seconds_left(None) == late_answers.LOOK_SECONDS
    go_on.set()
    assert eventually(lambda: waiting.look() == 2)
    assert asked_on != [threading.get_ident()]


@pytest.mark.parametrize("wrong", [lambda: "soon", lambda: -1, lambda: 1 / 0])
def test_what_a_function_of_seconds_raises_is_kept_with_the_question(wrong: Any) -> None:
    waiting = LateScene()
    entry = waiting.add("never", wrong)
    assert eventually(lambda: entry.error is not None and not waiting.ledger.pauses)
    assert isinstance(entry.error, (TypeError, ValueError, ZeroDivisionError))
    assert entry.note == "not answered"
    waiting.late.send_due(None)
    assert waiting.sent == []


@pytest.mark.parametrize("is_over", [True, False])
def test_what_a_function_raises_after_its_test_fails_no_other(is_over: bool) -> None:
    waiting, go_on, returned = LateScene(), threading.Event(), threading.Event()

    def seconds() -> float:
        go_on.wait()
        returned.set()
        raise LookupError

    entry = waiting.add("dropped", seconds, scope="test" if is_over else "module")
    waiting.late.revise(test_over=True)
    waiting.window = waiting.ledger.window = Window()
    go_on.set()
    assert returned.wait(60)
    waiting.workers.stop()
    deadline = monotonic() + 60
    assert waiting.workers.join(deadline)
    assert (entry.error is None) is is_over
    assert waiting.window.entries == ([] if is_over else [entry])


def test_so_many_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_answers, "MAX_LATE", 2)
    waiting = LateScene()
    notes = [waiting.add(number, 0).note for number in range(3)]
    assert notes == ["", "", late_answers.TOO_MANY]
    waiting.late.send_due(None)
    assert waiting.sent == [0, 1]
