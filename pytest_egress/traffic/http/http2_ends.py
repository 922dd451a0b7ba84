"""`ClientEnds`: the streams of an HTTP/2 connection on which the client may still send (RFC 9113 section 5.1).

h2 answers a frame that comes later with RST_STREAM and tells of nothing, so that a request in it would leave no trace.
The rule: a client sends no fields and no bytes on a stream once it has ended or reset its own request. A client whose
stream we have ended or reset may not know it yet: DATA and trailers of that request are no offence, and another request
is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import h2.connection

import pytest_egress.traffic.http.http2_frames as frames
from pytest_egress.base.escaping import escaped
from pytest_egress.traffic.shown import counted

MAX_UNENDED: Final = 10_000
"""Streams that are known as not ended. Of those that we reset a client may say no more: the oldest is forgotten."""

Fields: TypeAlias = "Sequence[tuple[bytes, bytes]]"


class KeepingDecoder(h2.connection.Decoder):  # type: ignore[misc,name-defined]  # hpack's, by way of h2
    """Keeps the fields of the last block, as another decoder could not read those that h2 does not pass on.

    Whoever has read `fields` sets them to ().
    """

    fields: Fields = ()

    def decode(self, data: bytes, raw: bool = False) -> Iterable[Any]:
        decoded = list(super().decode(data, raw))
        self.fields = decoded
        return decoded


class ClientEnds:
    """Which streams the client of one connection has ended."""

    def __init__(self) -> None:
        self._unended: dict[int, None] = {}
        self._last = 0  # the highest stream that it has opened
        self._offender = 0  # the stream of the last offence: DATA after it is the same one
        self._block_is_late = self._block_ends = self._block_is_first = False

    def take_frame(self, frame: bytes, fields: Fields) -> str:
        """Take a whole frame, with its head, and the fields of the block that ends with it, if one does.

        Returns:
            What its client should not have sent, as a text; "" for a frame that is none of that.
        """
        kind = frame[3]
        if kind == frames.DATA:
            return self._take_data(frames.stream_of(frame), frame)
        if kind == frames.HEADERS:
            self._begin_block(frames.stream_of(frame), ends=bool(frame[4] & frames.END_STREAM))
        elif kind == frames.RST_STREAM:
            self._unended.pop(frames.stream_of(frame), None)
            return ""
        elif kind != frames.CONTINUATION:
            return ""
        if not frame[4] & frames.END_HEADERS or not self._is_offence(fields):
            return ""
        self._offender = frames.stream_of(frame)
        return f"HEADERS {late_text(self._offender)}: {fields_text(fields)}"

    def _take_data(self, number: int, frame: bytes) -> str:
        is_late = number <= self._last and number not in self._unended
        if frame[4] & frames.END_STREAM:
            self._unended.pop(number, None)
        if not is_late or len(frame) == frames.HEAD_BYTES or number == self._offender:
            return ""
        self._offender = number
        return f"DATA of {counted(len(frame) - frames.HEAD_BYTES, 'byte')} {late_text(number)}"

    def _begin_block(self, number: int, *, ends: bool) -> None:
        self._block_is_first, self._block_ends = number > self._last, ends
        self._block_is_late = not self._block_is_first and number not in self._unended
        self._last = max(number, self._last)
        if ends:
            self._unended.pop(number, None)
        elif self._block_is_first:
            self._unended[number] = None
            if len(self._unended) > MAX_UNENDED:
                del self._unended[next(iter(self._unended))]

    def _is_offence(self, fields: Fields) -> bool:
        """Whether the block that has ended is neither the first of its stream nor trailers."""
        if self._block_is_first:
            return False
        is_trailers = self._block_ends and not any(name.startswith(b":") for name, _ in fields)
        return self._block_is_late or not is_trailers


def late_text(number: int) -> str:
    return f"came for stream {number}, whose request had come whole or was reset (RFC 9113 section 5.1)"


def fields_text(fields: Fields) -> str:
    """The request that fields make, else the fields. Nothing has checked them."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
    known = dict(pairs)
    if ":method" not in known:
        return escaped(", ".join(f"{name}: {value}" for name, value in pairs) or "no fields")
    method, scheme, host, path = (
        known.get(name, "") for name in (":method", ":scheme", ":authority", ":path")
    )
    return escaped(f"{method} {scheme}://{host}{path}")
