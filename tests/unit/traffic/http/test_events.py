"""Server-sent events, as the HTML standard has clients read them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.http.events import Event, event_bytes, lines_of


def read(data: bytes) -> list[dict[str, str]]:
    """The events of a stream by the standard's algorithm (HTML, 9.2.6), each with the fields that it had."""
    events: list[dict[str, str]] = []
    fields: dict[str, list[str]] = {}
    text = data.decode().replace("\r\n", "\n").replace("\r", "\n")
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        if line and name:
            fields.setdefault(name, []).append(value.removeprefix(" "))
        elif not line and fields:
            events.append({name: "\n".join(values) for name, values in fields.items()})
            fields = {}
    return events


def test_an_event_has_its_fields_in_lines_and_ends_with_an_empty_one() -> None:
    event = Event(event="tick", id="3", retry=500, data="a\nb", comment="of the clock")
    assert bytes(event) == (b": of the clock\nevent: tick\nid: 3\nretry: 500\ndata: a\ndata: b\n\n")


@pytest.mark.parametrize(
    ("item", "sent"),
    [
        ("hello", b"data: hello\n\n"),
        ("", b"data: \n\n"),
        (" two  spaces", b"data:  two  spaces\n\n"),
        ({"n": 2}, b'data: {"n": 2}\n\n'),
        ([1, "x"], b'data: [1, "x"]\n\n'),
        (Event(data=7), b"data: 7\n\n"),
        (Event(comment="ping"), b": ping\n\n"),
        (Event(id=""), b"id: \n\n"),
        (Event(data="one\r\ntwo\rthree"), b"data: one\ndata: two\ndata: three\n\n"),
    ],
)
def test_what_an_iterator_of_events_yields(item: object, sent: bytes) -> None:
    assert event_bytes(item) == sent


@given(st.text())
def test_any_text_comes_to_a_client_as_it_was_with_its_line_ends_as_lf(text: str) -> None:
    (event,) = read(bytes(Event(data=text)))
    assert event == {"data": "\n".join(lines_of(text))}


def test_only_the_line_ends_of_clients_split_a_text() -> None:
    assert lines_of("a\u2028b\x0bc\x85d\n") == ["a\u2028b\x0bc\x85d", ""]


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"event": "a\nb"}, ValueError, "Event(event='a\\nb') has to be one line"),
        ({"id": "a\rb"}, ValueError, "Event(id='a\\rb') has to be one line"),
        ({"id": "\0"}, ValueError, "Event(id='\\x00'): clients ignore an id with NUL"),
        ({"id": 3}, TypeError, "Event(id=...) takes a str, not 3"),
        ({"comment": b"x"}, TypeError, "Event(comment=...) takes a str, not b'x'"),
        ({"retry": -1}, ValueError, "Event(retry=-1): it is a number of milliseconds, an int"),
        ({"retry": True}, ValueError, "Event(retry=True): it is a number of milliseconds, an int"),
        ({"retry": 0.5}, ValueError, "Event(retry=0.5): it is a number of milliseconds, an int"),
    ],
)
def test_a_field_that_cannot_be_sent_is_refused(
    fields: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as raised:
        Event(**fields)
    assert str(raised.value) == text


@pytest.mark.parametrize("item", [b"bytes", 7, None, object])
def test_what_is_no_event_is_refused(item: object) -> None:
    with pytest.raises(TypeError, match="is no event: it takes an Event, str, or a dict or list"):
        event_bytes(item)
