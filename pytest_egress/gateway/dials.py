"""`ConnectFaults`: has a target's kernel refuse and drop the dials that routes answer so, and records those.

A dial is the first packet of a TCP connection. The kernel has rules for it (`kernel_rules`), and logs each dial that it
ends; the log is read here, and the route's turn moves on. A client that dials again before the new rules are in force
meets the old ones: a fault in a sequence ends at least as many dials as it has turns.

Threads: the gateway's reader calls `take_packet`. What is known of past dials changes under `Ledger.changed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from pytest_egress.gateway.dns.names import Names
from pytest_egress.gateway.kernel_rules import KernelRules, network_of
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.ledger.windows import AttemptContext
from pytest_egress.link.changes import DialRule, Verdict, change
from pytest_egress.link.interface import Link
from pytest_egress.routes.faults import Blackhole, ConnectFault, Refuse
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import RouteTable, in_order, keyed_on
from pytest_egress.traffic.packets import Packet

FAULTS: Final[dict[str, ConnectFault]] = {"refused": Refuse(), "dropped": Blackhole()}
"""What a dial was answered by, by the prefix in the kernel's log."""

VERDICTS: Final = {Refuse(): Verdict.REFUSED, Blackhole(): Verdict.DROPPED}

SYN_SECONDS: Final = 130.0
"""For how long Linux repeats the first packet of a connection: 127 s, by net.ipv4.tcp_syn_retries."""

TRY_SECONDS: Final = {Refuse(): 10.0, Blackhole(): SYN_SECONDS}
"""How long after its last dial a client may go on to another address of the same name, as one try."""

MAX_SWALLOWED: Final = 1024
"""How many dropped dials are known, whose repetitions stay dropped when their route answers otherwise."""

MAX_SEEN: Final = 65536
"""How many dropped dials are known, so that their repetitions are not recorded: a source port each."""

MAX_TRIES: Final = 4096
"""How many tries of one name and port are known. Then all are forgotten, as if the client never went on with them."""

SAME_TRY: Final = "another address of the same try, which is one call"
TOO_LATE: Final = (
    "{fault} was still in force, although the route answers otherwise by now; it is no call"
)


@dataclass(eq=False)
class Try:
    """One try of a client to connect to a name: it may dial each of the name's addresses once."""

    fault: ConnectFault
    turn: int
    latest: float


@dataclass(eq=False)
class Tries:
    """The tries of one name and port that a route has answered by a fault, in order.

    Attributes:
        reached: For each address, how many of the tries have dialled it, or never will.
    """

    begun: list[Try] = field(default_factory=list)
    reached: dict[str, int] = field(default_factory=dict)

    def open_for(self, route: InnerRoute, address: str, now: float) -> Try | None:
        """The first try that may yet dial an address."""
        for index in range(self.reached.get(address, 0), len(self.begun)):
            found = self.begun[index]
            is_recent = now - found.latest < TRY_SECONDS[found.fault]
            if is_recent and not route.turns.is_replaced(found.turn):
                return found
            self.reached[address] = index + 1
        return None

    def join(self, address: str, now: float) -> None:
        """Have the try that `open_for` has found dial an address."""
        index = self.reached.get(address, 0)
        self.begun[index].latest = now
        self.reached[address] = index + 1

    def begin(self, fault: ConnectFault, turn: int, address: str, now: float) -> None:
        if len(self.begun) >= MAX_TRIES:
            self.begun.clear()
            self.reached.clear()
        self.begun.append(Try(fault, turn, now))
        self.reached[address] = len(self.begun)


class ConnectFaults(KernelRules):
    """Those of one target. A dial that its kernel does not end as the routes say is reset."""

    def __init__(self, link: Link, recorder: Recorder, names: Names) -> None:
        super().__init__(link, recorder, names)
        self._tries: dict[tuple[InnerRoute, str, int], Tries] = {}
        self._seen: dict[tuple[str, bytes], None] = {}  # dropped dials
        self._swallowed: deque[tuple[float, DialRule]] = deque(maxlen=MAX_SWALLOWED)

    def _needs_rules(self, table: RouteTable) -> bool:
        return bool(table.refusing)

    def _decisions(self, tables: Sequence[RouteTable]) -> Deciding:
        return Deciding(tables, self._tries, self._ledger.clock(), self._is_peer)

    def _is_peer(self, name: str) -> bool:
        return bool(self._target.peers(name))

    def _completed(self, rules: list[DialRule]) -> Iterator[DialRule]:
        """The rules, after those by which repetitions of dropped dials stay dropped."""
        now = self._ledger.clock()
        for key in [key for key in self._tries if key[0].is_over()]:
            del self._tries[key]
        while self._swallowed and self._swallowed[0][0] < now:
            self._swallowed.popleft()
        for _, rule in self._swallowed:
            if verdict_of(rules, rule) is not Verdict.DROPPED:
                yield rule
        yield from rules

    def _change(self, old: tuple[DialRule, ...], new: tuple[DialRule, ...]) -> None:
        self._link.change_dials(change(old, new))

    # Dials that the kernel has refused or dropped.

    def take_packet(self, packet: Packet) -> None:
        """Record a dial that the kernel has logged, and count it as a call of its route. The reader calls it."""
        fault, port = FAULTS[packet.prefix], packet.port or 0
        if isinstance(fault, Blackhole) and self._is_repetition(packet):
            return
        with self._ledger.changed:
            context = self._target.attempt_context()
            hosts = *self._names.of(packet.destination), packet.destination
            host = keyed_on(context.tables, hosts, port)
            route, note = self._answered_by(context, fault, host, packet.destination, port)
            if isinstance(fault, Blackhole):
                self._swallow(packet)
            self._recorder.record_dial(context, route, fault, host, port, packet.destination, note)
        # A route without turns goes on in the same way: a flood of dials changes no rule.
        if route is None or route.times is not None or note not in ("", SAME_TRY):
            self._ledger.turns_changed()

    def _is_repetition(self, packet: Packet) -> bool:
        dial = packet.destination, packet.begins
        is_known = dial in self._seen
        self._seen[dial] = None
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        return is_known

    def _swallow(self, packet: Packet) -> None:
        """Have the repetitions of a dropped dial stay dropped, whatever its route answers by then."""
        network = ip_network(packet.destination)
        rule = DialRule(Verdict.SWALLOWED, network, packet.port, packet.begins)
        self._swallowed.append((self._ledger.clock() + SYN_SECONDS, rule))

    def _answered_by(
        self, context: AttemptContext, fault: ConnectFault, host: str, address: str, port: int
    ) -> tuple[InnerRoute | None, str]:
        """The route that a dial is a call of; or the one that decides now, and a note why it is no call of it."""
        now, too_late = self._ledger.clock(), TOO_LATE.format(fault=fault)
        for route in covering(context.tables, host, port):
            tries = (
                self._tries.setdefault((route, host, port), Tries())
                if route.turns.refuses
                else Tries()
            )
            if (found := tries.open_for(route, address, now)) is not None:
                if found.fault != fault:
                    return route, too_late
                tries.join(address, now)
                return route, SAME_TRY
            if route.is_used_up:
                continue
            if (turn := route.turns.reserve_fault(fault)) is None:
                return route, too_late
            tries.begin(fault, turn, address, now)
            return route, ""
        return None, too_late


class Deciding:
    """What the routes decide about dials at one moment, as rules for the kernel.

    Args:
        now: The time, by `Ledger.clock`.
        is_peer: Whether a name is that of a container in a network of the target's: no pattern is for it.

    Attributes:
        literal: The rules for addresses that no name was given; none where all of them are captured.
    """

    def __init__(
        self,
        tables: Sequence[RouteTable],
        tries: Mapping[tuple[InnerRoute, str, int], Tries],
        now: float,
        is_peer: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._tables, self._tries, self._now, self._is_peer = tables, tries, now, is_peer
        self._tried: dict[str, set[int]] = {}  # ports, by name
        for _, host, port in tries:
            self._tried.setdefault(host, set()).add(port)
        refusing = [route for table in tables for route in table.refusing if not route.removed]
        self._exact = {r.parsed_address.host for r in refusing if r.parsed_address.is_exact}
        self._patterns = [route for route in refusing if not route.parsed_address.is_exact]
        is_literal = any(route.parsed_address.networks for route in refusing)
        self.literal = [*self._literal()] if is_literal else []

    def _literal(self) -> Iterator[DialRule]:
        for table in self._tables:
            for route in table.of_addresses():
                if route.removed or not route.kind.is_for_connections or route.is_used_up:
                    continue
                for network in route.parsed_address.networks:
                    fault, port = route.turns.next_fault, route.parsed_address.port
                    yield DialRule(verdict(fault), network, port)

    def named(self, names: Sequence[str], address: str) -> list[DialRule]:
        """The rules for an address that names were given, as far as they differ from those of `literal`.

        The first of the names that has a route at a port decides there.
        """
        if not self.literal and not any(map(self._may_refuse, names)):
            return []
        own = {name: self._for_connections(name) for name in names}
        network = network_of(address)
        others = [rule for rule in self.literal if overlaps(rule, network)]
        before = [] if any(map(self._is_peer, names)) else others
        ports = {route.parsed_address.port for routes in own.values() for route in routes}
        ports |= {rule.port for rule in others}
        ports |= {port for name in names for port in self._tried.get(name, ())}
        exact = sorted(port for port in ports if port is not None)
        wanted: list[DialRule] = []
        for port in (*exact, None):
            other = DialRule(Verdict.CAPTURED, network, port)
            found = verdict_of(before, other)
            for name, routes in own.items():
                covering = [route for route in routes if route.parsed_address.port in (None, port)]
                if covering:
                    found = self._verdict(covering, name, address, port)
                    break
            wanted.append(other._replace(verdict=found))
        return as_far_as_needed(wanted, others)

    def _for_connections(self, name: str) -> list[InnerRoute]:
        found = (route for route in in_order(self._tables, name) if route.names(name))
        is_peer = self._is_peer(name)
        return [
            route
            for route in found
            if route.kind.is_for_connections and (route.parsed_address.is_exact or not is_peer)
        ]

    def _may_refuse(self, name: str) -> bool:
        return name in self._exact or any(route.names(name) for route in self._patterns)

    def _verdict(
        self, covering: Sequence[InnerRoute], name: str, address: str, port: int | None
    ) -> Verdict:
        """What becomes of a dial of a name's address; a port of None stands for each that no route names."""
        for route in covering:
            tries = self._tries.get((route, name, port)) if port is not None else None
            if tries is not None and (found := tries.open_for(route, address, self._now)):
                return verdict(found.fault)
            if not route.is_used_up:
                return verdict(route.turns.next_fault)
        return Verdict.CAPTURED


def covering(tables: Sequence[RouteTable], host: str, port: int) -> Iterator[InnerRoute]:
    return (route for route in in_order(tables, host) if route.covers(host, port))


def verdict(fault: ConnectFault | None) -> Verdict:
    """None is any answer but a fault of connecting."""
    return Verdict.CAPTURED if fault is None else VERDICTS[fault]


def overlaps(rule: DialRule, network: IPv4Network | IPv6Network) -> bool:
    """Whether a rule is for a network or one around it."""
    around = rule.network
    is_alike = around.version == network.version and around.prefixlen <= network.prefixlen
    return is_alike and network.network_address in around


def verdict_of(rules: Sequence[DialRule], dial: DialRule) -> Verdict:
    """What rules decide about the dials of another one: the first that fits."""
    found = (
        rule.verdict
        for rule in rules
        if rule.port in (None, dial.port) and overlaps(rule, dial.network)
    )
    return next(found, Verdict.CAPTURED)


def as_far_as_needed(wanted: list[DialRule], others: Sequence[DialRule]) -> list[DialRule]:
    """The rules of an address without those that decide as others do, which come after them.

    The last of the wanted rules is for every port that no other rule names.
    """
    if wanted[-1].verdict is not verdict_of(others, wanted[-1]):
        return wanted
    return [rule for rule in wanted if rule.verdict is not verdict_of(others, rule)]
