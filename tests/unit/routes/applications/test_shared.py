"""What is an application, and what is none."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse

from pytest_egress.routes.applications.asgi import asgi
from pytest_egress.routes.applications.wsgi import wsgi
from pytest_egress.traffic.http.request import Request
from tests.support.applications import application_request, asgi_hello, body_of


def wsgi_hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def handler_of_a_request(request: Request) -> str:
    raise AssertionError("never called")


async def no_arguments() -> None:
    raise AssertionError("never called")


WSGI_TAKES = "wsgi() takes a WSGI application, a callable of (environ, start_response)"
ASGI_TAKES = "asgi() takes an ASGI 3 application, an async callable of (scope, receive, send)"
NO_ASGI_3 = (
    "takes one argument, as those of ASGI 2 do. "
    "A function of the request is given to the route as it is"
)
STARLETTE, FLASK = Starlette(), flask.Flask("shop")


@pytest.mark.parametrize(
    ("make", "app", "text"),
    [
        (wsgi, "app:app", f"{WSGI_TAKES}, not 'app:app'"),
        (wsgi, None, f"{WSGI_TAKES}, not None"),
        (
            wsgi,
            asgi_hello,
            f"{WSGI_TAKES}; {asgi_hello} looks like an ASGI application: use asgi(...)",
        ),
        (
            wsgi,
            STARLETTE,
            f"{WSGI_TAKES}; {STARLETTE} looks like an ASGI application: use asgi(...)",
        ),
        (
            wsgi,
            HTTPEndpoint,
            f"{WSGI_TAKES}; {HTTPEndpoint} looks like an ASGI application: use asgi(...)",
        ),
        (
            wsgi,
            handler_of_a_request,
            f"{WSGI_TAKES}; {handler_of_a_request} does not take two arguments",
        ),
        (asgi, "app:app", f"{ASGI_TAKES}, not 'app:app'"),
        (
            asgi,
            wsgi_hello,
            f"{ASGI_TAKES}; {wsgi_hello} looks like a WSGI application: use wsgi(...)",
        ),
        (asgi, FLASK, f"{ASGI_TAKES}; <Flask 'shop'> looks like a WSGI application: use wsgi(...)"),
        (asgi, handler_of_a_request, f"{ASGI_TAKES}; {handler_of_a_request} {NO_ASGI_3}"),
        (asgi, no_arguments, f"{ASGI_TAKES}; {no_arguments} does not take three arguments"),
    ],
)
def test_what_is_no_such_application_is_refused_at_once(
    make: Callable[[Any], Any], app: object, text: str
) -> None:
    with pytest.raises(TypeError) as caught:
        make(app)
    assert str(caught.value) == text


def test_an_application_that_does_not_tell_its_arguments_is_taken() -> None:
    class Opaque:
        __signature__ = "unknown"

        def __call__(self, *anything: Any) -> Any:
            return wsgi_hello(*anything)

    assert wsgi(Opaque())(application_request()).content == b"hello"
    assert repr(asgi(asgi_hello)) == f"asgi({asgi_hello!r})"
    assert repr(wsgi(FLASK)) == "wsgi(<Flask 'shop'>)"


def test_partials_and_classes_are_applications_too() -> None:
    class Page:
        def __init__(self, environ: dict[str, Any], start_response: Any) -> None:
            self.start_response = start_response

        def __iter__(self) -> Iterator[bytes]:
            self.start_response("200 OK", [])
            yield b"page"

    class Endpoint(HTTPEndpoint):
        async def get(self, request: StarletteRequest) -> PlainTextResponse:
            return PlainTextResponse("endpoint")

    assert body_of(wsgi(Page)(application_request())) == b"page"
    assert body_of(wsgi(functools.partial(wsgi_hello))(application_request())) == b"hello"
    assert body_of(asgi(functools.partial(asgi_hello))(application_request())) == b"hello"
    assert body_of(asgi(Endpoint)(application_request())) == b"endpoint"


# ASGI: what arrives.


@pytest.fixture(autouse=True)
def nothing_is_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No thread outlives its application, those that frameworks start on its loop included, and no task."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)  # a worker of anyio is told to end and not waited for
    assert not left
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]
