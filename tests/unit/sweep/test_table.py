"""A matrix as a JSON value."""

from __future__ import annotations

import json
from typing import Any

from pytest_egress.sweep.cells import CallRow, Cell
from pytest_egress.sweep.matrix import Result
from pytest_egress.sweep.table import table

STOCK, PAY = CallRow("GET https://stock.test/"), CallRow("POST https://pay.test/", 2)


def cell(
    row: CallRow, fault: str, letters: str, *, once: bool = False, **said: Any
) -> tuple[str, Result]:
    it = Cell(row=row, fault=fault, is_once=once)
    values = {"cell": it, "letters": letters, "met": 1, "seconds": 1.0, **said}
    return f"test_a[{it}]", Result(**values)


def test_a_table_has_what_the_lines_of_a_matrix_have() -> None:
    made = table(
        [
            cell(STOCK, "503", "LIES"),
            cell(STOCK, "503", "ok", exit_code=3),
            cell(STOCK, "silence", "HUNG", waited=12.0),
            cell(PAY, "503", "err", met=2),
            cell(PAY, "503", "skip", once=True),
            cell(PAY, "silence", "err?", waited=2.04),
        ]
    )
    assert json.loads(json.dumps(made)) == made
    assert made["faults"] == ["503", "silence"]
    assert [(row["call"], row["once"]) for row in made["rows"]] == [
        ("GET https://stock.test/", False),
        ("POST https://pay.test/ #2", False),
        ("POST https://pay.test/ #2", True),
    ]
    assert [[(it["letters"], it["kind"]) for it in row["cells"]] for row in made["rows"]] == [
        [("ok 3", "passes"), ("HUNG", "fails")],
        [("err", "says"), ("err?", "says")],
        [("skip", "none"), ("=", "none")],
    ]
    assert made["rows"][0]["cells"][1] | {"letters": "", "kind": ""} == {
        "letters": "",
        "kind": "",
        "id": "test_a[GET https://stock.test/: silence]",
        "cell": "GET https://stock.test/: silence",
    }
    assert [letters for letters, _, _ in made["legend"]] == [
        *("ok N", "err", "err?", "HUNG", "skip", "=")
    ]
    assert made["summary"] == "5 runs in 5.0 s: 1 bad"
    assert made["waits"] == ["POST https://pay.test/ #2: silence: given up after 2.0 s"]


def test_a_fault_that_no_call_may_have_is_an_empty_cell() -> None:
    made = table([cell(STOCK, "503", "ok"), cell(PAY, "reset", "ok")])
    assert [[it and it["letters"] for it in row["cells"]] for row in made["rows"]] == [
        ["ok", None],
        [None, "ok"],
    ]
