"""HTTP/3: what a client asks, as events from datagrams, and datagrams from what is answered, by aioquic (RFC 9114).

This module never touches a socket, and is imported when the first connection of QUIC comes. Whoever calls a method of
`Http3` holds a lock, as with `Http2`, whose methods it has. Datagrams are in `bytes` one after the other, each behind
its length in two bytes: a server reads and sends bytes, whatever carries them.

aioquic takes whatever its peer's windows have room for into memory, and tells nobody: `room` has a limit of its own. It
has no way to choose a certificate by the name that the client asks for: `Quic` gives it that within its handshake.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from typing import Final

from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import (
    ErrorCode,
    FrameType,
    H3Connection,
    HeadersState,
    encode_frame,
)
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.connection import stream_is_unidirectional
from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from pytest_egress.traffic.http.headers import NO_FIELDS, Headers, fields
from pytest_egress.traffic.http.http2 import RESET_BURST, Bucket, http2_head, lines_of, sendable
from pytest_egress.traffic.http.multiplexed import (
    Asked,
    BodyCame,
    BrokenRuleError,
    Came,
    CameLate,
    Ended,
    Unreadable,
    WasReset,
    WindowGrew,
)
from pytest_egress.traffic.http.quic import Identify, Quic
from pytest_egress.traffic.tls.quic import LENGTH_BYTES

BACKLOG: Final = 256 * 1024  # bytes of a response that aioquic has, and has not sent
MAX_OPEN: Final = 1000
"""Requests that are open at once. aioquic has clients open as many as they like, and each may need a thread."""

PEER: Final = ("", 0)
"""The client's address, for aioquic: what it sends goes to whoever has sent last."""

CODES: Final = {
    0: ErrorCode.H3_NO_ERROR,
    1: ErrorCode.H3_MESSAGE_ERROR,
    2: ErrorCode.H3_INTERNAL_ERROR,
    8: ErrorCode.H3_REQUEST_CANCELLED,
}
"""The codes of RST_STREAM (RFC 9113 section 7) that a server uses, as HTTP/3 has them (RFC 9114 section 8.1)."""


class Http3:
    """The server side of one connection of QUIC.

    Args:
        clock: In seconds.
        first_id: The connection ID by which its client has begun it.
        identify: Says by which certificate a ClientHello is answered.
        on_id: Called with each connection ID that its client may use from now on, and whether it may.

    Attributes:
        is_secured: Whether the handshake has been made.
        closing: Why the connection has ended: the code and the text, from whichever side; None while it has not.
    """

    is_leaving = False

    def __init__(
        self,
        clock: Callable[[], float],
        first_id: bytes,
        identify: Identify,
        on_id: Callable[[bytes, bool], None],
    ) -> None:
        self._clock, self._on_id = clock, on_id
        self._quic = Quic(first_id, identify)
        self._h3: H3Connection | None = None
        self._came: deque[Came] = deque()
        self._asked: dict[int, bool] = {}  # open requests, and whether each has come whole
        self._trailers: dict[int, Headers] = {}
        self._heads: set[int] = set()  # streams of requests whose head is still to come
        self._over: set[int] = set()  # streams on which nothing goes any more
        self._awaiting: set[int] = set()  # streams that found no room
        self._resets = Bucket(clock)
        self._timer = inf
        self._part = b""
        self.is_secured, self.is_closed, self.has_asked = False, False, False
        self.closing: tuple[int, str] | None = None
        self.last_stream = -1
        on_id(self._quic.host_cid, True)

    @property
    def cipher(self) -> str:
        return self._quic.cipher

    @property
    def is_within_head(self) -> bool:
        return bool(self._heads)

    @property
    def has_part_of_head(self) -> bool:
        return bool(self._heads)

    @property
    def has_begun(self) -> bool:
        return self.is_secured

    @property
    def seconds_left(self) -> float:
        """After how many seconds `tick` is to be called."""
        return max(self._timer - self._clock(), 0)

    @property
    def has_come(self) -> bool:
        """Whether `receive` has events without any other bytes."""
        return bool(self._came or self._quic.refused)

    @property
    def has_delivered(self) -> bool:
        """Whether the client has acknowledged all that was sent to it."""
        return self.is_closed or self._quic.has_delivered

    # From the client.

    def receive(self, data: bytes) -> Iterator[Came]:
        self.take(data)
        while self._came:
            yield self._came.popleft()
        if self._quic.refused:
            raise BrokenRuleError(self._quic.refused)

    def take(self, data: bytes) -> None:
        """Read datagrams. Their events are kept until `receive` is called."""
        now = self._clock()
        data = self._part + data
        at = 0
        while at + LENGTH_BYTES <= len(data):
            end = at + LENGTH_BYTES + int.from_bytes(data[at : at + LENGTH_BYTES], "big")
            if end > len(data):
                break
            if datagram := data[at + LENGTH_BYTES : end]:
                self._quic.receive_datagram(datagram, PEER, now)
                self._act()
            at = end
        self._part = data[at:]
        self._tell_room()

    def tick(self) -> None:
        """Do what is due by now: send again what has been lost, or end a connection that has been idle for long."""
        if self.seconds_left <= 0:
            self._quic.handle_timer(self._clock())
            self._act()
            self._tell_room()

    def _act(self) -> None:
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                self.is_secured = True
                self._h3 = H3Connection(self._quic)
            elif isinstance(event, ConnectionIdIssued):
                self._on_id(event.connection_id, True)
            elif isinstance(event, ConnectionIdRetired):
                self._on_id(event.connection_id, False)
            elif isinstance(event, ConnectionTerminated):
                self._end(event.error_code, event.reason_phrase)
            elif self._h3 is not None:
                self._read(self._h3, event)
        if self._quic.ended is not None:
            self._end(*self._quic.ended)

    def _end(self, code: int, why: str) -> None:
        if self.is_closed:
            return
        self.closing, self.is_closed = (code, why), True
        for stream in self._asked:
            self._came.append(WasReset(stream=stream, why="the client closed the connection"))

    def _was_reset(self, event: StreamReset | StopSendingReceived) -> None:
        stream = event.stream_id
        self._heads.discard(stream)
        if stream_is_unidirectional(stream) or stream in self._over:
            return
        what = "reset the stream" if isinstance(event, StreamReset) else "wants no response"
        self._over.add(stream)
        if not self._resets.take_token():
            why = f"more than {RESET_BURST} streams were reset within seconds"
            self._quic.close(ErrorCode.H3_EXCESSIVE_LOAD, reason_phrase=why)
        self._came.append(WasReset(stream=stream, why=f"the client {what} ({event.error_code:#x})"))

    def _read(self, h3: H3Connection, event: QuicEvent) -> None:
        if isinstance(event, (StreamReset, StopSendingReceived)):
            self._was_reset(event)
        elif isinstance(event, StreamDataReceived):
            self._note_stream(event.stream_id)
        for each in h3.handle_event(event):
            if isinstance(each, HeadersReceived):
                self._read_fields(each)
            elif isinstance(each, DataReceived) and each.data:
                self._came.append(self._body(each.stream_id, each.data))
            if isinstance(each, (HeadersReceived, DataReceived)) and each.stream_ended:
                self._read_end(each.stream_id)

    def _note_stream(self, stream: int) -> None:
        if stream > self.last_stream and not stream_is_unidirectional(stream):
            self.last_stream = stream
            self._heads.add(stream)

    def _read_fields(self, event: HeadersReceived) -> None:
        stream = event.stream_id
        if stream in self._asked:
            self._trailers[stream] = fields(event.headers)
            return
        self.has_asked = True
        self._heads.discard(stream)
        try:
            head = http2_head(tuple(event.headers), ends=event.stream_ended)
        except ValueError as error:
            self.reset(stream, 1)
            sent = lines_of(tuple(event.headers))
            self._came.append(Unreadable(stream=stream, why=str(error), sent=sent))
            return
        self._asked[stream] = False
        self._quic.unread[stream] = 0
        if len(self._asked) > MAX_OPEN:
            why = f"more than {MAX_OPEN} requests are open at once"
            self._quic.close(ErrorCode.H3_EXCESSIVE_LOAD, reason_phrase=why)
        self._came.append(Asked(stream=stream, head=head._replace(http_version="3")))

    def _body(self, stream: int, data: bytes) -> BodyCame | CameLate:
        if stream in self._over or stream not in self._asked:
            return CameLate(stream=stream, data=data)
        self._quic.unread[stream] += len(data)
        return BodyCame(stream=stream, data=data)

    def _read_end(self, stream: int) -> None:
        if stream in self._asked:
            self._asked[stream] = True
            trailers = self._trailers.pop(stream, NO_FIELDS)
            self._came.append(Ended(stream=stream, trailers=trailers))

    def _tell_room(self) -> None:
        if any(self._quic.unsent(stream) < BACKLOG for stream in self._awaiting):
            self._awaiting.clear()
            self._came.append(WindowGrew(stream=0))

    def give_back(self, stream: int, size: int) -> None:
        if stream in self._quic.unread:
            self._quic.unread[stream] -= size

    # To the client.

    def outgoing(self) -> bytes:
        now = self._clock()
        if not self._quic.has_begun:
            return b""
        datagrams = [data for data, _ in self._quic.datagrams_to_send(now)]
        self._act()  # which connection IDs have just been given
        timer = self._quic.get_timer()
        self._timer = inf if timer is None else timer
        return b"".join(len(data).to_bytes(LENGTH_BYTES, "big") + data for data in datagrams)

    def start(self, stream: int, status_code: int, headers: Headers, *, ends: bool) -> None:
        h3 = self._writable(stream)
        head = [(b":status", b"%d" % status_code), *sendable(headers)]
        h3.send_headers(stream, head, end_stream=ends)
        if status_code < 200:  # aioquic 1.3 would take the head of the response for trailers
            h3._stream[stream].headers_send_state = HeadersState.INITIAL
        if ends:
            self._over.add(stream)

    def room(self, stream: int) -> int:
        self._writable(stream)
        room = BACKLOG - self._quic.unsent(stream)
        if room <= 0:
            self._awaiting.add(stream)
        return max(room, 0)

    def send(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        self._writable(stream).send_data(stream, data, end_stream=ends)
        if ends:
            self._over.add(stream)

    def finish(self, stream: int, trailers: Headers = NO_FIELDS) -> None:
        h3 = self._writable(stream)
        if trailing := sendable(trailers):
            h3.send_headers(stream, trailing, end_stream=True)
        else:
            h3.send_data(stream, b"", end_stream=True)
        self._over.add(stream)

    def _writable(self, stream: int) -> H3Connection:
        if self._h3 is None or self.is_closed or stream in self._over:
            raise ConnectionError("the stream has ended")
        return self._h3

    def reset(self, stream: int, code: int) -> None:
        error = CODES[code]
        if stream not in self._over:
            self._over.add(stream)
            self._quic.reset_stream(stream, error)
        if not self._asked.get(stream, False) and not self.is_closed:
            with suppress(ValueError):  # it has ended meanwhile
                self._quic.stop_stream(stream, error)

    def raw(self, stream: int, data: bytes) -> bytes:
        self._quic.send_stream_data(stream, data)
        return self.outgoing()

    def forget(self, stream: int) -> None:
        self._asked.pop(stream, None)
        self._quic.unread.pop(stream, None)
        self._trailers.pop(stream, None)
        self._awaiting.discard(stream)
        self._over.discard(stream)

    def goaway(self) -> bytes:
        control = None if self._h3 is None else self._h3._local_control_stream_id
        if control is None or self.is_closed:
            return b""
        frame = encode_frame(FrameType.GOAWAY, encode_uint_var(self.last_stream + 4 & ~3))
        self._quic.send_stream_data(control, frame)
        return self.outgoing()

    def close(self, *, is_error: bool) -> bytes:
        """What tells the client that the connection has ended (CONNECTION_CLOSE, RFC 9000 section 10.2)."""
        self._quic.close(ErrorCode.H3_INTERNAL_ERROR if is_error else ErrorCode.H3_NO_ERROR)
        self.is_closed = True
        return self.outgoing()
