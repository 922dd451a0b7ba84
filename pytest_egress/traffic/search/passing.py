"""`Passing`: searches what passes in pieces and is not kept, such as a streamed body.

The rule: it keeps what may be the beginning of a secret, and what is still to be searched, and both are bounded. One
thread feeds it; any thread asks what it has found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.search.contents import compressed_by
from pytest_egress.traffic.search.embedded import CompressedMessages, Embedded
from pytest_egress.traffic.search.unpacking import MOST_CODINGS, Unpacking

SEARCHED: Final = 65_536  # bytes that are searched at once: pieces of a byte each would be searched again and again
HEAD_BYTES: Final = 8  # that tell of a coding, if no field does

Written = frozenset[tuple[str, str]]
"""What was found: the names of secrets, each with how it is written."""


class Decoding(Protocol):
    """Decodes a stream, piece by piece; it raises nothing."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...


class Passing:
    """Searches the bytes of one direction of a connection, or of one body.

    Args:
        decoding: What is within the bytes is searched too: it takes them by `feed`, and yields that, as far as it is
            bounded. Without one, what begins as something compressed is decoded, wherever in the bytes that is.
        within: The codings of what that yields.
        depth: How many codings are around it.
    """

    __slots__ = (
        *("_decoding", "_depth", "_found", "_head", "_inner", "_known", "_overlap"),
        *("_tail", "_waiting", "_within"),
    )

    def __init__(
        self,
        known: KnownValues,
        decoding: Decoding | None = None,
        *,
        within: str = "",
        depth: int = 0,
    ) -> None:
        self._known, self._depth, self._within = known, depth, within
        self._head: bytes | None = None if decoding or depth > MOST_CODINGS else b""
        # An encoding may break the lines within a secret.
        self._overlap = 2 * known.longest
        self._tail = ""
        self._waiting = bytearray()
        self._found: Written = frozenset()
        self._decoding = decoding
        self._inner: Passing | None = None

    @classmethod
    def encoded(cls, known: KnownValues, coding: str, depth: int = 0) -> Passing:
        """For bytes with a Content-Encoding; "" is none."""
        if not coding:
            return cls(known, depth=depth)
        unpacking = Unpacking(coding)
        return cls(known, unpacking, within=unpacking.within, depth=depth)

    @classmethod
    def of_grpc(cls, known: KnownValues, encoding: str) -> Passing:
        """For a body with the messages of gRPC; `encoding` is that of those that are compressed."""
        return cls(known, CompressedMessages(encoding))

    def feed(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        for at in range(0, len(view), SEARCHED):
            self._waiting += view[at : at + SEARCHED]
            if len(self._waiting) >= max(SEARCHED, self._overlap):
                self._search()
        if self._head is not None or self._decoding is not None:
            self._decode(bytes(view))

    def _decode(self, data: bytes) -> None:
        if self._head is not None:
            self._head = data = self._head + data
            if len(data) < HEAD_BYTES:
                return
            self._head = None
            # Of zlib two bytes alone tell: elsewhere than at the begin they are anything.
            is_zlib = compressed_by(data) == "deflate"
            self._decoding = Unpacking("deflate") if is_zlib else Embedded()
        if self._decoding is None:
            return
        for piece in self._decoding.feed(data):
            if self._inner is None:
                self._inner = Passing.encoded(self._known, self._within, self._depth + 1)
            self._inner.feed(piece)

    def _search(self) -> None:
        text = self._tail + self._waiting.decode("latin-1")
        self._found |= self._known.found(text)
        self._tail = text[-self._overlap :]
        self._waiting = bytearray()

    @property
    def found(self) -> Written:
        """What was found until now. It changes nothing, since another thread may be feeding."""
        rest = self._tail + bytes(self._waiting).decode("latin-1")
        inner = frozenset() if self._inner is None else self._inner.found
        return self._found | self._known.found(rest) | inner
