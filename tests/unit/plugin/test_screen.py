"""Where and how a run shows what takes long: on a terminal, in the log of a job, and nowhere else."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.support.stand_in import HEAD, RunPytest, keep_quiet

# In pytest.

SOON: Final = """
import pytest_egress.engine.progress, pytest_egress.plugin.screen
pytest_egress.engine.progress.TICK_SECONDS = 0.05
pytest_egress.plugin.screen.LINE_SECONDS = {seconds}
"""
SLOW: Final = """
def slow(egress):
    print("captured")
    screen = egress._inner.session.engine.progress.screen
    with egress._inner.session.engine.progress.step("pulling shop"):
        if screen is not None:
            seen, show = threading.Event(), screen.show
            def noted(*args):
                show(*args); seen.set()
            screen.show = noted
            assert seen.wait(20)
            screen.show = show
    assert not [t for t in threading.enumerate() if t.name == "egress progress"]
def test_a(): pass
def test_b(egress): slow(egress)
def test_c(): pass
"""


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    keep_quiet(monkeypatch, pytester)
    pytester.makeconftest(SOON.format(seconds=0))


@pytest.mark.slow
def test_in_the_log_of_a_job_it_is_a_line(run: RunPytest) -> None:
    result = run(SLOW, subprocess=True)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["test_x.py .", "egress: pulling shop, 0 s", ".. *[[]100%]"], consecutive=True
    )
    result.stdout.no_fnmatch_line("*captured*")


@pytest.mark.slow
def test_with_names_of_tests_the_name_comes_again(run: RunPytest) -> None:
    result = run(SLOW, "-v", subprocess=True)
    wanted = ["test_x.py::test_b ", "egress: pulling shop, 0 s", "test_x.py::test_b PASSED *"]
    result.stdout.fnmatch_lines(wanted, consecutive=True)


@pytest.mark.plugins("xdist")
@pytest.mark.slow
@pytest.mark.parametrize("args", [["-q"], ["-n1"]])
def test_neither_quiet_runs_nor_workers_write_lines(run: RunPytest, args: list[str]) -> None:
    result = run(SLOW, *args, subprocess=True)
    assert "3 passed" in result.stdout.str()
    result.stdout.no_fnmatch_line("*pulling*")


@pytest.mark.slow
@pytest.mark.parametrize("args", ["", "-q", "-v"])
def test_on_a_terminal_it_stands_behind_what_pytest_wrote_and_goes(
    pytester: pytest.Pytester, args: str
) -> None:
    pytester.makepyfile(test_x=HEAD + SLOW)
    child: Any = pytester.spawn_pytest(f"{args} --color=no test_x.py", expect_timeout=60)
    child.expect_exact("\x1b7\x1b[?7l egress: pulling shop, 0 s\x1b[K\x1b[?7h\x1b8")
    child.expect_exact("\x1b[K")
    child.expect("3 passed")
    child.wait()


@pytest.mark.parametrize("args", ["-s", "-o log_cli=true", "--log-cli-level=INFO"])
def test_where_tests_write_to_the_terminal_too_it_is_a_line(
    pytester: pytest.Pytester, args: str
) -> None:
    pytester.makepyfile(test_x=HEAD + SLOW)
    child: Any = pytester.spawn_pytest(f"{args} --color=no test_x.py", expect_timeout=60)
    child.expect_exact("\negress: pulling shop, 0 s")
    child.expect("3 passed")
    assert b"\x1b7" not in child.before
    child.wait()


def test_it_is_in_the_encoding_of_what_pytest_writes(
    run: RunPytest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    result = run(SLOW.replace("pulling shop", "pulling caf\xe9"), subprocess=True)
    result.stdout.fnmatch_lines(["egress: pulling caf\\xe9, 0 s"])


def test_what_a_thread_does_that_is_left_behind_is_not_shown_among_the_failures(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(
        SOON.format(seconds=0)
        + """
import os, threading, time
shown, opened = [], []
def pytest_terminal_summary():
    descriptors = [os.open("own.txt", os.O_WRONLY | os.O_CREAT) for _ in range(9)]
    del shown[:]
    time.sleep(0.5)
    print("shown on:", len(shown), "into a file:", os.path.getsize("own.txt"))
"""
    )
    result = run(
        """
def test_a(egress):
    from conftest import shown
    screen, seen = egress._inner.session.engine.progress.screen, threading.Event()
    show = screen.show
    def noted(*args): show(*args); shown.append(args); seen.set()
    screen.show = noted
    def go_on():
        with egress._inner.session.engine.progress.step("left behind"): threading.Event().wait(60)
    threading.Thread(target=go_on, daemon=True).start()
    assert seen.wait(20)
""",
        subprocess=True,
    )
    _, _, summary = result.stdout.str().rpartition("100%]")
    assert "left behind" not in summary
    assert "into a file: 0" in summary
    result.stdout.no_fnmatch_line("shown on: 0 *")


@pytest.mark.slow
def test_a_drain_says_so(run: RunPytest) -> None:
    result = run(
        """
import time
def test_a(egress):
    started = threading.Event()
    def handler(request): started.set(); time.sleep(1)
    egress.intercept_https("a.test", handler)
    behind(egress, "https://a.test/")
    assert started.wait(10)
""",
        subprocess=True,
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["egress: waiting until what containers have sent is answered, 0 s"]
    )


@pytest.mark.slow
def test_no_line_comes_while_a_debugger_asks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x=HEAD
        + """
def test_a(egress):
    egress.intercept_https("a.test", lambda request: breakpoint())
    with egress._inner.session.engine.progress.step("waiting"):
        traffic(egress, "https://a.test/")
"""
    )
    child: Any = pytester.spawn_pytest("-q --color=no test_x.py", expect_timeout=60)
    child.expect(r"\(Pdb\) ")
    child.sendline("import time; time.sleep(1); print('still' + 'ness')")
    child.expect("stillness")
    assert b"waiting" not in child.before
    child.sendline("c")
    child.expect("1 passed")
    child.wait()
