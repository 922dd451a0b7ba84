"""A sweep beside what pytest and its plugins do with a test: unittest, asyncio, --ff, --setup-show, workers, timers."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

from tests.support.stand_in import RunPytest, lines_of

PAY = "GET https://pay.test/v1"
TEST = """
@pytest.mark.egress_sweep(faults=["503", "reset"])
def test_a(egress):
    egress.intercept_https("pay.test", b"ok")
    paid = attempt(egress, "https://pay.test/v1")
    ends(egress, 1 if paid == "reset()" else 0)
    assert paid == "ok"
"""
FOUR = TEST.replace('["503", "reset"]', '["503", "429", "html", "empty"]')


def ran(result: pytest.RunResult) -> list[tuple[str, str]]:
    """The tests that ran, in order, each with its outcome."""
    return re.findall(
        r"^test_x\.py::(.+?) (PASSED|FAILED|SKIPPED|ERROR|RERUN)", result.stdout.str(), re.MULTILINE
    )


def matrix_of(result: pytest.RunResult) -> list[list[str]]:
    """The letters of each call, in all matrices."""
    return [line.split()[2:] for line in result.outlines if line.startswith("GET pay.test/v1 ")]


# Kinds of tests.

CASE = """
class TestPay(unittest.{base}):
    made = []
    @classmethod
    def setUpClass(cls): cls.made.append("class")
    def setUp(self): self.made.append("test")
    def tearDown(self): self.made.append("end")
    @pytest.fixture(autouse=True)
    def routes(self, egress):
        self.egress = egress
        egress.intercept_https("pay.test", b"ok", optional=True)
    @pytest.mark.egress_sweep(faults=["503", "reset", "html"])
    {kind} test_a(self):
        paid = attempt(self.egress, "https://pay.test/v1")
        if "Be right back" in paid: self.skipTest("back soon")
        ends(self.egress, 1 if paid == "reset()" else 0)
        self.assertEqual(paid, "ok")
    def test_b(self):
        assert self.made == ["class", *["test", "end"] * 4, "test"]
"""


@pytest.mark.parametrize(
    ("base", "kind"), [("TestCase", "def"), ("IsolatedAsyncioTestCase", "async def")]
)
def test_a_method_of_unittest_is_swept(run: RunPytest, base: str, kind: str) -> None:
    result = run(CASE.format(base=base, kind=kind), "-v")
    assert ran(result) == [
        ("TestPay::test_a", "PASSED"),
        (f"TestPay::test_a[{PAY}: 503]", "FAILED"),
        (f"TestPay::test_a[{PAY}: reset]", "PASSED"),
        (f"TestPay::test_a[{PAY}: html]", "SKIPPED"),
        ("TestPay::test_a[sweep]", "PASSED"),
        ("TestPay::test_b", "PASSED"),
    ]
    assert matrix_of(result) == [["LIES", "err", "skip"]]
    lines_of(
        result, "*AssertionError: 'Service Unavailable' != 'ok'*", "*the exit code of shop is 0*"
    )
    cell = f"TestPay::test_a[{PAY}: 503]"
    assert ran(run("", "-v", f"test_x.py::{cell}")) == [(cell, "FAILED")]
    assert run("", "--setup-only", f"test_x.py::{cell}").ret == 0


def test_a_method_of_unittest_that_fails_is_not_swept(run: RunPytest) -> None:
    source = CASE.format(base="TestCase", kind="def").replace('(paid, "ok")', '(paid, "no")')
    result = run(source, "-rs", "-k", "test_a")
    result.assert_outcomes(failed=1, skipped=1, deselected=1)
    lines_of(result, "*the happy path has failed")


@pytest.mark.plugins("asyncio", "anyio")
@pytest.mark.parametrize("marker", ["asyncio", "anyio"])
def test_an_async_test_is_swept(run: RunPytest, marker: str) -> None:
    test = TEST.strip().replace("def test_a(egress)", "async def test_a(egress, made)")
    source = f"""
import anyio.to_thread
@pytest.fixture
def anyio_backend(): return "asyncio"
@pytest.fixture
async def made(): return 1
@pytest.mark.{marker}
{test.replace("attempt(", "await anyio.to_thread.run_sync(attempt, ")}
"""
    mode = "auto" if marker == "asyncio" else "strict"
    result = run(source, f"--asyncio-mode={mode}", "-Wignore")
    assert matrix_of(result) == [["LIES", "err"]], result.stdout.str()
    result.assert_outcomes(passed=3, failed=1)


def test_ids_of_odd_characters_name_their_cells(run: RunPytest) -> None:
    ids = ["a", "a-B", "x::y", "[", "]", "a/b@c", "é", ": 503", "GET https://a.test/: 503"]
    values = f'@pytest.mark.parametrize("n", range({len(ids)}), ids={ids!r})\n'
    source = values + TEST.strip().replace("(egress)", "(egress, n)", 1).replace(', "reset"', "")
    result = run(source.replace("test_a(egress)", "test_a(egress, n)"), "-v", "-p", "cacheprovider")
    names = [name for name, outcome in ran(result) if outcome == "FAILED"]
    assert names[:2] == [f"test_a[a-{PAY}: 503]", f"test_a[a-B-{PAY}: 503]"]
    assert len(names) == len(ids)
    failed = sorted((name, "FAILED") for name in names)
    assert sorted(ran(run("", "-v", "-p", "cacheprovider", "--lf"))) == failed
    assert sorted(ran(run("", "-v", *(f"test_x.py::{name}" for name in names)))) == failed


# Options of pytest.


def test_ff_runs_the_cells_that_failed_before_all_others(run: RunPytest) -> None:
    run("def test_first(): pass\n" + TEST, "-p", "cacheprovider")
    result = run("", "-p", "cacheprovider", "-v", "--ff")
    assert [name for name, _ in ran(result)] == [
        f"test_a[{PAY}: 503]",
        "test_first",
        "test_a",
        f"test_a[{PAY}: 503]",
        f"test_a[{PAY}: reset]",
        "test_a[sweep]",
    ]
    lines_of(result, "run-last-failure: rerun previous 1 failure first", "2 runs in * 1 bad")


def test_maxfail_counts_cells(run: RunPytest) -> None:
    result = run(FOUR, "--maxfail=2", "-v", "-rs")
    assert [outcome for _, outcome in ran(result)] == ["PASSED", "FAILED", "FAILED", "SKIPPED"]
    lines_of(result, "*the run ends: 2 cells were not run")


@pytest.mark.parametrize("option", ["--setup-only", "--setup-plan"])
def test_without_a_call_nothing_is_swept(run: RunPytest, option: str) -> None:
    source = TEST.replace("    paid =", "    raise AssertionError\n    paid =")
    for names in ([], ["test_x.py::test_a[sweep]"], [f"test_x.py::test_a[{PAY}: 503]"]):
        result = run("" if names else source, option, *names)
        assert result.ret == 0, result.stdout.str()
        assert "egress sweep" not in result.stdout.str()


def test_setup_show_names_each_cell(run: RunPytest) -> None:
    result = run(TEST, "--setup-show")
    assert re.findall(r"^ +test_x\.py::(test_a(?:\[.+?\])?)", result.stdout.str(), re.M) == [
        "test_a",
        f"test_a[{PAY}: 503]",
        f"test_a[{PAY}: reset]",
        "test_a[sweep]",
    ]


def test_collect_only_names_the_test_and_its_sweep(run: RunPytest) -> None:
    result = run(TEST, "--collect-only", "-q")
    assert result.outlines[:2] == ["test_x.py::test_a", "test_x.py::test_a[sweep]"]
    result = run("", "--collect-only", "-q", f"test_x.py::test_a[{PAY}: 503]")
    assert result.outlines[0] == f"test_x.py::test_a[{PAY}: 503]"


def test_junit_names_each_cell_and_what_is_wrong_with_it(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    result = run(TEST, "--junitxml=report.xml", "-p", "no:terminal")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (suite,) = ET.parse(pytester.path / "report.xml").getroot()
    assert [(each.get("classname"), each.get("name")) for each in suite.iter("testcase")] == [
        ("test_x", "test_a"),
        ("test_x", f"test_a[{PAY}: 503]"),
        ("test_x", f"test_a[{PAY}: reset]"),
        ("test_x", "test_a[sweep]"),
    ]
    (failure,) = suite.iter("failure")
    said = failure.get("message") or ""
    assert said.startswith(f"{PAY}: 503: the exit code of shop is 0, and the test fails: Assert")
    assert "To run this cell alone: pytest" in (failure.text or "")
    bad, good = (json.loads(each.get("value") or "") for each in suite.iter("property"))
    assert (bad["test"], bad["call"], bad["fault"]) == ("test_x.py::test_a", PAY, "503")
    assert (bad["letters"], good["letters"], good["exit_code"]) == ("LIES", "err", 1)


def test_a_sweep_that_fails_says_why_in_one_line(run: RunPytest) -> None:
    result = run(TEST.replace('["503", "reset"]', '["503", "reset"], limit=1'))
    lines_of(result, "FAILED test_x.py::test_a[[]sweep] - 1 cells or more were not run: limit=1")


# Plugins.


@pytest.mark.plugins("xdist")
@pytest.mark.parametrize("dist", ["load", "loadscope", "loadgroup", "worksteal"])
def test_workers_sweep_however_tests_are_shared_out(
    run: RunPytest, pytester: pytest.Pytester, dist: str
) -> None:
    source = "".join(
        f"@pytest.mark.xdist_group('pay'){TEST.replace('test_a', name)}"
        for name in ("test_a", "test_b")
    )
    result = run(source, "-n2", f"--dist={dist}", "--egress-report=out", subprocess=True)
    assert result.parseoutcomes() == {"passed": 6, "failed": 2}
    assert '"summary":"2 runs in' in (pytester.path / "out/index.html").read_text()
    assert matrix_of(result) == [["LIES", "err"]] * 2
    lines_of(result, f"*pytest 'test_x.py::test_a[[]{PAY}: 503]'")
    assert not re.search(r"\[1\d[1-9]%\]", result.stdout.str())


@pytest.mark.plugins("xdist")
def test_a_worker_ends_its_sweep_at_the_first_failure(run: RunPytest) -> None:
    result = run(FOUR, "-n1", "-x", subprocess=True)
    assert result.parseoutcomes()["failed"] == 1
    lines_of(result, "1 run in * s: 1 bad")


@pytest.mark.plugins("timeout")
def test_a_cell_has_the_time_of_a_test_and_so_has_a_happy_path_that_is_run_for_it(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("""
        def pytest_timeout_set_timer(item, settings): print("begins", item.nodeid); return True
        def pytest_timeout_cancel_timer(item): print("ends", item.nodeid); return True
        """)
    result = run(TEST, "--timeout=60", "-s", "test_x.py::test_a[sweep]")
    told = re.findall(r"(begins|ends) test_x.py::test_a\[(.+)\]$", result.stdout.str(), re.M)
    assert [*dict.fromkeys(told)] == [  # the timer of a test that fails is cancelled twice
        (what, name)
        for name in ("happy path", f"{PAY}: 503", f"{PAY}: reset", "sweep")
        for what in ("begins", "ends")
    ]


@pytest.mark.plugins("rerunfailures")
def test_cells_of_a_sweep_that_is_run_by_its_name_are_run_again(run: RunPytest) -> None:
    run(TEST, "--collect-only")
    result = run("", "--reruns=1", "-v", "test_x.py::test_a[sweep]", subprocess=True)
    assert [outcome for _, outcome in ran(result)] == ["RERUN", "FAILED", "PASSED", "PASSED"]


@pytest.mark.plugins("rerunfailures")
def test_a_sweep_that_is_not_whole_is_run_again(run: RunPytest) -> None:
    source = TEST.replace('["503", "reset"]', '["reset"], tolerates=["pai.test"]')
    result = run(source, "--reruns=1", subprocess=True)
    assert result.parseoutcomes() == {"passed": 1, "failed": 1, "rerun": 1}
