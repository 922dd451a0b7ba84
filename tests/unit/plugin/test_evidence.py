"""The report of a run: which tests have a folder, what is in it, and what it says where nothing can be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.stand_in import RunPytest, lines_of

FAILS = """
    def test_unrouted(egress):
        traffic(egress, "https://api.test/v1", "https://api.test/v2")
    def test_passes(egress):
        egress.intercept_https("api.test", {})
        traffic(egress, "https://api.test/v1")
    def test_is_not_of_egress():
        assert False
"""


@pytest.fixture
def out(pytester: pytest.Pytester) -> Path:
    return pytester.path / "out"


def names_in(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()} if folder.exists() else set()


def lines_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


def test_a_failed_test_has_a_folder_and_its_failure_ends_with_the_way_to_it(
    run: RunPytest, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = out.parent / "step.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    result = run(FAILS, "--egress-report=out")
    page = "out/test_x.py-test_unrouted/timeline.html"
    lines_of(result, f"the whole of it: {page}#entry-1", "egress: the report is out/index.html")
    assert names_in(out) == {
        ".egress-report",
        "index.html",
        "summary.md",
        "test_x.py-test_unrouted",
    }
    folder = out / "test_x.py-test_unrouted"
    assert names_in(folder) == {"ledger.jsonl", "timeline.html", "traffic.har"}
    assert [line["text"] for line in lines_in(folder)] == [
        "GET https://api.test/v1",
        "GET https://api.test/v2",
    ]
    assert "test_x.py::test_unrouted" in (out / "index.html").read_text()
    assert step.read_text() == (out / "summary.md").read_text()


def test_with_all_each_test_that_used_egress_has_one(run: RunPytest, out: Path) -> None:
    run(FAILS, "--egress-report=out", "--egress-report-all")
    assert {"test_x.py-test_unrouted", "test_x.py-test_passes"} == {
        name for name in names_in(out) if name.startswith("test_")
    }
    (line,) = lines_in(out / "test_x.py-test_passes")
    assert (line["outcome"], line["fails"], line["response"]["status"]) == ("routed", False, 200)
    assert line["handler"] == ""


def test_a_green_run_leaves_nothing(run: RunPytest, out: Path) -> None:
    result = run("def test_it(egress): pass", "--egress-report=out")
    assert not out.exists()
    assert "the report is" not in result.stdout.str()


def test_without_the_option_nothing_is_written(run: RunPytest, out: Path) -> None:
    result = run(FAILS)
    assert "the whole of it" not in result.stdout.str()
    assert not out.exists()


def test_a_later_run_removes_what_an_earlier_one_wrote_and_nothing_else(
    run: RunPytest, out: Path
) -> None:
    run(FAILS, "--egress-report=out")
    (out / "mine.txt").write_text("x")
    (out / "test_x.py-test_unrouted" / "mine.txt").write_text("x")
    run("def test_it(egress): pass", "--egress-report=out")
    assert names_in(out) == {"mine.txt", "test_x.py-test_unrouted"}
    assert names_in(out / "test_x.py-test_unrouted") == {"mine.txt"}


def test_what_cannot_be_written_is_one_line_and_no_failure(run: RunPytest, out: Path) -> None:
    out.write_text("a file")
    result = run(FAILS, "--egress-report=out")
    result.assert_outcomes(passed=1, failed=2)
    assert result.stdout.str().count("egress: the report in out is not whole: ") >= 1
    assert "INTERNALERROR" not in result.stdout.str()


def test_the_environment_and_the_ini_file_name_a_folder_too(
    run: RunPytest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(FAILS, "-o", "egress_report=of_ini")
    monkeypatch.setenv("PYTEST_EGRESS_REPORT", "of_environment")
    run("", "-o", "egress_report=of_ini_2")
    assert (pytester.path / "of_ini" / "index.html").exists()
    assert (pytester.path / "of_environment" / "index.html").exists()
    assert not (pytester.path / "of_ini_2").exists()


def test_all_of_no_report_is_refused(run: RunPytest) -> None:
    result = run(FAILS, "--egress-report-all")
    result.stderr.fnmatch_lines(["*--egress-report-all: it needs a folder*--egress-report=DIR"])


def test_a_secret_in_the_id_of_a_test_is_in_no_name_and_no_file(run: RunPytest, out: Path) -> None:
    key = "live_key_0123456789"
    source = f"""
    @pytest.mark.parametrize("key", ["{key}", "</script><b>x"])
    def test_it(egress, key):
        egress._inner.session.hide({{"API_KEY": "{key}"}})
        traffic(egress, "https://api.test/" + key[:4])
    """
    run(source, "--egress-report=out")
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 6
    for path in files:
        assert key not in str(path)
        assert key not in path.read_text()
        assert path.suffix != ".html" or "</script><b>" not in path.read_text()


def test_a_test_that_fails_in_its_teardown_has_what_came_late(run: RunPytest, out: Path) -> None:
    source = """
    @pytest.fixture
    def late(egress):
        yield egress
        traffic(egress, "https://late.test/")

    def test_it(late):
        traffic(late, "https://api.test/")

    def test_late(late):
        late.intercept_https("api.test", {})
        traffic(late, "https://api.test/")
    """
    run(source, "--egress-report=out")
    folder = out / "test_x.py-test_late"
    assert [(line["host"], line["fails"]) for line in lines_in(folder)] == [
        ("api.test", False),
        ("late.test", True),
    ]


@pytest.mark.plugins("rerunfailures")
def test_each_rerun_has_a_folder(run: RunPytest, out: Path) -> None:
    pytest.importorskip("pytest_rerunfailures")
    run(FAILS, "--egress-report=out", "--reruns=1")
    assert {"test_x.py-test_unrouted", "test_x.py-test_unrouted-2"} <= names_in(out)
