"""The dials of a target that its kernel refuses or drops, and the datagrams that it lets out, as messages to the agent.

A message is a list of `DialRule`. Of the rules that a namespace has for dials, the first that fits one decides; a dial
that none fits is captured, as every other connection. So it is with the rules for datagrams; one that none fits is
refused. Values and bytes only: `Link.change_dials` sends them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NamedTuple

import pytest_egress.agent.dials as dials
import pytest_egress.agent.nftables as nftables
from pytest_egress.errors import LinkError

NOT_CHANGED: Final = "The target's kernel does not refuse or drop connections as its routes say: {}"
"""A `LinkError` about a message that was not applied; the reason follows."""

NOT_LET_OUT: Final = "The target's kernel does not let datagrams out as its routes say: {}"
"""The same of a message about datagrams."""

ASIDE: Final = nftables.ASIDE
LONGEST6: Final = nftables.LONGEST6
"""Packets that no rule lets out: those with this prefix in the kernel's log, and longer ones of IPv6."""


class Verdict(IntEnum):
    """What the kernel does with a dial.

    Attributes:
        CAPTURED: It is connected to the gateway.
        REFUSED: It is logged and reset, so that its client gets ECONNREFUSED.
        DROPPED: It is logged and dropped, so that its client waits.
        SWALLOWED: It is dropped and not logged: it repeats a dial that was dropped before.
        LET_OUT: A datagram is read by the gateway. One that is not let out is logged, and refused in its very call.
    """

    CAPTURED = dials.CAPTURED
    REFUSED = dials.REFUSED
    DROPPED = dials.DROPPED
    SWALLOWED = dials.SWALLOWED
    LET_OUT = dials.LET_OUT


class DialRule(NamedTuple):
    """The verdict on the dials of a network's addresses, or on the datagrams to them."""

    verdict: Verdict
    network: IPv4Network | IPv6Network
    port: int | None  # None for every one
    begins: bytes = b""  # the first eight bytes of the TCP header; b"" for any


def replacement(rules: Sequence[DialRule]) -> bytes:
    return dials.REPLACE + b"".join(map(packed, rules))


def insertion(rules: Sequence[DialRule]) -> bytes:
    """The rules, at least one, come before all that there are."""
    return dials.INSERT + b"".join(map(packed, rules))


def change(present: Sequence[DialRule], wanted: Sequence[DialRule]) -> bytes:
    """The message that changes the present rules to the wanted ones; LinkError where these are too many."""
    check_count(wanted, NOT_CHANGED, "refuse() or blackhole()")
    more = len(wanted) - len(present)
    is_addition = more > 0 and wanted[more:] == present
    return insertion(wanted[:more]) if is_addition else replacement(wanted)


def check_count(wanted: Sequence[DialRule], text: str, declared: str) -> None:
    """Raise LinkError, with this text, where the rules are too many; `declared` is what made them."""
    if len(wanted) > dials.MAX_RULES:
        reason = (
            f"that takes {len(wanted)} rules for names and addresses, and {dials.MAX_RULES} are the most. Declare "
            f"{declared} for fewer names, or for a network of addresses."
        )
        raise LinkError(text.format(reason))


def datagram_change(present: Sequence[DialRule], wanted: Sequence[DialRule]) -> bytes:
    """As `change`, of the rules for datagrams."""
    check_count(wanted, NOT_LET_OUT, "intercept_udp()")
    return dials.DATAGRAMS + change(present, wanted)


def not_changed(message: bytes, reason: object) -> LinkError:
    """The error about a message that was not applied."""
    is_of_datagrams = message.startswith(dials.DATAGRAMS)
    return LinkError((NOT_LET_OUT if is_of_datagrams else NOT_CHANGED).format(reason))


def packed(rule: DialRule) -> bytes:
    network, port = rule.network, rule.port or 0
    address = network.network_address.packed
    return dials.RULE.pack(
        rule.verdict, network.version, network.prefixlen, port, rule.begins, address
    )


def own_port(features: Sequence[str]) -> int:
    """The port id of the agent's netlink socket; 0 where the features in its first message have none."""
    found = (word[len(dials.PORT) :] for word in features if word.startswith(dials.PORT))
    return int(next(found, 0))
