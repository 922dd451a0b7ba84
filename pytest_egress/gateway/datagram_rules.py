"""`DatagramRules`: has a target's kernel let out the datagrams that routes claim, and refuse all others at once.

A rule (`kernel_rules`) acts on the next datagram. Whether a route has turns left changes no rule: what is let out, and
no route takes, is unrouted (`datagrams`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from pytest_egress.errors import LinkError
from pytest_egress.gateway.dns.names import NAMES_PORT
from pytest_egress.gateway.kernel_rules import KernelRules, network_of
from pytest_egress.link.changes import NOT_LET_OUT, DialRule, Verdict, datagram_change
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import RouteTable, in_order

NO_SOCKET: Final = NOT_LET_OUT.format(
    "the sidecar could not open a packet socket, as where the engine gives it no CAP_NET_RAW. Allow that capability to "
    "containers, or remove the routes of intercept_udp(): without these UDP is refused."
)


class DatagramRules(KernelRules):
    """Those of one target."""

    def _needs_rules(self, table: RouteTable) -> bool:
        return table.has_datagrams

    def _decisions(self, tables: Sequence[RouteTable]) -> DatagramDecisions:
        return DatagramDecisions(tables)

    def _change(self, old: tuple[DialRule, ...], new: tuple[DialRule, ...]) -> None:
        if self._link.datagrams is None:
            raise LinkError(NO_SOCKET)
        self._link.change_dials(datagram_change(old, new))


class DatagramDecisions:
    """What the routes decide about datagrams at one moment, as rules for the kernel.

    Attributes:
        literal: The rules for addresses that no name was given; none where no route lets any out.
    """

    def __init__(self, tables: Sequence[RouteTable]) -> None:
        self._tables = tables
        self.literal = [*self._literal()]
        if not any(rule.verdict is Verdict.LET_OUT for rule in self.literal):
            self.literal = []

    def _literal(self) -> Iterator[DialRule]:
        routes = [r for table in self._tables for r in table.of_addresses() if not r.removed]
        https = [route for route in routes if route.kind.answers_https]
        for route in routes:
            if route.decides_datagrams:
                for network in route.parsed_address.networks:
                    yield from literal_rules(route, network, https)

    def named(self, names: Sequence[str], address: str) -> Iterator[DialRule]:
        """The rules for an address that names were given: those of its first name come first."""
        network = network_of(address)
        routes = [
            route for name in names for route in in_order(self._tables, name) if route.names(name)
        ]
        deciding = [route for route in routes if route.decides_datagrams]
        if not (self.literal or any(route.lets_datagrams_out for route in deciding)):
            return
        others = {NAMES_PORT, *(r.parsed_address.port for r in routes if r.kind.answers_https)}
        exact = {route.parsed_address.port for route in deciding} - {None}
        if any(claims_any_port(route) for route in deciding):
            exact |= others
        for port in sorted(filter(None, exact)):
            found = next((r for r in deciding if takes(r, port, others)), None)
            yield DialRule(verdict(found), network, port)
        if (last := next((r for r in deciding if r.parsed_address.port is None), None)) is not None:
            yield DialRule(verdict(last), network, None)


def claims_any_port(route: InnerRoute) -> bool:
    return route.kind.reads_datagrams and route.parsed_address.port is None


def takes(route: InnerRoute, port: int, others: Any) -> bool:
    """Whether a route says what becomes of datagrams to a port; `others` are those that it has to name."""
    if claims_any_port(route):
        return port not in others
    return route.parsed_address.port in (None, port)


def verdict(route: InnerRoute | None) -> Verdict:
    is_let_out = route is not None and route.lets_datagrams_out
    return Verdict.LET_OUT if is_let_out else Verdict.CAPTURED


def literal_rules(
    route: InnerRoute, network: IPv4Network | IPv6Network, https: Sequence[InnerRoute]
) -> Iterator[DialRule]:
    if claims_any_port(route):
        yield DialRule(Verdict.CAPTURED, network, NAMES_PORT)
        for other in https:
            for theirs in other.parsed_address.networks:
                if theirs.version == network.version and theirs.overlaps(network):
                    narrower = max(network, theirs, key=lambda each: each.prefixlen)
                    yield DialRule(Verdict.CAPTURED, narrower, other.parsed_address.port)
    yield DialRule(verdict(route), network, route.parsed_address.port)


def candidates(
    tables: Sequence[RouteTable], hosts: Sequence[str], port: int
) -> Iterator[tuple[str, InnerRoute]]:
    """The routes that say what becomes of a datagram, in order, each with the host that it is for.

    Args:
        hosts: The names of its address, and the address.
    """
    for host in dict.fromkeys(hosts):
        for route in in_order(tables, host):
            if route.takes_datagrams(host, port) and not (
                claims_any_port(route) and is_of_others(tables, host, port)
            ):
                yield host, route


def is_of_others(tables: Sequence[RouteTable], host: str, port: int) -> bool:
    """Whether a route without a port leaves a port alone: that of DNS, and those where HTTPS is answered.

    A client of QUIC goes on to HTTPS only when its first packet fails.
    """
    return port == NAMES_PORT or any(
        route.kind.answers_https and route.covers(host, port) for route in in_order(tables, host)
    )
