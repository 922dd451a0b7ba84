"""What the reports of a run say of its sweeps: the matrix of each test, for the terminal's end and for the index.

The workers of pytest-xdist run the cells, and its controller has their reports alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pytest_egress.sweep.cells import CallRow, Cell
from pytest_egress.sweep.matrix import Result, matrix
from pytest_egress.sweep.table import table
from pytest_egress.sweep.verdict import BAD

PROPERTY: Final = "egress_sweep"
"""Of a cell's report: its result, as JSON. It passes through pytest-xdist, and into JUnit's XML."""


NO_PLACE: Final = -1
"""That of a cell which was collected, and so is no cell of a sweep that runs."""


def result_of(report: Any) -> dict[str, Any] | None:
    """The result of a cell, which its last reports have."""
    text = dict(getattr(report, "user_properties", ())).get(PROPERTY)
    return json.loads(text) if text else None


def is_added(report: Any) -> bool:
    """Whether a sweep has run a cell that was not collected, and will not run it again."""
    data = result_of(report)
    is_last = report.when == "teardown" or report.outcome == "rerun"
    return data is not None and data["place"] != NO_PLACE and not is_last


class SweptTests:
    """The tests that were swept, of the reports of a run.

    What fails a cell after its verdict, such as its teardown or a failed subtest, counts too.
    """

    def __init__(self, reports: Iterable[Any] = ()) -> None:
        self._failed: set[str] = set()
        self._cells: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for report in reports:
            self.add(report)

    def add(self, report: Any) -> None:
        if getattr(report, "failed", False):
            self._failed.add(report.nodeid)
        if (data := result_of(report)) is None:
            return
        # The terminal has reports by their outcome: those of teardowns, which it has first, are in order.
        cells = self._cells.setdefault(data["test"], [])
        if report.when != "teardown":
            cells.append((report.nodeid, data))

    def matrices(self) -> Iterator[tuple[str, list[str]]]:
        """The node id of each test, and the lines of its matrix."""
        for test, cells in self._tests():
            yield test, matrix(result for _, result in cells)

    def tables(self) -> Iterator[dict[str, Any]]:
        """The matrix of each test as a JSON value, whose cells have the node ids of their reports."""
        for test, cells in self._tests():
            yield {"test": test, **table(cells)}

    def _tests(self) -> Iterator[tuple[str, list[tuple[str, Result]]]]:
        for test, cells in self._cells.items():
            cells.sort(key=lambda cell: (cell[1]["place"], cell[1]["once"]))
            yield test, [(nodeid, self._result(nodeid, data)) for nodeid, data in cells]

    def _result(self, nodeid: str, data: dict[str, Any]) -> Result:
        letters = data["letters"]
        is_failed = nodeid in self._failed and letters not in BAD
        return Result(
            cell=Cell(
                row=CallRow(data["call"], data["number"]), fault=data["fault"], is_once=data["once"]
            ),
            letters="FAILS" if is_failed else letters,
            exit_code=data["exit_code"],
            met=data["met"],
            seconds=data["seconds"],
            waited=data["waited"],
        )
