"""`Terminal`: shows on the terminal, or as lines of a log, what takes long while pytest captures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from pytest_egress.plugin.prompts import Prompts


class Terminal:
    """Shows what takes long while pytest captures, by a copy of the descriptor to which pytest itself writes.

    On a terminal the text follows what pytest has written, cut at the margin, and is erased later. Where tests write to
    the terminal themselves, by -s or live logs, and anywhere else, as in the log of a CI job, it is a line, the first
    after five seconds and then every five; with -q there is none.

    Args:
        reporter: pytest's reporter, which has flushed what it has written.
        prompts: The debugger prompts; while one is open, nothing is shown.
    """

    def __init__(self, reporter: pytest.TerminalReporter, prompts: Prompts) -> None:
        self._reporter, self._prompts = reporter, prompts
        self._writer: Any = reporter.config.get_terminal_writer()
        is_plain = os.environ.get("TERM") == "dumb" or tests_write(reporter.config)
        self._is_drawn = reporter.isatty and not is_plain
        self._next = LINE_SECONDS
        self._at: object = None  # pytest's place in its output when our last line was written
        self._fd = os.dup(self._writer._file.fileno())

    def show(self, text: str, seconds: float) -> None:
        said = "".join(c if c.isprintable() else " " for c in f"egress: {text}, {seconds:.0f} s")
        if self._prompts.is_open:
            return
        if self._is_drawn:
            self._write(f"{SAVE} {said}{RESTORE}")
        elif self._reporter.verbosity >= 0 and seconds >= self._next:
            self._next = seconds + LINE_SECONDS
            self._write_line(said)

    def clear(self) -> None:
        self._next = LINE_SECONDS
        if self._is_drawn:
            self._write(ERASE)

    @property
    def width(self) -> int:
        """The columns of a line; of a log, which has none, `LOG_COLUMNS`."""
        return int(self._writer.fullwidth) if self._reporter.isatty else LOG_COLUMNS

    def write_lines(self, lines: Sequence[tuple[str, str]]) -> None:
        """Write lines below what pytest has written, each with the name of its colour, or "" for none."""
        self.clear()
        for text, colour in lines:
            markup = {colour: True} if colour else {}
            self._write_line(self._writer.markup(text, **markup))

    def close(self) -> None:
        """A thread that is left behind shows nothing any more."""
        fd, self._fd = self._fd, NO_FILE
        os.close(fd)

    def _write_line(self, text: str) -> None:
        """The line is below pytest's unfinished one. With -v pytest then repeats the test's name on a new line."""
        at = self._reporter.currentfspath, self._writer.width_of_current_line
        if self._reporter.verbosity > 0:
            self._write(f"\n{text}")
            self._reporter.currentfspath = None
        else:
            self._write(f"{text}\n" if at == self._at else f"\n{text}\n")
        self._at = at

    def _write(self, text: str) -> None:
        encoding = getattr(self._writer._file, "encoding", None) or "utf-8"
        with contextlib.suppress(OSError):  # the reader of a pipe may have closed it
            os.write(self._fd, text.encode(encoding, "backslashreplace"))


def tests_write(config: pytest.Config) -> bool:
    """Whether tests write to the terminal while they run, as with -s, or their log records are."""
    if config.getoption("capture", "no") == "no":
        return True
    with contextlib.suppress(ValueError):  # -p no:logging
        return bool(config.getini("log_cli")) or config.getoption("log_cli_level") is not None
    return False


NO_FILE: Final = -1
LOG_COLUMNS: Final = 160
LINE_SECONDS: Final = 5.0  # between two lines about one step, and before the first
# Control sequences of ECMA-48 and DEC's: cursor, no wrap at the margin; erase to the end of the line.
ERASE: Final = "\x1b[K"
SAVE: Final = "\x1b7\x1b[?7l"
RESTORE: Final = f"{ERASE}\x1b[?7h\x1b8"
