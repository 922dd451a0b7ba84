"""`forward` of requests that came by HTTP/2, from a client on loopback through the gateway to a real server."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import h2.errors
import h2.events
import pytest
import trustme

from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.http2_client import Http2Client
from tests.support.http2_server import OK, Http2Peer, Serve, http2_server
from tests.support.stage import ADDRESS, SECONDS, Stage, client_context, eventually
from tests.support.upstreams import tcp_server

Start = Callable[..., str]
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]
MESSAGE = b"\x00\x00\x00\x00\x03one"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server of HTTP/2, and gives its URL."""
    with contextlib.ExitStack() as stack:

        def start(serve: Serve, context: ssl.SSLContext | None = None) -> str:
            port = stack.enter_context(http2_server(serve, context))
            return f"{'https' if context else 'http'}://127.0.0.1:{port}"

        yield start


@pytest.fixture
def plain(stage: Stage) -> Http2Client:
    return Http2Client(stage.dial(ADDRESS, 80), "http")


@pytest.fixture
def secure(stage: Stage, ca: trustme.CA) -> Http2Client:
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    return Http2Client(stage.tls(context=context))


def echo(peer: Http2Peer) -> None:
    """Answer with the head and the body of the request, and a trailer."""
    head, body = dict(peer.head()), peer.rest()
    peer.respond([*OK, ("x-path", head[":path"])], end=False)
    peer.send(body)
    peer.end([("x-sum", str(len(body)))])


def test_bodies_and_trailers_pass_and_both_sides_are_recorded(
    stage: Stage, plain: Http2Client, start: Start
) -> None:
    route = stage.http(ADDRESS, forward(start(echo) + "/base"))
    answer = plain.post("/it?a=1", b"x" * 100_000, trailers=[("x-md5", "1")])
    assert (answer.status, answer.headers["x-path"]) == (200, "/base/it?a=1")
    assert (answer.body, answer.trailers) == (b"x" * 100_000, {"x-sum": "100000"})
    call = route.assert_called_once()
    assert (call.request.http_version, len(call.request.content)) == ("2", 100_000)
    assert call.request.trailers == {"x-md5": "1"}
    assert eventually(lambda: call.response and call.response.trailers == {"x-sum": "100000"})
    assert call.response is not None
    assert call.response.content == b"x" * 100_000


def test_a_server_within_tls_is_verified_and_asked_by_http2(
    stage: Stage, secure: Http2Client, start: Start
) -> None:
    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    stage.https("api.test", forward(start(echo, context)))
    answer = secure.ask()
    assert answer.status == 502
    assert b"CERTIFICATE_VERIFY_FAILED" in answer.body
    other.configure_trust(stage.gateway.upstreams.tls(http2=True))
    assert secure.post("/it", b"body").body == b"body"


def serve_http1(sock: socket.socket) -> None:
    data = sock.recv(65536)
    line = data.partition(b"\r\n")[0]
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(line), line))


def test_a_plain_server_is_asked_by_http1_where_the_client_had_tls(
    stage: Stage, secure: Http2Client
) -> None:
    with tcp_server(serve_http1) as port:
        stage.https("api.test", forward(f"http://127.0.0.1:{port}"))
        assert secure.ask("/it").body == b"GET /it HTTP/1.1"


def test_a_handler_forwards_by_http2_too(stage: Stage, plain: Http2Client, start: Start) -> None:
    url = start(echo)

    @stage.http(ADDRESS)
    def handler(request: Request) -> Response:
        answer = request.forward(url)
        assert (answer.content, answer.trailers["x-sum"]) == (b"body", "4")
        return answer

    answer = plain.post("/", b"body")
    assert (answer.body, answer.trailers) == (b"body", {"x-sum": "4"})


def test_many_requests_of_a_connection_are_forwarded_at_the_same_time(
    stage: Stage, plain: Http2Client, start: Start
) -> None:
    """Each has a connection of its own to the server, and none waits for another."""
    together = threading.Barrier(3)

    def serve(peer: Http2Peer) -> None:
        path = dict(peer.head())[":path"]
        together.wait(SECONDS)
        peer.respond(OK, path.encode())

    stage.http(ADDRESS, forward(start(serve)))
    numbers = [plain.begin(path) for path in ("/1", "/2", "/3")]
    plain.flush()
    assert [plain.answer(number).body for number in numbers] == [b"/1", b"/2", b"/3"]


# Streams.


def test_both_sides_of_a_call_of_grpc_may_wait_for_each_other(
    stage: Stage, plain: Http2Client, start: Start
) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond([*OK, GRPC[0]], end=False)
        for _ in range(2):
            peer.send(peer.piece())
        peer.next(h2.events.StreamEnded)
        peer.end([("grpc-status", "0")])

    route = stage.http(ADDRESS, forward(start(serve)))
    number = plain.begin("/shop.Orders/Chat", "POST", headers=GRPC, ends=False)
    plain.flush()
    answer = plain.answers[number]
    plain.send(number, MESSAGE)
    assert plain.until(lambda: answer.body == MESSAGE)
    plain.send(number, MESSAGE)
    assert plain.until(lambda: answer.body == MESSAGE * 2)
    plain.h2.end_stream(number)
    plain.flush()
    assert plain.answer(number).trailers == {"grpc-status": "0"}
    call = route.assert_called_once()
    assert eventually(lambda: call.request.content == MESSAGE * 2)


def test_an_answer_of_grpc_without_a_body_ends_with_its_head(
    stage: Stage, plain: Http2Client, start: Start
) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond([*OK, GRPC[0], ("grpc-status", "12")])

    stage.http(ADDRESS, forward(start(serve)))
    number = plain.begin("/shop.Orders/None", "POST", headers=GRPC, ends=False)
    plain.flush()
    plain.send(number, MESSAGE)
    answer = plain.answer(number)
    assert (answer.headers["grpc-status"], answer.body, answer.trailers) == ("12", b"", {})


def test_a_route_that_streams_keeps_nothing_of_what_passes(
    stage: Stage, plain: Http2Client, start: Start
) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond(end=False)
        while piece := peer.piece():
            peer.send(piece)
            if piece.endswith(b"bye"):
                return peer.end()
        return None

    route = stage.http(ADDRESS, forward(start(serve)), stream=True)
    number = plain.begin("/", "POST", ends=False)
    plain.flush()
    answer = plain.answers[number]
    plain.send(number, b"hello")
    assert plain.until(lambda: answer.body == b"hello")
    plain.send(number, b"bye")
    assert plain.answer(number).body == b"hellobye"
    stage.settle()
    call = route.assert_called_once()
    assert call.response is not None
    with pytest.raises(RuntimeError, match="is not kept: its route has stream=True"):
        _ = call.response.text
    with pytest.raises(RuntimeError, match="its content is not kept"):
        _ = call.request.content


# Who leaves, and what fails.


def test_a_client_that_resets_its_stream_ends_the_exchange_with_the_server(
    stage: Stage, plain: Http2Client, start: Start
) -> None:
    ended = threading.Event()

    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond(OK, b"piece", end=False)
        peer.wait_for_end()
        ended.set()

    stage.http(ADDRESS, forward(start(serve)))
    number = plain.begin()
    plain.flush()
    assert plain.until(lambda: plain.answers[number].body == b"piece")
    plain.h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
    plain.flush()
    assert ended.wait(SECONDS)
    entry = stage.only(Exchange)
    assert entry.note.startswith("the client closed before the whole response was sent (")
    assert entry.error is None
    assert judge(stage.window, []) is None


def test_a_client_that_resets_its_stream_before_the_answer_ends_the_exchange_too(
    stage: Stage, plain: Http2Client, start: Start
) -> None:
    asked, ended = threading.Event(), threading.Event()

    def serve(peer: Http2Peer) -> None:
        peer.head()
        asked.set()
        peer.wait_for_end()
        ended.set()

    stage.http(ADDRESS, forward(start(serve)))
    number = plain.begin()
    plain.flush()
    assert asked.wait(SECONDS)
    plain.h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
    plain.flush()
    assert ended.wait(SECONDS)
    assert judge(stage.window, []) is None


def test_a_server_that_resets_the_stream_has_it_reset_for_the_client(
    stage: Stage, plain: Http2Client, start: Start
) -> None:
    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond(OK, b"piece", end=False)
        peer.next(h2.events.StreamEnded)
        peer.reset(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)

    stage.http(ADDRESS, forward(start(serve)))
    number = plain.begin("/", "POST", headers=GRPC, ends=False)
    plain.flush()
    assert plain.until(lambda: plain.answers[number].body == b"piece")
    plain.h2.end_stream(number)
    plain.flush()
    assert plain.answer(number).reset == h2.errors.ErrorCodes.INTERNAL_ERROR
    entry = stage.only(Exchange)
    assert entry.note.endswith("the upstream broke off: it reset the stream (ENHANCE_YOUR_CALM)")
    assert judge(stage.window, []) is None


def test_a_call_of_grpc_whose_server_is_down_has_a_status_that_says_so(
    stage: Stage, plain: Http2Client
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    stage.http(ADDRESS, forward(f"http://127.0.0.1:{port}"))
    answer = plain.post("/shop.Orders/Get", MESSAGE, headers=GRPC)
    assert (answer.status, answer.headers["grpc-status"]) == (200, "14")
    assert f"127.0.0.1:{port} cannot be reached" in answer.headers["grpc-message"]


def test_the_threads_and_sockets_of_forwards_end(
    stage: Stage, plain: Http2Client, start: Start
) -> None:
    """Those too whose client never ends its request: the server has answered without."""

    def serve(peer: Http2Peer) -> None:
        peer.head()
        peer.respond([*OK, GRPC[0], ("grpc-status", "7")])

    stage.http(ADDRESS, forward(start(serve)))
    for _ in range(5):
        number = plain.begin("/shop.Orders/Chat", "POST", headers=GRPC, ends=False)
        plain.flush()
        assert plain.answer(number).headers["grpc-status"] == "7"
    stage.settle()
    assert eventually(lambda: not senders())
    (connection,) = stage.gateway.connections
    assert len(connection._others) <= 2


def senders() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("egress upstream")]


# HTTP/1.1.


def test_a_route_that_streams_forwards_http1_as_it_comes(stage: Stage) -> None:
    def serve(sock: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while b"5\r\nhello\r\n" not in data:
            data += sock.recv(65536)
        sock.sendall(b"5\r\nHELLO\r\n")
        while b"0\r\n" not in data:
            data += sock.recv(65536)
        sock.sendall(b"0\r\nX-Sum: 5\r\n\r\n")

    with tcp_server(serve) as port:
        stage.http(ADDRESS, forward(f"http://127.0.0.1:{port}"), stream=True)
        client = stage.dial(ADDRESS, 80)
        client.settimeout(SECONDS)
        head = b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head + b"5\r\nhello\r\n")
        data = b""
        while b"5\r\nHELLO\r\n" not in data:
            data += client.recv(65536)
        client.sendall(b"0\r\n\r\n")
        while not data.endswith(b"0\r\nX-Sum: 5\r\n\r\n"):
            data += client.recv(65536)


def test_a_client_of_http1_that_closes_its_side_gets_its_answer(stage: Stage) -> None:
    go_on = threading.Event()

    def serve(sock: socket.socket) -> None:
        go_on.wait(SECONDS)
        serve_http1(sock)

    with tcp_server(serve) as port:
        stage.http(ADDRESS, forward(f"http://127.0.0.1:{port}"))
        client = stage.dial(ADDRESS, 80)
        client.sendall(b"GET /it HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        go_on.set()
        client.settimeout(SECONDS)
        data = b""
        while piece := client.recv(65536):
            data += piece
        assert data.endswith(b"GET /it HTTP/1.1")
