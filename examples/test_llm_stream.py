"""A language model that answers word by word: server-sent events to the SDKs of OpenAI and Anthropic."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

from pytest_egress import (
    Egress,
    Event,
    Request,
    Response,
    anthropic_turn,
    log_line,
    openai_turn,
    sequence,
)

OPENAI = """
import openai

stream = openai.OpenAI().chat.completions.create(
    model="gpt-5", messages=[{"role": "user", "content": "Greet me."}], stream=True
)
for chunk in stream:
    if chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content.strip(), flush=True)
"""
ANTHROPIC = """
import anthropic

messages = [{"role": "user", "content": "Greet me."}]
try:
    with anthropic.Anthropic().messages.stream(
        model="claude-opus-5", max_tokens=99, messages=messages
    ) as stream:
        for text in stream.text_stream:
            print(text.strip())
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
OPENAI_AGENT = """
import json, openai

client = openai.OpenAI()
messages = [{"role": "user", "content": "Do I need a coat in Oslo?"}]
parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
tools = [{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]
while True:
    with client.chat.completions.stream(
        model="gpt-5", messages=messages, tools=tools, stream_options={"include_usage": True}
    ) as stream:
        completion = stream.get_final_completion()
    choice = completion.choices[0]
    if choice.finish_reason != "tool_calls":
        break
    messages.append(choice.message.to_dict())
    for call in choice.message.tool_calls:
        city = json.loads(call.function.arguments)["city"]
        messages.append({"role": "tool", "tool_call_id": call.id, "content": f"{city}: snow"})
print(choice.message.content, completion.usage.completion_tokens)
"""
ANTHROPIC_AGENT = """
import anthropic

client = anthropic.Anthropic()
messages = [{"role": "user", "content": "Do I need a coat in Oslo?"}]
schema = {"type": "object", "properties": {"city": {"type": "string"}}}
tools = [{"name": "get_weather", "input_schema": schema}]
while True:
    with client.messages.stream(
        model="claude-opus-5", max_tokens=99, messages=messages, tools=tools
    ) as stream:
        message = stream.get_final_message()
    if message.stop_reason != "tool_use":
        break
    messages.append({"role": "assistant", "content": [block.to_dict() for block in message.content]})
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": f"{block.input['city']}: snow"}
        for block in message.content
        if block.type == "tool_use"
    ]
    messages.append({"role": "user", "content": results})
print(message.content[0].text, message.usage.output_tokens)
"""
WEATHER = ("get_weather", {"city": "Oslo"})


def test_an_agent_of_openai_calls_a_tool_and_answers(egress: Egress, sdks: str) -> None:
    turns = sequence(
        Response(events=openai_turn("Let me look.", tools=[WEATHER], include_usage=True)),
        Response(events=openai_turn("Yes, it snows.", include_usage=True)),
    )
    model = egress.intercept_https("api.openai.com", turns, path="/v1/chat/completions")

    result = egress.run(sdks, ["python3", "-c", OPENAI_AGENT], env={"OPENAI_API_KEY": "key"})

    assert result.stdout == "Yes, it snows. 3\n"
    assert model.calls[1].request.json()["messages"][-1]["content"] == "Oslo: snow"


def test_an_agent_of_anthropic_calls_a_tool_and_answers(egress: Egress, sdks: str) -> None:
    turns = sequence(
        Response(events=anthropic_turn("Let me look.", tools=[WEATHER])),
        Response(events=anthropic_turn("Yes, it snows.")),
    )
    model = egress.intercept_https("api.anthropic.com", turns, path="/v1/messages")

    result = egress.run(sdks, ["python3", "-c", ANTHROPIC_AGENT], env={"ANTHROPIC_API_KEY": "key"})

    assert result.stdout == "Yes, it snows. 3\n"
    _, answer, results = model.calls[1].request.json()["messages"]
    assert [block["type"] for block in answer["content"]] == ["text", "tool_use"]
    assert results["content"][0]["content"] == "Oslo: snow"


def test_a_word_is_shown_before_the_next_one_is_there(egress: Egress, sdks: str) -> None:
    shown = threading.Event()

    def words() -> Iterator[Event]:
        start, hello, *rest = openai_turn("hello world")
        yield from (start, hello)
        assert shown.wait(timeout=30)
        yield from rest

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
        async def words() -> AsyncIterator[Event]:
            try:
                for event in openai_turn("tick " * 100_000):
                    yield event
                    await asyncio.sleep(0.01)
            finally:
                stopped.set()

        return Response(events=words())

    result = egress.run(sdks, ["python3", "-c", STOP], env={"OPENAI_API_KEY": "key"})

    assert result.stdout == "stopped\n"
    assert stopped.wait(timeout=30)


def test_a_model_that_is_overloaded_half_way_is_told_to_the_user(egress: Egress, sdks: str) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    half = anthropic_turn("hello world")[:4]  # message_start, ping, content_block_start, "hello "
    messages = egress.intercept_https(
        "api.anthropic.com",
        Response(events=[*half, Event(event="error", data=error)]),
        path="/v1/messages",
    )

    result = egress.run(sdks, ["python3", "-c", ANTHROPIC], env={"ANTHROPIC_API_KEY": "key"})

    assert result.stdout == "hello\ninterrupted: overloaded_error\n"
    assert messages.call_count == 1
