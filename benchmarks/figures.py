"""What was measured, as values, and as the rows of a table: each with its ratio, and the range of that.

Rounds are interleaved, so that what slows the machine slows everything alike. A ratio is taken within each round; the
table has the median of these, and the least and the greatest. This module measures nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

OURS: Final = "pytest-egress"
HEAD: Final = (
    "| what | unit | ours | against | theirs | ours / theirs | range |\n"
    "|---|---|---:|---|---:|---:|---:|"
)


class Figure(NamedTuple):
    """What is measured, in which unit, and of whom."""

    subject: str
    unit: str
    of: str


Samples = Mapping[Figure, Sequence[float]]
"""What each round gave, in the order of the rounds."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table.

    Attributes:
        against: Whose figure ours is divided by; None where there is nothing to compare with.
        ours: Where two of our own are compared, the name of the one that is measured.
    """

    subject: str
    unit: str
    against: str | None = None
    ours: str = OURS

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures that the row needs, ours first."""
        names = [self.ours] if self.against is None else [self.ours, self.against]
        return tuple(Figure(self.subject, self.unit, of) for of in names)


def rows_of(subject: str, unit: str, *against: str) -> tuple[Row, ...]:
    """A row for each of those that one figure is compared with."""
    return tuple(Row(subject=subject, unit=unit, against=each) for each in against)


def table(rows: Sequence[Row], samples: Samples, missing: Mapping[str, str]) -> str:
    """The rows as a table in Markdown.

    Args:
        missing: Whom there are no figures of, and why.
    """
    return "\n".join([HEAD, *(line(row, samples, missing) for row in rows)])


def line(row: Row, samples: Samples, missing: Mapping[str, str]) -> str:
    """One row in Markdown; where a figure is missing, with the reason in the place of it."""
    cells = [row.subject, row.unit, *values(row, samples, missing)]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def values(row: Row, samples: Samples, missing: Mapping[str, str]) -> list[str]:
    """The cells from our figure on."""
    own, *other = row.figures
    ours = samples.get(own, ())
    name = "" if row.ours == OURS else f"{row.ours}: "
    first = name + (number(statistics.median(ours)) if ours else unavailable(own.of, missing))
    if not other:
        return [first, "", "", "", spread(ours)]
    theirs = samples.get(other[0], ())
    if not theirs:
        return [first, other[0].of, unavailable(other[0].of, missing), "", ""]
    against = [other[0].of, number(statistics.median(theirs))]
    if not ours:
        return [first, *against, "", ""]
    quotients = ratios(ours, theirs)
    return [first, *against, number(statistics.median(quotients)), spread(quotients)]


def unavailable(name: str, missing: Mapping[str, str]) -> str:
    """The cell of a figure that is not there."""
    return f"not available: {missing.get(name, 'it was not measured')}"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """The ratio of each round; the last rounds are left out where only one has them."""
    return [a / b for a, b in zip(ours, theirs, strict=False) if b]


def spread(numbers: Sequence[float]) -> str:
    """The least and the greatest, in words; nothing where there is one, or where they look alike."""
    if not numbers:
        return ""
    least, most = number(min(numbers)), number(max(numbers))
    return "" if least == most else f"{least} to {most}"


def number(value: float) -> str:
    """A number with about three digits, as one reads it: 12,345 and 123, 12.3, 1.23, 0.12."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"
