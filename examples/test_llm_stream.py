"""A language model that answers word by word: server-sent events to the SDKs of OpenAI and Anthropic."""

import json
import threading
from collections.abc import Iterator

from pytest_egress import Egress, Request, Response, log_line

OPENAI = """
import openai

stream = openai.OpenAI().chat.completions.create(
    model="gpt-5", messages=[{"role": "user", "content": "Greet me."}], stream=True
)
for chunk in stream:
    print(chunk.choices[0].delta.content, flush=True)
"""
ANTHROPIC = """
import anthropic

messages = [{"role": "user", "content": "Greet me."}]
try:
    with anthropic.Anthropic().messages.stream(
        model="claude-opus-5", max_tokens=99, messages=messages
    ) as stream:
        for text in stream.text_stream:
            print(text)
except anthropic.APIStatusError as error:
    print("interrupted:", error.body["error"]["type"])
"""
EVENTS = {"Content-Type": "text/event-stream"}


def chunk(word: str) -> bytes:
    """One word of OpenAI's, as an event."""
    choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
    answer = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "gpt-5"}
    return b"data: %s\n\n" % json.dumps(answer | {"choices": [choice]}).encode()


def test_a_word_is_shown_before_the_next_one_is_there(egress: Egress, sdks: str) -> None:
    shown = threading.Event()

    def words() -> Iterator[bytes]:
        yield chunk("hello")
        assert shown.wait(timeout=30)
        yield chunk("world")
        yield b"data: [DONE]\n\n"

    @egress.intercept_https("api.openai.com", method="POST", path="/v1/chat/completions")
    def completions(request: Request) -> Response:
        assert request.json()["messages"][-1]["content"] == "Greet me."
        return Response(stream=words(), headers=EVENTS)

    app = egress.start(
        sdks, ["python3", "-c", OPENAI], env={"OPENAI_API_KEY": "key"}, wait=log_line("hello")
    )
    shown.set()

    assert app.wait().stdout == "hello\nworld\n"
    completions.assert_called_once()


def event(kind: str, **fields: object) -> bytes:
    """One event of Anthropic's."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def test_a_model_that_is_overloaded_half_way_is_told_to_the_user(egress: Egress, sdks: str) -> None:
    @egress.intercept_https("api.anthropic.com", path="/v1/messages")
    def messages(request: Request) -> Response:
        return Response(stream=words(), headers=EVENTS)

    def words() -> Iterator[bytes]:
        usage = {"input_tokens": 1, "output_tokens": 1}
        message = {"id": "1", "type": "message", "role": "assistant", "model": "claude-opus-5"}
        yield event("message_start", message=message | {"content": [], "usage": usage})
        yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hello"})
        yield event("error", error={"type": "overloaded_error", "message": "Overloaded"})

    result = egress.run(
        sdks, ["python3", "-c", ANTHROPIC], env={"ANTHROPIC_API_KEY": "key"}, check=True
    )

    assert result.stdout == "hello\ninterrupted: overloaded_error\n"
    assert messages.call_count == 1
