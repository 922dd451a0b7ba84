"""The kernel's clocks, which a test cannot freeze: every deadline, duration and date of this package uses them.

freezegun replaces the functions of `time` that read a clock, and time-machine patches those that read CLOCK_REALTIME.
Neither changes `clock_gettime` of CLOCK_MONOTONIC or CLOCK_REALTIME_COARSE.
"""

from __future__ import annotations

import sys
import time
from typing import Final

WALL: Final = 5 if sys.platform == "linux" else time.CLOCK_REALTIME
"""CLOCK_REALTIME_COARSE (clock_gettime(2)), exact to some milliseconds: `time` has no name for it."""


LOOK_SECONDS: Final = 0.1
"""Between two looks at something that nobody tells of, such as whether a client has left."""

SELDOM_SECONDS: Final = 0.5
"""Between two such looks of a thread that may wait for hours, and that nobody waits for."""

MAX_SECONDS: Final = 9e9  # a little less than a lock can wait for (threading.TIMEOUT_MAX)


def is_seconds(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value < MAX_SECONDS  # type: ignore[operator]  # it is a number


def check_seconds(timeout: object) -> None:
    if not is_seconds(timeout):
        raise TypeError(f"timeout={timeout!r:.60}: it takes a number of seconds")


def monotonic() -> float:
    """Seconds by a clock that never jumps, as of `time.monotonic` where no test has frozen that."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def wall() -> float:
    """Seconds since the epoch, which jump with the machine's clock."""
    return time.clock_gettime(WALL)
