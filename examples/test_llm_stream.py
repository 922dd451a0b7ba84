"""A language model that answers word by word: server-sent events to the SDKs of OpenAI and Anthropic."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

from pytest_egress import Egress, Event, Request, Response, log_line

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
STOP = """
import openai

stream = openai.OpenAI().chat.completions.create(
    model="gpt-5", messages=[{"role": "user", "content": "Count."}], stream=True
)
for number, chunk in enumerate(stream):
    if number == 2:
        stream.close()
        break
print("stopped")
"""


def chunk(word: str) -> dict[str, object]:
    """One word of OpenAI's, the data of an event."""
    choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
    answer = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "gpt-5"}
    return answer | {"choices": [choice]}


def test_a_word_is_shown_before_the_next_one_is_there(egress: Egress, sdks: str) -> None:
    shown = threading.Event()

    def words() -> Iterator[dict[str, object] | str]:
        yield chunk("hello")
        assert shown.wait(timeout=30)
        yield chunk("world")
        yield "[DONE]"

    @egress.intercept_https("api.openai.com", method="POST", path="/v1/chat/completions")
    def completions(request: Request) -> Response:
        assert request.json()["messages"][-1]["content"] == "Greet me."
        return Response(events=words())

    app = egress.start(
        sdks, ["python3", "-c", OPENAI], env={"OPENAI_API_KEY": "key"}, wait=log_line("hello")
    )
    shown.set()

    assert app.wait().stdout == "hello\nworld\n"
    completions.assert_called_once()


def test_a_model_stops_when_its_user_does(egress: Egress, sdks: str) -> None:
    stopped = threading.Event()

    @egress.intercept_https("api.openai.com", path="/v1/chat/completions")
    async def completions(request: Request) -> Response:
        async def words() -> AsyncIterator[dict[str, object]]:
            try:
                for number in range(1_000_000):
                    yield chunk(str(number))
                    await asyncio.sleep(0.01)
            finally:
                stopped.set()

        return Response(events=words())

    result = egress.run(sdks, ["python3", "-c", STOP], env={"OPENAI_API_KEY": "key"}, check=True)

    assert result.stdout == "stopped\n"
    assert stopped.wait(timeout=30)


def event(kind: str, **fields: object) -> Event:
    """One event of Anthropic's."""
    return Event(event=kind, data={"type": kind, **fields})


def test_a_model_that_is_overloaded_half_way_is_told_to_the_user(egress: Egress, sdks: str) -> None:
    @egress.intercept_https("api.anthropic.com", path="/v1/messages")
    def messages(request: Request) -> Response:
        return Response(events=words())

    def words() -> Iterator[Event]:
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
