"""Copies between two connected sockets, both ways, on one thread.

One thread does both directions because `ssl` allows no two threads on one connection. A half-close is passed on, except
towards TLS. A reset is passed on as a reset, after the bytes that came before it: a server may answer and close while
its client still sends. Between two sockets without TLS, the kernel moves what comes in bulk (splice(2)): nothing of it
is in this process.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import socket
import ssl
import struct
import termios
from collections.abc import Callable, Sequence
from typing import Final

from pytest_egress.base.clock import monotonic
from pytest_egress.base.sockets import BLOCKED, descriptor_limit, reset_at_close

COPY_BYTES: Final = 64 * 1024
PIPE_BYTES: Final = 1 << 20  # that the kernel moves at once: as many as any user may give a pipe
FIRST_BYTES: Final = 64  # of each direction, kept for the ledger
TURNS: Final = 16  # reads of one direction before the other gets its turn
UNSENT_SECONDS: Final = 0.5  # that a reset waits for a peer that does not read the bytes before it
UNSENT_MILLISECONDS: Final = 5  # between two checks of that; mostly one is enough
NEAR_WINDOW_BYTES: Final = 1 << 18
NEAR_UNSENT_BYTES: Final = (
    1 << 17
)  # the kernel doubles it (socket(7)); a quarter of it is 300 times slower
NEAR_MICROSECONDS: Final = (
    200  # a round trip, in which the window carries more than a gigabyte a second
)
ROUND_TRIP: Final = struct.Struct("@148xI")  # tcpi_min_rtt (linux/tcp.h), in microseconds
NO_SPLICE: Final = {errno.EINVAL, errno.ENOSYS, errno.EPERM}
"""The errors by which a kernel, or what guards this process, says that it moves no bytes so."""


class Pipe:
    """A pipe through which the kernel moves bytes from one socket to another.

    Attributes:
        size: How many bytes are in it.
    """

    def __init__(self) -> None:
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.size = 0
        with contextlib.suppress(OSError):  # fewer than a user may have: it is just smaller
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._capacity = fcntl.fcntl(self._in, fcntl.F_GETPIPE_SZ)

    @property
    def is_dear(self) -> bool:
        """Whether descriptors are half used up, since the kernel gives the lowest that is free."""
        return self._in > descriptor_limit() // 2

    def fill(self, source: socket.socket) -> int:
        """Move bytes out of a socket, as many as have come and the pipe holds; 0 at the socket's end."""
        self.size = os.splice(source.fileno(), self._in, PIPE_BYTES, flags=os.SPLICE_F_NONBLOCK)
        return self.size

    @property
    def is_full(self) -> bool:
        """Whether no more bytes fit in, so that the source may have sent more of them."""
        return self.size >= self._capacity

    def drain(self, sink: socket.socket) -> int:
        """Move bytes into a socket, as many as it takes; return how many."""
        sent = os.splice(self._out, sink.fileno(), self.size, flags=os.SPLICE_F_NONBLOCK)
        self.size -= sent
        return sent

    def drop(self) -> None:
        """Read what is in the pipe, for nobody."""
        while self.size:
            self.size -= len(os.read(self._out, self.size))

    def close(self) -> None:
        """Close the pipe."""
        for descriptor in (self._out, self._in):
            os.close(descriptor)


def pipe_between(source: socket.socket, sink: socket.socket) -> Pipe | None:
    """A pipe for bytes that only the kernel needs to see; None where there is TLS, or none is to be had."""
    if isinstance(source, ssl.SSLSocket) or isinstance(sink, ssl.SSLSocket):
        return None
    try:
        pipe = Pipe()
    except OSError:
        return None
    if pipe.is_dear:
        pipe.close()
        return None
    return pipe


def hold_few(source: socket.socket, sink: socket.socket) -> None:
    """Have the kernel hold few bytes of a direction whose source is faster than its sink.

    The kernel lets the buffers of such a direction grow to tens of megabytes, which only a long distance needs. Between
    processes of one machine the bytes wait there until they have left the processor's cache, and the relay, the
    client and the server together take twice the CPU for each. SO_SNDBUF bounds what waits for the sink, and the
    clamp of the window how much the source may send beyond what has come. The kernel lifts the clamp whenever a
    receive buffer grows, so that each full pipe sets it again. SO_RCVBUF is left alone: below a window that was
    promised, the kernel drops bytes, and their sender repeats them 200 ms later.
    """
    with contextlib.suppress(OSError):  # a kernel without the option: it is just slower
        if is_near(source):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, NEAR_WINDOW_BYTES)
        if is_near(sink):
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NEAR_UNSENT_BYTES)


def is_near(sock: socket.socket) -> bool:
    """Whether the other end of a TCP connection is on this machine, or as close; False for a unix socket."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ROUND_TRIP.size)
    except OSError:
        return False
    return len(info) == ROUND_TRIP.size and ROUND_TRIP.unpack(info)[0] < NEAR_MICROSECONDS


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
        self._waiting: bytes | memoryview = b""
        self._pipe: Pipe | None = None
        self._may_splice = True
        self._may_have_more = isinstance(source, ssl.SSLSocket)  # after a read of less than asked
        self._is_read_out = False

    def pump(self) -> bool:
        """Copy what can be copied without waiting; True where more may be ready at once."""
        for _ in range(TURNS):
            try:
                if not self._is_waiting and not self._read():
                    return False
                self._write()
            except BLOCKED:
                return False
            if self._is_read_out and not self._is_waiting:
                return False
        return True

    def close(self) -> None:
        """Close what the direction has opened itself."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    @property
    def _is_waiting(self) -> bool:
        """Whether bytes that were read are not yet written."""
        return bool(self._waiting) or (self._pipe is not None and self._pipe.size > 0)

    def _read(self) -> bool:
        """Read from the source. At its end, pass that on to the sink and return False."""
        if self.done:
            return False
        try:
            if self._receive():
                return True
        except BLOCKED:
            raise
        except OSError as error:
            self.failure = error
        self.done = True
        # TLS has no half-close here: its close_notify is sent when the whole relay has ended.
        if self.failure is None and not isinstance(self.sink, ssl.SSLSocket):
            with contextlib.suppress(OSError):  # the sink has ended too
                socket.socket.shutdown(self.sink, socket.SHUT_WR)
        return False

    def _receive(self) -> int:
        """Read into this process, or into the pipe once bytes come in bulk; return how many, 0 at the source's end."""
        if self._pipe is not None and self.refusal is None and self._splice():
            return self._pipe.size
        self._waiting = data = self.source.recv(COPY_BYTES)
        self.first = self.first or data[:FIRST_BYTES]
        self._is_read_out = len(data) < COPY_BYTES and not self._may_have_more
        if len(data) == COPY_BYTES and self._may_splice and self.refusal is None:
            self._pipe = self._pipe or pipe_between(self.source, self.sink)
            self._may_splice = self._pipe is not None
        return len(data)

    def _splice(self) -> bool:
        """Read into the pipe; False where that moves nothing, and recv has to tell whether that is the end.

        splice(2) stops for good before an urgent byte (tcp(7)), as if nothing more had come; recv leaves it out.
        """
        assert self._pipe is not None
        try:
            self._pipe.fill(self.source)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_SPLICE:
                raise
            self._may_splice = False
            self.close()
            return False
        self._is_read_out = not self._pipe.is_full
        if self._pipe.is_full:
            hold_few(self.source, self.sink)
        return self._pipe.size > 0

    def _write(self) -> None:
        """Write to the sink; once it has refused, drop what was read."""
        if self.refusal is None:
            try:
                self.count += self._send()
            except BLOCKED:
                raise
            except OSError as error:
                self.refusal = error
            else:
                return
        self._waiting = b""
        if self._pipe is not None:
            self._pipe.drop()

    def _send(self) -> int:
        """Write what waits, as much as the sink takes; return how many bytes."""
        if not self._waiting:
            assert self._pipe is not None
            return self._pipe.drain(self.sink)
        sent = self.sink.send(self._waiting)
        left = sent < len(self._waiting)
        self._waiting = memoryview(self._waiting)[sent:] if left else b""
        return sent

    @property
    def awaited(self) -> tuple[socket.socket, int] | None:
        """The socket that has to become ready, and the poll event; None when the direction is done."""
        if self.done:
            return None
        return (self.sink, select.POLLOUT) if self._is_waiting else (self.source, select.POLLIN)


class Waiting:
    """Waits for the two directions of a relay. The kernel is told of a change alone."""

    def __init__(self, ways: tuple[Direction, Direction]) -> None:
        self._ways, self._poller = ways, select.poll()
        self._wanted: dict[int, int] = {}

    def wait(self, timeout: float | None) -> Sequence[Direction]:
        """Wait until a direction can read or write; return those that can.

        Args:
            timeout: Milliseconds; None for no limit.
        """
        awaited = [(way, *way.awaited) for way in self._ways if way.awaited is not None]
        wanted: dict[int, int] = {}
        for _, sock, events in awaited:
            descriptor = sock.fileno()
            wanted[descriptor] = wanted.get(descriptor, 0) | events
        if wanted != self._wanted:
            for descriptor in self._wanted.keys() - wanted.keys():
                self._poller.unregister(descriptor)
            for descriptor, events in wanted.items():
                self._poller.register(descriptor, events)
            self._wanted = wanted
        ready = {descriptor for descriptor, _ in self._poller.poll(timeout)}
        return [way for way, sock, _ in awaited if sock.fileno() in ready]


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
    try:
        copy(ways, watch)
    finally:
        for way in ways:
            way.close()


def copy(
    ways: tuple[Direction, Direction], watch: Callable[[Direction, Direction], None] | None
) -> None:
    """Copy as `relay` says."""
    waiting = Waiting(ways)
    due: Sequence[Direction] = ways
    while True:
        more = [way for way in due if way.pump()]
        if watch is not None:
            watch(*ways)
        if broken := broken_off(ways):
            way, error = broken
            drop_rest(ways, waiting, way.sink)
            reset_at_close(way.sink)
            raise error
        ended = [way for way in ways if way.done]
        if len(ended) == 2 or any(isinstance(way.sink, ssl.SSLSocket) for way in ended):
            return
        due = [*more, *(way for way in waiting.wait(0 if more else None) if way not in more)]


def broken_off(ways: tuple[Direction, Direction]) -> tuple[Direction, OSError] | None:
    """The direction whose source broke off and whose bytes have all been passed on, with the error; or None."""
    for way, back in (ways, ways[::-1]):
        if way.done and (error := way.failure or back.refusal):
            return way, error
    return None


def drop_rest(ways: tuple[Direction, Direction], waiting: Waiting, sink: socket.socket) -> None:
    """Wait until one side has received all that was sent to it, or stops reading; drop what it still sends."""
    left, deadline = unsent(sink), monotonic() + UNSENT_SECONDS
    while left and monotonic() < deadline:
        waiting.wait(UNSENT_MILLISECONDS)
        for way in ways:
            way.pump()
        before, left = left, unsent(sink)
        if left < before:
            deadline = monotonic() + UNSENT_SECONDS


def unsent(sock: socket.socket) -> int:
    """How many bytes the other side has not acknowledged yet (SIOCOUTQ, tcp(7)); a reset would drop them."""
    count = array.array("i", [0])
    with contextlib.suppress(OSError, ValueError):  # the connection has ended, or is closed
        fcntl.ioctl(sock, termios.TIOCOUTQ, count)
    return count[0]
