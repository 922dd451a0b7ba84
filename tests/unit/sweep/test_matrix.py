"""The lines of a matrix."""

from __future__ import annotations

from typing import Any

from pytest_egress.sweep.cells import CallRow, Cell
from pytest_egress.sweep.matrix import Result, matrix

STOCK, CHARGE = (
    CallRow("GET https://stock.test/items/*"),
    CallRow("POST https://api.stripe.test/v1/charges"),
)


def result(row: CallRow, fault: str, letters: str, *, once: bool = False, **said: Any) -> Result:
    cell = Cell(row=row, fault=fault, is_once=once)
    return Result(**{"cell": cell, "letters": letters, "met": 1, "seconds": 1.0, **said})


def test_a_row_for_each_call_and_one_where_somebody_tried_again() -> None:
    found = [
        result(STOCK, "503", "err"),
        result(STOCK, "silence", "HUNG", waited=12),
        result(CHARGE, "503", "LIES"),
        result(CHARGE, "reset", "err", met=2),
        result(CHARGE, "reset", "ok", once=True),
        result(CHARGE, "silence", "err", met=3, waited=2.04),
    ]
    assert (
        "".join(f"{line}\n" for line in matrix(found))
        == """\
                                                                503 reset silen
GET stock.test/items/*                                          err        HUNG
POST api.stripe.test/v1/charges                                LIES   err   err
  only once                                                       =    ok

  ok    passes all the same
  err   fails, and says so
  HUNG  did not end
  LIES  exit code of a success, and the test fails
  =     nobody tried again: as above
  POST https://api.stripe.test/v1/charges: silence: given up after 2.0 s
6 runs in 6.0 s: 2 bad
"""
    )


def test_connections_and_names_have_columns_of_their_own() -> None:
    found = [
        result(STOCK, "503", "err"),
        result(CallRow("tcp://stock.test:443"), "refuse", "err"),
        result(CallRow("dns://stock.test"), "nxdomain", "LIES"),
    ]
    assert [line.split() for line in matrix(found)[:5]] == [
        ["503"],
        ["GET", "stock.test/items/*", "err"],
        ["connections", "refus", "nxdom"],
        ["tcp://stock.test:443", "err"],
        ["dns://stock.test", "LIES"],
    ]


def test_a_long_name_has_a_line_of_its_own() -> None:
    lines = matrix([result(CallRow("GET https://api.test/" + "a" * 80), "503", "ok")])
    assert lines[1].splitlines() == ["GET api.test/" + "a" * 80, f"{'ok':>79}"]
    assert lines[-1] == "1 run in 1.0 s: 0 bad"


def test_the_last_run_of_a_cell_counts() -> None:
    found = [result(STOCK, "503", "FAILS"), result(STOCK, "503", "ok")]
    assert matrix(found)[-1] == "1 run in 1.0 s: 0 bad"


def test_an_exit_code_that_the_test_did_not_look_at_stands_beside_its_ok() -> None:
    found = [
        result(STOCK, "503", "ok", exit_code=3),
        result(STOCK, "reset", "err", exit_code=3),
        result(STOCK, "empty", "skip"),
    ]
    lines = matrix(found)
    assert lines[1].split()[2:] == ["ok", "3", "err", "skip"]
    assert "  ok N  passes, and a container exited with N" in lines
    assert "  ok    passes all the same" not in lines
