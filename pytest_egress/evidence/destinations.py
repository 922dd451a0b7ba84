"""What the entries of a run say about the destinations of its images, and the verdict on those that no lock lists.

Rules: a destination is a concrete host and port. What fails a test is none, nor is what belongs to another entry (a
mail, whose connection has one), nor what is no choice of the image's (a name of the resolver's own), nor a container of
the same network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pytest_egress.errors import LockError
from pytest_egress.evidence.lock import DIALLED, Lock, LockLine, plain_name
from pytest_egress.ledger.report import route_line
from pytest_egress.ledger.verdict import Offence
from pytest_egress.traffic.address import is_localhost
from pytest_egress.traffic.dns.searchlist import APPENDED
from pytest_egress.traffic.entries import (
    REJECTED,
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
)
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import counted, host_port

SHOWN_LINES: Final = 30  # destinations of a verdict
REVERSE: Final = (".in-addr.arpa", ".ip6.arpa")
"""The ends of names that are addresses: those of our own DNS are others in each run."""

NOUNS: Final = {"https": "request", "http": "request", "tcp": "connection", "udp": "packet"}


@dataclass(kw_only=True)
class Sighting:
    """That a destination was reached: its first entry, and how many there were."""

    line: LockLine
    entry: Entry
    count: int = 1

    @property
    def shown(self) -> str:
        """Kind and destination, without secrets: a target may send one as a part of a name."""
        where = redactor_of(self.entry).host(self.line.where)
        return f"{self.line.kind} {where}"

    @property
    def has_secret(self) -> bool:
        """Whether a secret is in it, so that it must not be written."""
        return redactor_of(self.entry).host(self.line.where) != self.line.where


def sightings(entries: Iterable[Entry], images: Mapping[str, str]) -> dict[LockLine, Sighting]:
    """The destinations of entries. A name is one only where nothing was dialled by it.

    Args:
        images: The images of containers, by their names.
    """
    found: dict[LockLine, Sighting] = {}
    dialled = set()  # by attempts that fail their test, too
    for entry in entries:
        if not isinstance(entry, DnsQuery):
            dialled.add((image_of(entry.container, images), entry.host))
        if (told := destination(entry)) is not None:
            line = LockLine(image_of(entry.container, images), *told)
            if line in found:
                found[line].count += 1
            else:
                found[line] = Sighting(line=line, entry=entry)
    return {
        line: each
        for line, each in found.items()
        if line.kind != "names" or (line.image, line.where) not in dialled
    }


def destination(entry: Entry) -> tuple[str, str] | None:
    """The kind and the destination of an entry; None where it has none to be listed."""
    fails = entry.outcome == "unrouted" or entry.accepted is not None or entry.leak
    if fails or getattr(entry, "error", None) is not None or entry.host in ("", "*"):
        return None
    if is_between(entry):
        return None
    if isinstance(entry, DnsQuery):
        return ("names", entry.host) if is_own_choice(entry) else None
    where = host_port(entry.host, entry.port)
    if entry.outcome == "blocked":
        return "blocked", where
    kind = kind_of(entry)
    return None if kind is None else (kind, where)


def is_own_choice(query: DnsQuery) -> bool:
    return not (query.host.endswith(REVERSE) or is_localhost(query.host) or query.note == APPENDED)


def kind_of(entry: Entry) -> str | None:
    """A connection on which nothing was sent is none: clients open one ahead of need, or two at once."""
    if isinstance(entry, Exchange):
        return entry.request.scheme
    if isinstance(entry, ProxyCall):
        return "http"
    if isinstance(entry, (Mail, KafkaRecord)):
        return None
    if isinstance(entry, TlsFailure):
        return "https" if entry.reason == REJECTED else None
    if isinstance(entry, DatagramFlow):
        return "udp"
    if isinstance(entry, PacketAttempt):
        return "udp" if entry.is_quic else None
    if isinstance(entry, TcpConnection) and entry.outcome != "recorded":
        scheme = entry.route.kind.scheme if entry.route is not None else None
        is_tls = entry.sni is not None and entry.port == 443
        return scheme if scheme in ("https", "http") else "https" if is_tls else "tcp"
    return None


def image_of(container: str, images: Mapping[str, str]) -> str:
    """The name of a container's image, as the lock lists it."""
    return plain_name(images.get(container, container.partition("#")[0]))


def offence(
    found: Mapping[LockLine, Sighting], lock: Lock, *, file: str, exists: bool, test: str
) -> Offence | None:
    """What fails a test for reaching what is not listed; None where all is.

    Args:
        file: The name of the lock, as people know it.
        test: The name of the test.
    """
    unlisted = [each for line, each in found.items() if not lock.covers(line)]
    if not unlisted:
        return None
    images = sorted({each.line.image for each in unlisted})
    lines = []
    for image in images:
        lines += [f"{image} reached what {file} does not list:", ""]
        lines += [*lines_of(sorted_of(unlisted, image), test)]
    advice = "" if exists else f"{file} is not there yet. "
    lines.append(f"{advice}to accept it: pytest --egress-lock=update, and commit {file}")
    first = sorted_of(unlisted, images[0])[0]
    more = f" (and {len(unlisted) - 1} more)" if len(unlisted) > 1 else ""
    headline = f"{images[0]} reached {first.shown}, which {file} does not list{more}"
    entries = [each.entry for each in unlisted]
    return Offence(LockError, "\n".join(lines), headline, entries)


def sorted_of(found: Iterable[Sighting], image: str) -> list[Sighting]:
    return sorted((each for each in found if each.line.image == image), key=lambda each: each.line)


def lines_of(found: list[Sighting], test: str) -> Iterator[str]:
    for each in found[:SHOWN_LINES]:
        noun = "lookup" if each.line.kind == "names" else NOUNS.get(each.line.kind, "attempt")
        yield f"  {each.shown}   {counted(each.count, noun)}, by {test}"
        yield f"      {each.entry}"
        yield f"      {let_by(each.entry)}"
        yield ""
    if len(found) > SHOWN_LINES:
        yield f"  and {len(found) - SHOWN_LINES} more"
        yield ""


def let_by(entry: Entry) -> str:
    """Why it failed no test by itself: the route, or the policy, and where that is declared."""
    verb = {"blocked": "blocked", "passthrough": "passed"}.get(entry.outcome, "answered")
    if entry.route is not None:
        return f"{verb} by: {route_line(entry.route)}"
    if isinstance(entry, DnsQuery):
        return "looked up, and dialled by nothing"
    if entry.outcome in ("blocked", "passthrough"):
        policy = "block" if entry.outcome == "blocked" else "passthrough"
        return f'{verb} by: unrouted="{policy}"'
    return "listed, since a route claims its host"


def is_listable(sighting: Sighting) -> bool:
    """Whether it may be written: a secret must not, and what is no host would not be read back."""
    if sighting.has_secret:
        return False
    text = sighting.line.where
    return text.isprintable() and (sighting.line.kind not in DIALLED or " " not in text)
