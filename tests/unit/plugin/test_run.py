"""A run of pytest: verdicts, how it ends, and runs with other plugins or without."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_egress.plugin.usage import is_overridden
from pytest_egress.targets.sidecars.ready import ReadySidecars
from tests.support.stand_in import UNROUTED_X, RunPytest, lines_of

# Verdicts.


def test_unrouted_traffic_fails_the_call_phase_with_text_only(run: RunPytest) -> None:
    result = run(
        "def test_a(egress): traffic(egress, 'https://x.test/', 'https://x.test/', 'http://y.test/p')"
    )
    result.assert_outcomes(failed=1)
    lines_of(
        result,
        "*_ test_a _*",
        "3 unrouted attempts of shop; nothing got out:",
        "  GET https://x.test/  (2 times)",
        "      to answer it: egress.intercept_https(*",
        "  GET http://y.test/p",
        "test_x.py:3: UnroutedError",
        "*- egress -*",
        "*GET https://x.test/ *UNROUTED",
    )
    lines_of(result, "FAILED test_x.py::test_a - GET https://x.test/: no route claims it (and *")
    result.stdout.no_fnmatch_line("*pytest_egress*")


def test_a_handlers_exception_is_the_cause_of_the_tests_own_failure(run: RunPytest) -> None:
    result = run("""
def test_a(egress):
    def handler(request): raise ValueError("in handler")
    egress.intercept_https("a.test", handler)
    traffic(egress, "https://a.test/")
    assert False, "own"
def test_b(egress):
    egress.intercept_https("a.test", lambda request: 1 / 0)
    traffic(egress, "https://a.test/")
    raise KeyError("own") from OSError("kept")
""")
    result.assert_outcomes(failed=2)
    lines_of(result, "E   ValueError: in handler", "*direct cause*", "E       AssertionError: own")
    lines_of(result, "*OSError: kept*", "*KeyError: 'own'*")
    lines_of(
        result,
        "* egress *",
        "the handler of *test_x.py:10 raised ZeroDivisionError: division by zero",
    )
    raised = "GET https://a.test/: its handler raised"
    lines_of(
        result,
        f"FAILED *test_a - {raised} ValueError: in handler (AssertionError: own*",
        f"FAILED *test_b - {raised} ZeroDivisionError: division by zero (KeyError: 'own')",
    )
    result.stdout.no_fnmatch_line("the handler of *raised ValueError: *")


def test_handler_errors_come_before_unrouted_before_never_called(run: RunPytest) -> None:
    result = run("""
def declare(egress):
    egress.intercept_https("never.test")
    egress.intercept_https("a.test", lambda request: 1 / 0)
def test_handler(egress):
    declare(egress)
    traffic(egress, "https://x.test/", "https://a.test/")
def test_unrouted(egress):
    declare(egress)
    traffic(egress, "https://x.test/")
def test_never(egress):
    declare(egress)
""")
    lines_of(
        result,
        "FAILED *test_handler - GET https://a.test/: its handler raised ZeroDivisionError: division by zero",
        f"FAILED *test_unrouted - {UNROUTED_X}",
        "FAILED *test_never - never.test: never called, intercept_https(*) (and 1 more)",
    )


def test_skip_xfail_and_fail(run: RunPytest) -> None:
    result = run("""
def test_skip(egress): traffic(egress, "https://x.test/"); pytest.skip("later")
def test_imperative(egress): traffic(egress, "https://x.test/"); pytest.xfail("known")
@pytest.mark.xfail
def test_xfail(egress): traffic(egress, "https://x.test/")
@pytest.mark.xfail(run=False)
def test_not_run(egress): traffic(egress, "https://x.test/")
@pytest.mark.xfail(strict=True)
def test_strict(egress): traffic(egress, "https://x.test/")
@pytest.mark.xfail(strict=True)
def test_strict_unexpected(egress): pass
@pytest.mark.xfail(raises=KeyError)
def test_other_reason(egress): traffic(egress, "https://x.test/")
def test_fail(egress): traffic(egress, "https://x.test/"); pytest.fail("mine", pytrace=False)
@pytest.mark.skip
@pytest.mark.intercept_https("never.test")
def test_marked(): pass
@pytest.mark.intercept_https("never.test")
def test_skips(): pytest.skip("later")
""")
    result.assert_outcomes(skipped=3, xfailed=4, failed=3)
    lines_of(
        result,
        f"FAILED *test_other_reason - {UNROUTED_X}",
        f"FAILED *test_fail - {UNROUTED_X} (Failed: mine)",
    )


def test_a_handlers_skip_is_a_handler_error(run: RunPytest) -> None:
    result = run("""
def test_a(egress):
    egress.intercept_https("a.test", lambda request: pytest.skip("in handler"))
    traffic(egress, "https://a.test/")
""")
    result.assert_outcomes(failed=1)
    lines_of(result, "FAILED *test_a - GET https://*: its handler raised Skipped: in handler*")


@pytest.mark.parametrize(
    ("args", "failed"), [(["-x"], 1), (["--maxfail=2"], 2), ([], 3)], ids=["x", "maxfail", "all"]
)
def test_verdicts_stop_the_run_and_are_remembered(
    run: RunPytest, args: list[str], failed: int
) -> None:
    source = """
@pytest.mark.parametrize("n", range(3))
def test_a(egress, n): traffic(egress, "https://x.test/")
"""
    run(source, *args).assert_outcomes(failed=failed)
    again = run("", "--lf", "--collect-only", "-q")
    assert str(again.stdout).count("test_x.py::test_a[") == failed


@pytest.mark.plugins("xdist")
@pytest.mark.slow
def test_a_crashed_worker_is_no_internal_error(run: RunPytest) -> None:
    result = run(
        """
import os
def test_a(egress): os._exit(3)
def test_b(egress): traffic(egress, "https://x.test/")
""",
        "-n1",
        subprocess=True,
    )
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    lines_of(result, "FAILED *test_a*", f"FAILED *test_b - {UNROUTED_X}*")


@pytest.mark.slow
def test_keyboard_interrupt_ends_the_run_as_ever_and_closes_the_session(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("""
import pytest
@pytest.fixture(scope="session", autouse=True)
def watched(session_egress):
    close = session_egress._inner.session.close
    def noted():
        print("the session is closed")
        close()
    session_egress._inner.session.close = noted
""")
    result = run(
        """
def test_a(egress):
    started = threading.Event()
    def stuck(request): started.set(); threading.Event().wait()
    egress.intercept_https("a.test", stuck)
    behind(egress, "https://a.test/")
    started.wait(10)
    raise KeyboardInterrupt
""",
        "-s",
        subprocess=True,
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    lines_of(result, "*the session is closed*")
    result.stdout.no_fnmatch_line("*HandlerError*")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="its code has another table of lines")
def test_an_interrupt_where_python_has_no_line_ends_the_run_as_ever(run: RunPytest) -> None:
    result = run(
        """
from tests.support.lines import without_lines

def interrupted(): raise KeyboardInterrupt

def test_a(): without_lines(interrupted.__code__)()
""",
        subprocess=True,
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    lines_of(result, "*test_x.py:*: KeyboardInterrupt", "*no tests ran*")
    result.stderr.no_fnmatch_line("*Traceback*")


def test_a_run_without_the_terminal_plugin_goes_on(run: RunPytest) -> None:
    result = run("def test_a(): pass\ndef test_b(egress): assert 1 == 2", "-p", "no:terminal")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


def test_the_plugin_can_be_switched_off(run: RunPytest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    result = run(
        """
import sys
@pytest.mark.intercept_https("://")
def test_a(pytestconfig): assert not pytestconfig.pluginmanager.has_plugin("egress-run")
def test_b(egress): pass
""",
        "-pno:egress",
        "-Wignore",
    )
    result.assert_outcomes(passed=1, errors=1)
    lines_of(result, "E       fixture 'egress' not found")


# What it costs a suite that does not use it.

COUNTING = """
import os, sys
calls = 0

def count(frame, event, argument):
    global calls
    calls += event in ("call", "c_call")

import pytest
sys.setprofile(count)
code = pytest.main([*sys.argv[1:], "-q", "-pno:cacheprovider"])
sys.setprofile(None)
print("calls:", calls)
sys.exit(code)
"""


def calls_of_a_test(pytester: pytest.Pytester, script: Path, *args: str) -> float:
    """How many functions pytest calls for a test that does nothing: exact, and the same on any machine."""
    totals = []
    for count in (20, 70):
        source = "\n".join(f"def test_{number}(): pass" for number in range(count))
        path = pytester.makepyfile(**{f"test_of_{count}": source})
        result = pytester.run(sys.executable, script, *args, "--assert=plain", path)
        result.assert_outcomes(passed=count)
        (line,) = (line for line in result.outlines if line.startswith("calls:"))
        totals.append(int(line.split()[1]))
    return (totals[1] - totals[0]) / 50


def test_a_test_that_uses_no_egress_costs_at_most_two_percent_more_calls(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    script = pytester.path / "counting.py"
    script.write_text(COUNTING)
    without = calls_of_a_test(pytester, script)
    assert without > 500
    assert calls_of_a_test(pytester, script, "-p", "pytest_egress.plugin") < without * 1.02


# Sidecars that are ready before they are needed.


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The sessions for whose first container a sidecar was prepared."""
    sessions: list[object] = []
    monkeypatch.setattr("pytest_egress.plugin.run.is_overridden", is_overridden)
    monkeypatch.setattr(
        "pytest_egress.plugin.header.Header.pytest_report_collectionfinish", lambda _: ""
    )
    monkeypatch.setattr(ReadySidecars, "prepare", lambda self: sessions.append(self))
    return sessions


@pytest.mark.parametrize(
    ("source", "args", "count"),
    [
        ("def test_a(): pass\ndef test_b(egress): pass", [], 1),
        ("@pytest.mark.intercept_https('a.test', optional=True)\ndef test_a(): pass", [], 1),
        ("def test_a(): pass", [], 0),
        ("def test_a(egress): pass", ["--collect-only"], 0),
        ("def test_a(egress): pass", ["--setup-plan"], 0),
        ("def test_a(egress): pass", ["-n2"], 0),  # in the controller, which this process is
        (
            "@pytest.fixture(scope='session')\ndef egress_docker_client(): pass\ndef test_a(egress): pass",
            [],
            0,
        ),
    ],
    ids=["used", "marked", "unused", "collect-only", "setup-plan", "controller", "overridden"],
)
def test_a_sidecar_is_prepared_where_a_test_will_need_one(
    run: RunPytest, prepared: list[object], source: str, args: list[str], count: int
) -> None:
    run(source, *args)
    assert len(prepared) == count


def test_none_is_prepared_where_the_collection_has_failed(
    run: RunPytest, prepared: list[object], pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_broken="1 / 0")
    run("def test_a(egress): pass").assert_outcomes(errors=1)
    assert prepared == []
    run("", "--continue-on-collection-errors").assert_outcomes(passed=1, errors=1)
    assert len(prepared) == 1


def test_a_next_one_is_expected_as_long_as_a_later_test_uses_egress(
    run: RunPytest, prepared: list[object]
) -> None:
    run("""
def expects_more(egress): return egress._inner.session.sidecars.expects_more()
def test_a(egress): assert expects_more(egress)
def test_b(): pass
def test_c(egress): assert not expects_more(egress)
def test_d(): pass
""").assert_outcomes(passed=4)


def test_a_loop_that_takes_away_what_it_runs_expects_the_next_test_alone(
    run: RunPytest, prepared: list[object], pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("""
def pytest_runtestloop(session):
    while session.items:
        item = session.items.pop(0)
        following = session.items[0] if session.items else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    return True
""")
    run("""
def expects_more(egress): return egress._inner.session.sidecars.expects_more()
def test_a(egress): assert expects_more(egress)
def test_b(egress): assert not expects_more(egress)
def test_c(): pass
def test_d(egress): assert not expects_more(egress)
""").assert_outcomes(passed=4)
