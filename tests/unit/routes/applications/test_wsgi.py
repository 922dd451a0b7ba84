"""WSGI applications: what arrives in them, and what comes out."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from hypothesis import given

from pytest_egress.routes.applications.wsgi import wsgi
from tests.support.applications import (
    BYTES,
    FIELDS,
    METHOD,
    application_request,
    body_of,
    close,
    quoted,
)

pytestmark = pytest.mark.usefixtures("nothing_is_left")

# WSGI: what arrives.


class WsgiRecorder:
    """A WSGI application that keeps the environments it is called with, and answers 204."""

    def __init__(self) -> None:
        self.environ: dict[str, Any] = {}
        self.content = b""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.environ, self.content = environ, environ["wsgi.input"].read()
        start_response("204 No Content", [])
        return []


def test_the_environ_is_whole() -> None:
    app = WsgiRecorder()
    sent = application_request(
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
    app = WsgiRecorder()
    wsgi(app)(
        application_request("POST", headers={"Transfer-Encoding": "chunked"}, content=b"12345")
    )
    assert app.environ["CONTENT_LENGTH"] == "5"
    wsgi(app)(application_request("POST", headers={"Transfer-Encoding": "chunked"}))
    assert app.environ["CONTENT_LENGTH"] == "0"
    wsgi(app)(application_request())
    assert "CONTENT_LENGTH" not in app.environ
    wsgi(app)(
        application_request(
            "PUT", headers={"Content_Length": "9", "Content_Type": "x"}, content=b"1"
        )
    )
    assert app.environ["CONTENT_LENGTH"] == "1"
    assert not {"CONTENT_TYPE", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & app.environ.keys()


def test_an_ipv6_address_is_a_server_name_in_brackets() -> None:
    app = WsgiRecorder()
    wsgi(app)(application_request(host="2001:db8::7", port=8443))
    assert (app.environ["SERVER_NAME"], app.environ["SERVER_PORT"]) == ("[2001:db8::7]", "8443")


@given(method=METHOD, path=BYTES, query=BYTES, fields=FIELDS, content=BYTES)
def test_whatever_is_sent_arrives_in_a_wsgi_application(
    method: str, path: bytes, query: bytes, fields: list[tuple[str, str]], content: bytes
) -> None:
    app = WsgiRecorder()
    sent = application_request(
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

    sent = application_request(
        method, "/x", headers={"Content-Type": "a/b", "Cookie": "c"}, content=b"123"
    )
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


NAME = f"{__name__}.answering.<locals>.app"


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
    response = answering([b"o", b"k"], "418 I'm a teapot", headers)(application_request())
    assert (response.status_code, response.content, response.stream) == (418, b"ok", None)
    assert response.headers.raw == (
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
        ("Content-Length", "2"),
        ("X-Name", "caf\u00e9"),
    )


def test_a_response_to_head_keeps_its_length() -> None:
    response = answering([], headers=[("Content-Length", "1234")])(application_request("HEAD"))
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

    response = answering(pieces())(application_request())
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
    response = answering(body)(application_request("HEAD"))
    before = body.closed
    close(response)
    assert (before, body.closed) == (0, 1)


@pytest.mark.parametrize("pieces", [[b"abc"], [b"", b"abc", b""], [b"", b""], []])
def test_a_body_whose_length_says_that_it_is_whole_is_content(pieces: list[bytes]) -> None:
    body, content = Closing(pieces), b"".join(pieces)
    response = answering(body, headers=[("Content-Length", str(len(content)))])(
        application_request()
    )
    assert (response.content, response.stream, body.closed) == (content, None, 1)


def test_start_response_may_be_called_late() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        yield b""
        start_response("201 Created", [])
        yield b"late"

    response = wsgi(app)(application_request())
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

    response = wsgi(app)(application_request())
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

    response = wsgi(app)(application_request())
    assert (response.status_code, response.content) == (500, b"sorry")
    assert response.headers.raw == (("X-Error", "1"),)
    with pytest.raises(OSError, match="the disk is full") as caught:
        wsgi(app)(application_request(path="/late"))
    assert caught.traceback[-1].name == "app"


def test_what_a_wsgi_application_raises_comes_through_with_its_own_lines() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/early":
            raise LookupError("no such charge")
        start_response("200 OK", [])
        yield b"a"
        raise LookupError("lost it")

    with pytest.raises(LookupError, match="no such charge") as caught:
        wsgi(app)(application_request(path="/early"))
    assert caught.traceback[-1].name == "app"
    response = wsgi(app)(application_request())
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
        answering(result, **about)(application_request())
    assert str(caught.value) == text


def test_a_coroutine_is_no_body_and_is_closed() -> None:
    with pytest.raises(TypeError, match="which is no iterable of bytes"):
        answering(coroutine())(application_request())


@pytest.mark.parametrize("pieces", [[b"a"], [], iter([b"a"]), iter([b""])])
def test_start_response_must_be_called(pieces: Iterable[bytes]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return pieces

    with pytest.raises(RuntimeError) as caught:
        wsgi(app)(application_request())
    name = f"{__name__}.test_start_response_must_be_called.<locals>.app"
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
        wsgi(App())(application_request())
    assert str(caught.value) == "<App> called start_response a second time, without exc_info"


def test_a_body_is_closed_also_where_it_fails() -> None:
    for pieces in ([1], [b"a"]):
        body = Closing(pieces)
        app = answering(body, headers=[("Content-Length", "1")] if pieces == [b"a"] else [])
        with contextlib.suppress(TypeError):
            app(application_request())
        assert body.closed == 1


# ASGI: what arrives.
