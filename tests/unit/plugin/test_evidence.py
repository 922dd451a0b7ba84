"""The report of a run: which tests have a folder, what is in it, and what it says where nothing can be written."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_egress.errors import CommandError
from pytest_egress.evidence.folder import ReportFolder
from pytest_egress.plugin.evidence import Evidence, verdict_of
from tests.support.project import ROOT
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
    assert names_in(folder) == {".egress-report", "ledger.jsonl", "timeline.html", "traffic.har"}
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


def test_a_file_that_is_of_no_report_is_not_replaced(run: RunPytest, out: Path) -> None:
    out.mkdir()
    (out / "index.html").write_text("mine")
    result = run(FAILS, "--egress-report=out")
    result.stderr.fnmatch_lines(["*--egress-report=out: it would replace index.html there*"])
    assert names_in(out) == {"index.html"}
    assert (out / "index.html").read_text() == "mine"


def test_what_cannot_be_written_is_one_line_and_no_failure(run: RunPytest, out: Path) -> None:
    out.write_text("a file")
    result = run(FAILS, "--egress-report=out")
    result.assert_outcomes(passed=1, failed=2)
    why = "egress: the report in out is not whole: a file is where a folder has to be (out"
    assert result.stdout.str().count(why) == 1
    assert "INTERNALERROR" not in result.stdout.str()


@pytest.mark.plugins("xdist")
def test_a_full_disk_is_told_once_and_the_index_names_each_test(run: RunPytest, out: Path) -> None:
    conftest = """
    import errno, pytest_egress.plugin.evidence as evidence
    def full(folder, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "timeline.html"))
    evidence.write_test = full
    """
    (out.parent / "conftest.py").write_text(textwrap.dedent(conftest))
    options = ["--egress-report=out", "--egress-report-all", "-n2", "-p", "xdist"]
    result = run(FAILS, *options, subprocess=True)
    result.assert_outcomes(passed=1, failed=2)
    (line,) = [each for each in result.outlines if each.startswith("egress: ")]
    assert line.startswith(
        "egress: the report in out is not whole: No space left on device (out/test_x.py-test_"
    )
    rows = {row["id"]: row for row in rows_of(out)}
    assert rows["test_x.py::test_unrouted"]["headline"] == (
        "GET https://api.test/v1: no route claims it (and 1 more)"
    )
    assert rows["test_x.py::test_passes"]["outcome"] == "passed"
    assert "test_x.py::test_unrouted" in (out / "summary.md").read_text()
    assert "INTERNALERROR" not in result.stdout.str()


@pytest.mark.plugins("xdist")
def test_a_folder_that_another_run_writes_to_is_left_to_it(run: RunPytest, out: Path) -> None:
    other = ReportFolder(out)
    assert other.claim()
    its_own = other.make("test_of_the_other_run")
    result = run(FAILS, "--egress-report=out", "-n2", "-p", "xdist", subprocess=True)
    result.assert_outcomes(passed=1, failed=2)
    lines_of(
        result,
        "egress: the report is not written: another run writes one to out now. "
        "Name another folder, as by --egress-report=out-2",
    )
    assert names_in(out) == {".egress-report", its_own.name}
    other.release()
    run(FAILS, "--egress-report=out")
    assert "test_x.py-test_unrouted" in names_in(out)


def test_folders_that_a_green_run_has_made_are_removed(run: RunPytest, out: Path) -> None:
    out.mkdir()
    run("def test_it(egress): pass", "--egress-report=out/a/b")
    assert names_in(out) == set()


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


def test_a_secret_that_becomes_known_later_is_in_no_file_that_was_written_before(
    run: RunPytest, out: Path
) -> None:
    key = "live_key_0123456789"
    source = f"""
    def test_sends(egress):
        traffic(egress, "https://api.test/v1/{key}/y")
    def test_knows(egress):
        egress._inner.session.hide({{"API_KEY": "{key}"}})
    """
    run(source, "--egress-report=out").assert_outcomes(passed=1, failed=1)
    for path in out.rglob("*"):
        assert path.is_dir() or key not in path.read_text()
    (line,) = lines_in(out / "test_x.py-test_sends")
    assert line["text"] == "GET https://api.test/v1/<API_KEY>/y"
    page = (out / "test_x.py-test_sends" / "timeline.html").read_text()
    assert "v1/\\u003cAPI_KEY>" in page
    assert "API" in (out / "summary.md").read_text()


LATER = """
    import os
    @pytest.mark.parametrize("key", ["{key}"])
    def test_sends(egress, key):
        traffic(egress, f"https://api.test/v1/{{key}}/y")
    def test_knows(egress):
        egress._inner.session.hide({{"API_KEY": "{key}"}})
        {then}
    def test_ends_the_run(egress):
        {end}
"""
KEY = "live_key_0123456789"


def check_no_key(out: Path) -> None:
    """That a report has a test's page and its index, and the key in none of their files and names."""
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {"index.html", "timeline.html", ".egress-report"} <= {path.name for path in files}
    for path in files:
        assert KEY not in str(path)
        assert KEY not in path.read_text()


def test_a_secret_that_becomes_known_later_is_in_no_name_of_a_folder(
    run: RunPytest, out: Path
) -> None:
    result = run(LATER.format(key=KEY, then="", end="pass"), "--egress-report=out")
    check_no_key(out)
    lines_of(result, "egress: 1 folder of the report had a secret in the name*: follow the index*")
    (row,) = rows_of(out)
    assert (out / row["folder"] / "timeline.html").exists()


def test_a_secret_that_a_teardown_has_learned_is_in_no_name_of_a_folder(
    run: RunPytest, out: Path
) -> None:
    source = f"""
    @pytest.fixture
    def late(egress):
        yield egress
        egress._inner.session.hide({{"API_KEY": "{KEY}"}})
        traffic(egress, "https://late.test/")
    @pytest.mark.parametrize("key", ["{KEY}"])
    def test_sends(late, key):
        assert False
    """
    result = run(source, "--egress-report=out")
    check_no_key(out)
    assert len(rows_of(out)) == 1
    assert "is not whole" not in result.stdout.str()


@pytest.mark.plugins("xdist")
@pytest.mark.parametrize("end", ["", "os._exit(1)"], ids=["ends", "crashes"])
def test_a_secret_that_another_worker_has_learned_is_in_no_file(
    run: RunPytest, out: Path, end: str
) -> None:
    source = LATER.format(key=KEY, then=end, end="assert egress is None")
    result = run(source, "--egress-report=out", "-n2", "-p", "xdist", "-v", subprocess=True)
    assert "[gw1]" in result.stdout.str()
    check_no_key(out)
    assert "<API_KEY>" in "".join(each["id"] for each in rows_of(out))


def test_of_a_run_that_is_killed_later_no_file_has_a_secret_that_it_knew(
    run: RunPytest, out: Path
) -> None:
    run(LATER.format(key=KEY, then="", end="os._exit(1)"), "--egress-report=out", subprocess=True)
    for path in out.rglob("*"):
        assert KEY not in str(path)
        assert path.is_dir() or KEY not in path.read_text()


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
    conftest = """
    import sys, types
    sys.modules["pytest_html"] = html = types.ModuleType("pytest_html")
    html.extras = types.SimpleNamespace(url=lambda content, name: f"{name}: {content}")
    def pytest_addoption(parser): parser.addoption("--html", dest="htmlpath")
    def pytest_runtest_logreport(report):
        for each in getattr(report, "extras", ()): print("EXTRA", each)
    """
    (out.parent / "conftest.py").write_text(textwrap.dedent(conftest))
    result = run(FAILS, "--egress-report=out", "--reruns=1", "--html=it.html", "-s")
    for name, folder in (("egress", "test_unrouted"), ("egress 2", "test_unrouted-2")):
        lines_of(result, f"*EXTRA {name}: out/test_x.py-{folder}/timeline.html*")
    assert {"test_x.py-test_unrouted", "test_x.py-test_unrouted-2"} <= names_in(out)


WORKERS = """
    import os
    @pytest.mark.parametrize("number", range(4))
    def test_it(egress, number):
        traffic(egress, f"https://api{number}.test/")
    def test_crashes(egress):
        traffic(egress, "https://late.test/")
        os._exit(1)
"""


@pytest.mark.plugins("xdist")
def test_of_several_workers_and_one_that_crashes_no_test_goes_missing(
    run: RunPytest, out: Path
) -> None:
    result = run(WORKERS, "--egress-report=out", "-n2", "-p", "xdist", subprocess=True)
    result.assert_outcomes(failed=5)
    rows = rows_of(out)
    assert sorted(row["id"] for row in rows) == [
        "test_x.py::test_crashes",
        *(f"test_x.py::test_it[{number}]" for number in range(4)),
    ]
    (crashed,) = (row for row in rows if not row["folder"])
    assert "crashed" in crashed["headline"]
    for row in rows:
        assert row is crashed or (out / row["folder"] / "timeline.html").exists()
    assert "test_crashes" in (out / "summary.md").read_text()


def run_of(out: Path) -> dict[str, Any]:
    """What the index is made of."""
    page = (out / "index.html").read_text()
    found = re.search(r'<script type="application/json" id="run">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    run: dict[str, Any] = json.loads(found[1])
    return run


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The rows in the index."""
    rows: list[dict[str, Any]] = run_of(out)["rows"]
    return rows


def test_what_the_lock_file_does_not_have_is_new_in_the_index_and_the_summary(
    pytestconfig: pytest.Config, out: Path
) -> None:
    new = "https api.test:443"
    locking: Any = SimpleNamespace(new=lambda: {new}, name="egress.lock", updates=False)
    evidence = Evidence(pytestconfig, out, of_all=True, hidden=str, locking=locking)
    cell = {"count": 1, "worst": "fails", "entry": 1, "reached": False}
    row = {
        "id": "test_a",
        "folder": "a",
        "outcome": "failed",
        "duration": 1.0,
        "attempts": 1,
        "headline": "",
        "error": "",
        "images": [],
        "paste": [],
        "unrouted": [],
        "failing": 0,
        "hosts": {new: cell},
    }
    evidence.rows.append(row)
    evidence._finish()
    assert '"new":1' in (out / "index.html").read_text()
    assert "**1 new destination**" in (out / "summary.md").read_text()
    assert "pytest --egress-lock=update" in (out / "summary.md").read_text()


SWEPT = """
@pytest.mark.egress_sweep(faults=["503", "reset"])
def test_a(egress):
    egress.intercept_https("pay.test", b"ok")
    paid = attempt(egress, "https://pay.test/v1")
    ends(egress, 1 if paid in CODES else 0)
    assert paid == "ok"
"""


def test_the_index_has_the_matrix_of_each_sweep_and_its_bad_cells_lead_to_their_pages(
    run: RunPytest, out: Path
) -> None:
    result = run(SWEPT.replace("CODES", '["reset()"]'), "--egress-report=out")
    result.assert_outcomes(passed=3, failed=1)
    (sweep,), (row,) = run_of(out)["sweeps"], rows_of(out)
    lies, says = sweep["rows"][0]["cells"]
    assert (sweep["test"], lies["letters"], says["letters"]) == ("test_x.py::test_a", "LIES", "err")
    assert lies["id"] == row["id"]
    assert (out / row["folder"] / "timeline.html").exists()


def test_a_green_sweep_has_an_index(run: RunPytest, out: Path) -> None:
    source = SWEPT.replace("CODES", '["reset()", "Service Unavailable"]')
    result = run(source, "--egress-report=out")
    lines_of(result, "egress: the report is out/index.html")
    assert names_in(out) == {".egress-report", "index.html"}
    assert run_of(out)["sweeps"][0]["summary"].endswith("0 bad")
    run("def test_it(egress): pass", "--egress-report=out")
    assert not out.exists()


def test_what_comes_outside_of_any_test_has_a_page_of_its_own(run: RunPytest, out: Path) -> None:
    source = """
    @pytest.fixture(scope="module")
    def shop(module_egress):
        yield module_egress
        traffic(module_egress, "https://between.test/")
    def test_it(shop): pass
    """
    run(source, "--egress-report=out", "--egress-report-all")
    (line,) = lines_in(out / "outside")
    assert line["host"] == "between.test"


def test_a_page_is_named_in_the_report_of_pytest_html_and_attached_to_allures(
    run: RunPytest, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins with the functions that these plugins have: neither is a dependency."""
    conftest = """
    import sys, types, pytest
    sys.modules["pytest_html"] = html = types.ModuleType("pytest_html")
    html.extras = types.SimpleNamespace(url=lambda content, name: {"content": content, "name": name})
    sys.modules["allure"] = allure = types.ModuleType("allure")
    allure.attachment_type = types.SimpleNamespace(HTML="html")
    files = []
    allure.attach = types.SimpleNamespace(file=lambda *a: files.append(a))
    class Listener: pass
    def pytest_addoption(parser): parser.addoption("--html", dest="htmlpath")
    def pytest_configure(config): config.pluginmanager.register(Listener(), "allure_listener")
    def pytest_runtest_logreport(report):
        for each in getattr(report, "extras", ()): print("EXTRA", each)
    def pytest_sessionfinish(): print("FILES", files)
    """
    (out.parent / "conftest.py").write_text(textwrap.dedent(conftest))
    source = f"""{FAILS}
    @pytest.fixture
    def late(egress):
        yield
        traffic(egress, "https://late.test/")
    def test_fails_twice(late):
        assert False
    """
    printed = run(source, "--egress-report=out", "--html=reports/it.html", "-s").stdout.str()
    page = "out/test_x.py-test_unrouted/timeline.html"
    assert f"'content': '../{page}#entry-1', 'name': 'egress'" in printed
    assert f"{page}', 'egress', 'html')" in printed
    assert len(re.findall("EXTRA .*test_fails_twice", printed)) == 1


def test_the_program_of_the_page_prints_what_fails_a_test_and_why(
    run: RunPytest, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(FAILS, "--egress-report=report")
    (program,) = re.findall(r"^```python\n(.*?)^```", text_of_page(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(out.parent)
    capsys.readouterr()
    exec(program, {})
    assert capsys.readouterr().out.splitlines() == [
        "test_x.py-test_unrouted  GET https://api.test/v1  no route claims it",
        "test_x.py-test_unrouted  GET https://api.test/v2  no route claims it",
    ]


def test_the_page_names_each_key_of_a_line(run: RunPytest, out: Path) -> None:
    run(FAILS, "--egress-report=out")
    (line, _) = lines_in(out / "test_x.py-test_unrouted")
    told = {*re.findall(r"`(\w+)`", text_of_page())}
    assert {*line} - told == {"route", "connection", "scheme", "unkept", "handler"}


def text_of_page() -> str:
    return (ROOT / "docs" / "evidence.md").read_text()


def test_the_headline_of_a_command_that_failed_has_the_last_line_of_its_log() -> None:
    error = CommandError("shop exited with code 3\nIts log:", logs="one\nboom\n")
    assert verdict_of(error).headline == "shop exited with code 3: boom"
    assert verdict_of(AssertionError("a\nb")).headline == "a"
    assert verdict_of(ValueError()).headline == "ValueError"
