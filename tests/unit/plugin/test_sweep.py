"""A marked test is run once for each cell of its matrix, and each cell is a test to pytest."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_egress.plugin.sweep import ends_of
from pytest_egress.sweep.trial import SweepTrial
from pytest_egress.sweep.verdict import ContainerEnd
from tests.support.stand_in import RunPytest, lines_of

SHOP = """
@pytest.mark.egress_sweep(faults=["503", "html"])
def test_a(egress):
    egress.intercept_https("stock.test", b"7")
    charges = egress.intercept_https("pay.test", b"ok")
    attempt(egress, "https://stock.test/items/7")
    paid = attempt(egress, "https://pay.test/v1")
    ends(egress, 0 if paid == "ok" else 1)
    assert paid == "ok"
"""
CELLS = [
    "test_a[GET https://stock.test/items/*: 503]",
    "test_a[GET https://pay.test/v1: 503]",
    "test_a[GET https://stock.test/items/*: html]",
    "test_a[GET https://pay.test/v1: html]",
]


def ran(result: pytest.RunResult) -> list[str]:
    """The names of the tests that ran, in order."""
    return re.findall(
        r"^test_x\.py::(.+?) (?:PASSED|FAILED|SKIPPED)", result.stdout.str(), re.MULTILINE
    )


def test_the_test_its_cells_and_its_sweep_run_in_this_order(run: RunPytest) -> None:
    result = run(SHOP, "-v")
    result.assert_outcomes(passed=6)
    assert ran(result) == ["test_a", *CELLS, "test_a[sweep]"]
    lines_of(
        result,
        "*egress sweep: test_x.py::test_a*",
        "  *503  html",
        "GET stock.test/items/*      ok    ok",
        "GET pay.test/v1 *  err   err",
        "4 runs in * s: 0 bad",
    )


def test_a_cell_is_run_by_its_name_alone(run: RunPytest) -> None:
    run(SHOP, "--collect-only")
    result = run("", "-v", f"test_x.py::{CELLS[1]}")
    result.assert_outcomes(passed=1)
    assert ran(result) == [CELLS[1]]


@pytest.mark.parametrize("call", ["GET https://pai.test/v1", "GET https://pay.test/v1 #9"])
def test_a_cell_of_no_call_fails_where_it_is_named(run: RunPytest, call: str) -> None:
    run(SHOP, "--collect-only")
    result = run("", f"test_x.py::test_a[{call}: 503]")
    assert "passed" not in result.parseoutcomes()
    lines_of(
        result,
        f"*the happy path makes no call {call}. Its calls, and how often each came, are:",
        "*GET https://pay.test/v1: 1",
    )


def test_a_cell_of_no_call_tells_twenty_calls_at_most(run: RunPytest) -> None:
    source = """
@pytest.mark.egress_sweep
def test_a(egress):
    egress.intercept_https("pay.test", b"ok")
    for n in range(23):
        attempt(egress, f"https://pay.test/p{n}x")
"""
    run(source, "--collect-only")
    result = run("", "test_x.py::test_a[GET https://pai.test/v1: 503]")
    lines_of(result, "*GET https://pay.test/p19x: 1", "*and 4 more")
    assert "p20x" not in result.stdout.str()


def test_a_sweep_is_run_by_its_name_alone(run: RunPytest) -> None:
    result = run(SHOP, "-v", "-k", "sweep and not test_b")
    assert ran(result)[-1] == "test_a[sweep]"
    result = run("", "-v", "test_x.py::test_a[sweep]")
    assert ran(result) == [*CELLS, "test_a[sweep]"]


def test_off_leaves_the_cells_out(run: RunPytest) -> None:
    assert ran(run(SHOP, "-v", "--egress-sweep=off")) == ["test_a"]
    result = run("", "--egress-sweep=no")
    result.stderr.fnmatch_lines(["*--egress-sweep=no: it takes on or off"])


def test_only_chooses_cells_by_their_names(run: RunPytest) -> None:
    result = run(SHOP, "-v", "--egress-sweep-only=*pay.test*: html")
    assert ran(result) == ["test_a", CELLS[3], "test_a[sweep]"]
    result = run("", "-rs", "--egress-sweep-only=*: silence")
    result.assert_outcomes(passed=1, skipped=1)
    lines_of(result, "*no cell is meant by --egress-sweep-only=[*]: silence")


LIES = """
@pytest.mark.egress_sweep(faults=["503", "reset"])
def test_a(egress):
    egress.intercept_https("pay.test", b"ok")
    paid = attempt(egress, "https://pay.test/v1")
    ends(egress, 1 if paid == "reset()" else 0)
    assert paid == "ok"
"""


def test_a_cell_that_is_wrong_fails_with_what_to_do_and_how_to_run_it(run: RunPytest) -> None:
    result = run(LIES)
    result.assert_outcomes(passed=3, failed=1)
    lines_of(
        result,
        "*_ test_a[[]GET https://pay.test/v1: 503] _*",
        '>       assert paid == "ok"',
        "It failed the test:",
        "GET https://pay.test/v1: 503: the exit code of shop is 0, and the test fails: AssertionError*",
        "Have the image end with another code*",
        "To run this cell alone: pytest 'test_x.py::test_a[[]GET https://pay.test/v1: 503]'",
        "*GET https://pay.test/v1 -> *(sweep)",
        "GET pay.test/v1 * LIES   err",
        "  LIES  exit code of a success, and the test fails",
        "FAILED test_x.py::test_a[[]GET https://pay.test/v1: 503] - GET https://pay.test/v1: 503: the*",
    )


def test_lf_runs_the_cells_that_failed(run: RunPytest) -> None:
    run(LIES, "-p", "cacheprovider")
    result = run("", "-p", "cacheprovider", "-v", "--lf")
    assert ran(result) == ["test_a[GET https://pay.test/v1: 503]"]
    result.assert_outcomes(failed=1)


def test_x_ends_a_sweep_at_the_first_cell_that_fails(run: RunPytest) -> None:
    result = run(LIES, "-x", "-v", "-rs")
    assert ran(result)[1:] == ["test_a[GET https://pay.test/v1: 503]", "test_a[sweep]"]
    lines_of(result, "*the run ends: 1 cells were not run")


def test_the_workers_of_xdist_send_their_cells(run: RunPytest, pytester: pytest.Pytester) -> None:
    run(SHOP, "--collect-only")
    result = pytester.runpytest_subprocess("-p", "xdist", "-n1", "-v")
    result.assert_outcomes(passed=6)
    lines_of(result, "*egress sweep: test_x.py::test_a*", "4 runs in * s: 0 bad")


def test_junit_has_what_came_of_each_cell(run: RunPytest, pytester: pytest.Pytester) -> None:
    run(LIES, "--junitxml=report.xml")
    text = (pytester.path / "report.xml").read_text()
    found = re.findall(r'name="egress_sweep" value="(.+?)"', text)
    letters = [json.loads(each.replace("&quot;", '"'))["letters"] for each in found]
    assert letters == ["LIES", "err"]


# The verdict.


def swept(run: RunPytest, body: str, marker: str = 'faults=["503"]') -> dict[str, str]:
    """The letters of the cells of a test, by their names."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    result = run(f"@pytest.mark.egress_sweep({marker})\ndef test_a(egress):\n{lines}\n")
    reports = result.reprec.getreports("pytest_runtest_logreport")  # type: ignore[attr-defined]
    found: dict[str, Any] = {}
    for report in reports:
        for name, text in report.user_properties:
            if name == "egress_sweep":
                data = json.loads(text)
                once = " once" if data["once"] else ""
                found[f"{data['call']}: {data['fault']}{once}"] = data["letters"]
                bad = data["letters"] not in ("ok", "err", "-")
                assert report.when != "call" or report.failed is bad
    return found


PAY = "https://pay.test/"
NAME = f"GET {PAY}: 503"


def test_a_retry_gets_a_cell_in_which_one_call_fails(run: RunPytest) -> None:
    found = swept(
        run,
        f"""
egress.intercept_https("pay.test", b"ok", times=1)
answers = [attempt(egress, "{PAY}")]
if answers[0] != "ok":
    answers.append(attempt(egress, "{PAY}"))
ends(egress, 0 if answers[-1] == "ok" else 1)
assert answers[-1] == "ok"
""",
    )
    assert found == {NAME: "err", f"{NAME} once": "ok"}


def test_a_call_that_is_processed_twice_is_found_by_the_tests_own_assertion(run: RunPytest) -> None:
    found = swept(
        run,
        f"""
route = egress.intercept_https("pay.test", b"ok")
if attempt(egress, "{PAY}") != "ok":
    attempt(egress, "{PAY}")
ends(egress, 0)
route.assert_called_once()
""",
        'faults=["503", "lost"]',
    )
    assert found == {
        NAME: "LIES",
        f"{NAME} once": "ok",
        f"GET {PAY}: lost": "LIES",
        f"GET {PAY}: lost once": "LIES",
    }


def test_undeclared_traffic_under_a_fault_is_stray(run: RunPytest) -> None:
    body = f"""
egress.intercept_https("pay.test", b"ok")
if attempt(egress, "{PAY}") != "ok":
    attempt(egress, "https://backup.test/")
    ends(egress, 1)
    assert CODE
"""
    for code in ("True", "False"):
        assert swept(run, body.replace("CODE", code)) == {NAME: "STRAY"}


def test_a_fault_that_is_met_by_no_call_is_told_and_the_test_skipped(run: RunPytest) -> None:
    found = swept(
        run,
        f"""
egress.intercept_https("pay.test", b"ok")
import os
os.environ["RUNS"] = str(int(os.environ.get("RUNS", 0)) + 1)
if os.environ["RUNS"] == "1":
    attempt(egress, "{PAY}")
""",
    )
    assert found == {NAME: "-"}


@pytest.mark.parametrize(
    ("marker", "letters"),
    [
        ("", "err"),
        ('tolerates=["pay.test*"]', "FAILS"),
        ('retries=["pay.test*"]', "FAILS"),
        ('tolerates=["stock.test*"]', "err"),
    ],
)
def test_a_team_says_which_calls_a_test_has_to_pass_without(
    run: RunPytest, marker: str, letters: str
) -> None:
    found = swept(
        run,
        f"""
egress.intercept_https("pay.test", b"ok")
egress.intercept_https("stock.test", b"ok")
attempt(egress, "https://stock.test/")
paid = attempt(egress, "{PAY}")
ends(egress, 0 if paid == "ok" else 1)
assert paid == "ok"
""",
        f'faults=["503"], only="pay.test*"{", " + marker if marker else ""}'
        if "stock" not in marker
        else f'faults=["503"], {marker}',
    )
    assert found[NAME] == letters


def test_a_test_that_asks_what_fails_judges_by_itself(run: RunPytest) -> None:
    body = f"""
egress.intercept_https("pay.test", b"ok")
paid = attempt(egress, "{PAY}")
ends(egress, 0 if paid == "ok" else 75)
if egress.fault:
    assert (egress.fault.call, egress.fault.fault) == ("GET {PAY}", "503")
    assert CODE
    return
assert paid == "ok"
"""
    assert swept(run, body.replace("CODE", "True")) == {NAME: "ok"}
    assert swept(run, body.replace("CODE", "False")) == {NAME: "FAILS"}


def test_a_handler_that_raises_under_a_fault_fails_its_cell(run: RunPytest) -> None:
    found = swept(
        run,
        f"""
def handler(request):
    raise ValueError
egress.intercept_https("pay.test", b"ok")
egress.intercept_https("log.test", handler, optional=True)
if attempt(egress, "{PAY}") != "ok":
    attempt(egress, "https://log.test/")
    ends(egress, 1)
    assert False
""",
    )
    assert found == {NAME: "FAILS"}


def test_a_test_without_a_container_has_nobody_to_say_why_it_fails(run: RunPytest) -> None:
    body = f'egress.intercept_https("pay.test", b"ok")\nassert attempt(egress, "{PAY}") == "ok"'
    assert swept(run, body) == {NAME: "FAILS"}


def test_what_fails_a_cell_after_its_verdict_is_in_the_matrix(run: RunPytest) -> None:
    result = run(
        f"""
@pytest.fixture
def paid():
    seen = []
    yield seen
    assert seen == ["ok"]
@pytest.mark.egress_sweep(faults=["503"])
def test_a(egress, paid):
    egress.intercept_https("pay.test", b"ok")
    paid.append(attempt(egress, "{PAY}"))
"""
    )
    result.assert_outcomes(passed=3, errors=1)
    lines_of(result, "GET pay.test/ * FAILS", "1 run in * s: 1 bad")


def test_the_failure_of_a_container_that_always_fails_says_nothing(run: RunPytest) -> None:
    body = f"""
egress.intercept_https("pay.test", b"ok")
egress._inner.session.ledger.window.trial.note_end("probe", 1, has_spoken=True)
paid = attempt(egress, "{PAY}")
ends(egress, 0 if CODE else 1)
assert paid == "ok"
"""
    assert swept(run, body.replace("CODE", "True")) == {NAME: "LIES"}
    assert swept(run, body.replace("CODE", "paid == 'ok'")) == {NAME: "err"}


def test_a_container_that_had_ended_before_the_cell_says_nothing() -> None:
    def container(name: str, *, runs: bool = False) -> Any:
        result = SimpleNamespace(exit_code=1, stdout_bytes=b"no", stderr_bytes=b"")
        return SimpleNamespace(name=name, is_running=lambda: runs, wait=lambda _: result)

    live = [container("old"), container("job"), container("db", runs=True)]
    case: Any = SimpleNamespace(session=SimpleNamespace(live=lambda: live))
    ended, running = ends_of(case, SweepTrial(None, 1), {"old"})
    assert (ended, running) == ({"job": ContainerEnd(1, has_spoken=True)}, ["db"])


def test_what_no_lock_lists_fails_a_cell_whose_test_fails(run: RunPytest) -> None:
    source = f"""
@pytest.mark.egress_sweep(faults=["503"])
def test_a(egress):
    egress.intercept_https("pay.test", b"ok")
    egress.intercept_https("backup.test", b"ok", optional=True)
    paid = attempt(egress, "{PAY}")
    if paid != "ok":
        attempt(egress, "https://backup.test/")
        ends(egress, 1)
    assert paid == "ok"
"""
    run(source, "--egress-lock=update", "--egress-sweep=off").assert_outcomes(passed=1)
    result = run("", "--egress-lock=check")
    result.assert_outcomes(passed=2, failed=1)
    lines_of(result, "*https backup.test:443*", "GET pay.test/ * FAILS")


def test_a_cell_that_passes_shows_the_exit_code_that_its_test_did_not_look_at(
    run: RunPytest,
) -> None:
    result = run(f"""
@pytest.mark.egress_sweep(faults=["503"])
def test_a(egress):
    egress.intercept_https("pay.test", b"ok")
    ends(egress, 0 if attempt(egress, "{PAY}") == "ok" else 3)
""")
    result.assert_outcomes(passed=3)
    lines_of(result, "GET pay.test/ *ok 3", "  ok N  passes, and a container exited with N")


@pytest.mark.parametrize("ending", ["pytest.skip()", "pytest.xfail()"])
@pytest.mark.parametrize("place", ["fixture", "test"])
def test_a_cell_that_is_skipped_is_in_the_matrix(run: RunPytest, ending: str, place: str) -> None:
    in_fixture, in_test = (ending, "pass") if place == "fixture" else ("pass", ending)
    result = run(f"""
@pytest.fixture
def paid(egress):
    egress.intercept_https("pay.test", b"ok")
    paid = attempt(egress, "{PAY}")
    if paid != "ok": {in_fixture}
    return paid
@pytest.mark.egress_sweep(faults=["503"])
def test_a(paid):
    if paid != "ok": {in_test}
""")
    assert "failed" not in result.parseoutcomes()
    lines_of(result, "GET pay.test/ * skip", "  skip  the test, or a fixture, has skipped it")


def test_a_fixture_that_fails_without_an_exception_is_judged_too(run: RunPytest) -> None:
    result = run(f"""
@pytest.fixture
def paid(egress):
    egress.intercept_https("pay.test", b"ok")
    if attempt(egress, "{PAY}") != "ok":
        ends(egress, 0)
        pytest.fail("unpaid")
@pytest.mark.egress_sweep(faults=["503"])
def test_a(paid): pass
""")
    result.assert_outcomes(passed=2, failed=1)
    lines_of(result, "GET pay.test/ * LIES")


# The sweep as a whole.


@pytest.mark.parametrize("strict", [True, False])
def test_a_test_that_is_expected_to_fail_is_not_swept(run: RunPytest, strict: bool) -> None:
    result = run(f"@pytest.mark.xfail(strict={strict})\n" + LIES.strip(), "-v")
    assert not any(name.startswith("test_a[GET") for name in ran(result))
    assert "egress sweep" not in result.stdout.str()
    result = run("", "test_x.py::test_a[GET https://pay.test/v1: 503]")
    assert not {"passed", "xfailed", "xpassed"} & {*result.parseoutcomes()}


@pytest.mark.parametrize(
    ("marker", "body", "problem"),
    [
        ("", "pass", "nothing was swept: no call of a container was answered by a route"),
        ('tolerates=["pai.test*"]', "call", "no call is meant by tolerates=*: 'pai.test*'. The*"),
        ("limit=1", "call", "2 cells or more were not run: limit=1"),
        ("", "first", "calls of the happy path came again in no run, so none of them failed:"),
    ],
)
def test_a_sweep_that_is_not_whole_fails(
    run: RunPytest, marker: str, body: str, problem: str
) -> None:
    calls = {"pass": "", "call": f'attempt(egress, "{PAY}")'}
    calls["first"] = f'RUNS.append(1)\n    if len(RUNS) == 1: attempt(egress, "{PAY}")'
    result = run(
        f"""
RUNS = []
@pytest.mark.egress_sweep(faults=["503", "429", "html"]{", " + marker if marker else ""})
def test_a(egress):
    egress.intercept_https("pay.test", b"ok", optional=True)
    {calls[body]}
    if egress.fault: pass
"""
    )
    lines_of(result, "*_ test_a[[]sweep] _*", problem.replace("[", "[[]"))
    assert "failed" in result.parseoutcomes()


def test_a_dial_that_does_not_come_again_leaves_the_sweep_whole(run: RunPytest) -> None:
    result = run(
        f"""
@pytest.mark.egress_sweep(faults=["503", "refuse"])
def test_a(egress):
    egress.intercept_https("pay.test", b"ok")
    attempt(egress, "{PAY}")
""",
        "-v",
    )
    result.assert_outcomes(passed=3, skipped=1)
    assert ran(result)[2] == "test_a[tcp://pay.test:443: refuse]"
    lines_of(result, "connections * refus", "tcp://pay.test:443 * -")


def test_a_happy_path_that_fails_is_not_swept(run: RunPytest) -> None:
    source = SHOP.replace('assert paid == "ok"', "assert False")
    result = run(source, "-rs")
    result.assert_outcomes(failed=1, skipped=1)
    lines_of(result, "*the happy path has failed")
    result = run("", "test_x.py::test_a[sweep]")
    result.assert_outcomes(failed=1)
    lines_of(result, "the happy path fails:", "*assert False*")
    result = run("", f"test_x.py::{CELLS[0]}")
    assert "passed" not in result.parseoutcomes()
    lines_of(result, "*the happy path fails:*")


def test_a_skipped_test_has_a_skipped_sweep(run: RunPytest) -> None:
    result = run("@pytest.mark.skip\n" + SHOP.strip())
    result.assert_outcomes(skipped=2)


def test_nothing_is_swept_while_cassettes_are_recorded(run: RunPytest) -> None:
    result = run(SHOP, "-rs", "--egress-record-mode=rewrite")
    result.assert_outcomes(passed=1, skipped=1)
    lines_of(result, "*nothing is swept while rewrite records cassettes")


def test_fixtures_of_functions_are_made_anew_and_others_kept(run: RunPytest) -> None:
    result = run(
        f"""
MADE = []
@pytest.fixture(scope="module")
def wide(): MADE.append("wide"); yield; MADE.append("end")
@pytest.fixture
def narrow(): MADE.append("narrow")
@pytest.mark.egress_sweep(faults=["503", "429"])
def test_a(egress, wide, narrow):
    egress.intercept_https("pay.test", b"ok")
    attempt(egress, "{PAY}")
def test_b(): assert MADE == ["wide", "narrow", "narrow", "narrow"]
"""
    )
    result.assert_outcomes(passed=5)


def test_a_fixture_that_meets_the_fault_is_judged_as_the_test(run: RunPytest) -> None:
    result = run(
        f"""
@pytest.fixture
def paid(egress):
    egress.intercept_https("pay.test", b"ok")
    paid = attempt(egress, "{PAY}")
    ends(egress, 0 if paid == "ok" else 1)
    assert paid == "ok"
@pytest.mark.egress_sweep(faults=["503"])
def test_a(paid): pass
"""
    )
    result.assert_outcomes(passed=3)
    lines_of(result, "GET pay.test/ *err")


def test_a_parametrized_test_of_a_class_is_swept_for_each_parameter(run: RunPytest) -> None:
    result = run(
        f"""
@pytest.mark.egress_sweep(faults=["503"])
class TestPay:
    @pytest.mark.parametrize("n", [1, 2])
    def test_a(self, egress, n):
        self.n = n
        egress.intercept_https("pay.test", b"ok")
        attempt(egress, f"{PAY}p{{n}}x")
""",
        "-v",
    )
    assert ran(result) == [
        f"TestPay::test_a[{each}]"
        for n in (1, 2)
        for each in (n, f"{n}-GET {PAY}p{n}x: 503", f"{n}-sweep")
    ]


def test_reruns_begin_a_cell_anew(run: RunPytest, pytester: pytest.Pytester) -> None:
    run(SHOP, "--collect-only")
    result = run(LIES, "-p", "rerunfailures", "--reruns=1", subprocess=True)
    assert result.parseoutcomes() == {"passed": 3, "failed": 1, "rerun": 1}
    lines_of(result, "2 runs in * s: 1 bad")


# What is refused.


def test_what_cannot_be_swept_is_refused_where_it_is_declared(run: RunPytest) -> None:
    result = run("@pytest.mark.egress_sweep(faults=['500'])\ndef test_a(egress): pass")
    result.assert_outcomes(errors=1)
    lines_of(result, "*test_a: @pytest.mark.egress_sweep: faults=[[]'500']: it takes a list of*")


def test_a_run_without_the_marker_imports_nothing_of_it(run: RunPytest) -> None:
    result = run(
        """
def test_a(pytestconfig):
    import sys
    assert "pytest_egress.sweep" not in sys.modules
    assert not pytestconfig.pluginmanager.has_plugin("egress-sweep")
""",
        subprocess=True,
    )
    result.assert_outcomes(passed=1)
