"""The real clocks, whatever a test has made of time: every deadline, duration and date of ours is by them.

freezegun replaces the functions of `time` that are a clock by name, and time-machine what tells the wall clock; neither
reaches the kernel's others.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

WALL: Final = 5 if sys.platform == "linux" else time.CLOCK_REALTIME
"""CLOCK_REALTIME_COARSE (clock_gettime(2)), exact to some milliseconds: `time` has no name for it."""


def monotonic() -> float:
    """Seconds by a clock that never jumps: `time.monotonic`, unless somebody has frozen that."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def wall() -> float:
    """Seconds since the epoch, which jump with the machine's clock."""
    return time.clock_gettime(WALL)


def run_by_real_clock(loop: asyncio.AbstractEventLoop) -> None:
    """Let what waits on a loop of ours wait for real: asyncio's own is stopped with `time.monotonic`."""
    with contextlib.suppress(AttributeError):  # uvloop has its own
        loop.time = monotonic  # type: ignore[method-assign]
