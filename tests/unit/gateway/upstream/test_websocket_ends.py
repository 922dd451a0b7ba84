"""The end of a WebSocket that is forwarded: each side has what the other one sent before it had closed too."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import h2.errors
import pytest

from pytest_egress.gateway.http import forwarding
from pytest_egress.routes.answers import forward
from pytest_egress.routes.websocket import open as open_websocket
from pytest_egress.routes.websocket.open import OpenWebSocket
from pytest_egress.traffic.websocket import Closing, Frames, size_of
from tests.support.http2_client import Http2Client
from tests.support.raw_websockets import RawSide, raw_client, raw_server
from tests.support.stage import ADDRESS, SECONDS, Stage, eventually, reset

LAST_WORDS: list[str | bytes] = ["one", b"two", "x" * 300_000]


def closing(code: int, reason: str = "", *, reply: bool) -> Closing:
    return Closing(code=code, reason=reason, reply=reply)


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_what_a_server_sends_after_the_close_frame_of_its_client_arrives(
    stage: Stage, secure: bool
) -> None:
    def serve(ws: RawSide) -> None:
        assert [ws.next(), ws.next()] == ["last", closing(4001, "enough", reply=True)]
        for words in LAST_WORDS:
            ws.send(ws.frames.message(words))
        ws.send(ws.frames.close(4002, "me too"))
        assert ws.next() is None

    with raw_server(serve) as url:
        route = (stage.https if secure else stage.http)("api.test", forward(url))
        client = raw_client(stage, secure=secure)
        client.send(client.frames.message("last"), client.frames.close(4001, "enough"))
        assert client.rest() == [*LAST_WORDS, closing(4002, "me too", reply=False)]
    (call,) = route.calls
    assert eventually(lambda: len(call.messages) == 4)
    assert [message.content for message in call.messages] == ["last", *LAST_WORDS]
    assert call.websocket.close_code == 4001


def test_a_server_has_as_long_for_it_as_its_client_waits(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_websocket, "CLOSE_SECONDS", 0.01)
    go_on = threading.Event()

    def serve(ws: RawSide) -> None:
        assert ws.next() == closing(1000, reply=True)
        go_on.set()
        assert not go_on_later.wait(0.3)  # thirty times as long as a close frame is waited for
        ws.send(ws.frames.message("late"), ws.frames.close(1000))
        assert ws.next() is None

    go_on_later = threading.Event()
    with raw_server(serve) as url:
        stage.http("api.test", forward(url))
        client = raw_client(stage)
        client.send(client.frames.close(1000))
        assert go_on.wait(SECONDS)
        assert client.rest() == ["late", closing(1000, reply=False)]


def test_a_client_that_has_closed_and_leaves_ends_it(stage: Stage) -> None:
    def serve(ws: RawSide) -> None:
        assert ws.next() == closing(1000, reply=True)
        assert ws.next() is None  # and it never closes by itself

    with raw_server(serve) as url:
        route = stage.http("api.test", forward(url))
        client = raw_client(stage)
        client.send(client.frames.close(1000))
        assert eventually(lambda: route.calls[0].websocket.is_over)
        reset(client.sock)
    stage.settle()
    assert route.calls[0].error is None


def test_the_end_of_its_test_ends_it(stage: Stage) -> None:
    def serve(ws: RawSide) -> None:
        assert ws.next() == closing(1000, reply=True)
        assert ws.next() is None

    with raw_server(serve) as url:
        route = stage.http("api.test", forward(url))
        client = raw_client(stage)
        client.send(client.frames.close(1000))
        assert eventually(lambda: route.calls[0].websocket.is_over)
        stage.settle()
        (over,) = stage.gateway.revise(test_over=True)
        assert client.rest()[-1:] == [closing(1001, "the test is over", reply=False)]
        assert eventually(lambda: over.ended)


def test_a_close_frame_that_came_before_the_end_of_its_test_is_passed_on_as_it_came(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_close, told = OpenWebSocket.pass_close, threading.Event()

    def pass_late(sink: OpenWebSocket, *end: Any) -> None:
        assert told.wait(SECONDS)
        pass_close(sink, *end)

    def serve(ws: RawSide) -> None:
        assert ws.next() == closing(4001, "enough", reply=True)
        told.set()
        assert ws.next() is None

    monkeypatch.setattr(OpenWebSocket, "pass_close", pass_late)
    with raw_server(serve) as url:
        route = stage.http("api.test", forward(url))
        client = raw_client(stage)
        client.send(client.frames.close(4001, "enough"))
        assert eventually(lambda: route.calls[0].websocket.is_over)
        stage.settle()
        stage.gateway.revise(test_over=True)
        assert client.rest()[-1:] == [closing(1001, "the test is over", reply=False)]


def test_what_a_client_sends_after_the_close_frame_of_the_server_arrives(stage: Stage) -> None:
    seen: list[object] = []

    def serve(ws: RawSide) -> None:
        ws.send(ws.frames.close(4002, "me first"))
        seen.extend(ws.rest())

    with raw_server(serve) as url:
        stage.http("api.test", forward(url))
        client = raw_client(stage)
        assert client.next() == closing(4002, "me first", reply=True)
        client.send(client.frames.message("not yet"), client.frames.close(4002))
        assert client.next() is None
    assert seen == ["not yet", closing(4002, reply=False)]


def test_a_client_that_resets_its_stream_is_told_to_the_server_by_a_close_frame(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut: list[socket.socket] = []
    seen: list[object] = []
    monkeypatch.setattr(
        forwarding, "shut", shut.append
    )  # as a client that leaves before it is open

    def serve(ws: RawSide) -> None:
        seen.extend(ws.rest())

    with raw_server(serve) as url:
        route = stage.http("api.test", forward(url))
        client = Http2Client(stage.dial(ADDRESS, 80), "http")
        fields = [("sec-websocket-version", "13")]
        number = client.begin("/", "CONNECT", protocol="websocket", headers=fields, ends=False)
        client.flush()
        assert client.until(lambda: client.answers[number].status == 200)
        client.send(number, Frames(None, of_client=True).message("hello"))
        assert eventually(lambda: route.calls and route.calls[0].messages)
        client.h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
        client.flush()
    message, end = seen
    assert isinstance(end, Closing)
    assert (message, end.code, shut) == ("hello", 1001, [])


def test_nobody_looks_for_a_client_to_leave_once_it_is_open(stage: Stage) -> None:
    def serve(ws: RawSide) -> None:
        ws.send(ws.frames.message("open"))
        assert ws.next() == closing(1000, reply=True)
        ws.send(ws.frames.close(1000))

    with raw_server(serve) as url:
        stage.http("api.test", forward(url))
        client = raw_client(stage)
        assert client.next() == "open"
        assert eventually(
            lambda: not any(each.name == "egress client" for each in threading.enumerate())
        )
        client.send(client.frames.close(1000))
        assert client.next() == closing(1000, reply=False)


def test_what_a_client_that_leaves_has_not_read_takes_no_room(stage: Stage) -> None:
    go_on, text = threading.Event(), "x" * 200_000

    def serve(ws: RawSide) -> None:
        assert go_on.wait(SECONDS)
        for _ in range(100):  # more than the kernel buffers
            ws.send(ws.frames.message(text))
        with contextlib.suppress(OSError):  # the gateway leaves with what it has sent unread
            ws.rest()

    with raw_server(serve) as url:
        route = stage.http("api.test", forward(url))
        client = raw_client(stage)
        account = stage.window.account
        before = account.held
        go_on.set()
        assert eventually(lambda: account.held > before + 100 * len(text))
        reset(client.sock)
        (call,) = route.calls
        assert eventually(lambda: not list(stage.gateway.connections))
    assert len(call.messages) < 100
    kept = sum(size_of(message.content) for message in call.messages)
    assert account.held == before + kept
