"""The object that handlers and tests hold: sending, receiving, closing, and clients that misbehave."""

from __future__ import annotations

import contextlib
import json
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from pytest_egress.base import account
from pytest_egress.base.account import OverLimitError
from pytest_egress.errors import WebSocketClosedError
from pytest_egress.routes.duplex import Conversation, Duplex, DuplexAnswer
from pytest_egress.routes.websocket import open as open_websocket
from pytest_egress.routes.websocket.answer import opened as opened_answer
from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.routes.websocket.open import OpenWebSocket, WebSocket, content_of
from pytest_egress.traffic.http.headers import NO_FIELDS
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.websocket import Frames, Opening, accept, size_of
from tests.support.stage import eventually
from tests.support.websocket_server import DuplexServer, SocketDuplex, serving


@pytest.fixture
def server() -> Any:
    """A server whose WebSockets are the test's to drive."""
    with serving(websocket()) as server:
        yield server


def test_what_a_client_sends_is_searched_for_secrets_as_it_comes_and_what_a_server_sends_is_not() -> (
    None
):
    fed: list[bytes] = []
    request = Request(method="GET", scheme="http", host="ws.test", port=80, path="/")
    body = SimpleNamespace(passing=SimpleNamespace(feed=fed.append))
    object.__setattr__(request, "_body", body)
    duplex: Any = None
    handshake = Opening(status_code=101, headers=NO_FIELDS)
    sides: list[list[Any] | None] = [[], None]  # None is a relay's, to the server
    for messages in sides:
        ws = OpenWebSocket(duplex, request, handshake, messages)
        assert [*ws._frames.receive(Frames(None, of_client=True).ping(b"one"))]
    assert fed == [b"one"]


@contextmanager
def opened(server: DuplexServer) -> Iterator[tuple[WebSocket, ClientConnection]]:
    """A WebSocket and its client."""
    with connect(server.url) as client:
        yield server.call().exchange.websocket, client


def test_any_thread_sends_and_each_message_is_whole(server: DuplexServer) -> None:
    with opened(server) as (ws, client):
        texts = [str(number) * 20_000 for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            sent = [pool.submit(ws.send, text) for text in texts]
            received = [client.recv() for _ in texts]
            assert [future.result() for future in sent] == [None] * 8
        assert sorted(received) == sorted(texts)


def test_pings_are_answered_while_a_handler_is_busy() -> None:
    go_on = threading.Event()

    def busy(ws: WebSocket) -> None:
        assert go_on.wait(20)

    with serving(websocket(busy)) as server, connect(server.url) as client:
        assert client.ping().wait(20)
        client.send("recorded all the same")
        assert client.ping().wait(20)
        assert [message.content for message in server.call().exchange.messages] == [
            "recorded all the same"
        ]
        go_on.set()


def test_a_ping_of_ours_is_answered_by_the_client(server: DuplexServer) -> None:
    with opened(server) as (ws, client):
        ws.ping(b"there?")
        ws.send("after it")
        assert client.recv() == "after it"
        with pytest.raises(ValueError, match="126 bytes, and it takes 125 at most"):
            ws.ping(bytes(126))
        with pytest.raises(TypeError, match=r"ping\('there\?'\): a ping takes bytes"):
            ws.ping("there?")  # type: ignore[arg-type]


def test_the_code_and_reason_of_the_client_are_kept(server: DuplexServer) -> None:
    with opened(server) as (ws, client):
        assert (ws.close_code, ws.close_reason) == (None, "")
        assert repr(ws) == "<WebSocket http://ws.test/, open>"
        client.close(4002, "tired")
        with pytest.raises(WebSocketClosedError, match=r"with 4002 \(tired\)") as closed:
            ws.recv(timeout=20)
        assert (closed.value.code, closed.value.reason) == (4002, "tired")
        assert (ws.close_code, ws.close_reason) == (4002, "tired")
        assert repr(ws) == "<WebSocket http://ws.test/, closed with 4002>"
        assert list(ws) == []
        ws.close()


def test_what_came_before_the_end_is_received_first(server: DuplexServer) -> None:
    with opened(server) as (ws, client):
        client.send("one")
        client.send("two")
        client.close()
        assert server.call().done.wait(20)
        assert list(ws) == ["one", "two"]


def test_a_client_that_breaks_off_is_1006(server: DuplexServer) -> None:
    with opened(server) as (ws, client):
        client.socket.shutdown(socket.SHUT_RDWR)
        assert list(ws) == []
        assert ws.close_code == 1006
        assert server.call().done.wait(20)
        assert server.call().error is None


def test_recv_gives_up_in_time(server: DuplexServer) -> None:
    with opened(server) as (ws, _):
        with pytest.raises(TimeoutError, match=r"waited 0\.01 s for a message of http://ws\.test/"):
            ws.recv(timeout=0.01)
        with pytest.raises(TypeError, match="timeout='1'"):
            ws.recv(timeout="1")  # type: ignore[arg-type]


def test_after_our_close_nothing_is_sent(server: DuplexServer) -> None:
    with opened(server) as (ws, client):
        ws.close(4003)
        with pytest.raises(WebSocketClosedError):
            ws.send("late")
        with pytest.raises(ConnectionClosed, match="4003"):
            client.recv()
        with pytest.raises(ValueError, match="close\\(1005\\)"):
            ws.close(1005)


def raw_client(server: DuplexServer) -> socket.socket:
    """A client that has opened a WebSocket and does nothing by itself."""
    sock = socket.create_connection(("127.0.0.1", server.port), 20)
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: ws.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    return sock


def test_a_client_that_never_answers_our_close_ends_all_the_same(
    server: DuplexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_websocket, "CLOSE_SECONDS", 0.05)
    sock = raw_client(server)
    ws = server.call().exchange.websocket
    ws.close()
    assert server.call().done.wait(20)
    assert ws.close_code == 1006
    assert sock.recv(65536) == b"\x88\x02\x03\xe8"
    sock.close()


def test_a_client_that_never_reads_holds_no_close_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_websocket, "CLOSE_SECONDS", 0.05)

    def floods(ws: WebSocket) -> None:
        while True:
            ws.send(bytes(1 << 20))

    with serving(websocket(floods)) as server:
        sock = raw_client(server)
        call = server.call()
        count = -1
        while count != (count := len(call.exchange.messages)):
            time.sleep(0.2)  # until it has filled what the kernel buffers
        call.exchange.close(1001)
        assert call.done.wait(20)
        assert call.error is None
        assert call.duplex is not None
        assert call.duplex.is_reset
        sock.close()


def test_a_client_that_sends_no_frames_gets_the_code_of_its_fault(server: DuplexServer) -> None:
    sock = raw_client(server)
    sock.sendall(b"\x83\x80\0\0\0\0")
    assert sock.recv(65536)[:4].endswith(b"\x03\xea")  # 1002
    assert server.call().done.wait(20)
    assert server.call().exchange.websocket.close_code == 1002
    sock.close()


def test_a_message_that_there_is_no_room_for_is_counted(
    server: DuplexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "MAX_HELD_BYTES", 1 << 20)
    with opened(server) as (ws, client):
        ws.send("x" * (1 << 20))
        ws.send("short")
        assert [len(client.recv()), client.recv()] == [1 << 20, "short"]
        assert ([message.content for message in ws.messages], ws.unkept) == (["short"], 1)


def test_a_handler_that_does_not_receive_stops_the_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_websocket, "MAX_WAITING_BYTES", 10)
    monkeypatch.setattr(open_websocket, "SLICE_SECONDS", 0.05)
    go_on = threading.Event()
    got: list[str | bytes] = []

    def slow(ws: WebSocket) -> None:
        assert go_on.wait(20)
        got.extend(ws)

    with serving(websocket(slow)) as server, connect(server.url) as client:
        call = server.call()
        client.send("x" * 11)
        while not call.exchange.messages:
            time.sleep(0.01)
        client.send("held back")
        time.sleep(0.1)
        assert len(call.exchange.messages) == 1
        go_on.set()
        client.close()
        assert call.done.wait(20)
    assert got == ["x" * 11, "held back"]


def test_empty_messages_are_as_many_as_their_number_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = 10 * size_of("")  # waits without being too much
    monkeypatch.setattr(open_websocket, "MAX_WAITING_BYTES", most)
    monkeypatch.setattr(open_websocket, "SLICE_SECONDS", 0.05)
    go_on = threading.Event()
    got: list[str | bytes] = []

    def slow(ws: WebSocket) -> None:
        assert go_on.wait(20)
        got.extend(ws)

    with serving(websocket(slow)) as server, connect(server.url) as client:
        call = server.call()
        for _ in range(11):  # with these, too much waits
            client.send("")
        while len(call.exchange.messages) < 11:
            time.sleep(0.01)
        client.send("")
        time.sleep(0.1)
        assert len(call.exchange.messages) == 11
        go_on.set()
        client.close()
        assert call.done.wait(20)
    assert len(got) == 12


def test_a_message_that_does_not_come_whole_is_cut_where_there_is_no_room(
    server: DuplexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "MAX_HELD_BYTES", 10_000)
    with opened(server) as (ws, client):
        call = server.call()

        def parts() -> Iterator[str]:
            while True:
                yield "x" * 1000

        with pytest.raises(ConnectionClosed) as closed:
            client.send(parts())
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == ws.close_code == 1009
    assert call.done.wait(20)
    assert call.account.held == 0
    assert call.account.lost["messages of WebSockets"] > 1000


def test_what_breaks_off_within_a_message_gives_its_room_back(server: DuplexServer) -> None:
    sock = raw_client(server)
    sock.sendall(b"\x02\xfe\x03\xe8\0\0\0\0" + bytes(1000))  # a frame that does not end its message
    call = server.call()
    while not call.account.held:
        time.sleep(0.01)
    sock.close()
    assert call.done.wait(20)
    assert (call.account.held, call.account.lost) == (0, {})


def test_what_waits_for_a_handler_is_cut_where_it_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(account, "MAX_HELD_BYTES", 3 * size_of("x" * 1000) + 100)
    go_on = threading.Event()
    got: list[str | bytes] = []

    def slow(ws: WebSocket) -> None:
        assert go_on.wait(20)
        got.extend(ws)

    with serving(websocket(slow)) as server, connect(server.url) as client:
        call = server.call()
        with contextlib.suppress(ConnectionClosed):
            for _ in range(5):
                client.send("x" * 1000)
        while call.exchange.websocket.close_code is None:
            time.sleep(0.01)
        go_on.set()
        assert call.done.wait(20)
    assert (len(got), len(call.exchange.messages), call.exchange.websocket.unkept) == (3, 3, 1)
    assert call.exchange.websocket.close_code == 1009
    assert call.account.lost["messages of WebSockets"] == 2 * size_of("x" * 1000)


def test_what_waits_to_be_read_beyond_the_limit_is_cut_by_a_close_frame(
    server: DuplexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receive(duplex: SocketDuplex, timeout: float | None = None) -> bytes:
        raise OverLimitError

    monkeypatch.setattr(SocketDuplex, "receive", receive)
    with opened(server) as (ws, client):
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == ws.close_code == 1009
    assert server.call().done.wait(20)


def test_what_nobody_receives_gives_its_room_back_at_the_end() -> None:
    ended = threading.Event()

    class Unrecorded(DuplexAnswer):
        def refusal(self, request: Request) -> None:
            return None

        def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
            kept = conversation.account
            ws = OpenWebSocket(duplex, request, accept(request), account=kept)
            with opened_answer(ws, conversation):
                assert ended.wait(20)

    with serving(Unrecorded()) as server, opened(server) as (ws, client):
        call = server.call()
        for _ in range(3):
            client.send("x" * 1000)
        assert eventually(lambda: call.account.held == 3 * size_of("x" * 1000))
        assert ws.recv() == "x" * 1000
        ended.set()
        assert call.done.wait(20)
        assert call.account.held == 0
        with pytest.raises(WebSocketClosedError):
            ws.recv()
        assert call.account.held == 0


def test_a_send_waits_until_the_handshake_is_answered() -> None:
    original = OpenWebSocket.open

    def late_open(ws: OpenWebSocket) -> None:
        thread = threading.Thread(target=ws.send, args=("at once",))
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        original(ws)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenWebSocket, "open", late_open)
        with serving(websocket()) as server, connect(server.url) as client:
            assert client.recv() == "at once"


def test_what_can_be_sent() -> None:
    assert content_of("text") == "text"
    assert content_of(bytearray(b"bytes")) == b"bytes"
    assert json.loads(content_of({"a": [1, None]})) == {"a": [1, None]}
    assert content_of([1]) == "[1]"
    for wrong in (1, None, ("a",), object):
        with pytest.raises(TypeError, match="a WebSocket sends str, bytes, or a dict or list"):
            content_of(wrong)
    with pytest.raises(TypeError, match="it cannot be sent as JSON"):
        content_of({"a": object()})


def test_only_what_tests_use_is_listed(server: DuplexServer) -> None:
    with opened(server) as (ws, _):
        assert {"recv", "send", "close", "ping", "messages", "close_code", "request"} <= {*dir(ws)}
        assert {"go_away", "take", "listen", "begin"} & {*dir(ws)} == set()


def test_a_message_whose_send_raised_was_not_sent_and_is_not_recorded() -> None:
    went: list[str] = []
    raised: list[str] = []

    def sends(ws: WebSocket) -> None:
        assert ws.recv() == "go on"
        with ThreadPoolExecutor(4) as pool:
            pool.map(lambda name: send_until_it_raises(ws, name), "abcd")
        raise AssertionError("seen by the test") from None

    def send_until_it_raises(ws: WebSocket, name: str) -> None:
        for number in range(10_000):
            text = f"{name}{number} " + "x" * 60_000
            try:
                ws.send(text)
            except WebSocketClosedError:
                raised.append(text)
                return
            went.append(text)

    with serving(websocket(sends)) as server:
        with connect(server.url) as client:
            client.send("go on")
            client.recv()
            client.socket.shutdown(socket.SHUT_RDWR)
        call = server.call()
        assert call.done.wait(20)
    sent = [message.content for message in call.exchange.messages if not message.from_client]
    contents = [message.content for message in call.exchange.messages]
    assert call.account.held == sum(map(size_of, contents))
    assert len(raised) == 4
    assert set(sent) == set(went)
    assert not set(raised) & set(sent)


def test_what_cannot_be_read_is_told_and_a_close_frame_is_not(server: DuplexServer) -> None:
    with opened(server) as (ws, client):
        client.close(1002, "a code of a protocol error, in a frame")
    assert (ws.close_code, server.call().unreadable) == (1002, [])


def test_the_error_about_its_end_can_be_pickled(server: DuplexServer) -> None:
    with opened(server) as (ws, client):
        client.close(4000, "tired")
        with pytest.raises(WebSocketClosedError) as closed:
            ws.recv()
    error = pickle.loads(pickle.dumps(closed.value))
    assert (str(error), error.code, error.reason) == (str(closed.value), 4000, "tired")
