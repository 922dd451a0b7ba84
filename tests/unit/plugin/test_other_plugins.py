"""Corners of pytest, and plugins that change the ground: clocks, sockets, processes, threads.

Most run against the stand-in of test_case.py; real containers are used where the corner is theirs.
"""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree

import pytest

from tests.support.stand_in import HEAD, UNROUTED_X, RunPytest, lines_of

ONE_OF_TWO: Final = """
def test_good(egress):
    egress.intercept_https("a.test", {})
    assert attempt(egress, "https://a.test/") == "{}"
def test_bad(egress): traffic(egress, "https://x.test/")
"""
REFUSES: Final = """
import pytest
@pytest.fixture(scope="session")
def egress_docker_client(): raise AssertionError("contacted")
@pytest.fixture(scope="session")
def egress_ca(): raise AssertionError("made")
"""


# Options that choose and order tests.


@pytest.mark.parametrize("option", ["--ff", "--lf", "--sw"])
def test_what_a_verdict_failed_comes_first_next_time_and_is_forgotten_when_it_passes(
    run: RunPytest, option: str
) -> None:
    run(ONE_OF_TWO).assert_outcomes(passed=1, failed=1)
    run("", option, "-x").assert_outcomes(failed=1, passed=int(option == "--sw"))
    run(ONE_OF_TWO.replace("x.test", "a.test").replace("test_bad(egress):", "test_bad(): return;"))
    assert str(run("", "--lf", "--co", "-q").stdout).count("test_x.py::") == 2


def test_set_up_can_be_watched(run: RunPytest) -> None:
    result = run(ONE_OF_TWO, "--setup-show")
    result.assert_outcomes(passed=1, failed=1)
    lines_of(
        result, "SETUP    S session_egress", "*SETUP    F egress (fixtures used: class_egress*"
    )
    lines_of(result, "*TEARDOWN F egress", "TEARDOWN S session_egress", f"FAILED *{UNROUTED_X}*")


def test_a_plan_of_the_set_up_starts_nothing(run: RunPytest, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(REFUSES)
    result = run(
        """
        @pytest.mark.egress_container("shop")
        def test_a(egress): raise AssertionError("never")
        @pytest.mark.intercept_https("never.test")
        def test_b(): raise AssertionError("never")
        """,
        "--setup-plan",
    )
    assert result.ret == 0
    lines_of(result, "*SETUP    F egress_container (fixtures used: egress)*")


@pytest.mark.plugins("xdist")
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["load", "loadscope", "loadfile", "loadgroup", "worksteal"])
def test_every_way_to_distribute_tests_keeps_each_verdict_with_its_test(
    run: RunPytest, mode: str
) -> None:
    result = run(
        """
        @pytest.fixture(scope="module")
        def shared(module_egress):
            module_egress.intercept_https("a.test", lambda request: "shared")
        @pytest.mark.xdist_group("b")
        @pytest.mark.parametrize("n", range(6))
        def test_a(egress, shared, n):
            assert attempt(egress, "https://a.test/") == "shared"
            traffic(egress, *["https://x.test/"] * (n == 4))
        def test_b(egress): egress.intercept_https("a.test"); traffic(egress, "https://a.test/")
        """,
        "-n2",
        f"--dist={mode}",
        subprocess=True,
    )
    result.assert_outcomes(passed=6, failed=1)
    lines_of(result, f"FAILED *test_a[[]4]* - {UNROUTED_X}*")
    result.stdout.no_fnmatch_line("*outside of any test*")


@pytest.mark.plugins("xdist")
@pytest.mark.slow
def test_each_worker_may_run_every_test(run: RunPytest) -> None:
    result = run(ONE_OF_TWO, "-n2", "--dist=each", subprocess=True)
    result.assert_outcomes(passed=2, failed=2)


# Reruns.


@pytest.mark.plugins("rerunfailures")
def test_a_rerun_has_routes_and_a_ledger_of_its_own(run: RunPytest) -> None:
    result = run(
        """
        runs = []
        @pytest.fixture(scope="module")
        def wide(module_egress): return module_egress.intercept_https("wide.test")
        @pytest.mark.flaky(reruns=2)
        @pytest.mark.intercept_https("marked.test")
        def test_a(egress, wide):
            route = egress.intercept_https("own.test")
            assert not (egress.ledger or route.called or wide.called or egress["marked.test"].called)
            traffic(egress, "https://own.test/", "https://wide.test/", "https://marked.test/")
            assert [each.call_count for each in (route, wide, egress["marked.test"])] == [1, 1, 1]
            runs.append(1)
            assert len(runs) == 3
        """,
        "-Wignore",
    )
    assert result.parseoutcomes() == {"passed": 1, "rerun": 2}


@pytest.mark.plugins("rerunfailures")
@pytest.mark.parametrize(("only", "reruns"), [("UnroutedError", 1), ("NeverCalledError", 0)])
def test_reruns_can_be_of_one_kind_of_verdict(run: RunPytest, only: str, reruns: int) -> None:
    result = run(ONE_OF_TWO, "--reruns=1", f"--only-rerun={only}", "-Wignore")
    wanted = {"passed": 1, "failed": 1, "rerun": reruns}
    assert result.parseoutcomes() == {name: n for name, n in wanted.items() if n}


# Kinds of tests.


def test_sub_tests_of_unittest_are_judged_once(run: RunPytest) -> None:
    result = run("""
        class TestU(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def inject(self, egress): self.egress = egress
            def test_a(self):
                for n in range(3):
                    with self.subTest(n=n): traffic(self.egress, "https://x.test/")
    """)
    assert result.outlines.count("3 unrouted attempts of shop; nothing got out:") == 1
    lines_of(result, "FAILED *TestU::test_a - GET https://*: no route claims it*")


def test_set_up_and_tear_down_of_unittest_belong_to_the_test(run: RunPytest) -> None:
    result = run("""
        class TestU(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def inject(self, request): self.request = request
            def setUp(self):
                self.egress = self.request.getfixturevalue("egress")
                self.route = self.egress.intercept_https("a.test")
                traffic(self.egress, "https://a.test/")
            def tearDown(self): traffic(self.egress, *self.late)
            def test_a(self): self.late = []; self.route.assert_called_once()
            def test_b(self): self.late = ["https://x.test/"]; self.route.assert_called_once()
    """)
    result.assert_outcomes(passed=1, failed=1)
    lines_of(result, f"FAILED *TestU::test_b - {UNROUTED_X}*")


def test_a_unittest_class_shares_the_egress_of_its_class(run: RunPytest) -> None:
    result = run("""
        @pytest.fixture(scope="class")
        def shared(request, class_egress):
            request.cls.shared = class_egress
            class_egress.intercept_https("a.test", lambda request: "class")
        @pytest.mark.usefixtures("shared")
        class TestU(unittest.TestCase):
            def test_a(self): self.assertEqual(attempt(self.shared, "https://a.test/"), "class")
            def test_b(self): self.assertEqual(len(self.shared["a.test"].calls), 0)
            def test_c(self): traffic(self.shared, "https://x.test/")
    """)
    result.assert_outcomes(passed=2, failed=1)


@pytest.mark.plugins("asyncio", "anyio")
def test_an_async_fixture_of_a_module_declares_for_all_of_its_tests(run: RunPytest) -> None:
    result = run(
        """
        pytestmark = pytest.mark.anyio
        @pytest.fixture(scope="module")
        def anyio_backend(): return "asyncio"
        @pytest.fixture(scope="module")
        async def shop(module_egress):
            module_egress.intercept_https("a.test", lambda request: "shop")
            yield module_egress
            await asyncio.to_thread(traffic, module_egress, "https://late.test/")
        async def test_a(shop, egress):
            assert await asyncio.to_thread(attempt, egress, "https://a.test/") == "shop"
        async def test_b(shop, egress): await asyncio.to_thread(traffic, egress, "https://x.test/")
        """,
        "-Wignore",
    )
    result.assert_outcomes(passed=1, failed=1)
    lines_of(result, "*outside of any test*", "shop: GET https://late.test/*UNROUTED")
    lines_of(result, f"FAILED *test_b - {UNROUTED_X}*")


@pytest.mark.plugins("asyncio")
def test_an_async_test_may_wait_for_a_call_beside_its_loop(run: RunPytest) -> None:
    result = run(
        """
        @pytest.mark.asyncio
        async def test_a(egress):
            route = egress.intercept_https("a.test")
            waits = asyncio.create_task(asyncio.to_thread(route.wait_for_call))
            await asyncio.to_thread(traffic, egress, "https://a.test/")
            assert (await waits).request.host == "a.test"
        """,
        "-Wignore",
    )
    result.assert_outcomes(passed=1)


@pytest.mark.plugins("asyncio", "anyio")
def test_an_anyio_fixture_declares_routes(run: RunPytest) -> None:
    result = run(
        """
        import anyio
        @pytest.fixture
        def anyio_backend(): return "asyncio"
        @pytest.fixture
        async def routes(egress):
            await anyio.sleep(0)
            egress.intercept_https("a.test")
            egress.intercept_https("never.test")
            yield egress
        @pytest.mark.anyio
        async def test_a(routes): await anyio.to_thread.run_sync(traffic, routes, "https://a.test/")
        """,
        "-Wignore",
    )
    lines_of(result, "FAILED *test_a - never.test: never called*")


def test_a_doctest_of_a_module_is_judged(run: RunPytest) -> None:
    result = run(
        '''
        def charge():
            """
            >>> attempt(getfixture("egress"), "https://x.test/")
            502
            """
        ''',
        "--doctest-modules",
        "--ignore=gateway.py",  # the stand-in, whose file is none of its own
    )
    result.assert_outcomes(failed=1)
    lines_of(result, f"FAILED *test_x.charge - {UNROUTED_X}*")


def test_hypothesis_accepts_an_egress_that_is_wider_than_a_test(run: RunPytest) -> None:
    result = run(
        """
        from hypothesis import given, settings, strategies as st
        @settings(max_examples=5, database=None)
        @given(n=st.integers())
        def test_a(module_egress, n): attempt(module_egress, "https://x.test/")
        """,
        "-Wignore",
    )
    lines_of(result, "FAILED *test_a - GET *: no route claims it*")


def test_a_failing_example_shows_the_handlers_cause(run: RunPytest) -> None:
    result = run(
        """
        from hypothesis import given, settings, strategies as st
        @settings(max_examples=5, database=None)
        @given(n=st.just(7))
        def test_a(module_egress, n):
            module_egress.intercept_https("a.test", lambda request: 1 / 0)
            assert attempt(module_egress, "https://a.test/") == 200
        """,
        "-Wignore",
    )
    result.assert_outcomes(failed=1)
    lines_of(result, "*ZeroDivisionError*", "*direct cause*", "*assert 500 == 200")


# Options of output.

OUTPUTS: Final = [
    *("-Werror", "-pno:logging", "-pno:cacheprovider", "-pno:faulthandler", "-pno:unraisableexception"),
    *("-pno:threadexception", "-pno:debugging", "-pno:junitxml", "-pno:warnings", "-pno:doctest"),
    *("-s", "--capture=sys", "--capture=fd", "--capture=tee-sys", "--show-capture=no"),
    *("-q", "-qq", "-v", "-vv", "--no-header", "--color=yes", "--durations=3", "-l", "--strict-config"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("option", OUTPUTS)
def test_a_verdict_stays_under_every_option_of_output(
    run: RunPytest, pytester: pytest.Pytester, option: str
) -> None:
    pytester.makeini("[pytest]")  # an older pytest-asyncio has no such options: one may be strict
    result = run(ONE_OF_TWO, option, "-pno:asyncio", subprocess=option.startswith("-pno:"))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines_of(result, "*1 unrouted attempt of shop; nothing got out:*")
    if option not in ("-qq", "--color=yes"):
        lines_of(result, f"FAILED test_x.py::test_bad - {UNROUTED_X}*")
    result.stdout.no_fnmatch_line("*pytest_egress/*.py*")


@pytest.mark.slow
def test_the_stacks_that_faulthandler_dumps_disturb_no_handler(run: RunPytest) -> None:
    result = run(
        """
        import pytest_egress.egress
        def test_a(egress):
            def slow(request):
                threading.Event().wait(0.5)
                return "slow"
            egress.intercept_https("a.test", slow)
            traffic(egress, "https://a.test/")
            assert egress["a.test"].assert_called_once().response.text == "slow"
        """,
        "-ofaulthandler_timeout=0.1",
        subprocess=True,
    )
    result.assert_outcomes(passed=1)
    result.stderr.fnmatch_lines(["Timeout (*)!", "*test_x.py*in slow"])


def test_a_report_of_a_verdict_survives_json(run: RunPytest, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
        import json, pytest
        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_makereport(item, call):
            report, hook = (yield), item.config.hook
            data = hook.pytest_report_to_serializable(config=item.config, report=report)
            data = json.loads(json.dumps(data))
            return hook.pytest_report_from_serializable(config=item.config, data=data)
        """)
    source = """
def test_a(egress): traffic(egress, "https://x.test/")
def test_b(egress):
    egress.intercept_https("a.test", lambda request: 1 / 0)
    traffic(egress, "https://a.test/")
"""
    result = run(source)
    result.assert_outcomes(failed=2)
    lines_of(result, "1 unrouted attempt of shop; nothing got out:", "test_x.py:4: UnroutedError")
    lines_of(result, "E * ZeroDivisionError: division by zero", "It failed the test:")
    lines_of(result, "*- egress -*", "*GET https://x.test/ *UNROUTED")


@pytest.mark.parametrize("kind", ["xunit1", "xunit2"])
def test_junitxml_is_well_formed_whatever_a_request_says(
    run: RunPytest, pytester: pytest.Pytester, kind: str
) -> None:
    source = r"""
def test_a(egress): traffic(egress, "https://x.test/]]>\x00\x1b[31m\ud800<&")
def test_b(egress):
    def handler(request): raise ValueError("]]>\x00<&")
    egress.intercept_https("a.test", handler)
    traffic(egress, "https://a.test/")
"""
    result = run(source, "--junitxml=j.xml", f"-ojunit_family={kind}", "-ojunit_logging=all")
    result.assert_outcomes(failed=2)
    failures = ElementTree.parse(pytester.path / "j.xml").findall(".//failure")
    assert [failure.attrib["message"].partition(":")[0] for failure in failures] == [
        "GET https",
        "GET https",
    ]


def test_options_from_the_environment_hold(run: RunPytest, monkeypatch: pytest.MonkeyPatch) -> None:
    options = "--egress-unrouted=block --egress-dns=strict"
    monkeypatch.setenv("PYTEST_ADDOPTS", options, prepend=" ")
    result = run(ONE_OF_TWO)
    result.assert_outcomes(passed=2)
    lines_of(result, "egress: unrouted=block, dns=strict")
    run("", "--egress-unrouted=fail").assert_outcomes(passed=1, failed=1)


# Ends of tests and runs.


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise SystemExit", "exit('done')"])
def test_an_exit_of_the_test_is_its_own_failure(run: RunPytest, end: str) -> None:
    result = run(f"""
        import sys
        def test_a(egress):
            traffic(egress, "https://x.test/")
            {end}
        def test_b(egress): assert not egress.ledger
    """)
    result.assert_outcomes(failed=1, passed=1)
    lines_of(result, "FAILED *test_a - GET https://*: no route claims it (SystemExit*")


@pytest.mark.parametrize("place", ["test", "fixture", "handler"])
def test_pytest_exit_ends_the_run_with_its_code(run: RunPytest, place: str) -> None:
    result = run(f"""
        def leave(where):
            if where == {place!r}: pytest.exit("enough", returncode=7)
        @pytest.fixture
        def broken(egress): leave("fixture")
        def test_a(egress, broken):
            egress.intercept_https("a.test", lambda request: leave("handler"))
            traffic(egress, "https://a.test/")
            leave("test")
        def test_b(): print("never")
    """)
    assert result.ret == 7
    lines_of(result, "*Exit: enough*")
    result.stdout.no_fnmatch_line("*never*")


@pytest.mark.plugins("timeout")
def test_a_time_out_in_a_handler_by_signal_names_the_test_and_the_run_goes_on(
    run: RunPytest,
) -> None:
    result = run(
        """
        @pytest.mark.timeout(0.5, func_only=True)
        @pytest.mark.egress(timeout=0.1)
        def test_a(egress):
            def stuck(request): threading.Event().wait()
            egress.intercept_https("a.test", stuck)
            traffic(egress, "https://a.test/")
        def test_b(egress): assert not egress.ledger
        """,
        "--timeout-method=signal",
        "-Wignore",
    )
    result.assert_outcomes(failed=1, passed=1)
    lines_of(result, "*in stuck", "FAILED *test_a - Failed: Timeout*")


def test_a_run_within_a_test_has_a_session_of_its_own(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest('pytest_plugins = "pytester"')
    result = run(
        '''
        pytest_plugins = "pytester"
        def test_a(egress, pytester):
            egress.intercept_https("a.test", lambda request: "outer")
            window = egress._inner.session.ledger.window
            pytester.makepyfile("""
                from gateway import traffic
                def test_inner(egress):
                    assert egress._inner.session.ledger.window is not None
                    traffic(egress, "https://a.test/")
            """)
            inner = pytester.runpytest_inprocess("-p", "egress")
            inner.assert_outcomes(failed=1)
            assert egress._inner.session.ledger.window is window
            assert attempt(egress, "https://a.test/") == "outer"
            egress["a.test"].assert_called_once()
        ''',
    )
    result.assert_outcomes(passed=1)


@pytest.mark.slow
def test_a_second_run_in_the_process_finds_nothing_of_the_first(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_x=HEAD + ONE_OF_TWO)
    script = pytester.makepyfile(
        twice="""
        import pytest, threading
        for _ in range(2):
            assert pytest.main(["-q", "-pno:cacheprovider", "-pno:rerunfailures", "test_x.py"]) == 1
            assert threading.active_count() == 1, threading.enumerate()
        """
    )
    result = pytester.runpython(script)
    assert result.ret == 0
    assert str(result.stdout).count("1 failed, 1 passed") == 2


# Plugins that replace clocks and sockets.


@pytest.mark.slow
def test_a_frozen_test_may_declare_routes(run: RunPytest) -> None:
    # freezegun reads each attribute of each module that is imported. One of testcontainers, which other tests of this
    # process import, connects to the engine then, and leaves the socket open.
    run(
        """
        from freezegun import freeze_time
        @freeze_time("2020-01-01")
        def test_a(egress):
            egress.intercept_https("a.test")
            traffic(egress, "https://a.test/")
        @freeze_time("2020-01-01")
        def test_b(egress): traffic(egress, "https://x.test/")
        """,
        subprocess=True,
    ).assert_outcomes(passed=1, failed=1)


@pytest.mark.slow
def test_certificates_that_freezegun_has_spoilt_are_told_of(run: RunPytest) -> None:
    result = run(
        """
        import trustme
        from freezegun import freeze_time
        from pytest_egress.session import Session
        def test_a():
            with freeze_time("2020-01-01"), pytest.raises(TypeError):
                trustme.CA()
            Session().authority
        """,
        subprocess=True,
    )
    lines_of(result, "*put `import trustme; trustme.CA()` into conftest.py.")


@pytest.mark.plugins("socket")
def test_a_test_without_sockets_may_declare_routes(run: RunPytest) -> None:
    result = run(ONE_OF_TWO, "--disable-socket", "-Wignore")
    result.assert_outcomes(passed=1, failed=1)
