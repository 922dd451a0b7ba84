from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_egress.evidence.pages import index
from pytest_egress.evidence.pages.index import write_index
from tests.support.ledger_lines import row_of


def index_of(folder: Path, rows: list[dict[str, Any]], **more: Any) -> tuple[str, dict[str, Any]]:
    """The title of the page of these rows, and what it is made of."""
    path = folder / "index.html"
    write_index(path, rows, **more)
    page = path.read_text()
    title = re.search(r"<title>(.*?)</title>", page)
    run = re.search(r'id="run">(.*?)</script>', page, re.DOTALL)
    assert title
    assert run
    return title[1], json.loads(run[1])


def test_the_index_has_tests_and_who_asked_whom(tmp_path: Path) -> None:
    rows = [
        row_of("test_a", "https b.test", "https a.test"),
        row_of("test_b", "https b.test", outcome="failed"),
    ]
    title, run = index_of(tmp_path, rows, new={"https b.test"}, lock="egress.lock")
    assert title == "egress: 1 of 2 tests failed"
    assert [(it["host"], it["new"], [*it["tests"]]) for it in run["hosts"]] == [
        ("https a.test", False, ["0"]),
        ("https b.test", True, ["0", "1"]),
    ]
    assert (run["columns"], run["destinations"], run["new"], run["lock"]) == (
        [0, 1],
        2,
        1,
        "egress.lock",
    )
    assert run["reached"] == []


def test_a_real_server_that_was_reached_is_told_whatever_else_happened(tmp_path: Path) -> None:
    row = row_of("test_a", "tcp db.test:5432", outcome="failed")
    row["hosts"]["tcp db.test:5432"] |= {"worst": "fails", "reached": True}
    _, run = index_of(tmp_path, [row])
    assert run["reached"] == ["tcp db.test:5432"]


def test_of_many_tests_those_that_failed_or_asked_for_what_is_new_are_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "SHOWN_TESTS", 3)
    rows = [row_of(f"test_{n}", "https a.test") for n in range(5)]
    rows[1]["outcome"] = "failed"
    rows[4]["hosts"]["https new.test"] = rows[4]["hosts"]["https a.test"]
    _, run = index_of(tmp_path, rows, new={"https new.test"})
    assert run["columns"] == [1, 4]


def test_of_many_destinations_what_is_new_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "SHOWN_DESTINATIONS", 2)
    hosts = [f"https {name}.test" for name in "abcd"]
    _, run = index_of(tmp_path, [row_of("test_a", *hosts)], new={"https d.test"})
    assert [it["host"] for it in run["hosts"]] == ["https a.test", "https d.test"]
    assert run["destinations"] == 4


def test_what_was_blocked_and_a_name_alone_are_new_too(tmp_path: Path) -> None:
    new = {"blocked ads.test:443", "names gone.test"}
    _, run = index_of(
        tmp_path, [row_of("test_a", "https ads.test:443", "https b.test:443")], new=new
    )
    assert [it["host"] for it in run["hosts"] if it["new"]] == ["https ads.test:443"]
    assert run["new"] == 2


def test_a_run_without_tests_has_a_page(tmp_path: Path) -> None:
    title, run = index_of(tmp_path, [])
    assert (title, run["hosts"]) == ("egress", [])
