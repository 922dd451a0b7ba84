"""`Upstreams`: connects attempts of one target to real servers. Every socket ends with the connection that it is for.

Each connection's own thread calls it. Its lock guards the TLS contexts alone; no other is taken while it is held.
"""

from __future__ import annotations

import os
import random
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import pytest_egress.gateway.upstream.exchange as upstream
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.destination import Destination
from pytest_egress.ledger.remedies import naming
from pytest_egress.routes.answers import Connectable, Forward
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import PASSTHROUGH
from pytest_egress.routes.table import RouteTable, opening


class SocketOwner(Protocol):
    """The connection of a target for which sockets to real servers are opened."""

    def adopt(self, other: socket.socket, /) -> socket.socket:
        """Register a socket to a real server, so that it is shut and closed together with this connection."""
        ...

    def release(self, other: socket.socket, /) -> None:
        """Close a socket that was adopted, and forget it."""
        ...


class Upstreams:
    """Opens connections to real servers for the attempts of one target.

    Args:
        peers: Gives the containers that a name is for, in a network of the target's.
    """

    def __init__(self, peers: Callable[[str], Sequence[Connectable]] = lambda name: ()) -> None:
        self._peers = peers
        self._lock = threading.Lock()
        self._roots: tuple[str | None, ...] = ()
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def tls(self, *, http2: bool = False) -> ssl.SSLContext:
        """The TLS context that verifies real servers, with the roots that this machine's environment names now."""
        roots = tuple(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
        with self._lock:
            if roots != self._roots:
                self._roots, self._contexts = roots, {}
            if http2 not in self._contexts:
                context = self._contexts[http2] = ssl.create_default_context()
                context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
            return self._contexts[http2]

    def connect(self, owner: SocketOwner, to: Forward, port: int) -> socket.socket:
        """Connect to what a `Forward` names, at `port` where it names none. Raises UpstreamError where that fails."""
        if to.container is not None:
            return owner.adopt(upstream.connect_container(to.container, to.port or 0))
        assert to.host is not None
        return owner.adopt(upstream.connect(to.host, to.port or port))

    def connect_any(
        self, owner: SocketOwner, peers: Sequence[Connectable], port: int
    ) -> tuple[Connectable, socket.socket]:
        """Connect to one of several containers; those that refuse are passed over, as a client does with addresses.

        Raises:
            UpstreamError: None of them listens at the port.
        """
        refused = UpstreamError("")
        for peer in random.sample(peers, len(peers)):
            try:
                return peer, owner.adopt(upstream.connect_container(peer, port))
            except UpstreamError as error:
                refused = error
        raise refused

    def reach(
        self,
        owner: SocketOwner,
        route: InnerRoute | None,
        host: str,
        port: int,
        scheme: str,
        by: str = "",
    ) -> socket.socket:
        """A connection to the real server of a host: a container, where one has that name in a network of the target's.

        Args:
            route: The route that lets the attempt through. Where it is for this very host, the user has named the host.
            by: "request.forward" where a handler asks for the connection.

        Raises:
            UpstreamError: The server cannot be reached, or its addresses are reserved.
        """
        if peers := self._peers(host):
            return self.connect_any(owner, peers, port)[1]
        kind, address = (PASSTHROUGH, f"*:{port}") if route is None else (route.kind, route.address)
        named = route is not None and route.is_for(host)
        remedy = "" if named else naming(None if by else kind, address, scheme, host, port)
        return owner.adopt(upstream.connect(host, port, remedy))

    def secure(
        self, owner: SocketOwner, sock: socket.socket, host: str, *, http2: bool = False
    ) -> socket.socket:
        """Make a TLS connection over a socket that was adopted; the TLS socket is adopted before its handshake.

        Raises:
            UpstreamError: The server's certificate cannot be verified, or it speaks no TLS.
        """
        tls = upstream.secure(sock, host, self.tls(http2=http2))
        owner.adopt(tls)
        try:
            upstream.handshake(tls, host)
        except BaseException:
            owner.release(tls)
            raise
        return tls


def upstream_host(
    tables: Sequence[RouteTable], destination: Destination, route: InnerRoute | None, host: str
) -> str:
    """The host of the real server: what was dialled, unless the route matches only by the name in SNI or Host.

    Where the route matches only by that name, the connection goes to the name's own server, not to the dialled address:
    a client writes SNI and Host as it likes, and would otherwise reach any address, even one that another route claims,
    by writing the name of a passthrough route.

    Args:
        route: The route that lets the attempt through; None is `unrouted="passthrough"`.
        host: The name in SNI or Host.
    """

    def answers(route: InnerRoute, host: str) -> bool:
        """Whether a route covers a host, and no route for another address takes precedence."""
        first = opening(tables, host, destination.port)
        same = first is not None and first.parsed_address == route.parsed_address
        return same and route.covers(host, destination.port)

    if route is None or answers(route, destination.name) or answers(route, destination.address):
        return destination.name
    return host
