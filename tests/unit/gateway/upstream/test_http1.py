"""Requests that go on by HTTP/1.1: bodies that stream, in both directions, and trailers."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import h11
import pytest

import pytest_egress.gateway.upstream.exchange as upstream
from pytest_egress.base.account import Account
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.upstream.body import whole
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request, TlsInfo
from pytest_egress.traffic.http.response import Response
from tests.support.stage import SECONDS
from tests.support.upstreams import tcp_server

Ask = Callable[..., Response]
Serve = Callable[["Peer"], Any]
CHUNKED = ("Transfer-Encoding", "chunked")


class Peer:
    """The server's side of one connection, as a test writes it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self._h11 = sock, h11.Connection(h11.SERVER)
        sock.settimeout(SECONDS)

    def next(self) -> Any:
        """The next event of the request."""
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(self.sock.recv(65536))
        return event

    def rest(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """The body to its end, and the trailers."""
        body = b""
        while isinstance(event := self.next(), h11.Data):
            body += event.data
        return body, list(event.headers)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def wait_for_end(self) -> None:
        """Read until the other side has closed."""
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Asks a server for a request that came by HTTP/1.1."""
    with contextlib.ExitStack() as stack:

        def ask(serve: Serve, request: Request, **options: Any) -> Response:
            def run(sock: socket.socket) -> None:
                with contextlib.suppress(OSError, h11.RemoteProtocolError):
                    serve(Peer(sock))

            port = stack.enter_context(tcp_server(run))
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            return upstream.ask(sock, request, **options)

        yield ask


def post(*fields: tuple[str, str], **changes: Any) -> Request:
    values: dict[str, Any] = {"method": "POST", "scheme": "http", "host": "api.test", "port": 80}
    values |= {"path": "/v1", "headers": Headers([("Host", "api.test"), *fields])}
    return Request(**(values | changes))


def told(peer: Peer) -> None:
    """Respond with what the request looked like: its framing, its body, its trailers."""
    head = peer.next()
    names = (b"content-length", b"transfer-encoding")
    framing = [(name, value) for name, value in head.headers if name in names]
    text = repr((framing, *peer.rest())).encode()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))


def text_of(response: Response) -> str:
    return b"".join(response.stream).decode()


def test_a_streamed_body_of_known_length_is_sent_with_it(ask: Ask) -> None:
    response = ask(told, post(("Content-Length", "6")), content=iter([b"one", b"two"]))
    assert text_of(response) == "([(b'content-length', b'6')], b'onetwo', [])"


def test_a_streamed_body_of_unknown_length_is_sent_in_chunks_with_its_trailers(ask: Ask) -> None:
    late = SimpleNamespace(trailers=Headers())

    def content() -> Iterator[bytes]:
        yield b"one"
        yield b""
        yield b"two"
        late.trailers = Headers({"X-Sum": "6"})

    told_of = text_of(ask(told, post(CHUNKED, _body=late), content=content()))
    assert told_of == "([(b'transfer-encoding', b'chunked')], b'onetwo', [(b'x-sum', b'6')])"


def test_a_whole_body_with_trailers_is_sent_in_chunks(ask: Ask) -> None:
    request = post(("Content-Length", "4"), content=b"body", trailers=Headers({"X-Sum": "4"}))
    told_of = text_of(ask(told, request))
    assert told_of == "([(b'transfer-encoding', b'chunked')], b'body', [(b'x-sum', b'4')])"


def test_a_request_without_a_body_stays_without(ask: Ask) -> None:
    assert text_of(ask(told, post(), content=iter([]))) == "([], b'', [])"


def test_a_request_that_came_by_http2_without_a_length_is_sent_in_chunks(ask: Ask) -> None:
    tls = TlsInfo(version="TLSv1.3", cipher="", alpn="h2")
    request = post(http_version="2", tls=tls)
    told_of = text_of(ask(told, request, content=iter([b"one", b"two"])))
    assert told_of == "([(b'transfer-encoding', b'chunked')], b'onetwo', [])"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_large_body_goes_out_while_the_response_comes_in(ask: Ask, streamed: bool) -> None:
    size = 20_000_000

    def serve(peer: Peer) -> None:
        peer.next()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while isinstance(event := peer.next(), h11.Data):
            peer.send(event.data)

    content = bytes(range(250)) * (size // 250)
    pieces = (content[at : at + 100_000] for at in range(0, size, 100_000))
    given: dict[str, Any] = {} if streamed else {"content": content}
    request = post(("Content-Length", str(size)), **given)
    response = ask(serve, request, content=pieces if streamed else None)
    assert b"".join(response.stream) == content


def test_a_request_and_its_response_may_wait_for_each_other(ask: Ask) -> None:
    def serve(peer: Peer) -> None:
        peer.next()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while isinstance(event := peer.next(), h11.Data):
            peer.chunk(bytes(event.data).upper())
        peer.send(b"0\r\nX-Sum: 6\r\n\r\n")

    said: queue.Queue[bytes] = queue.Queue()
    response = ask(serve, post(CHUNKED), content=iter(said.get, b""))
    heard = iter(response.stream)
    for word in (b"one", b"two"):
        said.put(word)
        assert next(heard) == word.upper()
    said.put(b"")
    assert list(heard) == []
    assert response.trailers == {"x-sum": "6"}


def test_a_response_read_whole_keeps_its_trailers(ask: Ask) -> None:
    def serve(peer: Peer) -> None:
        peer.next()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.send(b"2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n")

    response = whole(ask(serve, post()), "POST", Account().hold("responses"))
    assert (response.content, response.trailers.raw) == (b"hi", (("X-Sum", "2"),))


def test_a_body_that_breaks_off_ends_the_exchange_and_says_so(ask: Ask) -> None:
    arrived, ended = threading.Event(), threading.Event()

    def serve(peer: Peer) -> None:
        peer.next()
        assert peer.next().data == b"half"
        arrived.set()
        peer.wait_for_end()
        ended.set()

    def content() -> Iterator[bytes]:
        yield b"half"
        arrived.wait(SECONDS)
        raise ConnectionError("the client has left")

    text = "^POST http://api.test/v1: the body of the request broke off: the client has left$"
    with pytest.raises(UpstreamError, match=text):
        ask(serve, post(CHUNKED), content=content())
    assert ended.wait(SECONDS)


def test_a_body_shorter_than_its_length_ends_the_exchange_and_says_so(ask: Ask) -> None:
    with pytest.raises(UpstreamError, match="the body of the request broke off: Too little data"):
        ask(told, post(("Content-Length", "6")), content=iter([b"one"]))


def test_the_rest_of_a_body_is_left_where_the_server_takes_no_more(ask: Ask) -> None:
    closed, go_on = threading.Event(), threading.Event()

    def serve(peer: Peer) -> None:
        peer.next()
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        peer.sock.shutdown(socket.SHUT_WR)
        peer.wait_for_end()

    def content() -> Iterator[bytes]:
        try:
            while True:
                yield b"more"
                go_on.wait(SECONDS)
        finally:
            closed.set()

    response = ask(serve, post(CHUNKED), content=content())
    assert (response.status_code, text_of(response)) == (413, "big")
    go_on.set()
    assert closed.wait(SECONDS)


def test_a_line_on_which_nothing_comes_is_woken_by_its_end(ask: Ask) -> None:
    """As the gateway ends it, when its client has left or its test is over."""
    waits, ends = threading.Event(), queue.SimpleQueue[BaseException]()

    def serve(peer: Peer) -> None:
        peer.next()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        peer.wait_for_end()

    def read() -> None:
        try:
            for _ in response.stream:
                waits.set()
        except UpstreamError as error:
            ends.put(error)

    response = ask(serve, post())
    thread = threading.Thread(target=read)
    thread.start()
    assert waits.wait(SECONDS)
    response.stream.close()
    assert "the upstream broke off" in str(ends.get(timeout=SECONDS))
    thread.join(SECONDS)
