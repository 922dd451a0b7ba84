"""`Http1Server`: reads the HTTP/1.1 requests of a connection, one after the other.

It runs on the connection's thread. `answering` answers a request by its `Http1Duplex`. An answer that begins at the
head may send and receive by that on any thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Final

import h11

from pytest_egress.base.account import OverLimitError
from pytest_egress.base.clock import monotonic
from pytest_egress.base.sockets import READ_BYTES, send_all
from pytest_egress.gateway.connection import LINGER_SECONDS, Connection, Parked
from pytest_egress.gateway.http.answering import Answering
from pytest_egress.gateway.http.incoming import Incoming
from pytest_egress.gateway.http1.stream import Http1Duplex
from pytest_egress.gateway.patience import StalledError
from pytest_egress.gateway.proxying import Proxying, ProxyRefusal
from pytest_egress.gateway.recorder import FIRST_BYTES_KEPT
from pytest_egress.gateway.tls.failures import broken_after_handshake
from pytest_egress.gateway.tls.handshake import record_silence
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.traffic.entries import UNREADABLE, Exchange
from pytest_egress.traffic.http.head import MAX_HEADER_BYTES, Head
from pytest_egress.traffic.http.http1 import Http1
from pytest_egress.traffic.http.response import Response, http_date
from pytest_egress.traffic.websocket import asks_for_websocket

PREFACE_LINE: Final = b"PRI * HTTP/2.0\r\n\r\n"
"""The part of HTTP/2's preface that looks like the head of a request (RFC 9113 section 3.4)."""

UNEXPECTED_PREFACE: Final = (
    "the client begins HTTP/2 where it has agreed on HTTP/1.1: by ALPN, or by an earlier request"
)
END_OF_HEAD: Final = b"\r\n\r\n"
LEFT_OVER: Final = "sent behind a request after which its connection closes, so nobody answers it"


class Http1Server:
    """Serves the requests of one connection.

    Args:
        idle_seconds: How many seconds the connection may wait for its next request until it is closed.
        begin_http2: Serves HTTP/2 where its preface comes first; gets the bytes read so far. None where that is
            refused.
        proxying: Leads to other hosts where the connection is to a declared proxy; None where that may not be.
    """

    def __init__(
        self,
        connection: Connection,
        answering: Answering,
        *,
        idle_seconds: float,
        begin_http2: Callable[[bytes], None] | None = None,
        proxying: Proxying | None = None,
    ) -> None:
        self._begin_http2, self._proxying, self._is_tunnel = begin_http2, proxying, False
        self.connection, self.answering = connection, answering
        self.ledger, self.idle_seconds = connection.ledger, idle_seconds
        self.hangs_up = ""  # why a fault closes our side
        self.is_switched = False
        self.head = b""  # all that has come of a head, where a secret is declared
        self.lock = threading.RLock()
        self.http = Http1(self.lock)
        connection.read_late = self.read_late

    def serve(self) -> None:
        """Serve one request after the other. Raises Parked where the next one does not come soon."""
        connection = self.connection
        connection.started = self.ledger.now()  # a request's time excludes its handshake
        try:
            while (head := self.read_head()) is not None and self.answer(head):
                if not self.http.has_begun:
                    connection.end()
                else:  # a pipelined request has been read in this window, and so belongs to it
                    connection.started = self.ledger.now()
        except h11.RemoteProtocolError as error:
            self.refuse(
                error.error_status_hint, f"{UNREADABLE}: {self.ledger.redactor.text(str(error))}"
            )
        except OverLimitError as error:
            self.refuse(413, str(error))
        except StalledError as error:
            self.record_broken(f"{error} within the head of a request")
            self.write_refusal(408, str(error))
        if self._proxying is not None and self._is_tunnel:
            self._proxying.enter()
            return
        if self.hangs_up and not connection.is_reset:
            self.hang_up()
        connection.say_goodbye()

    def hang_up(self) -> None:
        """Close our side for a fault, holding no window open. Raises Parked where the client may yet send something."""
        connection = self.connection
        if self.is_switched or not self.http.is_read or connection.is_cut:
            connection.linger()  # what comes yet is no request
            return
        connection.end()
        connection.tell_end(self.hangs_up)
        raise Parked(self.serve, LINGER_SECONDS)

    def read_head(self) -> Head | None:
        """None at the end of the connection."""
        http, connection = self.http, self.connection
        self.head = http.waiting if not http.is_fresh and self.is_searched else b""
        head = None if http.is_fresh else http.read_head()
        while head is None:
            if http.closed:
                return None
            if connection.idle_since is not None:
                connection.await_begin(self.serve)
            http.receive(self.read())
            head = http.read_head()
            if head is None and not http.has_begun and not http.closed:
                connection.end()  # that was an empty line only
        return head

    @property
    def is_searched(self) -> bool:
        return self.connection.context.window.account.secrets is not None

    def read(self) -> bytes:
        """Read more bytes of a head; b"" at the end of the connection.

        A client that verifies the certificate only after the handshake breaks off here if it distrusts the CA, with an
        alert or without.
        """
        connection, to = self.connection, self.connection.destination
        try:
            if self._proxying is not None and self._proxying.route is not None:
                data = connection.receive_head(self.http.waiting)
            else:
                data = connection.receive(READ_BYTES)
        except OSError as error:
            if to.tls and not connection.accounted:
                failure = broken_after_handshake(
                    error, to.host, to.hello, to.tls.version, to.presented
                )
                connection.fail_tls(*failure)
            elif self.http.has_begun:
                self.record_broken(f"broke off within the head of a request: {error}")
            raise
        if self.is_searched:
            self.head += data
        if data:
            if to.tls and not connection.accounted:
                connection.note_trust()
            connection.accounted = True
        elif to.tls and not connection.accounted:
            record_silence(connection)
        return data

    def refuse(self, status_code: int, text: str) -> None:
        connection = self.connection
        connection.accounted = True
        connection.recorder.record_unreadable(connection.attempt, text, self.head)
        self.write_refusal(status_code, text)

    def record_broken(self, note: str) -> None:
        self.connection.record_broken(note, self.head)

    def write_refusal(self, status_code: int, text: str) -> Response | None:
        """Send an error response, if that is still possible, and let the client read it. Return the response sent."""
        response = Response(status_code, text=text, headers={"Connection": "close"})
        refusal = self.http.refusal(response, http_date(int(self.ledger.now())))
        try:
            send_all(self.connection.sock, refusal)
        except OSError:
            return None
        self.connection.linger()
        return response if refusal else None

    def answer(self, head: Head) -> bool:
        """False where the connection ends after the request."""
        self.connection.idle_seconds = self.idle_seconds
        destination = self.connection.destination
        if destination.tls:  # for each request: trust is noted once in each window
            self.connection.note_trust()
        begin_http2, self._begin_http2 = self._begin_http2, None  # a preface comes first
        if head.method == "PRI" and head.is_http2_preface:
            if begin_http2 is None:
                self.refuse(505, UNEXPECTED_PREFACE)
            else:
                begin_http2(PREFACE_LINE + self.http.waiting)
            return False
        if self._proxying is not None:
            led = self._proxying.lead(head, is_pipelined=bool(self.http.waiting))
            if isinstance(led, ProxyRefusal):
                self.write_refusal(led.status_code, f"pytest-egress: {led.text}\n")
                return False
            if led is None:
                self._is_tunnel = True
                return False
            head = led
        duplex = Http1Duplex(self.connection, self.http, self.lock, head.method)
        try:
            return self.exchange(duplex, self.take(head, duplex))
        finally:
            duplex.close()
            self.hangs_up, self.is_switched = duplex.hangs_up, duplex.is_switched

    def take(self, head: Head, duplex: Http1Duplex) -> Incoming:
        return self.answering.take(self.connection.attempt, head, duplex)

    def exchange(self, duplex: Http1Duplex, incoming: Incoming) -> bool:
        """False where the connection ends after the request."""
        try:
            if self.answering.begins_at_head(incoming):
                self.share(duplex, incoming)
            elif (content := self.http.read_whole()) is not None:
                incoming.body.take_content(content)
            else:
                _ = incoming.body.content
            entry = self.answering.answer(incoming)
        except (OverLimitError, ClientLeftError, StalledError) as error:
            entry, status_code, text = self.answering.give_up(incoming, error)
            entry.response = self.write_refusal(status_code, text)
            return False
        if self.goes_on(duplex, entry):
            return True
        self.record_left_over()
        return False

    def share(self, duplex: Http1Duplex, incoming: Incoming) -> None:
        """Let an answer that begins at the head send and receive by itself."""
        if not incoming.head.has_body:
            duplex.receive()  # the end of the request, which h11 knows without another byte
            if asks_for_websocket(incoming.request):
                incoming.body.give_up()  # messages follow, and no body
        duplex.share()

    def goes_on(self, duplex: Http1Duplex, entry: Exchange) -> bool:
        """Whether the connection carries another request, by what its answer has sent."""
        http = self.http
        if duplex.is_reset or duplex.hangs_up:
            return False
        if not http.has_answered:
            if duplex.broken is not None or (entry.fault is not None and entry.websocket is None):
                return False
            entry.response = self.write_refusal(400, entry.note)  # who has left may still read why
        elif duplex.broken is None and not duplex.is_switched and http.next_request():
            return True
        if duplex.is_switched or not http.is_read:
            self.connection.linger()
        return False

    def record_left_over(self) -> None:
        """Record pipelined requests that get no answer, because the connection closes after an earlier one."""
        connection, left = self.connection, self.http.left_over
        if left is None:
            return
        with contextlib.suppress(OSError):  # also take what has arrived and was not read
            connection.sock.settimeout(0)
            left += connection.sock.recv(READ_BYTES)
        self.record_all(left, LEFT_OVER)

    def read_late(self) -> None:
        """Record the requests that have crossed our end; the rest of a head is waited for, and a body is not."""
        connection, came, deadline = self.connection, b"", monotonic() + LINGER_SECONDS
        with contextlib.suppress(OSError):
            while END_OF_HEAD not in came and len(came) < MAX_HEADER_BYTES:
                connection.sock.settimeout(max(deadline - monotonic(), 0))
                if not (data := connection.sock.recv(READ_BYTES)):
                    break
                came += data
        if came:
            self.record_all(came, connection.late_note())
            connection.linger(goodbye=False)

    def record_all(self, left: bytes, note: str) -> None:
        """Record the requests in bytes that nobody answers."""
        while left:
            http, head = Http1(), None
            http.receive(left)
            with contextlib.suppress(h11.RemoteProtocolError):
                head = http.read_head()
            if head is None:
                if left := left.lstrip(b"\r\n"):
                    self.connection.record_tcp(left[:FIRST_BYTES_KEPT], note)
                return
            self.record_unanswered(http, head, note)
            left = http.left_over or b""

    def record_unanswered(self, http: Http1, head: Head, note: str) -> None:
        """Record a request whose head was read by the parser `http`, and that gets no answer."""
        duplex = Http1Duplex(self.connection, http, threading.RLock(), head.method)
        incoming = self.take(head, duplex)
        with contextlib.suppress(ClientLeftError, OverLimitError):
            http.receive(b"")  # no more than what has come
            _ = incoming.body.content
        self.answering.record_unanswered(incoming, note)
