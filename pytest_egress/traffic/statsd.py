"""Metrics of StatsD, with the events and service checks of DogStatsD: what a datagram holds. Sans-IO.

For any bytes `metrics_in` yields metrics and `UnreadablePart` lines, and never raises: they come from the container
under test. Lines are apart by a line feed; one with several values is a metric for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_egress.traffic.entries import Datagram
from pytest_egress.traffic.parts import UnreadablePart, within
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import shown

TYPES: Final = ("c", "g", "ms", "h", "d", "s", "m")
"""Counter, gauge, timer, histogram, distribution, set, meter."""

NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
EVENT: Final = re.compile(rb"_e\{(\d{1,5}),(\d{1,5})\}:")
STATUSES: Final = ("0", "1", "2", "3")  # of a service check: OK, WARNING, CRITICAL, UNKNOWN


@dataclass(kw_only=True, eq=False)
class Metric(Datagram):
    """What a route of `statsd()` has taken: a metric, or an event or service check of DogStatsD. It is a call.

    Its `content` is its line alone.

    Attributes:
        name: Its name; the title of an event.
        value: Its number; the text of a set's member, and of an event; the status of a service check, 0 to 3.
        type: As it was sent: "c" (counter), "g" (gauge), "ms" (timer), "h" (histogram), "d" (distribution), "s" (set)
            or "m" (meter); "event"; or "check".
        rate: The sample rate.
        tags: The tags, in order, such as `("country:de", "paid")`.
        is_delta: Whether it is a gauge that was sent with a sign, which changes the gauge by the value.
        fields: What else was sent, by its letter, such as `{"h": "web1", "t": "error"}` of an event.
    """

    name: str
    value: float | str
    type: str
    rate: float = 1.0
    tags: tuple[str, ...] = ()
    is_delta: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        line = shown(redactor_of(self).content(self.content))
        return f"metric {line} at {self.where}"


class MetricError(Exception):
    """A line that is no metric; the text says why."""


def metrics_in(datagram: Datagram) -> Iterator[Metric | UnreadablePart]:
    """The metrics of a datagram, in order. Empty lines are none; without any line, it is unreadable itself."""
    lines = [line for line in datagram.content.split(b"\n") if line.rstrip(b"\r")]
    if not lines:
        yield UnreadablePart(datagram.content, "it is empty")
    for line in lines:
        try:
            for fields in parsed(line):
                yield within(datagram, Metric, content=line, **fields)
        except MetricError as error:
            yield UnreadablePart(line, str(error))


def parsed(line: bytes) -> list[dict[str, Any]]:
    """The fields of the metrics of a line; MetricError where there are none."""
    if line.startswith(b"_e{"):
        return [event(line)]
    first, *parts = line.decode(errors="replace").rstrip("\r").split("|")
    if first == "_sc":
        return [check(parts)]
    name, colon, values = first.partition(":")
    if not name or not colon or not parts:
        raise MetricError("a metric is name:value|type")
    kind = parts[0]
    if kind not in TYPES:
        raise MetricError(f"the type {shown(kind)} is none of {', '.join(TYPES)}")
    more = sections(parts[1:])
    common = {"name": name, "type": kind, "rate": rate_of(more), "tags": tags_of(more)}
    return [
        {**common, "fields": more, **value_of(kind, value)}
        for value in ([values] if kind == "s" else values.split(":"))
    ]


def value_of(kind: str, text: str) -> dict[str, Any]:
    if kind == "s":
        return {"value": text}
    if not NUMBER.fullmatch(text):
        raise MetricError(f"the value {shown(text)} is no number")
    return {"value": float(text), "is_delta": kind == "g" and text[0] in "+-"}


def sections(parts: list[str]) -> dict[str, str]:
    """The sections after the type, each by its letter: `@0.1`, `#tag,tag`, `c:container`, `T1656581400`."""
    found: dict[str, str] = {}
    for part in parts:
        if not part:
            raise MetricError("a section is empty")
        letter, rest = part[0], part[1:]
        found[letter] = rest.removeprefix(":")
    return found


def rate_of(sections: dict[str, str]) -> float:
    text = sections.pop("@", "1")
    if not NUMBER.fullmatch(text) or not 0 < float(text) <= 1:
        raise MetricError(f"the sample rate {shown(text)} is no number over 0, and at most 1")
    return float(text)


def tags_of(sections: dict[str, str]) -> tuple[str, ...]:
    text = sections.pop("#", "")
    return tuple(text.split(",")) if text else ()


def event(line: bytes) -> dict[str, Any]:
    """`_e{5,4}:title|text|t:error|#tag`: the lengths are in bytes."""
    if (match := EVENT.match(line)) is None:
        raise MetricError("an event begins with _e{length of its title,length of its text}:")
    middle = match.end() + int(match[1])
    end = middle + 1 + int(match[2])
    if (
        line[middle : middle + 1] != b"|"
        or end > len(line)
        or line[end : end + 1] not in (b"", b"|")
    ):
        raise MetricError("the lengths of title and text are others")
    title, text = line[match.end() : middle].decode(errors="replace"), line[middle + 1 : end]
    rest = line[end + 1 :].decode(errors="replace").rstrip("\r")
    more = sections(rest.split("|") if rest else [])
    return {
        "name": title,
        "value": text.decode(errors="replace").replace("\\n", "\n"),
        "type": "event",
        "tags": tags_of(more),
        "fields": more,
    }


def check(parts: list[str]) -> dict[str, Any]:
    """`_sc|name|status|h:host|#tag|m:message`: a message comes last, and may have any character but a line feed."""
    if len(parts) < 2 or not parts[0] or parts[1] not in STATUSES:
        raise MetricError("a service check is _sc|name|status, whose status is 0 to 3")
    last = next((n for n, part in enumerate(parts) if n > 1 and part.startswith("m:")), len(parts))
    message = "|".join(parts[last:])
    more = sections(parts[2:last] + ([message] if message else []))
    return {
        "name": parts[0],
        "value": float(parts[1]),
        "type": "check",
        "tags": tags_of(more),
        "fields": more,
    }
