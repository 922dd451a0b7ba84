"""WebSockets that fail after their handshake, in both versions of HTTP: no close frame comes, or nothing at all."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.sync.server import serve

from pytest_egress import (
    AsyncWebSocket,
    HandlerError,
    WebSocket,
    delayed,
    disconnect,
    forward,
    raw,
    reset,
    reset_stream,
    sequence,
    silence,
    throttled,
    truncated,
    websocket,
)
from pytest_egress.ledger.verdict import judge
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.websocket import Frames
from tests.support.http2_client import Http2Client
from tests.support.stage import SECONDS, Stage, client_context, comes_not, end_of, eventually
from tests.support.websocket_clients import websocket_client

HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SOON = 0.05


def opened(stage: Stage) -> socket.socket:
    """A client whose handshake has been answered; no byte behind that has been read."""
    sock = stage.dial(port=80)
    sock.settimeout(SECONDS)
    sock.sendall(HANDSHAKE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    return sock


def ended(stage: Stage, route: Any) -> Exchange:
    """The only call, once it has ended without an error."""
    call: Exchange = route.wait_for_call(timeout=SECONDS)
    assert eventually(lambda: not stage.gateway.connections)
    assert call.error is None
    assert judge(stage.window, [route]) is None
    return call


@pytest.mark.parametrize(
    ("fault", "end"), [(reset(), "reset"), (disconnect(), "closed"), (silence(SOON), "closed")]
)
def test_the_connection_ends_without_a_close_frame(stage: Stage, fault: Any, end: str) -> None:
    route = stage.http("api.test", websocket(lambda ws: fault))
    sock = opened(stage)
    assert end_of(sock) == end
    sock.close()
    assert ended(stage, route).fault == fault


@pytest.mark.parametrize("fault", [reset(), disconnect()])
@pytest.mark.parametrize("secure", [True, False], ids=["wss", "ws"])
def test_a_client_sees_1006(stage: Stage, fault: Any, secure: bool) -> None:
    route = (stage.https if secure else stage.http)("api.test", websocket(fault))
    with (
        websocket_client(stage, secure=secure) as client,
        pytest.raises(ConnectionClosedError) as e,
    ):
        client.recv()
    assert (e.value.rcvd, e.value.sent) == (None, None)
    call = ended(stage, route)
    assert (call.response.status_code, call.websocket.close_code) == (101, 1006)


def test_what_was_sent_before_comes_before(stage: Stage) -> None:
    def handler(ws: WebSocket) -> object:
        ws.send("last " + str(ws.recv()))
        return reset()

    route = stage.https("api.test", websocket(handler))
    with websocket_client(stage) as client:
        client.send("words")
        assert client.recv() == "last words"
        with pytest.raises(ConnectionClosedError):
            client.recv()
    assert [m.content for m in ended(stage, route).messages] == ["words", "last words"]


def test_an_async_handler_returns_one_too(stage: Stage) -> None:
    async def handler(ws: AsyncWebSocket) -> object:
        await ws.recv()
        return disconnect()

    route = stage.http("api.test", websocket(handler))
    with websocket_client(stage, secure=False) as client:
        client.send("go")
        with pytest.raises(ConnectionClosedError):
            client.recv()
    assert ended(stage, route).fault == disconnect()


def test_silence_answers_neither_a_ping_nor_a_close(stage: Stage) -> None:
    route = stage.http("api.test", websocket(silence()))
    sock = opened(stage)
    frames = Frames(None, of_client=True)
    sock.sendall(frames.message("hello") + frames.ping(b"you there?"))
    call = route.wait_for_call(timeout=SECONDS)
    assert eventually(lambda: call.messages)
    assert comes_not(sock)
    stage.settle()  # it holds no window open
    assert [str(each) for each in stage.ledger.pauses] == [f"{call} -> silence()"]
    sock.sendall(frames.close(1000))
    assert eventually(lambda: call.websocket.close_code == 1000)
    assert comes_not(sock)
    sock.close()
    assert ended(stage, route).messages[0].content == "hello"


def test_the_seconds_of_silence_stand_still_while_a_prompt_is_open(stage: Stage) -> None:
    stage.http("api.test", websocket(silence(lambda: 0.01)))
    stage.ledger.enter_prompt()
    sock = opened(stage)
    assert comes_not(sock)
    stage.ledger.leave_prompt()
    assert end_of(sock) == "closed"


def test_silence_ends_with_its_test(stage: Stage) -> None:
    route = stage.http("api.test", websocket(silence()))
    sock = opened(stage)
    route.wait_for_call(timeout=SECONDS)
    assert eventually(lambda: stage.ledger.pauses)
    (over,) = stage.gateway.revise(test_over=True)
    assert end_of(sock) == "closed"
    sock.close()
    assert eventually(lambda: over.ended)


def test_raw_bytes_come_in_place_of_frames(stage: Stage) -> None:
    route = stage.http("api.test", websocket(raw(b"\xff\xff\xff\xff")))
    sock = opened(stage)
    assert sock.recv(100) == b"\xff\xff\xff\xff"
    assert sock.recv(100) == b""
    sock.close()
    ended(stage, route)


def test_a_sequence_fails_and_then_works(stage: Stage) -> None:
    answers = sequence(websocket(reset()), websocket(lambda ws: ws.send("at last")))
    route = stage.https("api.test", answers)
    with websocket_client(stage) as client, pytest.raises(ConnectionClosedError):
        client.recv()
    with websocket_client(stage) as client:
        assert client.recv() == "at last"
    route.wait_for_call(2, timeout=SECONDS)


@pytest.mark.parametrize("fault", [delayed("x", 1), disconnect("x"), truncated("x", 1)], ids=str)
def test_other_faults_are_refused_where_they_are_declared_and_where_they_are_returned(
    stage: Stage, fault: Any
) -> None:
    text = f"a WebSocket ends by reset(), disconnect(), silence(...) or raw(...), and {fault} is none of these; what"
    with pytest.raises(TypeError) as raised:
        websocket(fault)
    assert str(raised.value).startswith(f"websocket({fault}): {text}")

    def handler(ws: WebSocket) -> object:
        return fault

    route = stage.https("api.test", websocket(handler))
    with websocket_client(stage) as client, pytest.raises(ConnectionClosed, match="1011"):
        client.recv()
    assert eventually(lambda: route.calls and route.calls[0].error)
    error = judge(stage.window, [route])
    assert isinstance(error, HandlerError)
    assert f" returned {fault}: {text}" in str(error.__cause__)


def test_an_answer_is_shown_with_its_fault() -> None:
    assert repr(websocket(silence(2), ["chat"])) == "websocket(silence(2), subprotocols=['chat'])"


# Around a WebSocket.


def test_a_handshake_is_late(stage: Stage) -> None:
    route = stage.http("api.test", delayed(websocket(lambda ws: ws.send("hello")), SOON))
    stage.ledger.enter_prompt()
    sock = stage.dial(port=80)
    sock.sendall(HANDSHAKE)
    assert comes_not(sock)
    stage.ledger.leave_prompt()
    assert sock.recv(100).startswith(b"HTTP/1.1 101 ")
    sock.close()
    ended(stage, route)


def test_an_end_may_be_within_what_is_late(stage: Stage) -> None:
    answer = websocket(reset())
    route = stage.http("api.test", delayed(answer, 0.01))
    sock = opened(stage)
    assert end_of(sock) == "reset"
    assert str(ended(stage, route).fault) == "delayed(reset(), 0.01)"


def test_frames_come_slowly(stage: Stage) -> None:
    answer = websocket(lambda ws: ws.send(str(ws.recv()) * 100))
    stage.https("api.test", throttled(answer, 1000))
    with websocket_client(stage) as client:
        stage.ledger.enter_prompt()
        client.send("x")
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.2)
        stage.ledger.leave_prompt()
        assert client.recv() == "x" * 100


@pytest.mark.parametrize("resets", [False, True])
def test_frames_end_early(stage: Stage, resets: bool) -> None:
    answer = websocket(lambda ws: ws.send("hello"))
    route = stage.http("api.test", truncated(answer, 4, reset=resets))
    sock = opened(stage)
    assert sock.recv(100) == b"\x81\x05he"
    assert end_of(sock) == ("reset" if resets else "closed")
    sock.close()
    assert ended(stage, route).fault == truncated(answer, 4, reset=resets)


@pytest.fixture
def real_url() -> Iterator[str]:
    """A real server of WebSockets, which greets."""
    with serve(lambda ws: ws.send("welcome"), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(10)


def test_what_another_server_sends_is_late_slow_and_cut(stage: Stage, real_url: str) -> None:
    server = forward(real_url)
    route = stage.http("api.test", truncated(throttled(delayed(server, 0.01), 10_000), 4))
    sock = opened(stage)
    assert sock.recv(100) == b"\x81\x07we"
    assert end_of(sock) == "closed"
    sock.close()
    assert "delayed(forward(" in str(ended(stage, route).fault)


# HTTP/2.


@pytest.fixture
def client(stage: Stage, ca: trustme.CA) -> Http2Client:
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    return Http2Client(stage.tls(context=context))


def begin(client: Http2Client) -> int:
    """Open a WebSocket on a stream."""
    assert client.until(lambda: client.h2.remote_settings.enable_connect_protocol)
    fields = [("sec-websocket-version", "13")]
    number = client.begin("/chat", "CONNECT", protocol="websocket", headers=fields, ends=False)
    client.flush()
    return number


def test_reset_of_a_stream_leaves_the_others(stage: Stage, client: Http2Client) -> None:
    stage.https("api.test", 204, path="/other")
    route = stage.https("api.test", websocket(reset_stream()), path="/chat")
    number = begin(client)
    assert client.until(lambda: client.answers[number].reset is not None)
    assert client.answers[number].status == 200
    assert client.ask("/other").status == 204
    assert route.wait_for_call(timeout=SECONDS).fault == reset_stream()


@pytest.mark.parametrize(("fault", "end"), [(reset(), "reset"), (disconnect(), "closed")])
def test_other_ends_are_those_of_the_connection(
    stage: Stage, client: Http2Client, fault: Any, end: str
) -> None:
    route = stage.https("api.test", websocket(fault))
    begin(client)
    assert end_of(client.sock) == end
    client.close()
    assert ended(stage, route).fault == fault


def test_raw_bytes_come_on_the_stream(stage: Stage, client: Http2Client) -> None:
    route = stage.https("api.test", websocket(raw(b"\xff\xff")))
    number = begin(client)
    assert client.until(lambda: client.answers[number].body == b"\xff\xff")
    assert not client.until(lambda: client.answers[number].ended)
    client.close()
    ended(stage, route)


def test_silence_on_a_stream_keeps_no_other_waiting(stage: Stage, client: Http2Client) -> None:
    stage.https("api.test", 204, path="/other")
    route = stage.https("api.test", websocket(silence()), path="/chat")
    number = begin(client)
    assert client.until(lambda: client.answers[number].status)
    client.send(number, Frames(None, of_client=True).close(1000))
    assert client.ask("/other").status == 204
    assert (client.answers[number].body, client.answers[number].ended) == (b"", False)
    route.wait_for_call(timeout=SECONDS)
    with contextlib.suppress(OSError):
        client.close()
    ended(stage, route)
