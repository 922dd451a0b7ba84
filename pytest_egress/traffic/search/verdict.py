"""The search through entries, and the text of the error where something was sent, or cannot be searched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from pytest_egress.errors import CallError
from pytest_egress.traffic.entries import DnsQuery, Entry
from pytest_egress.traffic.redaction.redactor import Redactor, redactor_of
from pytest_egress.traffic.search.attempts import pieces_of
from pytest_egress.traffic.search.contents import DECODED
from pytest_egress.traffic.search.needles import Find, Needle
from pytest_egress.traffic.search.pieces import Piece, Unread
from pytest_egress.traffic.shown import SHOWN_TARGET, cut

SHOWN_ENTRIES: Final = 20
SHOWN_PLACES: Final = 5  # of an entry
MAX_PLACES: Final = 100  # looked for in an entry: each is compared with those before it
SHOWN_AROUND: Final = 20  # characters on each side of a find

NARROW: Final = (
    "Where nothing of this kind can be in what was not searched, ask the routes that matter: "
    "route.assert_not_sent(...)"
)


NOT_ALL_KEPT: Final = (
    "nothing of this was found, and not all that was attempted was kept, since there was too much"
)


class Found(NamedTuple):
    """What was found in an entry: lines with the places, and the headline of the first."""

    entry: Entry
    lines: list[str]
    headline: str


def search(
    entries: Iterable[Entry], needles: Sequence[Needle], advice: str = NARROW
) -> CallError | None:
    """The error where a needle is in what was sent, or a part of that cannot be searched; else None.

    Args:
        advice: How to go on where something cannot be searched; "" for none.
    """
    sent: list[Found] = []
    unread: list[Found] = []
    for entry in entries:
        found, missed = searched(entry, needles)
        if found:
            sent.append(Found(entry, found, f"{named(entry)}: it sent {found[0]}"))
        if missed:
            unread.append(
                Found(entry, missed, f"{named(entry)}: it cannot be searched, {missed[0]}")
            )
    if not sent and not unread:
        return None
    lines: list[str] = []
    if sent:
        lines += ["this must not be sent, and was:", *told(sent)]
    if unread:
        again = "and this" if sent else "this"
        lines += [
            f"{again} could not be searched, so that it may have been sent there:",
            *told(unread),
            advice,
        ]
    error = CallError("\n".join(lines).rstrip())
    error.headline = (sent or unread)[0].headline
    return error


def named(entry: Entry) -> str:
    return f"DNS {entry}" if isinstance(entry, DnsQuery) else str(entry)


def told(found: Sequence[Found]) -> list[str]:
    lines = [""]
    several = len({each.entry.container for each in found}) > 1
    for entry, places, _ in found[:SHOWN_ENTRIES]:
        of = f"  of {entry.container}" if several else ""
        lines += [
            f"  {named(entry)}{of}",
            *(f"      {each}" for each in places[:SHOWN_PLACES]),
        ]
        if len(places) > SHOWN_PLACES:
            count = "" if len(places) > MAX_PLACES else f"{len(places) - SHOWN_PLACES} "
            lines.append(f"      and {count}more")
        lines.append("")
    if len(found) > SHOWN_ENTRIES:
        lines += [f"  and {len(found) - SHOWN_ENTRIES} more", ""]
    return lines


def searched(entry: Entry, needles: Sequence[Needle]) -> tuple[list[str], list[str]]:
    """A line for each place of each find, and for each part that cannot be searched.

    Where there are more than `MAX_PLACES`, there is one more of them.
    """
    found: dict[str, None] = {}
    missed: dict[str, None] = {}
    places: dict[int, set[str]] = {}
    redactor = redactor_of(entry)
    for piece in pieces_of(entry):
        if isinstance(piece, Unread):
            if len(missed) <= MAX_PLACES:
                missed[redactor.known(f"{piece.place} {piece.why}")] = None
            continue
        for number, needle in enumerate(needles):
            if len(found) > MAX_PLACES:
                break
            known = places.setdefault(number, set())
            whole = piece.place.removesuffix(DECODED)
            if piece.is_raw and any(is_within(place, whole) for place in known):
                continue
            if (find := needle.find(piece)) is not None:
                known.add(piece.place)
                told = redactor.shown(needle.value)
                place = redactor.known(piece.place)
                found[f"{told} in {place}{context(piece, needle, find, redactor)}"] = None
    return [*found], [*missed]


def is_within(place: str, whole: str) -> bool:
    """Whether a place is in another one: `body json: a.b` in `body`, and not `message 10` in `message 1`."""
    return place.startswith(whole) and not place[len(whole) : len(whole) + 1].isalnum()


def context(piece: Piece, needle: Needle, find: Find, redactor: Redactor) -> str:
    """The text around a find, without secrets; "" where the whole is one, or nothing is around what the test wrote."""
    before, match, after, is_cut = find
    if redactor.is_secret(piece.name) or not (before or after or needle.is_pattern):
        return ""
    if is_cut:  # the name of a secret may be further on
        return ""
    masked = redactor.text(f"{before}{match}{after}")
    at = masked.find(match)
    if at < 0:  # it is within a secret
        return ""
    left, right = max(at - SHOWN_AROUND, 0), at + len(match) + SHOWN_AROUND
    return f": {cut(repr(masked[left:right]), SHOWN_TARGET)}"
