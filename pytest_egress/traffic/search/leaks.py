"""The search for what `secret()` has made, through the entries of a window, and the text of `LeakError`.

The rule: the text says where a secret was and how it was written, and never the secret, nor how long it is. What is
decoded for it is bounded for all entries of a window together; what was sent is searched as it is whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from pytest_egress.traffic.entries import (
    DatagramFlow,
    DnsQuery,
    Entry,
    Exchange,
    KafkaRecord,
    Mail,
    PacketAttempt,
    TcpConnection,
)
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.search.attempts import pieces_of, so_far
from pytest_egress.traffic.search.contents import DECODED
from pytest_egress.traffic.search.passing import Passing
from pytest_egress.traffic.search.pieces import Budget, Piece, Room
from pytest_egress.traffic.search.secrets import Secret
from pytest_egress.traffic.shown import SHOWN_TARGET, cut, host_port

MAX_DECODED_BYTES: Final = 16 << 20  # of a window
MAX_PIECES: Final = 100_000  # of a window: a body of JSON has one for each of its values
SHOWN_LEAKS: Final = 20
BASE64_DECODED: Final = ", base64-decoded"

IN_URL: Final = "a URL is written to the logs of each server and proxy on its way"
IN_NAME: Final = "names are asked for in the clear, and of everybody"
IN_CLEAR: Final = "it went outside of TLS, which cleartext=True would allow"


class Leak(NamedTuple):
    """A secret where it must not be: `place` in the entry, `how` it is written there, and `why` it must not."""

    entry: Entry
    secret: Secret
    place: str
    how: str
    why: str

    @property
    def told(self) -> str:
        """The secret, its place and its form, in words."""
        place = cut(redactor_of(self.entry).known(self.place), SHOWN_TARGET)
        place = place if place.startswith(("the ", "its ", "MAIL", "RCPT")) else f"its {place}"
        return f"{self.secret.shown} in {place}{f', {self.how}' if self.how else ''}"


class Occurrence(NamedTuple):
    """Where something was found; `is_clear` says whether that was outside of TLS."""

    name: str
    how: str
    is_clear: bool


def leaks(entries: Iterable[Entry], secrets: Sequence[Secret]) -> list[Leak]:
    """What was sent where it must not be, in order; of secrets with one value the last that was made counts."""
    by_value = {str(each): each for each in secrets}
    known = KnownValues((value, each) for value in by_value for each in by_value[value].written)
    search = LeakSearch(known)
    return [
        Leak(entry, by_value[value], place.name, place.how, why)
        for entry in entries
        for value, place in search.places(entry)
        if value in by_value and (why := offence(entry, by_value[value], place))
    ]


def offence(entry: Entry, secret: Secret, place: Occurrence) -> str:
    """Why a secret must not be there; "" where it may."""
    if isinstance(entry, DnsQuery) or place.name in NAMES:
        return IN_NAME
    where = host_port(entry.host, entry.port)
    if not any(address.matches(entry.host, entry.port or 0) for address in secret.only):
        if not secret.only:
            return "it has no only=, and so must not leave at all"
        return f"{where} is none of its only=: {', '.join(each.text for each in secret.only)}"
    if place.name.startswith("url"):
        return IN_URL
    return IN_CLEAR if place.is_clear and not secret.cleartext else ""


NAMES: Final = ("the name of its host", "the server name of its TLS")


def is_clear(entry: Entry) -> bool:
    if isinstance(entry, Exchange):
        return entry.request.scheme != "https"
    tls = entry.tls if isinstance(entry, (TcpConnection, Mail, KafkaRecord)) else None
    return tls is None


class LeakSearch:
    """Searches entries one after the other, within what may be decoded for all of them."""

    def __init__(self, known: KnownValues) -> None:
        self._known = known
        self._budget = Budget(MAX_DECODED_BYTES)
        self._pieces = MAX_PIECES

    def places(self, entry: Entry) -> list[tuple[str, Occurrence]]:
        """The values that are in an entry, each with a place: one for each way in which it is written."""
        found: dict[tuple[str, str], Occurrence] = {}
        told: dict[str, set[str]] = {}
        clear = is_clear(entry)
        for piece in self._pieces_of(entry):
            text = piece.value if isinstance(piece.value, str) else piece.value.decode("latin-1")
            place, way = plainly(piece.place)
            for value, how in self._known.found(text, is_host=piece.place in NAMES):
                known = told.setdefault(value, set())
                if piece.is_raw and any(is_within(each, place) for each in known):
                    continue
                known.add(place)
                found.setdefault((value, place), Occurrence(place, how or way, clear))
        for place, passing, was_clear in passed(entry):
            for value, how in passing.found:
                known = told.get(value, set())
                is_told = any(is_within(each, place) or is_message(each) for each in known)
                if not is_told or was_clear != clear:
                    found.setdefault((value, place), Occurrence(place, how, was_clear))
        return [(value, place) for (value, _), place in found.items()]

    def _pieces_of(self, entry: Entry) -> Iterator[Piece]:
        for piece in pieces_of(entry, Room(self._budget)):
            if isinstance(piece, Piece):
                self._pieces -= 1
                if self._pieces < 0:
                    break
                yield piece
        else:
            return
        for place, content in whole(entry):
            yield Piece(place=place, value=content, is_raw=True)


def whole(entry: Entry) -> Iterator[tuple[str, bytes | str]]:
    """What an entry has of its client, as it was sent."""
    if isinstance(entry, Exchange):
        request = entry.request
        yield "url", request.request_target
        for name, value in request.headers.raw:
            yield f"header {name}", f"{name}: {value}"
        yield "body", so_far(request)
        if entry.websocket is not None:
            for number, message in enumerate([*entry.messages]):
                if message.from_client:
                    yield f"message {number}", message.content
    elif isinstance(entry, TcpConnection):
        yield "its bytes", entry.content or entry.first_bytes
    elif isinstance(entry, DatagramFlow):
        for number, datagram in enumerate([*entry.datagrams], 1):
            yield f"datagram {number}", datagram.content
    elif isinstance(entry, Mail):
        yield "mail", entry.content
    elif isinstance(entry, KafkaRecord):
        yield "key", entry.key or b""
        yield "value", entry.value or b""


def passed(entry: Entry) -> Iterator[tuple[str, Passing, bool]]:
    """What was searched as it passed: its place, the search, and whether it was outside of TLS."""
    if isinstance(entry, Exchange):
        passing = getattr(entry.request._body, "passing", None)
        if passing is not None:
            place = "body" if entry.websocket is None else "frames of no message"
            yield place, passing, is_clear(entry)
    elif isinstance(entry, TcpConnection):
        for was_clear, passing in entry._passing:
            yield (
                "its bytes before TLS" if was_clear and entry.tls else "its bytes",
                passing,
                was_clear,
            )


def plainly(place: str) -> tuple[str, str]:
    """A place without how it was decoded, and that as words."""
    if place.endswith(BASE64_DECODED):
        return place.removesuffix(BASE64_DECODED), "in base64"
    if place.endswith(DECODED):
        return place.removesuffix(DECODED), "percent-encoded"
    return place, ""


def is_message(place: str) -> bool:
    """Whether a place is in a message of gRPC, which is in its body, or of a WebSocket, which is in its frames."""
    return place.startswith("message ")


def is_within(place: str, whole: str) -> bool:
    """Whether a place is in another one: `body json: a.b` in `body`, and not `message 10` in `message 1`."""
    return place.startswith(whole) and not place[len(whole) : len(whole) + 1].isalnum()


# The text.


def leaks_text(found: Sequence[Leak]) -> str:
    lines = ["a container sent a secret where it must not:", ""]
    for leak in found[:SHOWN_LEAKS]:
        lines += [f"  {sentence(leak)}", f"      {leak.why}"]
    if len(found) > SHOWN_LEAKS:
        lines.append(f"  and {len(found) - SHOWN_LEAKS} more")
    lines += ["", "These are declared to be secret:", ""]
    for secret in {id(leak.secret): leak.secret for leak in found}.values():
        lines.append(f"  {secret.shown}, by secret(...) at {secret.place or 'a marker'}")
    others = {
        host_port(leak.entry.host, leak.entry.port): None
        for leak in found
        if leak.why not in (IN_URL, IN_NAME, IN_CLEAR)
    }
    if others:
        addresses = ", ".join(repr(redactor_of(found[0].entry).host(each)) for each in others)
        lines += ["", f"Where one is meant to go there, add it to its only=: {addresses}"]
    return "\n".join(lines)


def leaks_headline(found: Sequence[Leak]) -> str:
    return sentence(found[0])


def sentence(leak: Leak) -> str:
    return f"{attempt(leak.entry)} carries {leak.told}"


def attempt(entry: Entry) -> str:
    """A line about an entry without what it carried, nor how much that was."""
    if isinstance(entry, DnsQuery):
        return f"DNS {entry}"
    if isinstance(entry, PacketAttempt):
        return f"{entry.protocol} {entry.where}"
    if isinstance(entry, DatagramFlow):
        return f"UDP {entry.where}"
    return f"TCP {entry.where}" if isinstance(entry, TcpConnection) else f"{entry}"
