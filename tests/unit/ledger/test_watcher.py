"""The thread that looks for what a ledger has recorded."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.watched import WatchedLine
from pytest_egress.ledger.watcher import Watcher
from pytest_egress.ledger.windows import Activity, Window
from tests.support.entries import http_exchange, packet
from tests.support.stage import SECONDS


class Written:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.came = threading.Event()

    def __call__(self, lines: Sequence[WatchedLine]) -> None:
        self.texts += [line.text for line in lines]
        self.came.set()


def watcher_of(ledger: Ledger, written: Written) -> Watcher:
    return Watcher(ledger, written, ledger.now(), lambda: 160)


def test_what_is_recorded_is_written_without_being_asked_for() -> None:
    ledger, written = Ledger(), Written()
    watcher = watcher_of(ledger, written)
    ledger.record(Window(), packet())
    assert written.came.wait(SECONDS)
    watcher.close()
    assert len(written.texts) == 2
    ledger.record(Window(), packet())  # nobody watches
    watcher.look()
    assert len(written.texts) == 2


def test_the_end_of_a_test_has_everything_written() -> None:
    ledger, written = Ledger(), Written()
    watcher = watcher_of(ledger, written)
    entry = http_exchange(outcome="routed", started=ledger.now())
    ledger.record(Window(), entry)
    ledger.begin(Window(), Activity(what=entry))
    watcher.look(last=True)
    watcher.close()
    (text,) = written.texts
    assert text.endswith("no answer yet")


def test_beside_an_open_prompt_nothing_is_written() -> None:
    ledger, written = Ledger(), Written()
    watcher = watcher_of(ledger, written)
    ledger.enter_prompt()
    ledger.record(Window(), packet())
    watcher.look(last=True)
    assert not written.texts
    ledger.leave_prompt()
    watcher.close()
    assert len(written.texts) == 2
