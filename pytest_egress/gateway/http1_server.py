"""HTTP/1.1 on a connection: reads one request after the other, has it answered, and sends the response.

Everything runs on the connection's thread. What a request is answered with is `answering`'s.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from email.utils import formatdate
from functools import lru_cache
from typing import Final

import h11

from pytest_egress.gateway.answering import Answering, BodyError, Incoming
from pytest_egress.gateway.connection import Connection
from pytest_egress.gateway.recorder import FIRST_BYTES_KEPT
from pytest_egress.gateway.tls_failures import broken_handshake, silent_after_handshake
from pytest_egress.ledger.ledger import MAX_HELD_BYTES
from pytest_egress.traffic.entries import UNREADABLE, Exchange, Outcome, speaks_http2
from pytest_egress.traffic.fields import MAX_BODY_BYTES, READ_BYTES, Head, RequestTooLargeError
from pytest_egress.traffic.http1 import Http1
from pytest_egress.traffic.messages import Headers, Response
from pytest_egress.traffic.redaction import masked_text

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

LEFT_OVER: Final = "sent behind a request after which its connection closes, so nobody answers it"


class Http1Server:
    """Serves the requests of one connection.

    Args:
        answering: Answers them.
        idle_seconds: After how many without a request the connection is closed.
    """

    def __init__(
        self, connection: Connection, answering: Answering, *, idle_seconds: float
    ) -> None:
        self.connection, self.answering = connection, answering
        self.ledger, self.idle_seconds = connection.ledger, idle_seconds
        self.http = Http1()

    def serve(self) -> None:
        """Serve one request after the other.

        Raises:
            Parked: The next one does not come soon.
        """
        connection = self.connection
        connection.started = self.ledger.now()  # what came before was no request's
        try:
            while (head := self.read_head()) is not None and self.answer(head):
                if not self.http.has_begun:
                    connection.end()
                else:  # sent before its turn: read in this window, it has begun in it
                    connection.started = self.ledger.now()
        except h11.RemoteProtocolError as error:
            self.refuse(error.error_status_hint, f"{UNREADABLE}: {masked_text(str(error))}")
        except RequestTooLargeError as error:
            self.refuse(413, str(error))
        connection.say_goodbye()

    def read_head(self) -> Head | None:
        """The next request's head, or None at the end of the connection."""
        while (head := self.http.read_head()) is None:
            if self.http.closed:
                return None
            if self.connection.idle_since is not None:
                self.connection.await_begin(self.serve)
            self.http.receive(self.read())
            if not self.http.has_begun and not self.http.closed:  # an empty line between requests
                self.connection.end()
        return head

    def read(self) -> bytes:
        """What comes next of a head; b"" at the end of the connection.

        Clients that do not trust us break off here, with an alert or without a word.
        """
        connection, to = self.connection, self.connection.destination
        try:
            data = connection.sock.recv(READ_BYTES)
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
        """Record what cannot be read as HTTP/1.1, say so, and close."""
        connection = self.connection
        connection.accounted = True
        connection.recorder.record_unreadable(connection.attempt, text)
        self.write_refusal(status_code, text)

    def write_refusal(self, status_code: int, text: str) -> Response | None:
        """Answer, where that is still possible, and let the client read it; what was sent."""
        response = Response(status_code, text=text, headers={"Connection": "close"})
        refusal = self.http.refusal(response, http_date(int(self.ledger.now())))
        try:
            self.connection.sock.sendall(refusal)
        except OSError:
            return None
        self.connection.linger()
        return response if refusal else None

    def answer(self, head: Head) -> bool:
        """Read the body, have the request answered, send the response; False when the connection is over."""
        self.connection.idle_seconds = self.idle_seconds
        destination = self.connection.destination
        if destination.tls:  # in each test that it has requests in
            self.connection.note_trust()
        if head.is_http2_preface:
            self.refuse(505, speaks_http2(destination.host if destination.tls else None))
            return False
        try:
            body, trailers = self.read_body(head)
        except RequestTooLargeError as error:
            text = str(error) or f"the body is over MAX_BODY_BYTES, {MAX_BODY_BYTES} bytes"
            return self.refuse_body(head, 413, text, at_claimed="unrouted")
        except (OSError, h11.RemoteProtocolError) as error:
            text = f"the body broke off after {len(self.http.body_so_far)} bytes ({error})"
            return self.refuse_body(head, 400, text, at_claimed="recorded")
        incoming = self.take(head, body, trailers)
        entry, response = self.answering.answer(incoming)
        if self.send(incoming, entry, response) and self.http.next_request():
            return True
        self.record_left_over()
        return False

    def take(self, head: Head, body: bytes, trailers: Headers) -> Incoming:
        """What was read, as an attempt of this connection."""
        return self.answering.take(self.connection.attempt, head, body, trailers)

    def record_left_over(self) -> None:
        """Record the requests that were sent behind one after which the connection closes: nobody answers them."""
        connection, left = self.connection, self.http.left_over
        if left is None:
            return
        with contextlib.suppress(OSError):  # what has arrived and was not read
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
        """Record a request that gets no answer; it is unrouted where no route would give one.

        Args:
            http: Has read the head.
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
        """The whole body and its trailers."""
        if (head.expected or 0) > MAX_BODY_BYTES:
            raise RequestTooLargeError
        if interim := self.http.interim():
            self.connection.sock.sendall(interim)
        while (whole := self.http.read_body()) is None:
            data = self.connection.sock.recv(READ_BYTES)
            self.hold(data)
            self.http.receive(data)
        return whole

    def hold(self, data: bytes) -> None:
        """Count what is kept in the ledger.

        Raises:
            RequestTooLargeError: It is more than a window may keep.
        """
        if not self.ledger.hold(self.connection.context.window, len(data)):
            raise RequestTooLargeError(
                f"all that was sent is over MAX_HELD_BYTES, {MAX_HELD_BYTES} bytes"
            )

    def refuse_body(self, head: Head, status_code: int, text: str, at_claimed: Outcome) -> bool:
        """Record a request whose body is not whole: an attempt all the same; the connection closes."""
        incoming = self.take(head, self.http.body_so_far, Headers())
        self.connection.accounted = True
        entry = self.answering.record_unanswered(incoming, at_claimed, text)
        entry.response = self.write_refusal(status_code, text)
        return False

    def send(self, incoming: Incoming, entry: Exchange, response: Response) -> bool:
        """Send a response; False when the connection is over."""

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
    """A Date field (RFC 9110 section 6.6.1), made once a second."""
    return formatdate(second, usegmt=True)
