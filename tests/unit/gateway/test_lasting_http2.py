"""WebSockets over HTTP/2 (RFC 8441): streams beside others, which may outlive their test as well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from websockets.sync.server import serve

from pytest_egress import UnroutedError
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward
from pytest_egress.routes.applications.asgi import asgi
from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.routes.websocket.open import WebSocket
from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.websocket import Closing, Frames
from tests.support.http2_client import Fields, Http2Answer, Http2Client
from tests.support.stage import Stage, client_context, eventually

HANDSHAKE: Fields = [("sec-websocket-version", "13")]


@pytest.fixture
def client(stage: Stage, ca: trustme.CA) -> Http2Client:
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    return Http2Client(stage.tls(context=context))


class StreamOfFrames:
    """A WebSocket on a stream of a client, compressed where the server agrees.

    Attributes:
        answer: The answer to its handshake, and the bytes that have come behind.
        received: What the frames in these bytes are.
    """

    def __init__(self, client: Http2Client, headers: Fields = HANDSHAKE) -> None:
        self.client = client
        assert client.until(lambda: client.h2.remote_settings.enable_connect_protocol)
        self.number = client.begin(
            "/chat", "CONNECT", protocol="websocket", headers=headers, ends=False
        )
        client.flush()
        self.answer: Http2Answer = client.answers[self.number]
        assert client.until(lambda: self.answer.status)
        agreed = self.answer.headers.get("sec-websocket-extensions")
        deflate = None if agreed is None else agreed.partition(";")[2]
        self.frames, self.received, self._seen = Frames(deflate, of_client=True), list[Any](), 0

    def send(self, message: str | bytes) -> None:
        self.client.send(self.number, self.frames.message(message))

    def close(self, code: int = 1000) -> None:
        self.client.send(self.number, self.frames.close(code))

    def recv(self, count: int = 1) -> list[Any]:
        """What has come, once it is at least so much."""

        def came() -> bool:
            data = self.answer.body[self._seen :]
            self._seen += len(data)
            self.received += self.frames.receive(data)
            return len(self.received) >= count

        assert self.client.until(came)
        return self.received


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


def test_a_websocket_is_a_stream_beside_requests(stage: Stage, client: Http2Client) -> None:
    route = stage.https("api.test", websocket(echo, ["chat"]), method="GET", path="/chat")
    stage.https("api.test", 204, path="/other")
    offered = [
        *HANDSHAKE,
        ("sec-websocket-protocol", "other, chat"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
    ]
    ws = StreamOfFrames(client, offered)
    assert ws.answer.status == 200
    assert ws.answer.headers["sec-websocket-protocol"] == "chat"
    assert ws.answer.headers["sec-websocket-extensions"] == "permessage-deflate"
    assert "sec-websocket-accept" not in ws.answer.headers
    ws.send("hello")
    ws.send(b"x" * 300_000)
    assert client.ask("/other").status == 204
    assert ws.recv(2) == ["hello", b"x" * 300_000]
    ws.close(4001)
    assert ws.recv(3)[2] == Closing(code=4001, reason="", reply=False)
    assert client.until(lambda: ws.answer.ended)
    call = route.assert_called_once()
    assert (call.request.method, call.request.http_version) == ("GET", "2")
    assert (call.response.status_code, len(call.messages)) == (200, 4)
    assert eventually(lambda: call.websocket.close_code == 4001)
    assert client.ask("/other").status == 204


def test_it_keeps_no_window_open_and_the_end_of_its_test_closes_it_alone(
    stage: Stage, client: Http2Client
) -> None:
    route = stage.https("api.test", websocket(), path="/chat")
    stage.https("api.test", 204, path="/other")
    ws = StreamOfFrames(client)
    call = route.wait_for_call()
    stage.settle()
    call.send("pushed")
    assert ws.recv() == ["pushed"]
    (over,) = stage.gateway.revise(test_over=True)
    assert ws.recv(2)[1] == Closing(code=1001, reason="the test is over", reply=True)
    ws.close(1001)
    assert eventually(lambda: over.ended)
    assert client.ask("/other").status == 204


def test_a_client_that_never_reads_does_not_hold_its_tests_end(
    stage: Stage, client: Http2Client
) -> None:
    def floods(ws: WebSocket) -> None:
        while True:
            ws.send(bytes(1 << 20))

    route = stage.https("api.test", websocket(floods))
    client.reads = False
    StreamOfFrames(client)
    call = route.wait_for_call()
    assert eventually(lambda: call.messages)
    (over,) = stage.gateway.revise(test_over=True)
    assert eventually(lambda: over.ended)
    assert call.error is None


def test_a_client_that_resets_the_stream_ends_the_iteration(
    stage: Stage, client: Http2Client
) -> None:
    ended = threading.Event()

    def handler(ws: WebSocket) -> None:
        assert list(ws) == []
        ended.set()

    route = stage.https("api.test", websocket(handler))
    ws = StreamOfFrames(client)
    client.h2.reset_stream(ws.number)
    client.flush()
    assert ended.wait(10)
    call = route.assert_called_once()
    assert (call.websocket.close_code, call.error) == (1006, None)


def test_an_ordinary_handler_gets_a_get_without_a_body_and_may_refuse(
    stage: Stage, client: Http2Client
) -> None:
    def handler(request: Request) -> Response:
        assert (request.method, request.headers["upgrade"]) == ("GET", "websocket")
        return Response(403, text=f"{len(request.content)} bytes")

    stage.https("api.test", handler)
    ws = StreamOfFrames(client)
    assert client.answer(ws.number).body == b"0 bytes"
    assert ws.answer.status == 403


def test_a_handshake_of_another_version_is_refused(stage: Stage, client: Http2Client) -> None:
    stage.https("api.test", websocket(echo))
    ws = StreamOfFrames(client, [("sec-websocket-version", "8")])
    assert ws.answer.status == 426
    assert ws.answer.headers["sec-websocket-version"] == "13"
    assert stage.only(Exchange).outcome == "unrouted"


def test_an_unrouted_one_is_told_that_no_route_answers(stage: Stage, client: Http2Client) -> None:
    ws = StreamOfFrames(client)
    assert b"no route answers GET https://api.test/chat" in client.answer(ws.number).body
    assert ws.answer.status == 502


def test_a_tunnel_to_anything_else_is_refused(stage: Stage, client: Http2Client) -> None:
    stage.https("api.test", 204)
    assert client.until(lambda: client.h2.remote_settings.enable_connect_protocol)
    number = client.begin("/", "CONNECT", protocol="connect-udp", ends=True)
    client.flush()
    assert client.answer(number).status == 502
    assert stage.only(Exchange).note == (
        "the protocol 'connect-udp' that it asks for by CONNECT (RFC 8441) is not spoken"
    )


@pytest.fixture
def real_url() -> Iterator[str]:
    """The URL of a real server that echoes."""

    def handler(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(10)


def test_applications_and_servers_answer_it_too(
    stage: Stage, client: Http2Client, real_url: str
) -> None:
    async def speak(ws: StarletteWebSocket) -> None:
        await ws.accept()
        await ws.send_text(await ws.receive_text())
        await ws.close()

    app = asgi(Starlette(routes=[WebSocketRoute("/chat", speak)]))
    route = stage.https("api.test", app)
    answers: tuple[Any, ...] = app, forward(real_url)
    for count, answer in enumerate(answers, 1):
        route.respond(answer)
        ws = StreamOfFrames(client)
        assert ws.answer.status == 200
        ws.send("hello")
        assert ws.recv() == ["hello"] or ws.received[0] == "hello"
        ws.close()
        assert client.until(lambda ws=ws: ws.answer.ended)  # type: ignore[misc]
        assert route.wait_for_call(count).response.status_code == 200
    route.release()


def test_what_cannot_be_read_of_a_stream_fails_the_test_and_other_streams_go_on(
    stage: Stage, client: Http2Client
) -> None:
    stage.https("api.test", websocket(echo), method="GET", path="/chat")
    stage.https("api.test", 204, path="/other")
    ws = StreamOfFrames(client)
    client.send(ws.number, b"\x81\x02hi")  # without a mask
    assert ws.recv()[0].code == 1002
    assert client.ask("/other").status == 204
    (entry,) = stage.entries(TcpConnection)
    assert "cannot be read, on the WebSocket https://api.test/chat" in entry.note
    assert isinstance(judge(stage.window, []), UnroutedError)
