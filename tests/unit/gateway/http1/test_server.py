"""HTTP/1 on the wire: requests are read, and responses are sent."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from pytest_egress.gateway import connection as connection_module
from pytest_egress.gateway.http import bodies
from pytest_egress.routes.applications.wsgi import wsgi
from pytest_egress.traffic.entries import Entry, Exchange, TcpConnection
from pytest_egress.traffic.http import head as fields
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.stage import ADDRESS, GET, MEGABYTE, Stage, ask, eventually, read_reply, reset


@pytest.fixture
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "LINGER_SECONDS", 0.1)


# HTTP.


def test_a_connection_serves_request_after_request(stage: Stage) -> None:
    route = stage.https("api.test", lambda request: request.path)
    sock = stage.tls()
    bodies = [ask(sock, b"GET /%d HTTP/1.1\r\nHost: api.test\r\n\r\n" % n).body for n in range(3)]
    assert bodies == [b"/0", b"/1", b"/2"]
    assert [call.request.path for call in route.calls] == ["/0", "/1", "/2"]


def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    stage.https("api.test", lambda request: request.path)
    sock = stage.tls()
    paths = [b"/%02d" % number for number in range(50)]
    sock.sendall(b"".join(b"GET %b HTTP/1.1\r\nHost: api.test\r\n\r\n" % path for path in paths))
    answers = b""
    while answers.count(b"HTTP/1.1 200") < 50 or not answers.endswith(b"/49"):
        answers += sock.recv(65536)
    assert [part[-3:] for part in answers.split(b"HTTP/1.1 200")[1:]] == paths


def test_a_chunked_request_comes_whole_with_its_trailers(stage: Stage) -> None:
    route = stage.https("api.test")
    ask(
        stage.tls(),
        b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\nDigest: x\r\n\r\n",
        "POST",
    )
    request = route.calls[0].request
    assert request.content == b"hello world"
    assert request.trailers["digest"] == "x"


def test_a_streamed_response_is_chunked_with_its_trailers(stage: Stage) -> None:
    stage.https(
        "api.test",
        lambda request: Response(stream=iter([b"hello", b"", b" world"]), trailers={"Digest": "x"}),
    )
    sock = stage.tls()
    for _ in range(2):
        reply = ask(sock)
        assert reply.headers["transfer-encoding"] == "chunked"
        assert (reply.body, reply.trailers) == (b"hello world", [(b"digest", b"x")])


def test_a_client_that_waits_is_told_to_continue_before_it_sends_its_body(stage: Stage) -> None:
    route = stage.https("api.test")
    sock = stage.tls()
    sock.sendall(
        b"PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    assert sock.recv(65536).startswith(b"HTTP/1.1 100 ")
    reply = ask(sock, b"hello", "PUT")
    assert reply.status == 200
    assert route.calls[0].request.content == b"hello"


def test_a_head_request_gets_the_length_and_no_body(stage: Stage) -> None:
    stage.https("api.test", b"twelve bytes", path="/plain")
    stage.https("api.test", lambda request: iter([b"never sent"]), path="/stream")
    sock = stage.tls()
    reply = ask(sock, b"HEAD /plain HTTP/1.1\r\nHost: api.test\r\n\r\n", "HEAD")
    assert (reply.headers["content-length"], reply.body) == ("12", b"")
    reply = ask(sock, b"HEAD /stream HTTP/1.1\r\nHost: api.test\r\n\r\n", "HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert ask(sock, b"GET /plain HTTP/1.1\r\nHost: api.test\r\n\r\n").body == b"twelve bytes"


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none(stage: Stage, status: int) -> None:
    def application(environ: Any, start_response: Any) -> Any:
        start_response(f"{status} Bare", [])
        return [b"dropped"] if environ["PATH_INFO"] == "/" else iter([b"dropped", b"dropped"])

    stage.https("api.test", wsgi(application))
    sock = stage.tls()
    for path in (b"/", b"/streamed"):
        reply = ask(sock, GET.replace(b"/", path, 1))
        assert (reply.status, reply.body) == (status, b"")
        assert not reply.headers.keys() & {"content-length", "transfer-encoding"}


def test_http_1_0_is_answered_and_closed(stage: Stage) -> None:
    route = stage.https(
        "api.test", lambda request: Response(stream=iter([b"a", b"b"]), trailers={"X": "y"})
    )
    sock = stage.tls()
    reply = ask(sock, b"GET / HTTP/1.0\r\n\r\n")
    assert reply.body == b"ab"
    assert "transfer-encoding" not in reply.headers
    assert route.calls[0].request.http_version == "1.0"
    exchange = stage.only(Exchange)
    assert (exchange.error, exchange.note) == (None, "")


def test_the_end_of_a_tls_connection_is_told_and_not_a_cut(stage: Stage) -> None:
    stage.https("api.test", b"all")
    sock = stage.strict_tls()
    ask(sock, b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n")
    assert sock.recv(1) == b""


def test_an_absolute_target_names_the_host(stage: Stage) -> None:
    route = stage.http("api.test", lambda request: request.url)
    for target in (b"http://api.test/x?y=1", b"http://api.test?y=1", b"HTTP://API.TEST"):
        ask(stage.dial(ADDRESS, 80), b"GET %b HTTP/1.1\r\nHost: ignored.test\r\n\r\n" % target)
    urls = [call.request.url for call in route.calls]
    assert urls == ["http://api.test/x?y=1", "http://api.test/?y=1", "http://api.test/"]


def test_fields_keep_every_byte_and_their_repetitions(stage: Stage) -> None:
    def echo(request: Request) -> Response:
        pairs = [("X-Echo", value) for value in request.headers.get_all("x-many")]
        return Response(headers=[*pairs, ("X-Wide", "\u20ac")])

    stage.https("api.test", echo)
    sock = stage.tls()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: api.test\r\nX-Many: caf\xe9\r\nx-many: two\r\n\r\n")
    answer = sock.recv(65536)
    assert b"X-Echo: caf\xe9\r\nX-Echo: two\r\nX-Wide: \xe2\x82\xac\r\n" in answer


def test_a_body_of_100_megabytes_is_held_once(stage: Stage) -> None:
    sizes: list[int] = []

    def handler(request: Request) -> int:
        sizes.append(len(request.content))
        return 204

    stage.https("api.test", handler)
    sock, piece = stage.tls(), bytes(MEGABYTE)
    sock.sendall(
        b"PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: %d\r\n\r\n" % (100 * MEGABYTE)
    )
    tracemalloc.start()
    try:
        for _ in range(100):
            sock.sendall(piece)
        assert read_reply(sock, "PUT").status == 204
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sizes == [100 * MEGABYTE]
    assert peak < 150 * MEGABYTE


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_100_megabytes_are_sent_without_a_copy(stage: Stage, streamed: bool) -> None:
    piece = bytes(MEGABYTE)
    whole = b"" if streamed else bytes(100 * MEGABYTE)
    stage.https("api.test", lambda request: (piece for _ in range(100)) if streamed else whole)
    sock = stage.tls()
    received = 0
    tracemalloc.start()
    try:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n")
        while data := sock.recv(65536):
            received += len(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert received > 100 * MEGABYTE
    assert peak < 30 * MEGABYTE


@pytest.mark.parametrize(
    ("request_bytes", "status", "note"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Missing mandatory Host: header"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "Found multiple Host: headers"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400, "illegal header line"),
        (b"GET /\r\n\r\n", 400, "illegal request line"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Transfer-Encoding"),
        (b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * 2 * fields.MAX_HEADER_BYTES), 431, "too"),
    ],
)
@pytest.mark.parametrize("secure", [True, False], ids=["tls", "plain"])
def test_what_is_no_request_is_refused_and_recorded(
    stage: Stage, short_linger: None, secure: bool, request_bytes: bytes, status: int, note: str
) -> None:
    sock = stage.tls() if secure else stage.dial(ADDRESS, 80)
    reply = ask(sock, request_bytes)
    assert (reply.status, reply.headers["connection"]) == (status, "close")
    assert note in reply.body.decode()
    sock.close()
    attempt = stage.only(TcpConnection)
    assert (attempt.outcome, attempt.port) == ("unrouted", 443 if secure else 80)
    assert note in attempt.note


def test_a_request_that_ends_within_its_head_is_recorded(stage: Stage) -> None:
    sock = stage.tls()
    ask(sock)
    sock.sendall(b"GET / HTTP/1.1\r\nHo")
    sock.close()
    unrouted, cut = stage.entries(Entry)
    assert isinstance(unrouted, Exchange)
    assert isinstance(cut, TcpConnection)
    assert cut.note.startswith("the request cannot be read: ")


def test_a_request_that_is_reset_within_its_head_is_recorded(stage: Stage) -> None:
    sock = stage.dial(ADDRESS, 80)
    ask(sock)
    sock.sendall(b"GET / HTTP/1.1\r\nHo")
    assert eventually(stage.window.activities.__len__)
    assert eventually(lambda: not stage.gateway.unread())
    reset(sock)
    _, cut = stage.entries(Entry)
    assert isinstance(cut, TcpConnection)
    assert cut.note.startswith("broke off within the head of a request: ")


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "announced"])
def test_a_body_over_the_limit_is_refused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, short_linger: None, chunked: bool
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 1000)
    route = stage.https("api.test")
    how = (
        b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" if chunked else b"Content-Length: 1001\r\n\r\n"
    )
    sock = stage.tls()
    reply = ask(sock, b"PUT / HTTP/1.1\r\nHost: api.test\r\n" + how + bytes(1001), "PUT")
    assert (reply.status, reply.body) == (413, b"the body is over MAX_BODY_BYTES, 1000 bytes")
    sock.close()
    exchange = stage.only(Exchange)
    assert (exchange.outcome, exchange.note) == ("unrouted", reply.body.decode())
    assert not route.called


def test_a_client_that_waits_to_send_too_much_is_not_told_to_continue(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, short_linger: None
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 1000)
    request = (
        b"PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
    )
    reply = ask(stage.tls(), request, "PUT")
    assert (reply.status, reply.interim) == (413, [])


def test_a_body_that_is_cut_is_an_attempt_with_what_came(stage: Stage) -> None:
    sock = stage.tls("other.test")
    sock.sendall(b"PUT / HTTP/1.1\r\nHost: other.test\r\nContent-Length: 10\r\n\r\nhalf")
    sock.close()
    exchange = stage.only(Exchange)
    assert (exchange.outcome, exchange.request.content) == ("unrouted", b"half")
    assert exchange.note.startswith("the body broke off after 4 bytes (")


def test_a_body_that_cannot_be_read_is_refused(stage: Stage, short_linger: None) -> None:
    route = stage.https("api.test")
    sock = stage.tls()
    head = b"PUT / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert ask(sock, head + b"zz\r\n", "PUT").status == 400
    sock.close()
    exchange = stage.only(Exchange)
    assert (
        exchange.outcome == "recorded"
    )  # claimed; that it was never called is what fails the test
    assert not route.called


# What is odd and can be answered.


@pytest.mark.parametrize("cut", [0, 9, 14])
def test_a_target_that_is_not_encoded_counts_as_if_it_were(stage: Stage, cut: int) -> None:
    stage.https("api.test", b"found", path="/caf%C3%A9", query={"q": "é"})
    with stage.tls() as sock:
        request = "GET /café?q=é HTTP/1.1\r\nHost: api.test\r\n\r\n".encode()
        sock.sendall(request[:cut])
        assert ask(sock, request[cut:]).body == b"found"
    assert stage.only(Exchange).request.url == "https://api.test/caf%C3%A9?q=%C3%A9"


def test_a_port_and_a_body_beyond_all_reason_are_a_requests_own(stage: Stage) -> None:
    stage.https("api.test", json=[])
    body = b"[" * 60_000
    head = b"POST / HTTP/1.1\r\nHost: api.test:" + b"7" * 5000 + b"\r\n"
    with stage.tls() as sock:
        reply = ask(sock, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert reply.status in (421, 502)
    assert stage.only(Exchange).outcome == "unrouted"
    assert not stage.window.complaints
