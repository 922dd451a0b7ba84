"""`Passing`: searches what passes in pieces and is not kept, such as a streamed body.

The rule: it keeps what may be the beginning of a secret, and what is still to be searched, and both are bounded. One
thread feeds it; any thread asks what it has found.
"""

from __future__ import annotations

from typing import Final

from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.search.contents import compressed_by
from pytest_egress.traffic.search.unpacking import MOST_CODINGS, Unpacking

SEARCHED: Final = 65_536  # bytes that are searched at once: pieces of a byte each would be searched again and again
HEAD_BYTES: Final = 8  # that tell of a coding, if no field does

Written = frozenset[tuple[str, str]]
"""What was found: the names of secrets, each with how it is written."""


class Passing:
    """Searches the bytes of one direction of a connection, or of one body.

    Args:
        coding: The Content-Encoding of the body: what it decodes to is searched too, as far as that is bounded. Where
            there is none, the first bytes may tell of one.
        depth: How many codings are around it.
    """

    __slots__ = (
        *("_depth", "_found", "_head", "_inner", "_known", "_overlap"),
        *("_tail", "_unpacking", "_waiting"),
    )

    def __init__(self, known: KnownValues, coding: str = "", depth: int = 0) -> None:
        self._known, self._depth = known, depth
        self._head: bytes | None = None if coding or depth > MOST_CODINGS else b""
        # An encoding may break the lines within a secret.
        self._overlap = 2 * known.longest
        self._tail = ""
        self._waiting = bytearray()
        self._found: Written = frozenset()
        self._unpacking: Unpacking | None = None
        self._inner: Passing | None = None
        if coding:
            self._unpack(coding)

    def _unpack(self, coding: str) -> None:
        self._unpacking = Unpacking(coding)
        self._inner = Passing(self._known, self._unpacking.within, self._depth + 1)

    def feed(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        for at in range(0, len(view), SEARCHED):
            self._waiting += view[at : at + SEARCHED]
            if len(self._waiting) >= max(SEARCHED, self._overlap):
                self._search()
        if self._head is not None or self._unpacking is not None:
            self._decode(bytes(view))

    def _decode(self, data: bytes) -> None:
        if self._head is not None:
            self._head = data = self._head + data
            if len(data) < HEAD_BYTES:
                return
            self._head = None
            if (coding := compressed_by(data)) is not None:
                self._unpack(coding)
        if self._unpacking is not None and self._inner is not None:
            for piece in self._unpacking.feed(data):
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
