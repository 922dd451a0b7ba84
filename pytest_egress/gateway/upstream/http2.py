"""`Http2Body`: an exchange with a real server by HTTP/2, one request a connection, by h2.

h2 is fed frame by frame. So it never gets a GOAWAY: it would take the connection as closed, and a server that sends one
still answers the requests up to the stream that it names (RFC 9113 section 6.8).

Threads: the one that receives and the one that sends both wait for frames, the second for the server's window. One of
them reads for both at a time; the other one is told.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from pytest_egress.gateway.upstream.body import (
    CONTINUE,
    Content,
    Interim,
    UpstreamBody,
    authority_of,
    outgoing_fields,
    target_of,
)
from pytest_egress.traffic.http.head import MAX_HEADER_BYTES
from pytest_egress.traffic.http.headers import Headers, end_to_end, fields, raw_fields, without
from pytest_egress.traffic.http.http2_errors import told
from pytest_egress.traffic.http.http2_frames import (
    GOAWAY,
    HEAD_BYTES,
    FrameCutter,
    FrameTooLongError,
)
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response, reason_phrase
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import shown

STREAM: Final = 1
"""The first of a client's, and the only one of its connection (RFC 9113 section 5.1.1)."""
WINDOW: Final = 1 << 20  # bytes of a response that are received ahead of the client
STATUS: Final = re.compile(rb"[1-9][0-9]{2}")
KIND: Final = slice(3, 4)  # of a frame (RFC 9113 section 4.1)
SETTINGS_KIND: Final = b"\x04"  # with which each side begins (RFC 9113 section 3.4)
SHOWN_FIRST: Final = 20  # bytes of what is no HTTP/2
BY_HTTP2: Final = "the request came, and was forwarded, by HTTP/2"
SHOWN_DEBUG: Final = 80  # bytes of the text in a GOAWAY


class Http2Body(UpstreamBody):
    """An exchange by HTTP/2. `Wire.lock` guards its state and h2's."""

    def __init__(
        self, sock: socket.socket, request: Request, content: Content, interim: Interim
    ) -> None:
        super().__init__(sock, request, content, interim)
        self._scheme = "https" if isinstance(sock, ssl.SSLSocket) else "http"
        self._h2 = client_side()
        self._cutter = FrameCutter(self._h2.max_inbound_frame_size)
        self._has_begun = False  # the server has said something
        self._head: Headers | None = None
        self._status = 0
        self._interims: deque[tuple[int, Headers]] = deque()  # that have not been sent on
        self._pieces: deque[tuple[bytes, int]] = deque()
        self._ended = False  # the response has
        self._failure: ConnectionError | None = None  # why the response will never end
        self._takes_no_more = False  # the stream, or the connection, has ended
        self._is_read = False  # by one of the two threads

    # The request.

    def exchange(self, prefix: str, *, encoded: bool) -> Response:
        """A response that ends with its head has no stream: gRPC needs its end sent with the head ("Trailers-Only")."""
        try:
            self._send_head(
                http2_request(self._request, self._content, self._scheme, prefix, encoded)
            )
        except h2.exceptions.ProtocolError as error:
            raise ConnectionError(told(error)) from error
        if not self._goes_at_once:
            self._start_sending()
        self._send_interims_on()
        with self._wire.lock:
            ends = self._ended and not self._pieces and not self.trailers
        assert self._head is not None
        reason = reason_phrase(self._status)
        if ends:
            self.close()
            return Response.received(self._status, self._head, reason=reason)
        return self._response(self._status, self._head, reason)

    def _send_interims_on(self) -> None:
        """Pass interim responses on until the head of the response has come."""
        while True:
            with self._wire.lock:
                self._await(lambda: bool(self._interims) or self._head is not None)
                if not self._interims:
                    return
                status_code, headers = self._interims.popleft()
            self._interim(status_code, headers)

    def _send_head(self, head: list[tuple[bytes, bytes]]) -> None:
        """Send the head; with it the body, where that is short."""
        content, trailers = self._content, self._request.trailers if self._goes_at_once else ()
        with self._wire.lock:
            self._h2.initiate_connection()
            self._h2.increment_flow_control_window(WINDOW)  # never what holds the stream back
            self._h2.send_headers(STREAM, head, end_stream=not content and not trailers)
            if self._goes_at_once and (content or trailers):
                assert isinstance(content, bytes)
                for start in range(0, len(content), self._h2.max_outbound_frame_size):
                    self._h2.send_data(
                        STREAM, content[start : start + self._h2.max_outbound_frame_size]
                    )
                self._end()
            self._flush()

    def _send(self, piece: bytes) -> bool:
        left = memoryview(piece)
        with self._wire.lock:
            while left:
                self._await(lambda: self._is_over or self._window > 0)
                if self._is_over:
                    return False
                size = min(self._window, len(left), self._h2.max_outbound_frame_size)
                self._h2.send_data(STREAM, left[:size].tobytes())
                left = left[size:]
                self._flush()
                if not self._wire.drain():
                    return False
        return True

    def _send_end(self) -> None:
        with self._wire.lock:
            if not self._is_over:
                self._end()
                self._flush()
                self._wire.drain()

    def _end(self) -> None:
        if trailers := raw_fields(end_to_end(self._request.trailers)):
            self._h2.send_headers(STREAM, trailers, end_stream=True)
        else:
            self._h2.end_stream(STREAM)

    @property
    def _window(self) -> int:
        return self._h2.local_flow_control_window(STREAM)

    @property
    def _is_over(self) -> bool:
        return self._takes_no_more or self._failure is not None or self._wire.is_closed

    def _flush(self) -> None:
        self._wire.queue(self._h2.data_to_send())

    # The response.

    def _received(self) -> Iterator[bytes]:
        while (piece := self._next_piece()) is not None:
            yield piece

    def _next_piece(self) -> bytes | None:
        """The next piece of the response's body; None at its end. The server may send as much more as it has."""
        with self._wire.lock:
            self._await(lambda: bool(self._pieces) or self._ended)
            if not self._pieces:
                return None
            piece, size = self._pieces.popleft()
            self._acknowledge(size)
            return piece

    def _acknowledge(self, size: int) -> None:
        if not self._ended and self._failure is None:
            self._h2.acknowledge_received_data(size, STREAM)
            self._flush()

    # Frames.

    def _await(self, is_so: Callable[[], bool]) -> None:
        """Take frames until something is so. One thread reads at a time, and tells the other one.

        Raises:
            UpstreamError: The body of the request broke off.
            OSError: The connection broke off, or the server reset the stream.
        """
        while not is_so():
            self._check()
            if self._failure is not None:
                raise self._failure
            if self._is_read:
                self._wire.changed.wait()
            else:
                self._read()

    def _read(self) -> None:
        self._is_read = True
        try:
            if self._wire.is_full:
                self._wire.drain()
            self._take(self._wire.receive() or b"")
        except h2.exceptions.ProtocolError as error:
            self._fail(told(error))
        except (OSError, FrameTooLongError) as error:
            self._fail(str(error) or type(error).__name__)
        finally:
            self._is_read = False
            self._flush()
            self._wire.changed.notify_all()

    def _fail(self, text: str) -> None:
        if not self._ended:
            self._failure = self._failure or ConnectionError(text)
        self._takes_no_more = True

    def _take(self, data: bytes) -> None:
        if not data:
            return self._fail(
                "it closed without an answer"
                if self._head is None
                else "it closed within its answer"
            )
        has_begun, self._has_begun = self._has_begun, True
        if not has_begun and data.startswith(b"HTTP/"):
            return self._fail(f"it answered by HTTP/1.1; {BY_HTTP2}")
        if not has_begun and data[KIND] not in (b"", SETTINGS_KIND):
            return self._fail(f"it answered {shown(data[:SHOWN_FIRST])}, no HTTP/2; {BY_HTTP2}")
        self._cutter.receive(data)
        while (frame := self._cutter.next_frame()) is not None:
            if frame[3] == GOAWAY:
                self._on_goaway(frame[HEAD_BYTES:])
            else:
                for event in self._h2.receive_data(frame):
                    self._on(event)
        return None

    def _on(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self._on_head(event)
        elif isinstance(event, h2.events.InformationalResponseReceived):
            status, headers = answered_head(event.headers or [])
            if STATUS.fullmatch(status) and int(status) != CONTINUE:
                self._interims.append((int(status), headers))
        elif isinstance(event, h2.events.DataReceived):
            assert event.data is not None
            assert event.flow_controlled_length is not None
            if event.data:
                self._pieces.append((event.data, event.flow_controlled_length))
            else:
                self._acknowledge(event.flow_controlled_length)
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers = end_to_end(fields(event.headers or []))
        elif isinstance(event, h2.events.StreamEnded):
            self._ended = True
        elif isinstance(event, h2.events.StreamReset):
            assert event.error_code is not None
            self._fail(f"it reset the stream ({code_name(event.error_code)})")

    def _on_head(self, event: h2.events.ResponseReceived) -> None:
        status, headers = answered_head(event.headers or [])
        if not STATUS.fullmatch(status):
            return self._fail(f"its status is {status.decode('latin-1')!r}")
        self._status, self._head = int(status), headers
        return None

    def _on_goaway(self, payload: bytes) -> None:
        """End the exchange, unless it is only told that no other may begin."""
        last, code = (int.from_bytes(payload[at : at + 4], "big") for at in (0, 4))
        if code or last & 0x7FFFFFFF < STREAM:
            said = payload[8 : 8 + SHOWN_DEBUG].decode("utf-8", "replace")
            debug = redactor_of(self._request).text(said, is_cut=True)
            text = f": {debug!r}" if debug else ""
            self._fail(f"it ended the connection (GOAWAY, {code_name(code)}{text})")


def client_side() -> h2.connection.H2Connection:
    config = h2.config.H2Configuration(client_side=True, header_encoding=None)
    connection = h2.connection.H2Connection(config)
    codes = h2.settings.SettingCodes
    connection.local_settings = h2.settings.Settings(
        client=True,
        initial_values={
            codes.ENABLE_PUSH: 0,
            codes.INITIAL_WINDOW_SIZE: WINDOW,
            codes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
        },
    )
    return connection


def answered_head(raw: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, Headers]:
    """The status of a response, b"" where there is none, and the fields to pass to the client."""
    pairs = list(raw)
    status = next((value for name, value in pairs if name == b":status"), b"")
    return status, end_to_end(fields(pair for pair in pairs if pair[0] != b":status"))


def code_name(code: int) -> str:
    """The name of an error code (RFC 9113 section 7), or the number of an unregistered one."""
    try:
        return h2.errors.ErrorCodes(code).name
    except ValueError:
        return f"error {code}"


def http2_request(
    request: Request, content: Content, scheme: str, prefix: str, encoded: bool
) -> list[tuple[bytes, bytes]]:
    """The head of a request to a real server: pseudo-fields and end-to-end fields (RFC 9113 sections 8.2.2 and 8.3.1).

    `TE: trailers` is kept, the only value that it may have here: gRPC servers require it.
    """
    headers = without(outgoing_fields(request, content, encoded=encoded), "host")
    takes_trailers = "trailers" in [
        coding.strip().lower() for coding in request.headers.get("te", "").split(",")
    ]
    return [
        (b":method", request.method.encode("ascii")),
        (b":scheme", scheme.encode()),
        (b":authority", authority_of(request).encode("latin-1")),
        (b":path", target_of(request, prefix)),
        *((name.lower(), value) for name, value in raw_fields(headers)),
        *([(b"te", b"trailers")] if takes_trailers else []),
    ]
