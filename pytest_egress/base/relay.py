"""Copies between two connected sockets, both ways, on one thread; what one of them sends may come in a shape.

One thread does both directions because `ssl` allows no two threads on one connection. A half-close is passed on, except
towards TLS. A reset is passed on as a reset, after the bytes that came before it: a server may answer and close while
its client still sends.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from pytest_egress.base.acknowledged import await_acknowledged
from pytest_egress.base.clock import monotonic
from pytest_egress.base.pacing import COPY_BYTES, PLAIN, Clock, Pacer, Shape
from pytest_egress.base.polling import GONE
from pytest_egress.base.sockets import BLOCKED, reset_at_close

FIRST_BYTES: Final = 64  # of each direction, kept for the ledger
TURNS: Final = 16  # reads of one direction before the other gets its turn
MOST_SECONDS: Final = 86400.0  # of one poll(): it takes milliseconds up to 2**31, 24 days


def always() -> bool:
    return True


class Direction:
    """One direction of a relay: the bytes read from its source and not yet written to its sink.

    Args:
        passes_end: Asked at the end of the source: whether that is the sink's as well.
        heard: Gets what is read from the source; None where nobody listens.

    Attributes:
        count: How many bytes have been written.
        done: Whether the source has ended, and all that it sent has been passed on.
        failure: The error by which the source broke off, or None.
        refusal: The error of a write: the sink takes nothing more. Bytes for it are read and dropped from then on, so
            that their sender gets to read what the sink sent before.
    """

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        pacer: Pacer,
        passes_end: Callable[[], bool] = always,
        heard: Callable[[bytes], object] | None = None,
    ) -> None:
        self.source, self.sink, self.pacer, self._heard = source, sink, pacer, heard
        self._passes_end = passes_end
        self.count, self.first = 0, b""
        self.done, self._has_ended = False, False
        self.failure: OSError | None = None
        self.refusal: OSError | None = None
        self._is_tls = isinstance(source, ssl.SSLSocket)
        self._is_gone = False  # the sink, by poll()
        self._is_read_out = False  # as far as can be told without another read

    @property
    def is_cut(self) -> bool:
        """The limit ends the connection once the bytes before it have gone."""
        return self.pacer.is_cut and self.pacer.is_empty

    @property
    def _may_read(self) -> bool:
        return not (self._has_ended or self.pacer.is_full or self.pacer.is_cut)

    def pump(self) -> bool:
        """Copy what may be copied without waiting; True where more may be ready at once."""
        self._is_read_out = False
        for _ in range(TURNS):
            has_read = self._read()
            if not self._write() and not has_read:
                return False
        return True

    def _read(self) -> bool:
        if self._is_read_out or not self._may_read:
            return False
        data = b""
        try:
            data = self.source.recv(COPY_BYTES)
        except BLOCKED:
            self._is_read_out = True
            return False
        except OSError as error:
            self.failure = error
        if data:
            self.first = self.first or data[:FIRST_BYTES]
            if self._heard is not None:
                self._heard(data)
            self._is_read_out = len(data) < COPY_BYTES and not self._is_tls
            if self.refusal is None:
                self.pacer.put(data)
            return True
        self._has_ended = True
        self.pacer.end()
        if self.refusal is not None or self._is_gone:
            self.pacer.drop()
        return False

    def _write(self) -> bool:
        if (data := self.pacer.due()) is not None:
            try:
                sent = self.sink.send(data)
            except BLOCKED:
                return False
            except OSError as error:
                self._refuse(error)
                return True
            self.pacer.took(sent)
            self.count += sent
            return True
        if self._has_ended and not self.done and self.pacer.is_over:
            self.done = True
            # TLS has no half-close here, and a reset is passed on as one when the relay has ended.
            is_whole = self.failure is None and self._passes_end()
            if is_whole and not isinstance(self.sink, ssl.SSLSocket):
                with contextlib.suppress(OSError):  # the sink has ended too
                    socket.socket.shutdown(self.sink, socket.SHUT_WR)
        return False

    def _refuse(self, error: OSError) -> None:
        self.refusal = error
        self.pacer.drop()

    @property
    def seconds(self) -> float | None:
        return None if self.done else self.pacer.seconds

    def awaited(self) -> list[tuple[socket.socket, int]]:
        """Sockets, and events of poll()."""
        wanted = [(self.source, select.POLLIN)] if self._may_read else []
        if not (self.pacer.is_empty and (self.done or self._is_gone)):
            wanted.append((self.sink, select.POLLOUT if self.pacer.due() is not None else 0))
        return wanted

    def note(self, events: dict[int, int]) -> None:
        """Note that the sink has gone, where poll() says so: nothing that is on its way waits for its time."""
        if events.get(self.sink.fileno(), 0) & GONE:
            self._is_gone = True
            if not self.pacer.is_empty:
                self._refuse(BrokenPipeError("the connection is over"))
            elif self._has_ended:
                self.pacer.drop()


Ways = tuple[Direction, Direction]


def relay(
    one: socket.socket,
    other: socket.socket,
    watch: Callable[[Direction, Direction], object] = lambda out, back: None,
    *,
    shape: Shape = PLAIN,
    clock: Clock = monotonic,
    passes_end: Callable[[], bool] = always,
    heard: Callable[[bytes], object] | None = None,
) -> bool:
    """Copy both ways until both directions have ended, or one towards TLS has, which cannot be half-closed.

    Where one side broke off, the other side is reset when it is closed.

    Args:
        watch: Called with both directions after each round of copying, that from `one` to `other` first; a true result
            ends the relay.
        shape: How the bytes from `other` reach `one`.
        passes_end: Asked at the end of `other`: whether it is passed on to `one`.
        heard: Gets what `one` sends; None where nobody listens.

    Returns:
        Whether the shape's limit has ended it.

    Raises:
        OSError: One side broke off; the bytes that it sent before have been passed on.
    """
    out = Direction(one, other, Pacer(PLAIN, clock), heard=heard)
    back = Direction(other, one, Pacer(shape, clock), passes_end)
    ways = out, back
    for sock in (one, other):
        sock.settimeout(0)
    due: Sequence[Direction] = ways
    while True:
        more = [way for way in due if way.pump()]
        is_over = watch(*ways)
        if back.is_cut:
            return True
        for way, opposite in (ways, ways[::-1]):
            if way.done and (error := way.failure or opposite.refusal):
                await_acknowledged(way.sink, lambda seconds: pump_after(ways, seconds))
                reset_at_close(way.sink)
                raise error
        ended = [way for way in ways if way.done]
        if is_over or len(ended) == 2 or any(isinstance(way.sink, ssl.SSLSocket) for way in ended):
            return False
        due = [*more, *(way for way in wait(ways, 0 if more else None) if way not in more)]


def pump_after(ways: Ways, seconds: float) -> None:
    """Wait for a direction for so long at most, and copy: a side that still sends reads what was sent to it before."""
    wait(ways, seconds)
    for way in ways:
        way.pump()


def wait(ways: Ways, seconds: float | None) -> list[Direction]:
    """Wait until a direction can go on, or for so many seconds at most; return those that can."""
    awaited = [(way, way.seconds, way.awaited()) for way in ways]
    limits = [limit for limit in (seconds, awaited[0][1], awaited[1][1]) if limit is not None]
    events = poll([*awaited[0][2], *awaited[1][2]], min(limits, default=None))
    for way in ways:
        way.note(events)
    return [
        way
        for way, limit, wanted in awaited
        if limit == 0 or any(sock.fileno() in events for sock, _ in wanted)
    ]


def play(
    sock: socket.socket,
    pacer: Pacer,
    heard: Callable[[bytes], object],
    seconds: float | None,
    clock: Clock,
) -> bool:
    """Send what a pacer holds, and read all that comes meanwhile. The socket does not block.

    Args:
        seconds: How long to go on after all has been sent; None is until the other side has ended.

    Returns:
        Whether the other side has ended, or takes no more; False where the pacer's limit or `seconds` is the end.
    """
    has_ended, deadline = False, None
    while True:
        has_ended = has_ended or hear(sock, heard)
        if send_due(sock, pacer):
            return True
        if pacer.is_empty and (has_ended or pacer.is_cut):
            return has_ended
        if pacer.is_empty and seconds is not None:
            deadline = clock() + seconds if deadline is None else deadline
            if clock() >= deadline:
                return False
        left = pacer.seconds if deadline is None else max(deadline - clock(), 0.0)
        wanted = 0 if has_ended else select.POLLIN
        wanted |= select.POLLOUT if pacer.due() is not None else 0
        if any(events & GONE for events in poll([(sock, wanted)], left).values()) and has_ended:
            return True


def hear(sock: socket.socket, heard: Callable[[bytes], object]) -> bool:
    """True: the other side has ended."""
    try:
        while data := sock.recv(COPY_BYTES):
            heard(data)
    except BLOCKED:
        return False
    except OSError:
        pass
    return True


def send_due(sock: socket.socket, pacer: Pacer) -> bool:
    """True: the other side takes no more."""
    try:
        while (data := pacer.due()) is not None:
            pacer.took(sock.send(data))
    except BLOCKED:
        return False
    except OSError:
        return True
    return False


def poll(wanted: list[tuple[socket.socket, int]], seconds: float | None) -> dict[int, int]:
    """The events by descriptor; none after `seconds`, or earlier: a delay may be longer than the kernel can wait."""
    events: dict[int, int] = {}
    for sock, more in wanted:
        events[sock.fileno()] = events.get(sock.fileno(), 0) | more
    poller = select.poll()
    for descriptor, mask in events.items():
        poller.register(descriptor, mask)
    return dict(poller.poll(None if seconds is None else min(seconds, MOST_SECONDS) * 1000))
