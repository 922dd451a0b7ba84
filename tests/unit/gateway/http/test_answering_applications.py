"""What an application sends is what its client gets, whatever it raises afterwards, which is what the test gets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import fastapi
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.routing import Route

from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.applications.asgi import asgi
from pytest_egress.routes.applications.wsgi import wsgi
from pytest_egress.routes.faults import delayed
from pytest_egress.traffic.entries import Exchange
from tests.support.applications import respond
from tests.support.http2_client import Http2Client
from tests.support.raw_websockets import HANDSHAKE
from tests.support.stage import ADDRESS, GET, Stage, ask, end_of

ERROR = LookupError("no such charge")


def endpoint(request: StarletteRequest) -> None:
    raise ERROR


def starlette() -> Any:
    async def pass_on(request: StarletteRequest, call_next: Any) -> Any:
        return await call_next(request)

    return Starlette(
        routes=[Route("/", endpoint)], middleware=[Middleware(BaseHTTPMiddleware, pass_on)]
    )


def fastapi_after_yield() -> Any:
    api = fastapi.FastAPI()

    def database() -> Iterator[str]:
        yield "open"
        raise ERROR  # as a commit does that fails

    @api.get("/")
    def charge(database: str = fastapi.Depends(database)) -> dict[str, str]:
        return {"database": database}

    return api


def sends(*pieces: bytes) -> Any:
    """An application that sends these pieces and then raises."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number, piece in enumerate(pieces, 1):
            more = number < len(pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})
        raise ERROR

    return app


APPS: dict[str, tuple[Any, int, bytes]] = {
    "whole": (sends(b"ok"), 200, b"ok"),
    "streamed": (sends(b"o", b"k"), 200, b"ok"),
    "streamed without a last piece": (sends(b"ok", b""), 200, b"ok"),
    "starlette": (Starlette(routes=[Route("/", endpoint)]), 500, b"Internal Server Error"),
    "middleware": (starlette(), 500, b"Internal Server Error"),
    "fastapi": (fastapi_after_yield(), 200, b'{"database":"open"}'),
}
each_app = pytest.mark.parametrize(("app", "status", "body"), APPS.values(), ids=APPS.keys())


@each_app
def test_a_client_gets_what_an_asgi_application_has_sent_and_the_test_what_it_raises(
    stage: Stage, app: Any, status: int, body: bytes
) -> None:
    stage.http(ADDRESS, asgi(app))
    sock = stage.dial(ADDRESS, 80)
    for _ in range(2):  # the connection goes on
        reply = ask(sock)
        assert (reply.status, reply.body) == (status, body)
    for exchange in stage.entries(Exchange):
        assert exchange.error is ERROR
        assert (exchange.response.status_code, exchange.response.content) == (status, body)
    verdict = judge(stage.window, [])
    assert verdict is not None
    assert verdict.__cause__ is ERROR


@each_app
def test_so_it_is_over_http_2(stage: Stage, app: Any, status: int, body: bytes) -> None:
    stage.http(ADDRESS, asgi(app))
    client = Http2Client(stage.dial(ADDRESS, 80), "http")
    answer = client.ask()
    assert (answer.status, answer.body, answer.ended) == (status, body, True)
    assert answer.reset is None
    assert stage.only(Exchange).error is ERROR


@pytest.mark.parametrize("name", ["whole", "streamed"])
def test_so_it_is_where_a_fault_is_around_the_application(stage: Stage, name: str) -> None:
    stage.http(ADDRESS, delayed(asgi(APPS[name][0]), 0.01))
    assert ask(stage.dial(ADDRESS, 80)).body == b"ok"
    exchange = stage.only(Exchange)
    assert exchange.error is ERROR
    assert str(exchange.fault).startswith("delayed(")


def test_an_answer_that_is_not_whole_is_broken_off(stage: Stage) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        raise ERROR

    stage.http(ADDRESS, asgi(app))
    sock = stage.dial(ADDRESS, 80)
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    assert stage.only(Exchange).error is ERROR


def test_a_denial_that_is_not_what_it_states_is_broken_off(stage: Stage) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        length = [(b"content-length", b"5")]
        event = {"type": "websocket.http.response.start", "status": 403, "headers": length}
        await send(event)
        await send({"type": "websocket.http.response.body", "body": b""})

    stage.http("api.test", asgi(app))
    sock = stage.dial(ADDRESS, 80)
    sock.sendall(HANDSHAKE)
    assert end_of(sock) == "reset"
    assert stage.only(Exchange).error is not None


def test_a_denial_does_not_tell_a_client_of_http_2_that_its_websocket_is_open(stage: Stage) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 200, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    stage.http(ADDRESS, asgi(app))
    client = Http2Client(stage.dial(ADDRESS, 80), "http")
    version = [("sec-websocket-version", "13")]
    number = client.begin(method="CONNECT", protocol="websocket", headers=version, ends=False)
    client.flush()
    assert client.answer(number).status == 501
    assert "the status 200 would tell its client" in stage.only(Exchange).note


class FailsAtClose:
    """A body whose `close` raises."""

    def __init__(self, pieces: Any) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pieces)

    def close(self) -> None:
        raise ERROR


def behind_the_last() -> Iterator[bytes]:
    yield b"ok"
    raise ERROR


BODIES: dict[str, tuple[Any, list[tuple[str, str]]]] = {
    "whole and closed": (FailsAtClose([b"ok"]), [("Content-Length", "2")]),
    "streamed and closed": (FailsAtClose([b"o", b"k"]), []),
    "behind the last piece": (behind_the_last, [("Content-Length", "2")]),
}


@pytest.mark.parametrize(("pieces", "headers"), BODIES.values(), ids=BODIES.keys())
def test_so_it_is_for_a_wsgi_application(
    stage: Stage, pieces: Any, headers: list[tuple[str, str]]
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", headers)
        return pieces() if callable(pieces) else pieces

    stage.http(ADDRESS, wsgi(app))
    sock = stage.dial(ADDRESS, 80)
    assert [ask(sock).body for _ in range(2)] == [b"ok", b"ok"]
    for exchange in stage.entries(Exchange):
        assert exchange.error is ERROR
        assert exchange.response.content == b"ok"


def test_what_a_task_raises_that_an_application_does_not_await_is_logged_and_fails_no_test(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise ERROR

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        asyncio.get_running_loop().create_task(fail())
        await asyncio.sleep(0.01)
        await respond(send, b"ok")

    stage.http(ADDRESS, asgi(app))
    assert ask(stage.dial(ADDRESS, 80)).body == b"ok"
    assert stage.only(Exchange).error is None
    assert judge(stage.window, []) is None
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is ERROR
