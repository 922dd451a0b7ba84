"""Exchanges with real servers, for `forward` and `passthrough`: connect, and ask by the version of HTTP that is right.

Names are resolved and certificates verified as this machine does it. A name is resolved once: the address that was
checked (`reach`) is the address that is connected to. A request that came by HTTP/2 goes on by HTTP/2 where the server
agrees to that; every other one goes on by HTTP/1.1. Each has a connection of its own.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final

from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.upstream.body import Content, Interim, UpstreamBody
from pytest_egress.gateway.upstream.http1 import Http1Body
from pytest_egress.gateway.upstream.reach import reserved
from pytest_egress.routes.answers import Connectable
from pytest_egress.traffic.grpc import is_grpc
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.shown import host_port

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
        sock = connect_to_first(unreserved(where, addresses, remedy) if remedy else addresses)
    # ValueError: IDNA refuses the name. RuntimeError, UserWarning: pytest-socket forbids the connection.
    except (OSError, ValueError, RuntimeError, UserWarning) as error:
        raise UpstreamError(f"{where} cannot be reached: {error}") from error
    sock.settimeout(None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def unreserved(where: str, addresses: Iterable[SocketAddress], remedy: str) -> list[SocketAddress]:
    """Raise UpstreamError where all addresses are reserved: a container may reach the others alone."""
    whys = {address: reserved(str(address[0])) for address in addresses}
    if kept := [address for address, why in whys.items() if not why]:
        return kept
    listed = " and ".join(f"{address[0]} is {why}" for address, why in whys.items())
    raise UpstreamError(
        f"{where} is not reached: {listed}. Only what names this very host reaches it: {remedy}"
    )


def connect_to_first(addresses: Iterable[SocketAddress]) -> socket.socket:
    """Raise the OSError of the last address where none accepts."""
    last = OSError("it has no address")
    for address in addresses:
        try:
            return socket.create_connection(address[:2], CONNECT_SECONDS)
        except OSError as error:
            last = error
    raise last


def connect_container(container: Connectable, port: int) -> socket.socket:
    """Raise UpstreamError where nothing listens at the port, or the target has ended."""
    try:
        sock: socket.socket = container.connect(port)
    except OSError as error:
        what = f"port {port} of {container.name}"
        raise UpstreamError(f"{what} cannot be reached: {error}") from error
    return sock


def secure(sock: socket.socket, host: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """The caller makes the `handshake`."""
    return context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)


def handshake(tls: ssl.SSLSocket, host: str) -> None:
    """Raise UpstreamError where the server's certificate cannot be verified, or it speaks no TLS."""
    try:
        tls.settimeout(CONNECT_SECONDS)
        tls.do_handshake()
    except (OSError, ValueError) as error:
        raise UpstreamError(f"no TLS connection to {host}: {error}") from error
    tls.settimeout(None)


def ask(
    sock: socket.socket,
    request: Request,
    prefix: str = "",
    *,
    content: Content | None = None,
    encoded: bool = True,
    interim: Interim = lambda status_code, headers: None,
) -> Response:
    """Send a request, and return the response, whose body streams. Closing the body closes the socket.

    Args:
        sock: A connection to the server that has been used for nothing; after its TLS handshake, where it has one.
        prefix: Text to put before the path.
        content: The body, which may still be coming while the response begins; None is the request's own. The trailers
            of the request are read at its end.
        encoded: Whether the body of the response may come compressed, as the client accepts it.
        interim: Is called with each interim response of the server, but for 100.

    Raises:
        UpstreamError: The server broke off, or its answer is none of the protocol's. The socket has been closed.
    """
    body = exchange_on(sock, request, request.raw_content if content is None else content, interim)
    try:
        return body.exchange(prefix, encoded=encoded)
    except UpstreamError:
        body.close()
        raise
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: no thread can be started
        body.close()
        what = f"{request.method} {request.shown_url}"
        raise UpstreamError(f"{what}: the upstream failed: {error}") from error
    except BaseException:
        body.close()
        raise


def exchange_on(
    sock: socket.socket, request: Request, content: Content, interim: Interim
) -> UpstreamBody:
    """Raise UpstreamError, with the socket closed, where gRPC would go to a server that speaks HTTP/1.1 alone."""
    if goes_by_http2(sock, request):
        from pytest_egress.gateway.upstream.http2 import Http2Body  # h2 is imported when needed

        return Http2Body(sock, request, content, interim)
    if request.http_version == "2" and is_grpc(request):
        sock.close()
        raise UpstreamError(
            f"{request.method} {request.shown_url}: gRPC needs HTTP/2, and the upstream agreed to HTTP/1.1 alone: it "
            'has to offer "h2" by ALPN'
        )
    return Http1Body(sock, request, content, interim)


def goes_by_http2(sock: socket.socket, request: Request) -> bool:
    """Whether a request is forwarded by HTTP/2, on a connection that has been made for it.

    Within TLS the server has chosen, by ALPN. Without, HTTP/2 takes a server that is known to speak it (RFC 9113
    section 3.3): one that was asked without TLS in the first place is, since the client knew it. Where the client had
    TLS with the gateway, the plain server is the test's own choice, and speaks HTTP/2 surely for gRPC alone.
    """
    if request.http_version != "2":
        return False
    if isinstance(sock, ssl.SSLSocket):
        return sock.selected_alpn_protocol() == "h2"
    return request.tls is None or is_grpc(request)
