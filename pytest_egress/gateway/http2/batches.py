"""`Batches`: the threads that serve the streams of a connection, one for all requests that a read has brought whole.

To wake a thread for each request costs more than the rest of a request, since the threads then compete for the
interpreter's lock. So one worker serves what came together, one request after the other, and sends the responses in
one write. But a request that takes long must hold up no other one: the connection's reader looks every few
milliseconds, and gives each of those that wait a worker of its own. Where slow requests outweigh quick ones, each gets
one at once.

Threads: the connection's reader calls `serve`, `look` and `spread`; the rest runs on a worker. The wire's lock guards
which batch is the current one. Two threads may take streams out of the same deque.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from math import inf
from typing import Final

from pytest_egress.base.clock import monotonic
from pytest_egress.base.workers import Workers
from pytest_egress.gateway.http2.stream import Http2Stream
from pytest_egress.gateway.http2.wire import Http2Wire

MOST_GATHERED: Final = 32  # responses that one write sends
STUCK_SECONDS: Final = 0.01  # that a request may hold up those that wait for the same worker
QUICK_SECONDS: Final = 0.002  # that a request may take where others wait for the same worker
SLOW_COUNTS: Final = 8
SLOW_LIMIT: Final = 2 * SLOW_COUNTS
"""Where slow requests outweigh quick ones by this, each gets a worker of its own for `APART_SECONDS`. A slow one counts
as eight quick ones: a few are slow on any busy machine, and handlers that wait, for another server say, are often.
"""

APART_SECONDS: Final = 0.25

OfStream = Callable[[Http2Stream], None]


class Batch:
    """Streams that one worker serves, one after the other.

    Attributes:
        served: Those that have been, and whose responses may not have been sent.
        moved: When the last one was begun, by `monotonic`.
    """

    def __init__(self, streams: Sequence[Http2Stream]) -> None:
        self.waiting, self.served = deque(streams), deque[Http2Stream]()
        self.moved = monotonic()


class Batches:
    """Gives the streams of one connection to workers.

    Args:
        serve: Serves a stream on the calling thread. It raises nothing.
        serve_apart: Has a worker of its own serve a stream, and close it.
    """

    def __init__(
        self,
        wire: Http2Wire,
        workers: Workers,
        serve: OfStream,
        close: OfStream,
        serve_apart: OfStream,
    ) -> None:
        self._wire, self._workers = wire, workers
        self._serve_stream, self._close, self._serve_apart = serve, close, serve_apart
        self._batch: Batch | None = None
        self._slow, self._apart_until = 0, 0.0

    # The thread that reads.

    @property
    def seconds_left(self) -> float:
        """How many seconds may pass until `look` has to be called."""
        batch = self._batch
        return inf if batch is None else max(batch.moved + STUCK_SECONDS - monotonic(), 0)

    def serve(self, streams: Sequence[Http2Stream]) -> None:
        """Have streams served whose requests have come whole, by one worker where they are likely to be quick."""
        if monotonic() < self._apart_until:
            for stream in streams:
                self._serve_apart(stream)
            return
        with self._wire.lock:
            if self._batch is not None:
                self._batch.waiting.extend(streams)
                return
            batch = self._batch = Batch(streams)
        try:
            self._workers.run(partial(self._serve, batch))
        except RuntimeError:  # no thread can be started, which each of them tells
            self.spread()

    def look(self) -> None:
        """See to it that no request waits for long for the one before it."""
        if self.seconds_left <= 0:
            self.spread()

    def spread(self) -> None:
        """Give each stream that waits a worker of its own, and send what has been gathered."""
        with self._wire.lock:
            batch, self._batch = self._batch, None
            self._wire.release()
        if batch is None:
            return
        for stream in taken(batch.waiting):
            self._serve_apart(stream)
        if batch.served:
            with contextlib.suppress(RuntimeError):  # no thread can be started: its worker does it
                self._workers.run(partial(self._finish, batch.served))

    # The worker.

    def _serve(self, batch: Batch) -> None:
        """Serve what waits, and send the responses together, until nothing does."""
        while self._goes_on(batch):
            for stream in islice(taken(batch.waiting), MOST_GATHERED):
                began = batch.moved = monotonic()
                self._serve_stream(stream)
                batch.served.append(stream)
                if self._are_slow(monotonic() - began):
                    self.spread()
            self._finish(batch.served)

    def _goes_on(self, batch: Batch) -> bool:
        """Whether a batch's worker has something to serve. Whole responses are gathered from here on."""
        with self._wire.lock:
            if self._batch is not batch:
                return False
            if not batch.waiting:
                self._batch = None
                return False
            self._wire.begin_to_gather()
            return True

    def _are_slow(self, seconds: float) -> bool:
        """Count a request by how long it took; return whether each of the next ones gets a worker of its own."""
        if seconds < QUICK_SECONDS:
            self._slow = max(self._slow - 1, 0)
            return False
        self._slow += SLOW_COUNTS
        if self._slow < SLOW_LIMIT:
            return False
        self._slow = SLOW_LIMIT - 1  # the next one is enough
        self._apart_until = monotonic() + APART_SECONDS
        return True

    def _finish(self, served: deque[Http2Stream]) -> None:
        with self._wire.lock:
            place = self._wire.release()
        for stream in taken(served):
            self._close_sent(stream, place)

    def _close_sent(self, stream: Http2Stream, place: int) -> None:
        with self._wire.lock:
            self._wire.drain(lambda: stream.disconnected, place)
        self._close(stream)


def taken(streams: deque[Http2Stream]) -> Iterator[Http2Stream]:
    """Take the first stream out until there is none; other threads may do so at the same time."""
    with contextlib.suppress(IndexError):
        while True:
            yield streams.popleft()
