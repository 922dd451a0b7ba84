"""A client that closes its sending side behind its request, and waits; and one that closes both."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pytest_egress import asgi, delayed, wsgi
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.stage import GET, SECONDS, Stage, eventually, read_reply

LONG = 0.4  # several looks at whether the client has left


async def later(request: Request) -> bytes:
    await asyncio.sleep(LONG)
    return b"yes"


async def streamed(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        await asyncio.sleep(LONG)
        yield b"y"
        await asyncio.sleep(LONG)
        yield b"es"

    return Response(stream=pieces())


def asks(request: Request) -> str:
    for _ in range(5):
        threading.Event().wait(LONG / 5)
        if request.disconnected:
            return "left"
    return "yes"


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await asyncio.sleep(LONG)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"yes"})


def wsgi_application(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"yes"]


ANSWERS: dict[str, Callable[[], Any]] = {
    "def": lambda: asks,
    "async def": lambda: later,
    "async generator": lambda: streamed,
    "asgi": lambda: asgi(application),
    "wsgi": lambda: wsgi(wsgi_application),
    "delayed": lambda: delayed(b"yes", LONG),
}


def connect(stage: Stage, secure: bool) -> socket.socket:
    return stage.tls() if secure else stage.dial(stage.resolve("api.test"), 80)


def half_close(sock: socket.socket) -> None:
    socket.socket.shutdown(sock, socket.SHUT_WR)  # below TLS


@pytest.mark.parametrize("reads_at_once", [True, False])
@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
@pytest.mark.parametrize("make", ANSWERS.values(), ids=ANSWERS.keys())
def test_one_that_half_closes_behind_its_request_gets_its_response(
    stage: Stage, make: Callable[[], Any], secure: bool, reads_at_once: bool
) -> None:
    (stage.https if secure else stage.http)("api.test", make())
    sock = connect(stage, secure)
    sock.sendall(GET)
    half_close(sock)
    if not reads_at_once:
        assert eventually(lambda: stage.count("/") and not stage.window.activities)
    reply = read_reply(sock)
    assert (reply.status, reply.body) == (200, b"yes")
    entry = stage.only(Exchange) if secure else stage.entries(Exchange)[0]
    assert (entry.outcome, entry.note, entry.response.status_code) == ("routed", "", 200)


def closes(sock: socket.socket) -> None:
    sock.close()


def shuts_both_ways(sock: socket.socket) -> None:
    socket.socket.shutdown(sock, socket.SHUT_RDWR)


def half_closes_and_closes(sock: socket.socket) -> None:
    half_close(sock)
    threading.Event().wait(LONG)
    sock.close()


@pytest.mark.parametrize("leave", [closes, shuts_both_ways, half_closes_and_closes])
@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
def test_one_that_closes_both_sides_has_left(
    stage: Stage, leave: Callable[[socket.socket], None], secure: bool
) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def handler(request: Request) -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()

    (stage.https if secure else stage.http)("api.test", handler)
    sock = connect(stage, secure)
    sock.sendall(GET)
    assert begun.wait(SECONDS)
    leave(sock)
    assert ended.wait(SECONDS)
    assert eventually(lambda: "client" in stage.entries(Exchange)[0].note)
