"""Whether the other side of a TCP connection has what was sent to it: a reset would drop what it has not."""

from __future__ import annotations

import array
import contextlib
import fcntl
import select
import socket
import sys
import termios
from collections.abc import Callable
from typing import Final

from pytest_egress.base.clock import monotonic

UNSENT_SECONDS: Final = 0.5  # that a reset waits for a peer that does not read the bytes before it
SO_NWRITE: Final = 0x1024  # of macOS (sys/socket.h)
CHECK_SECONDS: Final = 0.005  # between two checks of that; mostly one is enough


def rest(seconds: float) -> None:
    """Wait, as `time.sleep`, which a test may have replaced."""
    select.select((), (), (), seconds)


def await_acknowledged(sock: socket.socket, meanwhile: Callable[[float], object] = rest) -> None:
    """Wait until the other side has all that was sent to it, or stops reading.

    `meanwhile` waits for so many seconds at most.
    """
    left, deadline = unsent(sock), monotonic() + UNSENT_SECONDS
    while left and monotonic() < deadline:
        meanwhile(CHECK_SECONDS)
        before, left = left, unsent(sock)
        if left < before:
            deadline = monotonic() + UNSENT_SECONDS


def unsent(sock: socket.socket) -> int:
    """How many bytes the other side has not acknowledged yet (SIOCOUTQ, tcp(7))."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):
            return sock.getsockopt(socket.SOL_SOCKET, SO_NWRITE)
        return 0
    count = array.array("i", [0])
    with contextlib.suppress(OSError, ValueError):  # the connection has ended, or is closed
        fcntl.ioctl(sock, termios.TIOCOUTQ, count)
    return count[0]
