"""Requests over HTTP/3, whose client is aioquic's: what is answered, what is recorded, and how a connection ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import trustme

from pytest_egress import Response, disconnect, reset, reset_stream, sequence, truncated
from pytest_egress.errors import UnroutedError
from pytest_egress.ledger.verdict import judge
from pytest_egress.traffic.entries import Exchange, PacketAttempt, TlsFailure
from pytest_egress.traffic.http.request import Request
from tests.support.http3_client import Http3Client, let_out
from tests.support.stage import ADDRESS, GET, MEGABYTE, SECONDS, Stage, ask

API = f"{ADDRESS}:443"


def test_a_request_is_answered(stage: Stage, ca: trustme.CA) -> None:
    stage.https(ADDRESS, optional=True, http3=True)
    route = stage.https("api.test", lambda request: {"sent": request.text}, http3=True)
    client = Http3Client(stage, ca)
    answered = client.ask("/a?b=1", "POST", b"x=1")
    assert answered.status == 200
    assert answered.body == b'{"sent": "x=1"}'
    assert answered.heads[0]["content-length"] == "15"
    call = route.assert_called_once()
    assert (call.request.http_version, call.request.shown_url) == ("3", "https://api.test/a?b=1")
    assert call.request.sni == "api.test"
    assert call.request.tls is not None
    assert (call.request.tls.version, call.request.tls.alpn) == ("TLSv1.3", "h3")
    assert judge(stage.window, [route]) is None


def test_many_requests_at_once_are_each_answered(stage: Stage, ca: trustme.CA) -> None:
    begun = threading.Barrier(20)

    def together(request: Request) -> str:
        begun.wait(SECONDS)
        return request.path

    stage.https(ADDRESS, optional=True, http3=True)
    route = stage.https("api.test", together, http3=True)
    client = Http3Client(stage, ca)
    numbers = [client.begin(f"/{n}") for n in range(20)]
    assert [client.answer(number).body for number in numbers] == [b"/%d" % n for n in range(20)]
    assert route.call_count == 20


def test_bodies_stream_both_ways(stage: Stage, ca: trustme.CA) -> None:
    """The handler answers each piece before the next one is sent."""

    def echo(request: Request) -> Response:
        def pieces() -> Iterator[bytes]:
            for piece in request.stream():
                yield piece.upper()

        return Response(stream=pieces())

    stage.https(ADDRESS, optional=True, http3=True)
    stage.https("api.test", echo, stream=True, http3=True)
    client = Http3Client(stage, ca)
    number = client.begin(method="POST", ends=False)
    answered = client.streams[number]
    for n, piece in enumerate((b"one", b"two"), 1):
        client.body(number, piece)
        client.until(lambda n=n: len(answered.body) == 3 * n)
    client.body(number, b"", ends=True)
    assert client.answer(number).body == b"ONETWO"
    assert not answered.reset


def test_a_body_that_a_client_does_not_read_waits_in_its_handler(
    stage: Stage, ca: trustme.CA
) -> None:
    made = 0

    def pieces() -> Iterator[bytes]:
        nonlocal made
        for _ in range(64):
            made += 1
            yield bytes(64 * 1024)

    stage.https(ADDRESS, optional=True, http3=True)
    stage.https("api.test", lambda request: Response(stream=pieces()), http3=True)
    client = Http3Client(stage, ca, max_stream_data=64 * 1024, max_data=64 * 1024)
    client.quic._write_stream_limits = lambda **more: None  # type: ignore[method-assign]
    client.quic._write_connection_limits = lambda **more: None  # type: ignore[method-assign]
    number = client.begin()
    client.until(lambda: len(client.streams[number].body) > 60_000)
    assert made < 10
    client.close()
    stage.settle()
    entry = stage.entries(Exchange)[0]
    assert "the client closed" in entry.note


def test_a_request_without_a_route_is_refused_and_unrouted(stage: Stage, ca: trustme.CA) -> None:
    stage.https(ADDRESS, optional=True, http3=True)
    stage.https("api.test", {}, path="/known", http3=True, optional=True)
    client = Http3Client(stage, ca)
    assert client.ask("/other").status == 502
    error = judge(stage.window, [])
    assert isinstance(error, UnroutedError)
    assert "GET https://api.test/other" in str(error)


def test_times_count_requests_of_each_version(stage: Stage, ca: trustme.CA) -> None:
    stage.https(ADDRESS, optional=True, http3=True)
    route = stage.https("api.test", sequence(b"one", b"two"), http3=True)
    client = Http3Client(stage, ca)
    assert [client.ask().body, client.ask().body, client.ask().status] == [b"one", b"two", 502]
    assert route.call_count == 2


def test_faults_end_the_stream_or_the_connection(stage: Stage, ca: trustme.CA) -> None:
    stage.https(ADDRESS, optional=True, http3=True)
    stage.https("api.test", reset_stream(), path="/stream", http3=True)
    stage.https("api.test", truncated(b"a body", 3), path="/short", http3=True)
    stage.https("api.test", reset(), path="/reset", http3=True)
    stage.https("api.test", disconnect(), path="/gone", http3=True)
    client = Http3Client(stage, ca)
    assert client.ask("/stream").reset == 0x102
    short = client.ask("/short")
    assert (short.body, short.has_ended, short.reset) == (b"a b", False, 0x102)
    client.ask("/reset")
    assert client.terminated is not None
    assert client.terminated.error_code == 0x102
    other = Http3Client(stage, ca, source=40001)
    other.ask("/gone")
    assert other.terminated is not None
    assert other.terminated.error_code == 0x100
    stage.settle()
    assert judge(stage.window, list(stage.table.routes)) is None


def test_a_client_that_distrusts_the_ca_is_recorded(stage: Stage, ca: trustme.CA) -> None:
    stage.https(ADDRESS, optional=True, http3=True)
    stage.https("api.test", {}, http3=True)
    client = Http3Client(stage, trustme.CA())
    client.until(lambda: client.terminated)
    failure = stage.only(TlsFailure)
    assert failure.reason == "untrusted"
    assert "does not trust the CA of this run for 'api.test'" in failure.note


def test_a_bad_certificate_is_shown_and_its_rejection_is_the_call(
    stage: Stage, ca: trustme.CA
) -> None:
    stage.https(ADDRESS, optional=True, http3=True)
    route = stage.https("api.test", certificate="expired", http3=True)
    client = Http3Client(stage, ca)
    client.until(lambda: client.terminated)
    stage.settle()
    assert route.is_rejected
    assert judge(stage.window, list(stage.table.routes)) is None


def test_what_is_no_quic_is_unrouted(stage: Stage) -> None:
    stage.https(ADDRESS, http3=True, optional=True)
    stage.link.datagram_source.send(let_out(b"customer row 42"))
    packet = stage.only(PacketAttempt)
    assert (packet.outcome, packet.note[:24]) == ("unrouted", "it does not begin QUIC (")


def test_a_client_that_leaves_within_a_body_is_recorded(stage: Stage, ca: trustme.CA) -> None:
    stage.https(ADDRESS, optional=True, http3=True)
    stage.https("api.test", {}, http3=True)
    client = Http3Client(stage, ca)
    number = client.begin(method="POST", ends=False)
    client.body(number, b"half")
    client.close()
    entry = stage.only(Exchange)
    assert (entry.outcome, entry.request.raw_content) == ("recorded", b"half")


def test_a_connection_without_a_request_is_recorded(stage: Stage, ca: trustme.CA) -> None:
    stage.https(ADDRESS, optional=True, http3=True)
    stage.https("api.test", {}, http3=True)
    client = Http3Client(stage, ca)
    client.until(lambda: client.h3)
    client.close()
    failure = stage.only(TlsFailure)
    assert (failure.reason, failure.note) == (
        "silent",
        "began HTTP/3 and closed without a request",
    )


def test_a_route_that_goes_ends_its_connections(stage: Stage, ca: trustme.CA) -> None:
    routes = [
        stage.https(ADDRESS, optional=True, http3=True),
        stage.https("api.test", {}, http3=True),
    ]
    client = Http3Client(stage, ca)
    assert client.ask().status == 200
    for route in routes:
        route.remove()
    stage.gateway.revise()
    client.until(lambda: client.terminated)
    assert client.terminated is not None
    assert client.terminated.error_code == 0x100


def test_large_bodies_go_both_ways(stage: Stage, ca: trustme.CA) -> None:
    stage.https(ADDRESS, optional=True, http3=True)
    stage.https("api.test", lambda request: request.content, http3=True)
    client = Http3Client(stage, ca)
    body = bytes(range(256)) * 4096
    assert client.ask(method="POST", body=body).body == body


def test_a_body_that_no_handler_reads_waits_in_its_client(stage: Stage, ca: trustme.CA) -> None:
    may_read = threading.Event()

    def read(request: Request) -> str:
        assert may_read.wait(SECONDS)
        return str(sum(map(len, request.stream())))

    stage.https(ADDRESS, optional=True, http3=True)
    stage.https("api.test", read, stream=True, path="/slow", http3=True)
    stage.https("api.test", {}, path="/quick", http3=True)
    client = Http3Client(stage, ca)
    number = client.begin("/slow", "POST", ends=False)
    client.body(number, bytes(5 * MEGABYTE), ends=True)
    assert client.ask("/quick").status == 200
    client.until(lambda: client.quic._streams[number].sender.highest_offset >= MEGABYTE)
    sent = client.quic._streams[number].sender.highest_offset
    assert sent <= client.quic._streams[number].max_stream_data_remote == MEGABYTE
    may_read.set()
    assert client.answer(number).body == b"%d" % (5 * MEGABYTE)


def test_trailers_and_interim_responses_go_and_come(stage: Stage, ca: trustme.CA) -> None:
    seen = []

    def handler(request: Request) -> Response:
        request.send_interim(103, {"Link": "</a.css>"})
        body = b"".join(request.stream())
        seen.append(request.trailers.get("x-end"))
        return Response(stream=[body], trailers={"x-sum": "7"})

    stage.https(ADDRESS, optional=True, http3=True)
    stage.https("api.test", handler, stream=True, http3=True)
    client = Http3Client(stage, ca)
    number = client.begin(method="POST", ends=False)
    client.until(lambda: client.streams[number].heads)
    client.body(number, b"body")
    assert client.h3 is not None
    client.h3.send_headers(number, [(b"x-end", b"1")], end_stream=True)
    client.send()
    answered = client.answer(number)
    assert [head.get(":status") for head in answered.heads] == ["103", "200", None]
    assert answered.heads[-1] == {"x-sum": "7"}
    assert (answered.body, seen) == (b"body", ["1"])


def test_clients_over_tcp_are_told_and_a_field_of_the_answer_stays(stage: Stage) -> None:
    stage.https("api.test", {}, http3=True)
    stage.https("api.test", Response(headers={"Alt-Svc": "clear"}), path="/own", http3=True)
    stage.https("api.test", {}, path="/tcp")
    sock = stage.tls()
    told = [ask(sock, GET.replace(b" / ", b" %s " % path)) for path in (b"/", b"/own", b"/tcp")]
    fields = [
        {name.lower(): value for name, value in reply.headers.items()}.get("alt-svc")
        for reply in told
    ]
    assert fields == ['h3=":443"; ma=60', "clear", None]
