"""A test from its set-up to its verdict, whatever runs it."""

from __future__ import annotations

from typing import Final

import pytest

from pytest_egress.plugin.usage import EGRESS_FIXTURES
from tests.support.stand_in import UNROUTED_X, RunPytest, lines_of


def test_a_test_without_egress_fixtures_is_not_judged(run: RunPytest) -> None:
    result = run("""
shared = []
@pytest.fixture(scope="module")
def shop(module_egress): return module_egress
def test_a(shop): shared.append(shop)
def test_b(request):
    assert not [name for name in request.fixturenames if "egress" in name]
    traffic(shared[0], "https://x.test/")
    assert shared[0]._inner.session.ledger.window is None
def test_c(shop): assert shop._inner.session.ledger.window is not None
""")
    result.assert_outcomes(passed=3)
    lines_of(result, "*egress: traffic outside of any test*", "shop: GET https://x.test/*UNROUTED")


@pytest.mark.parametrize("name", sorted(EGRESS_FIXTURES - {"egress_container"}))
def test_a_test_with_an_egress_fixture_of_any_scope_is_judged(run: RunPytest, name: str) -> None:
    result = run(f"""
@pytest.fixture
def indirect({name}): return {name}
def test_a(indirect): traffic(indirect, "https://x.test/")
""")
    lines_of(result, f"FAILED *test_a - {UNROUTED_X}*")


def test_handlers_are_captured_into_their_test_and_see_its_context(run: RunPytest) -> None:
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


def test_in_flight_requests_are_drained_into_the_verdict(run: RunPytest) -> None:
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
        result,
        "*RuntimeError: late",
        "*It failed the test:",
        "the handler of * raised RuntimeError",
    )


def test_a_handler_that_never_returns_fails_the_test_with_its_line(run: RunPytest) -> None:
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


def test_unittest_and_async_unittest(run: RunPytest) -> None:
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


@pytest.mark.plugins("asyncio")
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio(run: RunPytest, mode: str) -> None:
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


@pytest.mark.plugins("anyio")
def test_anyio(run: RunPytest) -> None:
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
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.maketxtfile(
        test_doc=">>> from gateway import attempt\n"
        ">>> attempt(getfixture('egress'), 'https://x.test/')\n502\n"
    )
    result = run("")
    result.assert_outcomes(failed=1)
    lines_of(result, f"FAILED *test_doc.txt* - {UNROUTED_X}*")


def test_a_fixture_that_asks_for_egress_when_it_runs_opens_the_window(run: RunPytest) -> None:
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
    run: RunPytest,
) -> None:
    result = run("""
from pytest_egress.ledger.windows import Window

@pytest.fixture(scope="module")
def shop(module_egress):
    hook = module_egress.intercept_https("hooks.test")
    module_egress._inner.session.ledger.count(hook, Window(), "the call of a container's start")
    assert hook.wait_for_call(timeout=0) == "the call of a container's start"
    return hook
@pytest.mark.parametrize("n", [1, 2])
def test_a(egress, shop, n): assert not shop.called
""")
    result.assert_outcomes(passed=2)


@pytest.mark.plugins("rerunfailures")
def test_reruns_have_a_window_each(run: RunPytest) -> None:
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


def test_hypothesis_counts_all_examples_of_a_call(run: RunPytest) -> None:
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


def test_subtests(run: RunPytest) -> None:
    if pytest.version_tuple < (9,):
        pytest.importorskip("pytest_subtests")
    result = run("""
def test_a(egress, subtests):
    for i in range(2):
        with subtests.test(i=i): traffic(egress, "https://x.test/"); assert i
""")
    lines_of(
        result,
        "*SUBFAIL* - GET https://*: no route claims it (assert 0)",
        "FAILED *test_a - GET https://*: no route claims it*",
    )


@pytest.mark.plugins("timeout")
@pytest.mark.slow
def test_pytest_timeout_is_the_tests_own_failure(run: RunPytest) -> None:
    result = run(
        """
@pytest.mark.timeout(3)
def test_a(egress): traffic(egress, "https://x.test/"); threading.Event().wait(30)
""",
        "--timeout-method=signal",
        "-Wignore",
    )
    lines_of(result, "FAILED *test_a - GET https://*: no route claims it (Failed: Timeout*")


KEPT: Final = """
import pytest
from pytest_egress.egress import Egress

class Gateway:
    def revise(self, test_over=False): return []
    def turn_away(self): pass
    def settle(self): pass
class Log:
    def tail(self): return ""
class Owner:
    scope = "test"
class Kept:
    name, id, loss, born = "shop", "0123456789abcdef", "", None
    owner, killed = Owner, ""
    gateway, log = Gateway(), Log()
    def is_running(self): return False
    def finish(self): return ""
    def close(self, keep=False): print("closed with", keep)

@pytest.fixture
def shop(egress): egress._inner.containers.append(Kept())
@pytest.fixture(scope="module")
def shared(module_egress): module_egress._inner.containers.append(Kept())
"""


@pytest.mark.parametrize("fixture", ["shop", "shared"])
@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("args", [[], ["--egress-keep"]], ids=["default", "keep"])
def test_only_egress_keep_leaves_containers_and_only_of_failed_tests(
    run: RunPytest, pytester: pytest.Pytester, fixture: str, passes: bool, args: list[str]
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


@pytest.mark.plugins("rerunfailures")
def test_a_rerun_that_passes_leaves_no_container(run: RunPytest, pytester: pytest.Pytester) -> None:
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


def test_a_handler_that_hangs_is_told_of_beside_the_tests_own_failure(run: RunPytest) -> None:
    result = run("""
@pytest.mark.egress(timeout=0.1)
def test_a(egress):
    def handler(request): threading.Event().wait(20)
    egress.intercept_https("a.test", handler)
    behind(egress, "https://a.test/")
    egress._inner.session.ledger.wait_for(lambda: egress._inner.session.ledger.window.entries, 20)
    assert False, "own"
""")
    result.assert_outcomes(failed=1)
    lines_of(result, '*the handler of intercept_https("a.test")*still ran 0.1 s after the test*')
