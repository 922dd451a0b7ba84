"""WSGI and ASGI applications as handlers: what arrives in them, what comes out, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any
from wsgiref.validate import validator

import boto3
import django.conf  # type: ignore[import-untyped]
import django.core.asgi  # type: ignore[import-untyped]
import django.core.wsgi  # type: ignore[import-untyped]
import django.http  # type: ignore[import-untyped]
import django.urls  # type: ignore[import-untyped]
import fastapi
import flask
import pytest
from botocore.awsrequest import AWSResponse  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from pytest_egress.routes import applications
from pytest_egress.routes.asgi import AsgiApplication, asgi
from pytest_egress.routes.wsgi import wsgi
from pytest_egress.traffic.messages import Headers, Request, Response

HERE = __name__


def request(method: str = "GET", path: str = "/", **fields: Any) -> Request:
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

    assert wsgi(Opaque())(request()).content == b"hello"
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

    assert body_of(wsgi(Page)(request())) == b"page"
    assert body_of(wsgi(functools.partial(wsgi_hello))(request())) == b"hello"
    assert body_of(asgi(functools.partial(asgi_hello))(request())) == b"hello"
    assert body_of(asgi(Endpoint)(request())) == b"endpoint"


# WSGI: what arrives.


class Recorder:
    """A WSGI application that keeps the environments it is called with, and answers 204."""

    def __init__(self) -> None:
        self.environ: dict[str, Any] = {}
        self.content = b""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.environ, self.content = environ, environ["wsgi.input"].read()
        start_response("204 No Content", [])
        return []


def test_the_environ_is_whole() -> None:
    app = Recorder()
    sent = request(
        "POST",
        "/caf%C3%A9/a%2Fb",
        query_string="q=%20x",
        headers=[
            ("Host", "api.test"),
            ("content-type", "text/plain"),
            ("Content-Length", "4"),
            ("X-Twice", "1"),
            ("x-twice", "2"),
            ("Cookie", "a=1"),
            ("Cookie", "b=2"),
        ],
        content=b"body",
        http_version="1.0",
        client=("10.0.0.7", 40000),
    )
    wsgi(app)(sent)
    assert app.content == b"body"
    assert isinstance(app.environ.pop("wsgi.input"), io.BytesIO)
    assert app.environ == {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/caf\u00c3\u00a9/a/b",
        "RAW_URI": "/caf%C3%A9/a%2Fb?q=%20x",
        "REQUEST_URI": "/caf%C3%A9/a%2Fb?q=%20x",
        "QUERY_STRING": "q=%20x",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "4",
        "SERVER_NAME": "api.test",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.0",
        "SERVER_SOFTWARE": "pytest-egress",
        "REMOTE_ADDR": "10.0.0.7",
        "REMOTE_PORT": "40000",
        "HTTP_HOST": "api.test",
        "HTTP_X_TWICE": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def test_a_chunked_body_has_the_length_that_it_has_and_no_body_has_none() -> None:
    app = Recorder()
    wsgi(app)(request("POST", headers={"Transfer-Encoding": "chunked"}, content=b"12345"))
    assert app.environ["CONTENT_LENGTH"] == "5"
    wsgi(app)(request("POST", headers={"Transfer-Encoding": "chunked"}))
    assert app.environ["CONTENT_LENGTH"] == "0"
    wsgi(app)(request())
    assert "CONTENT_LENGTH" not in app.environ
    wsgi(app)(request("PUT", headers={"Content_Length": "9", "Content_Type": "x"}, content=b"1"))
    assert app.environ["CONTENT_LENGTH"] == "1"
    assert not {"CONTENT_TYPE", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & app.environ.keys()


def test_an_ipv6_address_is_a_server_name_in_brackets() -> None:
    app = Recorder()
    wsgi(app)(request(host="2001:db8::7", port=8443))
    assert (app.environ["SERVER_NAME"], app.environ["SERVER_PORT"]) == ("[2001:db8::7]", "8443")


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


@given(method=METHOD, path=BYTES, query=BYTES, fields=FIELDS, content=BYTES)
def test_whatever_is_sent_arrives_in_a_wsgi_application(
    method: str, path: bytes, query: bytes, fields: list[tuple[str, str]], content: bytes
) -> None:
    app = Recorder()
    sent = request(
        method,
        f"/{quoted(path)}",
        query_string=quoted(query),
        headers=fields,
        content=content,
    )
    wsgi(app)(sent)
    assert app.environ["REQUEST_METHOD"] == method
    assert app.environ["PATH_INFO"].encode("latin-1") == b"/" + path
    assert app.environ["QUERY_STRING"] == quoted(query)
    assert app.content == content
    arrived = {key: value for key, value in app.environ.items() if key.startswith("HTTP_")}
    assert arrived == {
        f"HTTP_{name.upper().replace('-', '_')}": ",".join(sent.headers.get_all(name))
        for name in sent.headers
    }


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("length", [False, True])
def test_the_standard_librarys_validator_finds_nothing(
    method: str, streamed: bool, length: bool
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"].read(3)
        headers = [("Content-Type", "text/plain"), *([("Content-Length", "6")] if length else [])]
        start_response("200 OK", headers)
        return iter([b"abc", b"", b"def"]) if streamed else [b"abcdef"]

    sent = request(method, "/x", headers={"Content-Type": "a/b", "Cookie": "c"}, content=b"123")
    assert body_of(wsgi(validator(app))(sent)) == b"abcdef"


# WSGI: what comes out.


class Closing:
    """An iterable that says whether it was closed."""

    def __init__(self, pieces: Iterable[Any]) -> None:
        self.pieces, self.closed = pieces, 0

    def __iter__(self) -> Iterator[Any]:
        return iter(self.pieces)

    def close(self) -> None:
        self.closed += 1


def answering(result: Any, status: str = "200 OK", headers: Any = ()) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(headers))
        return result

    return wsgi(app)


NAME = f"{HERE}.answering.<locals>.app"


def test_status_and_fields_come_out_and_the_connections_own_do_not() -> None:
    headers = [
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
        ("connection", "close"),
        ("Keep-Alive", "timeout=5"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "2"),
        ("X-Name", "caf\u00e9"),
    ]
    response = answering([b"o", b"k"], "418 I'm a teapot", headers)(request())
    assert (response.status_code, response.content, response.stream) == (418, b"ok", None)
    assert response.headers.raw == (
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
        ("Content-Length", "2"),
        ("X-Name", "caf\u00e9"),
    )


def test_a_response_to_head_keeps_its_length() -> None:
    response = answering([], headers=[("Content-Length", "1234")])(request("HEAD"))
    assert (response.content, response.headers["content-length"]) == (b"", "1234")


def test_a_generator_is_streamed_as_it_yields() -> None:
    seen: list[str] = []

    def pieces() -> Iterator[bytes]:
        try:
            for piece in (b"", b"one", b"", b"two", b"three"):
                seen.append(f"made {piece!r}")
                yield piece
        finally:
            seen.append("closed")

    response = answering(pieces())(request())
    assert response.stream is not None
    stream = iter(response.stream)
    assert seen == ["made b''", "made b'one'"]
    assert next(stream) == b"one"
    assert len(seen) == 2
    assert next(stream) == b"two"
    close(response)
    close(response)
    assert seen == ["made b''", "made b'one'", "made b''", "made b'two'", "closed"]


def test_a_body_that_nobody_reads_is_closed_all_the_same() -> None:
    body = Closing([b"a", b"b"])
    response = answering(body)(request("HEAD"))
    before = body.closed
    close(response)
    assert (before, body.closed) == (0, 1)


@pytest.mark.parametrize("pieces", [[b"abc"], [b"", b"abc", b""], [b"", b""], []])
def test_a_body_whose_length_says_that_it_is_whole_is_content(pieces: list[bytes]) -> None:
    body, content = Closing(pieces), b"".join(pieces)
    response = answering(body, headers=[("Content-Length", str(len(content)))])(request())
    assert (response.content, response.stream, body.closed) == (content, None, 1)


def test_start_response_may_be_called_late() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        yield b""
        start_response("201 Created", [])
        yield b"late"

    response = wsgi(app)(request())
    assert (response.status_code, body_of(response)) == (201, b"late")


def test_what_is_written_goes_out_before_what_is_returned() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"1")
        write(b"")
        write(b"2")

        def more() -> Iterator[bytes]:
            yield b"3"
            write(b"4")
            yield b"5"
            write(b"6")

        return more()

    response = wsgi(app)(request())
    assert response.stream is not None
    assert list(response.stream) == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_an_error_may_replace_the_head_until_something_was_sent() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        try:
            if environ["PATH_INFO"] == "/late":
                write(b"sent")
            raise OSError("the disk is full")
        except OSError:
            start_response("500 Oops", [("X-Error", "1")], sys.exc_info())
            return [b"sorry"]

    response = wsgi(app)(request())
    assert (response.status_code, response.content) == (500, b"sorry")
    assert response.headers.raw == (("X-Error", "1"),)
    with pytest.raises(OSError, match="the disk is full") as caught:
        wsgi(app)(request(path="/late"))
    assert caught.traceback[-1].name == "app"


def test_what_a_wsgi_application_raises_comes_through_with_its_own_lines() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/early":
            raise LookupError("no such charge")
        start_response("200 OK", [])
        yield b"a"
        raise LookupError("lost it")

    with pytest.raises(LookupError, match="no such charge") as caught:
        wsgi(app)(request(path="/early"))
    assert caught.traceback[-1].name == "app"
    response = wsgi(app)(request())
    assert response.stream is not None
    stream = iter(response.stream)
    assert next(stream) == b"a"
    with pytest.raises(LookupError, match="lost it"):
        next(stream)


async def coroutine() -> None:
    raise AssertionError("never run")


@pytest.mark.parametrize(
    ("result", "about", "error", "text"),
    [
        (None, {}, TypeError, f"{NAME} returned None, which is no iterable of bytes"),
        ("text", {}, TypeError, f"{NAME} returned 'text', which is no iterable of bytes"),
        (["text"], {}, TypeError, f"{NAME} sent 'text', str and not bytes"),
        (iter([1]), {}, TypeError, f"{NAME} sent 1, int and not bytes"),
        (
            [],
            {"status": "OK"},
            ValueError,
            "'OK' is no status; start_response takes text such as '200 OK'",
        ),
        (
            [],
            {"status": 200},
            ValueError,
            "200 is no status; start_response takes text such as '200 OK'",
        ),
        (
            [],
            {"status": "100 Continue"},
            ValueError,
            "100 is no status of a response; it takes an int from 200 to 599",
        ),
        ([], {"headers": [("X", "a\nb")]}, ValueError, r"'X': 'a\nb' is no header field"),
        ([], {"headers": [("X", 1)]}, TypeError, "header fields are str, not 'X': 1"),
        ([], {"headers": [(b"X", "1")]}, TypeError, "header fields are str, not b'X': '1'"),
        (
            iter([b"a", b"b"]),
            {"headers": [("Content-Length", "1")]},
            RuntimeError,
            f"{NAME} sent b'b' after the end by its Content-Length",
        ),
    ],
)
def test_what_wsgi_forbids_is_an_error_that_says_so(
    result: Any, about: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        answering(result, **about)(request())
    assert str(caught.value) == text


def test_a_coroutine_is_no_body_and_is_closed() -> None:
    with pytest.raises(TypeError, match="which is no iterable of bytes"):
        answering(coroutine())(request())


@pytest.mark.parametrize("pieces", [[b"a"], [], iter([b"a"]), iter([b""])])
def test_start_response_must_be_called(pieces: Iterable[bytes]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return pieces

    with pytest.raises(RuntimeError) as caught:
        wsgi(app)(request())
    name = f"{HERE}.test_start_response_must_be_called.<locals>.app"
    assert str(caught.value) == f"{name} answered without calling start_response"


def test_start_response_must_not_be_called_twice() -> None:
    class App:
        def __repr__(self) -> str:
            return "<App>"

        def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            start_response("200 OK", [])
            return []

    with pytest.raises(RuntimeError) as caught:
        wsgi(App())(request())
    assert str(caught.value) == "<App> called start_response a second time, without exc_info"


def test_a_body_is_closed_also_where_it_fails() -> None:
    for pieces in ([1], [b"a"]):
        body = Closing(pieces)
        app = answering(body, headers=[("Content-Length", "1")] if pieces == [b"a"] else [])
        with contextlib.suppress(TypeError):
            app(request())
        assert body.closed == 1


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


@contextlib.contextmanager
def used(app: Any) -> Iterator[AsgiApplication]:
    """The application as a route holds it."""
    handler = asgi(app)
    handler.acquire()
    try:
        yield handler
    finally:
        handler.release()


class AsgiRecorder:
    """An ASGI application that keeps what it is called with, and answers 204."""

    def __init__(self) -> None:
        self.scope: Scope = {}
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        self.scope, self.received = scope, [await receive()]
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        self.received.append(await receive())


def test_the_scope_is_whole() -> None:
    app = AsgiRecorder()
    response = asgi(app)(
        request(
            "post",
            "/caf%C3%A9/a%2Fb%FF",
            query_string="q=%20x",
            headers=[("Host", "api.test"), ("X-Twice", "1"), ("x-twice", "caf\u00e9")],
            content=b"body",
            client=("10.0.0.7", 40000),
        )
    )
    assert (response.status_code, response.content) == (204, b"")
    assert app.scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": "/caf\u00e9/a/b\ufffd",
        "raw_path": b"/caf%C3%A9/a%2Fb%FF",
        "query_string": b"q=%20x",
        "root_path": "",
        "headers": [(b"host", b"api.test"), (b"x-twice", b"1"), (b"x-twice", b"caf\xe9")],
        "client": ("10.0.0.7", 40000),
        "server": ("api.test", 443),
        "state": {},
    }
    assert app.received == [
        {"type": "http.request", "body": b"body", "more_body": False},
        {"type": "http.disconnect"},
    ]


def test_whatever_is_sent_arrives_in_an_asgi_application() -> None:
    app = AsgiRecorder()

    @given(method=METHOD, path=st.text(max_size=20), query=BYTES, fields=FIELDS, content=BYTES)
    def arrives(
        method: str, path: str, query: bytes, fields: list[tuple[str, str]], content: bytes
    ) -> None:
        raw = f"/{quoted(path.encode())}"
        handler(request(method, raw, query_string=quoted(query), headers=fields, content=content))
        assert app.scope["method"] == method
        assert (app.scope["path"], app.scope["raw_path"]) == (f"/{path}", raw.encode("latin-1"))
        assert app.scope["query_string"] == quoted(query).encode("latin-1")
        assert app.scope["headers"] == [
            (name.lower().encode(), value.encode("latin-1")) for name, value in fields
        ]
        assert app.received[0]["body"] == content

    with used(app) as handler:
        arrives()


COLOUR: ContextVar[str] = ContextVar("COLOUR")


def test_the_context_of_the_calling_thread_is_seen() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send, COLOUR.get().encode())

    with used(app) as handler:
        for colour in ("red", "blue"):
            COLOUR.set(colour)
            assert handler(request()).content == colour.encode()


# ASGI: what comes out.


def test_a_body_in_one_message_is_content_without_the_connections_own_fields() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-name", b"caf\xe9"), (b"Connection", b"close"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    response = asgi(app)(request())
    assert (response.status_code, response.content, response.stream) == (201, b"ok", None)
    assert response.headers.raw == (("x-name", "caf\u00e9"), ("content-length", "2"))


def test_a_body_whose_length_says_that_it_is_whole_is_content_also_with_middleware() -> None:
    async def pass_on(request: StarletteRequest, call_next: Any) -> Any:
        return await call_next(request)

    def charge(request: StarletteRequest) -> JSONResponse:
        return JSONResponse({"id": "ch_1"})

    app = Starlette(
        routes=[Route("/", charge)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=pass_on)]
    )
    with used(app) as handler:
        assert handler(request()).json() == {"id": "ch_1"}
        assert handler(request("HEAD")).headers["content-length"] == "13"


def test_a_streamed_body_comes_out_as_it_is_sent_and_no_faster_than_it_is_taken() -> None:
    sent: list[int] = []
    go = threading.Semaphore(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(5):
            await asyncio.to_thread(go.acquire)
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            sent.append(number)
        await send({"type": "http.response.body", "body": b"end"})

    with used(app) as handler:
        go.release()
        response = handler(request())
        assert response.stream is not None
        stream = iter(response.stream)
        assert next(stream) == b"0"
        go.release(9)
        time.sleep(0.1)  # the second has been sent by now, and nobody has taken it
        assert sent == [0]
        assert [*stream] == [b"1", b"2", b"3", b"4", b"end"]
        close(response)
        close(response)


def test_the_head_goes_out_before_the_first_piece_where_that_is_late() -> None:
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.to_thread(go.wait)
        await send({"type": "http.response.body", "body": b"late"})

    with used(app) as handler:
        response = handler(request())
        assert response.status_code == 200
        go.set()
        assert body_of(response) == b"late"


def test_an_empty_first_piece_sends_the_head() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await respond(send, b"", more=True)
        await receive()
        await receive()

    with used(app) as handler:
        response = handler(request())
        assert response.stream is not None
        close(response)


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


def test_a_client_that_leaves_ends_the_stream_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applications, "LEAVE_SECONDS", 3600.0)  # nothing is cancelled before
    ended: list[str] = []
    with used(streaming_app(ended)) as handler:
        response = handler(request())
        assert response.stream is not None
        assert next(iter(response.stream)) == b"data: 1\n\n"
        close(response)
        assert ended == ["events"]


def test_an_application_that_does_not_listen_is_cancelled_when_the_client_has_left() -> None:
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        finally:
            ended.append("app")

    with used(app) as handler:
        response = handler(request())
        close(response)
        assert ended == ["app"]


def test_what_is_raised_when_the_client_has_left_comes_out_of_close() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await respond(send, b"x", more=True)
        await receive()
        assert await receive() == {"type": "http.disconnect"}
        raise LookupError("cannot roll back")

    with used(app) as handler:
        response = handler(request())
        with pytest.raises(LookupError, match="cannot roll back"):
            close(response)


def test_an_application_that_cannot_be_ended_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applications, "LEAVE_SECONDS", 0.05)
    monkeypatch.setattr(applications, "END_SECONDS", 0.2)
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await respond(send, b"x", more=True)
        go.wait()  # blocks the loop

    handler = asgi(app)
    handler.acquire()
    response = handler(request())
    assert response.stream is not None
    next(iter(response.stream))
    name = f"{HERE}.test_an_application_that_cannot_be_ended_is_named.<locals>.app"
    with pytest.raises(RuntimeError) as caught:
        close(response)
    assert str(caught.value) == f"{name} has not ended 0.2 seconds after http.disconnect"
    with pytest.raises(RuntimeError) as caught:
        handler.release()
    assert str(caught.value) == f"{name} has not ended 0.2 seconds after it was told to"
    go.set()


def test_slow_and_fast_requests_are_answered_at_once() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        if scope["path"] == "/last":
            order.append("last")
            everybody.set()
        order.append(scope["path"])
        await everybody.wait()
        await respond(send, threading.current_thread().name.encode())

    everybody = asyncio.Event()
    order: list[str] = []
    with used(app) as handler, ThreadPoolExecutor(21) as pool:
        waiting = [pool.submit(handler, request(path="/wait")) for _ in range(20)]
        while order.count("/wait") < 20:
            time.sleep(0.01)
        last = pool.submit(handler, request(path="/last"))
        names = {future.result(timeout=10).content for future in [*waiting, last]}
    assert len(names) == 1


# ASGI: errors.


def failing(*messages: Message, error: BaseException | None = None) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for message in messages:
                await send(message)
            if error is not None:
                raise error

    return app


START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PIECE: Message = {"type": "http.response.body", "body": b"a", "more_body": True}
LAST: Message = {"type": "http.response.body", "body": b"b"}
FAILING = f"{HERE}.failing.<locals>.app"


@pytest.mark.parametrize(
    ("messages", "error", "text"),
    [
        ([], RuntimeError, f"{FAILING} ended without sending http.response.start"),
        ([START], RuntimeError, f"{FAILING} ended without sending the end of its body"),
        ([PIECE], RuntimeError, f"{FAILING} sent 'http.response.body' out of turn"),
        ([START, START], RuntimeError, f"{FAILING} sent 'http.response.start' out of turn"),
        ([START, {"type": "odd"}], RuntimeError, f"{FAILING} sent 'odd' out of turn"),
        ([START, LAST, LAST], RuntimeError, f"{FAILING} sent b'b' after the end of its body"),
        (
            [{**START, "status": 101}],
            ValueError,
            "101 is no status of a response; it takes an int from 200 to 599",
        ),
        ([{**START, "headers": [(b"x", b"a\nb")]}], ValueError, r"'x': 'a\nb' is no header field"),
        (
            [{**START, "headers": [("x", "a")]}],
            TypeError,
            "header fields of ASGI are bytes, not 'x': 'a'",
        ),
    ],
)
def test_what_asgi_forbids_is_an_error_that_says_so(
    messages: list[Message], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        asgi(failing(*messages))(request())
    assert str(caught.value) == text


def test_what_an_application_raises_before_its_response_comes_through_with_its_own_lines() -> None:
    with pytest.raises(LookupError, match="no such charge") as caught:
        asgi(failing(error=LookupError("no such charge")))(request())
    assert caught.traceback[-1].name == "app"


def test_what_an_application_raises_in_a_stream_comes_through_the_stream() -> None:
    response = asgi(failing(START, PIECE, error=LookupError("lost it")))(request())
    with pytest.raises(LookupError, match="lost it"):
        body_of(response)
    response = asgi(failing(START, PIECE))(request())
    with pytest.raises(RuntimeError, match="ended without sending the end of its body"):
        body_of(response)


def test_what_an_endpoint_raises_counts_and_not_the_500_that_a_framework_sends_for_it() -> None:
    api = fastapi.FastAPI()

    @api.get("/")
    def charge() -> None:
        raise LookupError("no such charge")

    with used(api) as handler, pytest.raises(LookupError, match="no such charge") as caught:
        handler(request())
    assert caught.traceback[-1].name == "charge"


def test_the_end_of_the_process_is_an_error_like_any_other() -> None:
    with used(failing(error=SystemExit(3))) as handler:
        for _ in range(2):
            with pytest.raises(SystemExit):
                handler(request())


def test_an_application_may_be_cancelled_by_itself() -> None:
    with pytest.raises(RuntimeError) as caught:
        asgi(failing(error=asyncio.CancelledError()))(request())
    assert str(caught.value) == f"{FAILING} cancelled itself"


def test_what_is_raised_after_a_response_comes_out_when_the_last_route_ends() -> None:
    answered, failing = threading.Event(), threading.Event()

    async def fail() -> None:
        await asyncio.to_thread(answered.wait)
        failing.set()
        raise LookupError("no such hook")

    def charge(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse("ok", background=BackgroundTask(fail))

    handler = asgi(Starlette(routes=[Route("/", charge)]))
    handler.acquire()
    assert handler(request()).content == b"ok"
    answered.set()
    assert failing.wait(10)  # seconds; it has ended before its loop does anything else
    with pytest.raises(LookupError, match="no such hook"):
        handler.release()


def test_a_loop_that_a_task_of_the_application_ends_answers_with_an_error() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        tasks.append(asyncio.create_task(leave()))
        await asyncio.sleep(60)

    tasks: list[asyncio.Task[None]] = []
    handler = asgi(app)
    handler.acquire()
    with pytest.raises(SystemExit):
        handler(request())
    with pytest.raises(SystemExit):
        handler.release()
    assert isinstance(tasks[0].exception(), SystemExit)  # nobody else asks, and asyncio complains


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
        handler(request())
        handler(request())
        handler.release()
        handler(request())
        assert shop.events == ["startup", *["request red"] * 3]
        handler.release()
        assert shop.events.pop() == "shutdown"
        shop.events.clear()


def test_without_a_route_each_call_has_a_life_of_its_own() -> None:
    shop = Shop()
    handler = asgi(shop.app)
    handler(request())
    handler(request())
    assert shop.events == ["startup", "request red", "shutdown"] * 2


def test_without_a_route_a_stream_lives_until_it_is_closed() -> None:
    ended: list[str] = []
    before = threading.active_count()
    response = asgi(streaming_app(ended))(request())
    assert threading.active_count() > before
    close(response)
    assert threading.active_count() == before
    assert ended == ["events"]


def test_routes_that_never_ask_start_nothing() -> None:
    shop = Shop()
    with used(shop.app):
        assert not [thread for thread in threading.enumerate() if "asgi" in thread.name]
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


LIFESPAN = f"{HERE}.in_lifespan.<locals>.app"


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
                handler(request())
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
        assert handler(request()).content == b"ok"
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
            assert handler(request()).content == b"ok"


def test_an_application_that_does_not_return_after_its_shutdown_is_cancelled() -> None:
    async def act(receive: Receive, send: Send) -> None:
        while True:
            await send({"type": f"{(await receive())['type']}.complete"})

    with used(in_lifespan(act)) as handler:
        assert handler(request()).content == b"ok"


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
        assert handler(request(path="/background")).content == b"ok"
        asking = pool.submit(handler, request())
        while len(tasks) < 2:
            time.sleep(0.01)
        handler.release()
        with pytest.raises(RuntimeError) as caught:
            asking.result(timeout=10)
    name = f"{HERE}.test_what_the_last_release_finds_running_is_ended.<locals>.app"
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
        handler(request())
    assert ended == ["pieces"]


def test_a_startup_that_never_ends_does_not_keep_the_last_release() -> None:
    async def act(receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.sleep(60)

    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        handler = asgi(in_lifespan(act))
        handler.acquire()
        asking = pool.submit(handler, request())
        begun.wait()
        handler.release()
        with pytest.raises(RuntimeError, match="was ended while it answered"):
            asking.result(timeout=10)


# Frameworks.


def flask_shop() -> flask.Flask:
    shop = flask.Flask("shop")

    @shop.post("/v1/charges/<name>")
    def charge(name: str) -> dict[str, Any]:
        about = flask.request
        return {
            "name": name,
            "q": about.args["q"],
            "sent": about.get_json(),
            "path": about.path,
            "root": about.host_url,
        }

    @shop.get("/events")
    def events() -> flask.Response:
        return flask.Response(iter([b"data: 1\n\n", b"data: 2\n\n"]), mimetype="text/event-stream")

    return shop


def fastapi_shop() -> fastapi.FastAPI:
    shop = fastapi.FastAPI()

    @shop.post("/v1/charges/{name}")
    def charge(name: str, q: str, about: fastapi.Request, sent: Any = fastapi.Body()) -> Any:  # noqa: B008
        return {
            "name": name,
            "q": q,
            "sent": sent,
            "path": about.url.path,
            "root": str(about.base_url),
        }

    @shop.get("/events")
    def events() -> StreamingResponse:
        pieces = iter([b"data: 1\n\n", b"data: 2\n\n"])
        return StreamingResponse(pieces, media_type="text/event-stream")

    return shop


class DjangoUrls:
    """What Django takes its pages from."""

    @staticmethod
    def charge(about: Any, name: str) -> Any:
        sent = {"amount": int(about.body.decode().partition(":")[2].strip("} "))}
        root = about.build_absolute_uri("/")
        found = {"name": name, "q": about.GET["q"], "sent": sent, "path": about.path, "root": root}
        return django.http.JsonResponse(found)

    @staticmethod
    def events(about: Any) -> Any:
        pieces = [b"data: 1\n\n", b"data: 2\n\n"]

        async def later() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        body = later() if isinstance(about, django.core.asgi.ASGIHandler.request_class) else pieces
        return django.http.StreamingHttpResponse(body, content_type="text/event-stream")


def django_shop(make: Callable[[], Any]) -> Any:
    if not django.conf.settings.configured:
        DjangoUrls.urlpatterns = [  # type: ignore[attr-defined]
            django.urls.path("v1/charges/<name>", DjangoUrls.charge),
            django.urls.path("events", DjangoUrls.events),
        ]
        django.conf.settings.configure(
            ALLOWED_HOSTS=["api.test"], ROOT_URLCONF=DjangoUrls, LOGGING_CONFIG=None
        )
    return make()


SHOPS: dict[str, Callable[[], Any]] = {
    "flask": lambda: wsgi(flask_shop()),
    "fastapi": lambda: asgi(fastapi_shop()),
    "django-wsgi": lambda: wsgi(django_shop(django.core.wsgi.get_wsgi_application)),
    "django-asgi": lambda: asgi(django_shop(django.core.asgi.get_asgi_application)),
}


@pytest.mark.parametrize("framework", [*SHOPS])
def test_the_applications_of_frameworks_answer(framework: str) -> None:
    handler = SHOPS[framework]()
    handler.acquire()
    charged = handler(
        request(
            "POST",
            "/v1/charges/caf%C3%A9",
            query_string="q=a%20b",
            headers={
                "Host": "api.test",
                "Content-Type": "application/json",
                "Content-Length": "14",
            },
            content=b'{"amount": 42}',
        )
    )
    events = handler(request(path="/events", headers={"Host": "api.test"}))
    content, streamed = body_of(charged), body_of(events)
    missing = handler(request(path="/none", headers={"Host": "api.test"}))
    assert missing.status_code == 404
    body_of(missing)
    handler.release()
    assert charged.status_code == 200
    assert json.loads(content) == {
        "name": "caf\u00e9",
        "q": "a b",
        "sent": {"amount": 42},
        "path": "/v1/charges/caf\u00e9",
        "root": "https://api.test/",
    }
    assert events.headers["content-type"].startswith("text/event-stream")
    assert streamed == b"data: 1\n\ndata: 2\n\n"


class RawBody(io.BytesIO):
    """The body as botocore reads it."""

    def stream(self, **about: Any) -> Iterator[bytes]:
        yield self.read()


def test_boto3_finds_a_whole_s3_in_moto() -> None:
    s3 = wsgi(DomainDispatcherApplication(create_backend_app))

    def answer(request: Any, **about: Any) -> Any:
        scheme, _, rest = request.url.partition("://")
        host, _, target = rest.partition("/")
        path, _, query_string = target.partition("?")
        fields = [(name, as_text(value)) for name, value in request.headers.items()]
        body = request.body.read() if hasattr(request.body, "read") else request.body or b""
        response = s3(
            Request(
                method=request.method,
                scheme=scheme,
                host=host,
                port=443,
                path=f"/{path}",
                query_string=query_string,
                headers=Headers([("Host", host), *fields]),
                content=body,
            )
        )
        raw = RawBody(body_of(response))
        return AWSResponse(request.url, response.status_code, dict(response.headers.raw), raw)

    client = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(retries={"max_attempts": 0}),
    )
    client.meta.events.register("before-send.s3", answer)
    client.create_bucket(Bucket="orders")
    client.put_object(Bucket="orders", Key="a b/\u00e9", Body=b"42", ContentType="text/plain")
    found = client.get_object(Bucket="orders", Key="a b/\u00e9")
    assert (found["Body"].read(), found["ContentType"]) == (b"42", "text/plain")
    assert [key["Key"] for key in client.list_objects_v2(Bucket="orders")["Contents"]] == [
        "a b/\u00e9"
    ]


def as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
