"""One run of a test: its calls are counted, and one of them fails."""

from __future__ import annotations

import pytest

from pytest_egress.routes.faults import Reset, Silence
from pytest_egress.routes.table import RouteTable, SweptFault
from pytest_egress.sweep.cells import CallRow, Cell, Seen
from pytest_egress.sweep.faults import FAULTS
from pytest_egress.sweep.trial import LEAST_SECONDS, MAX_CALLS, PAUSES, QUIET_SECONDS, SweepTrial
from pytest_egress.sweep.verdict import ContainerEnd
from pytest_egress.traffic.http.request import Request

CALL = "GET https://api.test/a"


def get(path: str) -> Request:
    return Request(method="GET", scheme="https", host="api.test", port=443, path=path)


def test_the_happy_path_counts_and_fails_nothing() -> None:
    trial = SweepTrial(None, 1)
    assert [trial.intervene(get(path)) for path in ("/b", "/a", "/a")] == [None] * 3
    assert [*trial.calls.items()] == [("GET https://api.test/b", Seen(1)), (CALL, Seen(2))]
    assert trial.asked_fault() is None
    assert not trial.has_asked


def test_a_cell_fails_its_call_alone() -> None:
    trial = SweepTrial(Cell(row=CallRow(CALL), fault="reset"), 1)
    assert trial.intervene(get("/b")) is None
    instead = trial.intervene(get("/a"))
    assert instead is not None
    assert (instead.answer, instead.is_processed) == (Reset(), False)


def test_a_raw_connection_is_counted_and_fails() -> None:
    call = "tcp://db.test:5432"
    trial = SweepTrial(Cell(row=CallRow(call, 2), fault="reset"), 1)
    first, second = (trial.intervene_in_connection("db.test", 5432) for _ in range(2))
    assert first is None
    assert second is not None
    assert (second.answer, second.is_processed) == (Reset(), False)
    assert trial.calls == {call: Seen(2, frozenset({"tcp"}))}


@pytest.mark.parametrize("fault", [each for each in FAULTS if FAULTS[each].outage is None])
def test_which_faults_process_the_request(fault: str) -> None:
    instead = SweepTrial(Cell(row=CallRow(CALL), fault=fault), 1).intervene(get("/a"))
    assert instead is not None
    assert instead.is_processed is (fault in ("html", "empty", "lost", "cut"))


def test_silence_has_an_end() -> None:
    instead = SweepTrial(Cell(row=CallRow(CALL), fault="silence"), 5).intervene(get("/a"))
    assert instead is not None
    assert isinstance(instead.answer, Silence)
    assert isinstance(instead.answer.seconds, float)
    assert instead.answer.seconds <= 5


def test_a_test_that_asks_judges_by_itself() -> None:
    trial = SweepTrial(Cell(row=CallRow(CALL), fault="503"), 1)
    assert trial.asked_fault() == SweptFault(call=CALL, fault="503")
    assert trial.has_asked


def test_a_hostile_target_makes_no_endless_list() -> None:
    trial = SweepTrial(None, 1)
    for number in range(MAX_CALLS + 5):
        trial.intervene(get(f"/p{number}x"))
    assert (len(trial.calls), trial.is_over_limit) == (MAX_CALLS, True)


def test_there_is_always_some_time_left() -> None:
    assert SweepTrial(None, 0).seconds_left() == LEAST_SECONDS


def test_ends_are_noted_by_container() -> None:
    trial = SweepTrial(None, 1)
    trial.note_end("shop", 1, has_spoken=True)
    trial.note_late("job")
    assert (trial.ended, trial.late) == ({"shop": ContainerEnd(1, has_spoken=True)}, ["job"])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that trials see, as the only item."""
    now = [100.0]
    monkeypatch.setattr("pytest_egress.sweep.trial.monotonic", lambda: now[0])
    return now


def test_a_call_that_did_not_come_again_for_a_while_is_tried_by_nobody(clock: list[float]) -> None:
    trial = SweepTrial(Cell(row=CallRow(CALL), fault="503"), 1)
    trial.intervene(get("/a"))
    assert trial.restless_seconds(clock[0] + 2) == 2 + QUIET_SECONDS
    clock[0] += QUIET_SECONDS
    assert trial.restless_seconds(0) == 0


def test_who_has_paused_for_long_may_pause_for_longer(clock: list[float]) -> None:
    trial = SweepTrial(Cell(row=CallRow(CALL), fault="503"), 1)
    for _ in range(2):
        clock[0] += 4
        trial.intervene(get("/a"))
    assert trial.restless_seconds(0) == PAUSES * 4
    trial.end_fault()
    clock[0] += 8
    assert trial.intervene(get("/a")) is None
    assert (trial.late_tries, trial.restless_seconds(0)) == (1, QUIET_SECONDS)


def test_a_time_out_is_no_pause(clock: list[float]) -> None:
    trial = SweepTrial(Cell(row=CallRow(CALL), fault="silence"), 1)
    for _ in range(2):
        clock[0] += 4
        trial.intervene(get("/a"))
    assert trial.restless_seconds(0) == QUIET_SECONDS


def test_what_fails_before_a_call_answers_none_and_is_over_with_its_routes(
    clock: list[float],
) -> None:
    cell = Cell(row=CallRow("tcp://api.test:443"), fault="refuse")
    trial = SweepTrial(cell, 1, [RouteTable()])
    assert trial.intervene(get("/a")) is None
    assert trial.late_tries == 0
    trial.end_fault()
    assert trial.tables == ()
    clock[0] += 1
    trial.intervene(get("/b"))
    assert (trial.late_tries, trial.restless_seconds(0)) == (1, QUIET_SECONDS)


def test_calls_before_the_one_that_fails_are_no_tries(clock: list[float]) -> None:
    trial = SweepTrial(Cell(row=CallRow(CALL, 2), fault="503"), 1)
    for _ in range(2):
        clock[0] += 4
        trial.intervene(get("/a"))
    assert trial.restless_seconds(0) == QUIET_SECONDS
