"""Decks: a recording as an answer, and an answer as a recording."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress import cassette, delayed
from pytest_egress.errors import CassetteError
from pytest_egress.routes.answers import held
from pytest_egress.routes.faults import layers
from pytest_egress.routes.recordings.deck import Deck, bound
from pytest_egress.routes.recordings.reel import ToRecord
from pytest_egress.traffic.cassettes.tape import Tape, tape_of
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.reels import reel_of


def deck(text: str = "", records: ToRecord = "nothing", **variables: str) -> Deck:
    tape = tape_of(f"egress_cassette: 1\n{text}", "a.yaml") if text else Tape()
    reel = reel_of(tape, records=records, variables=variables)
    return Deck(reel, cassette(), is_required=False)


def get(**fields: Any) -> Request:
    given = {"method": "GET", "path": "/a", **fields}
    return Request(scheme="https", host="api.test", port=443, **given)


def interaction(response: str, url: str = "https://api.test/a") -> str:
    return f"secrets: [KEY, token]\ninteractions:\n- request: {{method: GET, url: {url}}}\n  response: {response}\n"


def test_a_recorded_response_comes_as_it_was() -> None:
    played = deck(
        interaction("{status: 503, headers: {retry-after: '2', x-a: [b, c]}, json: {a: 1}}")
    )
    response = played.answer(get(), held)
    assert (response.status_code, response.content) == (503, b'{"a":1}')
    assert response.headers.raw == (("retry-after", "2"), ("x-a", "b"), ("x-a", "c"))
    assert response._note == "recording 1 of a.yaml"


def test_events_are_sent_one_by_one() -> None:
    played = deck(interaction("{status: 200, events: [{event: a, json: {b: 1}}, '[DONE]']}"))
    response = played.answer(get(), held)
    assert [*response.stream] == [b'event: a\ndata: {"b":1}\n\n', b"data: [DONE]\n\n"]


def test_a_client_gets_what_a_placeholder_stands_for_in_its_env() -> None:
    played = deck(
        interaction("{status: 200, headers: {x-key: <KEY>}, json: {k: <KEY>, t: <token>}}"),
        KEY="k1",
    )
    response = played.answer(get(), held)
    assert response.headers["x-key"] == "k1"
    assert response.content == b'{"k":"k1","t":"<token>"}'


def test_a_response_is_recorded_and_passed_on() -> None:
    real = Response.received(
        201, Headers({"Content-Type": "text/plain"}), reason="Created", content=b"hi"
    )
    recording = deck(records="all")
    response = recording.answer(get(_forward=lambda: lambda *_: real), held)
    assert response is real
    assert response._note == "recorded into a.yaml"
    (taken,) = recording.reel.taken
    assert (taken.response.status, taken.response.body) == (201, ("text", "hi"))


def test_what_is_recorded_is_replayed_where_only_new_requests_are_recorded() -> None:
    played = deck(interaction("{status: 204}"), records="unknown")
    assert played.answer(get(), held).status_code == 204
    assert played.reel.taken == []


def test_a_race_for_the_last_recording_is_an_error_and_no_wrong_answer() -> None:
    with pytest.raises(CassetteError, match="another request has taken the last recording"):
        deck(interaction("{status: 204}")).answer(get(path="/b"), held)


def test_a_cassette_is_bound_within_faults() -> None:
    made = deck()
    answer = bound(delayed(cassette(), 1), lambda declared: made)
    assert layers(answer)[1] is made
    assert bound({"a": 1}, lambda declared: made) == {"a": 1}
    assert repr(made) == "cassette()"
