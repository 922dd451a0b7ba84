"""Which cells a test has, and what their names are."""

from __future__ import annotations

import pytest

from pytest_egress.sweep.calls import CallKind
from pytest_egress.sweep.cells import CallRow, Cell, Seen, cells_of, parsed
from pytest_egress.sweep.faults import FAULTS

CALL = "GET https://api.test/a"


@pytest.mark.parametrize(
    "cell",
    [
        Cell(row=CallRow(CALL), fault="503"),
        Cell(row=CallRow(CALL, 4), fault="silence", is_once=True),
        Cell(row=CallRow("GET http://api.test:8080/a: b"), fault="cut"),
        Cell(row=CallRow("tcp://db.test:5432", 2), fault="silence"),
        Cell(row=CallRow("tcp://db.test:5432"), fault="refuse"),
        Cell(row=CallRow("dns://db.test"), fault="servfail"),
        Cell(row=CallRow("GET https://[2001:db8::1]/"), fault="html"),
    ],
)
def test_a_name_is_all_that_a_cell_is(cell: Cell) -> None:
    assert parsed(str(cell)) == cell


@pytest.mark.parametrize(
    "name",
    [
        "sweep",
        "",
        CALL,
        f"{CALL}: 500",
        f"{CALL}: 503 twice",
        f"{CALL} #1: 503",
        f"{CALL} #04: 503",
        "a: 503",
        ": 503",
        "1-2",
        "tcp://db.test:5432: 503",
        "tcp://db.test:5432: nxdomain",
        "dns://db.test: reset",
        f"{CALL}: refuse",
    ],
)
def test_no_other_name_is_one(name: str) -> None:
    assert parsed(name) is None


def test_of_calls_that_are_alike_the_first_and_the_last_fail() -> None:
    found = cells_of({CALL: Seen(3), "GET https://b.test/": Seen(1)}, ["503", "cut"], "*")
    assert [*map(str, found)] == [
        f"{CALL}: 503",
        f"{CALL} #3: 503",
        "GET https://b.test/: 503",
        f"{CALL}: cut",
        f"{CALL} #3: cut",
        "GET https://b.test/: cut",
    ]


@pytest.mark.parametrize(
    ("call", "kinds", "faults"),
    [
        (CALL, ["http"], "503 429 reset html empty lost cut silence"),
        (CALL, ["grpc"], "unavailable reset silence"),
        (CALL, ["websocket"], "503 429 1011 reset silence"),
        (CALL, ["http", "websocket"], "503 429 reset silence"),
        ("tcp://db.test:5432", ["tcp"], "reset refuse silence"),
        ("tcp://db.test:5432", ["dial"], "refuse"),
        ("dns://db.test", ["name"], "nxdomain servfail unanswered"),
    ],
)
def test_each_kind_of_call_fails_in_ways_of_its_own(
    call: str, kinds: list[CallKind], faults: str
) -> None:
    found = cells_of({call: Seen(1, frozenset(kinds))}, FAULTS, "*")
    assert [cell.fault for cell in found] == faults.split()


def test_what_comes_before_a_call_fails_for_all_that_are_alike() -> None:
    found = cells_of({"tcp://db.test:5432": Seen(3, frozenset({"tcp"}))}, ["reset", "refuse"], "*")
    assert [(cell.row.number, cell.fault) for cell in found] == [
        (1, "reset"),
        (3, "reset"),
        (1, "refuse"),
    ]


def test_a_glob_chooses_calls() -> None:
    calls = {CALL: Seen(1), "GET https://b.test/": Seen(1)}
    assert [cell.row.call for cell in cells_of(calls, ["503"], "b.test*")] == [
        "GET https://b.test/"
    ]


def test_a_cell_fails_its_call_and_those_that_follow_or_that_call_alone() -> None:
    outage, single = (
        Cell(row=CallRow(CALL, 2), fault="503", is_once=once) for once in (False, True)
    )
    assert [outage.has_fail(number) for number in (1, 2, 3)] == [False, True, True]
    assert [single.has_fail(number) for number in (1, 2, 3)] == [False, True, False]
