"""`KernelRules`: has a target's kernel do with packets as the routes say, by rules that are in force beforehand.

What becomes of a packet has to be known before it is sent. The routes decide it for the addresses that names were
given, and for all others, and the kernel gets that as rules, of which the first that fits decides.

Threads: the gateway's reader calls `learn`; any other thread may call the rest. Rules are made under `Ledger.changed`.
`_lock` guards those in force; it is held while the kernel applies others, and `Ledger.changed` is never acquired then.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Protocol

from pytest_egress.errors import LinkError
from pytest_egress.gateway.dns.names import Names
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.link.changes import DialRule
from pytest_egress.link.interface import Link
from pytest_egress.routes.table import RouteTable


class Decisions(Protocol):
    """What the routes decide at one moment, as rules for the kernel."""

    @property
    def literal(self) -> Sequence[DialRule]:
        """The rules for addresses that no name was given."""
        ...

    def named(self, names: Sequence[str], address: str) -> Iterable[DialRule]:
        """The rules for an address that names were given; none where those of `literal` say the same."""
        ...


class KernelRules(ABC):
    """The rules of one kind that one target's kernel has."""

    def __init__(self, link: Link, recorder: Recorder, names: Names) -> None:
        self._link, self._recorder, self._names = link, recorder, names
        self._ledger, self._target = recorder.ledger, recorder.target
        # The names of each address that the rules in force account for.
        self._known: dict[str, tuple[str, ...]] = {}
        self._is_used = False  # whether there have been rules
        self._made = 0  # how many times rules were made
        self._lock = threading.Lock()
        self._applied = 0  # the latest rules that were looked at
        self._in_force: tuple[DialRule, ...] = ()
        self._failure: LinkError | None = None

    @abstractmethod
    def _needs_rules(self, table: RouteTable) -> bool:
        """Whether a route of a table needs rules: from then on the target's kernel is told of each change."""

    @abstractmethod
    def _decisions(self, tables: Sequence[RouteTable]) -> Decisions:
        """What the routes decide now. The caller holds `Ledger.changed`."""

    @abstractmethod
    def _change(self, old: tuple[DialRule, ...], new: tuple[DialRule, ...]) -> None:
        """Have the kernel put new rules in place of old ones; raise LinkError where it does not."""

    def _completed(self, rules: list[DialRule]) -> Iterable[DialRule]:
        """The rules that the kernel should have, by those that routes decide. The caller holds `Ledger.changed`."""
        return rules

    def check(self) -> None:
        """Raise the error of the last `apply`."""
        if self._failure is not None:
            raise self._failure

    def apply(self) -> None:
        """Have the kernel do what the routes say now; return when it does.

        Where it does not, the test that runs now fails.
        """
        with self._ledger.changed:
            tables = self._target.attempt_context().tables
            self._is_used = self._is_used or any(map(self._needs_rules, tables))
            if not self._is_used:
                return
            self._made += 1
            number, given = self._made, self._names.given()
            deciding = self._decisions(tables)
            # The latest first, so that the rules of a new name only come before the others.
            latest_first = reversed([*given.items()])
            rules = [
                rule for address, names in latest_first for rule in deciding.named(names, address)
            ]
            wanted = tuple(self._completed([*rules, *deciding.literal]))
        with self._lock:
            if number > self._applied:  # else another thread has applied a later state
                self._applied = number
                self._enforce(wanted)
                # Not before: a name must not be answered until its rules are in force.
                self._known = given
            failure = self._failure
        if failure is not None and not self._recorder.is_closed:
            self._recorder.complain(str(failure))

    def learn(self, names: tuple[str, ...], addresses: Sequence[str]) -> None:
        """Take notice of the addresses that names are about to be given; see `Names.of`."""
        if not self._is_used or all(self._known.get(each) == names for each in addresses):
            return
        with self._ledger.changed:
            deciding = self._decisions(self._target.attempt_context().tables)
            is_affected = any(True for each in addresses for _ in deciding.named(names, each))
        if is_affected:
            self.apply()
        else:
            self._known.update(dict.fromkeys(addresses, names))

    def _enforce(self, wanted: tuple[DialRule, ...]) -> None:
        """The caller holds the lock."""
        if wanted == self._in_force:
            self._failure = None
            return
        try:
            self._change(self._in_force, wanted)
        except LinkError as error:
            self._failure = error
        else:
            self._in_force, self._failure = wanted, None


@lru_cache(maxsize=1024)
def network_of(address: str) -> IPv4Network | IPv6Network:
    return ip_network(address)
