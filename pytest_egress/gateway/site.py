"""`TargetView`: what the gateway knows of the target that it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pytest_egress.ledger.windows import AttemptContext
from pytest_egress.traffic.dns_answers import NameAnswer


class TargetView(Protocol):
    """What the gateway knows of the target it serves."""

    @property
    def name(self) -> str:
        """As in the ledger."""
        ...

    @property
    def hosts(self) -> Mapping[str, NameAnswer]:
        """The names that are in its /etc/hosts, or were to be, normalised, with their addresses."""
        ...

    @property
    def is_ending(self) -> bool:
        """Whether the target is being ended: a connection that it leaves then tells nothing of its client."""
        ...

    @property
    def hints(self) -> Sequence[str]:
        """Why its clients may not trust the CA, as sentences."""
        ...

    def attempt_context(self) -> AttemptContext:
        """The window and the routes for what it attempts now."""
        ...

    def lost(self) -> None:
        """The sidecar died under a running target."""
        ...
