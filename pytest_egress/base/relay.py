"""Copies between two connected sockets, both ways, on one thread.

Works for TLS too: one thread, since `ssl` allows no two on one connection. Half-closing is passed on towards TCP, and a
reset as a reset, but after what was said before it: a server may answer and close while its client still sends.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import select
import socket
import ssl
import termios
from collections.abc import Callable
from typing import Final

from pytest_egress.base.clock import monotonic
from pytest_egress.base.sockets import reset_at_close

COPY_BYTES: Final = 64 * 1024
FIRST_BYTES: Final = 64  # kept of each direction
TURNS: Final = 16  # reads of one direction before the other gets its turn
UNSENT_SECONDS: Final = 0.5  # for a peer that reads nothing of what goes before a reset
UNSENT_MILLISECONDS: Final = 5  # between two looks at whether it has; as a rule it has at once
BLOCKED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Direction:
    """One way of a relay: what has been read of one socket and not yet been written to the other.

    Attributes:
        count: The bytes that have been written.
        first: The first ones.
        done: Whether the source has ended, and all that it sent has been passed on.
        failure: How the source broke off, where it did.
        refusal: What the sink raised: it takes nothing more. What still comes for it is read, and dropped, so that its
            sender comes to read what the sink had to say.
    """

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.count = 0
        self.first = b""
        self.done = False
        self.failure: OSError | None = None
        self.refusal: OSError | None = None
        self._waiting = memoryview(b"")

    def pump(self) -> bool:
        """Move what can be moved without waiting; True where there may be more at once."""
        for _ in range(TURNS):
            try:
                if not self._waiting and not self._take():
                    return False
                self._give()
            except BLOCKED:
                return False
        return True

    def _take(self) -> bool:
        """Read; False at the end of the source, which is passed on."""
        if self.done:
            return False
        data = b""
        try:
            data = self.source.recv(COPY_BYTES)
        except BLOCKED:
            raise
        except OSError as error:
            self.failure = error
        if data:
            self.first = self.first or data[:FIRST_BYTES]
            self._waiting = memoryview(data)
            return True
        self.done = True
        # TLS says goodbye at the very end.
        if self.failure is None and not isinstance(self.sink, ssl.SSLSocket):
            with contextlib.suppress(OSError):  # it has ended too
                socket.socket.shutdown(self.sink, socket.SHUT_WR)
        return False

    def _give(self) -> None:
        """Write, or drop what nobody takes."""
        if self.refusal is None:
            try:
                sent = self.sink.send(self._waiting)
            except BLOCKED:
                raise
            except OSError as error:
                self.refusal = error
            else:
                self._waiting = self._waiting[sent:]
                self.count += sent
                return
        self._waiting = memoryview(b"")

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

    Where one side broke off, the other one is reset when it is closed.

    Args:
        watch: Called with both directions, that of the first socket's bytes first, whenever something has moved.

    Raises:
        OSError: One side broke off; what it said before has reached the other.
    """
    ways = Direction(one, other), Direction(other, one)
    for sock in (one, other):
        sock.settimeout(0)
    while True:
        more = [way.pump() for way in ways]
        if watch is not None:
            watch(*ways)
        if broken := broken_off(ways):
            way, error = broken
            drop_rest(ways, way.sink)
            reset_at_close(way.sink)
            raise error
        ended = [way for way in ways if way.done]
        if len(ended) == 2 or any(isinstance(way.sink, ssl.SSLSocket) for way in ended):
            return
        wait_for(ways, 0 if any(more) else None)


def broken_off(ways: tuple[Direction, Direction]) -> tuple[Direction, OSError] | None:
    """The direction whose source broke off, and with what, once all that it said has been passed on."""
    for way, back in (ways, ways[::-1]):
        if way.done and (error := way.failure or back.refusal):
            return way, error
    return None


def drop_rest(ways: tuple[Direction, Direction], sink: socket.socket) -> None:
    """Drop what still comes from one side until what went to it has arrived, or is not read."""
    left, deadline = unsent(sink), monotonic() + UNSENT_SECONDS
    while left and monotonic() < deadline:
        wait_for(ways, UNSENT_MILLISECONDS)
        for way in ways:
            way.pump()
        before, left = left, unsent(sink)
        if left < before:
            deadline = monotonic() + UNSENT_SECONDS


def unsent(sock: socket.socket) -> int:
    """The bytes that the other side's kernel has not got yet (SIOCOUTQ, tcp(7)); a reset would drop them."""
    count = array.array("i", [0])
    with contextlib.suppress(OSError):  # it has ended
        fcntl.ioctl(sock, termios.TIOCOUTQ, count)
    return count[0]


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
