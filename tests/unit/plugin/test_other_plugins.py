"""Corners of pytest, and plugins that change the ground: clocks, sockets, processes, threads.

Most run against the stand-in of test_plugin.py; real containers are used where the corner is theirs.
"""

from __future__ import annotations

import contextlib
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from xml.etree import ElementTree

import docker
import pytest
import trustme

# Before pytester takes its snapshot of sys.modules: cryptography can be imported only once.
from pytest_egress import Egress
from pytest_egress.base.clock import wall
from pytest_egress.engine.leftovers import SESSION_LABEL
from pytest_egress.session import Session
from tests.support.leftovers import containers
from tests.support.stage import eventually
from tests.support.stand_in import HEAD, UNROUTED_X, Run, keep_quiet, lines_of, runner_of

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


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    keep_quiet(monkeypatch, pytester)


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    return runner_of(pytester)


@pytest.fixture
def run_real(pytester: pytest.Pytester, clients_image: str) -> Run:
    """Run pytest on the source of a module with real containers, in a process of its own."""
    pytester.makeconftest(f"""
        import pathlib, pytest
        @pytest.fixture(scope="session")
        def image(session_egress):
            label = session_egress.session.engine.labels["{SESSION_LABEL}"]
            pathlib.Path("session").write_text(label)
            return {clients_image!r}
        @pytest.fixture(scope="module")
        def shop(module_egress):
            return module_egress.start({clients_image!r}, ["sleep", "infinity"])
        @pytest.fixture
        def curl(shop):
            return lambda url: shop.exec(["curl", "-sS", "--max-time", "20", url]).stdout
        """)

    def run(source: str, *args: str, subprocess: bool = True) -> pytest.RunResult:
        pytester.makepyfile(test_x="import pytest\n" + textwrap.dedent(source))
        return pytester.runpytest_subprocess("-pno:cacheprovider", *args)

    return run


# Options that choose and order tests.


@pytest.mark.parametrize("option", ["--ff", "--lf", "--sw"])
def test_what_a_verdict_failed_comes_first_next_time_and_is_forgotten_when_it_passes(
    run: Run, option: str
) -> None:
    run(ONE_OF_TWO).assert_outcomes(passed=1, failed=1)
    run("", option, "-x").assert_outcomes(failed=1, passed=int(option == "--sw"))
    run(ONE_OF_TWO.replace("x.test", "a.test").replace("test_bad(egress):", "test_bad(): return;"))
    assert str(run("", "--lf", "--co", "-q").stdout).count("test_x.py::") == 2


def test_set_up_can_be_watched(run: Run) -> None:
    result = run(ONE_OF_TWO, "--setup-show")
    result.assert_outcomes(passed=1, failed=1)
    lines_of(
        result, "SETUP    S session_egress", "*SETUP    F egress (fixtures used: class_egress*"
    )
    lines_of(result, "*TEARDOWN F egress", "TEARDOWN S session_egress", f"FAILED *{UNROUTED_X}*")


def test_a_plan_of_the_set_up_starts_nothing(run: Run, pytester: pytest.Pytester) -> None:
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


@pytest.mark.parametrize("mode", ["load", "loadscope", "loadfile", "loadgroup", "worksteal"])
def test_every_way_to_distribute_tests_keeps_each_verdict_with_its_test(
    run: Run, mode: str
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


def test_each_worker_may_run_every_test(run: Run) -> None:
    result = run(ONE_OF_TWO, "-n2", "--dist=each", subprocess=True)
    result.assert_outcomes(passed=2, failed=2)


# Reruns.


def test_a_rerun_has_routes_and_a_ledger_of_its_own(run: Run) -> None:
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


@pytest.mark.parametrize(("only", "reruns"), [("UnroutedError", 1), ("NeverCalledError", 0)])
def test_reruns_can_be_of_one_kind_of_verdict(run: Run, only: str, reruns: int) -> None:
    result = run(ONE_OF_TWO, "--reruns=1", f"--only-rerun={only}", "-Wignore")
    wanted = {"passed": 1, "failed": 1, "rerun": reruns}
    assert result.parseoutcomes() == {name: n for name, n in wanted.items() if n}


# Kinds of tests.


def test_sub_tests_of_unittest_are_judged_once(run: Run) -> None:
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


def test_set_up_and_tear_down_of_unittest_belong_to_the_test(run: Run) -> None:
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


def test_a_unittest_class_shares_the_egress_of_its_class(run: Run) -> None:
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


def test_an_async_fixture_of_a_module_declares_for_all_of_its_tests(run: Run) -> None:
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


def test_an_async_test_may_wait_for_a_call_beside_its_loop(run: Run) -> None:
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


def test_an_anyio_fixture_declares_routes(run: Run) -> None:
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


def test_a_doctest_of_a_module_is_judged(run: Run) -> None:
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


def test_hypothesis_accepts_an_egress_that_is_wider_than_a_test(run: Run) -> None:
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


def test_a_failing_example_shows_the_handlers_cause(run: Run) -> None:
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


@pytest.mark.parametrize("option", OUTPUTS)
def test_a_verdict_stays_under_every_option_of_output(
    run: Run, pytester: pytest.Pytester, option: str
) -> None:
    pytester.makeini("[pytest]")  # an older pytest-asyncio has no such options: one may be strict
    result = run(ONE_OF_TWO, option, "-pno:asyncio", subprocess=option.startswith("-pno:"))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines_of(result, "*1 unrouted attempt of shop; nothing got out:*")
    if option not in ("-qq", "--color=yes"):
        lines_of(result, f"FAILED test_x.py::test_bad - {UNROUTED_X}*")
    result.stdout.no_fnmatch_line("*plugin.py*")


def test_the_stacks_that_faulthandler_dumps_disturb_no_handler(run: Run) -> None:
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


def test_a_report_of_a_verdict_survives_json(run: Run, pytester: pytest.Pytester) -> None:
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
    run: Run, pytester: pytest.Pytester, kind: str
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


def test_options_from_the_environment_hold(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--egress-unrouted=block --egress-dns=strict")
    result = run(ONE_OF_TWO)
    result.assert_outcomes(passed=2)
    lines_of(result, "egress: unrouted=block, dns=strict")
    run("", "--egress-unrouted=fail").assert_outcomes(passed=1, failed=1)


# Ends of tests and runs.


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise SystemExit", "exit('done')"])
def test_an_exit_of_the_test_is_its_own_failure(run: Run, end: str) -> None:
    result = run(f"""
        import sys
        def test_a(egress):
            traffic(egress, "https://x.test/")
            {end}
        def test_b(egress): assert not egress.ledger
    """)
    result.assert_outcomes(failed=1, passed=1)
    lines_of(result, "FAILED *test_a - SystemExit*")


@pytest.mark.parametrize("place", ["test", "fixture", "handler"])
def test_pytest_exit_ends_the_run_with_its_code(run: Run, place: str) -> None:
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


def test_a_time_out_in_a_handler_by_signal_names_the_test_and_the_run_goes_on(run: Run) -> None:
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


def test_a_run_within_a_test_has_a_session_of_its_own(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = "pytester"')
    result = run(
        '''
        pytest_plugins = "pytester"
        def test_a(egress, pytester):
            egress.intercept_https("a.test", lambda request: "outer")
            window = egress.session.ledger.window
            pytester.makepyfile("""
                from gateway import traffic
                def test_inner(egress):
                    assert egress.session.ledger.window is not None
                    traffic(egress, "https://a.test/")
            """)
            inner = pytester.runpytest_inprocess()
            inner.assert_outcomes(failed=1)
            assert egress.session.ledger.window is window
            assert attempt(egress, "https://a.test/") == "outer"
            egress["a.test"].assert_called_once()
        ''',
    )
    result.assert_outcomes(passed=1)


def test_a_second_run_in_the_process_finds_nothing_of_the_first(
    run: Run, pytester: pytest.Pytester
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


# The same with real containers.


def test_a_second_run_in_the_process_leaves_no_thread_and_no_descriptor(
    run_real: Run, pytester: pytest.Pytester
) -> None:
    script = pytester.makepyfile(
        twice="""
        import os, pytest, threading
        def left(): return threading.active_count(), sorted(os.listdir("/proc/self/fd"))
        seen = []
        for _ in range(3):
            assert pytest.main(["-q", "-pno:cacheprovider", "-pno:rerunfailures", "test_x.py"]) == 0
            seen.append(left())
        assert seen[0][0] == 1, threading.enumerate()
        assert seen[1] == seen[2], seen
        """
    )
    pytester.makepyfile(
        test_x="""
        def test_a(egress, image, curl):
            egress.intercept_https("a.test", {"n": 1})
            assert curl("https://a.test/") == '{"n": 1}'
        """
    )
    result = pytester.runpython(script)
    assert result.ret == 0, result.stderr.str()


def test_a_child_of_multiprocessing_disturbs_neither_the_link_nor_the_watchdog(
    run_real: Run,
) -> None:
    run_real(
        """
        import multiprocessing, os, urllib.request
        from pytest_egress import http_ok
        def work(queue): queue.put(os.getpid())
        def test_a(egress, image, curl):
            egress.intercept_https("a.test", {"n": 1})
            server = egress.start(image, "python3 -m http.server 8080", wait=http_ok(8080, "/"))
            assert curl("https://a.test/") == '{"n": 1}'
            context = multiprocessing.get_context("fork")
            queue = context.SimpleQueue()
            child = context.Process(target=work, args=(queue,))
            child.start()
            assert queue.get() == child.pid
            child.join()
            assert curl("https://a.test/") == '{"n": 1}'
            with urllib.request.urlopen(server.url(8080)) as response:
                assert response.status == 200
            assert egress.session.engine._watchdog._process.poll() is None
        """,
        "-Wignore",
    ).assert_outcomes(passed=1)


@pytest.mark.parametrize("place", ["test", "with", "fixture"])
def test_a_forked_child_that_falls_out_of_its_test_ends_nothing_of_its_parent(
    run_real: Run, place: str
) -> None:
    result = run_real(
        f"""
        import os
        def fork(where):
            if where == {place!r}:
                if (child := os.fork()) == 0: raise AssertionError("of the child")
                os.waitpid(child, 0)
        @pytest.fixture(scope="module")
        def forking(shop): fork("fixture")
        def test_a(egress, image, curl, forking):
            egress.intercept_https("a.test", {{"n": 1}})
            with egress.start(image, ["sleep", "infinity"]) as own:
                fork("with")
                assert own.exec(["true"]).exit_code == 0
            fork("test")
            assert curl("https://a.test/") == '{{"n": 1}}'
            assert os.path.isdir(egress.session.engine.folder)
            assert egress.session.engine._watchdog._process.poll() is None
        def test_b(egress, curl):
            egress.intercept_https("b.test", {{"n": 2}})
            assert curl("https://b.test/") == '{{"n": 2}}'
        """,
        "-Wignore",
    )
    result.assert_outcomes(passed=2)
    lines_of(result, "*AssertionError: of the child", "*EngineError: process * is a fork of *")


def test_a_forked_child_that_falls_out_of_an_egress_ends_nothing_of_its_parent(
    pytester: pytest.Pytester, bare_image: str
) -> None:
    script = pytester.makepyfile(
        script=f"""
        import os, warnings
        from pytest_egress import Egress
        warnings.simplefilter("ignore")
        with Egress() as egress:
            own = egress.start({bare_image!r}, ["sleep", "infinity"])
            if (child := os.fork()) == 0: raise AssertionError("of the child")
            assert os.waitpid(child, 0)[1]
            assert own.exec(["true"]).exit_code == 0
        """
    )
    assert pytester.runpython(script).ret == 0


def test_a_time_out_by_thread_ends_the_run_and_the_watchdog_removes_its_containers(
    run_real: Run, pytester: pytest.Pytester, engine_client: docker.DockerClient
) -> None:
    result = run_real(
        """
        import threading
        @pytest.mark.timeout(5, func_only=True)
        def test_a(egress, image, curl):
            def stuck(request): threading.Event().wait()
            egress.intercept_https("a.test", stuck)
            curl("https://a.test/")
        """,
        "--timeout-method=thread",
        "-Wignore",
    )
    assert result.ret == 1
    lines_of(result, "*in stuck")
    session = (pytester.path / "session").read_text()
    assert eventually(lambda: not containers(engine_client, session))


# Plugins that replace clocks and sockets.


def test_a_frozen_test_may_declare_routes(run: Run) -> None:
    run(
        """
        from freezegun import freeze_time
        @freeze_time("2020-01-01")
        def test_a(egress):
            egress.intercept_https("a.test")
            traffic(egress, "https://a.test/")
        @freeze_time("2020-01-01")
        def test_b(egress): traffic(egress, "https://x.test/")
        """
    ).assert_outcomes(passed=1, failed=1)


def test_a_handler_sees_the_frozen_clock_and_requests_are_answered_under_it(run_real: Run) -> None:
    run_real(
        """
        import datetime
        from freezegun import freeze_time
        def test_a(egress, curl):
            egress.intercept_https("*.test", lambda request: str(datetime.date.today()))
            with freeze_time("2099-01-02"):
                assert curl("https://new.test/") == "2099-01-02"
            assert curl("https://other.test/") != "2099-01-02"
        """,
        "-Wignore",
    ).assert_outcomes(passed=1)


FREEZES: Final = {
    "freezegun": "from freezegun import freeze_time as freeze",
    "time-machine": "from time_machine import travel as freeze",
}


@pytest.mark.parametrize("name", FREEZES)
@pytest.mark.parametrize("before", ["", "import pytest_egress.gateway.authority, trustme"])
def test_what_starts_under_frozen_time_has_certificates_of_the_real_one(
    run_real: Run, before: str, name: str
) -> None:
    run_real(
        f"""
        import datetime
        {before}
        {FREEZES[name]}
        @pytest.fixture(scope="session", autouse=True)
        def frozen():
            freezes = freeze("2099-01-02")
            freezes.start()
            yield freezes
            freezes.stop()
        def test_a(frozen, egress, curl):
            egress.intercept_https("*.test", lambda request: str(datetime.date.today()))
            assert curl("https://a.test/") == curl("https://a_b.test/") == "2099-01-02"
            assert abs(egress.ledger[0].started - {wall()}) < 600
        def test_b(frozen, egress, curl):
            frozen.stop()
            egress.intercept_https("*.test", lambda request: str(datetime.date.today()))
            assert curl("https://b.test/") == curl("https://c_d.test/") > "2026"
            frozen.start()
        """,
        "-Wignore",
    ).assert_outcomes(passed=2)


def test_certificates_that_freezegun_has_spoilt_are_told_of(run: Run) -> None:
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


@pytest.mark.parametrize("name", FREEZES)
def test_waits_and_durations_are_of_the_real_clock_whatever_is_frozen(
    run_real: Run, name: str
) -> None:
    run_real(
        f"""
        import asyncio
        from pytest_egress import log_line
        from pytest_egress import asgi
        from pytest_egress.errors import CallError, ContainerTimeoutError
        {FREEZES[name]}
        async def app(scope, receive, send):
            if scope["type"] == "http":
                await asyncio.sleep(0.1)
                await send({{"type": "http.response.start", "status": 200}})
                await send({{"type": "http.response.body", "body": b"slow"}})
        async def handler(request):
            await asyncio.sleep(0.1)
            return "slow"
        @freeze("2020-01-02")
        def test_a(egress, image, curl):
            never = egress.intercept_https("never.test", optional=True)
            route = egress.intercept_https("a.test", handler)
            egress.intercept_https("b.test", asgi(app))
            assert curl("https://a.test/") == curl("https://b.test/") == "slow"
            assert egress.exchanges[0].duration > 0
            with pytest.raises(CallError): never.wait_for_call(timeout=0.1)
            with pytest.raises(ContainerTimeoutError):
                egress.run(image, ["sleep", "infinity"], timeout=0.5)
            with pytest.raises(ContainerTimeoutError):
                egress.start(image, ["sleep", "infinity"], wait=log_line("never"), timeout=0.5)
            assert egress.run(image, ["sleep", "0.5"]).duration > 0
        """,
        "-Wignore",
        "--timeout=60",
    ).assert_outcomes(passed=1)


def test_a_test_without_sockets_may_declare_routes(run: Run) -> None:
    result = run(ONE_OF_TWO, "--disable-socket", "-Wignore")
    result.assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize(
    "options", [["--disable-socket"], ["--disable-socket", "--allow-unix-socket"]]
)
def test_the_marker_that_enables_sockets_is_enough_for_a_container(
    run_real: Run, options: list[str]
) -> None:
    run_real(
        """
        @pytest.mark.enable_socket
        def test_a(egress, curl):
            egress.intercept_https("a.test", {"n": 1})
            assert curl("https://a.test/") == '{"n": 1}'
        """,
        *options,
        "-Wignore",
    ).assert_outcomes(passed=1)


def test_a_container_needs_none_of_the_hosts_that_are_allowed(run_real: Run) -> None:
    run_real(
        """
        def test_a(egress, curl):
            egress.intercept_https("a.test", {"n": 1})
            assert curl("https://a.test/") == '{"n": 1}'
        """,
        "--allow-hosts=192.0.2.1",
        "--allow-unix-socket",
        "-Wignore",
    ).assert_outcomes(passed=1)


@pytest.mark.parametrize("link", ["descriptor", "stream"])
@pytest.mark.parametrize(
    "options", [["--disable-socket"], ["--allow-hosts=127.0.0.1"]], ids=["none", "hosts"]
)
def test_a_test_that_may_open_no_socket_has_containers_all_the_same(
    run_real: Run, options: list[str], link: str
) -> None:
    run_real(
        f"""
        import socket, urllib.request
        from pytest_egress import forward, http_ok
        def may_connect(port):
            try: socket.create_connection(("127.0.0.1", port)).close()
            except Exception as error:
                assert "A test tried to use socket" in str(error)
                return False
            return True
        async def handler(request): return {{"n": 1}}
        def test_a(egress, image, curl):
            egress.intercept_https("a.test", handler)
            server = egress.start(image, "python3 -m http.server 8080", wait=http_ok(8080))
            assert curl("https://a.test/") == '{{"n": 1}}'
            egress.intercept_http("b.test", forward(server, 8080))
            assert "Directory listing" in curl("http://b.test/")
            assert may_connect(server.address(8080)[1]) is {options != ["--disable-socket"]}
            egress.intercept_http("c.test", forward("http://192.0.2.1:9"))
            assert "cannot be reached: A test tried to use socket." in curl("http://c.test/")
        """,
        *options,
        "--allow-unix-socket",
        f"--egress-link={link}",
        "-Wignore",
    ).assert_outcomes(passed=1)


@pytest.mark.parametrize("filter_", ["ignore", "error"])
@pytest.mark.parametrize("option", ["--disable-socket", "--allow-hosts=192.0.2.1"])
def test_a_test_that_may_not_reach_the_engine_says_what_to_type(
    run_real: Run, option: str, filter_: str
) -> None:
    result = run_real(
        """
        @pytest.mark.enable_socket
        def test_a(egress, image): egress.run(image, ["true"])
        def test_b(egress, image): egress.run(image, ["true"])
        """,
        option,
        "-Wignore",
        f"-W{filter_}:A test tried",
    )
    lines_of(
        result,
        "E *EngineError: pytest-socket keeps this test from the Docker engine at unix:///*",
        "E *start pytest with --allow-unix-socket; to lift the ban *@pytest.mark.enable_socket.",
    )


# Ends of a run with real containers.


@pytest.mark.parametrize(
    ("end", "code"), [("KeyboardInterrupt", 2), ("pytest.exit('enough', returncode=7)", 7)]
)
def test_a_set_up_that_ends_the_run_leaves_no_half_started_container(
    run_real: Run,
    pytester: pytest.Pytester,
    engine_client: docker.DockerClient,
    end: str,
    code: int,
) -> None:
    result = run_real(
        f"""
        from pytest_egress.targets.container import Container
        @pytest.fixture(scope="module")
        def broken(module_egress, image):
            def stop(container): raise {end}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Container, "_start", stop)
                module_egress.start(image, ["sleep", "infinity"])
        def test_a(egress, shop, broken): print("never")
        """,
        "-s",
        "-Wignore",
    )
    assert result.ret == code
    result.stdout.no_fnmatch_line("*never*")
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    assert eventually(
        lambda: not containers(engine_client, (pytester.path / "session").read_text())
    )


def test_a_time_out_by_signal_leaves_a_shared_container_to_the_next_test(run_real: Run) -> None:
    result = run_real(
        """
        import threading
        @pytest.mark.timeout(5, func_only=True)
        @pytest.mark.egress(timeout=0.5)
        def test_a(shop, egress, curl):
            egress.intercept_https("a.test", lambda request: threading.Event().wait())
            curl("https://a.test/")
        @pytest.mark.timeout(5, func_only=True)
        def test_b(shop, egress, image): egress.run(image, ["sleep", "infinity"])
        def test_c(egress, curl):
            egress.intercept_https("a.test", {"n": 1})
            assert curl("https://a.test/") == '{"n": 1}'
            egress["a.test"].assert_called_once()
        """,
        "--timeout-method=signal",
        "-Wignore",
    )
    result.assert_outcomes(failed=2, passed=1)
    lines_of(result, "FAILED *test_a - Failed: Timeout*", "FAILED *test_b - Failed: Timeout*")


# Threads.


def test_threads_that_start_the_first_containers_together_share_one_ca_and_one_client(
    engine_client: docker.DockerClient,
) -> None:
    made = []

    def slowly(make: Callable[[], Any]) -> Callable[[], Any]:
        def wait_and_make() -> Any:
            made.append(make)
            threading.Event().wait(0.2)
            return make()

        return wait_and_make

    session = Session(client=slowly(docker.from_env), ca=slowly(trustme.CA))
    with contextlib.closing(session), ThreadPoolExecutor(4) as pool:
        seen = list(
            pool.map(
                lambda _: (session.authority, session.engine.client, session.engine.folder),
                range(4),
            )
        )
    assert len({tuple(map(id, each)) for each in seen}) == 1
    assert made == [trustme.CA, docker.from_env]


def test_threads_may_run_containers_beside_each_other(clients_image: str) -> None:
    def run(number: int) -> str:
        url = f"https://{number}.test/"
        return egress.run(clients_image, ["curl", "-sS", "--fail", url], check=True).stdout

    with Egress() as egress, ThreadPoolExecutor(4) as pool:
        egress.intercept_https("*.test", lambda request: request.host)
        assert [*pool.map(run, range(4))] == [f"{number}.test" for number in range(4)]
        assert len({exchange.container for exchange in egress.exchanges}) == 4
