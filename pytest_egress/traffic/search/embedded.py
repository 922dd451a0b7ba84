"""What is compressed within bytes that pass: `Embedded`, at any place of them, and `CompressedMessages`, those of gRPC.

The rule: as that of `unpacking`, for all that is found together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pytest_egress.traffic.http.content_coding import FIRST_BYTES
from pytest_egress.traffic.search.unpacking import MAX_UNPACKED, Unpacking

MAGICS: Final = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
LONGEST_MAGIC: Final = max(map(len, MAGICS))
MOST_FAILED: Final = 100  # that begin so, and are not compressed: each is decoded for a moment


class Embedded:
    """Decodes what begins as gzip and zstd do, wherever that is: a batch of Kafka's, a file in a form."""

    def __init__(self) -> None:
        self._left, self._failed = MAX_UNPACKED, 0
        self._before = b""
        self._unpacking: Unpacking | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), FIRST_BYTES):
            if self._left <= 0 or self._failed >= MOST_FAILED:
                return
            yield from self._decoded(data[at : at + FIRST_BYTES])

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._unpacking is None:
                data, self._before = self._before + data, b""
                start, coding = first_magic(data)
                if not coding:
                    self._before = data[-LONGEST_MAGIC + 1 :]
                    return
                data = data[start:]
                self._unpacking = Unpacking(coding, self._left)
            for piece in self._unpacking.feed(data):
                self._left -= len(piece)
                yield piece
            if not (self._unpacking.is_over or self._unpacking.is_between):
                return
            has_failed = len(self._unpacking.rest) >= len(data)
            self._failed += has_failed
            data = data[1:] if has_failed else self._unpacking.rest
            self._unpacking = None
            if self._left <= 0 or self._failed >= MOST_FAILED:
                return


def first_magic(data: bytes) -> tuple[int, str]:
    """Where the first of the codings begins, and which; "" for none."""
    found = ((data.find(magic), coding) for magic, coding in MAGICS.items())
    return min((each for each in found if each[0] >= 0), default=(-1, ""))


HEAD_BYTES: Final = 5  # whether it is compressed, and how many bytes the message has


class CompressedMessages:
    """Decodes the messages of gRPC that are compressed, by the coding that `grpc-encoding` names."""

    def __init__(self, encoding: str) -> None:
        self._encoding, self._left = encoding, MAX_UNPACKED
        self._head = bytearray()
        self._size = 0  # of what is still to come of a message
        self._unpacking: Unpacking | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        view = memoryview(data)
        while view:
            if self._size:
                piece, view = view[: self._size], view[self._size :]
                self._size -= len(piece)
                yield from self._decoded(piece)
                continue
            missing = HEAD_BYTES - len(self._head)
            self._head += view[:missing]
            view = view[missing:]
            if len(self._head) == HEAD_BYTES:
                self._begin()

    def _begin(self) -> None:
        self._size = int.from_bytes(self._head[1:], "big")
        is_compressed = self._head[0] == 1 and self._size
        self._unpacking = Unpacking(self._encoding, self._left) if is_compressed else None
        self._head.clear()

    def _decoded(self, data: memoryview) -> Iterator[bytes]:
        if self._unpacking is None or self._left <= 0:
            return
        for piece in self._unpacking.feed(bytes(data)):
            self._left -= len(piece)
            yield piece
