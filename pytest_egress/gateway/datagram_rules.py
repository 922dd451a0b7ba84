"""`DatagramRules`: has a target's kernel let out the datagrams that routes claim, and refuse all others at once.

What is let out has to be known before it is sent. The routes decide it for the addresses that names were given, and for
all others, and the kernel gets that as rules, of which the first that fits decides. A rule acts on the next datagram.
Whether a route has turns left changes no rule: what is let out, and no route takes, is unrouted (`datagrams`).

Threads: the gateway's reader calls `learn`; any other thread may call the rest. Rules are made under `Ledger.changed`.
`_lock` guards those in force; it is held while the kernel applies others, and `Ledger.changed` is never acquired then.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from pytest_egress.errors import LinkError
from pytest_egress.gateway.dials import network_of
from pytest_egress.gateway.dns.names import NAMES_PORT, Names
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.link.changes import NOT_LET_OUT, DialRule, Verdict, datagram_change
from pytest_egress.link.interface import Link
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import RouteTable, in_order

NO_SOCKET: Final = NOT_LET_OUT.format(
    "the sidecar could not open a packet socket, as where the engine gives it no CAP_NET_RAW. Allow that capability to "
    "containers, or remove the routes of intercept_udp(): without these UDP is refused."
)


class DatagramRules:
    """Those of one target."""

    def __init__(self, link: Link, recorder: Recorder, names: Names) -> None:
        self._link, self._recorder, self._names = link, recorder, names
        self._ledger, self._target = recorder.ledger, recorder.target
        # The names that the rules in force account for.
        self._known: dict[str, tuple[str, ...]] = {}
        self._is_used = False  # whether there has been a route of datagrams
        self._made = 0  # how many times rules were made
        self._lock = threading.Lock()
        self._applied = 0  # the latest rules that were looked at
        self._in_force: tuple[DialRule, ...] = ()
        self._failure: LinkError | None = None

    def check(self) -> None:
        """Raise the error of the last `apply`."""
        if self._failure is not None:
            raise self._failure

    def apply(self) -> None:
        """Have the kernel let out what routes claim now; return when it does.

        Where it does not, the test that runs now fails.
        """
        with self._ledger.changed:
            tables = self._target.attempt_context().tables
            self._is_used = self._is_used or any(table.has_datagrams for table in tables)
            if not self._is_used:
                return
            self._made += 1
            number, given = self._made, self._names.given()
            wanted = tuple(rules(tables, given))
        with self._lock:
            if number > self._applied:  # else another thread has applied a later state
                self._applied = number
                self._enforce(wanted)
                self._known = given
            failure = self._failure
        if failure is not None and not self._recorder.is_closed:
            self._recorder.complain(str(failure))

    def learn(self, names: tuple[str, ...], addresses: Sequence[str]) -> None:
        """Take notice of the addresses that names are about to be given; see `Names.of`."""
        if not self._is_used or all(self._known.get(each) == names for each in addresses):
            return
        with self._ledger.changed:
            deciding = DatagramDecisions(self._target.attempt_context().tables)
            is_affected = any(next(deciding.named(names, each), None) for each in addresses)
        if is_affected:
            self.apply()
        else:
            self._known.update(dict.fromkeys(addresses, names))

    def _enforce(self, wanted: tuple[DialRule, ...]) -> None:
        """The caller holds the lock."""
        self._failure = None
        if wanted == self._in_force:
            return
        try:
            if self._link.datagrams is None:
                raise LinkError(NO_SOCKET)
            self._link.change_dials(datagram_change(self._in_force, wanted))
        except LinkError as error:
            self._failure = error
        else:
            self._in_force = wanted


def rules(tables: Sequence[RouteTable], given: Mapping[str, tuple[str, ...]]) -> Iterator[DialRule]:
    """The rules for the names of each address, and then for literal addresses. The caller holds `Ledger.changed`."""
    deciding = DatagramDecisions(tables)
    # The latest come first, so that the rules of a new name are only put before the others.
    for address, names in reversed([*given.items()]):
        yield from deciding.named(names, address)
    yield from deciding.literal


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
            if route.kind.decides_datagrams:
                for network in route.parsed_address.networks:
                    yield from literal_rules(route, network, https)

    def named(self, names: Sequence[str], address: str) -> Iterator[DialRule]:
        """The rules for an address that names were given: those of its first name come first."""
        network = network_of(address)
        routes = [
            route for name in names for route in in_order(self._tables, name) if route.names(name)
        ]
        deciding = [route for route in routes if route.kind.decides_datagrams]
        if not (self.literal or any(route.kind.reads_datagrams for route in deciding)):
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
    is_let_out = route is not None and route.kind.reads_datagrams
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
