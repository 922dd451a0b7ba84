"""The matrices of a run, of the reports of its cells."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from pytest_egress.plugin.swept import PROPERTY, SweptTests

TEST = "test_x.py::test_a"


def report(
    fault: str, letters: str, *, when: str = "call", failed: bool = False, **said: Any
) -> Any:
    data = {
        "test": TEST,
        "place": 0,
        "call": "GET https://pay.test/",
        "number": 1,
        "fault": fault,
        "once": False,
        "letters": letters,
        "exit_code": 0,
        "met": 1,
        "seconds": 1.0,
        "waited": 0.0,
    } | said
    nodeid = f"{TEST}[GET https://pay.test/: {fault}{' once' if data['once'] else ''}]"
    told = [("other", 1), (PROPERTY, json.dumps(data))]
    return SimpleNamespace(nodeid=nodeid, when=when, failed=failed, user_properties=told)


def letters_of(tests: SweptTests) -> list[list[str]]:
    """The letters of the rows of the only table."""
    (table,) = tests.tables()
    return [[cell["letters"] if cell else "" for cell in row["cells"]] for row in table["rows"]]


def test_reports_of_cells_become_a_matrix_for_the_terminal_and_one_for_a_page() -> None:
    tests = SweptTests([SimpleNamespace(), report("503", "ok", place=1), report("reset", "LIES")])
    ((test, lines),) = tests.matrices()
    assert test == TEST
    assert lines[1].split() == ["GET", "pay.test/", "ok", "LIES"]
    (table,) = tests.tables()
    assert (table["test"], table["summary"]) == (TEST, "2 runs in 2.0 s: 1 bad")
    ok, lies = table["rows"][0]["cells"]
    assert (ok["id"], lies["kind"]) == (f"{TEST}[GET https://pay.test/: 503]", "fails")


def test_what_fails_a_cell_after_its_verdict_is_in_the_matrix() -> None:
    late = report("503", "ok", when="teardown", failed=True)
    assert letters_of(SweptTests([report("503", "ok"), late])) == [["FAILS"]]
    assert letters_of(SweptTests([report("503", "HUNG", failed=True)])) == [["HUNG"]]


def test_reports_that_came_in_another_order_have_that_of_the_matrix() -> None:
    second = report("503", "err", place=1, call="GET https://log.test/")
    once = report("503", "ok", once=True)
    tests = SweptTests([second, once, report("503", "err", met=2)])
    (table,) = tests.tables()
    assert [(row["call"], row["once"]) for row in table["rows"]] == [
        ("GET https://pay.test/", False),
        ("GET https://pay.test/", True),
        ("GET https://log.test/", False),
    ]
