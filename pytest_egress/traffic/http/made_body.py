"""`MadeBody`: the body of a streamed response, as far as it has been made. It is kept whole, or not at all.

Nothing here reads a socket or a clock.

Threads: one thread adds pieces; any thread reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Final

MAX_MADE_BYTES: Final = 4 << 20
"""The most bytes that are kept of what a handler streams: a test reads less, and a download of any size takes constant
memory."""

NOT_KEPT: Final = "the body of this response ({} bytes) is not kept: {}"
BY_ITS_ROUTE: Final = "its route has stream=True"
MESSAGES: Final = "call.grpc.responses has its messages"
OVER_LIMIT: Final = "that is over {} bytes"
OVER_HELD: Final = "all that is kept of the test has reached its limit"


class MadeBody:
    """The body of a streamed response.

    Args:
        limit: The most bytes that are kept.
        fits: Tells whether so many bytes of it may be kept from now on, in place of those before: `Hold.fits`.
        why: Why nothing is kept, as a clause; "" where the limit allows something.
    """

    __slots__ = ("_fits", "_kept", "_limit", "_why", "size")

    def __init__(self, limit: int, fits: Callable[[int], bool], why: str = "") -> None:
        self._limit, self._fits, self._kept = limit, fits, BytesIO()
        self._why, self.size = why, 0

    def add(self, piece: bytes) -> None:
        """Where the pieces become too many, none is kept any more."""
        self.size += len(piece)
        if self._why:
            return
        if self.size > self._limit:
            self._drop(OVER_LIMIT.format(self._limit))
        elif not self._fits(self.size):
            self._drop(OVER_HELD)
        else:
            self._kept.write(piece)

    def _drop(self, why: str) -> None:
        self._why, self._kept = why, BytesIO()
        self._fits(0)

    def end(self) -> None:
        """No piece follows. The body may be kept for longer than what counts it."""
        self._fits = never

    @property
    def content(self) -> bytes:
        """What has been made so far; a RuntimeError where it is not kept."""
        if self._why and self.size:
            raise RuntimeError(NOT_KEPT.format(self.size, self._why))
        return self._kept.getvalue()


class KeptStream(Iterator[bytes]):
    """The pieces of a streamed body, each kept before it is given.

    If the source has a method `close`, it is closed with this.
    """

    def __init__(self, source: Iterable[bytes], made: MadeBody) -> None:
        self.source: Final = source
        self._pieces, self._made = iter(source), made

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        self._made.add(piece)
        return piece

    def close(self) -> None:
        self._made.end()
        close: Callable[[], object] = getattr(self.source, "close", lambda: None)
        close()


def never(size: int) -> bool:
    """In the place of `fits` where no piece follows: that would keep the window alive."""
    return False
