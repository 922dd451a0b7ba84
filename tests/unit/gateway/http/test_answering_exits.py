"""A streamed body that raises `GeneratorExit` by itself has raised, and was not closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trustme

from pytest_egress import asgi, wsgi
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.http2_client import Http2Client
from tests.support.stage import GET, Stage, client_context, end_of


def generator(request: Request) -> Iterator[bytes]:
    yield b"one"
    raise GeneratorExit("of the user's")


async def async_generator(request: Request) -> AsyncIterator[bytes]:
    yield b"one"
    raise GeneratorExit("of the user's")


class Pieces:
    def __init__(self) -> None:
        self.left = [b"one"]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self.left:
            raise GeneratorExit("of the user's")
        return self.left.pop()


def application(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield b"one"
    raise GeneratorExit("of the user's")


async def asgi_application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        raise GeneratorExit("of the user's")


@pytest.mark.parametrize("http2", [False, True], ids=["http1.1", "http2"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: generator,
        lambda: async_generator,
        lambda: lambda request: Response(stream=Pieces()),
        lambda: wsgi(application),
        lambda: asgi(asgi_application),
    ],
    ids=["generator", "async generator", "iterator", "wsgi", "asgi"],
)
def test_what_a_streamed_body_raises_is_its_handlers_error_though_it_is_a_generator_exit(
    stage: Stage, ca: trustme.CA, make: Any, http2: bool
) -> None:
    stage.https("api.test", make())
    if http2:
        context = client_context(ca)
        context.set_alpn_protocols(["h2"])
        assert Http2Client(stage.tls(context=context)).ask().reset is not None
    else:
        sock = stage.tls()
        sock.sendall(GET)
        assert end_of(sock) == "reset"
    entry = stage.only(Exchange)
    assert isinstance(entry.error, GeneratorExit)
    assert str(entry.error) == "of the user's"
