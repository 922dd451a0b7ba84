"""Late answers wait for their time, and go with their test, their client or their route."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_egress.base.clock import monotonic
from pytest_egress.gateway.dns import late as late_answers
from pytest_egress.gateway.dns.late import Asker, LateAnswer, LateAnswers, Lateness
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.windows import AttemptContext, Window
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.faults import Seconds, delayed
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import DNS
from pytest_egress.routes.route import Scope
from tests.support.attempts import query
from tests.support.stage import eventually

LONG = 10_000.0


class LateScene:
    """Late answers, what was sent of them, and the target that they are for."""

    name, is_ending, hints, proxies = "shop", False, (), ()

    def __init__(self) -> None:
        self.ledger, self.window = Ledger(), Window()
        self.ledger.window = self.window
        self.late = LateAnswers(Recorder(self, self.ledger))  # type: ignore[arg-type]
        self.sent: list[bytes] = []

    def attempt_context(self) -> AttemptContext:
        return AttemptContext(window=self.window, tables=[])

    def add(
        self, wire: bytes, *seconds: Seconds, asker: Asker | None = None, scope: Scope = "test"
    ) -> Any:
        lateness = []
        for each in seconds:
            declaration = declare(DNS, "db.test", delayed("192.0.2.7", each))
            route: InnerRoute = InnerRoute(
                declaration, scope=scope, declared_at="", log=self.ledger
            )
            answer, context = route.turns.answer()
            lateness.append(Lateness(delays=(answer,), route=route, context=context))
        entry = query()
        self.ledger.record(self.window, entry)
        asker = asker or Asker(client=None, send=self.sent.append)
        late = LateAnswer(entry=entry, lateness=tuple(lateness), asker=asker)
        self.late.add(self.attempt_context(), late, wire)
        return entry

    def has_sent(self, *wires: bytes) -> bool:
        return eventually(lambda: len(self.sent) >= len(wires)) and self.sent == [*wires]

    def ends(self) -> bool:
        """Stop; return whether all threads end."""
        self.late.stop()
        return self.late.workers.join(monotonic() + 60)


@pytest.fixture
def waiting() -> Iterator[LateScene]:
    scene = LateScene()
    yield scene
    assert scene.ends()
    assert scene.ledger.pauses == {}


def test_an_answer_is_sent_when_it_is_due_and_in_that_order(waiting: LateScene) -> None:
    waiting.add(b"never", LONG)
    waiting.add(b"second", 1)
    waiting.add(b"first", 0)
    waiting.add(b"sum", LONG, LONG)
    assert waiting.has_sent(b"first", b"second")
    assert [str(pause) for pause in waiting.ledger.pauses_of("shop")] == [
        "db.test A -> delayed('192.0.2.7', 10000.0)"
    ] * 2


def test_what_waits_is_told_at_once(waiting: LateScene) -> None:
    waiting.add(b"late", LONG)
    with waiting.ledger.changed:
        assert waiting.ledger.is_busy


def test_a_client_that_ends_takes_its_own_with_it(waiting: LateScene) -> None:
    asker = Asker(client=waiting, send=waiting.sent.append)
    waiting.add(b"its", LONG, asker=asker)
    waiting.add(b"another's", LONG)
    with asker.sending:
        waiting.late.forget(waiting)
    assert len(waiting.ledger.pauses) == 1


def test_what_is_being_sent_is_sent_before_its_client_ends(waiting: LateScene) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def send(wire: bytes) -> None:
        begun.set()
        go_on.wait()
        waiting.sent.append(wire)

    asker = Asker(client=waiting, send=send)
    waiting.add(b"late", 0, asker=asker)
    assert begun.wait(60)
    assert not asker.sending.acquire(blocking=False)
    go_on.set()
    with asker.sending:
        assert waiting.sent == [b"late"]


def test_a_client_that_cannot_be_reached_is_not_missed(waiting: LateScene) -> None:
    def send(wire: bytes) -> None:
        raise BrokenPipeError

    entry = waiting.add(b"lost", 0, asker=Asker(client=None, send=send))
    assert eventually(lambda: not waiting.ledger.pauses)
    assert entry.error is None


def test_what_is_late_goes_with_its_test_or_its_wider_scope(waiting: LateScene) -> None:
    waiting.ledger.enter_prompt()  # until it is left, nothing is due
    waiting.add(b"of the test", LONG)
    waiting.add(b"of the module", 0.1, scope="module")
    waiting.late.revise(test_over=False)
    assert len(waiting.ledger.pauses) == 2
    waiting.late.revise(test_over=True)
    assert len(waiting.ledger.pauses) == 1
    waiting.ledger.leave_prompt()
    waiting.window.over.set()
    assert waiting.has_sent(b"of the module")


def test_what_is_late_goes_with_its_target() -> None:
    waiting = LateScene()
    waiting.add(b"of the module", LONG, scope="module")
    assert waiting.ends()
    assert (waiting.sent, waiting.ledger.pauses) == ([], {})


def test_the_time_stands_still_while_a_prompt_is_open(waiting: LateScene) -> None:
    waiting.ledger.enter_prompt()
    waiting.add(b"late", 1e-6)
    time.sleep(0.1)
    assert waiting.sent == []
    waiting.ledger.leave_prompt()
    assert waiting.has_sent(b"late")


def test_a_function_of_seconds_holds_up_nobody(waiting: LateScene) -> None:
    go_on, asked_on = threading.Event(), list[int]()

    def seconds() -> float:
        asked_on.append(threading.get_ident())
        go_on.wait()
        return 0

    waiting.add(b"drawn", seconds, 0)
    waiting.add(b"known", 0)
    assert waiting.has_sent(b"known")
    go_on.set()
    assert waiting.has_sent(b"known", b"drawn")
    assert asked_on != [threading.get_ident()]


@pytest.mark.parametrize("wrong", [lambda: "soon", lambda: -1, lambda: 1 / 0])
def test_what_a_function_of_seconds_raises_is_kept_with_the_question(
    waiting: LateScene, wrong: Any
) -> None:
    entry = waiting.add(b"never", wrong)
    assert eventually(lambda: entry.error is not None and not waiting.ledger.pauses)
    assert isinstance(entry.error, (TypeError, ValueError, ZeroDivisionError))
    assert entry.note == "not answered"
    assert waiting.sent == []


@pytest.mark.parametrize("is_over", [True, False])
def test_what_a_function_raises_after_its_test_fails_no_other(is_over: bool) -> None:
    waiting, go_on, returned = LateScene(), threading.Event(), threading.Event()

    def seconds() -> float:
        go_on.wait()
        returned.set()
        raise LookupError

    entry = waiting.add(b"dropped", seconds, scope="test" if is_over else "module")
    waiting.late.revise(test_over=True)
    waiting.window = waiting.ledger.window = Window()
    go_on.set()
    assert returned.wait(60)
    assert waiting.ends()
    assert (entry.error is None) is is_over
    assert waiting.window.entries == ([] if is_over else [entry])


def test_so_many_wait_and_no_more(waiting: LateScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_answers, "MAX_LATE", 2)
    notes = [waiting.add(b"", LONG).note for number in range(3)]
    assert notes == ["", "", f"not answered: {late_answers.TOO_MANY}"]
    assert len(waiting.ledger.pauses) == 2


def test_where_no_thread_can_be_started_the_question_says_so(
    waiting: LateScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        entry = waiting.add(b"never", 0)
    assert entry.note == "not answered: no thread can be started"
    assert waiting.ledger.pauses == {}


def test_a_thousand_wait_at_once_and_end_at_once(waiting: LateScene) -> None:
    for _ in range(1000):
        waiting.add(b"never", LONG)
    assert len(waiting.ledger.pauses) == 1000
    waiting.late.revise(test_over=True)
    assert waiting.ledger.pauses == {}


def test_an_answer_that_is_dropped_before_it_has_a_thread_calls_no_function_of_its_test(
    waiting: LateScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    jobs: list[Callable[[], None]] = []

    def seconds() -> float:
        asked.append(True)
        return 0

    monkeypatch.setattr(waiting.late.workers, "run", jobs.append)
    waiting.add(b"late", seconds)
    waiting.late.revise(test_over=True)
    for job in jobs:
        job()
    assert (len(jobs), asked, waiting.sent) == (1, [], [])
