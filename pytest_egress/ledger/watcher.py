"""`Watcher`: looks at a ledger while tests run, and has the lines written that `watched` makes of it.

A thread of its own looks, so that nothing waits for a terminal; whoever ends a test has it look once more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.watched import Watched, WatchedLine

LOOK_SECONDS: Final = 0.1  # between two looks: what a person sees as at once

Write = Callable[[Sequence[WatchedLine]], None]


class Watcher:
    """Watches from when it is made until `close`.

    Args:
        write: Writes lines; it is called by one thread at a time.
        began: When the run began, in seconds since the epoch.
        width: Returns the columns of a line.
    """

    def __init__(
        self, ledger: Ledger, write: Write, began: float, width: Callable[[], int]
    ) -> None:
        self._ledger, self._write = ledger, write
        self._watched = Watched(began, width)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._watching = ledger.watch()
        self._seen = self._watching.__enter__()
        self._thread = threading.Thread(target=self._run, name="egress watch", daemon=True)
        self._thread.start()

    def look(self, *, last: bool = False) -> None:
        """Have the lines written that are due; with `last`, those of what is not over as well."""
        with self._lock:
            if self._ledger.prompts:
                return  # they follow when the debugger's prompt has been left
            with self._ledger.changed:
                new, self._seen[:] = self._seen.copy(), []
                busy = {id(activity.what) for activity in self._ledger.under_way}
            self._watched.add(new)
            lines = self._watched.lines(self._ledger.now(), busy, last=last)
            if lines:
                self._write(lines)

    def close(self) -> None:
        """What is left is written first."""
        self._over.set()
        self._thread.join()
        self.look(last=True)
        self._watching.__exit__(None, None, None)

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self.look()
