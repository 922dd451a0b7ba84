"""`Proxying`: what a connection to a declared proxy leads to: its tunnels, and its plain requests by their URL.

A client asks a proxy for a tunnel by CONNECT (RFC 9110 section 9.3.6), and for plain HTTP by a whole URL (RFC 9112
section 3.2.2). What it names becomes the destination of the connection, as if that had been dialled: the name is looked
up as the target's DNS policy has it, and nothing is reached that a dial of the target's would not reach. Who serves the
connection then knows of the proxy by `Destination.through` alone.

Bytes behind the head of a CONNECT stay unread in the kernel, so that what they begin is served from its first byte.
Everything runs on the connection's thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final, NamedTuple

from pytest_egress.base.sockets import send_all
from pytest_egress.errors import AddressError
from pytest_egress.gateway.connection import Connection
from pytest_egress.gateway.destination import Destination
from pytest_egress.gateway.dns.names import Names
from pytest_egress.gateway.tcp_info import carried_so_far
from pytest_egress.link.interface import OWN_ADDRESSES
from pytest_egress.routes.faults import Blackhole
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import keyed_on, opening, proxy_route
from pytest_egress.traffic.address import MAX_PORT, is_ip_address, is_localhost, normalise_host
from pytest_egress.traffic.http.head import Head, split_authority
from pytest_egress.traffic.http.headers import without
from pytest_egress.traffic.redaction.redactor import Redactor
from pytest_egress.traffic.shown import SCHEME_PORTS, SHOWN_TARGET, cut, host_port, shown

ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
OF_PROXIES: Final = ("proxy-authorization", "proxy-connection")
"""The fields of a request that are for the proxy alone."""

HEADS: Final = "requests' heads"
NO_TARGET: Final = (
    "{} is no host and port: a tunnel is asked for as CONNECT api.test:443 (RFC 9112 section 3.2.3)"
)
NO_HOST: Final = "{} names no host: {}"
HAS_BODY: Final = "a request for a tunnel has no body (RFC 9110 section 9.3.6)"
PIPELINED: Final = "a request for a tunnel that comes with another request is not taken"
OWN: Final = (
    "{} is the target itself: a proxy elsewhere would reach itself there, and not the target"
)
LOOP: Final = "{} is a proxy that this connection has come through already"


class ProxyRefusal(NamedTuple):
    """Why a proxy leads nowhere, and the status by which its client is told so."""

    status_code: int
    text: str


class Unreachable(ProxyRefusal):
    """What was asked for cannot be had: the proxy's own attempt has failed, as its client's would have."""


class Forbidden(ProxyRefusal):
    """What was asked for is nothing that a proxy leads to, which fails the test."""


class Proxying:
    """Leads the requests of one connection of plain HTTP/1.1.

    Args:
        enter: Serves the connection as one that has just been made to its destination.
    """

    def __init__(self, connection: Connection, names: Names, enter: Callable[[], None]) -> None:
        self._connection, self._names, self.enter = connection, names, enter
        self._proxy: Final = connection.destination

    @property
    def route(self) -> InnerRoute | None:
        """The route that is the proxy; None while there is none."""
        tables = self._connection.context.tables
        return proxy_route(tables, self._proxy.host, self._proxy.port)

    def lead(self, head: Head, *, is_pipelined: bool) -> Head | ProxyRefusal | None:
        """Set the connection's destination to what a request is for.

        Returns:
            The head of the request as the host gets it; None where it has asked for a tunnel, which is open now.
        """
        connection, proxy = self._connection, self._proxy
        connection.destination = proxy
        is_tunnel = head.asks_for_tunnel
        if (not is_tunnel and head.scheme is None) or (route := self.route) is None:
            return head  # as a rule
        if not is_tunnel and (head.scheme != "http" or self._is_for_proxy(head)):
            return head
        connection.context.window.account.keep(head.size, HEADS)
        reached = self._reached(head, route, is_pipelined=is_pipelined)
        self._record(head, route, reached)
        if isinstance(reached, Destination):
            reached = self._dialled(reached)
        if isinstance(reached, ProxyRefusal):
            return reached
        if is_tunnel:
            self._open(reached)
            return None
        connection.destination = reached
        return head._replace(headers=without(head.headers, *OF_PROXIES))

    @property
    def _redactor(self) -> Redactor:
        return self._connection.ledger.redactor

    def _is_for_proxy(self, head: Head) -> bool:
        found = split_authority(head.authority or "")
        if found is None:
            return True  # which refuses it
        host, port = found
        is_it = host.lower() in self._proxy.hosts
        return is_it and (port or SCHEME_PORTS["http"]) == self._proxy.port

    def _record(self, head: Head, route: InnerRoute, reached: Destination | ProxyRefusal) -> None:
        target = head.path
        if not head.asks_for_tunnel:
            query = f"?{head.query_string}" if head.query_string else ""
            target = f"{head.scheme}://{head.authority}{head.path}{query}"
        refused = reached.text if isinstance(reached, Forbidden) else ""
        recorder, attempt = self._connection.recorder, self._connection.attempt
        recorder.record_proxied(attempt, route, head.method, target, head.headers, refused)

    def _reached(
        self, head: Head, route: InnerRoute, *, is_pipelined: bool
    ) -> Destination | ProxyRefusal:
        """The destination that a request asks for, as a dial would have it."""
        is_tunnel = head.asks_for_tunnel
        named = head.path if is_tunnel else head.authority or ""
        found = split_authority(named)
        if found is None or (is_tunnel and found[1] is None) or found[1] == 0:
            return Forbidden(400, NO_TARGET.format(shown(self._redactor.url(named))))
        if is_tunnel and (head.has_body or is_pipelined):
            return Forbidden(400, HAS_BODY if head.has_body else PIPELINED)
        port = found[1] or SCHEME_PORTS["http"]
        if port > MAX_PORT:
            return Forbidden(400, NO_TARGET.format(shown(self._redactor.url(named))))
        try:
            host = normalise_host(found[0])
        except AddressError as error:
            return Forbidden(400, NO_HOST.format(self._redactor.shown(found[0]), error))
        return self._destination(host, port, route)

    def _destination(self, host: str, port: int, route: InnerRoute) -> Destination | ProxyRefusal:
        proxy, tables = self._proxy, self._connection.context.tables
        through = " and ".join(filter(None, [proxy.through, host_port(proxy.host, proxy.port)]))
        if is_localhost(host):
            return Forbidden(403, OWN.format(host_port(host, port)))
        if is_ip_address(host):
            address = host
            name, *led = self._names.of(address)
        else:
            answer = self._names.look_up(host, through)
            if not answer.addresses:
                said = answer.rcode if answer.wire and answer.rcode != "NOERROR" else "no address"
                status_code = 502 if answer.wire else 504
                return Unreachable(status_code, f"{host} cannot be looked up: {said}")
            address = answer.addresses[0]
            name, *led = self._names.leading(host, address) or (host,)
        found = ip_address(address)
        if found.is_loopback or found.is_unspecified or address in OWN_ADDRESSES:
            return Forbidden(403, OWN.format(host_port(host, port)))
        keyed = keyed_on(tables, (name, *led, address), port)
        proxies = (*proxy.proxies, route)
        if proxy_route(tables, keyed, port) in proxies:
            return Forbidden(403, LOOP.format(host_port(host, port)))
        return Destination(
            address=address,
            port=port,
            name=name,
            led=tuple(led),
            host=keyed,
            through=through,
            proxies=proxies,
        )

    def _dialled(self, to: Destination) -> Destination | ProxyRefusal:
        """Dial a destination: a fault of connecting, which the kernel has for the target, is the proxy's to tell."""
        connection = self._connection
        context, recorder = connection.context, connection.recorder
        route = opening(context.tables, to.host, to.port)
        fault = None if route is None else route.turns.next_fault
        if route is None or fault is None or route.turns.reserve_fault(fault) is None:
            return to
        recorder.record_dial(
            context, route, fault, to.host, to.port, to.address, through=to.through
        )
        connection.ledger.turns_changed()
        where = cut(self._redactor.host(host_port(to.host, to.port)), SHOWN_TARGET)
        if isinstance(fault, Blackhole):
            return Unreachable(504, f"{where} did not answer, by {fault}")
        return Unreachable(502, f"{where} refused the connection, by {fault}")

    def _open(self, to: Destination) -> None:
        connection = self._connection
        asked = carried_so_far(connection.sock)
        # A client that has left is served as one that leaves right after it has dialled.
        with contextlib.suppress(OSError):
            send_all(connection.sock, ESTABLISHED)
        answered = carried_so_far(connection.sock)
        before = answered._replace(came=asked.came, received=asked.received)
        connection.lead_to(to, before)
