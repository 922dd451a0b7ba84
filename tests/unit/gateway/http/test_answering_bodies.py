"""Compressed bodies on their way: decoded for matchers and handlers, as sent for other servers and applications."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import h11
import pytest

from pytest_egress.base import account
from pytest_egress.errors import ContentError
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward
from pytest_egress.routes.applications.asgi import asgi
from pytest_egress.routes.applications.wsgi import wsgi
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http import request as request_module
from pytest_egress.traffic.http.content_coding import encode, encoder
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.stage import MEGABYTE, SECONDS, Reply, Stage, ask

JSON = b'{"a": 1}'
PACKED = gzip.compress(JSON)


def post(stage: Stage, content: bytes, coding: str = "gzip") -> Reply:
    head = (
        f"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Encoding: {coding}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return ask(stage.tls(), head.encode() + content, "POST")


class PackingServer(HTTPServer):
    """A real server on loopback. It answers with gzip, and keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PackingHandler)
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        self.server_close()


class PackingHandler(BaseHTTPRequestHandler):
    server: PackingServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(PACKED)))
        self.end_headers()
        self.wfile.write(PACKED)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[PackingServer]:
    with contextlib.closing(PackingServer()) as echo:
        thread = threading.Thread(target=echo.serve_forever, args=[0.01])
        thread.start()
        yield echo
        echo.shutdown()
        thread.join(SECONDS)


# Requests.


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "X-GZIP", "identity, gzip"])
def test_matchers_and_handlers_see_what_was_compressed(stage: Stage, coding: str) -> None:
    route = stage.https("api.test", lambda request: request.content, json={"a": 1}, content=JSON)
    name = coding if coding in ("deflate", "br", "zstd") else "gzip"
    assert post(stage, encode(JSON, name), coding).body == JSON
    request = route.calls[0].request
    assert (request.json(), request.text) == ({"a": 1}, JSON.decode())
    assert request.raw_content == encode(JSON, name)
    assert request.content is request.content


@pytest.mark.parametrize("condition", [{"json": {"a": 1}}, {"content": JSON}])
def test_a_body_that_is_not_what_it_says_is_a_field_that_differs(
    stage: Stage, condition: dict[str, Any]
) -> None:
    stage.https("api.test", **condition)
    assert post(stage, PACKED[:-1]).status == 502
    (name,) = condition
    (near,) = stage.only(Exchange).near
    text = f"{name}: the body breaks off: its {len(PACKED) - 1} bytes of gzip have no end"
    assert near.differences == (text,)
    assert text in str(judge(stage.window, []))


def test_a_handler_that_reads_such_a_body_fails_with_the_reason(stage: Stage) -> None:
    stage.https("api.test", lambda request: request.json())
    assert post(stage, b"no gzip").status == 500
    error = stage.only(Exchange).error
    assert isinstance(error, ContentError)
    assert str(error).startswith("the body has the content coding gzip, and is no gzip: ")


def test_the_reason_is_found_once_and_raised_each_time(stage: Stage) -> None:
    def handler(request: Request) -> int:
        for read in (request.json, lambda: request.text, lambda: request.form):
            with pytest.raises(ContentError, match="'lzma', which is unknown here"):
                read()
        return 204

    stage.https("api.test", handler)
    assert post(stage, b"x", "lzma").status == 204


def test_a_bomb_is_refused_and_its_bytes_count_as_held(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_module, "MAX_DECODED_BYTES", MEGABYTE)
    stage.https("api.test", lambda request: len(request.content))
    assert post(stage, gzip.compress(bytes(2 * MEGABYTE))).status == 500
    error = stage.only(Exchange).error
    assert str(error).endswith(f"bytes of gzip become more than the limit of {MEGABYTE} bytes")


def test_all_that_is_decoded_counts_as_held(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "MAX_HELD_BYTES", 3 * MEGABYTE)
    stage.https("api.test", lambda request: str(len(request.content)))
    packed = gzip.compress(bytes(2 * MEGABYTE))
    assert post(stage, packed).body == b"2097152"
    assert post(stage, packed).status == 500
    error = stage.entries(Exchange)[1].error
    assert isinstance(error, ContentError)
    assert "MAX_HELD_BYTES" in str(error)


# As sent.


def test_another_server_gets_what_was_sent_and_so_does_the_client(
    stage: Stage, echo: PackingServer
) -> None:
    stage.https("api.test", forward(echo.url))
    reply = post(stage, PACKED)
    ((headers, body),) = echo.seen
    assert (headers["content-encoding"], body) == ("gzip", PACKED)
    assert (reply.headers["content-encoding"], reply.body) == ("gzip", PACKED)
    call = stage.only(Exchange)
    assert (call.request.content, call.response.content) == (JSON, PACKED)
    assert call.response.json() == {"a": 1}


def test_a_broken_body_is_forwarded_as_it_is(stage: Stage, echo: PackingServer) -> None:
    stage.https("api.test", forward(echo.url))
    assert post(stage, b"no gzip").status == 200
    assert echo.seen[0][1] == b"no gzip"


def test_a_handler_forwards_the_body_as_sent_or_one_of_its_own(
    stage: Stage, echo: PackingServer
) -> None:
    @stage.https("api.test")
    def handler(request: Request) -> Response:
        request.forward(echo.url)
        dataclasses.replace(request, path="/other").forward(echo.url)
        return dataclasses.replace(request, content=b"mine").forward(echo.url)

    assert post(stage, PACKED).status == 200
    first, second, (headers, body) = echo.seen
    for sent, content in (first, second):
        assert (sent["content-encoding"], content) == ("gzip", PACKED)
    assert body == b"mine"
    assert headers["content-length"] == "4"
    assert "content-encoding" not in headers


def test_applications_get_what_was_sent(stage: Stage) -> None:
    seen = []

    def of_wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        length = int(environ["CONTENT_LENGTH"])
        seen.append((environ["HTTP_CONTENT_ENCODING"], length, environ["wsgi.input"].read()))
        start_response("204 No Content", [])
        return []

    async def of_asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        headers, message = dict(scope["headers"]), await receive()
        length = int(headers[b"content-length"])
        seen.append((headers[b"content-encoding"].decode(), length, message["body"]))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    for answer in (wsgi(of_wsgi), asgi(of_asgi)):
        stage.https("api.test", answer)
        assert post(stage, PACKED).status == 204
    assert seen == [("gzip", len(PACKED), PACKED)] * 2


# Responses.


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_compressed_response_goes_out_in_its_coding(stage: Stage, coding: Any) -> None:
    route = stage.https("api.test", Response(json={"a": 1}, compress=coding))
    sock = stage.tls()
    for _ in range(2):
        reply = ask(sock)
        assert (reply.headers["content-encoding"], reply.body) == (coding, encode(JSON, coding))
        assert reply.headers["content-length"] == str(len(reply.body))
    assert [call.response.content for call in route.calls] == [JSON, JSON]


def test_a_compressed_stream_has_its_trailers_and_is_closed(stage: Stage) -> None:
    closed = threading.Event()

    def pieces() -> Iterator[str]:
        try:
            yield from ("one", "two")
        finally:
            closed.set()

    def handler(request: Request) -> Response:
        return Response(stream=pieces(), trailers={"Digest": "x"}, compress="gzip")

    stage.https("api.test", handler)
    reply = ask(stage.tls())
    assert (gzip.decompress(reply.body), reply.trailers) == (b"onetwo", [(b"digest", b"x")])
    assert reply.headers["content-type"].startswith("text/plain")
    assert closed.wait(SECONDS)


def test_events_can_be_compressed(stage: Stage) -> None:
    stage.https("api.test", lambda request: Response(events=["a", {"b": 1}], compress="gzip"))
    reply = ask(stage.tls())
    assert gzip.decompress(reply.body) == b'data: a\n\ndata: {"b": 1}\n\n'
    assert reply.headers["content-type"] == "text/event-stream"


def test_a_request_is_decoded_while_it_comes(stage: Stage) -> None:
    arrived = threading.Semaphore(0)
    pieces: list[bytes] = []

    def handler(request: Request) -> int:
        for piece in request.stream():
            pieces.append(piece)
            arrived.release()
        return 204

    stage.https("api.test", handler, stream=True)
    packing, sock = encoder("gzip"), stage.tls()
    head = "POST / HTTP/1.1\r\nHost: api.test\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    sock.sendall(head.encode())
    for word in (b"one", b"two"):
        data = packing.piece(word)
        sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))
        while b"".join(pieces)[-3:] != word:
            assert arrived.acquire(timeout=SECONDS)
    end = packing.end()
    reply = ask(sock, b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end), "POST")
    assert (reply.status, b"".join(pieces)) == (204, b"onetwo")


def test_what_a_compressed_stream_raises_is_its_handlers(stage: Stage) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        raise ValueError("in the middle")

    stage.https("api.test", lambda request: Response(stream=pieces(), compress="gzip"))
    with pytest.raises((ConnectionError, h11.RemoteProtocolError)):
        ask(stage.tls())
    stage.settle()
    assert repr(stage.only(Exchange).error) == "ValueError('in the middle')"


def test_a_response_without_a_body_has_none_that_is_compressed(stage: Stage) -> None:
    stage.https("api.test", Response(204, compress="gzip"))
    sock = stage.tls()
    assert (ask(sock).status, ask(sock).body) == (204, b"")
