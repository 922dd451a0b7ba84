"""`DeclaredSecrets`: which of the secrets that `secret()` has made are looked for, and in which windows.

One that is made while a test runs is of its window; one that is made elsewhere, or by a fixture for several tests, is
of the whole run. Nothing is done before the first is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.report import fold
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.entries import Entry, TcpConnection
from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.search.secrets import MADE, UNNAMED, Secret
from pytest_egress.traffic.shown import SCHEME_PORTS

NO_VARIABLES: Final[Mapping[str, str]] = MappingProxyType({})
PASSING_BY_POLICY: Final = 'unrouted="passthrough"'
ANY_HOSTS: Final = ("any.invalid", "240.0.0.1")
"""Hosts that a route has which is declared for all of them, by name or by address."""


def passes_everything(route: InnerRoute) -> bool:
    address = route.parsed_address
    return route.kind.passes_through and any(
        address.matches(host, address.port or SCHEME_PORTS["https"]) for host in ANY_HOSTS
    )


UNSEEN: Final = "passed through in TLS, where a secret is not seen"

DECLARE_HOSTS: Final = (
    'Declare the hosts that it is for, as by intercept_https("api.test", forward()), and refuse others: '
    'unrouted="block" or "fail"'
)


def is_unseen(entry: Entry) -> bool:
    """Whether a secret may have passed in it to any host, by a route or the policy there before it was made."""
    if not isinstance(entry, TcpConnection) or entry.outcome != "passthrough":
        return False
    is_of_policy = entry.route is None
    return entry.offers is not None and (is_of_policy or passes_everything(entry.route))


def unseen_text(entries: Sequence[Entry]) -> str:
    by = {f"{entry.route or PASSING_BY_POLICY}": None for entry in entries}
    shown = [f"  {entry.where}" for entry, _ in fold(entries)[:SHOWN_UNSEEN]]
    return "\n".join(
        [
            f"secret() beside {', '.join(by)}: this {UNSEEN}, so that it may have left there:",
            *("", *shown, ""),
            DECLARE_HOSTS,
        ]
    )


SHOWN_UNSEEN: Final = 20


class DeclaredSecrets:
    """The secrets of one run. `wider` are those that are no test's."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._count = 0  # of `MADE`, that were taken up
        self.wider: Final[list[Secret]] = []

    def learn(
        self, variables: Mapping[str, str] = NO_VARIABLES, *, opens_window: bool = False
    ) -> None:
        """Take up what was made since the last call, and hide it from now on.

        Args:
            variables: Those of a container, whose names tell what a secret in them is called.
            opens_window: Whether a test begins: what was made before is none of it.
        """
        if not MADE:
            return
        with self._ledger.changed:
            new = MADE[self._count :]
            self._count += len(new)
            if opens_window:
                self.wider.extend(new)
                self._watch([])
                return
            if not (new or variables):
                return
            window = self._ledger.window
            of_test = [] if window is None else window.secrets
            (self.wider if window is None or self._ledger.wide_set_ups else of_test).extend(new)
            self._name(of_test, variables)
            if new:
                self._watch(of_test)

    def check_routes(self, routes: Iterable[InnerRoute]) -> None:
        """Raise ValueError where a secret is declared, and one could pass through to any host: TLS hides it there."""
        window = self._ledger.window if MADE else None
        if window is None or not (self.wider or window.secrets):
            return
        passing = [PASSING_BY_POLICY] if window.policy == "passthrough" else []
        passing += [f"{each}" for each in routes if passes_everything(each) and not each.removed]
        if passing:
            raise ValueError(
                f"secret() beside {passing[0]}: a secret that passes through in TLS is not seen. {DECLARE_HOSTS}"
            )

    def _name(self, of_test: list[Secret], variables: Mapping[str, str]) -> None:
        for each in (*self.wider, *of_test):
            if each.name == UNNAMED:
                having = (name for name, value in variables.items() if each.strip() in value)
                each.name = next(having, UNNAMED)
        self._hide([*self.wider, *of_test])

    def _hide(self, secrets: Iterable[Secret]) -> None:
        redactor = self._ledger.redactor  # the suite's rules may not have been asked for yet
        found = redactor.hiding((each.name, form) for each in secrets for form in each.written)
        if found is not redactor:
            self._ledger.hide_by(found)

    def _watch(self, of_test: list[Secret]) -> None:
        """Have the bytes that pass from now on searched. A value is found by itself."""
        values = {str(each): each.written for each in (*self.wider, *of_test)}
        written = [(value, form) for value, forms in values.items() for form in forms]
        known = KnownValues(written) if written else None
        self._ledger.accounts.secrets = known
        self._hide(self.wider)
