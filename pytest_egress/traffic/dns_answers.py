"""`NameAnswer`, the answer of a DNS route, and its checks. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

NamesAnswer = str | IPv4Address | IPv6Address | Sequence[str | IPv4Address | IPv6Address]
RCODES: Final = ("NXDOMAIN", "SERVFAIL", "REFUSED")
SILENCE: Final = "silence"


@dataclass(frozen=True, kw_only=True)
class NameAnswer:
    """The answer of a DNS route.

    Attributes:
        addresses: IP addresses in normal form, of both families; with none the answer is empty.
        rcode: "NOERROR" or one of `RCODES`; None where no response is to be sent.
    """

    addresses: tuple[str, ...] = ()
    rcode: str | None = "NOERROR"


def check_name_answer(answer: object) -> NameAnswer:
    """Make a `NameAnswer` of an address, a list of them, one of `RCODES`, or `SILENCE`.

    Raises:
        TypeError, ValueError: It is none of these; the text lists them.
    """
    if answer in RCODES:
        return NameAnswer(rcode=str(answer))
    if answer == SILENCE:
        return NameAnswer(rcode=None)
    addresses = answer if isinstance(answer, (list, tuple)) else [answer]
    try:
        return NameAnswer(
            addresses=tuple(str(ip_address(text)) for text in map(text_of, addresses))
        )
    except ValueError:
        raise ValueError(f"{answer!r} is no answer of DNS: {NAME_ANSWERS}") from None


NO_ADDRESS: Final = NameAnswer()
NO_SUCH_NAME: Final = NameAnswer(rcode="NXDOMAIN")
NAME_ANSWERS: Final = (
    f"it takes an IP address, a list of them, {', '.join(map(repr, RCODES))}, "
    f"or {SILENCE!r} (no answer at all)"
)


def text_of(address: object) -> str:
    """An address as text. Other types are refused: `ip_address` would read a number as one."""
    if not isinstance(address, (str, IPv4Address, IPv6Address)):
        raise TypeError(f"{address!r} is no answer of DNS: {NAME_ANSWERS}")
    return str(address)
