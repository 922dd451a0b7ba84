"""Bytes that come later, no faster, or not all of them: the shape of one direction, and a `Pacer` that gives it to one.

The rule: no socket is touched here, and no clock is read but the one that is passed in, which may stand still.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

COPY_BYTES: Final = 1 << 18  # read at once; with 64 KiB, bulk takes a third more CPU
SLICE_SECONDS: Final = 0.05  # of a direction's rate, sent at once: 20 times a second looks steady
MOST_DELAYED: Final = 4 << 20  # bytes on their way, as a long line's window; then reading stops

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How bytes of one direction come."""

    delay: float = 0.0  # how many seconds later each comes, and the end too
    rate: float = math.inf  # how many come in a second, at most
    limit: int | None = None  # after how many the connection ends; None for no limit
    resets: bool = False  # whether it then ends by RST, and not by FIN

    @property
    def is_plain(self) -> bool:
        return not self.delay and self.rate == math.inf and self.limit is None


PLAIN: Final = Shape()


class Pacer:
    """The bytes of one direction that are on their way. The clock is in seconds, and may stand still.

    When the limit is reached, `is_cut` is true, and nothing more is taken in.
    """

    def __init__(self, shape: Shape, clock: Clock) -> None:
        self._shape, self._clock = shape, clock
        self._waiting: deque[tuple[float, memoryview]] = deque()
        self._held, self._left = 0, shape.limit
        self._free_at = -math.inf  # when the rate lets the next byte go
        self._ended_at: float | None = None
        self._most = MOST_DELAYED if shape.delay else 1
        slice_bytes = min(shape.rate * SLICE_SECONDS, COPY_BYTES)
        self._slice = max(int(slice_bytes), 1)
        self.is_cut = False

    @property
    def is_full(self) -> bool:
        return self._held >= self._most

    def put(self, data: bytes) -> None:
        """Bytes beyond the limit are dropped."""
        if self.is_cut:
            return
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            self.is_cut = not self._left
        if data:
            at = self._clock() + self._shape.delay if self._shape.delay else -math.inf
            self._waiting.append((at, memoryview(data)))
            self._held += len(data)

    def end(self) -> None:
        self._ended_at = self._clock() + self._shape.delay

    def due(self) -> memoryview | None:
        """The bytes that may go now. They are the same until `took` tells that some went."""
        if not self._waiting:
            return None
        at = self._next_at()
        is_due = at == -math.inf or at <= self._clock()
        return self._waiting[0][1][: self._slice] if is_due else None

    def _next_at(self) -> float:
        return max(self._waiting[0][0], self._free_at) if self._waiting else math.inf

    def took(self, count: int) -> None:
        at, data = self._waiting.popleft()
        if rest := data[count:]:
            self._waiting.appendleft((at, rest))
        self._held -= count
        if self._shape.rate < math.inf:
            self._free_at = self._clock() + count / self._shape.rate

    def drop(self) -> None:
        self._waiting.clear()
        self._held, self._ended_at = 0, -math.inf if self._ended_at is not None else None

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    @property
    def is_over(self) -> bool:
        return self.is_empty and self._ended_at is not None and self._ended_at <= self._clock()

    @property
    def seconds(self) -> float | None:
        """How long it takes until something becomes due, bytes or the end; None where nothing will, or bytes are."""
        if self.due() is not None:
            return None
        at = self._next_at() if self._waiting else self._ended_at
        return None if at is None else max(at - self._clock(), 0.0)
