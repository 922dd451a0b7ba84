"""HTTP/1.1: requests from bytes, and bytes from responses, by h11. This module never touches a socket.

The gateway reads and writes the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import h11

from pytest_egress.base.sockets import READ_BYTES
from pytest_egress.traffic.http.head import MAX_HEADER_BYTES, Head, percent_encoded
from pytest_egress.traffic.http.head_faults import HeadFault, end_of_head, head_fault, trailer_fault
from pytest_egress.traffic.http.headers import (
    NO_FIELDS,
    Headers,
    fields,
    raw_fields,
    raw_value,
    size_of,
)
from pytest_egress.traffic.http.http1_plain import PlainRequest, plain_head, plain_request
from pytest_egress.traffic.http.response import (
    Response,
    carries_body,
    reason_phrase,
    sent_fields,
)

ABSOLUTE_FORM: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://([^/?#]*))?(.*)")
"""RFC 9112 section 3.2.2."""

CLOSED: Final = (b"Connection", b"close")

KEPT_ALIVE: Final = [(b"Connection", b"keep-alive"), (b"Keep-Alive", b"timeout=15")]
"""Announces a shorter idle time than the gateway's own (`connections.IDLE_SECONDS`). Clients that read it (Node.js,
undici, HttpURLConnection, Apache's HttpClient) then close first, and never send a request while we close."""

KEPT_ALIVE_LINES: Final = b"".join([b"%b: %b\r\n" % field for field in KEPT_ALIVE])


class Http1:
    """The server side of one HTTP/1.1 connection.

    `read_head` and `read_piece` return None when they need more data. They raise `h11.RemoteProtocolError` where the
    client breaks the protocol; `refusal` then gives the bytes of an answer.

    A plain request with a plain answer does without h11 (`http1_plain`). Whatever else is asked of such a request has
    h11 read it first.

    Args:
        lock: Held while h11 is used, where one thread may read a body while another one sends.
    """

    def __init__(self, lock: AbstractContextManager[Any] | None = None) -> None:
        self._machine: h11.Connection | None = None  # most connections have plain requests only
        self._lock, self._has_closed = lock or nullcontext(), False
        self._is_untouched = True  # h11 has been given nothing of the next request
        self._plain: PlainRequest | None = None  # the current request, while it is not h11's
        self._chunks: bytes | None = None  # of a chunked body: what h11 had at the latest `receive`
        self.trailers = NO_FIELDS  # the fields after the latest body that was read to its end

    @property
    def _h11(self) -> h11.Connection:
        """h11, which has read the current request."""
        if self._machine is None:
            self._machine = server_side()
        if self._plain is not None:
            plain, self._plain, self._is_untouched = self._plain, None, False
            plain.hand_to(self._machine)
        return self._machine

    @property
    def is_fresh(self) -> bool:
        """Whether nothing of the next request has come."""
        return self._is_untouched and self._plain is None

    @property
    def has_begun(self) -> bool:
        """Whether bytes of a pipelined request, sent before the response to this one, are waiting."""
        if self._is_untouched:
            return self._plain is not None and bool(self._plain.waiting)
        return bool(self._h11.trailing_data[0])

    def receive(self, data: bytes) -> None:
        """Take the bytes that were read; b"" is end of file.

        Empty lines before a request are dropped (RFC 9112 section 2.2). Bytes beyond ASCII in its first line are
        percent-encoded: curl sends queries without encoding them.
        """
        if self._is_untouched and self._plain is None:
            self._plain = plain_request(data)
            self._has_closed = not data
            if self._plain is not None or not data:
                return
        if data and self._h11.their_state is h11.IDLE:
            waiting = self._h11.trailing_data[0]
            data = data if waiting else data.lstrip(b"\r\n")
            if not data:
                return
            if not data.isascii() and b"\n" not in waiting:
                line, end, rest = data.partition(b"\n")
                data = percent_encoded(line) + end + rest
        with self._lock:
            self._h11.receive_data(data)
            self._is_untouched = False
            if self._chunks is not None:
                self._chunks = self.waiting

    @property
    def waiting(self) -> bytes:
        """Bytes that have come and belong to nothing that was read."""
        if self._is_untouched:
            return b"" if self._plain is None else self._plain.waiting
        return bytes(self._h11.trailing_data[0])

    @property
    def closed(self) -> bool:
        """True also where the connection cannot be used again."""
        if self._is_untouched:
            return self._has_closed
        return (
            self._h11.their_state in (h11.CLOSED, h11.MUST_CLOSE)
            or self._h11.our_state is h11.MUST_CLOSE
        )

    def read_head(self) -> Head | None:
        """None where more data is needed, or the client has closed."""
        if self._plain is not None and not self._plain.is_taken:
            self._plain.is_taken = True
            return self._plain.head
        if self._is_untouched and self._plain is None:
            return None
        waiting = self.waiting
        if self._h11.their_state is h11.IDLE and (end := end_of_head(waiting)) is not None:
            raise_fault(head_fault(waiting[:end]))
        event = self._h11.next_event()
        if not isinstance(event, h11.Request):
            return None
        is_chunked = b"transfer-encoding" in dict(event.headers)
        self._chunks = self.waiting if is_chunked else None
        return http1_head(event)

    def _check_trailers(self, end: h11.EndOfMessage) -> None:
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            section = chunks[: len(chunks) - len(self.waiting)]
            raise_fault(trailer_fault(section, len(end.headers)))

    def awaited(self) -> bytes:
        """The bytes of `100 Continue` where the client waits for them (RFC 9110 section 10.1.1), else b""."""
        if self._plain is not None or not self._h11.they_are_waiting_for_100_continue:
            return b""
        return self.interim(100, NO_FIELDS)

    def interim(self, status_code: int, headers: Headers) -> bytes:
        """A client of HTTP/1.0 knows no interim response, and gets b"" (RFC 9110 section 15.2)."""
        if self._h11.their_http_version == b"1.0":
            return b""
        # The phrase is needed: botocore does not recognise a status line without one.
        event = h11.InformationalResponse(
            status_code=status_code,
            headers=raw_fields(headers),
            reason=raw_value(reason_phrase(status_code)),
        )
        return self._encoded(event)

    def read_piece(self) -> bytes | None:
        """The next piece of a body, b"" at its end, or None when more data is needed or none follows."""
        with self._lock:
            if self._plain is not None:
                self.trailers = NO_FIELDS
                return self._plain.read_piece()
            if self.is_read:
                return b""
            event = self._h11.next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self._check_trailers(event)
            self.trailers = fields(event.headers.raw_items()) if event.headers else NO_FIELDS
            return b""
        return None

    def read_whole(self) -> bytes | None:
        """None where the body has not come with the head of a plain request.

        No other thread uses this object yet.
        """
        if self._plain is None:
            return None
        self.trailers = NO_FIELDS
        return self._plain.read_whole()

    @property
    def is_read(self) -> bool:
        if self._plain is not None:
            return self._plain.has_ended
        return self._h11.their_state not in (h11.IDLE, h11.SEND_BODY, h11.ERROR)

    @property
    def has_answered(self) -> bool:
        """Whether the response to the current request has begun."""
        if self._plain is not None:
            return self._plain.is_answered
        return self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE)

    def whole(self, response: Response, method: str, date: str) -> Iterator[bytes]:
        """Yield the bytes of a response whose body is no stream, or is not sent: the response to a HEAD has none.

        `date` is the Date field (RFC 9110 section 6.6.1).
        """
        if (plain := self.plain_answer(response, date)) is not None:
            yield plain
            return
        has_body = carries_body(method, response)
        content, trailers = (response.content, response.trailers) if has_body else (b"", NO_FIELDS)
        framed = response.stream is None and not trailers.raw
        head = self.head(response, date, framed=framed)
        with self._lock:
            pieces = self._h11.send_with_data_passthrough(h11.Data(data=content)) if content else []
        end = self.end(trailers)
        if len(content) <= READ_BYTES:
            yield b"".join([head, *(pieces or []), end])  # one write, one TLS record
        else:
            yield head
            yield from pieces or []
            yield end

    def plain_answer(self, response: Response, date: str) -> bytes | None:
        """None where the request or the response is not plain: h11 has to make the bytes, by `whole`."""
        with self._lock:
            plain = self._plain
            if plain is None or not plain.has_ended or plain.is_answered:
                return None
            if response.stream is not None or response.trailers.raw:
                return None
            if len(response.content) > READ_BYTES:
                return None
            code, reason, size = response.status_code, response.reason, len(response.content)
            head = plain_head(code, reason, response.headers.raw, size, date, KEPT_ALIVE_LINES)
            plain.is_answered = head is not None
        return None if head is None else head + response.content

    def head(self, response: Response, date: str, *, framed: bool = False) -> bytes:
        """The head says whether the connection stays open. With `framed`, the body is `response.content`."""
        headers = raw_fields(sent_fields(response, date, framed=framed))
        said = {"connection", "keep-alive"} & {*response.headers}
        if not said and not self.is_read:  # the next request is not known to follow
            headers.append(CLOSED)
        elif self._h11.their_state is h11.DONE and not said:
            headers += KEPT_ALIVE
        reason = raw_value(response.reason)
        return self._encoded(
            h11.Response(status_code=response.status_code, headers=headers, reason=reason)
        )

    def switch(self, headers: Headers) -> bytes:
        """No HTTP follows `101 Switching Protocols` (RFC 9110 section 15.2.2)."""
        event = h11.InformationalResponse(
            status_code=101, headers=raw_fields(headers), reason=b"Switching Protocols"
        )
        return self._encoded(event)

    def piece(self, data: bytes) -> bytes:
        return self._encoded(h11.Data(data=data))

    def end(self, trailers: Headers = NO_FIELDS) -> bytes:
        """HTTP/1.0 has no chunks, and so no place for trailers."""
        chunked = self._h11.their_http_version != b"1.0"
        return self._encoded(h11.EndOfMessage(headers=raw_fields(trailers) if chunked else []))

    def _encoded(self, event: h11.Event) -> bytes:
        with self._lock:
            return self._h11.send(event) or b""

    def next_request(self) -> bool:
        """False where the connection cannot have another request."""
        if self._plain is not None and self._plain.is_answered:
            self._plain = None
            return True
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            waiting, closed = self._h11.trailing_data
            self._h11.start_next_cycle()
            self._is_untouched = not (waiting or closed)
            if waiting.startswith((b"\r", b"\n")) or not waiting.isascii():
                # `receive` has to treat the start of a pipelined request as it does any other.
                self._machine, self._is_untouched = server_side(), True
                self.receive(waiting)
                if closed:
                    self.receive(b"")
            return True
        return False

    @property
    def left_over(self) -> bytes | None:
        """The bytes after a complete request, without leading empty lines; None within a request."""
        if self._h11.their_state not in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
            return None
        return self._h11.trailing_data[0].lstrip(b"\r\n")

    def refusal(self, response: Response, date: str) -> bytes:
        """The response closes the connection; b"" where none can be sent any more."""
        if self.has_answered:
            return b""
        return b"".join(self.whole(response, "GET", date))


def raise_fault(fault: HeadFault | None) -> None:
    """The fault is raised as h11 raises those that it finds itself, by a h11.RemoteProtocolError."""
    if fault is not None:
        raise h11.RemoteProtocolError(fault.text, error_status_hint=fault.status_code)


def server_side() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)


def http1_head(event: h11.Request) -> Head:
    raw = event.headers.raw_items()
    known = {name.lower(): value for name, value in raw}  # h11 lets neither of the two repeat
    target, authority = event.target.decode("latin-1"), known.get(b"host", b"").decode("latin-1")
    scheme = None
    if event.method != b"CONNECT" and (absolute := ABSOLUTE_FORM.fullmatch(target)):
        scheme, named, target = absolute.groups("")
        target = target if target.startswith("/") else f"/{target}"
        raw, authority = with_host(raw, named), named
    path, mark, query_string = target.partition("?")
    length = known.get(b"content-length") if b"transfer-encoding" not in known else None
    headers = fields(raw)
    return Head(
        method=event.method.decode("ascii"),
        path=path,
        query_string=query_string,
        headers=headers,
        http_version=event.http_version.decode("ascii"),
        scheme=scheme and scheme.lower(),
        authority=authority if authority or scheme else None,
        expected=int(length) if length is not None else None,
        size=size_of(headers) + len(target),
        has_empty_query=bool(mark) and not query_string,
    )


def with_host(raw: list[tuple[bytes, bytes]], host: str) -> list[tuple[bytes, bytes]]:
    value = host.encode("latin-1")
    if (b"host", value) in [(name.lower(), each) for name, each in raw]:
        return raw
    return [(b"Host", value), *(pair for pair in raw if pair[0].lower() != b"host")]
