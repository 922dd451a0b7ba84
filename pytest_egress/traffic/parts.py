"""The parts of a datagram that are calls of their own: `within` makes one, `UnreadablePart` is a part that is none."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final, NamedTuple, TypeVar

from pytest_egress.traffic.entries import Datagram

Part = TypeVar("Part", bound=Datagram)

COMMON: Final = tuple(each.name for each in fields(Datagram) if each.init)


UNREADABLE_PART: Final = "its route cannot read it"
"""How the note begins of a datagram, or of a line of one, that a service cannot read."""


class UnreadablePart(NamedTuple):
    """A part that is not what its service takes; `why` is a sentence without its full stop."""

    content: bytes
    why: str


def within(datagram: Datagram, make: type[Part], **more: Any) -> Part:
    """Make a part of a datagram, which has its fields but for those given, and answers as it does."""
    made = make(**{name: getattr(datagram, name) for name in COMMON} | more)
    made._reply, made._account = datagram._reply, datagram._account
    return made
