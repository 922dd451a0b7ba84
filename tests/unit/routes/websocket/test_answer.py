"""The answer `websocket()`: what it takes, what it refuses, and what becomes of its handler's call."""

from __future__ import annotations

import functools
import http.client
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pytest_egress.errors import WebSocketClosedError
from pytest_egress.routes.answers import check_answer
from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.routes.websocket.open import WebSocket
from pytest_egress.traffic.http.response import Response
from tests.support.websocket_server import serving


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


def test_a_handler_reads_and_sends_and_its_end_closes() -> None:
    with serving(websocket(lambda ws: ws.send(f"got {ws.recv()}"))) as server:
        with connect(server.url) as client:
            client.send("hello")
            assert client.recv() == "got hello"
            with pytest.raises(ConnectionClosed) as closed:
                client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
        call = server.call()
        assert call.done.wait(20)
        assert call.error is None


def test_messages_of_both_directions_are_recorded_in_order() -> None:
    with serving(websocket(echo)) as server:
        with connect(server.url) as client:
            for message in ("one", b"two"):
                client.send(message)
                assert client.recv() == message
        call = server.call()
        assert call.done.wait(20)
    assert [(m.content, m.from_client) for m in call.exchange.messages] == [
        ("one", True),
        ("one", False),
        (b"two", True),
        (b"two", False),
    ]
    assert call.exchange.websocket.messages is call.exchange.messages


def test_the_subprotocol_is_agreed_on_with_the_client() -> None:
    answer = websocket(lambda ws: ws.send(ws.subprotocol), subprotocols=["chat.v2", "chat.v1"])
    with serving(answer) as server, connect(server.url, subprotocols=["chat.v1"]) as client:  # type: ignore[list-item]
        assert client.subprotocol == client.recv() == "chat.v1"


def test_without_a_handler_the_test_sends_receives_and_closes() -> None:
    with serving(websocket()) as server, connect(server.url) as client:
        call = server.call()
        call.exchange.send({"price": 42})
        assert client.recv() == '{"price": 42}'
        client.send("thanks")
        assert call.exchange.websocket.recv(timeout=20) == "thanks"
        call.exchange.close(4001, "enough")
        with pytest.raises(ConnectionClosed, match="4001"):
            client.recv()
        assert call.done.wait(20)
        assert call.error is None
        with pytest.raises(WebSocketClosedError, match=r"is closed, with 4001 \(enough\)"):
            call.exchange.send("late")


def test_the_call_is_counted_when_its_handshake_is_answered_and_then_outlives_its_test() -> None:
    with serving(websocket()) as server, connect(server.url) as client:
        call = server.call()
        assert call.counted.is_set()
        assert call.end is not None
        call.end()
        with pytest.raises(ConnectionClosed) as closed:
            client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "the test is over")
        assert call.done.wait(20)


def test_a_handler_that_raises_closes_with_1011() -> None:
    def fails(ws: WebSocket) -> None:
        raise ZeroDivisionError(ws.recv())

    with serving(websocket(fails)) as server, connect(server.url) as client:
        client.send("mine")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        assert closed.value.rcvd.reason == "the handler raised ZeroDivisionError"
        call = server.call()
        assert call.done.wait(20)
    assert isinstance(call.error, ZeroDivisionError)


def test_what_a_handler_returns_by_mistake_is_an_error_that_says_what_to_type() -> None:
    async def chat(ws: Any) -> None: ...

    for handler, text in (
        (lambda ws: "hello", "returned 'hello': a handler of a WebSocket sends by ws.send"),
        (lambda ws: (yield), "sends by ws.send"),
        (lambda ws: chat(ws), "returned a coroutine: give websocket.. the async function itself"),
    ):
        with serving(websocket(handler)) as server, connect(server.url) as client:
            with pytest.raises(ConnectionClosed, match="1011"):
                client.recv()
            call = server.call()
            assert call.done.wait(20)
        with pytest.raises(TypeError, match=text):
            raise call.error or AssertionError


def test_a_client_that_leaves_is_no_error_of_a_handler_that_sends() -> None:
    def floods(ws: WebSocket) -> None:
        while True:
            ws.send("x" * 1000)

    with serving(websocket(floods)) as server:
        with connect(server.url, close_timeout=1) as client:
            client.recv()
        call = server.call()
        assert call.done.wait(20)
    assert call.error is None


def test_that_another_websocket_is_closed_is_an_error_of_the_handler() -> None:
    def forwards(ws: WebSocket) -> None:
        ws.recv()
        server.call(1).exchange.websocket.send("to the other")

    with serving(websocket(forwards)) as server:
        with connect(server.url):
            pass
        assert server.call(1).done.wait(20)
        with connect(server.url) as second:
            second.send("go")
            with pytest.raises(ConnectionClosed, match="1011"):
                second.recv()
        call = server.call(2)
        assert call.done.wait(20)
    assert isinstance(call.error, WebSocketClosedError)


def test_an_ordinary_request_is_refused_with_what_to_do() -> None:
    with serving(websocket(echo)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("GET", "/chat")
        response = connection.getresponse()
        assert (response.status, response.getheader("Upgrade")) == (426, "websocket")
        assert b"is an ordinary request, and the route answers WebSockets alone" in response.read()
        connection.close()


@pytest.mark.parametrize(
    "handler", [1, "text", Response(), lambda: None, WebSocket, lambda a, b: a]
)
def test_a_handler_that_takes_no_websocket_is_refused(handler: Any) -> None:
    with pytest.raises(TypeError, match="it takes a function of one argument, the WebSocket"):
        websocket(handler)


def test_a_route_of_requests_takes_it_and_a_raw_route_does_not() -> None:
    answer = websocket(echo, subprotocols=["chat"])
    assert repr(answer) == "websocket(echo, subprotocols=['chat'])"
    assert check_answer(answer, raw=False) is answer
    with pytest.raises(TypeError, match="answers requests, and a raw route has none"):
        check_answer(answer, raw=True)


class Lobby:
    """A handler that is an object."""

    def __call__(self, ws: WebSocket) -> None:
        ws.send("lobby")


@pytest.mark.parametrize(
    "bound", [functools.partial(lambda room, ws: ws.send(room), "lobby"), Lobby()]
)
def test_a_handler_may_be_a_partial_or_an_object(bound: Any) -> None:
    with serving(websocket(bound)) as server, connect(server.url) as client:
        assert client.recv() == "lobby"


def test_the_end_of_another_websocket_is_an_error_of_the_handler_though_its_client_has_left() -> (
    None
):
    others: list[WebSocket] = []

    def sends_to_the_other(ws: WebSocket) -> None:
        assert list(ws) == []
        others[0].send("nobody is there")

    with serving(websocket()) as other, serving(websocket(sends_to_the_other)) as server:
        with connect(other.url):
            others.append(other.call().exchange.websocket)
        assert other.call().done.wait(20)
        with connect(server.url):
            pass
        assert server.call().done.wait(20)
        assert isinstance(server.call().error, WebSocketClosedError)
