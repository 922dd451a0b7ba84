"""Calls of gRPC: recorded, compared and answered again."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress import cassette
from pytest_egress.errors import CassetteError
from pytest_egress.routes.answers import held
from pytest_egress.routes.recordings.deck import Deck
from pytest_egress.routes.recordings.reel import ToRecord
from pytest_egress.traffic.cassettes.hiding import hidden
from pytest_egress.traffic.cassettes.tape import Tape, tape_of, text_of
from pytest_egress.traffic.grpc import frame, metadata_of, status_fields
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import BY_NAMES
from tests.support.greeter import pb
from tests.support.reels import reel_of

RECORDED = """\
egress_cassette: 1
secrets:
- authorization
interactions:

- request:
    grpc: https://greet.test/greet.v1.Greeter/Both
    metadata: {authorization: Bearer <authorization>, x-tenant: "7"}
    messages:
    - {name: you, count: 2}
    - name: me
  response:
    status: NOT_FOUND
    details: nobody
    metadata: {x-initial: "1"}
    messages:
    - text: hello
    trailing_metadata: {x-raw-bin: /wA}
"""


def deck(text: str = "", records: ToRecord = "nothing", *ignore: str) -> Deck:
    reel = reel_of(tape_of(text, "a.yaml") if text else None, records=records)
    return Deck(reel, cassette(ignore=ignore), is_required=False)


def call(*messages: Any, path: str = "/greet.v1.Greeter/Both", **fields: Any) -> Request:
    headers = {
        "content-type": "application/grpc",
        "te": "trailers",
        "grpc-timeout": "5S",
        "user-agent": "grpc-python",
        "x-tenant": "7",
        "authorization": "Bearer abc1",
    }
    body = b"".join(
        frame(each if isinstance(each, bytes) else each.SerializeToString()) for each in messages
    )
    given = {"raw_content": body, "headers": Headers(headers), "http_version": "2", **fields}
    return Request(method="POST", scheme="https", host="greet.test", port=443, path=path, **given)


ASKED = (pb.Hello(name="you", count=2), pb.Hello(name="me"))


def test_a_call_is_recorded_without_its_secrets_and_what_belongs_to_the_connection() -> None:
    content = frame(pb.Reply(text="hello").SerializeToString())
    real = Response.received(
        200,
        Headers({"content-type": "application/grpc", "date": "today", "x-initial": "1"}),
        reason="OK",
        stream=(content,),
        trailers=Headers(status_fields(5, "nobody", (("x-raw-bin", b"\xff\0"),))),
    )
    recording = deck(records="all")
    assert recording.answer(call(*ASKED, _forward=lambda: lambda *_: real), held) is real
    assert text_of(hidden(recording.reel.taken, BY_NAMES)) == RECORDED


def test_a_recorded_call_is_answered_with_its_status_and_its_metadata() -> None:
    played = deck(RECORDED)
    assert played.misses(call(*ASKED)) == []
    response = played.answer(call(*ASKED), held)
    assert b"".join(response.stream) == frame(pb.Reply(text="hello").SerializeToString())
    assert metadata_of(response.headers) == (("x-initial", "1"),)
    assert response.trailers["grpc-status"] == "5"
    assert response.trailers["grpc-message"] == "nobody"
    assert metadata_of(response.trailers) == (("x-raw-bin", b"\xff\0"),)
    assert response._note == "recording 1 of a.yaml"


def test_a_status_alone_is_recorded() -> None:
    fields = {"content-type": "application/grpc", "grpc-status": "14", "x-why": "busy"}
    real = Response.received(200, Headers(fields), reason="OK", content=b"")
    recording = deck(records="all")
    recording.answer(call(ASKED[0], _forward=lambda: lambda *_: real), held)
    (taken,) = recording.reel.taken
    assert "    status: UNAVAILABLE\n    messages: []\n    trailing_metadata: {x-why: busy}\n" in (
        text_of(Tape(recordings=(taken,)))
    )


def test_an_answer_without_a_status_is_an_error() -> None:
    real = Response.received(503, Headers(), reason="Busy", content=b"")
    with pytest.raises(CassetteError, match="is not recorded: the answer, 503, has no grpc-status"):
        deck(records="all").answer(call(ASKED[0], _forward=lambda: lambda *_: real), held)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (call(pb.Hello(name="you", count=3), ASKED[1]), "messages[0].count: 3 is not 2"),
        (call(ASKED[0]), "messages: 1 message, expected 2"),
        (
            call(ASKED[0], b"\x78\x01"),
            "messages[1]: it has what the imported code of greet.v1.Hello does not know",
        ),
        (
            call(*ASKED, headers=Headers()),
            "content-type: one of them is a call of gRPC, and the other is none",
        ),
    ],
)
def test_a_call_that_differs_is_told_the_first_difference(asked: Request, line: str) -> None:
    assert deck(RECORDED).misses(asked)[0] == line


def test_a_place_within_a_message_may_be_ignored() -> None:
    asked = call(pb.Hello(name="you", count=3), ASKED[1])
    assert deck(RECORDED, "nothing", "messages[0].count").misses(asked) == []


def test_messages_of_a_service_that_is_not_imported_are_compared_as_bytes() -> None:
    text = RECORDED.replace("greet.v1", "other.v1")
    other = text.replace("{name: you, count: 2}", "CAE=").replace("name: me", "CAI=")
    path = "/other.v1.Greeter/Both"
    assert deck(other).misses(call(b"\x08\x01", b"\x08\x02", path=path)) == []
    assert (
        deck(other).misses(call(b"\x08\x01", b"\x08\x03", path=path))[0].startswith("messages[1]: ")
    )
    assert (
        "code of other.v1.Greeter is not imported" in deck(text).misses(call(*ASKED, path=path))[0]
    )
    with pytest.raises(CassetteError, match=r"^a.yaml:6: response.messages\[0\]: the generated"):
        deck(other).answer(call(b"\x08\x01", b"\x08\x02", path=path), held)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            "status: NOT_FOUND",
            "status: 5",
            "line 13: status: 5: it takes the name of a status: OK,",
        ),
        ("details: nobody", "details: 5", "line 14: details: 5: it takes a text"),
        ("- text: hello", "- 5", "message 1 has its fields, or is a text of base64"),
        (
            "    status:",
            "    json: {}\n    status:",
            "the response to a call of gRPC has no 'json'",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(old: str, new: str, why: str) -> None:
    with pytest.raises(CassetteError) as error:
        tape_of(RECORDED.replace(old, new), "a.yaml")
    assert why in str(error.value)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "{blob: <KEY>}",
            "messages[0]: blob: '<KEY>' has a placeholder in a field that takes no text",
        ),
        ("{text: <KEY>}", ""),
    ],
)
def test_a_placeholder_in_bytes_or_an_enum_is_an_error_that_says_where(
    message: str, said: str
) -> None:
    """The value of env= is no base64, so that a client got other bytes."""
    text = RECORDED.replace("- authorization", "- KEY").replace(
        "    - text: hello", f"    - {message}"
    )
    one = deck(text)
    if not said:
        assert one.answer(call(*ASKED), held).status_code == 200
        return
    with pytest.raises(CassetteError) as caught:
        one.answer(call(*ASKED), held)
    assert said in str(caught.value)


TURNS = """\

- request:
    grpc: https://greet.test/greet.v1.Greeter/Both
  messages:
  - send: {name: you}
  - receive: {text: hello}
  - half-close
  response:
    status: OK
"""


def test_a_recording_whose_sides_take_turns_is_not_that_of_a_call_that_is_whole() -> None:
    text = RECORDED.replace("Both", "Unary").replace("    - name: me\n", "")
    text = text.replace(
        '    metadata: {authorization: Bearer <authorization>, x-tenant: "7"}\n', ""
    )
    one = deck(text + TURNS)
    assert one.misses(call(pb.Hello(name="us", count=3), path="/greet.v1.Greeter/Unary"))[:2] == [
        "messages[0].name: 'us' is not 'you'",
        "messages[0].count: 3 is not 2",
    ]
    over_http1 = call(pb.Hello(name="you"), http_version="1.1")
    assert "messages: the recorded ones take turns with their answers" in one.misses(over_http1)
