"""Cuts the bytes of an HTTP/2 connection into frames (RFC 9113 section 4.1). This module never touches a socket.

It knows of a frame its head alone: 9 bytes with length, type, flags and stream.
"""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4
HEAD_BYTES: Final = 9
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x7, 0x9
"""Types of frames (RFC 9113 section 6)."""

ACK: Final = 0x1
"""The flag of SETTINGS that acknowledge others (RFC 9113 section 6.5)."""

END_STREAM: Final = 0x1
"""The flag of DATA and HEADERS with which one side ends a stream (RFC 9113 section 6.1)."""

PADDED: Final = 0x8
"""The flag of a frame whose first byte says how many bytes of padding it ends with (RFC 9113 section 6.1)."""

PRIORITY: Final = 0x20
"""The flag of HEADERS whose block follows five bytes of a priority (RFC 9113 section 6.2)."""

END_HEADERS: Final = 0x4
"""The flag of a frame with which a field block ends (RFC 9113 section 6.2)."""


class FrameTooLongError(Exception):
    """A frame announces more bytes than this side allows (SETTINGS_MAX_FRAME_SIZE)."""


class FrameCutter:
    """The frames of one direction of a connection, each with at most `longest` bytes behind its head."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._waiting = bytearray()
        self._in_block = False

    @property
    def is_within_head(self) -> bool:
        """Whether a request's head has begun to arrive, or a frame that may be one, and is not whole yet."""
        return self.has_part_of_head or 0 < len(self._waiting) <= 3

    @property
    def has_part_of_head(self) -> bool:
        """The kind of a frame is its fourth byte."""
        return self._in_block or self._waiting[3:4] == b"\x01"

    @property
    def is_in_block(self) -> bool:
        """The next frame has to continue a field block (RFC 9113 section 4.3)."""
        return self._in_block

    def receive(self, data: bytes) -> None:
        self._waiting += data

    def next_frame(self) -> bytes | None:
        """The next whole frame; None where more bytes are needed. FrameTooLongError: one is announced too long."""
        waiting = self._waiting
        if len(waiting) < HEAD_BYTES:
            return None
        length = int.from_bytes(waiting[:3], "big")
        if length > self._longest:
            raise FrameTooLongError(
                f"a frame of {length} bytes was announced, and {self._longest} are the most"
            )
        size = HEAD_BYTES + length
        if len(waiting) < size:
            return None
        frame = bytes(waiting[:size])
        del waiting[:size]
        if frame[3] in (HEADERS, CONTINUATION):
            self._in_block = not frame[4] & END_HEADERS
        return frame


def goaway_frame(last_stream: int) -> bytes:
    """A GOAWAY without an error (RFC 9113 section 6.8); `last_stream` is the last one that is answered."""
    return struct.pack(">LBLLL", 8 << 8 | GOAWAY, 0, 0, last_stream, 0)


def block_of(frame: bytes) -> bytes:
    """The field block of HEADERS that have it whole; b"" for any other frame."""
    if frame[3] != HEADERS or not frame[4] & END_HEADERS:
        return b""
    return data_of(frame)[5 if frame[4] & PRIORITY else 0 :]


def data_of(frame: bytes) -> bytes:
    """The bytes of a frame without its padding."""
    data = frame[HEAD_BYTES:]
    if not (frame[4] & PADDED and data):
        return data
    return data[1 : max(len(data) - data[0], 1)]


def stream_of(frame: bytes) -> int:
    """0 is the connection."""
    return int.from_bytes(frame[5:9], "big") & 0x7FFFFFFF
