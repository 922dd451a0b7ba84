"""`Watching`: --egress-watch, a line on the terminal for each attempt when its outcome is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import pytest

from pytest_egress.base.clock import wall
from pytest_egress.ledger.watcher import Watcher

if TYPE_CHECKING:
    from pytest_egress.ledger.ledger import Ledger
    from pytest_egress.ledger.watched import WatchedLine
    from pytest_egress.plugin.screen import Terminal


class Watching:
    """Watches the ledgers of a run, of which there is more than one where its session is made again."""

    def __init__(self, screen: Terminal) -> None:
        self._screen: Final = screen
        self._began: Final = wall()
        self._watchers: list[Watcher] = []

    def start(self, ledger: Ledger) -> None:
        watcher = Watcher(ledger, self._write, self._began, lambda: self._screen.width)
        self._watchers.append(watcher)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """What a test attempted stands before its outcome."""
        for watcher in self._watchers:
            watcher.look(last=report.when != "setup")

    def close(self) -> None:
        while self._watchers:
            self._watchers.pop().close()

    def _write(self, lines: Sequence[WatchedLine]) -> None:
        self._screen.write_lines([(line.text, line.colour) for line in lines])
