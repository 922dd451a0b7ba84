"""Turns of language models as server-sent events, in the shapes that the vendors document for their streams.

The rule: a function returns a list of `Event`s, the whole turn, which a test may cut or change. Each turn has IDs of
its own, as frameworks take two messages with one ID for the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from pytest_egress.traffic.http.events import Event

INPUT_TOKENS: Final = 1  # of any question: nobody counts them
PIECE: Final = re.compile(r"\S+\s*|\s+")
JSON_PIECE_CHARACTERS: Final = 12  # so that most arguments come in several pieces

Tools = Sequence[tuple[str, Mapping[str, Any]]]
"""The calls of tools in a turn: a name and arguments each."""


def anthropic_turn(
    text: str = "", *, tools: Tools = (), model: str = "claude-opus-5"
) -> list[Event]:
    """Make the events of one turn of Anthropic's Messages API with `stream=True`, for `Response(events=...)`.

    Args:
        text: What the model says, sent word by word.
        tools: The tools that the model calls afterwards: pairs of a name and a dict of arguments, which are sent as
            JSON in pieces. The turn then ends with the stop reason "tool_use", else with "end_turn".
        model: The model that the answer names.

    Returns:
        From message_start to message_stop. Each piece counts as one token of `usage`.

    Raises:
        TypeError: An argument is of another shape; the text quotes it.
    """
    written = checked("anthropic_turn", text, tools, model)
    message: dict[str, Any] = {
        "id": f"msg_{uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": model,
    }
    message |= {"content": [], "stop_reason": None, "stop_sequence": None}
    usage = {"input_tokens": INPUT_TOKENS, "output_tokens": 1}
    events = [
        anthropic_event("message_start", message=message | {"usage": usage}),
        anthropic_event("ping"),
    ]
    for index, (block, pieces) in enumerate(anthropic_blocks(text, written)):
        events += [
            anthropic_event("content_block_start", index=index, content_block=block),
            *(anthropic_event("content_block_delta", index=index, delta=piece) for piece in pieces),
            anthropic_event("content_block_stop", index=index),
        ]
    delta = {"stop_reason": "tool_use" if tools else "end_turn", "stop_sequence": None}
    usage = {"output_tokens": tokens(text, written)}
    return [
        *events,
        anthropic_event("message_delta", delta=delta, usage=usage),
        anthropic_event("message_stop"),
    ]


def anthropic_event(kind: str, **fields: Any) -> Event:
    return Event(event=kind, data={"type": kind, **fields})


def anthropic_blocks(
    text: str, tools: Sequence[tuple[str, str]]
) -> Iterator[tuple[dict[str, Any], list[dict[str, str]]]]:
    """The blocks of a message as they start, each with its deltas."""
    if text:
        deltas = [{"type": "text_delta", "text": piece} for piece in words(text)]
        yield {"type": "text", "text": ""}, deltas
    for name, arguments in tools:
        deltas = [
            {"type": "input_json_delta", "partial_json": piece}
            for piece in ["", *json_pieces(arguments)]
        ]
        yield {"type": "tool_use", "id": f"toolu_{uuid4().hex}", "name": name, "input": {}}, deltas


def openai_turn(
    text: str = "", *, tools: Tools = (), model: str = "gpt-5", include_usage: bool = False
) -> list[Event]:
    """Make the events of one turn of OpenAI's Chat Completions API with `stream=True`, for `Response(events=...)`.

    Args:
        text: What the model says, sent word by word.
        tools: The tools that the model calls: pairs of a name and a dict of arguments, which are sent as JSON in
            pieces. The turn then ends with the finish reason "tool_calls", else with "stop".
        model: The model that the answer names.
        include_usage: Whether the client asks for it by `stream_options={"include_usage": True}`: a chunk without
            choices then has `usage`, in which each piece counts as one token.

    Returns:
        Chunks (`chat.completion.chunk`) and "[DONE]".

    Raises:
        TypeError: An argument is of another shape; the text quotes it.
    """
    written = checked("openai_turn", text, tools, model)
    same: dict[str, Any] = {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion.chunk",
        "created": 0,
    }
    same |= {"model": model} | ({"usage": None} if include_usage else {})
    deltas = list(openai_deltas(text, written))
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": delta, "finish_reason": None} for delta in deltas
    ]
    choices += [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if tools else "stop"}]
    chunks = [same | {"choices": [choice]} for choice in choices]
    if include_usage:
        count = tokens(text, written)
        usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": count}
        usage["total_tokens"] = INPUT_TOKENS + count
        chunks.append(same | {"choices": [], "usage": usage})
    return [*(Event(data=chunk) for chunk in chunks), Event(data="[DONE]")]


def openai_deltas(text: str, tools: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """What each chunk adds to the message."""
    yield {"role": "assistant", "content": "" if text or not tools else None}
    for piece in words(text):
        yield {"content": piece}
    for index, (name, arguments) in enumerate(tools):
        call: dict[str, Any] = {"index": index, "id": f"call_{uuid4().hex}", "type": "function"}
        yield {"tool_calls": [call | {"function": {"name": name, "arguments": ""}}]}
        for piece in json_pieces(arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def words(text: str) -> list[str]:
    """Together they are the text."""
    return PIECE.findall(text)


def json_pieces(arguments: str) -> list[str]:
    step = JSON_PIECE_CHARACTERS
    return [arguments[start : start + step] for start in range(0, len(arguments), step)]


def tokens(text: str, tools: Sequence[tuple[str, str]]) -> int:
    return len(words(text)) + sum(len(json_pieces(arguments)) for _, arguments in tools)


def checked(function: str, text: object, tools: object, model: object) -> list[tuple[str, str]]:
    """The tools, each with its arguments as JSON; TypeError for what cannot be sent."""
    for name, value in (("text", text), ("model", model)):
        if not isinstance(value, str):
            raise TypeError(f"{function}({name}=...) takes a str, not {value!r}")
    if not isinstance(tools, (list, tuple)):
        raise TypeError(f"{function}(tools=...) takes a list of {PAIR}, not {tools!r}")
    return [written(function, tool) for tool in tools]


PAIR: Final = 'pairs of a name and a dict of arguments, as ("get_weather", {"city": "Oslo"})'


def written(function: str, tool: object) -> tuple[str, str]:
    match tool:
        case (str() as name, dict() as arguments):
            try:
                return name, json.dumps(arguments)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"{function}(tools=...): the arguments of {name!r} cannot be sent as JSON: {error}"
                ) from error
    raise TypeError(f"{function}(tools=...) takes {PAIR}, not {tool!r}")
