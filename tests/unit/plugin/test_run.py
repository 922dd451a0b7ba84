"""The pytest side, run by pytest in pytest. A stand-in takes the gateway's place, so no engine is needed.

What needs real containers is in test_verdict.py.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import pytest

import pytest_egress.egress
from pytest_egress import Egress
from pytest_egress.plugin.markers import MARKERS
from pytest_egress.plugin.usage import EGRESS_FIXTURES
from pytest_egress.targets.options import START_OPTIONS
from tests.support.stand_in import HEAD, INI, UNROUTED_X, Run, keep_quiet, lines_of, runner_of


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    keep_quiet(monkeypatch, pytester)


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    return runner_of(pytester)


# Verdicts.


def test_unrouted_traffic_fails_the_call_phase_with_text_only(run: Run) -> None:
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


@pytest.mark.parametrize("style", ["auto", "long", "short", "line", "native", "no"])
@pytest.mark.parametrize("xdist", [False, True])
def test_every_traceback_style_keeps_the_summary_line(run: Run, style: str, xdist: bool) -> None:
    source = """
def test_a(egress): traffic(egress, "https://x.test/")
def test_b(egress):
    def handler(request):
        assert request.host == "b", "message"
    egress.intercept_https("a.test", handler)
    traffic(egress, "https://a.test/")
"""
    result = run(source, f"--tb={style}", *["-n2"] * xdist, subprocess=xdist)
    result.assert_outcomes(failed=2)
    lines_of(result, f"FAILED test_x.py::test_a - {UNROUTED_X}*")
    lines_of(result, "FAILED test_x.py::test_b - GET https://*: its handler raised *")
    if style in ("auto", "long", "short", "native"):
        lines_of(result, "*assert 'a.test' == 'b'")
    if style not in ("native", "no"):
        lines_of(result, "*UnroutedError*")
    result.stdout.no_fnmatch_line("*pytest_egress*")
    result.stdout.no_fnmatch_line("*gateway.py*")


def test_a_handlers_traceback_begins_in_the_handler(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(helpers="def refuse(request):\n    raise ValueError('refused')\n")
    result = run("""
import helpers
def test_a(egress):
    egress.intercept_https("a.test", helpers.refuse)
    traffic(egress, "https://a.test/")
""")
    lines_of(
        result,
        "E       ValueError: refused",
        "helpers.py:2: ValueError",
        "It failed the test:",
        '*the handler of intercept_https("a.test")*raised ValueError: refused',
        "test_x.py:5: HandlerError",
    )
    result.stdout.no_fnmatch_line("*pytest_egress*calls.py*")


def test_junitxml_has_the_text(run: Run, pytester: pytest.Pytester) -> None:
    run("def test_a(egress): traffic(egress, 'https://x.test/')", "--junitxml=j.xml")
    failure = ElementTree.parse(pytester.path / "j.xml").find(".//failure")
    assert failure is not None
    assert failure.attrib["message"].startswith(UNROUTED_X)
    assert (failure.text or "").startswith("1 unrouted attempt of shop; nothing got out:\n")
    assert "\ntest_x.py:3: UnroutedError\n" in (failure.text or "")


LOGS: Final = """
import pytest
@pytest.fixture(autouse=True)
def logs(session_egress, monkeypatch):
    tails = [("container shop", "Traceback: no charge"), ("container db", "ready")]
    monkeypatch.setattr(session_egress.session, "log_sections", lambda window: tails)
"""


@pytest.mark.parametrize("xdist", [False, True])
def test_junitxml_has_the_timeline_and_the_logs(
    run: Run, pytester: pytest.Pytester, xdist: bool
) -> None:
    pytester.makeconftest(LOGS)
    source = """
def test_a(egress): traffic(egress, 'https://x.test/')
def test_b(egress): traffic(egress, 'https://x.test/'); assert 0, "own"
"""
    result = run(source, "--junitxml=j.xml", *["-n1"] * xdist, subprocess=xdist)
    result.assert_outcomes(failed=2)
    for failure in ElementTree.parse(pytester.path / "j.xml").findall(".//failure"):
        _, timeline, logs = re.split("-- (?:egress|container shop) --", failure.text or "")
        assert "GET https://x.test/  UNROUTED" in timeline.replace(" -> no response yet", "")
        assert "Traceback: no charge" in logs
    assert str(result.stdout).count("Traceback: no charge") == 2


def test_hidden_output_hides_the_logs(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(LOGS)
    result = run("def test_a(egress): traffic(egress, 'https://x.test/')", "--show-capture=no")
    result.stdout.no_fnmatch_line("*Traceback: no charge*")
    lines_of(result, f"FAILED *test_a - {UNROUTED_X}")


FAILS: Final = """
from pytest_egress import CommandError
def error():
    error = CommandError(
        "shop exited with code 3\\nThe end of its log:\\n  | Traceback: no charge",
        logs="Traceback: no charge\\n", exit_code=3,
    )
    error.container = "shop"
    return error
"""


def test_a_log_that_a_failure_quotes_comes_no_second_time(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(LOGS)
    result = run(f"""
{FAILS}
def test_a(egress): raise error()
def test_b(egress): raise ValueError("own") from error()
def test_c(egress):
    try: raise error()
    except CommandError: assert 0
""")
    result.assert_outcomes(failed=3)
    result.stdout.no_fnmatch_line("*- container shop -*")
    assert str(result.stdout).count("- container db -") == 3
    assert str(result.stdout).count("  | Traceback: no charge") == 3


def test_the_summary_begins_with_what_was_attempted(run: Run) -> None:
    result = run(f"""
{FAILS}
def test_end(egress): raise error()
def test_unrouted(egress): traffic(egress, 'https://x.test/'); raise error()
def test_handler(egress):
    egress.intercept_https("a.test", lambda request: 1 / 0)
    traffic(egress, "https://a.test/")
    raise error()
def test_only(egress):
    egress.intercept_https("a.test")
    traffic(egress, "https://a.test/")
    egress.assert_no_egress()
def test_address(egress): egress.block(5)
@pytest.mark.egress(timeout=0.1)
def test_stuck(egress):
    started, go = threading.Event(), threading.Event()
    egress.intercept_https("a.test", lambda request: (started.set(), go.wait(5), None)[2])
    behind(egress, "https://a.test/")
    started.wait(10)
def test_own(egress): traffic(egress, 'https://x.test/'); assert 502 == 200
""")
    end = "shop exited with code 3: Traceback: no charge"
    lines_of(
        result,
        f"FAILED test_x.py::test_end - {end}",
        f"FAILED test_x.py::test_unrouted - {UNROUTED_X} ({end})",
        "FAILED test_x.py::test_handler - GET https://a.test/: its handler raised *: division by zero (shop*",
        "FAILED test_x.py::test_only - GET https://a.test/: not expected",
        "FAILED test_x.py::test_address - 5 is no address: it is of type int, and an address is a str",
        "FAILED test_x.py::test_stuck - GET https://a.test/: the handler of * still ran 0.1 s after the test",
        "FAILED test_x.py::test_own - assert 502 == 200",
    )


def test_full_trace_shows_how_a_verdict_was_reached(run: Run) -> None:
    result = run("def test_a(egress): traffic(egress, 'https://x.test/')", "--full-trace")
    lines_of(result, "*plugin/run.py*", f"FAILED test_x.py::test_a - {UNROUTED_X}*")


def test_what_cannot_be_sent_is_told_with_its_place_beside_the_tests_own_failure(run: Run) -> None:
    result = run("""
from pytest_egress import Response
def give(request):
    return {1}
def test_result(egress):
    egress.intercept_https("a.test", give)
    traffic(egress, "https://a.test/")
    assert 500 == 200
def test_json(egress):
    def dump(request):
        return Response(json=object)
    egress.intercept_https("a.test", dump)
    traffic(egress, "https://a.test/")
    assert 500 == 200
def test_second(egress):
    egress.intercept_https("a.test", give)
    egress.intercept_https("b.test", lambda request: 1 / 0)
    traffic(egress, "https://b.test/", "https://a.test/")
    assert 500 == 200
def test_again(egress):
    egress.intercept_https("c.test", lambda request: {2})
    traffic(egress, "https://c.test/", "https://c.test/")
""")
    returned = "give, at test_x.py:5, returned {1} is no answer: *"
    lines_of(result, f"TypeError: {returned}", "E       assert 500 == 200")
    lines_of(
        result,
        ">*return Response(json=object)",
        "E*TypeError: <class 'object'> cannot be sent as JSON: *",
        "test_x.py:13: TypeError",
        "E       assert 500 == 200",
    )
    lines_of(
        result,
        "*ZeroDivisionError: division by zero",
        "E       assert 500 == 200",
        "* egress *",
        f'the handler of intercept_https("a.test")  declared at test_x.py:18 raised TypeError: {returned}',
        "  for GET https://a.test/ of shop",
    )
    assert result.stdout.str().count("  for GET https://c.test/ of shop") == 1


def test_full_trace_shows_what_called_a_handler(run: Run) -> None:
    source = """
def test_a(egress):
    egress.intercept_https("a.test", lambda request: 1 / 0)
    traffic(egress, "https://a.test/")
    assert False, "own"
"""
    run(source).stdout.no_fnmatch_line("*calls.py*")
    lines_of(run(source, "--full-trace"), "*calls.py*", "*division by zero*", "*own")


def test_a_handlers_exception_is_the_cause_of_the_tests_own_failure(run: Run) -> None:
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
    lines_of(result, "FAILED *test_a - AssertionError: own*", "FAILED *test_b - KeyError: 'own'")
    result.stdout.no_fnmatch_line("*raised ValueError: *")


def test_handler_errors_come_before_unrouted_before_never_called(run: Run) -> None:
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


def test_a_test_without_egress_fixtures_is_not_judged(run: Run) -> None:
    result = run("""
shared = []
@pytest.fixture(scope="module")
def shop(module_egress): return module_egress
def test_a(shop): shared.append(shop)
def test_b(request):
    assert not [name for name in request.fixturenames if "egress" in name]
    traffic(shared[0], "https://x.test/")
    assert shared[0].session.ledger.window is None
def test_c(shop): assert shop.session.ledger.window is not None
""")
    result.assert_outcomes(passed=3)
    lines_of(result, "*egress: traffic outside of any test*", "shop: GET https://x.test/*UNROUTED")


@pytest.mark.parametrize("name", sorted(EGRESS_FIXTURES - {"egress_container"}))
def test_a_test_with_an_egress_fixture_of_any_scope_is_judged(run: Run, name: str) -> None:
    result = run(f"""
@pytest.fixture
def indirect({name}): return {name}
def test_a(indirect): traffic(indirect, "https://x.test/")
""")
    lines_of(result, f"FAILED *test_a - {UNROUTED_X}*")


def test_skip_xfail_and_fail(run: Run) -> None:
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
        result, f"FAILED *test_other_reason - {UNROUTED_X}", "FAILED *test_fail - Failed: mine"
    )


def test_a_handlers_skip_is_a_handler_error(run: Run) -> None:
    result = run("""
def test_a(egress):
    egress.intercept_https("a.test", lambda request: pytest.skip("in handler"))
    traffic(egress, "https://a.test/")
""")
    result.assert_outcomes(failed=1)
    lines_of(result, "FAILED *test_a - GET https://*: its handler raised Skipped: in handler*")


def test_a_failed_set_up_shows_the_ledger_and_the_handlers_cause(run: Run) -> None:
    result = run("""
@pytest.fixture
def broken(egress):
    egress.intercept_https("a.test", lambda request: 1 / 0)
    traffic(egress, "https://a.test/", "https://x.test/")
    raise RuntimeError("not ready")
def test_a(broken): pass
def test_b(egress): assert not egress.ledger
""")
    result.assert_outcomes(errors=1, passed=1)
    lines_of(
        result,
        "E   ZeroDivisionError: division by zero",
        "*direct cause*",
        "E       RuntimeError: not ready",
        "*- egress -*",
        "1 unrouted attempt of shop; nothing got out:",
        "      to answer it: egress.intercept_https(*",
        "*GET https://a.test/*handler raised ZeroDivisionError",
        "*GET https://x.test/*UNROUTED",
    )
    assert str(result.stdout).count("- egress -") == 1


def test_what_would_answer_is_shown_beside_any_other_failure(run: Run) -> None:
    result = run("""
def test_own(egress):
    egress.intercept_https("x.test", path="/v1", optional=True)
    traffic(egress, "https://x.test/v2")
    assert 502 == 200
def test_handler(egress):
    egress.intercept_https("a.test", lambda request: 1 / 0)
    traffic(egress, "https://a.test/", "https://x.test/v2")
def test_verdict(egress): traffic(egress, "https://x.test/v2")
""")
    result.assert_outcomes(failed=3)
    told = ["1 unrouted attempt of shop; nothing got out:", "", "  GET https://x.test/v2"]
    lines_of(
        result,
        "E *assert 502 == 200",
        "*- egress -*",
        *told,
        "      nearest route: intercept_https(?x.test?, path='/v1')",
        "      to answer it: egress.intercept_https(*",
        "*GET https://x.test/v2 *UNROUTED",
        "*: HandlerError",
        "*- egress -*",
        *told,
        "*GET https://x.test/v2 *UNROUTED",
        *told,
        "*: UnroutedError",
        "*- egress -*",
        "*GET https://x.test/v2 *UNROUTED",
    )
    assert str(result.stdout).count(told[0]) == 3


def test_sections_are_of_failures_only_and_not_repeated(run: Run) -> None:
    result = run(
        """
@pytest.fixture
def teardown():
    yield
    raise RuntimeError("late")
def test_a(teardown, egress): egress.intercept_https("a.test"); traffic(egress, "https://a.test/")
def test_b(teardown, egress): traffic(egress, "https://x.test/")
""",
        "-rA",
    )
    result.assert_outcomes(passed=1, failed=1, errors=2)
    assert str(result.stdout).count("- egress -") == 1


def test_container_logs_follow_the_ledger(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
import pytest
@pytest.fixture
def logs(session_egress, monkeypatch):
    tails = [("container shop", "Traceback: no charge"), ("container db", "ready")]
    monkeypatch.setattr(session_egress.session, "log_sections", lambda window: tails)
""")
    result = run("def test_a(logs, egress): traffic(egress, 'https://x.test/')")
    lines_of(
        result,
        "*- egress -*",
        "*- container shop -*",
        "Traceback: no charge",
        "*- container db -*",
        "ready",
    )


def test_handlers_are_captured_into_their_test_and_see_its_context(run: Run) -> None:
    result = run("""
import contextvars, logging
var = contextvars.ContextVar("var")
def test_a(egress, caplog):
    var.set("of the test")
    def handler(request): print("printed", var.get()); logging.warning("logged")
    egress.intercept_https("a.test", handler)
    traffic(egress, "https://a.test/")
    assert "logged" in caplog.text
    assert 0
""")
    lines_of(
        result,
        "*- egress -*",
        "*Captured stdout call*",
        "printed of the test",
        "*Captured log call*",
        "*logged",
    )


def test_assertions_of_ours_end_at_the_users_line(run: Run) -> None:
    result = run(
        "def test_a(egress):\n    route = egress.intercept_https('a.test')\n    route.assert_called_once()"
    )
    lines_of(
        result,
        ">   *route.assert_called_once()",
        'E       pytest_egress.errors.CallError: intercept_https("a.test"): expected 1 call*',
        "test_x.py:5: CallError",
    )
    result.stdout.no_fnmatch_line("*calls.py*")


def test_in_flight_requests_are_drained_into_the_verdict(run: Run) -> None:
    result = run("""
def test_a(egress):
    started, ended = threading.Event(), threading.Event()
    def slow(request): started.set(); ended.wait(0.2); raise RuntimeError("late")
    egress.intercept_https("a.test", slow)
    behind(egress, "https://a.test/")
    started.wait(10)
""")
    result.assert_outcomes(failed=1)
    lines_of(
        result, "*RuntimeError: late", "*It failed the test:", "the handler of *RuntimeError: late"
    )


def test_a_handler_that_never_returns_fails_the_test_with_its_line(run: Run) -> None:
    result = run("""
@pytest.mark.egress(timeout=0.1)
def test_a(egress):
    started = threading.Event()
    def stuck(request): started.set(); threading.Event().wait()
    egress.intercept_https("a.test", stuck)
    behind(egress, "https://a.test/")
    started.wait(10)
""")
    result.assert_outcomes(failed=1)
    lines_of(result, "*still ran 0.1 s after the test*", "  for GET https://a.test/")
    lines_of(result, "FAILED *test_a - GET https://*: *handler*")


# Kinds of tests, and other plugins.


def test_unittest_and_async_unittest(run: Run) -> None:
    result = run("""
class TestU(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _egress(self, egress): self.egress = egress
    def test_verdict(self): traffic(self.egress, "https://x.test/")
    def test_own(self):
        self.egress.intercept_https("a.test", lambda request: 1 / 0)
        traffic(self.egress, "https://a.test/")
        self.fail("own")
    def test_skip(self): traffic(self.egress, "https://x.test/"); self.skipTest("no")
    @unittest.expectedFailure
    def test_expected(self): traffic(self.egress, "https://x.test/"); self.fail()
    @pytest.mark.intercept_https("never.test")
    def test_marker(self): pass
class TestA(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def _egress(self, egress): self.egress = egress
    async def test_verdict(self): await asyncio.to_thread(traffic, self.egress, "https://x.test/")
    async def test_own(self):
        await asyncio.to_thread(traffic, self.egress, "https://x.test/")
        self.fail("own")
""")
    result.assert_outcomes(failed=5, skipped=1, xfailed=1)
    lines_of(result, "*ZeroDivisionError*", "*direct cause*", "*AssertionError: own")
    lines_of(result, "FAILED *TestU::test_marker - never.test: never called*")
    lines_of(result, f"FAILED *TestU::test_verdict - {UNROUTED_X}*")
    lines_of(result, f"FAILED *TestA::test_verdict - {UNROUTED_X}*")


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio(run: Run, mode: str) -> None:
    marker = "@pytest.mark.asyncio" if mode == "strict" else ""
    result = run(
        f"""
import pytest_asyncio
@pytest_asyncio.fixture
async def ready(egress): egress.intercept_https("a.test"); return egress
{marker}
async def test_a(ready): await asyncio.to_thread(traffic, ready, "https://a.test/", "https://x.test/")
{marker}
@pytest.mark.intercept_https("never.test")
async def test_b(): pass
""",
        f"--asyncio-mode={mode}",
        "-Wignore",
    )
    result.assert_outcomes(failed=2)
    lines_of(result, f"*test_a - {UNROUTED_X}*", "*test_b - never.test: never called*")


def test_anyio(run: Run) -> None:
    result = run(
        """
@pytest.fixture
def anyio_backend(): return "asyncio"
@pytest.mark.anyio
async def test_a(egress): await asyncio.to_thread(traffic, egress, "https://x.test/")
""",
        "-Wignore",
    )
    result.assert_outcomes(failed=1)
    lines_of(result, f"*test_a - {UNROUTED_X}*")


def test_a_doctest_that_asks_for_egress_in_its_call_phase(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.maketxtfile(
        test_doc=">>> from gateway import attempt\n"
        ">>> attempt(getfixture('egress'), 'https://x.test/')\n502\n"
    )
    result = run("")
    result.assert_outcomes(failed=1)
    lines_of(result, f"FAILED *test_doc.txt* - {UNROUTED_X}*")


def test_a_fixture_that_asks_for_egress_when_it_runs_opens_the_window(run: Run) -> None:
    result = run("""
@pytest.fixture
def dynamic(request): return request.getfixturevalue("egress")
def test_a(dynamic): traffic(dynamic, "https://x.test/")
def test_b(): pass
@pytest.fixture
def broken(dynamic): traffic(dynamic, "https://x.test/"); raise RuntimeError("not ready")
def test_c(broken): pass
def test_d(egress): assert not egress.ledger
""")
    result.assert_outcomes(failed=1, passed=2, errors=1)
    lines_of(result, f"FAILED *test_a - {UNROUTED_X}*")


def test_a_wider_fixture_sees_the_calls_of_its_routes_lifetime_while_it_is_set_up(
    run: Run,
) -> None:
    result = run("""
from pytest_egress.ledger.windows import Window

@pytest.fixture(scope="module")
def shop(module_egress):
    hook = module_egress.intercept_https("hooks.test")
    module_egress.session.ledger.count(hook, Window(), "the call of a container's start")
    assert hook.wait_for_call(timeout=0) == "the call of a container's start"
    return hook
@pytest.mark.parametrize("n", [1, 2])
def test_a(egress, shop, n): assert not shop.called
""")
    result.assert_outcomes(passed=2)


def test_reruns_have_a_window_each(run: Run) -> None:
    result = run(
        """
runs = []
@pytest.mark.flaky(reruns=2)
def test_a(egress):
    runs.append(1)
    traffic(egress, *["https://x.test/"] * (len(runs) < 3))
""",
        "-Wignore",
    )
    assert result.parseoutcomes() == {"passed": 1, "rerun": 2}


def test_session_fixtures_can_be_set_up_again(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
import pytest
@pytest.fixture(scope="session", params=[1, 2])
def kind(request): return request.param
@pytest.fixture(scope="session")
def session_egress(kind, session_egress): return session_egress
""")
    result = run("def test_a(egress): traffic(egress, 'https://x.test/')", "--setup-show")
    result.assert_outcomes(failed=2)
    lines_of(result, f"FAILED *test_a[[]1] - {UNROUTED_X}*", f"FAILED *test_a[[]2] - {UNROUTED_X}*")


def test_hypothesis_counts_all_examples_of_a_call(run: Run) -> None:
    result = run(
        """
from hypothesis import given, settings, strategies as st, HealthCheck
@settings(max_examples=5, suppress_health_check=list(HealthCheck), database=None)
@given(n=st.integers())
def test_a(egress, n): attempt(egress, "https://x.test/")
""",
        "-Wignore",
    )
    lines_of(result, "5 unrouted attempts of shop*", "  GET https://x.test/  (5 times)")


def test_subtests(run: Run) -> None:
    if pytest.version_tuple < (9,):
        pytest.importorskip("pytest_subtests")
    result = run("""
def test_a(egress, subtests):
    for i in range(2):
        with subtests.test(i=i): traffic(egress, "https://x.test/"); assert i
""")
    lines_of(result, "*SUBFAIL* - assert 0", "FAILED *test_a - GET https://*: no route claims it*")


def test_pytest_timeout_is_the_tests_own_failure(run: Run) -> None:
    result = run(
        """
@pytest.mark.timeout(3)
def test_a(egress): traffic(egress, "https://x.test/"); threading.Event().wait(30)
""",
        "--timeout-method=signal",
        "-Wignore",
    )
    lines_of(result, "FAILED *test_a - Failed: Timeout*")


@pytest.mark.parametrize(
    ("args", "failed"), [(["-x"], 1), (["--maxfail=2"], 2), ([], 3)], ids=["x", "maxfail", "all"]
)
def test_verdicts_stop_the_run_and_are_remembered(run: Run, args: list[str], failed: int) -> None:
    source = """
@pytest.mark.parametrize("n", range(3))
def test_a(egress, n): traffic(egress, "https://x.test/")
"""
    run(source, *args).assert_outcomes(failed=failed)
    again = run("", "--lf", "--collect-only", "-q")
    assert str(again.stdout).count("test_x.py::test_a[") == failed


@pytest.mark.parametrize("xdist", [False, True])
def test_traffic_outside_of_tests_is_summarised(run: Run, xdist: bool) -> None:
    result = run(
        """
@pytest.fixture(scope="module")
def shared(module_egress):
    yield module_egress
    traffic(module_egress, "https://teardown.test/")
def test_a(shared, egress): pass
def test_b(shared, egress): pass
""",
        *["-n1"] * xdist,
        subprocess=xdist,
    )
    result.assert_outcomes(passed=2)
    line = "shop: GET https://teardown.test/*UNROUTED"
    lines_of(result, "*egress: traffic outside of any test*", "[[]gw0] " * xdist + line)


def test_both_workers_report_to_the_summary(run: Run, pytester: pytest.Pytester) -> None:
    for name in "ab":
        source = f"""
@pytest.fixture(scope="module")
def shared(module_egress):
    yield module_egress
    traffic(module_egress, "https://{name}.test/")
def test_{name}(shared): pass
"""
        pytester.makepyfile(**{f"test_{name}": HEAD + source})
    result = run("", "-n2", "--dist=loadfile", subprocess=True)
    result.assert_outcomes(passed=2)
    for gateway in ("gw0", "gw1"):
        lines_of(result, f"[[]{gateway}] shop: GET https://?.test/*")


def test_a_crashed_worker_is_no_internal_error(run: Run) -> None:
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


def test_keyboard_interrupt_ends_the_run_as_ever_and_closes_the_session(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("""
import pytest
@pytest.fixture(scope="session", autouse=True)
def watched(session_egress):
    close = session_egress.session.close
    def noted():
        print("the session is closed")
        close()
    session_egress.session.close = noted
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


def test_setup_only_closes_the_window(run: Run) -> None:
    result = run(
        """
windows = []
@pytest.fixture
def last(egress):
    yield
    windows.append(egress.session.ledger.window)
    assert windows == [None]
def test_a(last): pass
""",
        "--setup-only",
    )
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*ERROR*")


# Scopes and markers.


def test_scopes_nest_and_the_nearest_route_answers(run: Run) -> None:
    result = run("""
def answered(egress, *hosts): return [attempt(egress, f"https://{host}.test/") for host in hosts]
@pytest.fixture(scope="session", autouse=True)
def wide(session_egress):
    session_egress.intercept_https("a.test", lambda r: "session")
    session_egress.intercept_https("s.test", lambda r: "session")
@pytest.fixture(scope="module")
def shop(module_egress):
    module_egress.intercept_https("m.test", lambda r: "module")
    module_egress.intercept_https("a.test", lambda r: "module")
@pytest.fixture(scope="class")
def klass(class_egress): class_egress.intercept_https("c.test", lambda r: "class")
@pytest.mark.usefixtures("klass", "shop")
class TestC:
    def test_a(self, egress):
        egress.intercept_https("a.test", lambda r: "test")
        assert answered(egress, *"smca") == ["session", "module", "class", "test"]
    def test_b(self, egress): assert answered(egress, "a") == ["module"]
@pytest.mark.egress(unrouted="block")
def test_c(egress): assert answered(egress, "c") == [502]
""")
    result.assert_outcomes(passed=3)


def test_a_marker_is_enough_and_stays_with_its_parameter(run: Run) -> None:
    result = run("""
@pytest.mark.intercept_https("a.test")
def test_a(): pass
@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.intercept_https("a.test")), 2])
def test_p(n, request): assert ("egress" in request.fixturenames) == (n == 1)
def test_none(request): assert not [name for name in request.fixturenames if "egress" in name]
""")
    result.assert_outcomes(failed=2, passed=2)
    lines_of(result, "FAILED *test_a - *: never called*", "FAILED *test_p[[]1] - *: never called*")


@pytest.mark.parametrize(
    ("marker", "url", "answer"),
    [
        ("intercept_https('a.test', {'id': 1})", "https://a.test/", '{"id": 1}'),
        ("intercept_http('a.test', b'plain', path='/p')", "http://a.test/p", "plain"),
        ("egress_block('a.test')", "https://a.test/", 502),
        ("egress(unrouted='block')", "https://a.test/", 502),
    ],
)
def test_each_marker_does_as_it_says(run: Run, marker: str, url: str, answer: object) -> None:
    result = run(
        f"""
@pytest.mark.{marker}
def test_a(request):
    egress = request.getfixturevalue("egress")
    assert "egress" in request.fixturenames
    assert attempt(egress, {url!r}) == {answer!r}
""",
        "--strict-markers",
    )
    result.assert_outcomes(passed=1)


def test_the_topmost_of_stacked_decorators_wins(run: Run) -> None:
    result = run("""
@pytest.mark.intercept_https("a.test", b"top", optional=True)
@pytest.mark.intercept_https("a.test", b"bottom", optional=True)
def test_a(egress): assert attempt(egress, "https://a.test/") == "top"
@pytest.mark.egress(unrouted="block", timeout=1)
@pytest.mark.egress(unrouted="fail", assert_all_called=False)
def test_b(egress):
    egress.intercept_https("never.test")
    attempt(egress, "https://x.test/")
@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.intercept_https("a.test", b"param"))])
@pytest.mark.intercept_https("a.test", b"decorator", optional=True)
def test_c(n, egress): assert attempt(egress, "https://a.test/") == "param"
""")
    result.assert_outcomes(passed=3)


def test_markers_of_classes_and_modules_are_routes_of_that_scope_and_never_required(
    run: Run,
) -> None:
    result = run("""
pytestmark = [
    pytest.mark.intercept_https("a.test", b"module"),
    pytest.mark.intercept_https("m.test", b"module"),
]
def hosts(egress): return [route.address for route in egress.routes]
@pytest.mark.intercept_https("a.test", b"class")
class TestC:
    @pytest.mark.intercept_https("a.test", b"test")
    def test_own(self, egress): assert attempt(egress, "https://a.test/") == "test"
    def test_class(self, egress, class_egress, module_egress):
        assert attempt(egress, "https://a.test/") == "class"
        assert (hosts(egress), hosts(class_egress), hosts(module_egress)) == (
            [], ["a.test"], ["a.test", "m.test"])
    class TestInner:
        @pytest.mark.usefixtures("egress")
        def test_inner(self, egress): assert attempt(egress, "https://a.test/") == "class"
@pytest.mark.intercept_https("f.test", optional=True)
def test_module(egress, class_egress, module_egress):
    assert attempt(egress, "https://a.test/") == "module"
    assert (hosts(egress), hosts(class_egress)) == (["f.test"], [])
def test_unused(): pass
""")
    result.assert_outcomes(passed=5)


def test_a_packages_marker_is_a_route_of_its_modules(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
import pytest
def pytest_collection_modifyitems(items):
    package = next(node for node in items[0].listchain() if node.name == "pack")
    package.add_marker(pytest.mark.intercept_https("a.test", b"package"))
""")
    source = """
def test_a(request):
    egress = request.getfixturevalue("egress")
    assert "egress" in request.fixturenames
    assert attempt(egress, "https://a.test/") == "package"
"""
    (pytester.mkpydir("pack") / "test_y.py").write_text(HEAD + source)
    run("").assert_outcomes(passed=1)


def test_a_marker_that_is_added_while_collecting_is_enough(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("""
import pytest
def pytest_collection_modifyitems(items):
    items[0].add_marker(pytest.mark.intercept_https("never.test"))
""")
    result = run("def test_a(): pass\ndef test_b(): pass")
    lines_of(result, "FAILED *test_a - *: never called*")
    result.assert_outcomes(failed=1, passed=1)


def test_the_markers_routes_answer_what_other_fixtures_set_off(run: Run) -> None:
    result = run("""
@pytest.fixture
def client(module_egress): traffic(module_egress, "https://a.test/")
@pytest.mark.intercept_https("a.test")
def test_a(client, egress): egress["a.test"].assert_called_once()
""")
    result.assert_outcomes(passed=1)


CONTAINERS: Final = """
import pytest
@pytest.fixture(autouse=True)
def no_engine(monkeypatch):
    from pytest_egress.egress import Egress
    def start(self, image, command=None, **options):
        print("started", image, command, options, [route.address for route in self.routes])
        return image
    monkeypatch.setattr(Egress, "start", start)
"""


def test_the_container_marker_alone_starts_the_container(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(CONTAINERS)
    result = run(
        """
@pytest.fixture
def routes(egress): egress.intercept_https("a.test", optional=True)
@pytest.mark.egress_container("shop:latest", ["serve"], env={"A": "1"})
def test_a(routes): pass
@pytest.mark.egress_container("base:latest")
class TestC:
    @pytest.mark.egress_container("top:latest")
    @pytest.mark.egress_container("bottom:latest")
    def test_own(self, egress_container): assert egress_container == "top:latest"
    def test_class(self, egress_container): assert egress_container == "base:latest"
def test_without(egress_container): pass
""",
        "-rP",
    )
    result.assert_outcomes(passed=3, errors=1)
    lines_of(result, "started shop:latest [[]'serve'] {'env': {'A': '1'}} [[]'a.test']")
    lines_of(
        result, "E *UsageError: *@pytest.mark.egress_container(image, command=None, ?*options)*"
    )


def test_a_session_that_cannot_be_had_is_one_error_of_its_test(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(docker="")  # of the project: `python -m pytest` takes it for docker-py
    result = run("def test_a(egress): pass", subprocess=True)
    result.assert_outcomes(errors=1)
    lines_of(result, "E *ModuleNotFoundError: No module named 'docker.*")


@pytest.mark.parametrize(
    "args", [[], ["--continue-on-collection-errors"], ["--collect-only"], ["-n2"]], ids=str
)
def test_a_malformed_marker_is_an_error_of_that_tests_collection(run: Run, args: list[str]) -> None:
    result = run(
        """
@pytest.mark.intercept_https("http://x.test")
def test_bad(): pass
def test_good(): pass
@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.intercept_https("")), 2])
def test_p(n): pass
""",
        *args,
        subprocess="-n2" in args,
    )
    lines_of(result, "test_x.py:*: test_bad: @pytest.mark.intercept_https: *'http://x.test'*")
    lines_of(result, "ERROR test_x.py::test_bad*", "ERROR test_x.py::test_p[[]1]*")
    outcomes = result.parseoutcomes()
    assert outcomes["errors"] == 2
    goes_on = args in (["-n2"], ["--continue-on-collection-errors"])
    assert outcomes.get("passed", 0) == (2 if goes_on else 0)


def test_beside_a_malformed_marker_a_named_test_runs(run: Run) -> None:
    source = "@pytest.mark.egress_block('')\ndef test_bad(): pass\ndef test_good(): pass\n"
    run(source, "test_x.py::test_good").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("marker", "text"),
    [
        ("intercept_https", "*"),
        ("intercept_https()", "*address*"),
        ("intercept_https('a.test', 'text')", "*'text'*Response(text='text')*"),
        ("intercept_https('a.test', colour=1)", "*colour=*it takes method, path,*"),
        ("intercept_http('a.test', path='x')", "*path='x'*"),
        ("egress_block('host:99999')", "*99999*"),
        (
            "intercept_tcp('db.test', 503)",
            "*503 is no answer of a raw route: it takes a function of *",
        ),
        ("intercept_tcp('db.test', b'', path='/')", "*path=; it takes times, optional, name"),
        ("intercept_tls('db.test', lambda: 1)", "*with one argument, a connected socket"),
        (
            "egress_passthrough()",
            "*passthrough() missing 1 required positional argument: 'address'",
        ),
        ("egress_passthrough('a.test/x')", "*'a.test/x' is no address: it has a path*"),
        ("egress_dns('a.test')", "*dns() missing 1 required positional argument: 'answer'"),
        ("egress_dns('a.test:53', '192.0.2.7')", "*'a.test:53': names have no port in DNS*"),
        ("egress_dns('192.0.2.7', '192.0.2.7')", "*'192.0.2.7': DNS is asked for names*"),
        ("egress_dns('a.test', 'nxdomain')", "*'nxdomain' is no answer of DNS: it takes an IP *"),
        ("egress_dns('a.test', 1)", "*1 is no answer of DNS: it takes an IP address, a list *"),
        ("egress_container()", "*image*"),
        ("egress_container('shop', network='host')", "*network='host' is refused*"),
        ("egress_container('shop', wait=8080)", "*wait= takes port_open(port), *, not 8080"),
        ("egress_container('shop', timeout=None)", "*timeout=None: it takes a number of seconds"),
        (
            "egress_container('shop', files={'/a': 1})",
            "*files=*'/a': ...* takes str, bytes or a Path*",
        ),
        ("egress_container('shop', enviroment={})", "*there is no option enviroment=; *"),
        ("egress_container('shop', env={'A': None})", "*env?'A'? is None: leave it out, *"),
        ("egress('block')", "*'block' needs a name; it takes the keywords unrouted, *"),
        (
            "egress(unrouted='ignore')",
            "*unrouted='ignore': it takes 'fail', 'block' or 'passthrough'",
        ),
        ("egress(dns='none')", "*dns='none': it takes 'synthetic' or 'strict'"),
        ("egress(assert_all_called=1)", "*assert_all_called=1: it takes True or False"),
        ("egress(timeout='5')", "*timeout='5': it takes a number of seconds"),
        ("egress(timeout=float('nan'))", "*timeout=nan: it takes a number of seconds"),
        ("egress(timeout=-1)", "*timeout=-1: it takes a number of seconds"),
        ("egress(colour=1)", "*does not take colour=; it takes the keywords unrouted, *"),
    ],
)
def test_a_malformed_marker_is_refused_with_its_value_and_the_accepted_forms(
    run: Run, marker: str, text: str
) -> None:
    result = run(f"@pytest.mark.{marker}\ndef test_a(): pass\n")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    name = marker.partition("(")[0]
    lines_of(result, f"test_x.py:3: test_a: @pytest.mark.{name}: {text}")


def test_the_markers_options_of_a_container_are_those_of_start() -> None:
    named = [
        parameter.name
        for parameter in inspect.signature(Egress.start).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    assert named == list(START_OPTIONS)


def test_a_malformed_marker_of_a_module_names_every_test(run: Run) -> None:
    result = run(
        "pytestmark = pytest.mark.egress(colour=1)\ndef test_a(): pass\ndef test_b(): pass\n"
    )
    lines_of(result, "test_x.py:4: test_a: *colour*", "test_x.py:5: test_b: *colour*")


def test_markers_and_fixtures_are_listed(run: Run) -> None:
    listed = run("", "--markers")
    for name in MARKERS:
        lines_of(listed, f"@pytest.mark.{name}(*): ?*")
    fixtures = run("", "--fixtures", "-p", "no:cacheprovider")
    for name in (*EGRESS_FIXTURES, "egress_ca", "egress_docker_client"):
        lines_of(fixtures, f"{name}*-- *fixtures.py:*", "    ?*")
    lines_of(fixtures, "    Routes, containers, ledger and assertions of this test.")


def test_collection_starts_nothing(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
import pytest
@pytest.fixture(scope="session")
def egress_docker_client(): raise AssertionError("contacted")
def pytest_unconfigure():
    import sys
    print("docker imported:", "docker" in sys.modules)
""")
    source = "@pytest.mark.egress_container('shop')\n@pytest.mark.egress_block('a.test')\ndef test_a(egress): pass"
    result = run(source, "--collect-only", "-s", subprocess=True)
    assert result.ret == 0
    lines_of(result, "docker imported: False")


# Fixtures that users override.


def test_the_client_and_the_ca_can_be_overridden_and_outlive_the_session(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("""
import pytest
@pytest.fixture(scope="session")
def egress_docker_client():
    print("client made")
    yield "the client"
    print("client gone")
@pytest.fixture(scope="session")
def egress_ca():
    print("CA made")
    return "the CA"
@pytest.fixture(scope="session", autouse=True)
def watched(session_egress):
    close = session_egress.session.close
    def noted(): close(); print("session closed")
    session_egress.session.close = noted
""")
    result = run(
        """
def test_a(egress): print("test_a")
def test_b(egress, pytestconfig):
    engine = egress.session.engine
    from pytest_egress.plugin.run import RUN
    run = pytestconfig.stash[RUN]
    assert (run.fixture("egress_ca"), run.fixture("egress_docker_client")) == ("the CA", "the client")
    assert run.fixture("egress_docker_client") == "the client"
""",
        "-s",
    )
    result.assert_outcomes(passed=2)
    lines = [line.rpartition("test_x.py ")[2].lstrip(".") for line in result.outlines]
    wanted = ["test_a", "CA made", "client made", "session closed", "client gone"]
    assert [line for line in lines if line in wanted] == wanted


def test_nothing_is_contacted_before_a_container_starts(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("""
import pytest
@pytest.fixture(scope="session")
def egress_docker_client(): raise AssertionError("contacted")
@pytest.fixture(scope="session")
def egress_ca(): raise AssertionError("made")
""")
    result = run("""
def test_a(egress): pass
def test_b(egress):
    with pytest.raises(AssertionError, match=r"\\Acontacted"):
        egress.start("shop:latest")
""")
    result.assert_outcomes(passed=2)


# Options.


def policy_test(expected: str) -> str:
    return f"def test_a(egress): assert egress.session.ledger.window.policy == {expected!r}\n"


@pytest.mark.parametrize(
    ("ini", "environment", "args", "marker", "expected"),
    [
        ("", "", [], "", "fail"),
        ("block", "", [], "", "block"),
        ("block", "fail", [], "", "fail"),
        ("fail", "fail", ["--egress-unrouted=block"], "", "block"),
        ("fail", "fail", ["--egress-unrouted=fail"], "block", "block"),
    ],
    ids=["default", "ini", "environment", "command-line", "marker"],
)
def test_marker_then_command_line_then_environment_then_ini_then_default(
    run: Run,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    ini: str,
    environment: str,
    args: list[str],
    marker: str,
    expected: str,
) -> None:
    if ini:
        pytester.makeini(f"{INI}egress_unrouted = {ini}")
    monkeypatch.setenv("PYTEST_EGRESS_UNROUTED", environment)
    mark = f"@pytest.mark.egress(unrouted={marker!r})\n" if marker else ""
    run(mark + policy_test(expected), *args).assert_outcomes(passed=1)


def test_the_options_hold_outside_of_tests_too(run: Run) -> None:
    result = run(
        """
def test_a(module_egress, egress):
    session = egress.session
    assert (module_egress.between.policy, module_egress.between.dns) == ("passthrough", "strict")
    assert session.ledger.window.dns == "synthetic"
test_a = pytest.mark.egress(dns="synthetic")(test_a)
""",
        "--egress-unrouted=passthrough",
        "--egress-dns=strict",
    )
    result.assert_outcomes(passed=1)


def test_options_of_markers_are_merged_key_by_key(run: Run) -> None:
    result = run("""
from pytest_egress.plugin.case import CASE
from pytest_egress.plugin.options import Options
pytestmark = pytest.mark.egress(unrouted="block", timeout=1)
@pytest.mark.egress(timeout=2, assert_all_called=False)
class TestC:
    @pytest.mark.egress(timeout=3)
    def test_a(self, request):
        options = request.node.stash[CASE].options
        assert options == Options(unrouted="block", timeout=3, assert_all_called=False)
""")
    result.assert_outcomes(passed=1)


def test_assert_all_called_can_be_switched_off(run: Run) -> None:
    result = run("""
@pytest.mark.intercept_https("never.test")
@pytest.mark.egress(assert_all_called=False)
def test_a(): pass
""")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("ini", "variables", "args", "text"),
    [
        (
            "",
            {},
            ["--egress-unrouted=ignore"],
            "--egress-unrouted=ignore: it takes fail, block or passthrough",
        ),
        (
            "",
            {"PYTEST_EGRESS_UNROUTED": "ignore"},
            [],
            "PYTEST_EGRESS_UNROUTED=ignore in the environment: it takes fail, block or passthrough",
        ),
        (
            "egress_unrouted = ignore",
            {},
            [],
            "egress_unrouted = ignore in *tox.ini: it takes fail, block or passthrough",
        ),
        (
            "egress_dns = none",
            {},
            [],
            "egress_dns = none in *tox.ini: it takes synthetic or strict",
        ),
        (
            "",
            {"PYTEST_EGRESS_LINK": "rope"},
            [],
            "PYTEST_EGRESS_LINK=rope in the environment: it takes auto, descriptor or stream",
        ),
        (
            "",
            {"PYTEST_EGRESS_KEEP": "maybe"},
            [],
            "PYTEST_EGRESS_KEEP=maybe in the environment: it takes one of 1, true, *",
        ),
        (
            "egress_keep = maybe",
            {},
            [],
            "egress_keep in *tox.ini: *'maybe'*it takes one of 1, true, *",
        ),
        (
            "",
            {},
            ["--egress-engines=unix:///a.sock,ci@b.test"],
            "--egress-engines: 'ci@b.test' is no address of an engine; it takes what DOCKER_HOST does, *",
        ),
        (
            "",
            {"PYTEST_EGRESS_ENGINES": "unix://"},
            [],
            "PYTEST_EGRESS_ENGINES in the environment: 'unix://' is no address of an engine; *",
        ),
        (
            "egress_engines =\n  unix:///a.sock\n  /b.sock",
            {},
            [],
            "egress_engines in *tox.ini: '/b.sock' is no address of an engine; *",
        ),
    ],
)
def test_a_bad_option_names_its_value_its_source_and_the_valid_ones(
    run: Run,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    ini: str,
    variables: dict[str, str],
    args: list[str],
    text: str,
) -> None:
    pytester.makeini(INI + ini)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = run("def test_a(): pass", *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {text}"])


def test_the_header_says_only_what_is_set(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("def test_a(): pass").stdout.no_fnmatch_line("*egress: *")
    result = run("", "--egress-unrouted=block", "--egress-dns=strict", "--egress-keep")
    lines_of(result, "egress: unrouted=block, dns=strict, keeps containers of failed tests")
    lines_of(
        run("", "--egress-engines=unix:///a,tcp://b:1"), "egress: engines=unix:///a, tcp://b:1"
    )
    monkeypatch.setenv("PYTEST_EGRESS_KEEP", "on")
    lines_of(run(""), "egress: keeps containers of failed tests")
    monkeypatch.setenv("PYTEST_EGRESS_KEEP", "0")
    run("").stdout.no_fnmatch_line("*egress: *")


KEPT: Final = """
import pytest
from pytest_egress.egress import Egress

class Gateway:
    def revise(self, test_over=False): return []
    def turn_away(self): pass
class Owner:
    scope = "test"
class Kept:
    name, id, loss, born = "shop", "0123456789abcdef", "", None
    owner, killed = Owner, ""
    gateway = Gateway()
    def settle(self): pass
    def log_tail(self): return ""
    def is_running(self): return False
    def finish(self): return ""
    def close(self, keep=False): print("closed with", keep)

@pytest.fixture
def shop(egress): egress.containers.append(Kept())
@pytest.fixture(scope="module")
def shared(module_egress): module_egress.containers.append(Kept())
"""


@pytest.mark.parametrize("fixture", ["shop", "shared"])
@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("args", [[], ["--egress-keep"]], ids=["default", "keep"])
def test_only_egress_keep_leaves_containers_and_only_of_failed_tests(
    run: Run, pytester: pytest.Pytester, fixture: str, passes: bool, args: list[str]
) -> None:
    pytester.makeconftest(KEPT)
    result = run(f"def test_a({fixture}): assert {passes}", "-s", *args)
    kept = bool(args) and not passes
    lines_of(result, f"*closed with {kept}*")
    if kept:
        lines_of(
            result,
            "*- egress keeps -*",
            "shop: docker logs 0123456789ab",
            "to remove: docker rm --force 0123456789ab",
        )
    else:
        result.stdout.no_fnmatch_line("*docker rm*")


def test_a_rerun_that_passes_leaves_no_container(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(KEPT)
    source = """
runs = []
@pytest.mark.flaky(reruns=1)
def test_a(shop, shared):
    runs.append(1)
    assert len(runs) > 1
def test_b(shared): {b}
"""
    result = run(source.format(b="pass"), "-s", "--egress-keep", "-Wignore")
    assert result.parseoutcomes() == {"passed": 2, "rerun": 1}
    lines_of(result, *("*closed with True*", "*closed with False*", "*closed with False*"))
    result = run(source.format(b="assert 0"), "-s", "--egress-keep", "-Wignore")
    assert result.parseoutcomes() == {"passed": 1, "failed": 1, "rerun": 1}
    lines_of(result, *("*closed with True*", "*closed with False*", "*closed with True*"))


# Costs.


def modules_after(statement: str) -> set[str]:
    """The modules that a statement imports, beyond those that pytest and its own imports need."""
    code = f"import sys, pytest; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


TABLES = {
    *("pytest_egress.base", "pytest_egress.base.choices"),
    *("pytest_egress.routes", "pytest_egress.routes.kinds"),
}  # which import nothing themselves


PLUGIN = {
    f"pytest_egress.plugin.{path.stem}".removesuffix(".__init__")
    for path in (Path(pytest_egress.__file__).parent / "plugin").glob("*.py")
}


def test_importing_the_plugin_imports_nothing_but_tables() -> None:
    assert modules_after("import pytest_egress.plugin") == {"pytest_egress", *PLUGIN, *TABLES}


def test_importing_the_package_imports_nothing_else() -> None:
    assert modules_after("import pytest_egress") == {"pytest_egress"}


def test_a_run_that_does_not_use_egress_imports_nothing_of_it_but_tables(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile("def test_a(): pass")
    pytester.makeconftest("""
def pytest_unconfigure():
    import sys
    print("imported:", *sorted(name for name in sys.modules if name.startswith("pytest_egress.")))
""")
    result = run("", "-s", subprocess=True)
    lines_of(result, " ".join(["imported:", *sorted([*TABLES, *PLUGIN])]))


def test_a_run_without_the_terminal_plugin_goes_on(run: Run) -> None:
    result = run("def test_a(): pass\ndef test_b(egress): assert 1 == 2", "-p", "no:terminal")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


def test_the_plugin_can_be_switched_off(run: Run) -> None:
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


def test_every_public_name_is_there_and_listed_in_order() -> None:
    import pytest_egress as package

    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="'pytest_egress' has no attribute 'nothing'"):
        _ = package.nothing


def test_every_error_is_a_public_name() -> None:
    import pytest_egress as package
    from pytest_egress import errors

    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined - {"ClientHelloError"} <= set(package.__all__)


# Debugger prompts.

Spawn = Callable[..., Any]


@pytest.fixture
def spawn(pytester: pytest.Pytester) -> Spawn:
    """Start pytest on the source of a module at a terminal."""

    def spawn(source: str, *args: str) -> Any:
        pytester.makepyfile(test_x=HEAD + source)
        return pytester.spawn_pytest(f"-q --color=no {' '.join(args)} test_x.py")

    return spawn


PROMPT: Final = r"\(Pdb\) "


def test_breakpoint_in_a_handler_outlasts_the_deadline_of_the_drain(spawn: Spawn) -> None:
    child = spawn("""
@pytest.mark.egress(timeout=0.1)
def test_a(egress):
    started = threading.Event()
    def handler(request): started.set(); x = 42; breakpoint(); return {"x": x}
    egress.intercept_https("a.test", handler)
    behind(egress, "https://a.test/")
    started.wait(10)
""")
    child.expect(PROMPT)
    time.sleep(1)
    child.sendline("p x + 1")
    child.expect("43")
    child.sendline("c")
    child.expect("1 passed")
    child.wait()


@pytest.mark.parametrize("own", ["pass", "assert False"])
def test_quitting_at_that_breakpoint_ends_the_session(spawn: Spawn, own: str) -> None:
    child = spawn(f"""
def test_a(egress):
    egress.intercept_https("a.test", lambda request: breakpoint())
    traffic(egress, "https://a.test/")
    {own}
def test_b(): print("never")
""")
    child.expect(PROMPT)
    child.sendline("q")
    child.expect("Exit: Quitting debugger")
    child.wait()


def test_two_handlers_prompt_one_after_the_other(spawn: Spawn) -> None:
    child = spawn("""
def test_a(egress):
    barrier = threading.Barrier(2)
    def handler(request):
        barrier.wait()
        host = request.host
        breakpoint()
        return {}
    egress.intercept_https("*.test", handler)
    threads = [threading.Thread(target=attempt, args=[egress, f"https://{name}.test/"]) for name in "ab"]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(egress.exchanges) == 2
""")
    seen = []
    for _ in range(2):
        child.expect(PROMPT)
        child.sendline("p 'host ' + host")
        child.expect("'host ([ab]).test'")
        seen.append(child.match[1])
        child.expect(PROMPT)
        child.sendline("c")
    child.expect("1 passed")
    child.wait()
    assert sorted(seen) == [b"a", b"b"]


def test_stepping_over_a_call_that_stops_in_a_handler_lets_that_handler_prompt(
    spawn: Spawn,
) -> None:
    child = spawn("""
def test_a(egress):
    def handler(request):
        inner = 41
        breakpoint()
        return {}
    egress.intercept_https("a.test", handler)
    breakpoint()
    traffic(egress, "https://a.test/")
    outer = 7
    assert egress.exchanges
""")
    child.expect(PROMPT)
    in_handler = False
    while not in_handler:
        child.sendline("n")
        in_handler = not child.expect([r"\)handler\(\)", r"\)test_a\(\)"])
        child.expect(PROMPT)
    child.sendline("p inner + 1")
    child.expect("42")
    child.sendline("c")
    child.expect(r"\)test_a\(\)")
    child.expect("-> outer = 7")
    child.expect(PROMPT)
    child.sendline("c")
    child.expect("1 passed")
    child.wait()


# What comes late, and what cannot be changed.


@pytest.mark.parametrize(
    ("marker", "error"),
    [
        ("unrouted='blok'", "unrouted='blok': it takes 'fail', 'block' or 'passthrough'"),
        ("'block'", "'block' needs a name; it takes the keywords *"),
        ("timout=3", "it does not take timout=; it takes the keywords *"),
    ],
)
def test_a_malformed_marker_that_a_plugin_adds_fails_its_test_alone(
    pytester: pytest.Pytester, run: Run, marker: str, error: str
) -> None:
    pytester.makeconftest(f"""
        import pytest
        def pytest_collection_modifyitems(items):
            items[0].add_marker(pytest.mark.egress({marker}))
    """)
    result = run("""
def test_a(egress): pass
def test_b(egress): pass
""")
    result.assert_outcomes(errors=1, passed=1)
    lines_of(result, f"*@pytest.mark.egress: {error}")


def test_exceptions_that_are_frozen_are_a_cause_and_have_one(run: Run) -> None:
    result = run("""
import dataclasses
@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    text: str
def test_a(egress):
    def handler(request): raise Frozen("of the handler")
    egress.intercept_https("a.test", handler)
    traffic(egress, "https://a.test/")
def test_b(egress):
    def handler(request): raise Frozen("of the handler")
    egress.intercept_https("a.test", handler)
    traffic(egress, "https://a.test/")
    raise Frozen("the test's own")
def test_c(egress): pass
""")
    result.assert_outcomes(failed=2, passed=1)
    lines_of(result, "*: its handler raised Frozen: of the handler*")
    lines_of(result, "*of the handler*", "*direct cause*", "*the test's own*")


def test_a_handler_that_hangs_is_told_of_beside_the_tests_own_failure(run: Run) -> None:
    result = run("""
@pytest.mark.egress(timeout=0.1)
def test_a(egress):
    def handler(request): threading.Event().wait(20)
    egress.intercept_https("a.test", handler)
    behind(egress, "https://a.test/")
    with egress.session.ledger.changed:
        egress.session.ledger.changed.wait_for(lambda: egress.session.ledger.window.entries)
    assert False, "own"
""")
    result.assert_outcomes(failed=1)
    lines_of(result, '*the handler of intercept_https("a.test")*still ran 0.1 s after the test*')
