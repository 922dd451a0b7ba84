"""`Http1Server`: reads the HTTP/1.1 requests of a connection, one after the other, and sends the responses.

Everything runs on the connection's thread. `answering` decides the response to a request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import lru_cache
from typing import Final

import h11

from pytest_egress.gateway.answering import Answering, BodyError, Incoming
from pytest_egress.gateway.connection import Connection
from pytest_egress.gateway.patience import StalledError
from pytest_egress.gateway.recorder import FIRST_BYTES_KEPT
from pytest_egress.gateway.tls_failures import broken_handshake, silent_after_handshake
from pytest_egress.ledger.ledger import MAX_HELD_BYTES
from pytest_egress.traffic.entries import UNREADABLE, Exchange, Outcome
from pytest_egress.traffic.fields import MAX_BODY_BYTES, READ_BYTES, Head, RequestTooLargeError
from pytest_egress.traffic.http1 import Http1
from pytest_egress.traffic.messages import Headers, Response
from pytest_egress.traffic.redaction import masked_text

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

PREFACE_LINE: Final = b"PRI * HTTP/2.0\r\n\r\n"
"""The part of HTTP/2's preface that looks like the head of a request (RFC 9113 section 3.4)."""

UNEXPECTED_PREFACE: Final = (
    "the client begins HTTP/2 where it has agreed on HTTP/1.1: by ALPN, or by an earlier request"
)
LEFT_OVER: Final = "sent behind a request after which its connection closes, so nobody answers it"


class Http1Server:
    """Serves the requests of one connection.

    Args:
        answering: Answers the requests.
        idle_seconds: How many seconds the connection may wait for its next request until it is closed.
        begin_http2: Serves HTTP/2 where its preface comes first; gets the bytes read so far. None where that is
            refused.
    """

    def __init__(
        self,
        connection: Connection,
        answering: Answering,
        *,
        idle_seconds: float,
        begin_http2: Callable[[bytes], None] | None = None,
    ) -> None:
        self._begin_http2 = begin_http2
        self.connection, self.answering = connection, answering
        self.ledger, self.idle_seconds = connection.ledger, idle_seconds
        self.http = Http1()

    def serve(self) -> None:
        """Serve one request after the other, to the end of the connection.

        Raises:
            Parked: The next request does not come soon.
        """
        connection = self.connection
        connection.started = self.ledger.now()  # a request's time excludes its handshake
        try:
            while (head := self.read_head()) is not None and self.answer(head):
                if not self.http.has_begun:
                    connection.end()
                else:  # a pipelined request has been read in this window, and so belongs to it
                    connection.started = self.ledger.now()
        except h11.RemoteProtocolError as error:
            self.refuse(error.error_status_hint, f"{UNREADABLE}: {masked_text(str(error))}")
        except RequestTooLargeError as error:
            self.refuse(413, str(error))
        except StalledError as error:
            connection.record_tcp(b"", f"{error} within the head of a request")
            self.write_refusal(408, str(error))
        connection.say_goodbye()

    def read_head(self) -> Head | None:
        """The next request's head, or None at the end of the connection."""
        while (head := self.http.read_head()) is None:
            if self.http.closed:
                return None
            if self.connection.idle_since is not None:
                self.connection.await_begin(self.serve)
            self.http.receive(self.read())
            if not self.http.has_begun and not self.http.closed:  # that was an empty line only
                self.connection.end()
        return head

    def read(self) -> bytes:
        """Read more bytes of a head; b"" at the end of the connection.

        A client that verifies the certificate only after the handshake breaks off here if it distrusts the CA, with an
        alert or without.
        """
        connection, to = self.connection, self.connection.destination
        try:
            data = connection.receive()
        except OSError as error:
            if to.tls and not connection.accounted:
                connection.fail_tls(*broken_handshake(error, to.host, to.hello))
            elif self.http.has_begun:
                connection.record_tcp(b"", f"broke off within the head of a request: {error}")
            raise
        if data:
            if to.tls and not connection.accounted:
                connection.note_trust()
            connection.accounted = True
            self.hold(data)
        elif to.tls and not connection.accounted:
            connection.fail_tls(*silent_after_handshake(to.host, to.hello, to.tls.version))
        return data

    def refuse(self, status_code: int, text: str) -> None:
        """Record a connection that cannot be read as HTTP/1.1, answer with an error status, and close."""
        connection = self.connection
        connection.accounted = True
        connection.recorder.record_unreadable(connection.attempt, text)
        self.write_refusal(status_code, text)

    def write_refusal(self, status_code: int, text: str) -> Response | None:
        """Send an error response, if that is still possible, and let the client read it. Return the response sent."""
        response = Response(status_code, text=text, headers={"Connection": "close"})
        refusal = self.http.refusal(response, http_date(int(self.ledger.now())))
        try:
            self.connection.sock.sendall(refusal)
        except OSError:
            return None
        self.connection.linger()
        return response if refusal else None

    def answer(self, head: Head) -> bool:
        """Read the body, have the request answered, send the response; False where the connection ends after it."""
        self.connection.idle_seconds = self.idle_seconds
        destination = self.connection.destination
        if destination.tls:  # for each request: trust is noted once in each window
            self.connection.note_trust()
        begin_http2, self._begin_http2 = (
            self._begin_http2,
            None,
        )  # only the first request may be a preface
        if head.is_http2_preface:
            if begin_http2 is None:
                self.refuse(505, UNEXPECTED_PREFACE)
            else:
                begin_http2(PREFACE_LINE + self.http.waiting)
            return False
        try:
            body, trailers = self.read_body(head)
        except RequestTooLargeError as error:
            text = str(error) or f"the body is over MAX_BODY_BYTES, {MAX_BODY_BYTES} bytes"
            return self.refuse_body(head, 413, text, at_claimed="unrouted")
        except (OSError, h11.RemoteProtocolError) as error:
            text = f"the body broke off after {len(self.http.body_so_far)} bytes ({error})"
            return self.refuse_body(head, 400, text, at_claimed="recorded")
        except StalledError as error:
            text = f"{error} after {len(self.http.body_so_far)} bytes of a body"
            return self.refuse_body(head, 408, text, at_claimed="recorded")
        incoming = self.take(head, body, trailers)
        entry, response = self.answering.answer(incoming)
        if self.send(incoming, entry, response) and self.http.next_request():
            return True
        self.record_left_over()
        return False

    def take(self, head: Head, body: bytes, trailers: Headers) -> Incoming:
        """Make an `Incoming` from the head and body that were read, with the connection's current attempt."""
        return self.answering.take(self.connection.attempt, head, body, trailers)

    def record_left_over(self) -> None:
        """Record pipelined requests that get no answer, because the connection closes after an earlier one."""
        connection, left = self.connection, self.http.left_over
        if left is None:
            return
        with contextlib.suppress(OSError):  # also take what has arrived and was not read
            connection.sock.settimeout(0)
            left += connection.sock.recv(READ_BYTES)
        while left:
            http, head = Http1(), None
            http.receive(left)
            with contextlib.suppress(h11.RemoteProtocolError):
                head = http.read_head()
            if head is None:
                if left := left.lstrip(b"\r\n"):
                    connection.record_tcp(left[:FIRST_BYTES_KEPT], LEFT_OVER)
                return
            self.record_unanswered(http, head)
            left = http.left_over or b""

    def record_unanswered(self, http: Http1, head: Head) -> None:
        """Record a request that gets no answer. It is unrouted if no route would have answered it.

        Args:
            http: The parser that has read the head.
        """
        body = None
        with contextlib.suppress(h11.RemoteProtocolError, RequestTooLargeError):
            body = http.read_body()
        content, trailers = body or (http.body_so_far, Headers())
        incoming = self.take(head, content, trailers)
        expected = self.answering.would_answer(incoming)
        at_claimed: Outcome = "recorded" if expected else "unrouted"
        self.answering.record_unanswered(incoming, at_claimed, LEFT_OVER)

    def read_body(self, head: Head) -> tuple[bytes, Headers]:
        """Read the whole body and its trailers."""
        if (head.expected or 0) > MAX_BODY_BYTES:
            raise RequestTooLargeError
        if interim := self.http.interim():
            self.connection.sock.sendall(interim)
        while (whole := self.http.read_body()) is None:
            data = self.connection.receive()
            self.hold(data)
            self.http.receive(data)
        return whole

    def hold(self, data: bytes) -> None:
        """Count bytes that the ledger will keep.

        Raises:
            RequestTooLargeError: The window would keep more than it may.
        """
        if not self.ledger.hold(self.connection.context.window, len(data)):
            raise RequestTooLargeError(
                f"all that was sent is over MAX_HELD_BYTES, {MAX_HELD_BYTES} bytes"
            )

    def refuse_body(self, head: Head, status_code: int, text: str, at_claimed: Outcome) -> bool:
        """Record a request whose body was not read to its end, answer with an error status, and close; return False."""
        incoming = self.take(head, self.http.body_so_far, Headers())
        self.connection.accounted = True
        entry = self.answering.record_unanswered(incoming, at_claimed, text)
        entry.response = self.write_refusal(status_code, text)
        return False

    def send(self, incoming: Incoming, entry: Exchange, response: Response) -> bool:
        """Send a response; False where the connection ends with it."""

        def encoded() -> Iterator[bytes]:
            date = http_date(int(entry.started))
            return self.http.send(response, entry.request.method, date)

        try:
            for piece in self.answering.pieces(incoming, entry, response, encoded):
                self.connection.sock.sendall(piece)
        except BodyError:
            self.connection.reset()
            return False
        except OSError as error:
            self.answering.client_left(entry, error)
            return False
        finally:
            if response.stream is not None:
                self.answering.close_body(entry, response)
        return True


@lru_cache(maxsize=1)
def http_date(second: int) -> str:
    """The value of a Date field (RFC 9110 section 6.6.1), cached, since it changes once a second."""
    return formatdate(second, usegmt=True)
