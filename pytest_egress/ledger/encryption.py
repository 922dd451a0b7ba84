"""`assert_encrypted`: which attempts were outside of TLS, or in an older version, and the text about them.

Names are no attempts here: DNS is answered by this process. Nor are a handshake that failed, a packet of the kernel's
own, and a connection that carried nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from pytest_egress.errors import CallError
from pytest_egress.ledger.report import fold
from pytest_egress.routes.certificates import TLS_VERSIONS
from pytest_egress.traffic.address import Address, parse_address
from pytest_egress.traffic.entries import (
    DatagramFlow,
    DnsQuery,
    Entry,
    Exchange,
    KafkaRecord,
    Mail,
    PacketAttempt,
    ProxyCall,
    TcpConnection,
    TlsFailure,
    is_between,
    transcript_of,
)
from pytest_egress.traffic.redaction.names import is_secret
from pytest_egress.traffic.shown import host_port, shown
from pytest_egress.traffic.tls.dtls import version_of

IN_CLEAR: Final = "in the clear"
IN_CLEAR_FIRST: Final = "in the clear before its TLS, beyond asking for it"
SHOWN_ENTRIES: Final = 20


class Weak(NamedTuple):
    """An attempt, and how it was sent: in the clear, or by which version."""

    entry: Entry
    how: str


def checked_minimum(minimum: object) -> int:
    """The place of a version among `TLS_VERSIONS`; ValueError for anything else."""
    if minimum not in TLS_VERSIONS:
        raise ValueError(
            f"assert_encrypted(minimum={shown(minimum)}): it takes {', '.join(map(repr, TLS_VERSIONS))}"
        )
    return TLS_VERSIONS.index(minimum)


def checked_addresses(allow: object) -> list[Address]:
    """Raise TypeError or AddressError for what is no list of addresses."""
    if isinstance(allow, str) or not isinstance(allow, Iterable):
        raise TypeError(
            f"assert_encrypted(allow={shown(allow)}): it takes a list of addresses, such as ['db.test:5432']"
        )
    return [parse_address(address, default_port=None) for address in allow]


def weak(entries: Iterable[Entry], minimum: int, allow: Sequence[Address]) -> list[Weak]:
    """The attempts that were sent by less than a version, but for those to the addresses."""
    entries = list(entries)
    calls = (entry for entry in entries if isinstance(entry, (Mail, KafkaRecord)))
    told = {whereof(entry) for entry in calls if weakness(entry, minimum)}
    found = []
    for entry in entries:
        how = weakness(entry, minimum)
        if how and any(each.matches(entry.host, entry.port or 0) for each in allow):
            continue
        if how and not (is_known_by_others(entry) and whereof(entry) in told):
            found.append(Weak(entry, how))
    return found


def whereof(entry: Entry) -> tuple[str, str, int | None]:
    return entry.container, entry.host, entry.port


def is_known_by_others(entry: Entry) -> bool:
    """Whether it is a connection whose mails or records are entries of their own, if there are any."""
    return isinstance(entry, TcpConnection) and entry._is_heard and not entry._is_in_clear_first


def weakness(entry: Entry, minimum: int) -> str:
    """How an attempt was sent, where that is by less than a version; else ""."""
    if isinstance(entry, (DnsQuery, TlsFailure)) or is_empty(entry) or is_between(entry):
        return ""
    if isinstance(entry, PacketAttempt):
        return "" if entry.is_quic else IN_CLEAR
    if isinstance(entry, DatagramFlow):
        version = version_of([each.content for each in entry.datagrams])
        how = f"{version} at most is offered" if version else IN_CLEAR
        return "" if version and is_enough(version, minimum) else how
    if isinstance(entry, ProxyCall) and asks_for_tunnel(entry):
        return ""
    tls = entry.request.tls if isinstance(entry, Exchange) else None
    if isinstance(entry, TcpConnection) and entry._is_in_clear_first:
        return IN_CLEAR_FIRST
    if isinstance(entry, (TcpConnection, Mail, KafkaRecord)):
        tls = entry.tls
    if tls is not None:
        return "" if is_enough(tls.version, minimum) else tls.version
    if isinstance(entry, TcpConnection) and entry.offers is not None:
        version, library = entry.offers
        by = f" by {library}" if library else ""
        return "" if is_enough(version, minimum) else f"{version} at most is offered{by}"
    return IN_CLEAR


def asks_for_tunnel(call: ProxyCall) -> bool:
    """Whether a proxy is asked for a tunnel alone: what goes through is told by itself, and no password is sent."""
    return call.method == "CONNECT" and not any(is_secret(name) for name, _ in call.headers.raw)


def is_empty(entry: Entry) -> bool:
    """Whether it carried nothing that its client has sent or received."""
    if isinstance(entry, PacketAttempt):
        return entry.outcome == "recorded"
    if not isinstance(entry, TcpConnection):
        return False
    carried = (entry.first_bytes, entry.kept, entry.sent, entry.received, entry.unread)
    return not (any(carried) or entry._is_heard) and not transcript_of(entry).pieces


def is_enough(version: str, minimum: int) -> bool:
    return version in TLS_VERSIONS[minimum:]


def weak_error(found: Sequence[Weak], minimum: str) -> CallError:
    how = {id(each.entry): each.how for each in found}
    folded = fold([each.entry for each in found])
    lines = [f"expected all in {minimum} or newer; there was:"]
    for entry, count in folded[:SHOWN_ENTRIES]:
        lines.append(f"  {entry}  {how[id(entry)]}{f'  ({count} times)' if count > 1 else ''}")
    if len(folded) > SHOWN_ENTRIES:
        lines.append(f"  and {len(folded) - SHOWN_ENTRIES} more")
    first = host_port(found[0].entry.host, found[0].entry.port)
    lines.append(f"Where that is meant: assert_encrypted(allow=[{shown(first)}])")
    error = CallError("\n".join(lines))
    error.headline = f"{found[0].entry}: {found[0].how}"
    return error
