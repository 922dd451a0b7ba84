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


MAX_SECONDS: Final = 9e9  # nearly what a lock can wait for (threading.TIMEOUT_MAX)


def is_seconds(value: object) -> bool:
    """Whether a value is a time that can be waited for."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value < MAX_SECONDS  # type: ignore[operator]  # it is a number


def check_seconds(timeout: object) -> None:
    """Refuse what is no time that can be waited for.

    Raises:
        TypeError: With the value.
    """
    if not is_seconds(timeout):
        raise TypeError(f"timeout={timeout!r}: it takes a number of seconds")


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
