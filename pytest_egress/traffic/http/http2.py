"""HTTP/2: what a client asks, as events from bytes, and bytes from what is answered, by h2 (RFC 9113).

This module never touches a socket, and is imported when the first connection of HTTP/2 comes. Whoever calls a method of
`Http2` holds a lock: h2 has none, and several threads answer.

h2 gets one frame at a time. Given more, it discards the events of the frames that precede a bad one, and with them
requests that a client has made. It does not tell of what comes on a stream that has ended: `http2_ends` does. h2 has no
limit on frames that ask for nothing, and none on streams that are opened and reset: those are here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Final, TypeAlias

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

import pytest_egress.traffic.http.http2_frames as frames
from pytest_egress.traffic.http.head import MAX_HEADER_BYTES, Head, percent_encoded
from pytest_egress.traffic.http.head_faults import fault_in_http2
from pytest_egress.traffic.http.headers import (
    NO_FIELDS,
    Headers,
    end_to_end,
    fields,
    raw_fields,
    size_of,
)
from pytest_egress.traffic.http.http2_ends import ClientEnds, Fields, KeepingDecoder
from pytest_egress.traffic.http.http2_errors import told
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
from pytest_egress.traffic.shown import shown

MAX_STREAMS: Final = 100  # at once, of a connection: what h2, nginx and Go's server allow at least
MAX_FRAME_BYTES: Final = 16_384  # the default of the RFC; a larger one gained nothing
STREAM_WINDOW: Final = 1 << 20  # bytes that a client may send ahead of a handler that does not read
CONNECTION_WINDOW: Final = 1 << 24  # so large that it holds no stream back, as a rule
DEFAULT_WINDOW: Final = 65_535  # RFC 9113 section 6.9.2
RESET_BURST: Final = 1000  # streams that may be reset at once, by either side: nghttp2's numbers
RESET_RATE: Final = 33.0  # and as many in each second afterwards
IDLE_FRAMES: Final = 10_000  # frames in a row that bring neither a request nor a body, either way
TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
UNSENDABLE: Final = re.compile(rb"[\r\n\0]")  # RFC 9113 section 8.2.1


class Http2:
    """The server side of one HTTP/2 connection. `clock` is in seconds, for the limit on resets.

    After a GOAWAY of the client, `is_leaving` is true: it makes no request any more, and reads the answers to others.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding=None,
            normalize_outbound_headers=False,  # `sendable` does both, in a fifth of the time
            validate_outbound_headers=False,
        )
        self._h2 = h2.connection.H2Connection(config)
        self._h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,  # RFC 8441
            },
        )
        self._decoder = KeepingDecoder()
        self._decoder.max_header_list_size = self._h2.decoder.max_header_list_size
        self._h2.decoder = self._decoder
        self._ends = ClientEnds()
        self._cutter = frames.FrameCutter(MAX_FRAME_BYTES)
        self._preface_left = len(frames.PREFACE)
        self._resets = Bucket(clock)
        self._idle_frames = 0
        self._unpaid = 0  # bytes of the connection's window that have come and were not given back
        self._unpaid_of: dict[int, int] = {}
        self._trailers = NO_FIELDS
        self.is_leaving, self.has_asked, self.is_closed = False, False, False
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - DEFAULT_WINDOW)

    @property
    def is_within_head(self) -> bool:
        return self._cutter.is_within_head

    @property
    def has_part_of_head(self) -> bool:
        return self._cutter.has_part_of_head

    @property
    def has_begun(self) -> bool:
        return not self._preface_left

    # From the client.

    def receive(self, data: bytes) -> Iterator[Came]:
        """The events are yielded as the bytes bring them.

        Raises:
            BrokenRuleError: The connection cannot go on. `outgoing` then has the GOAWAY, and every event before was
                yielded.
        """
        try:
            self._cutter.receive(self._without_preface(data))
            while (frame := self._cutter.next_frame()) is not None:
                yield from self._receive_frame(frame)
        except h2.exceptions.ProtocolError as error:  # h2 has made the GOAWAY
            raise BrokenRuleError(told(error)) from error
        except frames.FrameTooLongError as error:
            raise self._refuse(h2.errors.ErrorCodes.FRAME_SIZE_ERROR, str(error)) from error

    def _without_preface(self, data: bytes) -> bytes:
        if not (left := self._preface_left):
            return data
        begun = data[:left]
        if not frames.PREFACE.startswith(begun, len(frames.PREFACE) - left):
            text = f"it does not begin with HTTP/2's preface, but with {shown(begun)}"
            raise self._refuse(h2.errors.ErrorCodes.PROTOCOL_ERROR, text)
        self._preface_left -= len(begun)
        self._h2.receive_data(begun)
        return data[left:]

    def _receive_frame(self, frame: bytes) -> Iterator[Came]:
        if self._is_farewell(frame):
            # h2 would take it for the end of the connection, and answer no stream that is open any more.
            self.is_leaving = True
            return
        kind, brings = frame[3], len(frame) > frames.HEAD_BYTES
        self._idle_frames = (
            0 if brings and kind in (frames.DATA, frames.HEADERS) else self._idle_frames + 1
        )
        # To h2 this is another error.
        if kind == frames.SETTINGS and frame[4] & frames.ACK and brings:
            text = f"SETTINGS acknowledge, and have {len(frame) - frames.HEAD_BYTES} bytes"
            raise self._refuse(h2.errors.ErrorCodes.FRAME_SIZE_ERROR, text)
        if self._idle_frames > IDLE_FRAMES:
            text = f"{IDLE_FRAMES} frames in a row brought neither a request nor a body"
            raise self._refuse(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, text)
        try:
            events = self._h2.receive_data(frame)
        except h2.exceptions.ProtocolError as error:  # h2 has made the GOAWAY
            block = self._block_of(frame)
            late = self._ends.take_frame(frame, block)
            failure = BrokenRuleError(f"{told(error)}; {late}" if late else told(error))
            failure.sent = lines_of(block)
            raise failure from error
        block, self._decoder.fields = self._decoder.fields, ()
        late = self._ends.take_frame(frame, block)
        for event in events:
            if (came := self._translate(event)) is not None:
                yield came
        yield from self._untold(frame, events, late, block)

    def _untold(
        self, frame: bytes, events: list[h2.events.Event], late: str, block: Fields
    ) -> Iterator[Came]:
        """What h2 does not tell of a frame: on a stream that has ended, it tells nothing of most."""
        stream = frames.stream_of(frame)
        is_dropped_data = frame[3] == frames.DATA and not any(map(is_data, events))
        sent = frames.data_of(frame) if is_dropped_data else b""
        if block and (late or not events):
            sent = lines_of(block)
        if late:
            yield Unreadable(stream=stream, why=late, sent=sent)
            if not events:  # h2 tells of a stream that it resets for the first time alone
                self._count_reset()
        elif sent:
            yield CameLate(stream=stream, data=sent, is_fields=not is_dropped_data)

    def _block_of(self, frame: bytes) -> Fields:
        """The fields of a frame that h2 has refused, be it before it had decoded them."""
        block, self._decoder.fields = self._decoder.fields, ()
        if not block and (raw := frames.block_of(frame)):
            with suppress(Exception):  # hpack's, of a block that is broken
                block = tuple(self._decoder.decode(raw, raw=True))
        return block

    def _is_farewell(self, frame: bytes) -> bool:
        """Whether a frame is a GOAWAY that breaks no rule."""
        if frame[3] != frames.GOAWAY:
            return False
        whole = len(frame) >= len(frames.goaway_frame(0)) and frames.stream_of(frame) == 0
        return whole and not self._cutter.is_in_block

    def _translate(self, event: h2.events.Event) -> Came | None:
        if isinstance(event, h2.events.RequestReceived):
            return self._asked(event)
        if isinstance(event, h2.events.StreamEnded):
            trailers, self._trailers = self._trailers, NO_FIELDS
            return Ended(stream=event.stream_id, trailers=trailers)
        if isinstance(event, h2.events.WindowUpdated):
            return WindowGrew(stream=event.stream_id or 0)
        if isinstance(event, h2.events.DataReceived):
            return self._body_came(event)
        if isinstance(event, h2.events.TrailersReceived):
            self._trailers = fields(plain(event.headers))  # `StreamEnded` is next
        elif isinstance(event, h2.events.StreamReset):
            self._count_reset()
            return WasReset(stream=event.stream_id, why=reset_text(event))
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            return WindowGrew(stream=0)
        return None

    def _asked(self, event: h2.events.RequestReceived) -> Asked | Unreadable:
        self.has_asked = True
        number = event.stream_id
        try:
            head = http2_head(tuple(plain(event.headers)), ends=event.stream_ended is not None)
        except ValueError as error:
            self.reset(number, h2.errors.ErrorCodes.PROTOCOL_ERROR)
            self._count_reset()
            return Unreadable(stream=number, why=str(error), sent=lines_of(plain(event.headers)))
        return Asked(stream=number, head=head)

    def _body_came(self, event: h2.events.DataReceived) -> BodyCame | None:
        # The connection's window is given back at once: a handler that does not read holds no other stream back.
        self._unpaid += event.flow_controlled_length
        if self._unpaid >= CONNECTION_WINDOW // 2:
            self._h2.increment_flow_control_window(self._unpaid)
            self._unpaid = 0
        if padding := event.flow_controlled_length - len(event.data):
            self.give_back(event.stream_id, padding)
        return BodyCame(stream=event.stream_id, data=event.data) if event.data else None

    def _count_reset(self) -> None:
        """Whoever reset the stream: a client can make us reset one as well (CVE-2025-8671)."""
        if not self._resets.take_token():
            text = f"more than {RESET_BURST} streams were reset within seconds"
            raise self._refuse(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, text)

    def _refuse(self, code: h2.errors.ErrorCodes, text: str) -> BrokenRuleError:
        """A GOAWAY ends the connection; the error is to be raised."""
        with suppress(h2.exceptions.ProtocolError):  # h2 has ended it already
            self._h2.close_connection(code, text.encode())
        return BrokenRuleError(text)

    def give_back(self, stream: int, size: int) -> None:
        """Let a client send as many bytes more on a stream; told to it in halves of the window."""
        unpaid = self._unpaid_of.get(stream, 0) + size
        if unpaid >= STREAM_WINDOW // 2:
            with suppress(h2.exceptions.ProtocolError, KeyError):  # it has ended meanwhile
                self._h2.increment_flow_control_window(unpaid, stream)
            unpaid = 0
        self._unpaid_of[stream] = unpaid

    # To the client.

    def outgoing(self) -> bytes:
        return self._h2.data_to_send()

    def start(self, stream: int, status_code: int, headers: Headers, *, ends: bool) -> None:
        """Send the head of a response, or an interim response.

        Raises:
            ValueError: HTTP/2 cannot carry a field.
            ConnectionError: The connection or the stream has ended.
        """
        head = [(b":status", b"%d" % status_code), *sendable(headers)]
        self._idle_frames = 0
        self._send(lambda: self._h2.send_headers(stream, head, end_stream=ends))

    def room(self, stream: int) -> int:
        """How many bytes the next frame of a body may have; ConnectionError where connection or stream has ended."""
        try:
            window = self._h2.local_flow_control_window(stream)
        except h2.exceptions.ProtocolError as error:
            raise ConnectionError(ended_text(error)) from error
        return max(min(window, self._h2.max_outbound_frame_size), 0)

    def send(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        """No more than there is `room` for, which raises likewise."""
        self._idle_frames = 0
        self._send(lambda: self._h2.send_data(stream, data, end_stream=ends))

    def finish(self, stream: int, trailers: Headers = NO_FIELDS) -> None:
        """Raises as `start` does."""
        if trailing := sendable(trailers):
            self._send(lambda: self._h2.send_headers(stream, trailing, end_stream=True))
        else:
            self._send(lambda: self._h2.end_stream(stream))

    def _send(self, send: Callable[[], None]) -> None:
        try:
            send()
        except h2.exceptions.ProtocolError as error:
            raise ConnectionError(ended_text(error)) from error

    def reset(self, stream: int, code: int) -> None:
        with suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(stream, code)

    def raw(self, stream: int, data: bytes) -> bytes:
        """They stand in place of frames of any stream."""
        return data

    def forget(self, stream: int) -> None:
        self._unpaid_of.pop(stream, None)

    def goaway(self) -> bytes:
        """No request is taken after it, and those that came are answered; the GOAWAY of h2 would close every stream."""
        return frames.goaway_frame(self.last_stream)

    @property
    def last_stream(self) -> int:
        last: int = self._h2.highest_inbound_stream_id
        return last


def is_data(event: h2.events.Event) -> bool:
    return isinstance(event, h2.events.DataReceived)


def lines_of(block: Fields) -> bytes:
    """Fields as HTTP/1.1 has them, each behind a line end."""
    return b"".join(b"\r\n%b: %b" % (name, value) for name, value in block)


class Bucket:
    """A budget that refills: `RESET_BURST` at first, and never more."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._left, self._at = clock, float(RESET_BURST), clock()

    def take_token(self) -> bool:
        now = self._clock()
        self._left = min(RESET_BURST, self._left + (now - self._at) * RESET_RATE) - 1
        self._at = now
        return self._left >= 0


RawFields: TypeAlias = "list[tuple[bytes, bytes]]"


def plain(headers: object) -> RawFields:
    return [(bytes(name), bytes(value)) for name, value in headers or ()]  # type: ignore[attr-defined]


@lru_cache(maxsize=64)
def http2_head(raw: tuple[tuple[bytes, bytes], ...], *, ends: bool) -> Head:
    """The `Head` of a request that h2 has decoded and checked (RFC 9113 section 8.3.1).

    It is cached, since clients ask the same again: calls of one method of gRPC have equal heads. Host is the first
    field, from :authority. h2 has joined the fields Cookie. `ends` says that neither a body nor trailers follow.

    Raises:
        ValueError: The method is no token, or the head is refused by `head_faults`.
    """
    pseudo = {name: value for name, value in raw if name.startswith(b":")}
    plain_fields = [(name, value) for name, value in raw if not name.startswith(b":")]
    headers = fields(plain_fields)
    method = pseudo[b":method"].decode("latin-1")
    if not TOKEN.fullmatch(method):
        raise ValueError(f"its method is {shown(method)}, which is no token")
    fault = fault_in_http2(pseudo[b":method"], pseudo.get(b":path"), plain_fields, ends=ends)
    if fault is not None:
        raise ValueError(fault.text)
    named = pseudo.get(b":authority", b"").decode("latin-1")
    if named and "host" not in headers:
        headers = Headers([("host", named), *headers.raw])
    authority = named or headers.get("host", "")
    target = percent_encoded(pseudo.get(b":path", named.encode("latin-1"))).decode("ascii")
    path, mark, query_string = target.partition("?")
    scheme = pseudo.get(b":scheme")
    protocol = pseudo.get(b":protocol")
    length = headers.get("content-length", "")
    return Head(
        method=method,
        path=path,
        query_string=query_string,
        headers=headers,
        http_version="2",
        scheme=scheme.decode("latin-1").lower() if scheme else None,
        authority=authority or None,
        expected=int(length) if length.isdecimal() else None,
        protocol=protocol.decode("latin-1") if protocol else None,
        size=size_of(headers) + len(target),
        has_empty_query=bool(mark) and not query_string,
    )


def sendable(headers: Headers) -> RawFields:
    """The fields as HTTP/2 carries them: names in lower case, none that belongs to a connection of HTTP/1.1.

    They are checked before h2 encodes them: its table of fields would differ from the client's after an error.

    Raises:
        ValueError: A name is no token, or a value has a byte that no field may have.
    """
    return list(sendable_pairs(headers.raw))


@lru_cache(maxsize=64)
def sendable_pairs(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """Cached, since a head is checked before it is sent, and most are sent again."""
    raw = []
    for name, value in raw_fields(end_to_end(Headers(pairs))):
        if not TOKEN.fullmatch(name.decode("latin-1")) or UNSENDABLE.search(value):
            raise ValueError(f"HTTP cannot carry the field {name!r} with the value {value!r}")
        raw.append((name.lower(), value.strip(b" \t")))
    return tuple(raw)


def reset_text(event: h2.events.StreamReset) -> str:
    code = event.error_code
    what = "the client reset the stream" if event.remote_reset else "the stream was reset"
    return f"{what} ({getattr(code, 'name', code)})"


def ended_text(error: h2.exceptions.ProtocolError) -> str:
    return f"the stream has ended: {told(error)}"
