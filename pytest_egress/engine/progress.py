"""Says what takes long while it does, to a screen. Without one nothing is done, and no thread runs.

Knows neither pytest nor a terminal: a screen decides how a text is shown.

Threads: any begins, changes and ends a step; one of ours shows them while there are any, and calls the screen. The
lock guards which steps there are and who shows them; no other is taken, and no screen called, while it is held.
"""

from __future__ import annotations

import threading
from typing import Final, Protocol

from pytest_egress.base.clock import monotonic

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

TICK_SECONDS: Final = 1.0  # what takes less is not worth a word


class Screen(Protocol):
    """Where texts are shown, and taken back."""

    def show(self, text: str, seconds: float) -> None:
        """What goes on, and for how long; in place of what was shown before."""

    def clear(self) -> None:
        """Nothing goes on any more."""


class Step:
    """Something that may take long; used as a context manager.

    Attributes:
        text: What goes on; may be changed meanwhile.
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
    """The steps that go on, of which the last one that is long enough is shown, every second.

    Attributes:
        screen: Where; None for nowhere.
    """

    def __init__(self) -> None:
        self.screen: Screen | None = None
        self._steps: list[Step] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def step(self, text: str) -> Step:
        """A step, not yet begun."""
        return Step(self, text)

    def begin(self, step: Step) -> None:
        """Begin it; the first one starts the thread that tells."""
        if self.screen is None:
            return
        with self._changed:
            self._steps.append(step)
            if self._thread is None:
                self._thread = threading.Thread(target=self._tell, name="egress progress")
                self._thread.daemon = True
                self._thread.start()

    def end(self, step: Step) -> None:
        """End it; with the last one the thread ends, and nothing stays on the screen."""
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
        """Show what goes on until nothing does."""
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
