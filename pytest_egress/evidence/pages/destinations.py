"""What a test did to each destination, for the table of destinations and tests in the index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pytest_egress.evidence.pages.timeline import reached_upstream
from pytest_egress.traffic.shown import host_port

RANKS: Final = ("recorded", "blocked", "routed", "fault", "passthrough", "fails")
"""What happens to an attempt, the worst last: the colour of a cell."""

MOST: Final = 500  # destinations of a test: a client may ask for random names


class Destinations:
    """The destinations of a test, of its entries as dicts.

    A name that was only looked up is one where the lookup fails the test. A container of the same network is none.
    """

    def __init__(self) -> None:
        self._cells: dict[str, dict[str, Any]] = {}
        self._failed_lookups: dict[str, Mapping[str, Any]] = {}
        self._asked: set[str] = set()
        self.left_out = 0

    def add(self, entry: Mapping[str, Any]) -> None:
        """Count an entry, as its line of `ledger.jsonl` has it."""
        if entry.get("between"):
            return
        if entry["kind"] != "dns":
            self._asked.add(entry["host"])
            self._count(entry)
        elif entry["fails"] and len(self._failed_lookups) < MOST:
            self._failed_lookups.setdefault(entry["host"], entry)

    def cells(self) -> dict[str, dict[str, Any]]:
        """A cell for each destination: how often, the worst that happened, and the number of that entry."""
        for host, entry in self._failed_lookups.items():
            if host not in self._asked:
                self._count(entry)
        self._failed_lookups.clear()
        return self._cells

    def _count(self, entry: Mapping[str, Any]) -> None:
        name = destination_of(entry)
        if name not in self._cells and len(self._cells) == MOST:
            self.left_out += 1
            return
        cell = self._cells.setdefault(
            name, {"count": 0, "worst": "recorded", "entry": entry["n"], "reached": False}
        )
        cell["count"] += 1
        cell["reached"] |= reached_upstream(entry)
        now = happened(entry)
        if RANKS.index(now) > RANKS.index(cell["worst"]):
            cell |= {"worst": now, "entry": entry["n"]}


def destination_of(entry: Mapping[str, Any]) -> str:
    """A destination as the index names it: `https api.stripe.com:443`, `tcp db.internal:5432`."""
    return f"{entry.get('scheme') or entry['kind']} {host_port(entry['host'], entry['port'])}"


def happened(entry: Mapping[str, Any]) -> str:
    """Which of `RANKS` an entry is."""
    if entry["fails"]:
        return "fails"
    if reached_upstream(entry):
        return "passthrough"
    if entry["fault"]:
        return "fault"
    return entry["outcome"] if entry["outcome"] in RANKS else "recorded"
