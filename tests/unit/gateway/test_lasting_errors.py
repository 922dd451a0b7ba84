"""What goes wrong on an open WebSocket fails the test that runs by then, before its client knows of the end."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest

from pytest_egress import HandlerError, UnroutedError
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.applications.asgi import asgi
from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.routes.websocket.asynchronous import AsyncWebSocket
from pytest_egress.routes.websocket.open import WebSocket
from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.websocket import Closing, Frames
from tests.support.stage import SECONDS, Stage, eventually

HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class QuietClient:
    """A client that never closes by itself, nor answers a close frame."""

    def __init__(self, stage: Stage) -> None:
        self.frames = Frames(None, of_client=True)
        self.sock: ssl.SSLSocket = stage.tls()
        self.sock.settimeout(SECONDS)
        self.sock.sendall(HANDSHAKE)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")

    def send(self, content: str | bytes) -> None:
        self.sock.sendall(self.frames.message(content))

    def end(self) -> Closing:
        """The close frame of the server."""
        while data := self.sock.recv(65536):
            for received in self.frames.receive(data):
                if isinstance(received, Closing):
                    return received
        raise AssertionError("there was no close frame")


# Handlers, which echo what they are sent, and fail by "fail".


def echo(ws: WebSocket) -> None:
    for message in ws:
        if message == "fail":
            raise ZeroDivisionError
        ws.send(message)


async def async_echo(ws: AsyncWebSocket) -> None:
    async for message in ws:
        if message == "fail":
            raise ZeroDivisionError
        await ws.send(message)


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "fail":
            raise ZeroDivisionError
        await send({"type": "websocket.send", "text": message.get("text")})


ANSWERS: list[Callable[[], Any]] = [
    lambda: websocket(echo),
    lambda: websocket(async_echo),
    lambda: asgi(application),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=["sync", "async", "asgi"])
def test_an_error_of_a_wider_route_fails_the_test_whose_client_learns_of_the_end(
    stage: Stage, answer: Callable[[], Any]
) -> None:
    route = stage.https("api.test", answer())
    route.scope = "session"  # type: ignore[misc]
    client = QuietClient(stage)
    call = route.wait_for_call()
    second = stage.next_window()
    client.send("fail")
    assert client.end().code == 1011
    verdict = judge(second, [])
    assert isinstance(verdict, HandlerError)
    assert second.entries == [call]
    stage.open.callback(client.sock.close)


UNREADABLE = {
    "an unmasked frame": (b"\x81\x02hi", 1002),
    "invalid UTF-8": (b"\x81\x82\0\0\0\0\xff\xff", 1007),
    "a reserved opcode": (b"\x83\x80\0\0\0\0", 1002),
}


@pytest.mark.parametrize("answer", ANSWERS, ids=["sync", "async", "asgi"])
@pytest.mark.parametrize(("data", "code"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_fails_the_test_as_an_unreadable_request_does(
    stage: Stage, data: bytes, code: int, answer: Callable[[], Any]
) -> None:
    route = stage.https("api.test", answer())
    client = QuietClient(stage)
    client.send("before")
    client.sock.sendall(data)
    assert client.end().code == code
    (entry,) = stage.entries(TcpConnection)
    assert (entry.outcome, entry.host, entry.port) == ("unrouted", "api.test", 443)
    assert entry.note.startswith(
        "what its client sent cannot be read, on the WebSocket https://api.test/chat: "
    )
    verdict = judge(stage.window, [route])
    assert isinstance(verdict, UnroutedError)
    assert entry.note in " ".join(str(verdict).split())
    assert "intercept" not in str(verdict)
    (call,) = stage.entries(Exchange)
    assert [message.content for message in call.messages if message.from_client] == ["before"]


def test_a_message_over_the_limit_fails_the_test(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = Frames.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "most", 1000)
    stage.https("api.test", websocket(echo))
    client = QuietClient(stage)
    client.send(bytes(1001))
    assert client.end().code == 1009
    (entry,) = stage.entries(TcpConnection)
    assert entry.note.endswith(": a message is over 1000 bytes (it is closed with 1009)")
    assert isinstance(judge(stage.window, []), UnroutedError)


def test_what_cannot_be_read_fails_the_test_that_runs_then(stage: Stage) -> None:
    route = stage.https("api.test", websocket(echo))
    route.scope = "session"  # type: ignore[misc]
    client = QuietClient(stage)
    route.wait_for_call()
    first, second = stage.window, stage.next_window()
    client.sock.sendall(b"\x81\x02hi")
    client.end()
    assert judge(first, []) is None
    assert isinstance(judge(second, []), UnroutedError)


def test_a_client_that_closes_with_a_code_of_an_error_has_sent_nothing_unreadable(
    stage: Stage,
) -> None:
    route = stage.https("api.test", websocket(echo))
    client = QuietClient(stage)
    call = route.wait_for_call()
    client.sock.sendall(client.frames.close(1002, "its server sent what it cannot read"))
    assert eventually(lambda: call.websocket.close_code == 1002)
    assert judge(stage.window, [route]) is None
