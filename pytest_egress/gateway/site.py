"""`TargetView`: what the gateway knows of the target that it serves, as an interface."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from pytest_egress.ledger.windows import AttemptContext
from pytest_egress.routes.answers import Connectable
from pytest_egress.traffic.dns.answers import NameAnswer


class TargetView(Protocol):
    """The target that a gateway serves, as far as the gateway needs to know it."""

    @property
    def name(self) -> str: ...

    @property
    def hosts(self) -> Mapping[str, NameAnswer]:
        """A normalised name is here even if the engine did not write it into the target's /etc/hosts."""
        ...

    @property
    def search(self) -> Collection[str]:
        """The suffixes of the search lists of its resolvers, in normal form."""
        ...

    @property
    def proxies(self) -> Collection[tuple[str, str]]:
        """The names and values of its variables that name a proxy, such as HTTPS_PROXY."""
        ...

    @property
    def is_ending(self) -> bool:
        """Whether the target is being stopped: a connection that breaks off then says nothing about its client."""
        ...

    @property
    def hints(self) -> Sequence[str]:
        """Reasons why the target's clients may not trust the CA, as sentences."""
        ...

    def peers(self, name: str) -> Sequence[Connectable]:
        """The other containers that a normalised name is for, in a network that the target shares with them.

        Any thread may call it; no call of an engine is made.
        """
        ...

    def attempt_context(self) -> AttemptContext: ...

    def lost(self, text: str) -> None:
        """Note that the capture of the target's traffic has ended while it was running, or may have."""
        ...
