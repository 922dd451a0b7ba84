"""Copies between two connected sockets, both ways, on one thread.

Works for TLS too: one thread, since `ssl` allows no two on one connection. Half-closing is passed on where TCP alone
can do it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Callable
from typing import Final

COPY_BYTES: Final = 64 * 1024
TURNS: Final = 16  # reads of one direction before the other gets its turn
BLOCKED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Direction:
    """One way of a relay: what has been read of one socket and not yet been written to the other."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.count = 0
        self.done = False
        self._ended = False
        self._waiting = memoryview(b"")

    def pump(self) -> bool:
        """Move what can be moved without waiting; True where there may be more at once."""
        for _ in range(TURNS):
            try:
                if not self._waiting and not self._take():
                    return False
                sent = self.sink.send(self._waiting)
            except BLOCKED:
                return False
            self._waiting = self._waiting[sent:]
            self.count += sent
        return True

    def _take(self) -> bool:
        """Read; False at the end of the source, which is passed on."""
        data = b"" if self._ended else self.source.recv(COPY_BYTES)
        if data:
            self._waiting = memoryview(data)
            return True
        self._ended = self.done = True
        with contextlib.suppress(OSError):  # it has ended too
            socket.socket.shutdown(self.sink, socket.SHUT_WR)
        return False

    @property
    def awaited(self) -> tuple[socket.socket, int] | None:
        """The socket that has to become ready, and for what."""
        if self.done:
            return None
        return (self.sink, select.POLLOUT) if self._waiting else (self.source, select.POLLIN)


def relay(
    one: socket.socket, other: socket.socket, count: Callable[[int, int], None] | None = None
) -> None:
    """Copy both ways until both have ended; where one is TLS, until one has.

    Args:
        count: Told of the bytes so far, of the first socket and of the other, whenever they change.

    Raises:
        OSError: One side broke off.
    """
    ways = Direction(one, other), Direction(other, one)
    secure = isinstance(one, ssl.SSLSocket) or isinstance(other, ssl.SSLSocket)
    for sock in (one, other):
        sock.settimeout(0)
    while True:
        more = [way.pump() for way in ways]
        if count is not None:
            count(ways[0].count, ways[1].count)
        if all(way.done for way in ways) or (secure and any(way.done for way in ways)):
            return
        wait_for(ways, 0 if any(more) else None)


def wait_for(ways: tuple[Direction, Direction], timeout: float | None) -> None:
    """Wait until one way can go on.

    Args:
        timeout: Milliseconds; None for ever.
    """
    wanted: dict[socket.socket, int] = {}
    for way in ways:
        if (awaited := way.awaited) is not None:
            sock, events = awaited
            wanted[sock] = wanted.get(sock, 0) | events
    poller = select.poll()
    for sock, events in wanted.items():
        poller.register(sock, events)
    poller.poll(timeout)


def shut(sock: socket.socket) -> None:
    """Wake whoever blocks on it; not by `SSLSocket.shutdown`, which drops the TLS layer first."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
