"""What an audit says of the runs of an image: whom it asks, where its secrets go, what it accepts, and what is wrong.

Pure functions of what was attempted. Each part is lines of text; a finding is a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_egress.base.escaping import one_line
from pytest_egress.evidence.destinations import is_own_choice
from pytest_egress.traffic.address import Address
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
)
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.search.leaks import IN_NAME, IN_URL, NAMES, LeakSearch
from pytest_egress.traffic.search.secrets import written
from pytest_egress.traffic.shown import counted, host_port
from pytest_egress.traffic.tls.asked import asks_alone

SSL_REQUEST: Final = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # PostgreSQL, section 55.7 (SSLRequest)
CLEAR: Final = "in the clear"
REJECTED, ACCEPTED, NOT_ASKED = "rejected", "ACCEPTED", "not asked"
BROKE_OFF: Final = "broke off"
NO_STARTTLS: Final = "no STARTTLS"  # a row of the table
HOSTS_OF_A_TABLE: Final = 4  # columns that a terminal has room for; of more there is another table
SHOWN: Final = 100  # lines of a part: an image that floods is told of by a number
INDENT: Final = "  "


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The runs of one audit.

    Attributes:
        usual: What the image attempted as it is.
        presented: What it attempted where it was shown a bad certificate, or an old version of TLS, by its name.
        offered: What it attempted where STARTTLS was offered to it.
        skipped: Why something could not be shown, by its name.
        secrets: The names and values of the secrets that it was given.
        ended: How many runs were ended after their time.
        runs: How many there were.
        clear: The addresses that may be asked in the clear.
        stripped: Whether it went on in the clear where STARTTLS, which it begins, was not offered, by host and port.
        unseen: Why not all of a run may have been seen, by its name.
    """

    usual: Sequence[Entry]
    presented: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    offered: Sequence[Entry] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[tuple[str, str]] = ()
    ended: int = 0
    runs: int = 1
    clear: Sequence[Address] = ()
    stripped: Mapping[tuple[str, int | None], bool] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)

    def may_be_clear(self, entry: Entry) -> bool:
        return any(each.matches(entry.host, entry.port or 0) for each in self.clear)


# Whom it asks.


def asked_lines(audit: Audit) -> list[str]:
    """A line for each destination: the protocol, the address, how it is protected, and how often it was tried."""
    rows = asked(audit)
    lines = aligned(
        [*key, "" if key[0] == "dns" else counted(n, "attempt")] for key, n in rows.items()
    )
    return bounded([*lines] or ["nobody"])


def asked(audit: Audit) -> dict[tuple[str, str, str], int]:
    """How often each destination was tried: by protocol, address, and how it is protected."""
    rows: dict[tuple[str, str, str], int] = {}
    entries = [*audit.usual, *later(audit)]
    dialled = {entry.host for entry in entries if not isinstance(entry, DnsQuery)}
    begun = upgraded(audit)
    for entry in entries:
        if isinstance(entry, (Mail, KafkaRecord, ProxyCall)):
            continue  # its connection has a line
        if isinstance(entry, DnsQuery):
            if entry.host in dialled or not is_own_choice(entry):
                continue
            key = ("dns", shown_host(entry), "looked up, never dialled")
        else:
            how = begun.get((entry.host, entry.port)) if is_clear(entry) else None
            key = (protocol(entry), address_of(entry), how or protection(entry))
        rows[key] = rows.get(key, 0) + 1
    return rows


def later(audit: Audit) -> Iterator[Entry]:
    """What was attempted at hosts that the first run did not ask, in the first one that did.

    The requests of the first run are refused. A handshake that failed in a later one was meant to.
    """
    known = {entry.host for entry in audit.usual}
    for run in (audit.offered, *audit.presented.values()):
        new = [entry for entry in run if entry.host not in known]
        known |= {entry.host for entry in new}
        yield from (entry for entry in new if not isinstance(entry, TlsFailure))


def upgraded(audit: Audit) -> dict[tuple[str, int | None], str]:
    """How the destinations are protected at which each connection has begun TLS by itself, where that was offered."""
    found: dict[tuple[str, int | None], str] = {}
    clear = set()
    for entry in audit.offered:
        where = entry.host, entry.port
        if went_on(entry):
            clear.add(where)
        elif isinstance(entry, TcpConnection) and entry.tls is not None:
            found[where] = f"STARTTLS, {protection(entry)}"
        elif isinstance(entry, TlsFailure):
            found.setdefault(where, "STARTTLS, of which it rejects the certificate")
    return {where: how for where, how in found.items() if where not in clear}


def went_on(entry: Entry) -> bool:
    """Whether a client that was offered STARTTLS went on without."""
    if isinstance(entry, Mail):
        return entry.tls is None
    if not isinstance(entry, TcpConnection):
        return False
    if entry.tls is not None:
        return entry._is_in_clear_first  # such as a login before STARTTLS
    said = entry.kept or entry.first_bytes
    return not asks_alone(bytes(said))


def protocol(entry: Entry) -> str:
    if isinstance(entry, Exchange):
        return {"http": entry.request.scheme}.get(entry.kind, entry.kind)
    if isinstance(entry, TcpConnection) and entry.tls is not None:
        return "tls"
    return entry.kind


def protection(entry: Entry) -> str:
    """How an attempt is protected: its version of TLS and the library of its client, or not at all."""
    library = entry.connection.library if entry.connection is not None else None
    if isinstance(entry, TlsFailure):
        return "TLS, its requests unseen: it does not trust the CA, or broke off"
    if is_clear(entry):
        return CLEAR
    if isinstance(entry, PacketAttempt):
        return "not intercepted"
    tls = entry.request.tls if isinstance(entry, Exchange) else getattr(entry, "tls", None)
    version = tls.version if tls is not None else "TLS"
    return f"{version}, {library}" if library else version


def is_clear(entry: Entry) -> bool:
    """Whether what it carries can be read on its way."""
    if isinstance(entry, Exchange):
        return entry.request.scheme == "http"
    return isinstance(entry, DatagramFlow) or (
        isinstance(entry, TcpConnection) and entry.tls is None
    )


def is_tls(entry: Entry) -> bool:
    return not is_clear(entry) and isinstance(entry, (Exchange, TcpConnection, TlsFailure))


# Where its secrets go.


def secret_lines(audit: Audit) -> list[str]:
    if not audit.secrets:
        return ["no variable that it was given is a secret: give it those that it has, by -e NAME"]
    found = whereabouts(audit)
    told = {name for name, *_ in found}
    rows = [[name, to, f"in {place}"] for name, to, place, _ in found]
    rows += [[name, "not seen", ""] for name, _ in audit.secrets if name not in told]
    return bounded([*aligned(rows)])


def whereabouts(audit: Audit) -> list[tuple[str, str, str, str]]:
    """For each place of each secret its name, the destination, the place, and what is wrong with it, or ""."""
    names = {value: name for name, value in audit.secrets}
    if not names:
        return []
    search = LeakSearch(KnownValues((value, each) for value in names for each in written(value)))
    found: dict[tuple[str, str, str, str], None] = {}
    runs = (audit.usual, audit.offered, *audit.presented.values())
    for entry in (entry for run in runs for entry in run):
        for value, place in search.places(entry):
            if value not in names:
                continue
            how = f", {place.how}" if place.how else ""
            bad = place.is_clear and not audit.may_be_clear(entry)
            wrong = wrong_with(entry, place.name, is_clear=bad)
            where = redactor_of(entry).known(place.name)
            found[names[value], address_of(entry), f"{where}{how}", wrong] = None
    return [*found]


def wrong_with(entry: Entry, place: str, *, is_clear: bool) -> str:
    if isinstance(entry, DnsQuery) or place in NAMES:
        return IN_NAME
    if place.startswith("url"):
        return IN_URL
    return "it went outside of TLS" if is_clear else ""


# What it accepts.


def table_lines(audit: Audit) -> list[str]:
    found = reactions(audit)
    if not found:
        return ["it asked nobody by TLS"]
    lines: list[str] = []
    hosts = [*found]
    for start in range(0, len(hosts), HOSTS_OF_A_TABLE):
        some = hosts[start : start + HOSTS_OF_A_TABLE]
        rows = [["", *(one_line(host) for host in some)]]
        names = [*audit.presented, *([NO_STARTTLS] if audit.stripped else [])]
        rows += [[name, *(found[host].get(name, "") for host in some)] for name in names]
        lines += [*([""] if lines else []), *aligned(rows)]
    lines += [f"{name}: not tried, {why}" for name, why in audit.skipped.items()]
    return bounded(lines)


def hosts_of(audit: Audit) -> list[str]:
    """The hosts that were asked by TLS in any run, in order."""
    runs = (audit.usual, audit.offered, *audit.presented.values())
    return [*dict.fromkeys(entry.host for run in runs for entry in run if is_tls(entry))]


def reactions(audit: Audit) -> dict[str, dict[str, str]]:
    """What the image did with each thing that it was shown, by host and by the name of the thing."""
    begun = upgraded(audit)
    clear = {entry.host for entry in audit.usual if is_clear(entry)}
    found: dict[str, dict[str, str]] = {host: {} for host in hosts_of(audit)}
    for name, entries in audit.presented.items():
        by_host: dict[str, list[Entry]] = {host: [] for host in found}
        for entry in entries:
            if entry.host in by_host:
                by_host[entry.host].append(entry)
        for host, of_host in by_host.items():
            found[host][name] = reaction(of_host, begun, is_usually_clear=host in clear)
    for (host, _), goes_on in audit.stripped.items():
        if host in found:
            before = found[host].get(NO_STARTTLS)
            found[host][NO_STARTTLS] = CLEAR if goes_on else before or REJECTED
    return found


def reaction(
    of_host: Sequence[Entry],
    begun: Mapping[tuple[str, int | None], str],
    *,
    is_usually_clear: bool,
) -> str:
    if any(entry.accepted is not None for entry in of_host):
        return ACCEPTED
    if any(went_on(entry) for entry in of_host if (entry.host, entry.port) in begun):
        return CLEAR
    if any(map(is_clear, of_host)) and not is_usually_clear:
        return CLEAR
    reasons = {entry.reason for entry in of_host if isinstance(entry, TlsFailure)}
    if "rejected" in reasons:
        return REJECTED
    return BROKE_OFF if reasons else NOT_ASKED


# What is wrong.


def findings(audit: Audit) -> list[str]:
    """A sentence for each thing that is wrong."""
    return [
        *accepted_findings(audit),
        *secret_findings(audit),
        *clear_findings(audit),
        *unseen_findings(audit),
    ]


def accepted_findings(audit: Audit) -> Iterator[str]:
    for host, reacted in reactions(audit).items():
        if accepted := [name for name, did in reacted.items() if did == ACCEPTED]:
            yield (
                f"it accepted of {one_line(host)}: {', '.join(accepted)}. Whoever is between them can read and change "
                "what they send"
            )
        if reacted.pop(NO_STARTTLS, "") == CLEAR:
            yield (
                f"it goes on in the clear with {one_line(host)} where STARTTLS is not offered: whoever is between them "
                "can take the offer away"
            )
        if clear := [name for name, did in reacted.items() if did == CLEAR]:
            yield f"after the handshake with {one_line(host)} failed it went on in the clear: {', '.join(clear)}"


def secret_findings(audit: Audit) -> Iterator[str]:
    for name, to, place, wrong in whereabouts(audit):
        if wrong:
            yield f"{name} went to {to} in {place}: {wrong}"


def clear_findings(audit: Audit) -> Iterator[str]:
    begun = upgraded(audit)
    clear = dict.fromkeys(
        f"{protocol(entry)} {address_of(entry)}"
        for entry in (*audit.usual, *later(audit))
        if is_clear(entry)
        and (entry.host, entry.port) not in begun
        and not audit.may_be_clear(entry)
    )
    for each in clear:
        yield f"it asks {each} in the clear"


def unseen_findings(audit: Audit) -> Iterator[str]:
    for name, why in audit.unseen.items():
        yield f"not all of the run {name!r} could be seen: {why}"


# Text.


def address_of(entry: Entry) -> str:
    return one_line(host_port(shown_host(entry), entry.port))


def shown_host(entry: Entry) -> str:
    return one_line(redactor_of(entry).host(entry.host))


def aligned(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Rows of cells as lines, the cells of a column below each other."""
    listed = [[*row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    for row in listed:
        yield "  ".join(each.ljust(width) for each, width in zip(row, widths, strict=True)).rstrip()


def bounded(lines: list[str]) -> list[str]:
    if len(lines) <= SHOWN:
        return lines
    return [*lines[:SHOWN], f"... {len(lines) - SHOWN} more"]
