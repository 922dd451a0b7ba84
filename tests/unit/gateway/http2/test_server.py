"""HTTP/2 on loopback: requests that are many at once, and what becomes of each."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import h2.errors
import hpack
import pytest
import trustme
from hyperframe.frame import GoAwayFrame, HeadersFrame

from pytest_egress.traffic.entries import Exchange, TcpConnection, TlsFailure
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.http2_client import FrameClient, Http2Client
from tests.support.stage import ADDRESS, SECONDS, Stage, client_context, eventually

Dial = Callable[[], Http2Client]


def tls_client(stage: Stage, ca: trustme.CA) -> Http2Client:
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    sock = stage.tls(context=context)
    assert sock.selected_alpn_protocol() == "h2"
    return Http2Client(sock)


@pytest.fixture(params=["tls", "plain"])
def dial(request: pytest.FixtureRequest, stage: Stage, ca: trustme.CA) -> Dial:
    """Connects, by ALPN or by prior knowledge; `host_of` names what is dialled."""
    if request.param == "tls":
        return lambda: tls_client(stage, ca)
    return lambda: Http2Client(stage.dial(ADDRESS, 80), "http")


@pytest.fixture
def declare(request: pytest.FixtureRequest, stage: Stage) -> Callable[..., object]:
    """Declares a route of what `dial` connects to."""
    is_tls = request.node.callspec.params["dial"] == "tls"
    return lambda handler, **said: (
        stage.https("api.test", handler, **said)
        if is_tls
        else stage.http("api.test", handler, **said)
    )


def shows(request: Request) -> Response:
    return Response(
        json={
            "method": request.method,
            "url": request.url,
            "version": request.http_version,
            "host": request.headers["host"],
            "cookie": request.headers.get("cookie"),
            "body": request.content.decode(),
            "trailers": dict(request.trailers.raw),
        }
    )


def test_a_request_is_the_same_as_of_http_1_but_for_its_version(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    declare(shows)
    client = dial()
    answer = client.ask("/a?b=c", headers=[("cookie", "x=1"), ("cookie", "y=2"), ("x-y", "z")])
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    exchange = stage.only(Exchange)
    assert exchange.response.json() == {
        "method": "GET",
        "url": f"{client.scheme}://api.test/a?b=c",
        "version": "2",
        "host": "api.test",
        "cookie": "x=1; y=2",
        "body": "",
        "trailers": {},
    }
    assert exchange.outcome == "routed"


def test_a_body_and_its_trailers_arrive_whole(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    declare(lambda request: f"{len(request.content)} {request.trailers['x-md5']}")
    body = bytes(5_000_000)
    assert dial().post("/", body, [("x-md5", "abc")]).body == b"5000000 abc"


def test_handlers_of_one_connection_may_wait_for_each_other(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    goes = threading.Event()

    def handler(request: Request) -> str:
        if request.path == "/go":
            goes.set()
        assert goes.wait(SECONDS)
        return request.path

    declare(handler)
    client = dial()
    waits = [client.begin(f"/{number}") for number in range(20)]
    client.flush()
    assert client.ask("/go").body == b"/go"
    assert [client.answer(number).body for number in waits] == [
        b"/%d" % number for number in range(20)
    ]


def test_an_answer_that_streams_ends_with_its_trailers(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    declare(lambda request: Response(stream=iter(["one", "two"]), trailers={"X-Sum": "42"}))
    answer = dial().ask()
    assert (answer.body, answer.trailers) == (b"onetwo", {"x-sum": "42"})


@pytest.mark.parametrize(
    ("method", "response", "length", "body"),
    [
        ("HEAD", Response(200, text="four"), "4", b""),
        ("GET", Response(204), None, b""),
        ("GET", Response(304), None, b""),
        ("GET", Response(200), "0", b""),
        ("GET", Response(200, text="four"), "4", b"four"),
    ],
)
def test_a_response_has_the_length_and_the_body_that_its_method_and_status_allow(
    stage: Stage,
    dial: Dial,
    declare: Callable[..., object],
    method: str,
    response: Response,
    length: str | None,
    body: bytes,
) -> None:
    declare(response)
    answer = dial().ask("/", method)
    assert (answer.status, answer.body) == (response.status_code, body)
    assert answer.headers.get("content-length") == length
    assert "date" in answer.headers


def test_fields_of_a_connection_are_left_out_of_a_response(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    fields = {"Connection": "X-Hop", "Keep-Alive": "timeout=5", "X-Hop": "1", "X-End": "2"}
    declare(Response(200, headers=fields))
    headers = dial().ask().headers
    assert headers["x-end"] == "2"
    assert not {"connection", "keep-alive", "x-hop"} & {*headers}


def test_a_response_that_says_so_is_the_last_of_its_connection(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    declare(Response(200, headers={"Connection": "close"}, text="bye"))
    client = dial()
    assert client.ask().body == b"bye"
    assert client.until(lambda: client.goaway)
    assert client.goaway is not None
    assert client.goaway.error_code == 0
    assert not client.until(lambda: False)
    assert client.closed


@pytest.mark.parametrize(("again", "outcome"), [("/again", "recorded"), ("/other", "unrouted")])
def test_a_request_after_the_end_was_said_is_left_to_another_connection(
    stage: Stage, ca: trustme.CA, again: str, outcome: str
) -> None:
    """It fails its test where no route would have answered it: nobody can know that its client makes it again."""
    release = threading.Event()

    def answer(request: Request) -> Response:
        assert request.path != "/waits" or release.wait(SECONDS)
        return Response(200, headers={"Connection": "close"} if request.path == "/bye" else {})

    route = stage.https("api.test", answer, match=lambda request: request.path != "/other")
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    client, encoder = FrameClient(stage.tls(context=context)), hpack.Encoder()

    def ask(number: int, path: str) -> None:
        pseudo = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "api.test"),
            (":path", path),
        ]
        frame = HeadersFrame(number, encoder.encode(pseudo), flags=["END_HEADERS", "END_STREAM"])
        client.sock.sendall(frame.serialize())

    client.begin()
    ask(1, "/waits")
    ask(3, "/bye")
    goaway = client.until(lambda frame: isinstance(frame, GoAwayFrame))
    assert isinstance(goaway, GoAwayFrame)
    assert goaway.last_stream_id == 3
    ask(5, again)
    assert eventually(lambda: any("GOAWAY" in e.note for e in stage.window.entries))
    release.set()
    while client.read():
        pass
    assert client.closed
    assert {frame.stream_id for frame in client.frames} == {0, 1, 3}
    (late,) = (entry for entry in stage.entries(Exchange) if "GOAWAY" in entry.note)
    assert late.outcome == outcome
    assert [call.request.path for call in route.calls] == ["/bye", "/waits"]


def test_a_field_that_http_cannot_carry_is_an_error_of_the_handler_and_of_its_stream_alone(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    answers = {"/bad": Response(200, headers={"X-A": "1"}), "/good": Response(200, text="good")}
    answers["/bad"].headers.raw = (("X-A", "b\r\nX-C: d"),)
    declare(lambda request: answers[request.path])
    client = dial()
    assert client.ask("/bad").reset == h2.errors.ErrorCodes.INTERNAL_ERROR
    assert client.ask("/good").body == b"good"
    bad, _ = stage.entries(Exchange)
    assert "cannot carry" in str(bad.error)


def test_a_handler_that_raises_is_answered_500_and_one_that_raises_in_its_body_resets(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    def pieces() -> Iterator[str]:
        yield "begun"
        raise ValueError("late")

    def handler(request: Request) -> Response:
        if request.path == "/early":
            raise ValueError("early")
        return Response(stream=pieces())

    declare(handler)
    client = dial()
    assert client.ask("/early").status == 500
    late = client.ask("/late")
    assert (late.status, late.body) == (200, b"begun")
    assert late.reset == h2.errors.ErrorCodes.INTERNAL_ERROR
    assert [str(e.error) for e in stage.entries(Exchange)] == ["early", "late"]


def test_a_request_that_no_route_matches_is_answered_502_and_recorded(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    declare(b"yes", path="/known")
    assert dial().ask("/unknown").status == 502
    entry = stage.only(Exchange)
    assert entry.outcome == "unrouted"
    assert entry.near


def test_a_request_for_another_host_is_answered_421_and_says_what_it_named(
    stage: Stage, ca: trustme.CA
) -> None:
    stage.https("api.test", b"yes")
    assert tls_client(stage, ca).ask(host="other.test").status == 421
    note = stage.only(Exchange).note
    assert note == "its :authority is 'other.test', which is not 'api.test'"


def test_a_stream_whose_client_gives_no_window_holds_no_other_back(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(10_000)
        finally:
            closed.set()

    declare(lambda request: Response(stream=endless()) if request.path == "/endless" else "other")
    client = dial()
    client.reads = False
    stuck = client.begin("/endless")
    client.flush()
    assert client.until(lambda: len(client.answers[stuck].body) == 65_535)
    client.h2.increment_flow_control_window(1_000_000)  # of the connection alone
    assert client.ask("/other").body == b"other"
    assert len(client.answers[stuck].body) == 65_535
    client.h2.reset_stream(stuck, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    assert closed.wait(SECONDS)
    stage.settle()
    first, _ = stage.entries(Exchange)
    assert first.note == (
        "the client closed before the whole response was sent (the client reset the stream (CANCEL))"
    )


def test_a_handler_that_has_not_read_its_body_holds_no_other_back(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    """A body waits in its window: here nobody asks for it, since its stream has not ended."""
    declare(lambda request: str(len(request.content)))
    client = dial()
    slow = client.begin("/slow", "POST", ends=False)
    client.flush()
    assert client.post("/fast", bytes(3_000_000)).body == b"3000000"
    client.send(slow, bytes(3_000_000))
    client.h2.end_stream(slow)
    client.flush()
    assert client.answer(slow).body == b"3000000"


def test_a_body_that_is_announced_to_be_too_large_is_refused_before_it_is_sent(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    declare(b"never")
    client = dial()
    number = client.begin("/", "POST", headers=[("content-length", str(1 << 40))], ends=False)
    client.flush()
    answer = client.answers[number]
    assert client.until(lambda: answer.ended and answer.reset is not None)
    assert (answer.status, answer.reset) == (413, h2.errors.ErrorCodes.NO_ERROR)
    assert "MAX_BODY_BYTES" in stage.only(Exchange).note


def test_100_continue_is_sent_to_a_client_that_waits_for_it(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    declare(lambda request: request.content.decode())
    client = dial()
    number = client.begin("/", "POST", headers=[("expect", "100-continue")], ends=False)
    client.flush()
    assert client.until(lambda: client.answers[number].interim == [100])
    client.h2.send_data(number, b"now", end_stream=True)
    client.flush()
    assert client.answer(number).body == b"now"


@pytest.mark.parametrize("expected", [True, False])
def test_a_request_that_is_reset_before_it_is_whole_is_recorded(
    stage: Stage, dial: Dial, declare: Callable[..., object], expected: bool
) -> None:
    if expected:
        declare(b"never", optional=True)
    client = dial()
    number = client.begin("/", "POST", ends=False)
    client.h2.send_data(number, b"half")
    client.h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    assert eventually(lambda: stage.window.entries)
    entry = stage.only(Exchange)
    assert entry.outcome == ("recorded" if expected else "unrouted")
    assert entry.request.content == b"half"
    assert entry.note == ("the body broke off after 4 bytes (the client reset the stream (CANCEL))")


def test_a_whole_request_is_answered_whatever_its_client_does_afterwards(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    """A client may send its telemetry and exit, or cancel: whether its handler runs is no race."""
    seen = []
    declare(lambda request: seen.append(request.path))
    client = dial()
    number = client.begin("/reset")
    client.h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
    client.begin("/closed")
    client.flush()
    client.close()
    assert eventually(lambda: len(seen) == 2)
    assert {e.outcome for e in stage.entries(Exchange)} == {"routed"}


def test_each_request_belongs_to_the_window_that_is_open_when_it_comes(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    """A pool outlives its test: the connection stays, and nothing of it is left in the first window."""
    declare(b"yes")
    client = dial()
    client.ask("/first")
    stage.settle()
    first = stage.window
    second = stage.next_window()
    assert client.ask("/second").body == b"yes"
    stage.settle()
    paths = [
        [e.request.path for e in w.entries if isinstance(e, Exchange)] for w in (first, second)
    ]
    assert paths == [["/first"], ["/second"]]
    assert not first.activities


def test_a_stream_that_is_under_way_keeps_its_window_open_and_an_idle_connection_does_not(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    go = threading.Event()
    declare(lambda request: str(go.wait(SECONDS)))
    client = dial()
    number = client.begin()
    client.flush()
    assert eventually(lambda: stage.count("/"))
    assert eventually(lambda: len(stage.window.activities) == 1)
    (activity,) = stage.window.activities
    assert activity.route is not None
    go.set()
    client.answer(number)
    assert eventually(lambda: not stage.window.activities)
    (connection,) = stage.gateway.connections
    assert eventually(lambda: connection.idle_since is not None)


def test_while_a_handler_stands_at_a_prompt_the_others_go_on_and_ping_is_answered(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    """A client of gRPC gives a connection up whose PING nobody answers."""
    go = threading.Event()
    declare(lambda request: str(go.wait(SECONDS)) if request.path == "/held" else "free")
    client = dial()
    held = client.begin("/held")
    client.flush()
    assert eventually(lambda: stage.count("/held"))
    client.h2.ping(b"12345678")
    client.flush()
    assert client.until(lambda: client.pongs)
    assert client.ask("/other").body == b"free"
    assert not client.answers[held].ended
    go.set()
    assert client.answer(held).body == b"True"


def test_a_handler_that_does_not_end_is_told_with_its_line_when_the_gateway_stops(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    go = threading.Event()

    def handler(request: Request) -> str:
        return str(go.wait(SECONDS))  # here

    declare(handler)
    client = dial()
    client.begin()
    client.flush()
    assert eventually(lambda: stage.count("/"))
    stuck = stage.gateway.stop(0.2)
    go.set()
    assert [line.endswith("# here") for line in stuck] == [True]


def test_a_stream_is_cut_when_the_route_that_lets_it_pass_is_over(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    """What passes unread is one stream, and no other ends with it."""
    declare(b"yes")
    client = dial()
    number = client.begin("/half", "POST", ends=False)
    client.flush()
    assert eventually(lambda: len(stage.gateway.connections))
    (connection,) = stage.gateway.connections
    assert eventually(lambda: len(connection.carriers()) == 2)
    _, stream = connection.carriers()
    route = stage.tcp("other.test", b"")
    stream.allowed_by = route, "other.test"
    assert stage.gateway.revise(test_over=True) == [stream]
    assert client.answer(number).reset == h2.errors.ErrorCodes.CANCEL
    assert eventually(lambda: stream.ended)
    assert client.ask("/next").body == b"yes"


def test_a_stream_that_is_cut_is_reset_and_its_connection_goes_on(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    declare(b"yes")
    client = dial()
    number = client.begin("/half", "POST", ends=False)
    client.flush()
    assert eventually(lambda: any(a.told() for a in stage.window.activities))
    assert client.ask("/whole").body == b"yes"
    assert eventually(lambda: len(stage.window.activities) == 1)
    (activity,) = stage.window.activities
    activity.cut()
    assert client.answer(number).reset == h2.errors.ErrorCodes.CANCEL
    assert client.ask("/again").body == b"yes"
    assert [e.note for e in stage.entries(Exchange) if e.request.path == "/half"] == [
        "the body broke off after 0 bytes (the connection was cut: what let it live was over)"
    ]


def test_an_idle_connection_gives_up_its_thread_and_gets_one_again(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    declare(b"yes")
    client = dial()
    assert client.ask().body == b"yes"
    assert eventually(lambda: stage.gateway.connections.parked)
    assert client.ask().body == b"yes"


def test_ping_and_settings_begin_nothing(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    declare(b"yes")
    client = dial()
    client.ask()
    assert eventually(lambda: stage.gateway.connections.parked)
    (connection,) = stage.gateway.connections
    begun, idle_since = stage.ledger.begun, connection.idle_since
    client.h2.ping(b"12345678")
    client.h2.update_settings({0x3: 7})
    client.flush()
    assert client.until(lambda: client.pongs)
    assert eventually(lambda: stage.gateway.connections.parked)
    assert (stage.ledger.begun, connection.idle_since) == (begun, idle_since)


def test_the_end_of_the_gateway_tells_idle_clients_that_no_request_is_taken(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    declare(b"yes")
    clients = [dial(), dial()]
    for client in clients:
        client.ask()
    assert eventually(lambda: len(stage.gateway.connections.parked) == 2)
    stage.gateway.stop()
    for client in clients:
        while client.read():
            pass
        assert client.goaway is not None
        assert client.goaway.error_code == 0


def test_a_client_that_says_goodbye_still_gets_its_answers(
    stage: Stage, dial: Dial, declare: Callable[..., object]
) -> None:
    go = threading.Event()
    declare(lambda request: str(go.wait(SECONDS)))
    client = dial()
    number = client.begin()
    client.flush()
    client.sock.sendall(bytes([0, 0, 8, 7]) + bytes(5 + 8))  # GOAWAY
    assert eventually(lambda: stage.count("/"))
    go.set()
    assert client.answer(number).body == b"True"
    assert client.until(lambda: client.closed) or client.closed


def test_a_preface_without_a_request_is_recorded_at_its_end(stage: Stage, ca: trustme.CA) -> None:
    stage.https("api.test", optional=True)
    client = tls_client(stage, ca)
    client.read()
    client.close()
    assert eventually(lambda: stage.window.entries)
    failure = stage.only(TlsFailure)
    assert (failure.outcome, failure.reason) == ("recorded", "silent")
    assert failure.note == "began HTTP/2 and closed without a request"


def test_so_is_one_on_plain_tcp(stage: Stage) -> None:
    stage.http(f"{ADDRESS}:8443", optional=True)
    client = Http2Client(stage.dial(ADDRESS, 8443), "http")
    client.read()
    client.close()
    assert eventually(lambda: stage.window.entries)
    entry = stage.only(TcpConnection)
    assert (entry.outcome, entry.note) == ("recorded", "began HTTP/2 and closed without a request")


def test_one_that_stays_silent_is_recorded_soon_and_may_ask_later(
    stage: Stage, ca: trustme.CA
) -> None:
    stage.https("api.test", b"yes")
    client = tls_client(stage, ca)
    assert eventually(lambda: stage.window.entries)
    assert eventually(lambda: stage.gateway.connections.parked)
    assert client.ask().body == b"yes"
    failure, exchange = stage.entries(TlsFailure), stage.entries(Exchange)
    assert [e.note for e in failure] == ["began HTTP/2 and asked for nothing within 1 s"]
    assert [e.outcome for e in exchange] == ["routed"]


def test_one_that_stays_silent_where_nothing_is_declared_is_reset(
    stage: Stage, ca: trustme.CA
) -> None:
    client = tls_client(stage, ca)
    assert client.until(lambda: client.closed, SECONDS) or client.closed
    assert stage.only(TlsFailure).outcome == "unrouted"


def test_a_client_that_closes_within_a_head_is_recorded(stage: Stage, ca: trustme.CA) -> None:
    stage.https("api.test", b"yes", optional=True)
    client = tls_client(stage, ca)
    client.ask()
    client.begin("/cut")
    client.sock.sendall(client.h2.data_to_send()[:12])
    assert eventually(lambda: stage.window.activities)
    client.close()
    assert eventually(lambda: len(stage.window.entries) == 2)
    (entry,) = stage.entries(TcpConnection)
    assert entry.note == "broke off within the head of a request"


def test_upgrade_h2c_is_ignored(stage: Stage) -> None:
    stage.http("api.test", lambda request: request.http_version)
    sock = stage.dial(ADDRESS, 80)
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    sock.sendall(b"GET / HTTP/1.1\r\nHost: api.test\r\n" + upgrade + b"\r\n")
    assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_the_preface_may_come_in_single_bytes(stage: Stage) -> None:
    stage.http("api.test", lambda request: request.http_version)
    client = Http2Client.__new__(Http2Client)
    sock = Slowly(stage.dial(ADDRESS, 80))
    client.__init__(sock, "http")  # type: ignore[misc]
    assert client.ask().body == b"2"


class Slowly:
    """A socket that sends each byte on its own."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def settimeout(self, seconds: float) -> None:
        self.sock.settimeout(seconds)

    def recv(self, size: int) -> bytes:
        return self.sock.recv(size)

    def sendall(self, data: bytes) -> None:
        for byte in data:
            self.sock.sendall(bytes((byte,)))


def test_where_alpn_agreed_on_nothing_the_preface_decides(stage: Stage) -> None:
    stage.https("api.test", lambda request: request.http_version)
    sock = stage.tls()
    assert sock.selected_alpn_protocol() is None
    assert Http2Client(sock).ask().body == b"2"


def test_where_alpn_agreed_on_http_1_the_preface_is_refused(stage: Stage, ca: trustme.CA) -> None:
    stage.https("api.test", b"never", optional=True)
    context: ssl.SSLContext = client_context(ca)
    context.set_alpn_protocols(["http/1.1"])
    sock = stage.tls(context=context)
    sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert sock.recv(65536).startswith(b"HTTP/1.1 505 ")
    assert "agreed on HTTP/1.1" in stage.only(TcpConnection).note
