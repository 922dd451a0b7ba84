"""Debugger prompts: deadlines stand still while one is open, and one at a time reads standard input.

Threads: each prompt is its own thread's. The lock guards who reads standard input; `Ledger.changed` is taken before or
after it, never while it is held, and no command of a debugger runs under it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pytest_egress.ledger.ledger import Ledger

STDIN_SECONDS: Final = 0.5  # what a debugger's command may take before another prompt gets input


class Prompts:
    """Stops the ledger's clock while a debugger prompt is open, and lets one prompt at a time read standard input.

    A prompt holds standard input while it waits for a line, not while it acts upon one: `next` may
    run code that waits for a handler, and that handler may have a prompt of its own.
    """

    def __init__(self) -> None:
        self._open: dict[int, Ledger] = {}  # by debugger
        self._changed = threading.Condition()
        self._reader: object = None
        self._free_at = 0.0  # when another prompt may take standard input from the one that has it

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    def enter(self, pdb: Any, ledger: Ledger, capture: Any) -> None:
        self._open[id(pdb)] = ledger
        ledger.enter_prompt()
        interaction, onecmd = pdb.interaction, pdb.onecmd

        def interact(*args: Any) -> None:
            self._take(pdb, capture)
            interaction(*args)

        def act(line: str) -> Any:
            with self._acting(pdb):
                stop = onecmd(line)
            if not stop:
                self._take(pdb, capture)
            return stop

        pdb.interaction, pdb.onecmd = interact, act

    def leave(self, pdb: Any) -> None:
        if (ledger := self._open.pop(id(pdb), None)) is not None:
            ledger.leave_prompt()
            with self._changed:
                if self._reader is pdb:
                    self._reader = None
                self._changed.notify_all()

    def _take(self, pdb: object, capture: Any) -> None:
        """Wait for standard input, and reserve it for this debugger until it executes a line."""
        from pytest_egress.base.clock import monotonic

        with self._changed:
            while self._reader not in (None, pdb):
                if (left := self._free_at - monotonic()) <= 0:
                    break
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            self._reader, self._free_at = pdb, float("inf")
        if capture is not None:
            capture.suspend(in_=True)  # pytest has resumed the capture at another prompt's end

    @contextlib.contextmanager
    def _acting(self, pdb: Any) -> Iterator[None]:
        """Release standard input while the debugger executes a line; after a delay, or two prompts would alternate."""
        from pytest_egress.base.clock import monotonic

        with self._changed:
            self._free_at = monotonic() + STDIN_SECONDS
            self._changed.notify_all()
        try:
            yield
        finally:
            if pdb.quitting:  # at "q" or end of file pytest does not call pytest_leave_pdb
                self.leave(pdb)
