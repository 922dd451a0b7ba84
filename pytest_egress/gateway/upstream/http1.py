"""`Http1Body`: an exchange with a real server by HTTP/1.1, one request a connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import h11

from pytest_egress.gateway.upstream.body import (
    CONTINUE,
    Content,
    Interim,
    UpstreamBody,
    authority_of,
    length_of,
    outgoing_fields,
    target_of,
)
from pytest_egress.traffic.http.head import MAX_HEADER_BYTES, MULTIPLEXED
from pytest_egress.traffic.http.headers import (
    NO_FIELDS,
    Headers,
    end_to_end,
    fields,
    raw_fields,
    without,
)
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response


class Http1Body(UpstreamBody):
    """An exchange by HTTP/1.1. `Wire.lock` guards h11's state."""

    def __init__(
        self, sock: socket.socket, request: Request, content: Content, interim: Interim
    ) -> None:
        super().__init__(sock, request, content, interim)
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
        self._ahead: object = h11.NEED_DATA

    def exchange(self, prefix: str, *, encoded: bool) -> Response:
        """Return the response once what came with its head has been parsed."""
        try:
            self._send_head(http1_request(self._request, self._content, prefix, encoded=encoded))
            head = self._receive_head()
            with self._wire.lock:  # an error in what came can still be answered by a status
                self._ahead = self._h11.next_event()
        except h11.ProtocolError as error:
            raise ConnectionError(str(error)) from error
        reason = head.reason.decode("latin-1")
        return self._response(head.status_code, answered_fields(head), reason)

    def _send_head(self, head: h11.Request) -> None:
        """Send the head; with it the body, where that is short, else by a thread."""
        content = self._content
        with self._wire.lock:
            data = self._h11.send(head) or b""
            if isinstance(content, bytes) and self._goes_at_once:
                data += self._h11.send(h11.Data(data=content)) or b"" if content else b""
                data += self._h11.send(self._end()) or b""
            self._wire.queue(data)  # one write, one TLS record
        if not self._goes_at_once:
            self._start_sending()

    def _end(self) -> h11.EndOfMessage:
        """The end of the body; read where the whole body has been sent, since trailers come with its end."""
        chunked = is_chunked(self._request, self._content)
        trailers = end_to_end(self._request.trailers) if chunked else NO_FIELDS
        return h11.EndOfMessage(headers=raw_fields(trailers))

    def _send(self, piece: bytes) -> bool:
        with self._wire.lock:
            self._wire.queue(self._h11.send(h11.Data(data=piece)) or b"")
            return self._wire.drain()

    def _send_end(self) -> None:
        with self._wire.lock:
            self._wire.queue(self._h11.send(self._end()) or b"")
            self._wire.drain()

    def _receive_head(self) -> h11.Response:
        while not isinstance(event := self._next(), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("it closed without an answer")
            if event.status_code != CONTINUE:
                headers = end_to_end(fields(event.headers.raw_items()))
                self._interim(event.status_code, headers)
        return event

    def _next(self) -> object:
        event, self._ahead = self._ahead, h11.NEED_DATA
        if event is not h11.NEED_DATA:
            return event
        with self._wire.lock:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                data = self._wire.receive() or b""
                self._check()
                if not data and self._h11.their_state is h11.SEND_RESPONSE:
                    raise ConnectionError("it closed without an answer")
                self._h11.receive_data(data)
        return event

    def _received(self) -> Iterator[bytes]:
        try:
            while isinstance(event := self._next(), h11.Data):
                yield bytes(event.data)
        except h11.ProtocolError as error:
            raise ConnectionError(str(error)) from error
        if isinstance(event, h11.EndOfMessage) and event.headers:
            self.trailers = fields(event.headers.raw_items())


def answered_fields(head: h11.Response) -> Headers:
    """Transfer-Encoding overrides Content-Length (RFC 9112 6.3)."""
    received = fields(head.headers.raw_items())
    kept = end_to_end(received)
    return without(kept, "content-length") if "transfer-encoding" in received else kept


def http1_request(request: Request, content: Content, prefix: str, *, encoded: bool) -> h11.Request:
    """The head of a request to a real server: end-to-end fields, Host, framing, and `Connection: close`."""
    headers = outgoing_fields(request, content, encoded=encoded)
    if not request.headers.get("host"):
        headers = Headers([("Host", authority_of(request)), *without(headers, "host").raw])
    framing = [(b"Connection", b"close")]
    if is_chunked(request, content):
        headers = without(headers, "content-length")
        framing.append((b"Transfer-Encoding", b"chunked"))
    return h11.Request(
        method=request.method,
        target=target_of(request, prefix),
        headers=[*raw_fields(headers), *framing],
    )


def is_chunked(request: Request, content: Content) -> bool:
    """Whether a body is sent in chunks: where its length is not known, or trailers follow (RFC 9112 section 7.1)."""
    if isinstance(content, bytes):
        return bool(request.trailers)
    framed = "transfer-encoding" in request.headers or request.http_version in MULTIPLEXED
    return framed and length_of(request, content) is None
