"""An ASGI application lives from the first request until no route uses it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from pytest_egress.routes.applications.asgi import asgi
from tests.support.applications import (
    application_request,
    asgi_hello,
    close,
    respond,
    streaming_app,
    used,
)

pytestmark = pytest.mark.usefixtures("nothing_is_left")

# ASGI: what arrives.


# ASGI: from the first request until no route uses it.


class Shop:
    """An application that keeps what happens in its life."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[dict[str, Any]]:
        self.events.append("startup")
        yield {"colour": "red"}
        self.events.append("shutdown")

    async def charge(self, request: StarletteRequest) -> PlainTextResponse:
        self.events.append(f"request {request.state.colour}")
        request.state.colour = "blue"
        return PlainTextResponse("ok")

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/", self.charge)], lifespan=self.lifespan)


def test_a_lifespan_is_as_long_as_routes_use_the_application() -> None:
    shop = Shop()
    handler = asgi(shop.app)
    for _ in range(2):
        handler.acquire()
        handler.acquire()
        assert not shop.events
        handler(application_request())
        handler(application_request())
        handler.release()
        handler(application_request())
        assert shop.events == ["startup", *["request red"] * 3]
        handler.release()
        assert shop.events.pop() == "shutdown"
        shop.events.clear()


def test_without_a_route_each_call_has_a_life_of_its_own() -> None:
    shop = Shop()
    handler = asgi(shop.app)
    handler(application_request())
    handler(application_request())
    assert shop.events == ["startup", "request red", "shutdown"] * 2


def test_without_a_route_a_stream_lives_until_it_is_closed() -> None:
    ended: list[str] = []
    before = {*threading.enumerate()}
    response = asgi(streaming_app(ended))(application_request())
    assert {*threading.enumerate()} - before
    close(response)
    assert {*threading.enumerate()} <= before
    assert ended == ["events"]


def test_routes_that_never_ask_start_nothing() -> None:
    shop, before = Shop(), {*threading.enumerate()}
    with used(shop.app):
        assert {*threading.enumerate()} <= before
    assert shop.events == []


def test_a_release_too_many_is_refused() -> None:
    with pytest.raises(RuntimeError) as caught:
        asgi(asgi_hello).release()
    assert str(caught.value) == f"asgi({asgi_hello!r}) is released more often than acquired"


def in_lifespan(act: Callable[[Receive, Send], Awaitable[None]]) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await act(receive, send)
        else:
            await respond(send, b"ok")

    return app


LIFESPAN = f"{__name__}.in_lifespan.<locals>.app"


@pytest.mark.parametrize("message", [{"message": "no database"}, {}])
def test_a_startup_that_fails_is_an_error_of_each_request(message: Message) -> None:
    async def act(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", **message})
        raise OSError("no database")

    why = message.get("message", "it does not say why")
    with used(in_lifespan(act)) as handler:
        for _ in range(2):
            with pytest.raises(RuntimeError) as caught:
                handler(application_request())
            assert str(caught.value) == f"{LIFESPAN} failed to start: {why}"


def test_a_shutdown_that_fails_is_an_error_of_the_last_release() -> None:
    async def act(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "cannot flush"})
        raise OSError("cannot flush")

    async def act_silently(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise OSError("cannot flush")

    for action, error, text in [
        (act, RuntimeError, f"{LIFESPAN} failed to shut down: cannot flush"),
        (act_silently, OSError, "cannot flush"),
    ]:
        handler = asgi(in_lifespan(action))
        handler.acquire()
        assert handler(application_request()).content == b"ok"
        with pytest.raises(error) as caught:
            handler.release()
        assert str(caught.value) == text


def test_an_application_that_knows_no_lifespan_is_served_all_the_same() -> None:
    async def wrong(receive: Receive, send: Send) -> None:
        await respond(send, b"what?")

    async def absent(receive: Receive, send: Send) -> None:
        return

    async def leaving(receive: Receive, send: Send) -> None:
        raise SystemExit

    for act in (wrong, absent, leaving):
        with used(in_lifespan(act)) as handler:
            assert handler(application_request()).content == b"ok"


def test_an_application_that_does_not_return_after_its_shutdown_is_cancelled() -> None:
    async def act(receive: Receive, send: Send) -> None:
        while True:
            await send({"type": f"{(await receive())['type']}.complete"})

    with used(in_lifespan(act)) as handler:
        assert handler(application_request()).content == b"ok"


def test_what_the_last_release_finds_running_is_ended() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append("task")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        tasks.append(asyncio.create_task(forever()))
        await receive()
        if scope["path"] == "/background":
            await respond(send, b"ok")
            await asyncio.sleep(60)
        await receive()
        ended.append("told")

    tasks: list[asyncio.Task[None]] = []
    with ThreadPoolExecutor(1) as pool:
        handler = asgi(app)
        handler.acquire()
        assert handler(application_request(path="/background")).content == b"ok"
        asking = pool.submit(handler, application_request())
        while len(tasks) < 2:
            time.sleep(0.01)
        handler.release()
        with pytest.raises(RuntimeError) as caught:
            asking.result(timeout=10)
    name = f"{__name__}.test_what_the_last_release_finds_running_is_ended.<locals>.app"
    assert str(caught.value) == f"{name} was ended while it answered: no route uses it any more"
    assert sorted(ended) == ["task", "task", "told"]


def test_a_generator_that_is_dropped_at_the_very_end_is_closed() -> None:
    ended: list[str] = []

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            ended.append("pieces")

    async def hold(held: list[AsyncIterator[bytes]]) -> None:
        await held[0].__anext__()
        try:
            await asyncio.sleep(60)
        finally:
            held.clear()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            tasks.append(asyncio.create_task(hold([pieces()])))
            await asyncio.sleep(0.01)
            await respond(send, b"ok")

    tasks: list[asyncio.Task[None]] = []
    with used(app) as handler:
        handler(application_request())
    assert ended == ["pieces"]


def test_a_startup_that_never_ends_does_not_keep_the_last_release() -> None:
    async def act(receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.sleep(60)

    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        handler = asgi(in_lifespan(act))
        handler.acquire()
        asking = pool.submit(handler, application_request())
        begun.wait()
        handler.release()
        with pytest.raises(RuntimeError, match="was ended while it answered"):
            asking.result(timeout=10)
