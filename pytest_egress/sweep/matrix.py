"""The lines of a matrix: a row for each call, a column for each fault, and below them what the letters mean.

Connections and look-ups of names stand below the requests, since they have other columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from pytest_egress.sweep.calls import is_request
from pytest_egress.sweep.cells import CallRow, Cell
from pytest_egress.sweep.faults import FAULTS
from pytest_egress.sweep.verdict import BAD

WIDTH: Final = 79
COLUMN: Final = 6
MIN_NAME: Final = 24
LONG_SECONDS: Final = 0.5
"""A wait that is shorter is not told."""

Of = TypeVar("Of")

MARKED: Final = "ok N"
"""The letters, in the legend, of a test that passes although a container exits with N."""

SAME: Final = "="
"""The letters below a cell in which nobody tried again."""

MEANING: Final[Mapping[str, str]] = {
    "ok": "passes all the same",
    MARKED: "passes, and a container exited with N",
    "ok?": "passes; a shared container keeps calling, and that may have met the fault",
    "err": "fails, and says so",
    "err?": "fails; only the test can know whether the service that runs on said so",
    "HUNG": "did not end",
    "STRAY": "undeclared traffic",
    "CRASH": "ended by a signal",
    "LIES": "exit code of a success, and the test fails",
    "MUTE": "fails without a word",
    "FAILS": "the test says no",
    "-": "the fault met no call",
    "skip": "the test, or a fixture, has skipped it",
    SAME: "nobody tried again: as above",
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a cell.

    Attributes:
        met: How many calls met the fault, and how many tried again when it was over.
        seconds: How long its run took.
        exit_code: That of a container which failed, and not as on the happy path; 0 for none.
        waited: The longest that a client has waited for an answer that did not come; 0 for none.
    """

    cell: Cell
    letters: str
    met: int
    seconds: float
    exit_code: int = 0
    waited: float = 0.0


def matrix(results: Iterable[Result]) -> list[str]:
    """The lines of one test's matrix, in the order of the results; of a cell that ran again the last counts."""
    found = {each.cell: each for each in results}
    requests = {cell: each for cell, each in found.items() if is_request(cell.row.call)}
    others = {cell: each for cell, each in found.items() if cell not in requests}
    rows = [*block("", requests), *block("connections", others)]
    lines = [line(name, columns) for name, columns in rows]
    shown = legend(each for _, of in rows for each in of)
    lines += ["", *(f"  {each:6}{text}" for each, text in shown)]
    return [*lines, *waits(found.values()), summary([*found.values()])]


def block(title: str, found: Mapping[Cell, Result]) -> Iterator[tuple[str, list[str]]]:
    """The head of the columns, and the rows; nothing where there are none."""
    if found:
        used = faults_of(found)
        yield title, used
        yield from rows_of(found, used)


def faults_of(cells: Iterable[Cell]) -> list[str]:
    """Those of the cells, which are the columns, in the order in which they are."""
    used = {cell.fault for cell in cells}
    return [fault for fault in FAULTS if fault in used]


def rows_of(found: Mapping[Cell, Result], used: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The name and the letters of each row, and of the row below it in which one call failed."""
    for row, pairs in pairs_of(found, used):
        yield f"{row}".replace("https://", "", 1), [letters_of(always) for always, _ in pairs]
        if any(once for _, once in pairs):
            yield "  only once", [letters_once(*pair) for pair in pairs]


def pairs_of(
    found: Mapping[Cell, Of], used: Sequence[str]
) -> Iterator[tuple[CallRow, list[tuple[Of | None, Of | None]]]]:
    """What each row has for each fault: in an outage, and where one call fails."""
    for row in dict.fromkeys(cell.row for cell in found):
        cells = [Cell(row=row, fault=fault) for fault in used]
        yield row, [(found.get(each), found.get(replace(each, is_once=True))) for each in cells]


def letters_of(result: Result | None) -> str:
    if result is None:
        return ""
    return f"ok {result.exit_code}" if is_marked(result) else result.letters


def is_marked(result: Result) -> bool:
    """Whether the test passes although a container fails, which it may not have looked at."""
    return result.letters == "ok" and result.exit_code != 0


def letters_once(always: Result | None, once: Result | None) -> str:
    return SAME if is_same(always, once) else letters_of(once)


def is_same(always: Result | None, once: Result | None) -> bool:
    """Where one call met the outage, nobody tried again: with one that fails alone the run would be the same."""
    return once is None and always is not None and always.met == 1


def legend(shown: Iterable[str]) -> list[tuple[str, str]]:
    """What the letters that are shown mean."""
    found = {MARKED if each.startswith("ok ") else each for each in shown}
    return [(letters, text) for letters, text in MEANING.items() if letters in found]


def line(name: str, letters: Iterable[str]) -> str:
    """A long name has a line of its own."""
    columns = "".join(f"{each[: COLUMN - 1]:>{COLUMN}}" for each in letters)
    room = max(WIDTH - len(columns), MIN_NAME)
    text = f"{name:{room}}{columns}" if len(name) <= room else f"{name}\n{'':{room}}{columns}"
    return text.rstrip()


def waits(results: Iterable[Result]) -> list[str]:
    """The three longest waits that ended."""
    long = [each for each in results if each.waited >= LONG_SECONDS and each.letters != "HUNG"]
    long.sort(key=lambda each: each.waited, reverse=True)
    return [f"  {each.cell}: given up after {each.waited:.1f} s" for each in long[:3]]


def summary(results: Sequence[Result]) -> str:
    bad = sum(each.letters in BAD for each in results)
    runs = "1 run" if len(results) == 1 else f"{len(results)} runs"
    return f"{runs} in {sum(each.seconds for each in results):.1f} s: {bad} bad"
