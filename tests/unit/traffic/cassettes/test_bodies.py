"""Bodies: each in the form that people read, and as the bytes that it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_egress.traffic.cassettes.bodies import (
    NO_BODY,
    RecordedBody,
    body_of,
    check_body,
    content_of,
    events_of,
    sent_events,
)


def body(content: bytes, content_type: str, of: str = "response", **given: Any) -> RecordedBody:
    return body_of(content, content_type, of=of, **given)


def test_json_is_readable_where_others_have_one_escaped_line() -> None:
    """Bodies that are one escaped line nobody can review (vcrpy, goose)."""
    assert body(b'{"a": [1, null]}', "application/json; charset=utf-8") == (
        "json",
        {"a": [1, None]},
    )
    assert body(b'{"a": 1}', "application/problem+json").key == "json"


def test_a_signed_body_stays_the_text_that_was_signed() -> None:
    assert body(b'{"a":  1}', "application/json", is_signed=True) == ("text", '{"a":  1}')


@pytest.mark.parametrize(
    "text",
    [
        *('{"a": 1, "a": 2}', '{"a": NaN}', "[1e999]", "[0.12345678901234567890]", '["\\ud800"]'),
        *("[" * 100 + "]" * 100, "[1" + "0" * 2000 + "]", "no json"),
    ],
)
def test_json_that_a_value_would_change_is_kept_as_text(text: str) -> None:
    found = body(text.encode(), "application/json")
    assert (found.key, content_of(found)) == ("text", text.encode())


@settings(max_examples=50)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
        max_leaves=8,
    )
)
def test_json_comes_back_as_the_same_value(value: Any) -> None:
    found = body(json.dumps(value).encode(), "application/json")
    assert json.loads(content_of(found)) == value


def test_a_form_is_its_pairs() -> None:
    form = "application/x-www-form-urlencoded"
    assert body(b"a=1&b=x+y&a=2", form, of="request") == ("form", {"a": ["1", "2"], "b": "x y"})
    assert content_of(RecordedBody("form", {"a": ["1", "2"], "b": 3})) == b"a=1&a=2&b=3"
    assert body(b"a=%FF", form, of="request").key == "text"
    assert body(b"", form, of="request") == NO_BODY


def test_bytes_are_base64_and_come_back() -> None:
    data = bytes(range(256))
    found = body(data, "image/png")
    assert found.key == "base64"
    assert max(map(len, found.value.split())) == 76
    assert content_of(found) == data


STREAM = (
    'event: message_start\ndata: {"id": "m", "n": 1}\n\n: ping\n\n'
    "id: 7\nretry: 10\ndata: a\ndata:  b\n\ndata: [DONE]\n\n"
)


def test_server_sent_events_are_one_each() -> None:
    found = body(STREAM.encode(), "text/event-stream")
    assert found.value == [
        {"event": "message_start", "json": {"id": "m", "n": 1}},
        {"comment": "ping"},
        {"id": "7", "retry": 10, "data": "a\n b"},
        {"data": "[DONE]"},
    ]
    again = b"".join(map(bytes, sent_events(found.value))).decode()
    assert events_of(again) == found.value


@pytest.mark.parametrize(
    "text",
    [
        "data: a",
        "data: a\n\nda",
        "what: a\n\n",
        "event: a\nevent: b\n\n",
        "retry: soon\n\n",
        "\n\n",
    ],
)
def test_events_that_would_lose_something_are_text(text: str) -> None:
    assert body(text.encode(), "text/event-stream") == ("text", text)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("text", 1, "it takes a text"),
        ("base64", "!", "base64"),
        ("form", {"a": {"b": 1}}, "the names of a form"),
        ("events", "a", "a list of events"),
        ("events", [1], "event 1"),
        ("events", [{"dat": "a"}], "event 1 has no 'dat'; it has comment, event"),
        ("events", [{"event": "a\nb"}], "cannot be sent"),
    ],
)
def test_what_is_wrong_with_a_body_by_hand_is_said(kind: str, value: Any, said: str) -> None:
    assert said in check_body(kind, value)


def test_what_is_right_is_not_refused() -> None:
    for kind, value in (("events", ["a", {"json": {}}]), ("form", {"a": [1, "b"]}), ("json", None)):
        assert check_body(kind, value) == ""
