"""Requests that came by HTTP/2 and go on by HTTP/2, to real servers on loopback."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import h2.errors
import h2.events
import pytest
import trustme

import pytest_egress.gateway.upstream.exchange as upstream
from pytest_egress.base.account import Account
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.upstream.body import whole
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request, TlsInfo
from pytest_egress.traffic.http.response import Response
from tests.support.http2_server import OK, Http2Peer, Serve, http2_server
from tests.support.stage import SECONDS
from tests.support.upstreams import tcp_server

Ask = Callable[..., Response]
TLS = TlsInfo(version="TLSv1.3", cipher="", alpn="h2")
GRPC = ("content-type", "application/grpc+proto")


def request_of(*fields: tuple[str, str], **changes: Any) -> Request:
    values: dict[str, Any] = {
        "method": "GET",
        "scheme": "http",
        "host": "api.test",
        "port": 80,
        "path": "/v1",
    }
    values |= {"http_version": "2", "headers": Headers([("host", "api.test"), *fields])}
    return Request(**(values | changes))


def body_of(response: Response) -> bytes:
    """The body of a response, as it streams."""
    return b"".join(response.stream)


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Asks a server for a request that came by HTTP/2 without TLS."""
    with contextlib.ExitStack() as stack:

        def ask(serve: Serve, request: Request | None = None, **options: Any) -> Response:
            settings = {name: options.pop(name) for name in [*options] if name.isupper()}
            port = stack.enter_context(http2_server(serve, **settings))
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            return upstream.ask(sock, request or request_of(), **options)

        yield ask


def test_a_request_arrives_with_its_own_fields_and_none_of_its_connection(ask: Ask) -> None:
    heads = []

    def serve(peer: Http2Peer) -> None:
        heads.append(peer.head())
        peer.respond([*OK, ("x-real", "yes"), ("set-cookie", "a"), ("set-cookie", "b")], b"real")

    request = request_of(
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("Cookie", "a=1; b=2"),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Upgrade", "websocket"),
        ("Expect", "100-continue"),
        ("TE", "gzip, Trailers"),
        query_string="a=%20b",
    )
    response = ask(serve, request, prefix="/base")
    assert (response.status_code, response.reason) == (200, "OK")
    assert list(response.stream) == [b"real"]
    assert response.headers.raw == (("x-real", "yes"), ("set-cookie", "a"), ("set-cookie", "b"))
    assert heads == [
        [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "api.test"),
            (":path", "/base/v1?a=%20b"),
            ("x-twice", "1"),
            ("x-twice", "2"),
            ("te", "trailers"),
            ("cookie", "a=1; b=2"),
        ]
    ]


def test_a_body_and_its_trailers_arrive(ask: Ask) -> None:
    def serve(peer: Http2Peer) -> None:
        heads.append(dict(peer.head()))
        body = peer.rest()
        trailers = [e.headers for e in peer.seen if isinstance(e, h2.events.TrailersReceived)]
        peer.respond(OK, repr((body, trailers)).encode())

    heads: list[dict[str, str]] = []
    request = request_of(
        ("Content-Length", "4"), content=b"body", trailers=Headers({"X-Sum": "4"}), method="POST"
    )
    assert body_of(ask(serve, request)) == b"(b'body', [[('x-sum', '4')]])"
    assert heads[0]["content-length"] == "4"


def test_trailers_of_a_response_are_there_at_its_end(ask: Ask) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond(OK, b"one", b"two", end=False)
        peer.end([("grpc-status", "0"), ("x-sum", "6")])

    response = ask(serve)
    assert body_of(response) == b"onetwo"
    assert response.trailers.raw == (("grpc-status", "0"), ("x-sum", "6"))


def test_a_response_read_whole_keeps_its_trailers(ask: Ask) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond(OK, b"one", end=False)
        peer.end([("x-sum", "3")])

    response = whole(ask(serve), "GET", Account().hold("responses"))
    assert (response.content, [*response.stream], [*response.stream]) == (
        b"one",
        [b"one"],
        [b"one"],
    )
    assert response.trailers == {"x-sum": "3"}


def test_a_response_that_ends_with_its_head_has_no_stream(ask: Ask) -> None:
    """So that its END_STREAM is on HEADERS again, as the Trailers-Only of gRPC have to be."""

    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond([*OK, GRPC, ("grpc-status", "12")])

    response = ask(serve)
    assert (response.stream, response.content) == (None, b"")
    assert response.headers["grpc-status"] == "12"
    assert whole(response, "POST", Account().hold("responses")) is response


def test_interim_responses_are_left_out(ask: Ask) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.h2.send_headers(1, [(":status", "103"), ("link", "</a>")])
        peer.respond(OK, b"real")

    assert body_of(ask(serve)) == b"real"


def test_a_handler_gets_the_body_without_compression(ask: Ask) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.respond(OK, dict(peer.head())["accept-encoding"].encode())

    response = ask(serve, request_of(("accept-encoding", "br")), encoded=False)
    assert list(response.stream) == [b"identity"]


# Bodies that stream.


@pytest.mark.parametrize("streamed", [False, True])
def test_a_large_body_goes_out_while_the_response_comes_in(ask: Ask, streamed: bool) -> None:
    """The server sends each piece back at once. Both directions are far over every window."""
    size = 8_000_000

    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond(end=False)
        got = 0
        while got < size:
            piece = peer.piece()
            got += len(piece)
            peer.send(piece)
        peer.end()

    content = bytes(range(256)) * (size // 256)
    pieces = (content[at : at + 100_000] for at in range(0, size, 100_000))
    request = request_of(method="POST", content=b"" if streamed else content)
    response = ask(serve, request, content=pieces if streamed else None)
    assert body_of(response) == content


def test_a_request_and_its_response_may_wait_for_each_other(ask: Ask) -> None:
    """As both sides of a stream of gRPC do."""

    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond(end=False)
        while (piece := peer.piece()) != b"bye":
            peer.send(piece.upper())
        peer.end([("grpc-status", "0")])

    said: queue.Queue[bytes] = queue.Queue()
    response = ask(serve, request_of(method="POST"), content=iter(said.get, b""))
    heard = iter(response.stream)
    for word in (b"one", b"two"):
        said.put(word)
        assert next(heard) == word.upper()
    said.put(b"bye")
    assert list(heard) == []
    assert response.trailers == {"grpc-status": "0"}
    said.put(b"")


def test_trailers_of_a_streamed_request_are_read_at_its_end(ask: Ask) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.rest()
        (event,) = (e for e in peer.seen if isinstance(e, h2.events.TrailersReceived))
        peer.respond(OK, repr(event.headers).encode())

    late = SimpleNamespace(trailers=Headers())

    def content() -> Iterator[bytes]:
        yield b"body"
        late.trailers = Headers({"x-late": "1"})

    request = request_of(method="POST", _body=late)
    assert body_of(ask(serve, request, content=content())) == b"[('x-late', '1')]"


def test_a_client_that_does_not_read_holds_the_server_back(ask: Ask) -> None:
    """Not more than the window is received ahead of it."""
    sent, full = [], threading.Event()

    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond(end=False)
        while (window := peer.h2.local_flow_control_window(1)) > 0:
            peer.send(bytes(min(window, 16384)))
            sent.append(min(window, 16384))
        full.set()
        peer.next(h2.events.WindowUpdated)
        peer.end()

    response = ask(serve)
    stream = iter(response.stream)
    next(stream)
    assert full.wait(SECONDS)
    assert sum(sent) <= 2 << 20
    assert sum(map(len, stream)) == sum(sent) - 16384


def test_a_server_may_answer_before_it_has_read_all(ask: Ask) -> None:
    """Its RST_STREAM with NO_ERROR says that it wants no more (RFC 9113 section 8.1)."""

    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond([(":status", "413")], b"too large")
        peer.reset(h2.errors.ErrorCodes.NO_ERROR)

    response = ask(serve, request_of(method="POST", content=bytes(5_000_000)))
    assert (response.status_code, body_of(response)) == (413, b"too large")


def test_a_body_whose_client_leaves_is_cut_at_the_server_too(ask: Ask) -> None:
    arrived, ended = threading.Event(), threading.Event()

    def serve(peer: Http2Peer) -> None:
        peer.head()
        assert peer.piece() == b"half"
        arrived.set()
        peer.wait_for_end()
        ended.set()

    def content() -> Iterator[bytes]:
        yield b"half"
        arrived.wait(SECONDS)
        raise ConnectionError("the client has left")

    text = "^POST http://api.test/v1: the body of the request broke off: the client has left$"
    with pytest.raises(UpstreamError, match=text):
        ask(serve, request_of(method="POST"), content=content())
    assert ended.wait(SECONDS)


def test_closing_a_body_closes_the_connection_and_the_request_that_still_comes(ask: Ask) -> None:
    ended, closed, go_on = threading.Event(), threading.Event(), threading.Event()

    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond(OK, b"piece", end=False)
        peer.wait_for_end()
        ended.set()

    def content() -> Iterator[bytes]:
        try:
            while True:
                yield b"more"
                go_on.wait(SECONDS)
        finally:
            closed.set()

    response = ask(serve, request_of(method="POST"), content=content())
    assert next(iter(response.stream)) == b"piece"
    response.stream.close()
    assert ended.wait(SECONDS)
    go_on.set()
    assert closed.wait(SECONDS)


# Servers that fail.

CODES = h2.errors.ErrorCodes


def goaway(last: int, code: int, text: bytes = b"") -> bytes:
    return last.to_bytes(4, "big") + code.to_bytes(4, "big") + text


FAILED: dict[str, tuple[Serve, str]] = {
    "reset": (
        lambda peer: peer.reset(CODES.REFUSED_STREAM),
        "it reset the stream (REFUSED_STREAM)",
    ),
    "goaway": (
        lambda peer: peer.frame(7, goaway(1, CODES.ENHANCE_YOUR_CALM, b"too_many_pings")),
        "it ended the connection (GOAWAY, ENHANCE_YOUR_CALM: 'too_many_pings')",
    ),
    "goaway-before": (
        lambda peer: peer.frame(7, goaway(0, 0)),
        "it ended the connection (GOAWAY, NO_ERROR)",
    ),
    "unregistered": (
        lambda peer: peer.frame(7, goaway(1, 77)),
        "it ended the connection (GOAWAY, error 77)",
    ),
    "closed": (lambda peer: peer.sock.shutdown(socket.SHUT_WR), "it closed without an answer"),
    "status": (lambda peer: peer.respond([(":status", "20")]), "its status is '20'"),
    "no-status": (lambda peer: peer.respond([("x", "1")]), "Header block missing"),
    "connection-field": (
        lambda peer: peer.respond([*OK, ("connection", "close")]),
        "Connection-specific header field present: b'connection'",
    ),
    "long-head": (
        lambda peer: peer.respond([*OK, *[(f"x{n}", "v" * 1000) for n in range(70)]]),
        "Oversized",
    ),
    "long-frame": (
        lambda peer: peer.frame(0, bytes(20_000), stream=1),
        "a frame of 20000 bytes was announced",
    ),
    "unknown-stream": (lambda peer: peer.frame(0, b"x", stream=3), "3"),
}


@pytest.mark.parametrize(("fail", "text"), FAILED.values(), ids=FAILED.keys())
def test_what_is_no_answer_is_an_error_that_says_why(ask: Ask, fail: Serve, text: str) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.head()
        fail(peer)

    with pytest.raises(UpstreamError) as caught:
        ask(serve)
    assert str(caught.value).startswith("GET http://api.test/v1: the upstream failed: ")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it answered by HTTP/1.1"),
        (b"<!DOCTYPE HTML><title>400", "it answered b'<!DOCTYPE HTML><titl', no HTTP/2"),
    ],
)
def test_a_server_of_http1_is_told_from_a_broken_one(answer: bytes, text: str) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)

    text = f"{text}; the request came, and was forwarded, by HTTP/2$"
    with (
        tcp_server(serve) as port,
        socket.create_connection(("127.0.0.1", port)) as sock,
        pytest.raises(UpstreamError, match=text),
    ):
        upstream.ask(sock, request_of())


BROKEN: dict[str, tuple[Serve, str]] = {
    "reset": (
        lambda peer: peer.reset(CODES.INTERNAL_ERROR),
        "it reset the stream (INTERNAL_ERROR)",
    ),
    "goaway": (
        lambda peer: peer.frame(7, goaway(1, CODES.PROTOCOL_ERROR)),
        "it ended the connection (GOAWAY, PROTOCOL_ERROR)",
    ),
    "closed": (lambda peer: peer.sock.shutdown(socket.SHUT_WR), "it closed within its answer"),
    "length": (lambda peer: peer.end(), "its Content-Length is 10, and its body has 4 bytes"),
}


def test_an_answer_that_breaks_off_behind_a_head_without_fields_has_begun(ask: Ask) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond(end=False)
        peer.sock.shutdown(socket.SHUT_WR)

    with pytest.raises(UpstreamError, match="it closed within its answer"):
        body_of(ask(serve))


@pytest.mark.parametrize(("fail", "text"), BROKEN.values(), ids=BROKEN.keys())
def test_an_answer_that_breaks_off_is_an_error_after_what_came(
    ask: Ask, fail: Serve, text: str
) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond([*OK, ("content-length", "10")], b"half", end=False)
        go_on.wait(SECONDS)
        fail(peer)

    go_on = threading.Event()
    response = ask(serve)
    pieces = iter(response.stream)
    assert next(pieces) == b"half"
    go_on.set()
    with pytest.raises(UpstreamError) as caught:
        next(pieces)
    assert str(caught.value).startswith("GET http://api.test/v1: the upstream broke off: ")
    assert text in str(caught.value)


def test_a_goaway_lets_the_response_end(ask: Ask) -> None:
    """A server that only wants no further request still answers (RFC 9113 section 6.8)."""

    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.frame(7, goaway(1, 0))
        peer.respond(OK, b"one", end=False)
        peer.frame(7, goaway(1, 0))
        peer.send(b"two")
        peer.end([("x-sum", "6")])

    response = ask(serve)
    assert body_of(response) == b"onetwo"
    assert response.trailers == {"x-sum": "6"}


def test_a_small_frame_size_and_window_of_a_server_are_kept(ask: Ask) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.head()
        body = peer.rest()
        sizes = [len(e.data or b"") for e in peer.seen if isinstance(e, h2.events.DataReceived)]
        peer.respond(OK, b"%d %d" % (len(body), max(sizes)))

    request = request_of(method="POST", content=bytes(200_000))
    response = ask(serve, request, INITIAL_WINDOW_SIZE=1000)
    length, longest = map(int, body_of(response).split())
    assert length == 200_000
    assert longest <= 16384


# Which version.


def served_by(context: ssl.SSLContext, ca: trustme.CA, request: Request) -> tuple[str, Response]:
    """The version that a server with TLS was asked by, and its response."""
    seen: list[str] = []

    def serve(tls: ssl.SSLSocket) -> None:
        seen.append(tls.selected_alpn_protocol() or "")
        if seen[-1] == "h2":
            peer = Http2Peer(tls)
            peer.head()
            peer.respond(OK, b"real")
            peer.wait_for_end()
        elif tls.recv(65536):
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal")

    def run(sock: socket.socket) -> None:
        with (
            contextlib.suppress(OSError, EOFError),
            context.wrap_socket(sock, server_side=True) as tls,
        ):
            serve(tls)

    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with tcp_server(run) as port, socket.create_connection(("127.0.0.1", port)) as sock:
        tls = upstream.secure(sock, "api.test", trusting)
        upstream.handshake(tls, "api.test")
        response = upstream.ask(tls, request)
        assert body_of(response) == b"real"
    return seen[0], response


@pytest.mark.parametrize(
    ("offered", "spoken"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], "")]
)
def test_within_tls_the_server_chooses_the_version(offered: list[str], spoken: str) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("api.test").configure_cert(context)
    if offered:
        context.set_alpn_protocols(offered)
    request = request_of(scheme="https", port=443, tls=TLS)
    assert served_by(context, ca, request)[0] == spoken


@pytest.mark.parametrize(
    ("request_", "is_http2"),
    [
        (request_of(), True),
        (request_of(tls=TLS), False),
        (request_of(GRPC, tls=TLS), True),
        (request_of(("content-type", "application/grpc"), tls=TLS), True),
        (request_of(("content-type", "application/grpc-web+proto"), tls=TLS), False),
        (request_of(http_version="1.1"), False),
        (request_of(GRPC, http_version="1.1"), False),
    ],
    ids=["h2c", "tls", "grpc+proto", "grpc", "grpc-web", "1.1", "grpc-1.1"],
)
def test_a_plain_server_is_asked_as_the_client_asked_or_as_grpc_needs(
    request_: Request, is_http2: bool
) -> None:
    one, other = socket.socketpair()
    with one, other:
        assert upstream.goes_by_http2(one, request_) is is_http2


def test_grpc_cannot_go_to_a_server_of_http1_alone() -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("api.test").configure_cert(context)
    text = r'gRPC needs HTTP/2, and the upstream agreed to HTTP/1.1 alone: it has to offer "h2" by ALPN'
    with pytest.raises(UpstreamError, match=text):
        served_by(context, ca, request_of(GRPC, tls=TLS))
