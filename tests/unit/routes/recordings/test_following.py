"""What a conversation follows: the recording that what its client sends says."""

from __future__ import annotations

import threading
from typing import Any

from pytest_egress.routes.recordings.following import Followed, Following, RecordedStep, steps_of
from pytest_egress.traffic.cassettes.bodies import RecordedBody
from pytest_egress.traffic.cassettes.messages import HALF_CLOSE
from pytest_egress.traffic.cassettes.tape import RecordedRequest, RecordedResponse, Recording


def recording(*messages: Any) -> Recording:
    """Of texts: ">a" is the client's "a", "<a" is the server's."""
    names = {">": "send", "<": "receive"}
    turns = [{names[each[0]]: each[1:]} for each in messages]
    return Recording(
        request=RecordedRequest(method="GET", url="ws://a.test/", is_websocket=True),
        response=RecordedResponse(status=0, body=RecordedBody("conversation", turns)),
    )


def followed(*recordings: Recording) -> Followed:
    return Followed(recordings, set(), threading.Lock())


def begin(several: Followed, place: int, count: int) -> Following:
    with several.lock:
        return several.begin(place, range(count))


def say(one: Following, text: str) -> list[str]:
    def differences(place: int) -> list[str]:
        return [] if one.step(place) == RecordedStep(True, text) else [f"{place} is other"]

    return one.take(differences)


def test_a_call_whose_sides_are_recorded_apart_has_the_clients_messages_first() -> None:
    asked = RecordedRequest(
        method="POST", url="https://a.test/s/M", body=RecordedBody("messages", ["AA=="])
    )
    answered = RecordedResponse(status=0, body=RecordedBody("messages", ["AQ=="]))
    assert steps_of(Recording(request=asked, response=answered)) == [
        RecordedStep(True, "AA=="),
        RecordedStep(True, HALF_CLOSE),
        RecordedStep(False, "AQ=="),
    ]


def test_what_the_client_sends_chooses_among_recordings_that_begin_alike() -> None:
    several = followed(recording("<hi", ">a"), recording("<ho", ">b"), recording("<hi", ">b"))
    one = begin(several, 0, 3)
    assert one.next_step() == RecordedStep(False, "hi")
    assert say(one, "b") == []
    assert (one.place, several.played) == (2, {2})
    assert one.next_step() is None


def test_one_that_has_been_played_is_no_choice() -> None:
    several = followed(recording(">a"), recording(">b"))
    other = begin(several, 1, 2)
    assert say(other, "b") == []
    other.end()
    assert say(begin(several, 0, 2), "b") == ["0 is other"]


def test_two_exchange_what_they_follow_where_neither_has_come_to_the_difference() -> None:
    several = followed(recording(">x", ">a"), recording(">x", ">b"))
    one, other = begin(several, 0, 2), begin(several, 1, 2)
    assert say(one, "x") == []
    assert say(one, "b") == []
    assert (one.place, other.place) == (1, 0)
    assert say(other, "x") == []
    assert say(other, "b") == ["0 is other"]  # the first one has come further
    assert say(other, "a") == []


def test_one_that_withdraws_has_played_nothing() -> None:
    several = followed(recording(">a"))
    begin(several, 0, 1).withdraw()
    assert several.played == set()


def test_the_next_message_of_the_client_is_found_behind_those_of_the_server() -> None:
    several = followed(recording("<a", "<b", ">c"), recording("<a"))
    one = begin(several, 0, 2)
    assert one.next_of_client(0) == 2
    assert one.next_of_client(1) is None
