"""`Progress`: reports steps that take long to a screen, while they last. Without a screen no thread runs.

This module knows neither pytest nor a terminal: the screen decides how a text is shown.

Threads: any begins, changes and ends a step; one of ours shows them while there are any, and calls the screen. The
lock guards which steps there are and who shows them; no other is taken, and no screen called, while it is held.
"""

from __future__ import annotations

import threading
from typing import Final, Protocol

from pytest_egress.base.clock import monotonic

TICK_SECONDS: Final = 1.0  # between two updates; a shorter step is not shown


class Screen(Protocol):
    """Shows one text at a time."""

    def show(self, text: str, seconds: float) -> None:
        """Show a step's text and for how many seconds it has lasted, in place of what was shown before."""

    def clear(self) -> None:
        """Remove what is shown: no step goes on any more."""


class Step:
    """An operation that may take long; used as a context manager.

    Attributes:
        text: The operation in words; it may be changed while the step lasts.
    """

    def __init__(self, progress: Progress, text: str) -> None:
        self.text = text
        self.began: Final = monotonic()
        self._progress = progress

    def __enter__(self) -> Step:
        self._progress.begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.end(self)


class Progress:
    """The steps that go on. Every second the latest of them that has lasted long enough is shown.

    Attributes:
        screen: The screen that shows it; None for none.
    """

    def __init__(self) -> None:
        self.screen: Screen | None = None
        self._steps: list[Step] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def step(self, text: str) -> Step:
        """Make a step, which begins when its `with` block is entered."""
        return Step(self, text)

    def begin(self, step: Step) -> None:
        """Begin a step. The first one starts the thread that shows steps."""
        if self.screen is None:
            return
        with self._changed:
            self._steps.append(step)
            if self._thread is None:
                self._thread = threading.Thread(target=self._tell, name="egress progress")
                self._thread.daemon = True
                self._thread.start()

    def end(self, step: Step) -> None:
        """End a step. With the last one the thread ends, and the screen is cleared."""
        thread = None
        with self._changed:
            if step in self._steps:
                self._steps.remove(step)
                if not self._steps:
                    thread, self._thread = self._thread, None
                    self._changed.notify_all()
        if thread is not None:
            thread.join()

    def _tell(self) -> None:
        """Show steps until none goes on."""
        thread, screen, shown = threading.current_thread(), self.screen, False
        assert screen is not None
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._thread is not thread, TICK_SECONDS):
                    break
                now = monotonic()
                long = [step for step in self._steps if now - step.began >= TICK_SECONDS]
            if long:
                screen.show(long[-1].text, now - long[-1].began)
                shown = True
        if shown:
            screen.clear()
