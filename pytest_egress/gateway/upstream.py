"""Exchanges with real servers, for `forward` and `passthrough`: connect, send the request, read the response.

Names are resolved and certificates verified as this machine does it. A name is resolved once: the address that was
checked (`reach`) is the address that is connected to.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Final

import h11

from pytest_egress.base.relay import BLOCKED
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.reach import reserved
from pytest_egress.routes.answers import Connectable
from pytest_egress.traffic.fields import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    READ_BYTES,
    end_to_end,
    fields,
    raw_fields,
)
from pytest_egress.traffic.messages import Headers, Request, Response, host_port

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

CONNECT_SECONDS: Final = 5.0

SocketAddress = tuple[Any, ...]  # address as text and port; for IPv6 also flow and scope


def connect(host: str, port: int, remedy: str = "") -> socket.socket:
    """Connect to a real server, at the first of its addresses that accepts.

    Args:
        remedy: The line of code that would name this very host, for an error's text; with it, `reserved` addresses are
            not connected to. "" where the user has named the host: then every address is allowed.

    Raises:
        UpstreamError: The server cannot be reached, or all of its addresses are reserved.
    """
    where = host_port(host, port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [address for *_, address in found]
        sock = first_of(unreserved(where, addresses, remedy) if remedy else addresses)
    # ValueError: IDNA refuses the name. RuntimeError, UserWarning: pytest-socket forbids the connection.
    except (OSError, ValueError, RuntimeError, UserWarning) as error:
        raise UpstreamError(f"{where} cannot be reached: {error}") from error
    sock.settimeout(None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def unreserved(where: str, addresses: Iterable[SocketAddress], remedy: str) -> list[SocketAddress]:
    """The addresses that are not reserved, and which a container may therefore reach.

    Raises:
        UpstreamError: All of them are reserved.
    """
    whys = {address: reserved(str(address[0])) for address in addresses}
    if kept := [address for address, why in whys.items() if not why]:
        return kept
    listed = " and ".join(f"{address[0]} is {why}" for address, why in whys.items())
    raise UpstreamError(
        f"{where} is not reached: {listed}. Only what names this very host reaches it: {remedy}"
    )


def first_of(addresses: Iterable[SocketAddress]) -> socket.socket:
    """Connect to the first address that accepts.

    Raises:
        OSError: None accepts; the error is the last address's.
    """
    last = OSError("it has no address")
    for address in addresses:
        try:
            return socket.create_connection(address[:2], CONNECT_SECONDS)
        except OSError as error:
            last = error
    raise last


def connect_container(container: Connectable, port: int) -> socket.socket:
    """Connect to a port of a target.

    Raises:
        UpstreamError: Nothing listens there, or the target has ended.
    """
    try:
        sock: socket.socket = container.connect(port)
    except OSError as error:
        what = f"port {port} of {container.name}"
        raise UpstreamError(f"{what} cannot be reached: {error}") from error
    return sock


def secure(sock: socket.socket, host: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Wrap a socket in TLS that verifies the server for a host. The caller makes the `handshake`."""
    return context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)


def handshake(tls: ssl.SSLSocket, host: str) -> None:
    """Make the TLS handshake with a real server.

    Raises:
        UpstreamError: The server's certificate cannot be verified, or it speaks no TLS.
    """
    try:
        tls.settimeout(CONNECT_SECONDS)
        tls.do_handshake()
    except (OSError, ValueError) as error:
        raise UpstreamError(f"no TLS connection to {host}: {error}") from error
    tls.settimeout(None)


def ask(
    sock: socket.socket, request: Request, prefix: str = "", *, encoded: bool = True
) -> Response:
    """Send a request, and return the response, whose body streams. Closing the body closes the socket.

    Args:
        prefix: Text to put before the path.
        encoded: Whether the body may come compressed, as the client accepts it.

    Raises:
        UpstreamError: The server broke off, or its answer is no HTTP/1.1. The socket has been closed.
    """
    body = Body(sock, request)
    try:
        head = body.exchange(outgoing(request, prefix, encoded))
    except (OSError, h11.ProtocolError, ValueError) as error:
        body.close()
        raise UpstreamError(
            f"{request.method} {request.shown_url}: the upstream failed: {error}"
        ) from error
    response = Response.received(
        head.status_code, answered_fields(head), reason=head.reason.decode("latin-1"), stream=body
    )
    body.response = weakref.proxy(response)  # no cycle, so that a large body is freed at once
    return response


def answered_fields(head: h11.Response) -> Headers:
    """The fields of a response to pass to the client. Transfer-Encoding overrides Content-Length (RFC 9112 6.3)."""
    received = fields(head.headers.raw_items())
    kept = end_to_end(received)
    return without(kept, "content-length") if "transfer-encoding" in received else kept


def without(headers: Headers, *names: str) -> Headers:
    """The fields without those of these names."""
    return Headers([pair for pair in headers.raw if pair[0].lower() not in names])


def whole(response: Response, method: str) -> Response:
    """Read a streamed response to its end, and return it with its content.

    Raises:
        UpstreamError: The upstream broke off, or its answer is over `MAX_BODY_BYTES`.
    """
    body = response.stream
    assert isinstance(body, Body)
    for _ in body:
        pass
    if not body.is_whole:
        raise UpstreamError(
            f"the answer of the upstream is over MAX_BODY_BYTES, {MAX_BODY_BYTES} bytes"
        )
    headers = response.headers if method == "HEAD" else without(response.headers, "content-length")
    return Response.received(
        response.status_code, headers, reason=response.reason, content=response.content
    )


class Body:
    """The body of a real server's response, as it comes. At its end what has come becomes the response's content.

    Attributes:
        response: The response that has this body.
        is_whole: Whether all that has come is kept: it is at most `MAX_BODY_BYTES`.
    """

    response: Response
    is_whole = True

    def __init__(self, sock: socket.socket, request: Request) -> None:
        self._sock, self._request = sock, request
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
        self._kept = bytearray()
        self._ahead: object = h11.NEED_DATA

    def exchange(self, head: h11.Request) -> h11.Response:
        """Send the request and return the head of its response, once the first event after the head has been parsed."""
        content = [h11.Data(data=self._request.raw_content)] if self._request.raw_content else []
        events = (head, *content, h11.EndOfMessage())
        self._send(b"".join(self._h11.send(event) or b"" for event in events))
        while not isinstance(event := self._next(), h11.Response):  # 100 Continue, 103 Early Hints
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("it closed without an answer")
        self._ahead = self._h11.next_event()  # an error in it can still be answered by a status
        return event

    def _send(self, data: bytes) -> None:
        """Send all bytes, and read what comes meanwhile: a server may respond while it reads, or before.

        If nothing were read, both sides could wait for the other to read.
        """
        sock, left = self._sock, memoryview(data)
        sock.settimeout(0)
        try:
            while left:
                with contextlib.suppress(*BLOCKED):
                    left = left[sock.send(left[:READ_BYTES]) :]
                    continue
                poller = select.poll()
                poller.register(sock, select.POLLIN | select.POLLOUT)
                poller.poll()
                with contextlib.suppress(*BLOCKED):
                    received = sock.recv(READ_BYTES)
                    self._h11.receive_data(received)
                    if not received:
                        break
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may have responded first; if not, the next read raises
        finally:
            sock.settimeout(None)

    def _next(self) -> object:
        event, self._ahead = self._ahead, h11.NEED_DATA
        if event is not h11.NEED_DATA:
            return event
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(self._sock.recv(READ_BYTES))
        return event

    def __iter__(self) -> Iterator[bytes]:
        try:
            while isinstance(event := self._next(), h11.Data):
                piece = bytes(event.data)
                self._keep(piece)
                yield piece
        except (OSError, h11.ProtocolError) as error:
            what = f"{self._request.method} {self._request.shown_url}"
            raise UpstreamError(f"{what}: the upstream broke off: {error}") from error
        finally:
            self.close()
        if isinstance(event, h11.EndOfMessage) and event.headers:
            self.response.trailers = fields(event.headers.raw_items())

    def _keep(self, piece: bytes) -> None:
        self.is_whole = self.is_whole and len(self._kept) + len(piece) <= MAX_BODY_BYTES
        if self.is_whole:
            self._kept += piece

    def close(self) -> None:
        """Close the connection, and keep what has come; calling it again does nothing."""
        self._sock.close()
        if self._kept:
            self.response.content = bytes(self._kept)
            self._kept.clear()


def outgoing(request: Request, prefix: str, encoded: bool) -> h11.Request:
    """The head of a request to a real server: end-to-end fields, Host, framing, and `Connection: close`."""
    query = f"?{request.query_string}" if request.query_string else ""
    dropped = {"expect", "content-length"} | (set() if encoded else {"accept-encoding"})
    headers = [*without(end_to_end(request.headers), *dropped).raw]
    framed = "content-length" in request.headers or "transfer-encoding" in request.headers
    headers += (
        [("Content-Length", str(len(request.raw_content)))] if framed or request.raw_content else []
    )
    headers += [] if encoded else [("Accept-Encoding", "identity")]
    if not request.headers.get("host"):  # an HTTP/1.0 request has none
        headers = [("Host", request.authority), *without(Headers(headers), "host").raw]
    return h11.Request(
        method=request.method,
        target=f"{prefix}{request.path}{query}".encode("latin-1"),
        headers=[*raw_fields(Headers(headers)), (b"Connection", b"close")],
    )
