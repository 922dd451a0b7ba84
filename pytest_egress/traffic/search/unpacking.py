"""`Unpacking`: decodes a body that passes, piece by piece, until it is over a bound.

The rule: no bytes make it yield more than `MAX_UNPACKED`, take more memory than a piece, or raise.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

from pytest_egress.traffic.http.content_coding import (
    FIRST_BYTES,
    PIECE_BYTES,
    WINDOW_LOG,
    br_library,
    codings,
    zstd_library,
)

MAX_UNPACKED: Final = 16 << 20  # bytes of a body: a bomb of some KB becomes as many
MOST_CODINGS: Final = 3  # one within the other
GZIP_OR_ZLIB: Final = 47  # of zlib: either format, told by its head
BARE: Final = -15


class Unpacking:
    """Decodes by the last coding of a Content-Encoding field, which is around the others; nothing for an unknown one.

    Args:
        most: The most bytes that it yields.

    Attributes:
        within: The codings of what it yields; "" for none.
        rest: Once it is over, the bytes of the last `feed` that are not of the coding.
    """

    def __init__(self, content_encoding: str, most: int = MAX_UNPACKED) -> None:
        *within, self._name = codings(content_encoding) or [""]
        self.within = ", ".join(within) if len(within) < MOST_CODINGS else ""
        self._left = most
        self._decoder: Any = None
        self.rest = b""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is decoded: it is no such coding, or too much."""
        return not self._name

    @property
    def is_between(self) -> bool:
        """Whether nothing has come since the end of what was decoded last."""
        return self._decoder is None

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), FIRST_BYTES):  # many small members copy no more than that
            if not self._name:
                return
            self.rest = data[at : at + FIRST_BYTES]
            try:
                yield from self._decoded(self.rest)
            except Exception:  # zlib.error, brotli.error, ZstdError, ContentError: no such coding
                self._name = ""

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        while data and self._left > 0:
            if self._decoder is None:
                self._decoder = self._begin(data)
            for piece in self._pieces(data):
                yield piece
                self._left -= len(piece)
                if self._left <= 0:
                    self._name, self._decoder = "", None
                    return
            self.rest = data = getattr(self._decoder, "unused_data", b"")  # of the next member
            if getattr(self._decoder, "eof", False):
                self._decoder = None

    def _begin(self, data: bytes) -> Any:
        if self._name in ("gzip", "deflate"):
            is_headed = self._name == "gzip" or data[0] & 0x0F == 8
            return zlib.decompressobj(GZIP_OR_ZLIB if is_headed else BARE)
        if self._name == "br":
            return br_library("the body is compressed with br").Decompressor()
        if self._name == "zstd":
            library = zstd_library("the body is compressed with zstd")
            options = {library.DecompressionParameter.window_log_max: WINDOW_LOG}
            return library.ZstdDecompressor(options=options)
        raise ValueError(self._name)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        decoder = self._decoder
        if self._name == "br":
            while piece := decoder.process(data, output_buffer_limit=PIECE_BYTES):
                yield piece
                data = b""
        elif self._name == "zstd":
            while piece := decoder.decompress(data, PIECE_BYTES):
                yield piece
                if decoder.eof:
                    return
                data = b""
        else:
            while True:
                piece, data = decoder.decompress(data, PIECE_BYTES), decoder.unconsumed_tail
                if piece:
                    yield piece
                if not data and len(piece) < PIECE_BYTES:
                    return
