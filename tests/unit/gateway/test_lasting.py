"""WebSockets through the gateway: they are calls, outlive no test of their own, and keep none waiting."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pytest_egress.gateway.lasting import Lasting
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.applications.asgi import asgi
from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.routes.websocket.open import WebSocket
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.websocket import Frames
from tests.support.stage import SECONDS, Stage, ask, eventually
from tests.support.websocket_clients import websocket_client


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


@pytest.mark.parametrize("secure", [True, False], ids=["wss", "ws"])
def test_a_websocket_is_a_call_with_its_messages(stage: Stage, secure: bool) -> None:
    route = (stage.https if secure else stage.http)("api.test", websocket(echo), path="/chat")
    with websocket_client(stage, "/chat", secure=secure) as client:
        for message in ("hello", b"x" * 300_000):
            client.send(message)
            assert client.recv() == message
    call = stage.only(Exchange)
    assert call is route.assert_called_once()
    assert call.response.status_code == 101
    assert [message.content for message in call.messages[:2]] == ["hello", "hello"]
    assert eventually(lambda: call.websocket.close_code == 1000)
    assert all(message.at >= call.started for message in call.messages)
    assert judge(stage.window, [route]) is None


@pytest.mark.parametrize("secure", [True, False], ids=["wss", "ws"])
def test_the_body_of_its_request_is_empty_and_takes_nothing_of_its_messages(
    stage: Stage, secure: bool
) -> None:
    def handler(ws: WebSocket) -> None:
        bodies.append(ws.request.content)
        echo(ws)

    bodies: list[bytes] = []
    (stage.https if secure else stage.http)("api.test", websocket(handler))
    with websocket_client(stage, secure=secure) as client:
        client.send("hello")
        assert client.recv(SECONDS) == "hello"
    assert bodies == [b""]


def test_the_test_sends_as_soon_as_it_is_a_call(stage: Stage) -> None:
    route = stage.https("api.test", websocket())
    with websocket_client(stage) as client:
        call = route.wait_for_call()
        assert call.response.status_code == 101
        call.send(["pushed"])
        assert client.recv() == '["pushed"]'
        call.close(4000)
        with pytest.raises(ConnectionClosed, match="4000"):
            client.recv()
        with pytest.raises(TypeError, match=r"send\(\): GET .* has opened no WebSocket"):
            Exchange(container="", started=0, outcome="routed", host="", request=call.request).send(
                "x"
            )


def test_an_open_websocket_keeps_no_window_open(stage: Stage) -> None:
    route = stage.https("api.test", websocket(echo))
    with websocket_client(stage) as client:
        call = route.wait_for_call()
        stage.settle()  # no activity is left
        assert stage.gateway.busy() == []
        assert call.websocket.close_code is None
        client.send("still there")
        assert client.recv() == "still there"


def test_the_end_of_its_test_closes_with_1001_and_its_handler_returns(stage: Stage) -> None:
    returned = threading.Event()

    def handler(ws: WebSocket) -> None:
        assert list(ws) == []
        returned.set()

    route = stage.https("api.test", websocket(handler))
    with websocket_client(stage) as client:
        route.wait_for_call()
        stage.settle()
        (over,) = stage.gateway.revise(test_over=True)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "the test is over")
        assert returned.wait(10)
        assert eventually(lambda: over.ended)
    assert judge(stage.window, [route]) is None


def test_a_handler_that_still_runs_is_named(stage: Stage) -> None:
    go_on = threading.Event()
    route = stage.https("api.test", websocket(lambda ws: go_on.wait(10) and None))
    with websocket_client(stage):
        route.wait_for_call()
        stage.settle()
        (over,) = stage.gateway.revise(test_over=True)
        assert not over.ended
        assert over.activity.route is route
        assert over.activity.what is route.calls[0]
        go_on.set()
        assert eventually(lambda: over.ended)


def test_a_client_that_has_closed_and_reads_no_more_does_not_hold_its_tests_end(
    stage: Stage,
) -> None:
    more_than_buffers_take = bytes(32 << 20)
    route = stage.http("api.test", websocket(lambda ws: ws.send(more_than_buffers_take)))
    sock = stage.dial(port=80)
    sock.sendall(HANDSHAKE)
    call = route.wait_for_call()
    assert eventually(lambda: call.messages)
    sock.sendall(Frames(None, of_client=True).close(1000))
    assert eventually(lambda: call.websocket.close_code == 1000)
    (over,) = stage.gateway.revise(test_over=True)
    assert eventually(lambda: over.ended)
    assert call.error is None


def test_that_of_a_wider_scope_goes_on_until_its_route_is_removed(stage: Stage) -> None:
    route = stage.https("api.test", websocket(echo))
    route.scope = "session"  # type: ignore[misc]
    with websocket_client(stage) as client:
        route.wait_for_call()
        stage.settle()
        assert stage.gateway.revise(test_over=True) == []
        stage.next_window()
        client.send("in the next test")
        assert client.recv() == "in the next test"
        route.remove()
        stage.gateway.revise()
        with pytest.raises(ConnectionClosed, match="1001"):
            client.recv()


def test_an_error_of_a_handler_fails_the_test_that_runs_by_then_too(stage: Stage) -> None:
    def fails(ws: WebSocket) -> None:
        raise ZeroDivisionError(ws.recv())

    route = stage.https("api.test", websocket(fails))
    with websocket_client(stage) as client:
        call = route.wait_for_call()
        stage.settle()
        second = stage.next_window()
        client.send("mine")
        with pytest.raises(ConnectionClosed, match="1011"):
            client.recv()
    assert eventually(lambda: call in second.entries)
    assert isinstance(call.error, ZeroDivisionError)
    verdict = judge(second, [])
    assert verdict is not None
    assert "its handler raised ZeroDivisionError: mine" in verdict.headline


def test_a_client_that_vanishes_ends_the_handler_and_fails_nothing(stage: Stage) -> None:
    route = stage.https("api.test", websocket(echo))
    with websocket_client(stage) as client:
        call = route.wait_for_call()
        client.socket.shutdown(socket.SHUT_RDWR)
        assert eventually(lambda: call.websocket.close_code == 1006)
    assert eventually(lambda: not len(stage.gateway.connections))
    assert call.error is None
    assert judge(stage.window, [route]) is None


def test_a_stopped_gateway_ends_them(stage: Stage) -> None:
    route = stage.https("api.test", websocket(echo))
    with websocket_client(stage) as client:
        call = route.wait_for_call()
        assert stage.gateway.stop() == []
        with pytest.raises(ConnectionClosed):
            client.recv()
    assert call.websocket.close_code == 1006


# What is no WebSocket.


def test_an_ordinary_request_is_unrouted_and_told_what_to_do(stage: Stage) -> None:
    route = stage.https("api.test", websocket(echo), times=1)
    reply = ask(stage.tls())
    assert (reply.status, reply.headers["upgrade"]) == (426, "websocket")
    assert b"is an ordinary request, and the route answers WebSockets alone" in reply.body
    entry = stage.only(Exchange)
    assert entry.outcome == "unrouted"
    assert "is an ordinary request" in entry.note
    with websocket_client(stage) as client:  # its turn was given back
        client.send("hello")
        assert client.recv() == "hello"
    assert len(route.calls) == 1


HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_an_ordinary_handler_sees_the_handshake_and_may_refuse_it(stage: Stage) -> None:
    seen: list[str] = []

    def handler(request: Request) -> Response:
        seen.append(request.headers["upgrade"])
        return Response(401, text="who are you?")

    stage.https("api.test", handler)
    with pytest.raises(InvalidStatus, match="HTTP 401"), websocket_client(stage):
        pass
    assert seen == ["websocket"]
    assert stage.only(Exchange).outcome == "routed"


def test_the_connection_goes_on_after_a_refusal(stage: Stage) -> None:
    stage.https("api.test", 403)
    sock = stage.tls()
    assert ask(sock, HANDSHAKE).status == 403
    assert ask(sock, HANDSHAKE).status == 403


def test_a_handshake_without_a_route_gets_the_502_of_every_request(stage: Stage) -> None:
    reply = ask(stage.tls(), HANDSHAKE)
    assert reply.status == 502
    assert b"no route answers GET https://api.test/chat" in reply.body
    assert stage.only(Exchange).outcome == "unrouted"


def test_a_message_behind_the_handshake_in_one_segment_is_read(stage: Stage) -> None:
    route = stage.https("api.test", websocket(echo))
    sock = stage.tls()
    sock.sendall(HANDSHAKE + b"\x81\x82\0\0\0\0hi")
    data = b""
    while b"\x81\x02hi" not in data:
        data += sock.recv(65536)
    assert data.startswith(b"HTTP/1.1 101 ")
    assert route.calls[0].messages[0].content == "hi"


def test_it_stands_in_a_sequence(stage: Stage) -> None:
    stage.https("api.test", sequence(websocket(echo), 503))
    with websocket_client(stage) as client:
        client.send("hello")
        assert client.recv() == "hello"
    assert ask(stage.tls()).status == 503


def test_an_application_answers_both_requests_and_websockets(stage: Stage) -> None:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route, WebSocketRoute

    async def page(request: object) -> PlainTextResponse:
        return PlainTextResponse("a page")

    async def speak(ws: object) -> None:
        await ws.accept()  # type: ignore[attr-defined]
        await ws.send_text("a message")  # type: ignore[attr-defined]
        await ws.close()  # type: ignore[attr-defined]

    app = Starlette(routes=[Route("/", page), WebSocketRoute("/", speak)])
    route = stage.https("api.test", asgi(app))
    assert ask(stage.tls()).body == b"a page"
    with websocket_client(stage) as client:
        assert client.recv() == "a message"
    assert [call.response.status_code for call in route.calls] == [200, 101]
    with pytest.raises(InvalidStatus, match="HTTP 403"), websocket_client(stage, "/nowhere"):
        pass
    assert eventually(lambda: len(route.calls) == 3)
    assert route.calls[2].response.status_code == 403
    route.release()


def test_what_lasts_is_told_once() -> None:
    told: list[str] = []
    request = Request(method="GET", scheme="http", host="api.test", port=80, path="/")
    entry = Exchange(
        container="", started=0, outcome="passthrough", host="api.test", request=request
    )
    lasting = Lasting(entry, lambda: told.append("end"))
    assert not lasting.is_over()
    assert lasting.is_over(test_over=True)
    lasting.tell()
    lasting.tell()
    assert told == ["end"]


def test_an_application_is_told_of_a_client_that_leaves_before_it_accepts(stage: Stage) -> None:
    received: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while scope["type"] == "websocket" and "websocket.disconnect" not in received:
            received.append((await receive())["type"])

    route = stage.http("api.test", asgi(app))
    sock = stage.dial(port=80)
    sock.sendall(HANDSHAKE)
    assert eventually(lambda: received == ["websocket.connect"])
    sock.close()
    call = stage.only(Exchange)
    assert received == ["websocket.connect", "websocket.disconnect"]
    assert (call.error, route.call_count) == (None, 1)
    assert call.note.startswith("the client closed before its response was sent")
    route.release()


def test_what_an_application_raises_of_its_own_after_that_is_its_error(stage: Stage) -> None:
    has_connected = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            has_connected.set()
            raise ZeroDivisionError((await receive())["type"])

    route = stage.http("api.test", asgi(app))
    sock = stage.dial(port=80)
    sock.sendall(HANDSHAKE)
    assert has_connected.wait(10)
    sock.close()
    assert isinstance(stage.only(Exchange).error, ZeroDivisionError)
    route.release()
