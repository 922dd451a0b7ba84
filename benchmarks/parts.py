"""`Part`: rows of the table that are measured together, and how its rounds are run.

A part knows how one figure is measured; this module knows in which order, and what becomes of one that fails.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.figures import OURS, Figure, Row, Samples
from benchmarks.peers import why_missing

Measure = Callable[[str, str], Mapping[str, float]]
"""Measures a subject of somebody once: the values by their units."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows that are measured together.

    Attributes:
        prepare: Makes ready all that measuring takes, for those who are measured, within a `with` block.
        in_table: Whether the whole table has its rows, or only a run of this part alone.
    """

    name: str
    rows: tuple[Row, ...]
    rounds: int
    prepare: Callable[[Collection[str]], AbstractContextManager[Measure]]
    in_table: bool = True


class Subject(NamedTuple):
    """What is measured at once: all units of it."""

    subject: str
    of: str


class Result(NamedTuple):
    """The figures of a part, and whom there are none of and why."""

    samples: Samples
    missing: Mapping[str, str]


def subjects(rows: Sequence[Row]) -> list[Subject]:
    """What has to be measured for these rows, each once, in their order."""
    figures = [figure for row in rows for figure in row.figures]
    return [*dict.fromkeys(Subject(figure.subject, figure.of) for figure in figures)]


def run(part: Part, say: Callable[[str], None] = lambda text: None) -> Result:
    """Measure all rows of a part, in interleaved rounds.

    Whoever cannot be had, or fails once, is left out from then on, and the others are measured. What ours raises, this
    raises too.

    Args:
        say: Called with a line about what goes on.
    """
    wanted = subjects(part.rows)
    missing = {each.of: why for each in wanted if (why := why_missing(each.of))}
    say(f"{part.name}: {part.rounds} rounds")
    samples: dict[Figure, list[float]] = defaultdict(list)
    with part.prepare({each.of for each in wanted} - {*missing}) as measure:
        for _ in range(part.rounds):
            run_round(measure, wanted, samples, missing)
    return Result(samples, missing)


@contextmanager
def noted(part: Part, failed: list[str]) -> Iterator[None]:
    """Tell of an error of a part within the `with` block, and add the part's name to these: others go on."""
    try:
        yield
    except Exception as error:
        progress(f"{part.name} failed: {error!r}")
        failed.append(part.name)


def run_round(
    measure: Measure,
    wanted: Sequence[Subject],
    samples: dict[Figure, list[float]],
    missing: dict[str, str],
) -> None:
    """Measure each subject once, but of those who are missing."""
    for subject, of in wanted:
        if of in missing:
            continue
        try:
            found = measure(subject, of)
        except Exception as error:
            if of == OURS:
                raise
            missing[of] = reason(error)
            continue
        for unit, value in found.items():
            samples[Figure(subject, unit, of)].append(value)


def reason(error: Exception) -> str:
    """The first line of an error, for a cell of the table."""
    return f"it failed: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def progress(text: str) -> None:
    """Tell the person who waits what goes on, apart from the result."""
    print(f"benchmarks: {text}", file=sys.stderr, flush=True)
