"""`pause`: the wait of a fault, such as `silence()` and `delayed(...)`. No test has to wait for its end.

The rule: a pause ends by its time, by its client, or by its window, whichever comes first. Its time is the ledger's,
which stands still while a debugger's prompt is open. It is no work of a handler, so that none is reported as stuck, and
a window is closed while it goes on. What its client then does, when the pause is ended, belongs to no test.

Threads: `pause` blocks its caller, which holds no lock. The thread that has closed a window sets `Window.over`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf
from typing import Literal

from pytest_egress.base.clock import LOOK_SECONDS
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.windows import Activity, Pause, Window, stays
from pytest_egress.routes.faults import Fault
from pytest_egress.traffic.entries import Entry

PauseEnd = Literal["elapsed", "left", "over"]
"""Why a pause has ended: its time has passed, its client has left, or its window has been closed."""


def pause(
    ledger: Ledger,
    window: Window,
    entry: Entry,
    fault: Fault,
    seconds: float | None = None,
    *,
    has_left: Callable[[], bool] = stays,
    activity: Activity | None = None,
) -> PauseEnd:
    """Wait on behalf of a fault; return why the wait has ended.

    After "over" the caller sends nothing any more, and ends what it serves at once: `activity.cut` does.

    Args:
        seconds: None is without end.
        has_left: Whether the client has left. It is called again and again, on this thread, holding no lock.
        activity: The activity of the attempt, which keeps the window open; None where it has none.
    """
    with ledger.pausing(Pause(entry, fault), activity, is_endless=seconds is None):
        return outlast(ledger, window.over, seconds, has_left=has_left)


def outlast(
    ledger: Ledger,
    over: threading.Event,
    seconds: float | None,
    *,
    has_left: Callable[[], bool] = stays,
    look: float = LOOK_SECONDS,
) -> PauseEnd:
    """Wait as `pause` does, where the ledger has been told; `look` is the seconds between two looks at the client."""
    deadline = inf if seconds is None else ledger.clock() + seconds
    while (left := deadline - ledger.clock()) > 0:
        if over.wait(LOOK_SECONDS if ledger.prompts else min(left, look)):
            return "over"
        if has_left():
            return "left"
    return "elapsed"
