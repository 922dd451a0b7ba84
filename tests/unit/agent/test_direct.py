"""The junction of connections that go by a relay."""

from __future__ import annotations

import pytest

from pytest_egress.agent.direct import Junction
from pytest_egress.agent.mux import WINDOW
from pytest_egress.agent.mux_frames import Data, Fin, StreamReset


@pytest.fixture
def junction() -> Junction:
    return Junction()


def test_what_is_written_to_a_stream_comes_from_its_other_and_from_no_further_one(
    junction: Junction,
) -> None:
    (ours, theirs), further = junction.pair(), junction.pair()
    junction.write(ours, b"question")
    junction.write(theirs, b"answer")
    junction.fin(theirs)
    assert list(junction.events) == [Data(theirs, b"question"), Data(ours, b"answer"), Fin(ours)]
    assert not {ours, theirs} & {*further}


def test_a_stream_has_room_for_a_window_and_again_when_half_of_it_was_taken(
    junction: Junction,
) -> None:
    ours, theirs = junction.pair()
    junction.write(ours, bytes(WINDOW))
    assert (junction.room(ours), junction.room(theirs)) == (0, WINDOW)
    junction.consumed(theirs, WINDOW // 4)
    assert junction.drained() == []
    junction.consumed(theirs, WINDOW // 4)
    assert (junction.drained(), junction.drained()) == ([ours], [])
    assert junction.room(ours) == WINDOW // 2


def test_streams_that_have_ended_leave_nothing_behind(junction: Junction) -> None:
    ours, theirs = junction.pair()
    junction.write(ours, b"question")
    junction.write(theirs, b"answer")
    junction.break_off(theirs)
    assert junction.events.pop() == StreamReset(ours)
    assert junction._unread == {}


def test_that_a_client_has_got_nothing_is_told_before_its_end_is_passed_on(
    junction: Junction,
) -> None:
    ours, theirs = junction.pair()
    junction.fin(ours, unheard=True)
    junction.break_off(theirs, unheard=True)  # of the test process: nobody asks
    assert list(junction.untold) == [Fin(theirs, True)]
    assert list(junction.events) == [StreamReset(ours, True)]
