"""`table`: a matrix as a JSON value, for a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_egress.sweep.cells import Cell
from pytest_egress.sweep.matrix import (
    SAME,
    Result,
    faults_of,
    is_same,
    legend,
    letters_of,
    pairs_of,
    summary,
    waits,
)
from pytest_egress.sweep.verdict import BAD

CellRun = tuple[str, Result]


def table(cells: Iterable[CellRun]) -> dict[str, Any]:
    """The matrix of one test; of a cell that ran again the last counts.

    Args:
        cells: The node id of each cell's report, and its result.
    """
    found = {result.cell: (nodeid, result) for nodeid, result in cells}
    used = faults_of(found)
    rows = [*rows_of(found, used)]
    shown = {each["letters"] for row in rows for each in row["cells"] if each is not None}
    results = [result for _, result in found.values()]
    return {
        "faults": used,
        "rows": rows,
        "legend": [[letters, kind_of(letters), text] for letters, text in legend(shown)],
        "waits": [line.strip() for line in waits(results)],
        "summary": summary(results),
    }


def rows_of(found: Mapping[Cell, CellRun], used: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each call, and one below it where one call alone has failed."""
    for row, pairs in pairs_of(found, used):
        yield {"call": str(row), "once": False, "cells": [value_of(always) for always, _ in pairs]}
        if any(once for _, once in pairs):
            yield {"call": str(row), "once": True, "cells": [value_once(*pair) for pair in pairs]}


def value_of(cell: CellRun | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    nodeid, result = cell
    letters = letters_of(result)
    return {"letters": letters, "kind": kind_of(letters), "id": nodeid, "cell": str(result.cell)}


def value_once(always: CellRun | None, once: CellRun | None) -> dict[str, Any] | None:
    if is_same(always and always[1], once and once[1]):
        return {"letters": SAME, "kind": kind_of(SAME), "id": "", "cell": ""}
    return value_of(once)


def kind_of(letters: str) -> str:
    """What the colour of a cell says: whether it fails, passes, says so, or says nothing."""
    if letters in BAD:
        return "fails"
    if letters.partition(" ")[0] == "ok":
        return "passes"
    return "says" if letters.startswith("err") else "none"
