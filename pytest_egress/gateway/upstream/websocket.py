"""`WebSocketRelay`: `forward()` of a WebSocket. It opens another one to the server, and copies messages between both.

The server's WebSocket is opened by HTTP/1.1 (RFC 6455 section 4.1), whatever the client's came by, and its messages are
not compressed. A server that refuses the handshake has its response relayed.

Threads: one thread copies to the server, and one to the client.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import h11

from pytest_egress.base.account import Account, Hold, OverLimitError
from pytest_egress.base.sockets import READ_BYTES
from pytest_egress.base.wire import Wire
from pytest_egress.errors import UpstreamError, WebSocketClosedError
from pytest_egress.gateway.upstream.body import check_room
from pytest_egress.ledger.refusals import failed_upstream_body
from pytest_egress.routes.duplex import ClientLeftError, Conversation, Duplex, DuplexAnswer
from pytest_egress.routes.websocket.answer import opened, refusal_of, refuse
from pytest_egress.routes.websocket.open import OpenWebSocket
from pytest_egress.traffic.http.head import MAX_HEADER_BYTES
from pytest_egress.traffic.http.headers import (
    NO_FIELDS,
    Headers,
    end_to_end,
    fields,
    raw_fields,
    without,
)
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.websocket import (
    BAD_GATEWAY,
    BROKEN_OFF,
    GOING_AWAY,
    OF_A_HANDSHAKE,
    Frames,
    Opening,
    accept,
    accept_token,
)


class WebSocketRelay(DuplexAnswer):
    """The answer of another server to a request that opens a WebSocket.

    Args:
        ends_with_client: Has an exchange on a socket end when nobody waits for it any more.

    Attributes:
        closing: The code and the reason of the server, where it has closed first, once `converse` has returned.
        refused: The response of a server that opened none, then too.
    """

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        prefix: str,
        ends_with_client: Callable[[socket.socket], AbstractContextManager[None]],
    ) -> None:
        self._connect, self._prefix = connect, prefix
        self._ends_with_client = ends_with_client
        self.closing: tuple[int, str] | None = None
        self.refused: Response | None = None

    def refusal(self, request: Request) -> tuple[Response, str] | None:
        return refusal_of(request)

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
        """Open a WebSocket to the server, answer as it does, and copy messages until both are over."""
        account = conversation.account
        try:
            sock = self._connect()
            with self._ends_with_client(sock):
                upstream, answer = shake_hands(sock, request, self._prefix, account)
        except UpstreamError as error:
            conversation.exchange.note = str(error)
            body = failed_upstream_body(conversation.exchange)
            refuse(Response(502, text=body), duplex, conversation)
            return
        if answer.status_code != 101:
            upstream.close()
            self.refused = answer
            refuse(answer, duplex, conversation)
            return
        subprotocol = answer.headers.get("sec-websocket-protocol")
        handshake = with_fields(accept(request, list(filter(None, [subprotocol]))), answer.headers)
        server = OpenWebSocket(
            upstream, request, Opening(status_code=101, headers=NO_FIELDS, subprotocol=subprotocol),
            account=account, frames=Frames(None, of_client=True, account=account), is_relayed=True,
        )  # fmt: skip
        server.begin()
        ws = OpenWebSocket(
            duplex,
            request,
            handshake,
            conversation.exchange.messages,
            account,
            now=conversation.now,
            refuse=conversation.note_unreadable,
            is_relayed=True,
        )
        try:
            with opened(ws, conversation, server):
                first = copy_both_ways(ws, server)
            if first is server:
                self.closing = (server.passed_code(BAD_GATEWAY), server.close_reason)
        finally:
            server.end()
            upstream.close()


def copy_both_ways(ws: OpenWebSocket, server: OpenWebSocket) -> OpenWebSocket:
    """Copy messages both ways until both are over; return the one that has ended first."""
    ended: list[OpenWebSocket] = []
    back = threading.Thread(
        target=copy_messages,
        args=(server, ws, BAD_GATEWAY, ended),
        name="websocket relay",
        daemon=True,
    )
    back.start()
    try:
        copy_messages(ws, server, GOING_AWAY, ended)
    finally:
        back.join()
    return ended[0]


def copy_messages(
    source: OpenWebSocket, sink: OpenWebSocket, broken: int, ended: list[OpenWebSocket]
) -> None:
    """Copy messages, and close the sink as the source is closed.

    What the sink sends until it has closed too is copied by the other thread, and waited for by a source that has
    closed and is there.

    Args:
        broken: The code to close with where the source broke off.
        ended: Gets the source when it has ended.
    """
    with contextlib.suppress(WebSocketClosedError):
        for message in source:
            sink.send(message)
    ended.append(source if source.is_over else sink)
    code = source.passed_code(broken)
    if source.close_code == BROKEN_OFF:
        sink.close(code, source.close_reason)
    else:
        sink.pass_close(code, source.close_reason, lambda: not source.has_left)


def with_fields(handshake: Opening, headers: Headers) -> Opening:
    """A handshake with the fields of the server's response that are not of one connection."""
    kept = [pair for pair in end_to_end(headers).raw if pair[0].lower() not in OF_A_HANDSHAKE]
    return Opening(
        status_code=handshake.status_code,
        headers=Headers([*handshake.headers.raw, *kept]),
        subprotocol=handshake.subprotocol,
        deflate=handshake.deflate,
    )


# The handshake with the server.


def shake_hands(
    sock: socket.socket, request: Request, prefix: str, account: Account
) -> tuple[SocketDuplex, Response]:
    """Ask a server for a WebSocket; return what carries it, and the response, whole where that opens none.

    Raises:
        UpstreamError: The server broke off, or its answer is no handshake. The socket has been closed.
    """
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
    key = base64.b64encode(os.urandom(16)).decode("ascii")
    try:
        sock.sendall(http.send(opening_request(request, prefix, key)) or b"")
        sock.sendall(http.send(h11.EndOfMessage()) or b"")
        response = answered(sock, http, account.hold("responses"))
        if response.status_code == 101:
            check_accepted(response.headers, key)
    except (OSError, h11.ProtocolError, OverLimitError, ValueError) as error:
        sock.close()
        what = f"{request.method} {request.shown_url}"
        raise UpstreamError(f"{what}: the upstream opened no WebSocket: {error}") from error
    return SocketDuplex(sock, http.trailing_data[0]), response


def opening_request(request: Request, prefix: str, key: str) -> h11.Request:
    """The handshake's request: end-to-end fields, and those that open a WebSocket."""
    kept = [
        pair
        for pair in end_to_end(request.headers).raw
        if pair[0].lower() not in OF_A_HANDSHAKE - {"sec-websocket-protocol"}
    ]
    if not request.headers.get("host"):  # HTTP/2 has none
        kept = [("Host", request.authority), *kept]
    handshake = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    ]
    return h11.Request(
        method="GET",
        target=f"{prefix}{request.request_target}".encode("latin-1"),
        headers=raw_fields(Headers([*kept, *handshake])),
    )


def answered(sock: socket.socket, http: h11.Connection, hold: Hold) -> Response:
    """The server's response, with its content where it opens no WebSocket."""
    head, content = None, bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if not (data := sock.recv(READ_BYTES)) and head is None:
                raise ConnectionError("it closed without an answer")
            http.receive_data(data)
        elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
            return received(event, b"")
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            content += event.data
            check_room(len(content), hold)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return received(head, bytes(content))
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError("it closed without an answer")


def received(head: h11.Response | h11.InformationalResponse, content: bytes) -> Response:
    headers = fields(head.headers.raw_items())
    kept = headers if head.status_code == 101 else without(end_to_end(headers), "content-length")
    return Response.received(
        head.status_code, kept, reason=head.reason.decode("latin-1"), content=content
    )


def check_accepted(headers: Headers, key: str) -> None:
    """Raise ValueError where a 101 answers no handshake, or agrees on what was not offered (RFC 6455 section 4.1)."""
    if headers.get("sec-websocket-accept") != accept_token(key):
        raise ValueError("its Sec-WebSocket-Accept does not answer the key")
    if "sec-websocket-extensions" in headers:
        raise ValueError(
            f"it agreed on {headers['sec-websocket-extensions']!r}, which was not offered"
        )


class SocketDuplex:
    """Both directions of a WebSocket to a server, as a `Duplex`. One thread at a time sends, and one receives.

    Args:
        first: Bytes that have been read from it already.

    Attributes:
        disconnected: Whether the server has closed or broken off.
    """

    trailers: Headers = NO_FIELDS

    def __init__(self, sock: socket.socket, first: bytes) -> None:
        self._wire, self._first = Wire(sock), first
        self.disconnected = False

    def receive(self, timeout: float | None = None) -> bytes:
        """Raise TimeoutError where nothing came in time, and ClientLeftError where the connection broke off."""
        first, self._first = self._first, b""
        if first:
            return first
        try:
            with self._wire.lock:
                data = self._wire.receive(timeout)
        except OSError as error:
            self.disconnected = True
            raise ClientLeftError(str(error)) from error
        if data is None:
            raise TimeoutError("the server has sent nothing in time")
        return data

    def send(self, data: bytes) -> None:
        """Raise ClientLeftError where the connection broke off."""
        for start in range(0, len(data), READ_BYTES):  # no second copy of a large message
            with self._wire.lock:
                self._wire.queue(data[start : start + READ_BYTES])
                if not self._wire.drain():
                    self.disconnected = True
                    raise ClientLeftError(str(self._wire.error)) from self._wire.error

    def finish(self, trailers: Headers = NO_FIELDS) -> None:
        self.reset()

    def reset(self) -> None:
        """A thread that waits for the connection wakes up."""
        self.disconnected = True
        self._wire.shut()

    def close(self) -> None:
        """No thread uses the socket any more."""
        self._wire.close()

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        raise NotImplementedError

    def send_interim(self, status_code: int, headers: Headers = NO_FIELDS) -> None:
        """A client sends none."""
        raise NotImplementedError

    def start(self, status_code: int, headers: Headers = NO_FIELDS, **how: object) -> None:
        """A client sends none: the handshake has been made."""
        raise NotImplementedError

    def respond(self, response: Response) -> None:
        raise NotImplementedError
