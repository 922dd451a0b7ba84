"""`pytest-egress watch IMAGE [COMMAND]`: a line for each attempt, nothing let out, and at the end the test about it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Final

from pytest_egress.commands.order import Order
from pytest_egress.commands.trial import Trial, opened, run_once
from pytest_egress.commands.written import test_text
from pytest_egress.ledger.watched import Colour, WatchedLine
from pytest_egress.ledger.watcher import Watcher

LOG_COLUMNS: Final = 160  # where the output is no terminal
CODES: Final[dict[Colour, str]] = {
    "": "0",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "purple": "35",
    "light": "2",
}
"""ECMA-48 section 8.3.117 (SGR)."""


def watch(order: Order) -> int:
    """Print what the image attempts; return the exit code of the command."""
    with opened(order) as session:
        watcher = Watcher(session.ledger, write, session.ledger.now(), columns)
        try:
            trial = run_once(session, order)
        finally:
            watcher.close()
        text = test_text(order, trial.entries, session.ledger.redactor)
    print(f"\n{ending(order, trial)}\n\n{text}", end="")
    return 0


def ending(order: Order, trial: Trial) -> str:
    if trial.exit_code is not None:
        how = f"It exited with code {trial.exit_code}"
    else:
        how = (
            "It was stopped"
            if trial.stopped
            else f"It still ran after {order.timeout:g} s, and was ended"
        )
    return f"{how}; nothing got out. A test about it:"


def write(lines: Sequence[WatchedLine]) -> None:
    is_terminal = sys.stdout.isatty()
    for line in lines:
        colour = is_terminal and line.colour
        print(f"\x1b[{CODES[line.colour]}m{line.text}\x1b[0m" if colour else line.text, flush=True)


def columns() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else LOG_COLUMNS
