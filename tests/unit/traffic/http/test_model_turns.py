"""Turns of language models; examples/test_llm_stream.py has the vendors' SDKs read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.http.events import Event, event_bytes
from pytest_egress.traffic.http.model_turns import anthropic_turn, openai_turn, words

WEATHER = ("get_weather", {"city": "Oslo", "unit": "celsius"})
TURNS = pytest.mark.parametrize("turn", [anthropic_turn, openai_turn])


def deltas(events: list[Event]) -> list[dict[str, Any]]:
    """What each chunk of OpenAI's adds."""
    choices = [choice for event in events[:-1] for choice in event.data["choices"]]
    return [choice["delta"] for choice in choices]


def test_a_turn_of_anthropic_is_in_the_order_that_its_api_documents() -> None:
    events = anthropic_turn("Hello Ann", tools=[WEATHER], model="claude-x")
    kinds = [event.event for event in events]
    assert kinds == [event.data["type"] for event in events]
    assert kinds[:2] == ["message_start", "ping"]
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert events[0].data["message"]["model"] == "claude-x"
    starts = [event.data for event in events if event.event == "content_block_start"]
    assert [(start["index"], start["content_block"]["type"]) for start in starts] == [
        (0, "text"),
        (1, "tool_use"),
    ]
    pieces = [event.data["delta"] for event in events if event.event == "content_block_delta"]
    assert "".join(piece.get("text", "") for piece in pieces) == "Hello Ann"
    sent = "".join(piece.get("partial_json", "") for piece in pieces)
    assert json.loads(sent) == WEATHER[1]
    assert events[-2].data["delta"]["stop_reason"] == "tool_use"
    assert events[-2].data["usage"]["output_tokens"] > 2


def test_a_turn_of_openai_ends_with_done_and_its_usage_is_sent_where_it_is_asked_for() -> None:
    events = openai_turn("Hello Ann", tools=[WEATHER, ("stop", {})])
    assert events[-1].data == "[DONE]"
    assert [delta["content"] for delta in deltas(events) if "content" in delta] == [
        "",
        "Hello ",
        "Ann",
    ]
    calls = [call for delta in deltas(events) for call in delta.get("tool_calls", ())]
    arguments = [
        "".join(c["function"]["arguments"] for c in calls if c["index"] == n) for n in (0, 1)
    ]
    assert list(map(json.loads, arguments)) == [WEATHER[1], {}]
    assert events[-2].data["choices"][0]["finish_reason"] == "tool_calls"
    assert all("usage" not in event.data for event in events)

    asked = openai_turn("Hello Ann", include_usage=True)
    assert asked[-2].data["choices"] == []
    assert asked[-2].data["usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
    }
    assert asked[-3].data["choices"][0]["finish_reason"] == "stop"


@TURNS
def test_two_turns_are_two_messages_with_ids_of_their_own(turn: Callable[..., Any]) -> None:
    def ids(events: list[Event]) -> list[str]:
        text = b"".join(map(event_bytes, events)).decode()
        return [
            word
            for word in text.split('"')
            if word.startswith(("msg_", "toolu_", "call_", "chatcmpl-"))
        ]

    one, two = (set(ids(turn("Hi", tools=[WEATHER, WEATHER]))) for _ in range(2))
    assert len(one) == len(two) == 3
    assert not one & two


@given(st.text())
def test_the_pieces_of_a_text_are_the_text(text: str) -> None:
    assert "".join(words(text)) == text


@TURNS
def test_a_turn_may_say_nothing(turn: Callable[..., Any]) -> None:
    assert all(event_bytes(event) for event in turn())


@TURNS
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"text": 7}, "(text=...) takes a str, not 7"),
        ({"model": None}, "(model=...) takes a str, not None"),
        (
            {"tools": {"a": {}}},
            "(tools=...) takes a list of pairs of a name and a dict of arguments",
        ),
        ({"tools": ("a", {})}, "(tools=...) takes pairs of a name and a dict of arguments, as "),
        ({"tools": [("a", '{"b": 1}')]}, """not ('a', '{"b": 1}')"""),
        (
            {"tools": [("a", {"b": {1}})]},
            "(tools=...): the arguments of 'a' cannot be sent as JSON",
        ),
    ],
)
def test_what_no_turn_has_is_refused_when_it_is_declared(
    turn: Callable[..., Any], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(TypeError) as raised:
        turn(**arguments)
    assert str(raised.value).startswith(f"{turn.__name__}(")
    assert said in str(raised.value)
