"""The gateway on loopback, with real sockets and a real TLS client: what a target gets, and what the ledger tells."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
import threading
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rcode
import h11
import pytest
import trustme

from pytest_egress.agent import netlink
from pytest_egress.gateway import connection as connection_module
from pytest_egress.gateway import connections as connections_module
from pytest_egress.gateway import dispatch, http1_server
from pytest_egress.gateway import server as gateway_module
from pytest_egress.gateway import tls as tls_module
from pytest_egress.gateway.server import Gateway
from pytest_egress.ledger import ledger as ledger_module
from pytest_egress.ledger.report import unrouted_text
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.route import Route
from pytest_egress.traffic import fields, http1
from pytest_egress.traffic.dns import tcp_frame, tcp_frames
from pytest_egress.traffic.entries import (
    DnsQuery,
    Entry,
    Exchange,
    PacketAttempt,
    TcpConnection,
    TlsFailure,
)
from pytest_egress.traffic.messages import Request, Response
from tests.support.loopback import LoopbackLink
from tests.support.stage import (
    ADDRESS,
    FIRST,
    GET,
    MEGABYTE,
    SECOND,
    SECONDS,
    Stage,
    ask,
    client_context,
    drain,
    end_of,
    eventually,
    hello_bytes,
    read_reply,
    reset,
)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def stage(ca: trustme.CA) -> Iterator[Stage]:
    stage = Stage(ca)
    with stage.open:
        stage.gateway.start()
        yield stage
    assert not stage.window.complaints


# Each shortens one wait alone: on a busy machine the others still have to be long enough.


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 0.3)


@pytest.fixture
def short_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "STALLED_SECONDS", 0.3)


@pytest.fixture
def short_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_module, "HANDSHAKE_SECONDS", 0.5)


@pytest.fixture
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "LINGER_SECONDS", 0.1)


# Names and certificates.


@pytest.mark.parametrize(
    "name",
    [
        "api.test",
        "a_b.example.test",
        f"{'x' * 63}.test",
        f"{'y' * 60}.{'z' * 60}.test",
        "xn--bcher-kva.test",
    ],
)
def test_a_name_is_answered_under_a_certificate_of_its_own(stage: Stage, name: str) -> None:
    route = stage.https(name, lambda request: {"host": request.host, "sni": request.sni})
    sock = stage.tls(name)
    reply = ask(sock, b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % name.encode())
    assert reply.body == b'{"host": "%b", "sni": "%b"}' % (name.encode(), name.encode())
    certificate = sock.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("DNS", name),)
    assert route.call_count == 1


def test_the_spelling_of_a_server_name_does_not_matter(stage: Stage) -> None:
    stage.https("api.test", b"yes")
    stage.trusting.check_hostname = False
    reply = ask(stage.tls("API.Test"), b"GET / HTTP/1.1\r\nHost: Api.TEST:443\r\n\r\n")
    assert reply.body == b"yes"


def test_an_address_is_answered_under_a_certificate_for_the_address(stage: Stage) -> None:
    stage.https(ADDRESS, lambda request: request.url)
    sock = stage.tls(ADDRESS)  # of an address, a client sends no name
    reply = ask(sock, b"GET /x HTTP/1.1\r\nHost: 203.0.113.9\r\n\r\n")
    assert reply.body == b"https://203.0.113.9/x"
    certificate = sock.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("IP Address", ADDRESS),)


def test_without_a_server_name_the_name_that_was_dialled_counts(stage: Stage) -> None:
    stage.https("api.test", lambda request: f"{request.host} {request.sni}")
    assert stage.resolve("api.test") == FIRST
    context = client_context(trustme.CA())
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    assert ask(stage.tls(None, FIRST, context=context)).body == b"api.test None"


def test_tls_is_found_on_any_port(stage: Stage) -> None:
    stage.https("api.test:8443", lambda request: request.url)
    assert ask(stage.tls(port=8443)).body == b"https://api.test:8443/"


def test_plain_http_is_found_on_any_port(stage: Stage) -> None:
    stage.resolve("api.test")
    stage.http("api.test:443", lambda request: request.url)
    assert ask(stage.dial(FIRST, 443)).body == b"http://api.test:443/"


def test_plain_http_to_an_address_is_keyed_on_it_then_on_its_host(stage: Stage) -> None:
    stage.http("api.test", b"by name")
    assert ask(stage.dial(ADDRESS, 80)).body == b"by name"
    stage.http(ADDRESS, b"by address")
    assert ask(stage.dial(ADDRESS, 80)).body == b"by address"


def test_a_hello_that_comes_byte_by_byte_is_answered(stage: Stage, ca: trustme.CA) -> None:
    stage.https("api.test", b"patience")
    sock = stage.dial()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(ca).wrap_bio(incoming, outgoing, server_hostname="api.test")
    sock.settimeout(SECONDS)
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            for byte in outgoing.read():
                sock.sendall(bytes([byte]))
            incoming.write(sock.recv(65536))
    client.write(GET)
    sock.sendall(outgoing.read())
    incoming.write(sock.recv(65536))
    assert client.read().endswith(b"patience")


def test_the_handshake_offers_http_1_1_and_tells_what_it_settled_on(stage: Stage) -> None:
    route = stage.https("api.test")
    stage.trusting.set_alpn_protocols(["h2", "http/1.1"])
    sock = stage.tls()
    ask(sock)
    tls = route.calls[0].request.tls
    assert tls is not None
    assert (tls.version, tls.alpn) == (sock.version(), "http/1.1")
    assert tls.cipher == (sock.cipher() or ("",))[0]


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
    stage.https("api.test", Response(status, content=b"dropped"))
    sock = stage.tls()
    for _ in range(2):
        reply = ask(sock)
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


# What handlers do.


def test_an_async_handler_runs_on_a_loop_of_its_own(stage: Stage) -> None:
    loops = []

    async def handler(request: Request) -> str:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return request.path

    stage.https("api.test", handler)
    sock = stage.tls()
    assert [ask(sock).body for _ in range(2)] == [b"/", b"/"]
    assert loops[0] is not loops[1]


def test_a_handler_that_raises_gives_500_and_the_connection_goes_on(stage: Stage) -> None:
    error = LookupError("no such charge")

    def charges(request: Request) -> dict[str, int]:
        if request.path == "/bad":
            raise error
        return {"ok": 1}

    route = stage.https("api.test", charges)
    sock = stage.tls()
    reply = ask(sock, b"GET /bad HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert reply.status == 500
    assert reply.body.decode() == (
        'pytest-egress: the handler of intercept_https("api.test")  declared at test_it.py:7'
        " raised LookupError: no such charge\n"
        "  for GET https://api.test/bad of target\n"
        "The test fails with its traceback.\n"
    )
    assert ask(sock).body == b'{"ok": 1}'
    first, second = stage.entries(Exchange)
    assert (first.error, second.error) == (error, None)
    assert route.call_count == 1


def test_whatever_a_handler_raises_is_kept_for_the_test(stage: Stage) -> None:
    def handler(request: Request) -> None:
        pytest.fail("not like this")

    stage.https("api.test", handler)
    assert ask(stage.tls()).status == 500
    assert type(stage.only(Exchange).error) is pytest.fail.Exception


def test_a_handler_that_returns_nonsense_is_an_error_that_lists_the_answers(stage: Stage) -> None:
    stage.https("api.test", lambda request: object)
    assert ask(stage.tls()).status == 500
    error = stage.only(Exchange).error
    assert isinstance(error, TypeError)
    _, _, text = str(error).partition(" returned ")
    assert text == (
        "<class 'object'> is no answer: it takes a Response, dict or list (sent as JSON), bytes, a status (int), "
        "(status, body), or None, str, or an iterator of bytes or str, async or not"
    )


def test_a_predicate_that_raises_gives_500_and_counts_no_call(stage: Stage) -> None:
    route = stage.https("api.test", match=lambda request: request.json()["id"] == 1)
    assert ask(stage.tls()).status == 500
    assert isinstance(stage.only(Exchange).error, ValueError)
    assert not route.called


def test_a_streamed_body_that_raises_cuts_the_response(stage: Stage) -> None:
    error = OSError("disk on fire")  # not to be taken for an error of the connection

    def stream() -> Iterator[bytes]:
        yield b"beginning"
        raise error

    stage.https("api.test", lambda request: stream())
    sock = stage.strict_tls()
    sock.sendall(GET)
    with pytest.raises(OSError, match=r"EOF|unknown error|reset"):  # and no end in good order
        drain(sock)
    exchange = stage.only(Exchange)
    assert (exchange.error, exchange.note) == (error, "")


def test_a_streamed_body_that_yields_neither_bytes_nor_text_is_an_error(stage: Stage) -> None:
    stage.https("api.test", lambda request: iter([b"beginning", 7]))
    sock = stage.tls()
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    error = str(stage.only(Exchange).error)
    assert error.endswith(" yielded 7: a streamed body is of bytes or str, and this is int")


def test_a_response_that_http_cannot_carry_is_an_error(stage: Stage) -> None:
    stage.https("api.test", Response(content=b"four", headers={"Transfer-Encoding": "gzip"}))
    sock = stage.tls()
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    assert isinstance(stage.only(Exchange).error, h11.LocalProtocolError)


def test_a_client_that_closes_early_ends_the_stream(stage: Stage) -> None:
    ended = threading.Event()

    def stream() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            ended.set()

    stage.https("api.test", lambda request: stream())
    sock = stage.tls()
    sock.sendall(GET)
    sock.recv(1)
    reset(sock)
    assert ended.wait(SECONDS)
    exchange = stage.only(Exchange)
    assert exchange.note.startswith("the client closed before the whole response was sent (")
    assert (exchange.outcome, exchange.error) == ("routed", None)


def test_a_client_that_does_not_wait_for_its_refusal_is_told_of_as_any_other(stage: Stage) -> None:
    has_gone = threading.Event()
    stage.https("api.test", match=lambda request: not has_gone.wait(SECONDS))
    sock = stage.tls()
    sock.sendall(GET)
    assert eventually(lambda: not stage.gateway.unread())
    reset(sock)
    has_gone.set()
    exchange = stage.only(Exchange)
    assert (exchange.outcome, exchange.note) == ("unrouted", "")  # a note would hide the remedy


def test_a_slow_handler_delays_no_other_connection(stage: Stage) -> None:
    go_on = threading.Event()

    def handler(request: Request) -> str:
        if request.path == "/slow":
            assert go_on.wait(SECONDS)
        return request.path

    stage.https("api.test", handler)
    slow = stage.tls()
    slow.sendall(b"GET /slow HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert ask(stage.tls()).body == b"/"
    go_on.set()
    assert read_reply(slow).body == b"/slow"


def test_a_call_counts_when_its_handler_has_returned_and_before_the_client_hears(
    stage: Stage,
) -> None:
    counts = []

    def handler(request: Request) -> None:
        counts.append(route.call_count)

    route = stage.https("api.test", handler)
    sock = stage.tls()
    for number in (1, 2, 3):
        ask(sock)
        assert route.call_count == number
    assert counts == [0, 1, 2]


def test_an_exchange_begins_with_its_request_and_not_with_its_connection(stage: Stage) -> None:
    route = stage.https("api.test")
    sock = stage.tls()
    for _ in range(2):
        before = stage.ledger.now()
        ask(sock)
        exchange = route.calls[-1]
        assert exchange.duration is not None
        assert before <= exchange.started <= exchange.started + exchange.duration
        assert exchange.started + exchange.duration <= stage.ledger.now()


def test_an_exchange_that_was_waited_for_is_complete(stage: Stage) -> None:
    route = stage.https("api.test", b"yes")
    sock = stage.tls()
    for number in range(1, 50):
        sock.sendall(GET)
        exchange = route.wait_for_call(number)
        assert exchange.response is not None
        assert exchange.response.content == b"yes"
        assert exchange.duration is not None
        read_reply(sock)


# What is refused.


def test_an_unclaimed_request_gets_502_and_says_what_would_answer_it(stage: Stage) -> None:
    stage.https("apis.test", path="/v1")
    reply = ask(stage.tls(), b"GET /v1?a=b HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert (reply.status, reply.headers["content-type"]) == (502, "text/plain; charset=utf-8")
    assert reply.body.decode() == (
        "pytest-egress: no route answers GET https://api.test/v1?a=b\n"
        "nearest route: intercept_https(\"apis.test\", path='/v1')\n"
        "    declared at test_it.py:7\n"
        "    host: 'api.test' is not 'apis.test'\n"
        'to answer it: egress.intercept_https("api.test", method="GET", path="/v1")\n'
    )
    assert stage.only(Exchange).outcome == "unrouted"


def test_a_request_that_no_matcher_accepts_is_unrouted_whatever_the_policy(stage: Stage) -> None:
    stage.window.policy = "block"
    stage.https("api.test", method="POST", json={"a": 1})
    reply = ask(stage.tls())
    assert reply.status == 502
    assert reply.body.decode() == (
        "pytest-egress: no route answers GET https://api.test/\n"
        "nearest route: intercept_https(\"api.test\", method='POST', json={'a': 1})\n"
        "    declared at test_it.py:7\n"
        "    method: GET is not POST\n"
        "    json: the body is no JSON: b''\n"
        'to answer it: egress.intercept_https("api.test", method="GET", path="/")\n'
    )
    assert stage.only(Exchange).outcome == "unrouted"


def test_what_is_blocked_gets_502_and_says_by_what(stage: Stage) -> None:
    stage.route("block", "api.test")
    reply = ask(stage.tls())
    assert (reply.status, reply.body.decode()) == (
        502,
        'pytest-egress: GET https://api.test/ is blocked by block("api.test")  declared at test_it.py:7\n',
    )
    assert stage.only(Exchange).outcome == "blocked"


def test_the_policy_blocks_what_no_route_claims(stage: Stage) -> None:
    stage.window.policy = "block"
    reply = ask(stage.tls())
    assert (reply.status, reply.body.decode()) == (
        502,
        'pytest-egress: GET https://api.test/ is blocked by unrouted="block"\n',
    )
    assert stage.only(Exchange).outcome == "blocked"


def test_a_host_that_is_not_the_server_name_is_misdirected(stage: Stage) -> None:
    route = stage.https("api.test")
    reply = ask(stage.tls(), b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
    assert (reply.status, reply.body.decode()) == (
        421,
        "pytest-egress: GET https://api.test/: its Host is 'evil.test', which is not 'api.test'\n",
    )
    assert stage.only(Exchange).outcome == "unrouted"
    assert not route.called


def test_a_host_that_is_not_the_dialled_name_is_misdirected(stage: Stage) -> None:
    stage.resolve("api.test")
    for host in (b"evil.test", b"203.0.113.9", b"[", b"a b"):
        request = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host
        assert ask(stage.dial(FIRST, 80), request).status == 421


@pytest.mark.parametrize(
    ("request_bytes", "status", "note"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Missing mandatory Host: header"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "Found multiple Host: headers"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400, "illegal header line"),
        (b"GET /\r\n\r\n", 400, "illegal request line"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Transfer-Encoding"),
        (b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * 2 * fields.MAX_HEADER_BYTES), 431, "too"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "the client speaks HTTP/2, and HTTP/1.1 is"),
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
    monkeypatch.setattr(http1, "MAX_BODY_BYTES", 1000)
    monkeypatch.setattr(http1_server, "MAX_BODY_BYTES", 1000)
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
    monkeypatch.setattr(http1_server, "MAX_BODY_BYTES", 1000)
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


# What is neither TLS nor HTTP.


@pytest.mark.parametrize(
    "first_bytes",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        bytes(64),
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"EHLO target.test\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\xff\xfe\xfd",
        b"GARBAGE\n",
    ],
    ids=["ssh", "zeros", "postgres", "smtp", "redis", "binary", "word"],
)
def test_what_is_neither_tls_nor_http_is_reset_and_recorded(
    stage: Stage, first_bytes: bytes
) -> None:
    sock = stage.dial(ADDRESS, 5432)
    sock.sendall(first_bytes)
    assert end_of(sock) == "reset"
    attempt = stage.only(TcpConnection)
    assert (attempt.outcome, attempt.host, attempt.port) == ("unrouted", ADDRESS, 5432)
    assert (attempt.address, attempt.first_bytes) == (ADDRESS, first_bytes)


def test_garbage_is_unrouted_at_a_claimed_address_too(stage: Stage) -> None:
    stage.https(ADDRESS)
    sock = stage.dial()
    sock.sendall(b"\x00garbage")
    assert end_of(sock) == "reset"
    assert stage.only(TcpConnection).outcome == "unrouted"


def test_a_blocked_address_fails_no_test_whatever_is_spoken(stage: Stage) -> None:
    stage.route("block", ADDRESS)
    sock = stage.dial()
    sock.sendall(b"\x00garbage")
    assert end_of(sock) == "reset"
    assert stage.only(TcpConnection).outcome == "blocked"


@pytest.mark.parametrize("beginning", [b"G", b"SSH-2.0-x", b"GET ", b"GET nowhere"])
def test_a_client_that_stops_within_its_first_word_is_recorded(
    stage: Stage, short_stall: None, beginning: bytes
) -> None:
    sock = stage.dial()
    sock.sendall(beginning)
    assert end_of(sock) == "reset"
    assert stage.only(TcpConnection).first_bytes == beginning


def test_a_client_that_connects_and_closes_is_recorded(stage: Stage) -> None:
    stage.dial(ADDRESS, 5432).close()
    attempt = stage.only(TcpConnection)
    assert (attempt.outcome, attempt.note) == (
        "unrouted",
        "connected and closed without sending a byte",
    )


def test_a_client_that_connects_and_resets_is_recorded(stage: Stage) -> None:
    reset(stage.dial(ADDRESS, 5432))
    attempt = stage.only(TcpConnection)
    assert attempt.outcome == "unrouted"
    assert attempt.note.startswith("broke off: ")


def test_a_silent_client_is_reset_at_an_unclaimed_address(
    stage: Stage, short_silence: None
) -> None:
    assert end_of(stage.dial(ADDRESS, 5432)) == "reset"
    attempt = stage.only(TcpConnection)
    assert (attempt.outcome, attempt.note) == (
        "unrouted",
        "connected and sent nothing within 0.3 s",
    )


def test_a_silent_client_may_speak_late_at_a_claimed_address(
    stage: Stage, short_silence: None
) -> None:
    stage.http(ADDRESS, b"at last")
    sock = stage.dial(ADDRESS, 80)
    assert eventually(lambda: stage.window.entries)
    stage.settle()  # it is idle: no window waits for it
    assert ask(sock).body == b"at last"
    silence, exchange = stage.entries(Entry)
    assert isinstance(silence, TcpConnection)
    assert (silence.outcome, exchange.outcome) == ("recorded", "routed")


def test_a_client_that_is_silent_after_the_handshake_is_treated_likewise(
    stage: Stage, short_silence: None
) -> None:
    assert end_of(stage.tls("other.test")) == "reset"
    stage.https("api.test", b"at last")
    sock = stage.tls("api.test")
    assert eventually(lambda: len(stage.window.entries) == 2)
    assert ask(sock).body == b"at last"
    sock.close()
    unclaimed, claimed, exchange = stage.entries(Entry)
    for entry, outcome in ((unclaimed, "unrouted"), (claimed, "recorded")):
        assert isinstance(entry, TlsFailure)
        assert (entry.outcome, entry.reason) == (outcome, "silent")
        assert entry.note == "sent nothing within 0.3 s of the handshake"
    assert exchange.outcome == "routed"


def test_a_dial_of_the_listener_itself_is_no_attempt(stage: Stage) -> None:
    sock = stage.open.enter_context(stage.link.dial_listener())
    assert end_of(sock) == "closed"
    assert stage.entries(Entry) == []


def test_a_destination_that_the_kernel_has_forgotten_fails_the_test(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgotten(sock: socket.socket) -> tuple[str, int]:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(stage.link, "destination", forgotten)
    assert end_of(stage.dial()) == "closed"
    stage.settle()
    assert stage.window.complaints == [
        "target: what a connection dialled cannot be known ([Errno 2] No such file or directory)"
    ]
    stage.window.complaints.clear()


# Handshakes that fail.


def breaks_off(stage: Stage, ca: trustme.CA) -> None:
    sock = stage.dial()
    sock.sendall(hello_bytes(ca))
    sock.recv(1)
    sock.close()


def distrusts(stage: Stage, ca: trustme.CA) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        stage.tls(context=client_context(trustme.CA()))


def closes_after_the_handshake(stage: Stage, ca: trustme.CA) -> None:
    stage.tls().close()


def resets_after_its_hello(stage: Stage, ca: trustme.CA) -> None:
    sock = stage.dial()
    sock.sendall(hello_bytes(ca))
    sock.recv(1)
    reset(sock)


def offers_tls_1_1(stage: Stage, ca: trustme.CA) -> None:
    context = client_context(ca)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(OSError, match=r"ALERT|alert|reset"):
        stage.tls(context=context)


def shares_no_cipher(stage: Stage, ca: trustme.CA) -> None:
    context = client_context(ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256")  # RSA key exchange; our leaf is ECDSA
    with pytest.raises(OSError, match=r"ALERT|alert|reset"):
        stage.tls(context=context)


def sends_half_a_hello(stage: Stage, ca: trustme.CA) -> None:
    sock = stage.dial()
    sock.sendall(hello_bytes(ca)[:100])
    sock.shutdown(socket.SHUT_WR)


def stops_within_its_hello(stage: Stage, ca: trustme.CA) -> None:
    beginning = hello_bytes(ca)[:100]
    stage.dial().sendall(beginning)


def stops_after_its_hello(stage: Stage, ca: trustme.CA) -> None:
    stage.dial().sendall(hello_bytes(ca))


def sends_no_hello(stage: Stage, ca: trustme.CA) -> None:
    stage.dial().sendall(b"\x16\x03\x01\x00\x05hello")


def names_no_host(stage: Stage, ca: trustme.CA) -> None:
    hello = hello_bytes(ca, "api-x.test").replace(b"api-x", b"api x")
    stage.dial().sendall(hello)


FAILURES = [
    (
        distrusts,
        "untrusted",
        "does not trust the CA of this run for 'api.test' (alert: unknown CA)",
    ),
    (breaks_off, "likely-untrusted", "broke off within the handshake, with no alert"),
    (resets_after_its_hello, "likely-untrusted", "broke off within the handshake, with no alert"),
    (
        closes_after_the_handshake,
        "unused",
        "closed a connection to 'api.test' right after the handshake",
    ),
    (offers_tls_1_1, "protocol", "it offers only TLS versions older than 1.2"),
    (shares_no_cipher, "protocol", "it offers no cipher suite that this Python's OpenSSL accepts"),
    (sends_half_a_hello, "incomplete", "it ended, or stopped, within its ClientHello"),
    (stops_within_its_hello, "incomplete", "it ended, or stopped, within its ClientHello"),
    (stops_after_its_hello, "timeout", "the handshake for 'api.test' did not end in time"),
    (sends_no_hello, "protocol", "it sent no ClientHello: "),
    (names_no_host, "sni", "its server name is no host name: 'api x.test' is no host: "),
]


@pytest.mark.parametrize(
    ("client", "reason", "note"), FAILURES, ids=[client.__name__ for client, *_ in FAILURES]
)
@pytest.mark.parametrize("claim", ["intercept_https", "block", None])
def test_a_handshake_that_fails_says_why(
    stage: Stage,
    ca: trustme.CA,
    short_handshake: None,
    client: Callable[[Stage, trustme.CA], None],
    reason: str,
    note: str,
    claim: str | None,
) -> None:
    if claim:
        stage.route(claim, "*")
    client(stage, ca)
    assert eventually(lambda: stage.window.entries)
    failure = stage.only(TlsFailure)
    outcomes = {"intercept_https": "recorded", "block": "blocked", None: "unrouted"}
    assert (failure.outcome, failure.reason) == (outcomes[claim], reason)
    assert note in failure.note
    assert (failure.address, failure.port) == (ADDRESS, 443)


# Names, packets and what happens to the namespace.


def test_every_name_resolves_and_its_address_tells_it(stage: Stage) -> None:
    assert stage.resolve("api.test") == FIRST
    assert stage.resolve("other.test") == SECOND
    assert stage.resolve("API.test") == FIRST
    stage.https("other.test", lambda request: request.host)
    assert ask(stage.tls("other.test", SECOND), GET.replace(b"api", b"other")).body == b"other.test"
    queries = [(q.host, q.type, q.answer, q.outcome) for q in stage.entries(DnsQuery)]
    assert queries == [
        ("api.test", "A", (FIRST,), "recorded"),
        ("other.test", "A", (SECOND,), "recorded"),
        ("api.test", "A", (FIRST,), "recorded"),
    ]


def test_names_resolve_over_tcp_too(stage: Stage) -> None:
    sock = stage.dial("198.18.0.1", 53)
    sock.settimeout(SECONDS)
    wires = [dns.message.make_query(name, "A").to_wire() for name in ("a.test", "b.test", "c.test")]
    sock.sendall(b"".join(map(tcp_frame, wires))[:-3])
    sock.sendall(wires[-1][-3:])
    data = b""
    answers: list[dns.message.Message] = []
    while len(answers) < 3:
        frames, data = tcp_frames(data + sock.recv(4096))
        answers += [dns.message.from_wire(frame) for frame in frames]
    assert [str(answer.answer[0][0]) for answer in answers] == [FIRST, SECOND, "198.18.0.3"]
    assert [query.host for query in stage.entries(DnsQuery)] == ["a.test", "b.test", "c.test"]
    sock.close()
    assert len(stage.entries(Entry)) == 3


def test_on_the_port_of_names_nothing_else_hides(stage: Stage) -> None:
    attempts = {
        b"\xff\x00garbage": b"\xff\x00garbage",
        b"\x00\x03abc": b"abc",  # shorter than a header
        b"\x00\xffcut": b"\x00\xffcut",
    }
    for sent in attempts:
        sock = stage.dial(ADDRESS, 53)
        sock.sendall(sent)
        with contextlib.suppress(OSError):  # it may have been reset already
            sock.shutdown(socket.SHUT_WR)
        end_of(sock)
    stage.settle()
    found = [attempt.first_bytes for attempt in stage.entries(TcpConnection)]
    assert sorted(found) == sorted(attempts.values())
    ask(stage.dial(ADDRESS, 53))
    assert stage.entries(Exchange)[0].outcome == "unrouted"


def send_datagrams(stage: Stage, *datagrams: bytes) -> None:
    """Send them to the port of names, as a target does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for datagram in datagrams:
            sock.sendto(datagram, stage.link.dns[0].getsockname())


def test_garbage_instead_of_a_query_is_an_attempt_and_gets_no_answer_or_an_error(
    stage: Stage,
) -> None:
    garbage = b"\x12\x34" + b"\x00\x00" + b"\xff" * 60
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.sendto(b"short", stage.link.dns[0].getsockname())
        sock.sendto(garbage, stage.link.dns[0].getsockname())
        answer = sock.recv(4096)
    assert answer[:2] == b"\x12\x34"
    assert answer[3] & 15 == dns.rcode.FORMERR
    assert stage.entries(DnsQuery) == []
    short, long = stage.entries(PacketAttempt)
    assert (short.outcome, str(short), short.first_bytes) == (
        "unrouted",
        "UDP *:53, 13 bytes",
        b"short",
    )
    assert (long.size, long.first_bytes) == (72, garbage)
    assert unrouted_text([short, long]) == (
        "2 unrouted attempts of target; nothing got out:\n"
        "\n"
        "  UDP *:53, 13 bytes\n"
        "      it is no DNS query: it is shorter than the header of one;\n"
        "      for which server it was is not known\n"
        '      to expect it: egress.block("*:53")\n'
        "\n"
        "  UDP *:53, 72 bytes\n"
        "      it is no DNS query: it does not ask one question alone;\n"
        "      for which server it was is not known\n"
        '      to expect it: egress.block("*:53")'
    )


def test_a_block_of_every_server_expects_what_is_no_query_and_one_of_another_port_does_not(
    stage: Stage,
) -> None:
    stage.route("block", "*:443")
    send_datagrams(stage, b"one")
    assert stage.only(PacketAttempt).outcome == "unrouted"
    block = stage.route("block", "*:53")
    send_datagrams(stage, b"two")
    assert [p.outcome for p in stage.entries(PacketAttempt)] == ["unrouted", "blocked"]
    assert block.call_count == 1


def test_a_packet_to_the_port_of_names_says_why_it_is_no_query(stage: Stage) -> None:
    query = dns.message.make_query("api.test", "A").to_wire()
    for payload in (b"hello", query):  # of a raw socket: a query is no redirected one either
        stage.link.packet_source.send(log_of(17, ADDRESS, udp(53, payload)))
    notes = [(p.outcome, p.host, p.note) for p in stage.entries(PacketAttempt)]
    assert notes == [
        ("unrouted", ADDRESS, "it is no DNS query: it is shorter than the header of one"),
        ("unrouted", ADDRESS, ""),
    ]


def test_a_flood_of_what_is_no_query_keeps_no_more_than_a_ledger_may(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_ENTRIES", 10)
    send_datagrams(stage, *(b"x" for _ in range(100)))
    stage.settle()
    assert (len(stage.window.entries), stage.window.unrecorded) == (10, 90)


@pytest.mark.parametrize("wire", [b"\x12\x34\x28\0" + bytes(12), b"\x12\x34\x80\0" + bytes(12)])
def test_what_is_no_query_over_tcp_is_a_connection_that_no_route_claims(
    stage: Stage, wire: bytes
) -> None:
    sock = stage.dial(ADDRESS, 53)
    sock.sendall(tcp_frame(dns.message.make_query("api.test", "A").to_wire()) + tcp_frame(wire))
    assert end_of(sock) == "reset"
    (attempt,) = stage.entries(TcpConnection)
    assert (attempt.outcome, attempt.host, attempt.first_bytes) == ("unrouted", ADDRESS, wire)
    assert attempt.note.startswith("it is no DNS query: it")
    assert [query.host for query in stage.entries(DnsQuery)] == ["api.test"]


def test_more_addresses_than_fit_a_datagram_come_whole_over_tcp(stage: Stage) -> None:
    addresses = [f"203.0.{n // 256}.{n % 256}" for n in range(2000)]
    stage.route("dns", "many.test", addresses)
    assert stage.query("many.test").flags & dns.flags.TC
    sock = stage.dial(FIRST, 53)
    sock.settimeout(SECONDS)
    query = dns.message.make_query("many.test", "A")
    dns.query.send_tcp(sock, query)
    reply, _ = dns.query.receive_tcp(sock)
    assert sorted(str(record) for record in reply.answer[0]) == sorted(addresses)
    short, whole = (len(query.answer) for query in stage.entries(DnsQuery))
    assert (short, whole) == (30, 2000)


def test_more_addresses_than_any_answer_holds_leave_the_next_name_to_be_answered(
    stage: Stage,
) -> None:
    stage.route("dns", "many.test", [f"2001:db8::{n:x}" for n in range(9000)])
    assert stage.query("many.test", "AAAA").flags & dns.flags.TC
    assert stage.resolve("api.test") == FIRST


def log_of(protocol: int, destination: str, transport: bytes, number: bytes = b"") -> bytes:
    """What the kernel's packet log says of an IPv4 packet (linux/netfilter/nfnetlink_log.h)."""
    header = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(transport), 0, 0, 64, protocol, 0),
        *map(socket.inet_aton, ("192.0.2.1", destination)),
    )
    sequence = netlink.attribute(12, number) if number else b""
    packet = netlink.attribute(9, header + transport)
    return netlink.message(4 << 8, 0, bytes(4) + packet + sequence)


def udp(port: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", 5000, port, 8 + len(payload), 0) + payload


def test_packets_are_attempts_with_the_name_that_was_meant(stage: Stage) -> None:
    stage.resolve("time.test")
    stage.route("block", f"{ADDRESS}:123")
    for destination, protocol, transport in (
        (FIRST, 17, udp(123, b"what time is it?" * 8)),
        (ADDRESS, 17, udp(123, b"x")),
        (ADDRESS, 1, bytes(8)),
        (ADDRESS, 6, bytes(12) + b"\x50" + bytes(7)),
    ):
        stage.link.packet_source.send(log_of(protocol, destination, transport))
    found = [
        (p.outcome, p.protocol, p.host, p.port, p.address, p.size, p.first_bytes[:4])
        for p in stage.entries(PacketAttempt)
    ]
    assert found == [
        ("unrouted", "UDP", "time.test", 123, FIRST, 136, b"what"),
        ("blocked", "UDP", ADDRESS, 123, ADDRESS, 9, b"x"),
        ("unrouted", "ICMP", ADDRESS, None, ADDRESS, 8, b""),
        ("unrouted", "TCP", ADDRESS, 0, ADDRESS, 20, b""),  # of a raw socket
    ]
    assert len(stage.entries(PacketAttempt)[0].first_bytes) == 64


def test_packets_that_are_missing_are_counted(stage: Stage) -> None:
    for number in (0, 1, 5):
        packet = log_of(17, ADDRESS, udp(123, b"x"), number.to_bytes(4, "big"))
        stage.link.packet_source.send(packet)
    stage.settle()
    assert stage.window.unrecorded == 3
    stage.link.packet_source.send(b"")  # what a link says that has lost some
    stage.settle()
    assert stage.window.complaints == ["target: packets came faster than they could be recorded"]
    stage.window.complaints.clear()


def test_packets_that_were_lost_are_counted_once_whether_others_follow_or_not(stage: Stage) -> None:
    def arrive(number: int) -> None:
        packet = log_of(17, ADDRESS, udp(123, b"x"), number.to_bytes(4, "big"))
        stage.link.packet_source.send(packet)
        stage.settle()

    arrive(0)
    stage.link.lost_packets = 7
    stage.settle()
    assert stage.window.unrecorded == 7
    arrive(8)  # what came after them tells of the same
    assert stage.window.unrecorded == 7
    arrive(11)
    assert stage.window.unrecorded == 9
    stage.link.lost_packets = 9
    stage.settle()
    assert stage.window.unrecorded == 9


def test_quic_where_https_is_answered_is_no_offence(stage: Stage) -> None:
    stage.https(ADDRESS)
    for port in (443, 444):
        stage.link.packet_source.send(log_of(17, ADDRESS, udp(port, b"x")))
    assert [p.outcome for p in stage.entries(PacketAttempt)] == ["recorded", "unrouted"]


def test_a_frame_that_is_no_ip_is_recorded(stage: Stage) -> None:
    attributes = {
        1: struct.pack("!HBx", 0x0806, 5),  # NFULA_PACKET_HDR: the ethertype of ARP
        16: bytes(14),  # NFULA_HWHEADER
        9: bytes(24) + socket.inet_aton("192.0.2.9"),  # NFULA_PAYLOAD: whom it asks for
    }
    body = b"".join(netlink.attribute(kind, data) for kind, data in attributes.items())
    stage.link.packet_source.send(netlink.message(4 << 8, 0, bytes(4) + body))
    (frame,) = stage.entries(PacketAttempt)
    assert (frame.outcome, frame.protocol, frame.host) == ("recorded", "ARP", "192.0.2.9")


def test_a_change_of_what_captures_fails_the_test(stage: Stage) -> None:
    stage.link.monitor_source.send(netlink.message(33, 0, bytes(12)))  # RTM_DELRULE
    stage.gateway.flush(SECONDS)
    assert stage.window.complaints == [
        "target: something deleted a policy rule in the target's network namespace"
    ]
    stage.window.complaints.clear()


def test_when_the_sidecar_dies_nobody_is_left_waiting(stage: Stage) -> None:
    stage.link.agent.close()
    assert stage.was_lost.wait(SECONDS)
    stage.gateway.flush(SECONDS)
    with pytest.raises(ConnectionRefusedError):
        stage.dial()


def test_a_forked_child_keeps_no_connection_open_and_no_reader_asleep(stage: Stage) -> None:
    stage.http("api.test", b"all")
    sock = stage.dial(port=80)
    read, write = os.pipe()
    assert eventually(lambda: stage.gateway.connections)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: a fork beside threads
        child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the test is over
        os._exit(0)
    try:
        assert ask(sock, b"GET / HTTP/1.0\r\nHost: api.test\r\n\r\n").body == b"all"
        assert end_of(sock) == "closed"
        stage.gateway.stop()
        assert not stage.gateway._reader.is_alive()
    finally:
        os.close(write)
        os.waitpid(child, 0)
        os.close(read)
    assert not stage.window.complaints


def test_a_defect_of_the_reader_fails_the_test_and_hangs_nobody(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse_packets(data: bytes) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(gateway_module, "parse_packets", parse_packets)
    stage.link.packet_source.send(b"x")
    stage.gateway.flush(SECONDS)
    assert eventually(lambda: stage.window.complaints)
    (complaint,) = stage.window.complaints
    assert complaint.startswith("target: the gateway failed: Traceback")
    assert "ZeroDivisionError: a defect" in complaint
    with pytest.raises(ConnectionRefusedError):
        stage.dial()
    stage.window.complaints.clear()


def test_a_defect_in_an_answer_of_dns_fails_the_test_and_ends_no_reader(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rule(*args: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as broken:
        broken.setattr(stage.gateway.names, "_rule", rule)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            query = dns.message.make_query("api.test", "A").to_wire()
            sock.sendto(query, stage.link.dns[0].getsockname())
            stage.gateway.flush(SECONDS)
    (complaint,) = stage.window.complaints
    assert complaint.startswith("target: a DNS query was not answered: Traceback")
    stage.window.complaints.clear()
    assert stage.resolve("api.test") == FIRST


def test_a_defect_in_a_connection_fails_the_test(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks_like_http(connection: object) -> bool:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(dispatch.Dispatcher, "looks_like_http", looks_like_http)
    sock = stage.dial()
    sock.sendall(b"x")
    end_of(sock)
    stage.settle()
    (complaint,) = stage.window.complaints
    assert "ZeroDivisionError: a defect" in complaint
    stage.window.complaints.clear()


# Windows.


def test_a_request_belongs_to_the_window_in_which_it_begins(stage: Stage) -> None:
    stage.https("api.test")
    sock = stage.tls()
    ask(sock)
    stage.settle()
    first, stage.window = stage.window, Window()
    ask(sock)
    stage.settle()
    assert [len(window.entries) for window in (first, stage.window)] == [1, 1]


def test_a_pipelined_request_belongs_to_the_window_in_which_it_was_read(stage: Stage) -> None:
    first, second = stage.window, Window()

    def handler(request: Request) -> None:
        stage.window = second

    stage.https("api.test", handler)
    sock = stage.tls()
    sock.sendall(GET * 3)
    received = b""
    while received.count(b"HTTP/1.1 200") < 3:
        received += sock.recv(65536)
    stage.settle()
    assert (len(first.entries), len(second.entries)) == (3, 0)
    assert eventually(lambda: not first.activities)


def test_an_idle_connection_keeps_no_window_open(stage: Stage) -> None:
    stage.https("api.test")
    ask(stage.tls())
    stage.settle()  # would not return
    assert stage.gateway.connections


def test_a_request_that_has_arrived_is_unread_until_it_belongs_to_a_window(stage: Stage) -> None:
    stage.https("api.test")
    sock = stage.tls()
    ask(sock)
    stage.settle()
    with stage.ledger.changed:  # nothing can begin
        sock.sendall(GET)
        assert eventually(stage.gateway.unread)
        for _ in range(20):  # time enough for the connection's thread to take it
            time.sleep(0.01)
            assert stage.gateway.unread()
    assert read_reply(sock).status == 200


def test_a_request_that_has_begun_keeps_its_window_open(stage: Stage) -> None:
    stage.https("api.test")
    sock = stage.tls()
    ask(sock)
    stage.settle()
    sock.sendall(b"GET / HTTP/1.1\r\n")
    assert eventually(stage.window.activities.__len__)
    assert not stage.ledger.wait_for(lambda: not stage.window.activities, 0.05)
    ask(sock, b"Host: api.test\r\n\r\n")
    stage.settle()


def test_a_handler_that_runs_is_known_by_its_route_and_request(stage: Stage) -> None:
    seen: list[tuple[object, str]] = []

    def note(request: Request) -> None:
        (activity,) = stage.window.activities
        seen.append((activity.route, str(activity.what)))

    def stream() -> Iterator[bytes]:
        note_route()
        yield b"x"

    def note_route() -> None:
        (activity,) = stage.window.activities
        seen.append((activity.route, str(activity.what)))

    whole = stage.https("api.test", note, path="/whole")
    streamed = stage.https("api.test", lambda request: stream(), path="/stream")
    sock = stage.tls()
    for path in (b"/whole", b"/stream"):
        ask(sock, GET.replace(b" / ", b" %b " % path))
    assert seen == [
        (whole, "GET https://api.test/whole"),
        (streamed, "GET https://api.test/stream"),
    ]


# Many connections.


def test_at_the_cap_the_longest_idle_connection_gives_way(
    ca: trustme.CA, monkeypatch: pytest.MonkeyPatch, short_silence: None
) -> None:
    monkeypatch.setattr(connections_module, "MAX_OPEN", 3)
    stage = Stage(ca)
    with stage.open:
        stage.gateway.start()
        stage.https("api.test", b"yes")
        oldest, *others = socks = [stage.tls() for _ in range(3)]
        for sock in socks:
            assert ask(sock).body == b"yes"
            stage.settle()
        newest = stage.tls()
        assert ask(newest).body == b"yes"
        assert end_of(oldest) == "closed"
        for sock in (*others, newest):
            assert ask(sock).body == b"yes"
        assert len(stage.gateway.connections) == 3


def test_while_the_cap_is_held_names_resolve_and_the_next_waits(
    ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "MAX_CONNECTIONS", 2)
    stage, go_on = Stage(ca), threading.Event()
    with stage.open:
        stage.gateway.start()
        stage.https("api.test", lambda request: 200 if go_on.wait(SECONDS) else 500)
        busy = [stage.tls() for _ in range(2)]
        for sock in busy:
            sock.sendall(GET)
        waiting = stage.dial()
        waiting.sendall(b"\x00garbage")
        assert stage.resolve("api.test") == FIRST
        assert len(stage.gateway.connections) == 2
        go_on.set()
        assert [read_reply(sock).status for sock in busy] == [200, 200]
        assert end_of(waiting) == "reset"


def test_what_waits_at_the_cap_when_its_test_ends_is_reset_and_counted(
    ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "MAX_CONNECTIONS", 2)
    stage, go_on = Stage(ca), threading.Event()
    with stage.open:
        stage.gateway.start()
        stage.https("api.test", lambda request: 200 if go_on.wait(SECONDS) else 500)
        first, second = (stage.tls() for _ in range(2))
        first.sendall(GET)
        second.sendall(GET)
        assert eventually(lambda: len(stage.gateway.busy()) == 2)
        waiting = [stage.dial() for _ in range(3)]
        stage.gateway.turn_away()
        assert stage.window.unrecorded == 3
        assert [end_of(sock) for sock in waiting] == ["reset"] * 3
        go_on.set()
        assert [read_reply(sock).status for sock in (first, second)] == [200, 200]


def test_what_waits_for_want_of_a_descriptor_is_told_at_the_end_of_its_test(
    ca: trustme.CA,
) -> None:
    tried = threading.Event()

    class Listener(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            tried.set()
            raise OSError(errno.EMFILE, "Too many open files")

    link = LoopbackLink()
    link.tcp = tuple(Listener(fileno=sock.detach()) for sock in link.tcp)
    stage = Stage(ca, link)
    with stage.open:
        stage.gateway.start()
        stage.dial()
        assert tried.wait(SECONDS)
        stage.gateway.turn_away()
        (complaint,) = stage.window.complaints
        assert "connections were left waiting that nobody counted ([Errno 24]" in complaint
        assert "`ulimit -n`" in complaint


def test_without_a_free_descriptor_an_idle_connection_gives_way(ca: trustme.CA) -> None:
    gateways: list[Gateway] = []

    class Listener(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            if gateways[0].connections:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    link = LoopbackLink()
    link.tcp = tuple(Listener(fileno=sock.detach()) for sock in link.tcp)
    stage = Stage(ca, link)
    gateways.append(stage.gateway)
    with stage.open:
        stage.gateway.start()
        stage.https("api.test", b"yes")
        first = stage.tls()
        assert ask(first).body == b"yes"
        assert ask(stage.tls()).body == b"yes"
        assert end_of(first) == "closed"


def test_200_connections_at_once_leave_a_whole_ledger_in_order(stage: Stage) -> None:
    route = stage.https("api.test", lambda request: request.path)

    def client(number: int) -> list[bytes]:
        sock = stage.tls()
        paths = [b"/%d/%d" % (number, turn) for turn in range(3)]
        return [ask(sock, b"GET %b HTTP/1.1\r\nHost: api.test\r\n\r\n" % p).body for p in paths]

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(client, range(200)))
    assert answers == [[b"/%d/%d" % (number, turn) for turn in range(3)] for number in range(200)]
    exchanges = stage.entries(Exchange)
    assert len(exchanges) == len(stage.window.entries) == route.call_count == 600
    assert all(e.response is not None and e.outcome == "routed" for e in exchanges)
    turns: dict[str, list[str]] = {}
    for exchange in exchanges:
        _, number, turn = exchange.request.path.split("/")
        turns.setdefault(number, []).append(turn)
    assert all(order == ["0", "1", "2"] for order in turns.values())
    assert len(turns) == 200


# Its end.


def descriptors() -> Counter[str]:
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    kinds: Counter[str] = Counter()
    for path in links:
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            kinds[os.readlink(path).partition(":")[0]] += 1
    return kinds


@pytest.mark.parametrize("turn", range(3))
def test_stopping_leaves_no_thread_and_no_descriptor(ca: trustme.CA, turn: int) -> None:
    hello = hello_bytes(ca)
    threads, opened = set(threading.enumerate()), descriptors()
    stage, go_on = Stage(ca), threading.Event()
    with stage.open:
        stage.https("api.test", b"yes")
        stage.https("api.test", bytes(20 * MEGABYTE), path="/big")
        stage.https("api.test", lambda request: go_on.wait(SECONDS) and None, path="/slow")
        stage.gateway.start()
        for _ in range(10):
            stage.dial().sendall(hello[:200])  # within its hello
            stage.dial().sendall(hello)  # within its handshake
            stage.tls().sendall(b"GET / HTTP/1.1\r\nHos")  # within a head
            ask(stage.tls())  # idle
            stage.tls().sendall(GET.replace(b" / ", b" /big "))  # blocked in a write
            stage.tls().sendall(GET.replace(b" / ", b" /slow "))  # within a handler
        assert eventually(lambda: stage.count("/slow") == stage.count("/big") == 10)
        assert len(stage.gateway.connections) == 60
        timer = threading.Timer(0.2, go_on.set)
        timer.start()
        assert stage.gateway.stop(SECONDS) == []
        assert not stage.gateway.connections
        timer.join()
    assert eventually(lambda: set(threading.enumerate()) <= threads)
    assert descriptors() == opened


def test_a_handler_that_never_ends_is_told_of_by_its_line(ca: trustme.CA) -> None:
    stage, go_on, started = Stage(ca), threading.Event(), threading.Event()

    def endless(request: Request) -> None:
        started.set()
        go_on.wait(SECONDS)

    stage.https("api.test", endless)
    stage.gateway.start()
    with stage.open:
        stage.tls().sendall(GET)
        assert started.wait(SECONDS)
        (text,) = stage.gateway.stop(0.1)
        assert text.startswith(f"{__file__}:")
        assert text.endswith(" in endless: go_on.wait(SECONDS)")
        go_on.set()
        assert eventually(lambda: not stage.gateway.connections)


def test_what_the_stop_itself_breaks_off_is_no_attempt(ca: trustme.CA) -> None:
    stage = Stage(ca)
    stage.gateway.start()
    with stage.open:
        stage.dial()
        stage.dial().sendall(hello_bytes(ca)[:100])
        stage.dial().sendall(hello_bytes(ca))
        stage.tls()
        stage.tls().sendall(b"PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 9\r\n\r\n")
        stage.tls().sendall(b"GET / HTTP/1.1\r\nHo")
        stage.gateway.flush(SECONDS)
        assert stage.gateway.stop(SECONDS) == []
    assert stage.window.entries == []
    assert stage.window.complaints == []


def test_a_gateway_can_be_stopped_again_or_before_its_start(ca: trustme.CA) -> None:
    stage = Stage(ca)
    with stage.open:
        stage.gateway.flush()
        assert stage.gateway.stop() == []
        assert stage.gateway.stop() == []
        stage.gateway.flush()


# Client certificates.


def own_certificate(ca: trustme.CA, issuer: trustme.CA | None = None) -> ssl.SSLContext:
    """A client that trusts the CA, and has a certificate of its own."""
    context = client_context(ca)
    (issuer or ca).issue_cert("shop@clients.test").configure_cert(context)
    return context


@pytest.mark.parametrize("wanted", ["request", "require"])
def test_a_client_certificate_is_in_the_request(stage: Stage, ca: trustme.CA, wanted: str) -> None:
    route = stage.https("api.test", {"id": 1}, client_certificate=wanted)
    assert ask(stage.tls(context=own_certificate(ca))).body == b'{"id": 1}'
    tls = route.calls[0].request.tls
    assert tls is not None
    assert tls.client_certificate is not None
    assert b"shop@clients.test" in tls.client_certificate


def test_a_client_certificate_that_is_requested_may_be_absent(stage: Stage) -> None:
    route = stage.https("api.test", client_certificate="request")
    assert ask(stage.tls()).status == 200
    tls = route.calls[0].request.tls
    assert tls is not None
    assert tls.client_certificate is None


def refused(sock: ssl.SSLSocket) -> None:
    """In TLS 1.3 the client hears of it with its first read."""
    with contextlib.suppress(OSError):
        sock.sendall(GET)
        assert sock.recv(1) == b""


def test_without_a_certificate_that_is_required_the_handshake_fails_and_says_so(
    stage: Stage,
) -> None:
    stage.https("api.test", client_certificate="require")
    refused(stage.tls())
    failure = stage.only(TlsFailure)
    assert (failure.outcome, failure.reason) == ("recorded", "client-certificate")
    assert failure.note == (
        "the target (OpenSSL, by its ClientHello) sent no client certificate to 'api.test', and "
        "intercept_https(\"api.test\", client_certificate='require') requires one: give it one of "
        "egress_ca.issue_cert(...) with files="
    )


@pytest.mark.parametrize("wanted", ["request", "require"])
def test_a_client_certificate_of_another_ca_does_not_hold(
    stage: Stage, ca: trustme.CA, wanted: str
) -> None:
    stage.https("api.test", client_certificate=wanted)
    refused(stage.tls(context=own_certificate(ca, trustme.CA())))
    assert stage.only(TlsFailure).note == (
        "the client certificate that the target (OpenSSL, by its ClientHello) sent to 'api.test' does not hold "
        "(unable to get local issuer certificate): it has to be one of egress_ca.issue_cert(...)"
    )


def test_a_client_that_speaks_http_2_alone_is_not_taken_for_one_that_distrusts(
    stage: Stage, ca: trustme.CA
) -> None:
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    stage.tls(context=context).close()
    failure = stage.only(TlsFailure)
    assert (failure.outcome, failure.reason) == ("unrouted", "alpn")
    assert failure.note == (
        "the target (OpenSSL, by its ClientHello) offered h2 alone by ALPN and closed right after the handshake: "
        "HTTP/1.1 is all that is answered here. Let it use HTTP/1.1 where it can (gRPC cannot), or forward it to a "
        "server of HTTP/2 that has a certificate of egress_ca.issue_cert('api.test')"
    )


@pytest.mark.parametrize("first", ["require", "request", None])
def test_the_strictest_route_of_an_address_says_what_is_wanted(
    stage: Stage, ca: trustme.CA, first: str | None
) -> None:
    stage.https("api.test", path="/a", client_certificate="require")
    stage.https("api.test", path="/b", client_certificate=first)
    refused(stage.tls())
    assert "client_certificate='require') requires one" in stage.only(TlsFailure).note
    own = stage.tls(context=own_certificate(ca))
    assert ask(own, GET.replace(b" / ", b" /b ")).status == 200


def test_a_route_of_another_name_wants_nothing(stage: Stage) -> None:
    stage.https("*.internal.test", client_certificate="require")
    stage.https("api.test")
    stage.https("old.test", client_certificate="require").remove()
    assert ask(stage.tls()).status == 200
    assert ask(stage.tls("old.test"), GET.replace(b"api", b"old")).status == 502


def declared_late(stage: Stage, sock: ssl.SSLSocket) -> Route[Exchange]:
    """A route that requires a certificate, while a request of a connection without one is on its way."""
    sock.sendall(GET[:-2])  # so that it is not idle
    assert eventually(lambda: all(c.idle_since is None for c in stage.gateway.connections))
    return stage.https("api.test", b"proved", client_certificate="require")


def test_a_request_of_a_connection_that_lacks_the_certificate_is_refused_and_says_why(
    stage: Stage,
) -> None:
    earlier = stage.https("*.test", b"unproved")
    sock = stage.tls()
    assert ask(sock).body == b"unproved"
    late = declared_late(stage, sock)
    reply = ask(sock, b"\r\n")
    assert (reply.status, reply.headers["connection"]) == (421, "close")
    assert (
        b"requires a client certificate, and the connection of this request has none" in reply.body
    )
    assert end_of(sock) == "closed"
    (_, refusal) = stage.entries(Exchange)
    assert (refusal.outcome, refusal.route) == ("unrouted", None)
    assert refusal.note == (
        "intercept_https(\"api.test\", client_certificate='require') requires a client certificate, and the "
        "connection of this request has none: it was opened before the route was declared"
    )
    assert (earlier.call_count, late.call_count) == (1, 0)


def test_a_refusal_takes_none_of_the_times_of_its_route(stage: Stage, ca: trustme.CA) -> None:
    stage.https("*.test")
    sock = stage.tls()
    ask(sock)
    late = declared_late(stage, sock)
    late.times = 1
    assert ask(sock, b"\r\n").status == 421
    assert ask(stage.tls(context=own_certificate(ca))).body == b"proved"


def test_an_idle_connection_without_the_certificate_is_closed_and_its_pool_opens_another(
    stage: Stage, ca: trustme.CA
) -> None:
    stage.https("*.test", b"any")
    pooled, other = stage.tls(), stage.tls("other.test")
    ask(pooled)
    ask(other, GET.replace(b"api", b"other"))
    stage.settle()
    route = stage.https("api.test", b"proved", client_certificate="require")
    assert end_of(pooled) == "closed"
    assert ask(stage.tls(context=own_certificate(ca))).body == b"proved"
    assert ask(other, GET.replace(b"api", b"other")).body == b"any"
    assert route.call_count == 1
    assert {exchange.outcome for exchange in stage.entries(Exchange)} == {"routed"}


def test_a_raw_route_that_was_found_by_what_was_dialled_has_its_certificate_too(
    stage: Stage,
) -> None:
    name = stage.resolve("mqtt.test")
    route = stage.tls_route("mqtt.test", b"welcome", client_certificate="require")
    refused(stage.tls("other.test", name))
    failure = stage.entries(TlsFailure)[0]
    assert (failure.reason, route.call_count) == ("client-certificate", 0)


def test_bytes_in_tls_may_need_a_client_certificate_too(stage: Stage, ca: trustme.CA) -> None:
    @stage.tls_route("mqtt.test", client_certificate="require")
    def handler(sock: ssl.SSLSocket) -> None:
        certificate = sock.getpeercert(binary_form=True)
        assert certificate is not None
        sock.sendall(b"welcome")

    client = stage.tls("mqtt.test", context=own_certificate(ca))
    client.settimeout(SECONDS)
    assert client.recv(10) == b"welcome"


# Bodies that a generator makes.


def test_a_generator_runs_in_its_handlers_context_and_is_counted_after_its_first_piece(
    stage: Stage,
) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="lost")
    variable.set("of the test")

    def handler(request: Request) -> Iterator[bytes]:
        yield f"{variable.get()}, {route.call_count} calls; ".encode()
        variable.set("of the first piece")
        yield variable.get().encode()

    route = stage.https("api.test", handler)
    assert ask(stage.tls()).body == b"of the test, 0 calls; of the first piece"
    stage.settle()
    assert route.call_count == 1


def test_what_a_generator_raises_before_its_first_piece_is_a_500(stage: Stage) -> None:
    def handler(request: Request) -> Iterator[bytes]:
        assert request.method == "POST"
        yield b"never"

    stage.https("api.test", handler)
    reply = ask(stage.tls())
    assert (reply.status, b"AssertionError" in reply.body) == (500, True)
    assert isinstance(stage.only(Exchange).error, AssertionError)


def test_a_generator_that_yields_nothing_is_an_empty_body(stage: Stage) -> None:
    stage.https("api.test", lambda request: iter(()))
    assert ask(stage.tls()).body == b""


# What is odd and can be answered.


@pytest.mark.parametrize("cut", [0, 9, 14])
def test_a_target_that_is_not_encoded_counts_as_if_it_were(stage: Stage, cut: int) -> None:
    stage.https("api.test", b"found", path="/caf%C3%A9", query={"q": "é"})
    with stage.tls() as sock:
        request = "GET /café?q=é HTTP/1.1\r\nHost: api.test\r\n\r\n".encode()
        sock.sendall(request[:cut])
        assert ask(sock, request[cut:]).body == b"found"
    assert stage.only(Exchange).request.url == "https://api.test/caf%C3%A9?q=%C3%A9"


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("error", [ValueError("half \ud83d"), Unsayable()], ids=["text", "str"])
def test_an_exception_that_cannot_be_said_is_the_handlers_all_the_same(
    stage: Stage, error: Exception
) -> None:
    def handler(request: Request) -> None:
        raise error

    stage.https("api.test", handler)
    assert ask(stage.tls()).status == 500
    assert stage.only(Exchange).error is error
    assert not stage.window.complaints


def test_a_port_and_a_body_beyond_all_reason_are_a_requests_own(stage: Stage) -> None:
    stage.https("api.test", json=[])
    body = b"[" * 60_000
    head = b"POST / HTTP/1.1\r\nHost: api.test:" + b"7" * 5000 + b"\r\n"
    with stage.tls() as sock:
        reply = ask(sock, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert reply.status in (421, 502)
    assert stage.only(Exchange).outcome == "unrouted"
    assert not stage.window.complaints
