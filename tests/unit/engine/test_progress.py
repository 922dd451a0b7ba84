"""What takes long says so while it does: on a terminal, in the log of a job, and nowhere else."""

from __future__ import annotations

import threading
from typing import Any, Final

import pytest

import pytest_egress.engine.progress as progress_module
from pytest_egress.engine.images import PullProgress
from pytest_egress.engine.progress import Progress
from tests.support.leftovers import until
from tests.support.stand_in import HEAD, Run, keep_quiet, runner_of


class Recorder:
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.cleared = 0

    def show(self, text: str, seconds: float) -> None:
        self.shown.append(text)

    def clear(self) -> None:
        self.cleared += 1


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> Progress:
    """One that shows at once, on a screen that records."""
    monkeypatch.setattr(progress_module, "TICK_SECONDS", 0.01)
    made = Progress()
    made.screen = Recorder()
    return made


def recorder(progress: Progress) -> Recorder:
    assert isinstance(progress.screen, Recorder)
    return progress.screen


def tellers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "egress progress"]


def test_the_innermost_step_is_shown_as_it_changes_and_all_is_taken_back(
    progress: Progress,
) -> None:
    shown = recorder(progress).shown
    with progress.step("starting"):
        assert until(lambda: "starting" in shown)
        with progress.step("pulling") as step:
            assert until(lambda: shown[-1] == "pulling")
            step.text = "pulling: 5 of 9 MB"
            assert until(lambda: shown[-1] == "pulling: 5 of 9 MB")
        assert until(lambda: shown[-1] == "starting")
        assert recorder(progress).cleared == 0
    assert recorder(progress).cleared == 1
    assert tellers() == []


def test_what_ends_at_once_is_not_shown(
    progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "TICK_SECONDS", 60)
    for _ in range(20):
        with progress.step("short"):
            assert len(tellers()) == 1
    assert (recorder(progress).shown, recorder(progress).cleared) == ([], 0)
    assert tellers() == []


def test_without_a_screen_no_thread_runs(progress: Progress) -> None:
    progress.screen = None
    with progress.step("starting"):
        assert tellers() == []


def test_steps_of_several_threads_are_of_one_teller(progress: Progress) -> None:
    both, go = threading.Barrier(3), threading.Event()

    def work() -> None:
        with progress.step("starting"):
            both.wait(10)
            go.wait(10)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    both.wait(10)
    assert len(tellers()) == 1
    go.set()
    for thread in threads:
        thread.join()
    assert tellers() == []


def test_a_pull_says_how_many_bytes_have_come() -> None:
    pull = PullProgress("shop")
    step = {
        "id": "1",
        "status": "Downloading",
        "progressDetail": {"current": 10**6, "total": 10**7},
    }
    assert pull.take({"status": "Pulling fs layer", "id": "1"}) == "pulling shop"
    assert pull.take(step) == "pulling shop: 1.0 of 10.0 MB"
    assert pull.take({"status": "Download complete", "id": "1"}) == "pulling shop: 10.0 of 10.0 MB"
    assert pull.take({"status": "Extracting", "id": "1"}) == "pulling shop: 10.0 of 10.0 MB"


# In pytest.

SOON: Final = """
import pytest_egress.engine.progress, pytest_egress.plugin.screen
pytest_egress.engine.progress.TICK_SECONDS = 0.05
pytest_egress.plugin.screen.LINE_SECONDS = {seconds}
"""
SLOW: Final = """
def slow(egress):
    print("captured")
    screen = egress.session.engine.progress.screen
    with egress.session.engine.progress.step("pulling shop"):
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


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    return runner_of(pytester)


def test_in_the_log_of_a_job_it_is_a_line(run: Run) -> None:
    result = run(SLOW, subprocess=True)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["test_x.py .", "egress: pulling shop, 0 s", ".. *[[]100%]"], consecutive=True
    )
    result.stdout.no_fnmatch_line("*captured*")


def test_with_names_of_tests_the_name_comes_again(run: Run) -> None:
    result = run(SLOW, "-v", subprocess=True)
    wanted = ["test_x.py::test_b ", "egress: pulling shop, 0 s", "test_x.py::test_b PASSED *"]
    result.stdout.fnmatch_lines(wanted, consecutive=True)


@pytest.mark.parametrize("args", [["-q"], ["-n1"]])
def test_neither_quiet_runs_nor_workers_write_lines(run: Run, args: list[str]) -> None:
    result = run(SLOW, *args, subprocess=True)
    assert "3 passed" in result.stdout.str()
    result.stdout.no_fnmatch_line("*pulling*")


@pytest.mark.parametrize("args", ["", "-q", "-v", "-s"])
def test_on_a_terminal_it_stands_behind_what_pytest_wrote_and_goes(
    pytester: pytest.Pytester, args: str
) -> None:
    pytester.makepyfile(test_x=HEAD + SLOW)
    child: Any = pytester.spawn_pytest(f"{args} --color=no test_x.py")
    child.expect_exact("\x1b7\x1b[?7l egress: pulling shop, 0 s\x1b[K\x1b[?7h\x1b8")
    child.expect_exact("\x1b[K")
    child.expect("3 passed")
    child.wait()


def test_a_drain_says_so(run: Run) -> None:
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


def test_no_line_comes_while_a_debugger_asks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x=HEAD
        + """
def test_a(egress):
    egress.intercept_https("a.test", lambda request: breakpoint())
    with egress.session.engine.progress.step("waiting"):
        traffic(egress, "https://a.test/")
"""
    )
    child: Any = pytester.spawn_pytest("-q --color=no test_x.py")
    child.expect(r"\(Pdb\) ")
    child.sendline("import time; time.sleep(1); print('still' + 'ness')")
    child.expect("stillness")
    assert b"waiting" not in child.before
    child.sendline("c")
    child.expect("1 passed")
    child.wait()


def test_a_start_a_wait_for_readiness_and_one_for_the_end_say_so(
    run: Run, pytester: pytest.Pytester, bare_image: str
) -> None:
    pytester.makeconftest(SOON.format(seconds=0.2))
    result = run(
        f"""
from pytest_egress import log_line
def test_a(egress):
    egress.start({bare_image!r}, ["sh", "-c", "sleep 2; echo up; sleep 60"], wait=log_line("up"))
    egress.run({bare_image!r}, ["sleep", "2"])
""",
        subprocess=True,
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "egress: waiting until bare:latest is ready: no line of the log matches 'up', * s",
            "egress: waiting for the end of bare*, * s",
        ]
    )
