"""Copies between two connected sockets, both ways, on one thread.

Works for TLS too: one thread, since `ssl` allows no two on one connection. Half-closing is passed on towards TCP.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Callable
from typing import Final

COPY_BYTES: Final = 64 * 1024
FIRST_BYTES: Final = 64  # kept of each direction
TURNS: Final = 16  # reads of one direction before the other gets its turn
BLOCKED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Direction:
    """One way of a relay: what has been read of one socket and not yet been written to the other."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.count = 0
        self.first = b""
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
            self.first = self.first or data[:FIRST_BYTES]
            self._waiting = memoryview(data)
            return True
        self._ended = self.done = True
        if not isinstance(self.sink, ssl.SSLSocket):  # TLS says goodbye at the very end
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
    one: socket.socket,
    other: socket.socket,
    watch: Callable[[Direction, Direction], None] | None = None,
) -> None:
    """Copy both ways until both have ended, or one has towards TLS, which cannot be closed by half.

    Args:
        watch: Called with both directions, that of the first socket's bytes first, whenever something has moved.

    Raises:
        OSError: One side broke off.
    """
    ways = Direction(one, other), Direction(other, one)
    for sock in (one, other):
        sock.settimeout(0)
    while True:
        more = [way.pump() for way in ways]
        if watch is not None:
            watch(*ways)
        ended = [way for way in ways if way.done]
        if len(ended) == 2 or any(isinstance(way.sink, ssl.SSLSocket) for way in ended):
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
