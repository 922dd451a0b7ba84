"""Requests that another server answers, on loopback: `forward`, `Request.forward`, and passing through."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import h11
import pytest
import trustme

from pytest_egress.errors import UpstreamError
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward, sequence
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.outside import API, Outside
from tests.support.stage import (
    ADDRESS,
    GET,
    SECONDS,
    Reply,
    Stage,
    ask,
    eventually,
    read_reply,
)

Serve = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """A real server whose answers a test writes."""

    protocol_version = "HTTP/1.1"
    server: Real

    def do(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        self.server.seen.append((self.command, self.path, self.headers.items(), body))
        self.server.serve(self)

    do_GET = do_POST = do_HEAD = do

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Real(ThreadingHTTPServer):
    """Counts what it is asked for, and at which of its addresses."""

    daemon_threads = True

    def __init__(
        self,
        serve: Serve,
        context: ssl.SSLContext | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        if listener is not None:
            self.socket.close()
            self.socket = listener
        self.asked: list[tuple[str, int]] = []
        if context is not None:
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.serve = serve
        self.seen: list[tuple[str, str, list[tuple[str, str]], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.thread = threading.Thread(target=self.serve_forever, args=[0.01], daemon=True)
        self.thread.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, client = super().get_request()
        self.asked.append(sock.getsockname())
        return sock, client

    def handle_error(self, *_: object) -> None:
        pass

    def close(self) -> None:
        self.shutdown()
        self.thread.join(SECONDS)
        self.server_close()


def answer_json(handler: Handler) -> None:
    handler.reply(b'{"id": 1}', Content_Type="application/json", X_Real="yes")


@pytest.fixture
def real() -> Iterator[Real]:
    with contextlib.closing(Real(answer_json)) as real:
        yield real


@pytest.fixture
def start() -> Iterator[Callable[..., Real]]:
    with contextlib.ExitStack() as stack:

        def start(serve: Serve, context: ssl.SSLContext | None = None) -> Real:
            return stack.enter_context(contextlib.closing(Real(serve, context)))

        yield start


@pytest.fixture
def server(outside: Outside) -> Iterator[Callable[..., Real]]:
    """Starts real servers outside of the machine."""
    with contextlib.ExitStack() as stack:

        def server(
            port: int, serve: Serve = answer_json, context: ssl.SSLContext | None = None
        ) -> Real:
            real = Real(serve, context, outside.listen(port))
            return stack.enter_context(contextlib.closing(real))

        yield server


def https(stage: Stage) -> ssl.SSLSocket:
    return stage.tls("api.test", stage.resolve("api.test"))


def test_another_server_answers_and_both_sides_are_recorded(stage: Stage, real: Real) -> None:
    route = stage.https("api.test", forward(real.url + "/base"))
    reply = ask(
        https(stage),
        b"POST /v1?a=%20b HTTP/1.1\r\nHost: api.test\r\nX-Twice: 1\r\nX-Twice: 2\r\n"
        b"Connection: x-hop\r\nX-Hop: mine\r\nTE: trailers\r\nContent-Length: 4\r\n\r\nbody",
    )
    assert (reply.status, reply.body, reply.headers["x-real"]) == (200, b'{"id": 1}', "yes")
    ((method, path, headers, body),) = real.seen
    assert (method, path, body) == ("POST", "/base/v1?a=%20b", b"body")
    assert headers == [
        ("Host", "api.test"),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("Content-Length", "4"),
        ("Connection", "close"),
    ]
    call = route.assert_called_once()
    assert call.outcome == "routed"
    assert call.response is not None
    assert eventually(lambda: call.response and call.response.content == b'{"id": 1}')


def test_a_chunked_request_arrives_whole(stage: Stage, real: Real) -> None:
    stage.https("api.test", forward(real.url))
    ask(
        https(stage),
        b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    )
    assert real.seen[0][3] == b"abcde"


def test_the_answer_streams_as_it_comes(stage: Stage, start: Callable[..., Real]) -> None:
    go_on = threading.Event()

    def serve(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"first")
        go_on.wait(SECONDS)
        handler.wfile.write(b"after")

    stage.https("api.test", forward(start(serve).url))
    client = https(stage)
    client.settimeout(SECONDS)
    client.sendall(GET)
    data = b""
    while not data.endswith(b"first"):
        data += client.recv(1000)
    go_on.set()
    while not data.endswith(b"after"):
        data += client.recv(1000)


def test_an_answer_of_unknown_length_is_framed_anew_with_its_trailers(
    stage: Stage, start: Callable[..., Real]
) -> None:
    def serve(handler: Handler) -> None:
        handler.wfile.write(
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n"
        )

    stage.https("api.test", forward(start(serve).url))
    client = https(stage)
    for _ in range(2):
        reply = ask(client)
        assert (reply.body, reply.trailers) == (b"hello", [(b"x-sum", b"5")])


def test_a_head_request_gets_the_length_of_the_real_answer(stage: Stage, real: Real) -> None:
    stage.https("api.test", forward(real.url))
    client = https(stage)
    reply = ask(client, GET.replace(b"GET", b"HEAD"), "HEAD")
    assert (reply.headers["content-length"], reply.body) == ("9", b"")
    assert ask(client).body == b'{"id": 1}'


def test_fields_that_repeat_are_kept_apart(stage: Stage, start: Callable[..., Real]) -> None:
    def serve(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Set-Cookie", "a=1")
        handler.send_header("Set-Cookie", "b=2")
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"{}")

    @stage.https("api.test")
    def handler(request: Request) -> Response:
        real = request.forward(url)
        return Response(real.status_code, headers=real.headers, json={**real.json(), "mine": True})

    url = start(serve).url
    client = https(stage)
    client.sendall(GET)
    client.settimeout(SECONDS)
    head = client.recv(10_000)
    assert head.count(b"Set-Cookie") == 2
    assert head.endswith(b'{"mine": true}')


# The real upstream.


def trusting(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


def test_the_real_upstream_is_verified(stage: Stage, server: Callable[..., Real]) -> None:
    other = trustme.CA()
    real = server(443, context=trusting(other, "api.test"))
    stage.https("api.test", forward())
    reply = ask(https(stage))
    assert reply.status == 502
    assert b"CERTIFICATE_VERIFY_FAILED" in reply.body
    entry = stage.only(Exchange)
    assert entry.note.startswith("no TLS connection to api.test: ")
    assert judge(stage.window, []) is None

    other.configure_trust(stage.gateway.upstreams.tls())
    assert ask(https(stage)).body == b'{"id": 1}'
    assert real.asked == [(API, 443)] * 2


def test_the_real_upstream_is_where_the_target_dialled(
    stage: Stage, server: Callable[..., Real]
) -> None:
    by_address, by_name = server(8443), server(80)
    stage.http("*", forward())
    stage.http(f"{ADDRESS}:8443", forward())
    ask(stage.dial(ADDRESS, 8443))
    ask(stage.dial(stage.resolve("api.test"), 80))
    assert (by_address.asked, by_name.asked) == ([(ADDRESS, 8443)], [(API, 80)])


def test_an_upstream_that_is_down_is_a_bad_gateway_and_no_failure_of_the_test(
    stage: Stage,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    route = stage.https("api.test", forward(f"http://127.0.0.1:{port}"))
    reply = ask(https(stage))
    note = f"127.0.0.1:{port} cannot be reached: [Errno 111] Connection refused"
    assert (reply.status, reply.body.decode()) == (502, f"pytest-egress: {note}\n")
    assert route.assert_called_once().note == note
    assert judge(stage.window, []) is None


def test_an_upstream_that_answers_nonsense_is_a_bad_gateway(
    stage: Stage, start: Callable[..., Real]
) -> None:
    real = start(lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"))
    stage.https("api.test", forward(real.url))
    reply = ask(https(stage))
    assert reply.status == 502
    assert reply.body.startswith(b"pytest-egress: GET https://api.test/: the upstream failed: ")


def test_an_upstream_that_breaks_off_cuts_the_answer(
    stage: Stage, start: Callable[..., Real]
) -> None:
    def serve(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True

    route = stage.https("api.test", forward(start(serve).url))
    with pytest.raises((OSError, h11.RemoteProtocolError)):
        ask(https(stage))
    stage.settle()
    call = route.assert_called_once()
    assert call.note.startswith("GET https://api.test/: the upstream broke off: ")
    assert call.error is None


def test_an_upstream_may_answer_while_it_reads(stage: Stage) -> None:
    size = 20_000_000

    def serve(sock: socket.socket) -> None:
        sock.settimeout(SECONDS)
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(65536)
        got = len(data.partition(b"\r\n\r\n")[2])
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        sock.sendall(b"x" * got)
        while got < size:
            piece = sock.recv(65536)
            sock.sendall(piece)
            got += len(piece)

    with raw_server(serve) as port:
        stage.http(ADDRESS, forward(f"http://127.0.0.1:{port}"))
        head = b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: %d\r\n\r\n" % size
        client = stage.dial(ADDRESS, 80)
        client.sendall(head + b"x" * size)
        assert len(read_reply(client).body) == size


def test_an_upstream_may_answer_before_it_has_read_all_and_close(stage: Stage) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass

    with raw_server(serve) as port:
        stage.http(ADDRESS, forward(f"http://127.0.0.1:{port}"))
        head = b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5000000\r\n\r\n"
        client = stage.dial(ADDRESS, 80)
        client.sendall(head + b"x" * 5_000_000)
        reply = read_reply(client)
    assert (reply.status, reply.body) == (413, b"big")


@contextlib.contextmanager
def raw_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                serve(sock)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    thread.join(SECONDS)
    listener.close()


def test_a_name_that_cannot_be_one_is_a_bad_gateway(stage: Stage) -> None:
    stage.http(ADDRESS, forward(f"http://{'a' * 64}.test"))
    assert ask(stage.dial(ADDRESS, 80)).status == 502


def test_a_stalled_handshake_with_an_upstream_is_woken_at_the_end(stage: Stage) -> None:
    asked = threading.Event()

    def serve(sock: socket.socket) -> None:
        asked.set()
        while sock.recv(65536):
            pass

    with raw_server(serve) as port:
        stage.http(ADDRESS, forward(f"https://127.0.0.1:{port}"))
        stage.dial(ADDRESS, 80).sendall(GET)
        assert asked.wait(SECONDS)
        (connection,) = stage.gateway.connections
        connection.cut()
        # less than the handshake would be waited for
        assert stage.ledger.wait_for(lambda: connection.ended, SECONDS / 3)


def test_the_sockets_of_forwards_are_let_go(stage: Stage, real: Real) -> None:
    stage.http(ADDRESS, forward(real.url))
    client = stage.dial(ADDRESS, 80)
    for _ in range(20):
        assert ask(client).status == 200
    (connection,) = stage.gateway.connections
    assert len(connection._others) <= 2


def test_a_stream_that_passes_goes_on_by_the_route_that_lets_it(
    stage: Stage, server: Callable[..., Real]
) -> None:
    go_on = threading.Event()

    def serve(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"first")
        go_on.wait(SECONDS)

    server(80, serve)
    fake = stage.http(ADDRESS, 200)
    client = stage.dial(ADDRESS, 80)
    assert ask(client).status == 200
    fake.remove()
    route = stage.route("passthrough", ADDRESS)  # found on an open connection, it forwards requests
    client.sendall(GET)
    data = b""
    while b"first" not in data:
        data += client.recv(1000)
    (activity,) = stage.window.activities
    assert (activity.streams, activity.route, activity.passes) == ("body", None, route)
    go_on.set()
    assert eventually(lambda: activity.passes is None)


def test_a_stream_that_passes_is_cut_with_what_let_it_pass(
    stage: Stage, server: Callable[..., Real]
) -> None:
    go_on = threading.Event()

    def serve(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"first")
        go_on.wait(SECONDS)
        handler.wfile.write(b"after")

    server(80, serve)
    stage.window.policy = "passthrough"
    client = stage.dial(ADDRESS, 80)
    client.settimeout(SECONDS)
    client.sendall(GET)
    data = b""
    while not data.endswith(b"first"):
        data += client.recv(1000)
    stage.route("block", ADDRESS)
    go_on.set()
    with contextlib.suppress(OSError):
        while piece := client.recv(1000):
            data += piece
    assert data.endswith(b"first")


def test_empty_lines_between_requests_are_no_part_of_them(stage: Stage) -> None:
    stage.http(ADDRESS, {"id": 1})
    client = stage.dial(ADDRESS, 80)
    post = b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 2\r\n\r\n{}"
    assert ask(client, post).status == 200
    client.sendall(b"\r\n")
    stage.settle()
    assert ask(client, b"\r\n" + GET).status == 200
    assert len(stage.entries(Exchange)) == 2


def test_a_block_is_told_where_a_route_of_another_protocol_has_the_same_address(
    stage: Stage,
) -> None:
    block = stage.route("block", "api.test")
    stage.http("api.test:*")
    assert ask(https(stage)).status == 502
    assert stage.only(Exchange).outcome == "blocked"
    assert block.call_count == 1


def test_an_answer_that_is_too_long_to_keep_cannot_be_read_whole(
    stage: Stage, start: Callable[..., Real], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.gateway.upstream.body.MAX_BODY_BYTES", 10)
    real = start(lambda handler: handler.reply(b"x" * 11))

    @stage.https("api.test")
    def handler(request: Request) -> Any:
        with pytest.raises(UpstreamError, match="over MAX_BODY_BYTES, 10 bytes"):
            request.forward(real.url)
        return 204

    assert ask(https(stage)).status == 204
    assert stage.only(Exchange).error is None


# Within a handler.


def test_a_handler_alters_a_real_answer(stage: Stage, real: Real) -> None:
    @stage.https("api.test")
    def handler(request: Request) -> Any:
        answer = request.forward(real.url)
        assert answer.headers["x-real"] == "yes"
        return {**answer.json(), "altered": True}

    assert ask(https(stage)).body == b'{"id": 1, "altered": true}'
    assert ("Accept-Encoding", "identity") in real.seen[0][2]


def test_a_handler_may_pass_the_real_answer_on_or_change_the_request(
    stage: Stage, real: Real
) -> None:
    @stage.https("api.test")
    def handler(request: Request) -> Any:
        changed = dataclasses.replace(
            request, path="/other", headers=Headers([*request.headers.raw, ("X-Mine", "1")])
        )
        return changed.forward(real.url)

    reply = ask(https(stage))
    assert (reply.body, reply.headers["x-real"]) == (b'{"id": 1}', "yes")
    assert real.seen[0][1] == "/other"
    assert ("X-Mine", "1") in real.seen[0][2]


def test_a_handler_can_catch_that_the_upstream_is_down(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    @stage.https("api.test")
    def handler(request: Request) -> Any:
        with pytest.raises(UpstreamError, match="cannot be reached"):
            request.forward(f"http://127.0.0.1:{port}")
        return 503

    assert ask(https(stage)).status == 503


def test_a_request_that_came_from_no_container_cannot_be_forwarded() -> None:
    request = Request(method="GET", scheme="https", host="api.test", port=443, path="/")
    with pytest.raises(TypeError, match="came from no container: there is nothing to forward"):
        request.forward()


def test_a_handler_that_waits_for_an_upstream_is_woken_at_the_end(
    stage: Stage, start: Callable[..., Real]
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def serve(handler: Handler) -> None:
        asked.set()
        go_on.wait(SECONDS)

    stage.https("api.test", forward(start(serve).url))
    https(stage).sendall(GET)
    assert asked.wait(SECONDS)
    assert stage.gateway.stop(SECONDS) == []
    go_on.set()


# Sequences.


def test_a_sequence_answers_in_order_and_then_matches_no_more(stage: Stage, real: Real) -> None:
    route = stage.https(
        "api.test", sequence(503, lambda request: {"second": True}, forward(real.url))
    )
    client = https(stage)
    replies: list[Reply] = [ask(client) for _ in range(4)]
    assert [reply.status for reply in replies] == [503, 200, 200, 502]
    assert [reply.body for reply in replies[:3]] == [b"", b'{"second": true}', b'{"id": 1}']
    assert b"sequence(...): it has ended, after 3 answers" in replies[3].body
    assert route.call_count == 3


def test_a_sequence_can_be_given_in_place(stage: Stage) -> None:
    route = stage.https("api.test", 200)
    client = https(stage)
    statuses = [ask(client).status]
    route.respond(sequence(503, 429))
    statuses += [ask(client).status for _ in range(3)]
    route.respond(204)
    statuses += [ask(client).status for _ in range(2)]
    assert statuses == [200, 503, 429, 502, 204, 204]


# Passing through, on connections that are read as requests.


def test_a_passthrough_route_found_on_an_open_connection_forwards(
    stage: Stage, server: Callable[..., Real]
) -> None:
    real = server(80)
    route = stage.http("api.test", {"id": "fake"})
    client = stage.dial(stage.resolve("api.test"), 80)
    assert ask(client).body == b'{"id": "fake"}'
    route.remove()
    passing = stage.route("passthrough", "api.test")
    assert ask(client).body == b'{"id": 1}'
    assert real.asked == [(API, 80)]
    assert [entry.outcome for entry in stage.entries(Exchange)] == ["routed", "passthrough"]
    assert passing.call_count == 1


def test_the_policy_forwards_plain_http_to_an_address(
    stage: Stage, server: Callable[..., Real]
) -> None:
    real = server(80)
    stage.window.policy = "passthrough"
    assert ask(stage.dial(ADDRESS, 80)).body == b'{"id": 1}'
    entry = stage.only(Exchange)
    assert (entry.outcome, entry.request.url) == ("passthrough", "http://api.test/")
    assert real.asked == [(ADDRESS, 80)]


def test_what_a_streamed_answer_was_is_in_the_ledger_at_its_end(stage: Stage, real: Any) -> None:
    route = stage.https("api.test", forward(real.url))
    client = https(stage)
    client.sendall(GET)
    assert read_reply(client).body == b'{"id": 1}'
    assert eventually(lambda: getattr(route.calls[0].response, "content", b"") == b'{"id": 1}')


def test_a_container_without_a_port_is_refused_with_what_to_write() -> None:
    db = SimpleNamespace(name="db", connect=socket.create_connection)
    with pytest.raises(ValueError, match=r"from 1 to 65535, as in forward\(container, 5432\)$"):
        forward(db)
