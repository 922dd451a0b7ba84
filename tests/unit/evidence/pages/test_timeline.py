from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_egress.evidence.pages import timeline
from tests.support.ledger_lines import head_of, line_of, write_page_of


def page_of(
    folder: Path, lines: list[dict[str, Any]], **head: Any
) -> tuple[list[int], dict[str, Any]]:
    """The numbers of the entries that the page of these lines has, and what it knows beside them."""
    page = write_page_of(folder, lines, **head).read_text()
    shown = re.search(r'id="ledger">\n(.*?)</script>', page, re.DOTALL)
    run = re.search(r'id="run">(.*?)</script>', page, re.DOTALL)
    assert shown
    assert run
    return [json.loads(line)["n"] for line in shown[1].splitlines()], json.loads(run[1])


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages have three entries at either end, two failing ones between them, and two lines of logs at either end."""
    for name, limit in (("SHOWN_ENDS", 3), ("SHOWN_FAILING", 2), ("SHOWN_LOGS", 2)):
        monkeypatch.setattr(timeline, name, limit)


def attempts(count: int, **failing: Any) -> list[dict[str, Any]]:
    return [line_of(n, "http", "api.test", float(n), **failing) for n in range(1, count + 1)]


def test_a_page_has_every_entry_of_a_test(tmp_path: Path) -> None:
    shown, run = page_of(tmp_path, attempts(8))
    assert shown == [*range(1, 9)]
    assert {
        "attempts": 8,
        "failing": 0,
        "left_out": 0,
        "reached": [],
        "logs_left_out": 0,
    }.items() <= run.items()
    assert run["test"] == head_of()["test"]


@pytest.mark.usefixtures("short")
def test_a_page_of_many_has_both_ends_and_what_fails_between_them(tmp_path: Path) -> None:
    lines = attempts(20)
    for n in (2, 9, 11, 13):
        lines[n - 1]["fails"] = True
    shown, run = page_of(tmp_path, lines)
    assert shown == [1, 2, 3, 9, 11, 18, 19, 20]
    assert (run["attempts"], run["failing"], run["left_out"]) == (20, 4, 12)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("about", [{"outcome": "passthrough"}, {"reached": True}], ids=str)
def test_a_real_server_that_an_entry_left_out_has_reached_is_told(
    tmp_path: Path, about: dict[str, Any]
) -> None:
    lines = attempts(20)
    lines[9] |= about | {"host": "index.test"}
    shown, run = page_of(tmp_path, lines)
    assert 10 not in shown
    assert run["reached"] == ["index.test"]


def test_a_text_about_a_failure_is_none(tmp_path: Path) -> None:
    lines = attempts(1, note='{"fails":true, "outcome": "passthrough", "reached":true}')
    _, run = page_of(tmp_path, lines)
    assert (run["failing"], run["reached"]) == (0, [])


@pytest.mark.usefixtures("short")
def test_of_many_lines_of_logs_a_page_has_both_ends(tmp_path: Path) -> None:
    logs = [{"container": 0, "at": float(n), "stream": "stdout", "text": str(n)} for n in range(9)]
    _, run = page_of(tmp_path, attempts(1), logs=logs)
    assert [log["text"] for log in run["logs"]] == ["0", "1", "7", "8"]
    assert run["logs_left_out"] == 5


def test_the_page_of_a_test_without_attempts_has_none(tmp_path: Path) -> None:
    shown, run = page_of(tmp_path, [], verdict=None, paste=[], logs=[])
    assert (shown, run["attempts"]) == ([], 0)
