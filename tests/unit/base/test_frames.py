"""Tracebacks are cut at the frames of users, and the profiler goes on."""

from __future__ import annotations

import cProfile
import sys
import traceback
from types import FrameType
from typing import Any

import pytest

from pytest_egress.base.callers import ROOT
from pytest_egress.base.frames import (
    at_frame,
    first_frame,
    from_user,
    last_line,
    last_of_user,
    with_lines,
)
from tests.support.lines import without_lines

# The parts.


def one(value: object) -> object:
    if value is None:
        return None
    return value


def line_after(function: Any, lines: int) -> int:
    return int(function.__code__.co_firstlineno) + lines


def note_nothing(frame: FrameType, event: str, value: object) -> None:
    """A profiler."""


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_the_profiler_that_ran_runs_on(calls: int) -> None:
    before = sys.getprofile()
    sys.setprofile(note_nothing)
    try:
        with first_frame(one.__code__) as running:
            for value in range(calls):
                one(value)
        after = sys.getprofile()
    finally:
        sys.setprofile(before)
    assert after is note_nothing
    assert (running.found is not None) == bool(calls)
    if running.found is not None:
        assert at_frame(running.found).tb_frame.f_locals == {"value": 0}
        assert at_frame(running.found).tb_lineno == line_after(one, 3)


def test_a_profiler_that_no_function_is_runs_on() -> None:
    with cProfile.Profile() as profiler:
        with first_frame(one.__code__):
            one(1)
        one(2)
    calls = [each.callcount for each in profiler.getstats() if each.code is one.__code__]
    assert calls == [2]


def test_of_a_traceback_without_the_user_nothing_is_the_users() -> None:
    try:
        exec("1 / 0", {"__file__": f"{ROOT}made_up.py"})
    except ZeroDivisionError as error:
        ours = error.__traceback__.tb_next if error.__traceback__ else None
    assert ours is not None
    assert (from_user(ours), last_of_user(ours)) == (None, None)
    assert (from_user(None), last_of_user(None)) == (None, None)


# Lines that Python does not know.


def interrupted() -> None:
    raise KeyboardInterrupt


def lines_of(error: BaseException) -> list[int | None]:
    return [line for _, line in traceback.walk_tb(with_lines(error.__traceback__))]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="its code has another table of lines")
def test_an_entry_without_a_line_has_the_first_one_of_its_code_where_none_is_before() -> None:
    with pytest.raises(KeyboardInterrupt) as raised:
        without_lines(interrupted.__code__)()
    assert [line for _, line in traceback.walk_tb(raised.tb)][1] is None
    assert lines_of(raised.value)[1] == interrupted.__code__.co_firstlineno


def test_an_entry_without_a_line_has_the_last_one_before_it() -> None:
    code = interrupted.__code__
    assert last_line(code, len(code.co_code)) == line_after(interrupted, 1)


def test_a_traceback_with_all_its_lines_is_left() -> None:
    with pytest.raises(KeyboardInterrupt) as raised:
        interrupted()
    assert with_lines(raised.tb) is raised.tb
    assert with_lines(None) is None
