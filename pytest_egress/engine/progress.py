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
        """Replace what is shown by a step's text, and the seconds that it has lasted."""

    def clear(self) -> None: ...


class Step:
    """An operation that may take long, as a context manager; its text may be changed meanwhile."""

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
    """The steps that go on. Every second the latest of them that has lasted long enough is shown."""

    def __init__(self) -> None:
        self.screen: Screen | None = None
        self._steps: list[Step] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def step(self, text: str) -> Step:
        """The step begins when its `with` block is entered."""
        return Step(self, text)

    def begin(self, step: Step) -> None:
        """The first step starts the thread that shows steps."""
        if self.screen is None:
            return
        with self._changed:
            self._steps.append(step)
            if self._thread is None:
                tell, name = self._tell, "egress progress"
                self._thread = threading.Thread(target=tell, name=name, daemon=True)
                self._thread.start()

    def end(self, step: Step) -> None:
        """The thread ends with the last step, and the screen is cleared."""
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
