"""What a client gets of a recorded response."""

from __future__ import annotations

import pytest

from pytest_egress.routes.recordings.reel import Played
from pytest_egress.routes.recordings.replies import played, refused
from pytest_egress.traffic.cassettes.tape import Tape, tape_of
from pytest_egress.traffic.http.request import Request
from tests.support.reels import reel_of

ASKED = Request(method="GET", scheme="https", host="a.test", port=443, path="/")
EVENTS = """\
egress_cassette: 1
interactions:
- request: {websocket: "wss://a.test/"}
  response: {status: 429, headers: {retry-after: <N>}, %s}
"""


@pytest.mark.parametrize(
    ("body", "content"),
    [
        ("events: [{event: a, data: b}, <N>]", b"event: a\ndata: b\n\ndata: 7\n\n"),
        ("json: {n: <N>}", b'{"n":"7"}'),
        ("base64: PE4+", b"<N>"),
        ("{}", b""),
    ],
)
def test_a_handshake_gets_the_whole_response_whatever_its_body(body: str, content: bytes) -> None:
    text = EVENTS.replace(", %s", "" if body == "{}" else f", {body}")
    tape = tape_of(text.replace("interactions", "secrets: [N]\ninteractions"), "a.yaml")
    one = reel_of(tape, records="nothing", variables={"N": "7"})
    found = Played(tape.recordings[0], 1)
    response = refused(found, ASKED, one)
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert (response.stream, response.content) == (None, content)
    assert response._note == "recording 1 of a.yaml"
    assert (played(found, ASKED, one).stream is None) == ("events" not in body)


def test_a_refused_handshake_has_no_messages_and_one_with_messages_no_status() -> None:
    head = "egress_cassette: 1\ninteractions:\n- request: {websocket: wss://a.test/}\n"
    for rest, said in (
        ("  response: {status: 403}\n  close: 1000", "a refused WebSocket has no 'close'"),
        ("  response: {status: 99}", "status: 99: it takes a number from 200 to 599"),
        ("  response: {status: 403}\n  messages: []", "a WebSocket has no 'status'"),
        ("  response: 5", "response: 5: it takes a mapping"),
        ("  response: {}", "messages is missing"),
    ):
        with pytest.raises(Exception, match=r"a\.yaml: line") as error:
            tape_of(f"{head}{rest}\n", "a.yaml")
        assert said in str(error.value)
    assert tape_of(f"{head}  response: {{status: 403}}\n", "a.yaml") != Tape()
