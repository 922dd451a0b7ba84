"""Bytes that come later, no faster, or not all of them: the shape of one direction, and a relay that gives it to one.

The rule: no clock is read here but the one that is passed in, which may stand still. `Pacer` is pure; `relay` and
`play` are its loops, each on one thread, which wait for sockets and for time in one place.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pytest_egress.base.relay import COPY_BYTES, FIRST_BYTES, TURNS, UNSENT_SECONDS, unsent
from pytest_egress.base.sockets import BLOCKED, reset_at_close

SLICE_SECONDS: Final = 0.05  # of a direction's rate, sent at once: 20 times a second looks steady
MOST_DELAYED: Final = (
    4 << 20
)  # bytes on their way, as the window of a long line; then reading stops
GONE: Final = select.POLLHUP | select.POLLERR  # poll() reports them where no event is asked for
UNSENT_STEP: Final = 0.005  # seconds between two looks at what is unacknowledged
MOST_SECONDS: Final = 86400.0  # of one poll(): it takes milliseconds up to 2**31, 24 days

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How bytes of one direction come.

    Attributes:
        delay: How many seconds later each comes, and the end too.
        rate: How many come in a second, at most.
        limit: After how many the connection ends; None for no limit.
        resets: Whether it then ends by RST, and not by FIN.
    """

    delay: float = 0.0
    rate: float = math.inf
    limit: int | None = None
    resets: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether bytes come as they are."""
        return not self.delay and self.rate == math.inf and self.limit is None


PLAIN: Final = Shape()


class Pacer:
    """The bytes of one direction that are on their way.

    Args:
        shape: How they come.
        clock: Seconds; it may stand still.

    Attributes:
        is_cut: Whether the limit is reached: nothing more is taken in.
    """

    def __init__(self, shape: Shape, clock: Clock) -> None:
        self._shape, self._clock = shape, clock
        self._waiting: deque[tuple[float, memoryview]] = deque()
        self._held, self._left = 0, shape.limit
        self._free_at = -math.inf  # when the rate lets the next byte go
        self._ended_at: float | None = None
        self._most = MOST_DELAYED if shape.delay else COPY_BYTES
        slice_bytes = min(shape.rate * SLICE_SECONDS, COPY_BYTES)
        self._slice = max(int(slice_bytes), 1)
        self.is_cut = False

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read, since so much is on its way."""
        return self._held >= self._most

    def put(self, data: bytes) -> None:
        """Take in bytes that have come now, up to the limit."""
        if self.is_cut:
            return
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            self.is_cut = not self._left
        if data:
            self._waiting.append((self._clock() + self._shape.delay, memoryview(data)))
            self._held += len(data)

    def end(self) -> None:
        """Note that no more bytes will come."""
        self._ended_at = self._clock() + self._shape.delay

    def due(self) -> memoryview | None:
        """Bytes that may go now; None where there are none. They are the same until `took` tells that some went."""
        if self._next_at() <= self._clock():
            return self._waiting[0][1][: self._slice]
        return None

    def _next_at(self) -> float:
        return max(self._waiting[0][0], self._free_at) if self._waiting else math.inf

    def took(self, count: int) -> None:
        """Note that so many of the bytes that were due have gone."""
        at, data = self._waiting.popleft()
        if rest := data[count:]:
            self._waiting.appendleft((at, rest))
        self._held -= count
        self._free_at = self._clock() + count / self._shape.rate

    def drop(self) -> None:
        """Forget what is on its way: nobody takes it."""
        self._waiting.clear()
        self._held, self._ended_at = 0, -math.inf if self._ended_at is not None else None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is on its way."""
        return not self._waiting

    @property
    def is_over(self) -> bool:
        """Whether all has gone, and the end has come too."""
        return self.is_empty and self._ended_at is not None and self._ended_at <= self._clock()

    @property
    def seconds(self) -> float | None:
        """How long it takes until something becomes due, bytes or the end; None where nothing will, or bytes are."""
        if self.due() is not None:
            return None
        at = self._next_at() if self._waiting else self._ended_at
        return None if at is None else max(at - self._clock(), 0.0)


def always() -> bool:
    """Take the place of a condition that always holds."""
    return True


class Way:
    """One direction of a relay.

    Args:
        source: Where it reads.
        sink: Where it writes.
        pacer: When it may write.
        passes_end: Asked at the end of the source: whether that is the sink's as well.

    Attributes:
        count: How many bytes have been written.
        first: The first bytes that were read.
        done: Whether the source has ended, and all that it sent has been passed on.
        failure: The error by which the source broke off, or None.
        refusal: The error of a write: the sink takes nothing more, and bytes for it are dropped.
    """

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        pacer: Pacer,
        passes_end: Callable[[], bool] = always,
    ) -> None:
        self.source, self.sink, self.pacer = source, sink, pacer
        self._passes_end = passes_end
        self.count, self.first = 0, b""
        self.done, self._has_ended = False, False
        self.failure: OSError | None = None
        self.refusal: OSError | None = None

    @property
    def is_cut(self) -> bool:
        """Whether the limit ends the connection now: the bytes before it have gone."""
        return self.pacer.is_cut and self.pacer.is_empty

    def pump(self) -> bool:
        """Copy what may be copied without waiting; True where more may be ready at once."""
        for _ in range(TURNS):
            has_read = self._read()
            if not self._write() and not has_read:
                return False
        return True

    def _read(self) -> bool:
        if self._has_ended or self.pacer.is_full or self.pacer.is_cut:
            return False
        data = b""
        try:
            data = self.source.recv(COPY_BYTES)
        except BLOCKED:
            return False
        except OSError as error:
            self.failure = error
        if data:
            self.first = self.first or data[:FIRST_BYTES]
            if self.refusal is None:
                self.pacer.put(data)
            return True
        self._has_ended = True
        self.pacer.end()
        if self.refusal is not None:
            self.pacer.drop()
        return False

    def _write(self) -> bool:
        """Write what is due; pass the source's end on when it is due."""
        if (data := self.pacer.due()) is not None:
            try:
                sent = self.sink.send(data)
            except BLOCKED:
                return False
            except OSError as error:
                self.refuse(error)
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

    def refuse(self, error: OSError) -> None:
        """Note that the sink takes nothing more."""
        self.refusal = self.refusal or error
        self.pacer.drop()

    @property
    def seconds(self) -> float | None:
        """How long to wait at most; None for no limit."""
        return None if self.done else self.pacer.seconds

    def awaited(self) -> list[tuple[socket.socket, int]]:
        """What to wait for: sockets, and events of poll()."""
        wanted = []
        if not (self._has_ended or self.pacer.is_full or self.pacer.is_cut):
            wanted.append((self.source, select.POLLIN))
        if self.refusal is None and not self.done:
            wanted.append((self.sink, select.POLLOUT if self.pacer.due() is not None else 0))
        return wanted

    def note(self, events: dict[int, int]) -> None:
        """Note that the sink has gone, where poll() says so: what is on its way would wait for its time."""
        if self.refusal is None and not self.done and events.get(self.sink.fileno(), 0) & GONE:
            self.refuse(BrokenPipeError("the connection is over"))


def relay(
    one: socket.socket,
    other: socket.socket,
    shape: Shape,
    clock: Clock,
    watch: Callable[[Way, Way], object],
    passes_end: Callable[[], bool] = always,
) -> bool:
    """Copy both ways until both directions have ended, as `base.relay.relay`; what `other` sends comes in a shape.

    Args:
        shape: How the bytes from `other` reach `one`.
        watch: Called with both directions after each round, that from `one` first; a true result ends the relay.
        passes_end: Asked at the end of `other`: whether it is passed on to `one`.

    Returns:
        Whether the shape's limit has ended it.

    Raises:
        OSError: One side broke off; the bytes that it sent before have been passed on.
    """
    out = Way(one, other, Pacer(PLAIN, clock))
    back = Way(other, one, Pacer(shape, clock), passes_end)
    ways = (out, back)
    for sock in (one, other):
        sock.settimeout(0)
    while True:
        more = [way.pump() for way in ways]
        is_over = watch(*ways)
        if back.is_cut:
            return True
        for way, opposite in (ways, ways[::-1]):
            if way.done and (error := way.failure or opposite.refusal):
                await_acknowledged(way.sink, clock)
                reset_at_close(way.sink)
                raise error
        ended = [way for way in ways if way.done]
        is_over = is_over or len(ended) == 2
        if is_over or any(isinstance(way.sink, ssl.SSLSocket) for way in ended):
            return False
        seconds = [each for way in ways if (each := way.seconds) is not None]
        events = poll(
            [*out.awaited(), *back.awaited()], 0.0 if any(more) else min(seconds, default=None)
        )
        for way in ways:
            way.note(events)


def play(
    sock: socket.socket,
    pacer: Pacer,
    heard: Callable[[bytes], object],
    seconds: float | None,
    clock: Clock,
) -> bool:
    """Send what a pacer holds, and read all that comes meanwhile.

    Args:
        sock: Connected; it does not block.
        heard: Takes the bytes that come.
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
    """Read what has come; return whether the other side has ended."""
    try:
        while data := sock.recv(COPY_BYTES):
            heard(data)
    except BLOCKED:
        return False
    except OSError:
        pass
    return True


def send_due(sock: socket.socket, pacer: Pacer) -> bool:
    """Send what is due; return whether the other side takes no more."""
    try:
        while (data := pacer.due()) is not None:
            pacer.took(sock.send(data))
    except BLOCKED:
        return False
    except OSError:
        return True
    return False


def await_acknowledged(sock: socket.socket, clock: Clock) -> None:
    """Wait until the other side has all that was sent to it, or stops reading: a reset would drop the rest."""
    left, deadline = unsent(sock), clock() + UNSENT_SECONDS
    while left and clock() < deadline:
        poll([(sock, 0)], UNSENT_STEP)
        before, left = left, unsent(sock)
        if left < before:
            deadline = clock() + UNSENT_SECONDS


def poll(wanted: list[tuple[socket.socket, int]], seconds: float | None) -> dict[int, int]:
    """Wait until an event has come, by descriptor, or for so many seconds at most; None for no limit.

    It may return earlier: a delay may be longer than poll() can wait.
    """
    events: dict[int, int] = {}
    for sock, more in wanted:
        events[sock.fileno()] = events.get(sock.fileno(), 0) | more
    poller = select.poll()
    for descriptor, mask in events.items():
        poller.register(descriptor, mask)
    return dict(poller.poll(None if seconds is None else min(seconds, MOST_SECONDS) * 1000))
