"""`forward()` of WebSockets: to a real server on loopback, messages recorded, refusals and ends relayed."""

from __future__ import annotations

import contextlib
import http
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.server import Server, ServerConnection, serve

from pytest_egress.gateway.upstream.websocket import SocketDuplex, check_accepted
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.websocket import accept_token
from tests.support.stage import Stage, eventually
from tests.support.websocket_clients import websocket_client


@contextlib.contextmanager
def real_server(
    handler: Callable[[ServerConnection], None], **options: Any
) -> Iterator[tuple[str, Server]]:
    """A server of WebSockets, and its URL."""
    scheme = "https" if "ssl" in options else "http"
    with serve(handler, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{scheme}://localhost:{server.socket.getsockname()[1]}", server
        finally:
            server.shutdown()
            thread.join(10)


def echo(ws: ServerConnection) -> None:
    for message in ws:
        if message == "bye":
            ws.close(4001, "enough")
        else:
            ws.send(message)


def test_messages_go_both_ways_and_are_recorded(stage: Stage) -> None:
    asked: list[Any] = []

    def handler(ws: ServerConnection) -> None:
        asked.append(ws.request)
        echo(ws)

    with real_server(handler, subprotocols=["chat"]) as (url, _):
        route = stage.https("api.test", forward(f"{url}/base"))
        offered: Any = ["other", "chat"]
        fields = {"Authorization": "Bearer x"}
        with websocket_client(
            stage, "/room?user=1", subprotocols=offered, additional_headers=fields
        ) as client:
            assert client.subprotocol == "chat"
            for message in ("hello", b"x" * 300_000, ""):
                client.send(message)
                assert client.recv() == message
            client.send("bye")
            with pytest.raises(ConnectionClosed, match="4001"):
                client.recv()
        call = route.assert_called_once()
        assert [message.from_client for message in call.messages] == [True, False] * 3 + [True]
        assert eventually(lambda: call.websocket.close_code == 4001)
    (request,) = asked
    assert request.path == "/base/room?user=1"
    assert request.headers["Authorization"] == "Bearer x"
    assert request.headers["Host"] == "api.test"
    assert "Sec-WebSocket-Extensions" not in request.headers
    assert judge(stage.window, [route]) is None


def test_a_server_is_spoken_to_by_tls(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    with real_server(echo, ssl=context) as (url, _), ca.cert_pem.tempfile() as roots:
        monkeypatch.setenv("SSL_CERT_FILE", roots)
        stage.https("api.test", forward(url))
        with websocket_client(stage) as client:
            client.send("x" * 900_000)
            assert client.recv() == "x" * 900_000


def test_a_refusal_of_the_server_is_relayed(stage: Stage) -> None:
    def refuse(connection: ServerConnection, request: object) -> Any:
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not you\n")

    with real_server(echo, process_request=refuse) as (url, _):
        route = stage.https("api.test", forward(url))
        with pytest.raises(InvalidStatus) as refused, websocket_client(stage):
            pass
        assert refused.value.response.status_code == 403
        assert refused.value.response.body == b"not you\n"
    assert route.wait_for_call().response.text == "not you\n"


def test_a_server_that_is_not_there_is_a_502_with_the_reason(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    route = stage.https("api.test", forward(f"http://127.0.0.1:{port}"))
    with pytest.raises(InvalidStatus, match="HTTP 502"), websocket_client(stage):
        pass
    assert "cannot be reached" in route.wait_for_call().note


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            "does not answer the key",
        ),
        (b"garbage\r\n\r\n", "opened no WebSocket"),
        (b"", "closed without an answer|opened no WebSocket"),
    ],
)
def test_a_server_that_answers_no_handshake_is_a_502(stage: Stage, reply: bytes, why: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(reply)

        threading.Thread(target=answer, daemon=True).start()
        route = stage.https("api.test", forward(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        with pytest.raises(InvalidStatus, match="HTTP 502"), websocket_client(stage):
            pass
    assert eventually(lambda: route.calls)
    assert any(each in route.calls[0].note for each in why.split("|"))


def test_a_server_that_breaks_off_is_bad_gateway_and_a_client_that_does_goes_away(
    stage: Stage,
) -> None:
    codes: list[int | None] = []
    go_on = threading.Event()

    def breaks(ws: ServerConnection) -> None:
        if ws.recv() == "break off":
            ws.socket.shutdown(socket.SHUT_RDWR)
            return
        with contextlib.suppress(ConnectionClosed):
            ws.recv()
        codes.append(ws.close_code)
        go_on.set()

    with real_server(breaks) as (url, _):
        stage.https("api.test", forward(url))
        with websocket_client(stage) as client:
            client.send("break off")
            with pytest.raises(ConnectionClosed, match="1014"):
                client.recv()
        with websocket_client(stage) as client:
            client.send("stay")
            client.socket.shutdown(socket.SHUT_RDWR)
            assert go_on.wait(10)
    assert codes == [1001]


def test_what_was_not_offered_is_refused() -> None:
    token = ("Sec-WebSocket-Accept", accept_token("key"))
    check_accepted(Headers([token]), "key")
    with pytest.raises(ValueError, match="'permessage-deflate', which was not offered"):
        check_accepted(Headers([token, ("Sec-WebSocket-Extensions", "permessage-deflate")]), "key")


def test_a_socket_to_a_server_waits_and_ends_as_a_duplex_does() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        duplex = SocketDuplex(ours, b"first")
        assert duplex.receive() == b"first"
        with pytest.raises(TimeoutError):
            duplex.receive(0.01)
        theirs.sendall(b"second")
        assert duplex.receive(10) == b"second"
        received = bytearray()

        def read() -> None:
            while len(received) < 5_000_000:
                received.extend(theirs.recv(65536))

        reader = threading.Thread(target=read)
        reader.start()
        duplex.send(bytes(5_000_000))
        reader.join(10)
        assert len(received) == 5_000_000
        duplex.reset()
        assert duplex.receive() == b""
        assert duplex.disconnected
        with pytest.raises(ClientLeftError):
            duplex.send(b"late")


@pytest.mark.slow
def test_a_server_that_never_reads_does_not_hold_the_tests_end(stage: Stage) -> None:
    go_on = threading.Event()

    def reads_nothing(ws: ServerConnection) -> None:
        go_on.wait(60)

    with real_server(reads_nothing) as (url, _):
        route = stage.http("api.test", forward(url))
        with websocket_client(stage, secure=False) as client:
            call = route.wait_for_call()
            client.socket.settimeout(1)
            with contextlib.suppress(TimeoutError, ConnectionClosed):
                while True:
                    client.send(bytes(1 << 20))
            (over,) = stage.gateway.revise(test_over=True)
            assert eventually(lambda: over.ended)
        go_on.set()
    assert call.error is None
