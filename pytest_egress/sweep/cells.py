"""`Cell`: a call that fails, and how. Its text is its name, by which it is run again. `cells_of`: those of a test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pytest_egress.sweep.calls import CallKind, kinds_of, matches, url_of
from pytest_egress.sweep.faults import FAULTS, Failing

AGAIN = " once"
"""Ends the name of a cell in which one call fails, and the next works."""


class Seen(NamedTuple):
    """How often a call came on the happy path, and what those with its name were: one kind, as a rule."""

    times: int
    kinds: frozenset[CallKind] = frozenset({"http"})


class CallRow(NamedTuple):
    """A call of the happy path; `number` says which, of several that are alike."""

    call: str
    number: int = 1

    def __str__(self) -> str:
        return self.call if self.number == 1 else f"{self.call} #{self.number}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A call that fails, and how.

    Attributes:
        is_once: Whether this call alone fails, and the next works; else it and all that come later fail.
    """

    row: CallRow
    fault: str
    is_once: bool = False

    def __str__(self) -> str:
        return f"{self.row}: {self.fault}{AGAIN if self.is_once else ''}"

    def has_fail(self, number: int) -> bool:
        """Whether the call with this number, of those alike, fails."""
        return number == self.row.number if self.is_once else number >= self.row.number


def parsed(name: str) -> Cell | None:
    """The cell with a name; None where no cell has such a name."""
    text = name.removesuffix(AGAIN)
    named, _, fault = text.rpartition(": ")
    call, mark, number = named.rpartition(" #")
    is_numbered = mark and number.isascii() and number.isdigit() and len(number) < 10
    row = CallRow(call, int(number)) if is_numbered else CallRow(named)
    cell = Cell(row=row, fault=fault, is_once=text != name)
    is_call = "://" in url_of(row.call) and fault in FAULTS
    is_for_it = is_call and not FAULTS[fault].kinds.isdisjoint(kinds_of(row.call))
    return cell if is_for_it and str(cell) == name else None


def rows_of(calls: Mapping[str, Seen]) -> list[CallRow]:
    """Of several calls that are alike the first and the last."""
    return [CallRow(call, n) for call, seen in calls.items() for n in sorted({1, seen.times})]


def cells_of(calls: Mapping[str, Seen], faults: Iterable[str], only: str) -> Iterator[Cell]:
    """The cells of a test whose happy path has made these calls, fault by fault.

    Args:
        only: A glob for the calls that are to fail.
    """
    rows = [row for row in rows_of(calls) if matches(only, row.call)]
    for fault in faults:
        for row in rows:
            if can_fail(row, calls[row.call], FAULTS[fault]):
                yield Cell(row=row, fault=fault)


def can_fail(row: CallRow, seen: Seen, by: Failing) -> bool:
    """Whether a fault is for a row: what comes before calls fails for all of them at once."""
    return seen.kinds <= by.kinds and (by.outage is None or row.number == 1)
