"""Bodies that stream, each way, with real clients: curl, Python's and Node's."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from pytest_egress import Egress, Event, Request, Response, asgi, log_line, wsgi
from pytest_egress.targets.handle import Container

SECONDS = 60.0  # what is bound to happen, on however slow a machine
PIECE = 65536
PIECES = 1600  # 100 MiB
SIZE = PIECE * PIECES
MEGABYTE = 1 << 20

VERSIONS = ["--http1.1", "--http2"]
UPLOAD = f"head -c {SIZE} /dev/zero | curl -sS --fail-with-body -T - https://api.test/up "
PYTHON_EVENTS = """
import httpx
with httpx.stream("GET", "https://api.test/events") as response:
    assert response.headers["content-type"] == "text/event-stream"
    for line in response.iter_lines():
        if line:
            print(line, flush=True)
"""
NODE_EVENTS = """
const response = await fetch("https://api.test/events");
for await (const piece of response.body)
    process.stdout.write(new TextDecoder().decode(piece).replace("\\n\\n", "\\n"));
"""
READERS = {
    "curl": ["sh", "-c", "curl -sSN https://api.test/events | grep --line-buffered ."],
    "python": ["python3", "-c", PYTHON_EVENTS],
    "node": ["node", "--input-type=module", "-e", NODE_EVENTS],
}
NODE_BOTH_WAYS = """
import https from "node:https";
const request = https.request("https://api.test/echo", { method: "POST" });
request.on("information", (info) => console.log("interim", info.statusCode, info.headers.link));
request.on("response", (response) => {
    response.on("data", (piece) => {
        console.log("got", piece.toString());
        if (piece.toString() === "ONE") request.end("two");
    });
    response.on("end", () => console.log("trailers", response.trailers.size));
});
request.write("one");
"""
PYTHON_UPLOAD = """
import requests
def pieces():
    for number in range(100):
        yield b"%05d" % number
print(requests.post("https://api.test/up", data=pieces()).text)
"""


@pytest.fixture(scope="module")
def client(module_egress: Egress, clients_image: str) -> Container:
    """A container that waits for commands; each test answers them with routes of its own."""
    return module_egress.start(clients_image, ["sleep", "infinity"])


def peak_of(run: Any) -> int:
    """How many bytes Python's objects have grown by at most, while something ran."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def count(request: Request) -> str:
    return str(sum(map(len, request.stream())))


def wsgi_count(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [str(sum(map(len, iter(lambda: environ["wsgi.input"].read(PIECE), b"")))).encode()]


async def asgi_count(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "handler", [count, wsgi(wsgi_count), asgi(asgi_count)], ids=["handler", "wsgi", "asgi"]
)
def test_an_upload_of_100_megabytes_takes_constant_memory(
    egress: Egress, client: Container, handler: Any, version: str
) -> None:
    route = egress.intercept_https("api.test", handler, stream=True)
    outputs: list[str] = []
    peak = peak_of(lambda: outputs.append(client.exec(["sh", "-c", UPLOAD + version]).stdout))
    assert outputs == [str(SIZE)]
    assert peak < 16 * MEGABYTE
    (call,) = route.calls
    assert call.request.http_version == version.removeprefix("--http")
    assert f"{SIZE} bytes streamed" in repr(call.request)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_download_of_100_megabytes_takes_constant_memory(
    egress: Egress, client: Container, version: str
) -> None:
    @egress.intercept_https("api.test")
    def download(request: Request) -> Iterator[bytes]:
        for _ in range(PIECES):
            yield bytes(PIECE)

    outputs: list[str] = []
    get = f"curl -sS {version} https://api.test/down | wc -c"
    peak = peak_of(lambda: outputs.append(client.exec(["sh", "-c", get]).stdout))
    assert [int(output) for output in outputs] == [SIZE]
    assert peak < 16 * MEGABYTE


@pytest.mark.parametrize("reader", READERS)
def test_each_event_comes_before_the_next_one_is_there(
    egress: Egress, clients_image: str, reader: str
) -> None:
    shown = threading.Event()

    @egress.intercept_https("api.test")
    def events(request: Request) -> Response:
        def made() -> Iterator[Any]:
            yield "first"
            assert shown.wait(SECONDS)
            yield {"n": 2}
            yield Event(event="end", data="two\nlines")

        return Response(events=made())

    app = egress.start(clients_image, READERS[reader], wait=log_line("data: first"))
    shown.set()
    lines = [line for line in app.wait().stdout.splitlines() if line]
    assert lines == [
        "data: first",
        'data: {"n": 2}',
        "event: end",
        "data: two",
        "data: lines",
    ]


@pytest.mark.parametrize("kind", ["events", "asgi"])
def test_a_client_has_the_head_of_a_stream_whose_first_event_is_late(
    egress: Egress, clients_image: str, kind: str
) -> None:
    shown = threading.Event()

    def events(request: Request) -> Response:
        def made() -> Iterator[str]:
            assert shown.wait(SECONDS)
            yield "late"

        return Response(events=made())

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        assert await asyncio.to_thread(shown.wait, SECONDS)
        await send({"type": "http.response.body", "body": b"data: late\n\n"})

    route = egress.intercept_https("api.test", events if kind == "events" else asgi(app))
    command = ["curl", "-sSND", "-", "https://api.test/events"]
    client = egress.start(clients_image, command, wait=log_line("content-type: text/event-stream"))
    assert route.called
    shown.set()
    assert client.wait().stdout.endswith("data: late\n\n")
    assert route.calls[0].response.text == "data: late\n\n"


def test_both_sides_stream_at_once_with_interim_responses_and_trailers(
    egress: Egress, client: Container
) -> None:
    @egress.intercept_https("api.test", stream=True)
    def echo(request: Request) -> Response:
        request.send_interim(103, {"Link": "</style.css>; rel=preload"})
        sizes = []

        def body() -> Iterator[bytes]:
            for piece in request.stream():
                sizes.append(len(piece))
                yield piece.upper()

        return Response(stream=body(), trailers=lambda: {"Size": str(sum(sizes))})

    command = ["node", "--input-type=module", "-e", NODE_BOTH_WAYS]
    assert client.exec(command).stdout.splitlines() == [
        "interim 103 </style.css>; rel=preload",
        "got ONE",
        "got TWO",
        "trailers 6",
    ]


def test_a_client_of_python_uploads_a_generator(egress: Egress, client: Container) -> None:
    @egress.intercept_https("api.test", stream=True)
    async def digest(request: Request) -> str:
        whole = hashlib.sha256()
        for piece in request.stream():
            whole.update(piece)
        return whole.hexdigest()

    wanted = hashlib.sha256(b"".join(b"%05d" % number for number in range(100))).hexdigest()
    assert client.exec(["python3", "-c", PYTHON_UPLOAD]).stdout.strip() == wanted
    digest.assert_called_once()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_early_answer_reaches_a_client_that_uploads(
    egress: Egress, client: Container, version: str
) -> None:
    egress.intercept_https("api.test", Response(413, text="too large"), stream=True)
    told = f"{version} -w ' %{{http_code}} %{{size_upload}}'"
    waits = (
        f"head -c 2000000 /dev/zero | curl -sS {told} --expect100-timeout 60 -H 'Expect: 100-continue' "
        "--data-binary @- https://api.test/"
    )
    assert client.exec(["sh", "-c", waits]).stdout == "too large 413 0"
    goes_on = f"head -c {SIZE} /dev/zero | curl -sS {told} -H Expect: -T - https://api.test/"
    text, status, sent = client.exec(["sh", "-c", goes_on]).stdout.rsplit(" ", 2)
    assert (text, status) == ("too large", "413")
    assert int(sent) < SIZE


@pytest.mark.parametrize("how", ["https --http2", "https --http1.1", "http --http1.1"])
@pytest.mark.parametrize("kind", ["generator", "async-generator", "async-handler", "asks"])
def test_a_client_that_is_killed_is_noticed(
    egress: Egress, client: Container, kind: str, how: str
) -> None:
    scheme, version = how.split()
    begun, ended = threading.Event(), threading.Event()

    def generator(request: Request) -> Iterator[str]:
        try:
            while True:
                yield "tick\n"
                begun.set()
                ended.wait(0.02)
        finally:
            ended.set()

    async def async_generator(request: Request) -> AsyncIterator[str]:
        try:
            yield "first\n"
            begun.set()
            await asyncio.sleep(600)
        finally:
            ended.set()

    async def async_handler(request: Request) -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()

    def asks(request: Request) -> None:
        begun.set()
        while not request.disconnected:
            ended.wait(0.02)
        ended.set()

    handlers: dict[str, Any] = {
        "generator": generator,
        "async-generator": async_generator,
        "async-handler": async_handler,
        "asks": asks,
    }
    declare = egress.intercept_https if scheme == "https" else egress.intercept_http
    route = declare("api.test", handlers[kind])
    client.exec(
        [
            "sh",
            "-c",
            f"curl -sSN {version} {scheme}://api.test/ > /dev/null 2>&1 & echo $! > /tmp/curl",
        ]
    )
    assert begun.wait(SECONDS)
    client.exec(["sh", "-c", "kill -9 $(cat /tmp/curl)"])
    assert ended.wait(SECONDS)
    call = route.wait_for_call(timeout=SECONDS)
    assert call.error is None


def test_a_stream_of_json_lines_can_be_matched_by_its_head_alone(
    egress: Egress, client: Container
) -> None:
    egress.intercept_https("api.test", 404)
    lines = egress.intercept_https(
        "api.test",
        lambda request: [json.loads(line) for line in b"".join(request.stream()).splitlines()],
        method="POST",
        path="/bulk",
        headers={"Content-Type": "application/x-ndjson"},
        stream=True,
    )
    post = "printf '{\"a\": 1}\\n{\"a\": 2}\\n' | curl -sS -H 'Content-Type: application/x-ndjson' --data-binary @- "
    assert (
        client.exec(["sh", "-c", post + "https://api.test/bulk"]).stdout == '[{"a": 1}, {"a": 2}]'
    )
    assert (
        client.exec(
            ["sh", "-c", "curl -sS -o /dev/null -w '%{http_code}' https://api.test/"]
        ).stdout
        == "404"
    )
    lines.assert_called_once()
