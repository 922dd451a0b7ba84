"""The page of a test, made of the lines of its `ledger.jsonl`, which are read twice and never held."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pytest_egress.evidence.pages.filling import embedded, write_page

SHOWN_ENDS: Final = 10_000  # entries at either end: 20,000 open in a second, and scroll
SHOWN_FAILING: Final = 10_000  # entries between the ends that fail: a client may ask in a loop
SHOWN_LOGS: Final = 5_000  # lines of logs at either end
SHOWN_REACHED: Final = 100  # destinations

STYLES: Final = ("colours.css", "timeline.css")
SCRIPTS: Final = (
    "elements.js",
    "entries.js",
    "filters.js",
    "waterfall.js",
    "rows.js",
    "copying.js",
    "details.js",
    "head.js",
    "timeline.js",
)


@dataclass(kw_only=True)
class Overview:
    """What the first reading of the lines finds.

    Attributes:
        attempts: The number of lines.
        failing: The numbers of the lines, from 0, of entries that fail the test.
        reached: The destinations whose real server was reached, in order.
    """

    attempts: int = 0
    failing: list[int] = field(default_factory=list)
    reached: dict[str, None] = field(default_factory=dict)

    def shows(self, number: int) -> bool:
        """Whether the line of this number stands at one of the ends."""
        return number < SHOWN_ENDS or number >= self.attempts - SHOWN_ENDS


def write_timeline(path: Path, head: Mapping[str, Any], lines: Path) -> None:
    """Write the page of a test.

    Args:
        path: The file to write.
        head: What is known of the test, its containers, routes, connections and logs, as JSON values.
        lines: The file of entries, a line of JSON for each.
    """
    found = look_through(lines)
    between = [number for number in found.failing if not found.shows(number)]
    more = {*between[:SHOWN_FAILING]}
    logs, logs_left_out = both_ends(head.get("logs") or [], SHOWN_LOGS)
    run = {
        **head,
        "logs": logs,
        "logs_left_out": logs_left_out + head.get("logs_left_out", 0),
        "attempts": found.attempts,
        "failing": len(found.failing),
        "reached": [*found.reached],
        "left_out": max(found.attempts - 2 * SHOWN_ENDS, 0) - len(more),
    }
    test = head.get("test") or {}
    write_page(
        path,
        "timeline.html",
        title=f"{test.get('outcome', '')}: {test.get('id', '')}",
        styles=STYLES,
        scripts=SCRIPTS,
        run=run,
        lines=shown_lines(lines, found, more),
    )


def look_through(lines: Path) -> Overview:
    """Read the lines once. JSON is read of those alone that may fail their test or have reached a real server."""
    found = Overview()
    with lines.open("rb") as file:
        for number, line in enumerate(file):
            found.attempts += 1
            if not any(word in line for word in TELLING):
                continue
            entry = json.loads(line)
            if entry.get("fails"):
                found.failing.append(number)
            if reached_upstream(entry) and len(found.reached) < SHOWN_REACHED:
                found.reached.setdefault(entry.get("host") or "*")
    return found


TELLING: Final = (
    b'"fails":true',
    b'"fails": true',
    b'"passthrough"',
    b'"reached":true',
    b'"reached": true',
)
"""What stands in the line of each entry that `look_through` has to read: in a text, its quotes are escaped."""


def reached_upstream(entry: Mapping[str, Any]) -> bool:
    """Whether the real server was reached: the attempt was passed through, or forwarded."""
    return entry.get("outcome") == "passthrough" or bool(entry.get("reached"))


def shown_lines(lines: Path, found: Overview, more: set[int]) -> Iterator[bytes]:
    """Yield the lines that the page has, as they can stand in it."""
    with lines.open("rb") as file:
        for number, line in enumerate(file):
            if found.shows(number) or number in more:
                yield embedded(line)


def both_ends(items: list[Any], limit: int) -> tuple[list[Any], int]:
    """The first and last of a list, as many of each, and how many that leaves out."""
    left_out = max(len(items) - 2 * limit, 0)
    return ([*items[:limit], *items[-limit:]] if left_out else items), left_out
