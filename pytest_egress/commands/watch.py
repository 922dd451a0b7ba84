"""`pytest-egress watch IMAGE [COMMAND]`: a line for each attempt, nothing let out, and at the end the test about it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from pytest_egress.commands.order import Order
from pytest_egress.commands.trial import Trial, opened, run_once
from pytest_egress.commands.written import test_text
from pytest_egress.ledger.watched import Colour, WatchedLine
from pytest_egress.ledger.watcher import Watcher
from pytest_egress.session import Session

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
        with watched(session):
            trial = run_once(session, order)
        redactor = session.ledger.redactor
        text = test_text(order, trial.entries, redactor)
        print(redactor.hidden(f"\n{ending(order, trial)}\n\n{text}"), end="", flush=True)
    return 0


@contextlib.contextmanager
def watched(session: Session) -> Iterator[None]:
    """Print a line for each attempt.

    Raises:
        OSError: The output cannot be written: its reader has left. That ends the run too.
    """
    lines = Lines()
    watcher = Watcher(session.ledger, lines.write, session.ledger.now(), columns)
    try:
        yield
    finally:
        watcher.close()
        if lines.failure is not None:
            raise lines.failure


class Lines:
    """Prints lines, by the thread of a `Watcher`.

    Attributes:
        failure: Why they cannot be printed any more; None where they can.
    """

    def __init__(self) -> None:
        self.failure: OSError | None = None

    def write(self, lines: Sequence[WatchedLine]) -> None:
        if self.failure is not None:
            return
        try:
            write(lines)
        except OSError as error:
            self.failure = error
            main = threading.main_thread()
            if threading.current_thread() is not main and main.ident is not None:
                # As Ctrl-C does: the image may run for long, and nobody reads what it does.
                signal.pthread_kill(main.ident, signal.SIGINT)


def ending(order: Order, trial: Trial) -> str:
    if trial.exit_code is not None:
        how = f"It exited with code {trial.exit_code}"
    else:
        how = (
            "It was stopped"
            if trial.stopped
            else f"It still ran after {order.timeout:g} s, and was ended"
        )
    if trial.unseen:
        how = f"Not all that it attempted could be seen: {trial.unseen}\n{how}"
    return f"{how}; nothing got out. A test about it:"


def write(lines: Sequence[WatchedLine]) -> None:
    is_terminal = sys.stdout.isatty()
    for line in lines:
        colour = is_terminal and line.colour
        print(f"\x1b[{CODES[line.colour]}m{line.text}\x1b[0m" if colour else line.text, flush=True)


def columns() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else LOG_COLUMNS
