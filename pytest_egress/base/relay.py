"""Copies between two connected sockets, both ways, on one thread.

One thread does both directions because `ssl` allows no two threads on one connection. A half-close is passed on, except
towards TLS. A reset is passed on as a reset, after the bytes that came before it: a server may answer and close while
its client still sends.
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
FIRST_BYTES: Final = 64  # of each direction, kept for the ledger
TURNS: Final = 16  # reads of one direction before the other gets its turn
UNSENT_SECONDS: Final = 0.5  # that a reset waits for a peer that does not read the bytes before it
UNSENT_MILLISECONDS: Final = 5  # between two checks of that; mostly one is enough
BLOCKED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Direction:
    """One direction of a relay: the bytes read from its source and not yet written to its sink.

    Attributes:
        count: How many bytes have been written.
        first: The first bytes that were read.
        done: Whether the source has ended, and all that it sent has been passed on.
        failure: The error by which the source broke off, or None.
        refusal: The error of a write: the sink takes nothing more. Bytes for it are read and dropped from then on, so
            that their sender gets to read what the sink sent before.
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
        """Copy what can be copied without waiting; True where more may be ready at once."""
        for _ in range(TURNS):
            try:
                if not self._waiting and not self._read():
                    return False
                self._write()
            except BLOCKED:
                return False
        return True

    def _read(self) -> bool:
        """Read from the source. At its end, pass that on to the sink and return False."""
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
        # TLS has no half-close here: its close_notify is sent when the whole relay has ended.
        if self.failure is None and not isinstance(self.sink, ssl.SSLSocket):
            with contextlib.suppress(OSError):  # the sink has ended too
                socket.socket.shutdown(self.sink, socket.SHUT_WR)
        return False

    def _write(self) -> None:
        """Write to the sink; once it has refused, drop what was read."""
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
        """The socket that has to become ready, and the poll event; None when the direction is done."""
        if self.done:
            return None
        return (self.sink, select.POLLOUT) if self._waiting else (self.source, select.POLLIN)


def relay(
    one: socket.socket,
    other: socket.socket,
    watch: Callable[[Direction, Direction], None] | None = None,
) -> None:
    """Copy both ways until both directions have ended, or one towards TLS has, which cannot be half-closed.

    Where one side broke off, the other side is reset when it is closed.

    Args:
        watch: Called with both directions after each round of copying; that from `one` to `other` comes first.

    Raises:
        OSError: One side broke off; the bytes that it sent before have been passed on.
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
    """The direction whose source broke off and whose bytes have all been passed on, with the error; or None."""
    for way, back in (ways, ways[::-1]):
        if way.done and (error := way.failure or back.refusal):
            return way, error
    return None


def drop_rest(ways: tuple[Direction, Direction], sink: socket.socket) -> None:
    """Wait until one side has received all that was sent to it, or stops reading; drop what it still sends."""
    left, deadline = unsent(sink), monotonic() + UNSENT_SECONDS
    while left and monotonic() < deadline:
        wait_for(ways, UNSENT_MILLISECONDS)
        for way in ways:
            way.pump()
        before, left = left, unsent(sink)
        if left < before:
            deadline = monotonic() + UNSENT_SECONDS


def unsent(sock: socket.socket) -> int:
    """How many bytes the other side has not acknowledged yet (SIOCOUTQ, tcp(7)); a reset would drop them."""
    count = array.array("i", [0])
    with contextlib.suppress(OSError):  # the connection has ended
        fcntl.ioctl(sock, termios.TIOCOUTQ, count)
    return count[0]


def wait_for(ways: tuple[Direction, Direction], timeout: float | None) -> None:
    """Wait until a direction can read or write.

    Args:
        timeout: Milliseconds; None for no limit.
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
