"""Small applications, and requests for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pytest_egress.routes.applications.asgi import AsgiApplication, asgi
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response


def application_request(method: str = "GET", path: str = "/", **fields: Any) -> Request:
    about = {"scheme": "https", "host": "api.test", "port": 443}
    if not isinstance(headers := fields.pop("headers", Headers()), Headers):
        headers = Headers(headers)
    return Request(**{**about, **fields, "method": method, "path": path, "headers": headers})


def body_of(response: Response) -> bytes:
    """Read a response to its end, as the gateway does."""
    if response.stream is None:
        return response.content
    try:
        return b"".join(response.stream)
    finally:
        close(response)


def close(response: Response) -> None:
    getattr(response.stream, "close", lambda: None)()


# What is no application.


async def asgi_hello(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await respond(send, b"hello")


async def respond(send: Send, body: bytes, more: bool = False) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": more})


BYTES = st.binary(max_size=40)
TOKEN = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=1, max_size=8
)
VALUE = st.text(st.characters(max_codepoint=255, blacklist_categories=["Cc"]), max_size=20).map(
    str.strip
)
FIELDS = st.lists(st.tuples(TOKEN.map("x-{}".format), VALUE), max_size=6)
METHOD = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"])


def quoted(data: bytes) -> str:
    return "".join(f"%{byte:02X}" if byte % 3 or byte in b"?#% " else chr(byte) for byte in data)


@contextlib.contextmanager
def used(app: Any) -> Iterator[AsgiApplication]:
    """The application as a route holds it."""
    handler = asgi(app)
    handler.acquire()
    try:
        yield handler
    finally:
        handler.release()


def streaming_app(ended: list[str]) -> Any:
    async def events() -> AsyncIterator[bytes]:
        try:
            yield b"data: 1\n\n"
            await asyncio.sleep(60)
        finally:
            ended.append("events")

    async def stream(request: StarletteRequest) -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    return Starlette(routes=[Route("/", stream)])
