"""Tapes: the text of a file, and what is wrong with one."""

from __future__ import annotations

import itertools

import pytest

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.cassettes.bodies import NO_BODY, RecordedBody
from pytest_egress.traffic.cassettes.tape import (
    RecordedRequest,
    RecordedResponse,
    Recording,
    Tape,
    tape_of,
    text_of,
)

WHOLE = """\
egress_cassette: 1
secrets:
- STRIPE_KEY
interactions:

- request:
    method: GET
    url: https://api.test/a
  response:
    status: 204

- request:
    method: POST
    url: https://api.test/v1/charges
    headers: {authorization: <STRIPE_KEY>, content-type: application/json}
    json: {amount: 4200, country: no}
  response:
    status: 200
    headers:
      set-cookie: [a=1, b=2]
    json: {id: ch_1}
"""


def recording(
    method: str = "GET",
    url: str = "https://api.test/",
    body: RecordedBody = NO_BODY,
    status: int = 200,
) -> Recording:
    return Recording(
        request=RecordedRequest(method=method, url=url, body=body),
        response=RecordedResponse(status=status),
    )


def test_a_file_is_read_and_written_as_it_was() -> None:
    tape = tape_of(WHOLE, "a.yaml")
    assert text_of(tape) == WHOLE.replace(
        "    headers:\n      set-cookie: [a=1, b=2]\n", "    headers: {set-cookie: [a=1, b=2]}\n"
    )
    assert [each.line for each in tape.recordings] == [6, 12]
    assert tape.recordings[1].response.headers == (("set-cookie", "a=1"), ("set-cookie", "b=2"))


def test_the_same_recordings_give_the_same_bytes_in_whatever_order_they_came() -> None:
    """Diffs by concurrency (cassetter)."""
    several = [
        recording(url="https://api.test/b"),
        recording("POST", body=RecordedBody("json", {"a": 1})),
        recording("POST", body=RecordedBody("json", {"a": 2})),
        recording(),
    ]
    texts = {text_of(Tape(recordings=order)) for order in itertools.permutations(several)}
    assert len(texts) == 1


def test_equal_requests_stay_in_their_order() -> None:
    first, second = recording(status=503), recording(status=200)
    text = text_of(Tape(recordings=(first, second)))
    assert [each.response.status for each in tape_of(text, "x").recordings] == [503, 200]


def test_nothing_in_a_file_says_when_it_was_recorded() -> None:
    text = text_of(Tape(recordings=(recording(),)))
    assert text.splitlines() == [
        *("egress_cassette: 1", "interactions:", "", "- request:", "    method: GET"),
        *("    url: https://api.test/", "  response:", "    status: 200"),
    ]
    assert text_of(Tape()) == "egress_cassette: 1\ninteractions: []\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "egress_cassette: 1",
            "egress_cassette: 2",
            "line 1: egress_cassette: 2: this version reads",
        ),
        ("egress_cassette: 1", "version: 1", "this is no cassette: its first line"),
        (
            "secrets:\n- STRIPE_KEY",
            "secrets: STRIPE_KEY",
            "line 2: secrets: 'STRIPE_KEY': it takes a list",
        ),
        (
            "    method: GET",
            "    metod: GET",
            "line 7: a request has no 'metod'; it has method, url",
        ),
        ("    method: GET\n", "", "line 7: method is missing"),
        ("status: 204", "status: ok", "line 10: status: 'ok': it takes a number"),
        (
            "  response:\n    status: 204",
            "  answer:\n    status: 204",
            "line 9: an interaction has no 'answer'",
        ),
        (
            "status: 200\n    headers:",
            "status: 200\n    trailers:",
            "line 19: a response has no 'trailers'",
        ),
        ("set-cookie: [a=1, b=2]", "set-cookie: {a: 1}", "set-cookie takes a text"),
        ("    json: {id: ch_1}", "    json: {}\n    text: a", "there is a body already, json"),
        ("    json: {id: ch_1}", "    base64: '!'", "it takes base64"),
        ("- request:\n    method: GET", "- 7\n- request:\n    method: GET", "7 is no interaction"),
    ],
)
def test_what_is_wrong_by_hand_has_its_line(old: str, new: str, said: str) -> None:
    with pytest.raises(CassetteError) as caught:
        tape_of(WHOLE.replace(old, new, 1), "a.yaml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("a.yaml: ")


def test_a_file_without_its_list_is_an_error() -> None:
    with pytest.raises(CassetteError, match="interactions is missing"):
        tape_of("egress_cassette: 1\n", "a.yaml")


def test_lines_that_two_branches_add_in_different_places_merge() -> None:
    """Each recording is a paragraph of its own, and each secret a line: no line has two of either."""
    both = Tape(
        recordings=(recording(), recording(url="https://api.test/z")), secrets=frozenset("AB")
    )
    one = Tape(recordings=(recording(),), secrets=frozenset("A"))
    added = [line for line in text_of(both).splitlines() if line not in text_of(one).splitlines()]
    assert added == ["- B", "    url: https://api.test/z"]


CALL = """\
egress_cassette: 1
interactions:

- request:
    grpc: https://api.test/s/M
  messages:
  - send: AA==
  - half-close
  - receive: AQ==
  response:
    status: OK
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  - half-close", "  - close", "messages[1] is neither `send: ...` nor `receive: ...`"),
        ("  - receive:", "  - half-close\n  - receive:", "messages[2] is neither"),
        ("  - receive:", "  - send:", "messages[2]: nothing is sent after `half-close`"),
        ("send: AA==", "send: A", "messages[0] is no base64"),
        ("send: AA==", "send: 7", "messages[0] has its fields, or is a text of base64"),
        ("    status: OK", "    details: no", "a response without a status has no 'details'"),
        ("    status: OK", "    status: FINE", "it takes the name of a status"),
        (
            "    grpc: https://api.test/s/M",
            "    grpc: https://api.test/s/M\n    messages: []",
            "no 'messages'",
        ),
    ],
)
def test_what_is_wrong_in_a_call_in_turns_has_its_line(old: str, new: str, said: str) -> None:
    (whole,) = tape_of(CALL, "a.yaml").recordings
    assert text_of(Tape(recordings=(whole,))) == CALL
    with pytest.raises(CassetteError, match=r"a\.yaml: line [0-9]+: ") as caught:
        tape_of(CALL.replace(old, new, 1), "a.yaml")
    assert said in str(caught.value)
