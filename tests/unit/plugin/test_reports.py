"""What a report of a failure shows, and what the summary says."""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree

import pytest

from tests.support.stand_in import HEAD, UNROUTED_X, RunPytest, lines_of


@pytest.mark.plugins("xdist")
@pytest.mark.slow
@pytest.mark.parametrize("style", ["auto", "long", "short", "line", "native", "no"])
@pytest.mark.parametrize("xdist", [False, True])
def test_every_traceback_style_keeps_the_summary_line(
    run: RunPytest, style: str, xdist: bool
) -> None:
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


def test_a_handlers_traceback_begins_in_the_handler(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
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
        '*the handler of intercept_https("a.test")*raised ValueError',
        "test_x.py:5: HandlerError",
    )
    result.stdout.no_fnmatch_line("*pytest_egress/*.py*")


def test_junitxml_has_the_text(run: RunPytest, pytester: pytest.Pytester) -> None:
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
    monkeypatch.setattr(session_egress._inner.session, "log_sections", lambda window: tails)
"""


@pytest.mark.plugins("xdist")
@pytest.mark.slow
@pytest.mark.parametrize("xdist", [False, True])
def test_junitxml_has_the_timeline_and_the_logs(
    run: RunPytest, pytester: pytest.Pytester, xdist: bool
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


def test_hidden_output_hides_the_logs(run: RunPytest, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(LOGS)
    result = run("def test_a(egress): traffic(egress, 'https://x.test/')", "--show-capture=no")
    result.stdout.no_fnmatch_line("*Traceback: no charge*")
    lines_of(result, f"FAILED *test_a - {UNROUTED_X}")


FAILS: Final = """
from pytest_egress import CommandError
def error():
    error = CommandError(
        "shop exited with code 3\\nThe end of its log:\\n  | Traceback: no charge",
        logs="Traceback: no charge\\n", exit_code=3, container="shop",
    )
    return error
"""


def test_a_log_that_a_failure_quotes_comes_no_second_time(
    run: RunPytest, pytester: pytest.Pytester
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


def test_the_summary_begins_with_what_was_attempted(run: RunPytest) -> None:
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
def test_calls(egress):
    route = egress.intercept_https("a.test")
    traffic(egress, "https://a.test/1", "https://a.test/2")
    route.assert_called_once()
def test_with(egress):
    route = egress.intercept_https("a.test")
    traffic(egress, "https://a.test/1", "https://a.test/2")
    route.assert_called_with(path="/3")
def test_wait(egress): egress.intercept_https("a.test").wait_for_call(timeout=0)
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
        'FAILED test_x.py::test_calls - a.test: expected 1 call, there were 2, intercept_https("a.test")',
        "FAILED test_x.py::test_with - a.test: the last of 2 calls does not match path='/3', "
        'intercept_https("a.test")',
        'FAILED test_x.py::test_wait - a.test: waited 0 s for call 1; there was none, intercept_https("a.test")',
        "FAILED test_x.py::test_address - 5 is no address: it is of type int, and an address is a str",
        "FAILED test_x.py::test_stuck - GET https://a.test/: the handler of * still ran 0.1 s after the test",
        f"FAILED test_x.py::test_own - {UNROUTED_X} (assert 502 == 200)",
    )


def test_full_trace_shows_how_a_verdict_was_reached(run: RunPytest) -> None:
    result = run("def test_a(egress): traffic(egress, 'https://x.test/')", "--full-trace")
    lines_of(result, "*plugin/cases.py*", f"FAILED test_x.py::test_a - {UNROUTED_X}*")


def test_what_cannot_be_sent_is_told_with_its_place_beside_the_tests_own_failure(
    run: RunPytest,
) -> None:
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


def test_full_trace_shows_what_called_a_handler(run: RunPytest) -> None:
    source = """
def test_a(egress):
    egress.intercept_https("a.test", lambda request: 1 / 0)
    traffic(egress, "https://a.test/")
    assert False, "own"
"""
    run(source).stdout.no_fnmatch_line("*pytest_egress/*.py*")
    lines_of(run(source, "--full-trace"), "*handlers.py*", "*division by zero*", "*own")


def test_a_failed_set_up_shows_the_ledger_and_the_handlers_cause(run: RunPytest) -> None:
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


def test_what_would_answer_is_shown_beside_any_other_failure(run: RunPytest) -> None:
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


def test_sections_are_of_failures_only_and_not_repeated(run: RunPytest) -> None:
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


def test_container_logs_follow_the_ledger(run: RunPytest, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
import pytest
@pytest.fixture
def logs(session_egress, monkeypatch):
    tails = [("container shop", "Traceback: no charge"), ("container db", "ready")]
    monkeypatch.setattr(session_egress._inner.session, "log_sections", lambda window: tails)
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


def test_assertions_of_ours_end_at_the_users_line(run: RunPytest) -> None:
    result = run(
        "def test_a(egress):\n    route = egress.intercept_https('a.test')\n    route.assert_called_once()"
    )
    lines_of(
        result,
        ">   *route.assert_called_once()",
        'E       pytest_egress.errors.CallError: intercept_https("a.test"): expected 1 call*',
        "test_x.py:5: CallError",
    )
    result.stdout.no_fnmatch_line("*pytest_egress/*.py*")


def test_what_we_refuse_in_a_unittest_ends_at_the_users_line(run: RunPytest) -> None:
    result = run("""
import unittest
class TestIt(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def take(self, egress):
        self.egress = egress
    def test_a(self):
        self.egress.intercept_https("not a valid://address")
""")
    lines_of(result, ">*self.egress.intercept_https(*", "*test_x.py:10: AddressError")
    result.stdout.no_fnmatch_line("*address.py*")


@pytest.mark.plugins("xdist")
@pytest.mark.slow
@pytest.mark.parametrize("xdist", [False, True])
def test_traffic_outside_of_tests_is_summarised(run: RunPytest, xdist: bool) -> None:
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


@pytest.mark.plugins("xdist")
@pytest.mark.slow
def test_both_workers_report_to_the_summary(run: RunPytest, pytester: pytest.Pytester) -> None:
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


def test_exceptions_that_are_frozen_are_a_cause_and_have_one(run: RunPytest) -> None:
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


# What a target has said.


SAID = """
import pytest
from pytest_egress.errors import CommandError, ContainerTimeoutError
SAID = "\\x1b[2J\\x1b[H==== 1 passed ====\\x1b]0;title\\x07\\x9b31m\\rover\\u202e"

def test_error(egress):
    raise CommandError(f"first {SAID}\\nsecond {SAID}", logs=f"x\\n{SAID}", container="shop")

def test_assertion(egress):
    assert egress.routes, f"the container wrote {SAID}"

def test_handler(egress):
    def handler(request):
        raise ValueError(SAID)
    egress.intercept_https("a.test", handler)
    traffic(egress, "https://a.test/")

@pytest.fixture
def broken(egress):
    raise ContainerTimeoutError(SAID, logs=SAID, container="shop")

def test_fixture(broken): pass

@pytest.fixture
def ends_badly(egress):
    yield
    raise ValueError(SAID)

def test_teardown(ends_badly): pass

def test_skip(egress): pytest.skip(SAID)

def test_xfail(egress): pytest.xfail(SAID)

def test_fail(egress): pytest.fail(SAID, pytrace=False)
"""


@pytest.mark.plugins("xdist")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("style", "xdist"),
    [*((style, False) for style in ("auto", "short", "line", "native")), ("auto", True)],
)
def test_what_a_target_has_said_is_shown_escaped(
    run: RunPytest, pytester: pytest.Pytester, style: str, xdist: bool
) -> None:
    options = [f"--tb={style}", "--showlocals", "-rA", "--color=no", "--junitxml=j.xml"]
    result = run(SAID, *options, *["-n1"] * xdist, subprocess=xdist)
    shown = result.stdout.str() + (pytester.path / "j.xml").read_text()
    unsafe = {c for c in shown if not c.isprintable()} - {"\n", "\t"}
    assert unsafe == set()
    assert "#x1B" not in shown  # as junitxml writes what XML cannot carry
    lines_of(result, "*ERROR test_x.py::test_fixture - *\\x1b[[]2J*==== 1 passed*")
    lines_of(result, "*FAILED test_x.py::test_error - first \\x1b[[]2J*: \\x1b[[]2J*")


def test_what_a_container_has_written_is_shown_escaped(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(LOGS.replace("Traceback: no charge", "one\\r\\n\\x1b[2J\\x9b1 passed"))
    result = run("def test_a(egress): assert egress.routes", "--junitxml=j.xml", "--color=no")
    shown = result.stdout.str() + (pytester.path / "j.xml").read_text()
    assert {c for c in shown if not c.isprintable()} - {"\n", "\t"} == set()
    lines_of(result, "one", "\\x1b[[]2J\\x9b1 passed")


def test_what_was_attempted_outside_of_tests_is_shown_escaped(run: RunPytest) -> None:
    result = run("""
from pytest_egress.plugin.run import RUN
def test_a(egress, pytestconfig): pytestconfig.stash[RUN].outside.append("shop: \\x1b[2J")
""")
    lines_of(result, "*traffic outside of any test*", "shop: \\x1b[[]2J")


def test_what_a_test_prints_is_its_own(run: RunPytest) -> None:
    result = run("def test_a(egress):\n    print('\\x1b[31mred')\n    assert egress.routes")
    lines_of(result, "*Captured stdout call*", "\x1b[[]31mred")


def test_with_v_a_failure_shows_fields_and_bodies(run: RunPytest) -> None:
    source = """
def test_a(egress):
    egress.intercept_https("a.test", {"id": 7})
    traffic(egress, "https://a.test/")
    assert 0
"""
    lines_of(run(source, "-v"), '            < {"id": 7}')
    run(source).stdout.no_fnmatch_line("*<*id*")


def test_what_a_handler_said_is_shown_once_in_a_verdict(run: RunPytest) -> None:
    result = run("""
def refuse(request):
    raise ValueError("no such charge: 42")
def test_a(egress):
    egress.intercept_https("a.test", refuse)
    traffic(egress, "https://a.test/")
""")
    section, _, summary = str(result.stdout).partition("short test summary")
    assert section.count("ValueError: no such charge: 42") == 1
    assert summary.count("ValueError: no such charge: 42") == 1


def test_what_pytest_has_cut_from_a_secret_before_we_see_it_is_hidden(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    result = run(
        """
KEY = "live-" + "4eC39HqLyjWDarjtT1zdp7dc" * 2
SENT = "Bearer " + KEY + "." * 2 + KEY
def test_a(egress):
    egress._inner.session.hide({"API_KEY": KEY})
    sent = SENT * 4
    assert SENT == "other"
def test_b(egress): egress.run("img", env={"B_TOKEN": "tok_9zYxW21uTsRqP"}, timeout="soon")
""",
        "-l",
        "--junit-xml=report.xml",
    )
    result.assert_outcomes(failed=2)
    for shown in (result.stdout.str(), (pytester.path / "report.xml").read_text()):
        assert "<API_KEY>..." in shown or "&lt;API_KEY&gt;..." in shown
        assert "zdp7dc" not in shown.replace('"4eC39HqLyjWDarjtT1zdp7dc" * 2', "")
        assert "tok_9" not in shown
