"""What takes long is told while it does, by steps within steps."""

from __future__ import annotations

import threading
from typing import Final

import pytest

import pytest_egress.engine.progress as progress_module
from pytest_egress.engine.progress import Progress
from tests.support.leftovers import until


class RecordingScreen:
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
    made.screen = RecordingScreen()
    return made


def recorder(progress: Progress) -> RecordingScreen:
    assert isinstance(progress.screen, RecordingScreen)
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


class Hanging(RecordingScreen):
    """A screen that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()

    def show(self, text: str, seconds: float) -> None:
        self.asked.set()
        self.go_on.wait(10)


def test_no_step_waits_for_the_screen(progress: Progress) -> None:
    screen = progress.screen = Hanging()
    begun = threading.Event()

    def begin() -> None:
        with progress.step("pulling"):
            begun.set()

    with progress.step("starting"):
        assert screen.asked.wait(10)
        threading.Thread(target=begin, daemon=True).start()
        is_begun = begun.wait(2)
        screen.go_on.set()
    assert is_begun


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


# In pytest.

SOON: Final = """
import pytest_egress.engine.progress, pytest_egress.plugin.screen
pytest_egress.engine.progress.TICK_SECONDS = 0.05
pytest_egress.plugin.screen.LINE_SECONDS = {seconds}
"""
