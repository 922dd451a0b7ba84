"""Messages of a WebSocket in a cassette: readable, in their order, and sent again as they were."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.cassettes.hiding import hidden
from pytest_egress.traffic.cassettes.making import recording_of_websocket
from pytest_egress.traffic.cassettes.tape import Tape, tape_of, text_of
from pytest_egress.traffic.cassettes.websocket import sent_content, shown_content
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import BY_NAMES
from pytest_egress.traffic.websocket import WebSocketMessage

TEXT = """\
egress_cassette: 1
secrets:
- token
interactions:

- request:
    websocket: "wss://feed.test/v1?token=<token>"
    headers: {sec-websocket-protocol: chat}
  response:
    headers: {sec-websocket-protocol: chat}
  messages:
  - receive: welcome
  - send: {json: {subscribe: [eur], token: <token>}}
  - receive: {json: {price: 1}}
  - receive: {base64: /wA=}
  close: 4001
  reason: enough
"""


def said(content: str | bytes, *, from_client: bool = False) -> WebSocketMessage:
    return WebSocketMessage(content=content, from_client=from_client, at=0.0)


def test_a_websocket_is_recorded_in_words_without_its_secrets_and_its_handshake() -> None:
    offered = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Protocol": "chat"}
    own = {"Sec-WebSocket-Key": "a" * 24, "Sec-WebSocket-Version": "13", "User-Agent": "x"}
    request = Request(
        method="GET",
        scheme="https",
        host="feed.test",
        port=443,
        path="/v1",
        query_string="token=tok_9f8e7d6c5b4a",
        headers=Headers({**offered, **own, "Sec-WebSocket-Extensions": "permessage-deflate"}),
    )
    accepted = {"Sec-WebSocket-Accept": "x", "Sec-WebSocket-Protocol": "chat", "Date": "x"}
    response = Response.received(101, Headers(accepted), reason="")
    messages = [
        said("welcome"),
        said('{"subscribe": ["eur"], "token": "tok_9f8e7d6c5b4a"}', from_client=True),
        said('{"price": 1}'),
        said(b"\xff\0"),
    ]
    recording = recording_of_websocket(request, response, messages, (4001, "enough"))
    tape = hidden([recording], BY_NAMES)
    assert text_of(tape) == TEXT
    assert tape_of(TEXT, "a.yaml") == tape


def test_one_that_its_client_closes_has_no_code_and_one_without_messages_has_none() -> None:
    text = "egress_cassette: 1\ninteractions:\n\n- request:\n    websocket: ws://a.test/\n  messages: []\n"
    tape = tape_of(text, "a.yaml")
    assert tape.recordings[0].response.status == 0
    assert text_of(tape) == text


@pytest.mark.parametrize(
    "content", ["", "hi", "5", "null", '{"a":1,"a":2}', "[1,2]", "{", "a\nb\n", b"", b"\xff" * 200]
)
def test_a_message_is_sent_as_it_was(content: str | bytes) -> None:
    tape = tape_of(TEXT, "a.yaml")
    shown = shown_content(content)
    (one,) = tape.recordings
    body = one.response.body._replace(value=[{"send": shown}])
    written = text_of(Tape(recordings=(replace(one, response=replace(one.response, body=body)),)))
    (read,) = tape_of(written, "a.yaml").recordings
    assert sent_content(read.response.body.value[0]["send"]) == content


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  close: 4001", "  close: 1006", "line 16: close: 1006: it takes 1000 to 1003"),
        ("  close: 4001", "  closed: 4001", "a WebSocket has no 'closed'"),
        ("  close: 4001\n", "", "a reason needs a code"),
        ("reason: enough", "reason: 7", "its reason takes a text"),
        ("receive: welcome", "got: welcome", "messages[0] is neither `send: ...` nor"),
        ("receive: welcome", "receive: 7", "messages[0] is a text, {json: ...} or {base64: ...}"),
        ("{base64: /wA=}", "{base64: '?'}", "messages[3] is no base64"),
        ("{base64: /wA=}", "{base64: 7}", "messages[3] is no base64"),
        ("wss://", "https://", "it takes a URL that begins with wss:// or ws://"),
        ("  response:\n    headers", "  response:\n    status", "no 'status'; it has headers"),
    ],
)
def test_what_is_wrong_by_hand_has_its_line(old: str, new: str, said: Any) -> None:
    assert old in TEXT
    with pytest.raises(CassetteError) as caught:
        tape_of(TEXT.replace(old, new), "a.yaml")
    assert str(caught.value).startswith("a.yaml: line ")
    assert said in str(caught.value)
