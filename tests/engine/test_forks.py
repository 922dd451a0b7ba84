"""Forks and further runs in one process, with real containers, over both links."""

from __future__ import annotations

import pytest

from tests.support.stand_in import RunPytest, keep_quiet, lines_of

pytestmark = pytest.mark.plugins("time_machine", "timeout")


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    keep_quiet(monkeypatch, pytester)


def test_a_second_run_in_the_process_leaves_no_thread_and_no_descriptor(
    run_real: RunPytest, pytester: pytest.Pytester
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
    run_real: RunPytest,
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
            assert egress._inner.session.engine._watchdog._process.poll() is None
        """,
        "-Wignore",
    ).assert_outcomes(passed=1)


def test_a_forked_child_that_falls_out_of_its_test_ends_nothing_of_its_parent(
    run_real: RunPytest,
) -> None:
    result = run_real(
        """
        import os
        @pytest.fixture(scope="module", params=["fixture", "with", "test"])
        def place(request): return request.param
        def fork(where, place):
            if where == place:
                if (child := os.fork()) == 0: raise AssertionError(f"of the child of a {place}")
                os.waitpid(child, 0)
        @pytest.fixture(scope="module")
        def forking(shop, place): fork("fixture", place)
        def test_a(egress, image, curl, place, forking):
            egress.intercept_https("a.test", {"n": 1})
            with egress.start(image, ["sleep", "infinity"]) as own:
                fork("with", place)
                assert own.exec(["true"]).exit_code == 0
            fork("test", place)
            assert curl("https://a.test/") == '{"n": 1}'
            assert os.path.isdir(egress._inner.session.engine.folder)
            assert egress._inner.session.engine._watchdog._process.poll() is None
        def test_b(egress, curl):
            egress.intercept_https("b.test", {"n": 2})
            assert curl("https://b.test/") == '{"n": 2}'
        """,
        "-Wignore",
    )
    result.assert_outcomes(passed=4)
    for place in ("fixture", "with", "test"):
        lines_of(
            result,
            f"*AssertionError: of the child of a {place}*",
            "*EngineError: process * is a fork of *",
        )


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
