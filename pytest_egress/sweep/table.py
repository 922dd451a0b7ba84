"""`table`: a matrix as a JSON value, for a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from pytest_egress.sweep.cells import Cell
from pytest_egress.sweep.faults import FAULTS
from pytest_egress.sweep.matrix import MARKED, MEANING, Result, letters_of, summary, waits
from pytest_egress.sweep.verdict import BAD

SAME: Final = "="
"""The letters below a cell in which nobody tried again."""

CellRuns = Mapping[Cell, tuple[str, Result]]


def table(cells: Iterable[tuple[str, Result]]) -> dict[str, Any]:
    """The matrix of one test; of a cell that ran again the last counts.

    Args:
        cells: The node id of each cell's report, and its result.
    """
    found = {result.cell: (nodeid, result) for nodeid, result in cells}
    used = [fault for fault in FAULTS if any(fault == cell.fault for cell in found)]
    rows = [*rows_of(found, used)]
    shown = {each["letters"] for row in rows for each in row["cells"] if each is not None}
    shown |= {MARKED for letters in shown if letters.startswith("ok ")}
    results = [result for _, result in found.values()]
    return {
        "faults": used,
        "rows": rows,
        "legend": [
            [letters, kind_of(letters), text]
            for letters, text in MEANING.items()
            if letters in shown
        ],
        "waits": [line.strip() for line in waits(results)],
        "summary": summary(results),
    }


def rows_of(found: CellRuns, used: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each call, and one below it where one call alone has failed."""
    for row in dict.fromkeys(cell.row for cell in found):
        always = [found.get(Cell(row=row, fault=fault)) for fault in used]
        once = [found.get(Cell(row=row, fault=fault, is_once=True)) for fault in used]
        yield {"call": str(row), "once": False, "cells": [*map(value_of, always)]}
        if any(once):
            cells = [value_once(above, below) for above, below in zip(always, once, strict=True)]
            yield {"call": str(row), "once": True, "cells": cells}


def value_of(cell: tuple[str, Result] | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    nodeid, result = cell
    letters = letters_of(result)
    return {"letters": letters, "kind": kind_of(letters), "id": nodeid, "cell": str(result.cell)}


def value_once(
    always: tuple[str, Result] | None, once: tuple[str, Result] | None
) -> dict[str, Any] | None:
    if once is None and always is not None and always[1].met == 1:
        return {"letters": SAME, "kind": kind_of(SAME), "id": "", "cell": ""}
    return value_of(once)


def kind_of(letters: str) -> str:
    """What the colour of a cell says: whether it fails, passes, says so, or says nothing."""
    if letters in BAD:
        return "fails"
    if letters.partition(" ")[0] == "ok":
        return "passes"
    return "says" if letters.startswith("err") else "none"
