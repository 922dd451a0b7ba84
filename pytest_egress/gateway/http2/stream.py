"""`Http2Stream`: one request of HTTP/2, and the way back to its client. Its connection has others at the same time.

A stream is an attempt of its own: it belongs to the window that was open when its head came, which waits for it, and
may be cut without its connection.

Threads: the connection's reader calls `begin`, `feed`, `end_request` and `leave`. A worker serves the stream, and it or
another one closes it. Any thread may call the methods of `Duplex`, and `cut`. The wire's lock guards what they share;
it is never held while a thread waits, nor while a callback or a function of a user runs. The one lock that is acquired
under it is that of the window's account. `_sending` makes each piece go whole: whoever waits for a window holds it, and
acquires the wire's lock after it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from pytest_egress.base.account import Hold, over_limit
from pytest_egress.base.sockets import READ_BYTES, shut
from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.connection import (
    AllowedBy,
    Connection,
    Multiplexed,
    is_still_allowed,
)
from pytest_egress.gateway.http.bodies import Body
from pytest_egress.gateway.http2.wire import Http2Wire
from pytest_egress.gateway.lasting import Lasting
from pytest_egress.gateway.patience import Patience, StalledError
from pytest_egress.gateway.recorder import Heard
from pytest_egress.ledger.windows import Activity, AttemptContext
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.http.head import Head
from pytest_egress.traffic.http.headers import NO_FIELDS, Headers
from pytest_egress.traffic.http.multiplexed import CameLate, ManyRequests
from pytest_egress.traffic.http.response import Response, carries_body, http_date, sent_fields

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, CANCEL = 0, 1, 2, 8
"""Codes of RST_STREAM (RFC 9113 section 7)."""

CUT: Final = "the connection was cut: what let it live was over"
ANSWERED: Final = "the response has ended"
CONTINUE: Final = 100
WAITING: Final = "bodies that wait for a handler"


class Http2Stream:
    """One request, and the way back to its client.

    Args:
        http: The connection's state, which the wire's lock guards.

    Attributes:
        started: When its head came, in the time of entries.
        allowed_by: What allows the body of its response to pass unread; None where it is read.
        broken_by: The sentence that names the fault which has ended its connection; "" for none.
        is_kept_whole: Whether the request's body is being read to its end, before anything else is done about it.
        ends_connection: Whether its connection is to end after it: `Connection: close` says so in a response.
        heard_late: Searches for secrets what still comes of its request after the response; None for nothing.
        late_note: Why nobody answers it, as a sentence: its connection was said to end before; "" for any other.
    """

    def __init__(
        self, connection: Connection, wire: Http2Wire, http: ManyRequests, number: int, head: Head
    ) -> None:
        self.number, self.head = number, head
        self._connection, self._wire, self._http = connection, wire, http
        self._changed: threading.Condition | None = None  # made by the first that waits: few do
        self._sending = threading.Lock()
        self._unread = bytearray()
        self._waiting: Hold | None = None  # of what is unread; made by the first byte
        self._is_over_limit = False
        self._is_whole = False
        self._trailers = NO_FIELDS
        self._left: str | None = None
        self.broken_by = ""
        self._callbacks: list[Callable[[], None]] = []
        self._has_started, self._is_answered = False, False
        self._awaits_continue = head.headers.get("expect", "").lower() == "100-continue"
        self._others: list[socket.socket] = []
        self._context: AttemptContext | None = None
        self.started = connection.ledger.now()
        self.activity = Activity(
            container=connection.target.name, cut=self.cut, told=connection.told
        )
        self.allowed_by: AllowedBy | None = None
        self.lasting: Lasting | None = None
        self.ended, self.ends_connection, self.is_kept_whole = False, False, False
        self.late_note = ""
        self.heard_late: Heard | None = None
        self._late_fields = b""

    # The attempt.

    def begin(self) -> None:
        """The attempt belongs to the window that is open now."""
        ledger = self._connection.ledger
        with ledger.changed:  # else the window could close between these two calls
            self._context = self._connection.target.attempt_context()
            ledger.begin(self._context.window, self.activity)
        if self._unread:
            self._count_unread()

    @property
    def attempt(self) -> Attempt:
        assert self._context is not None
        return Attempt(
            context=self._context,
            destination=self._connection.destination,
            started=self.started,
            activity=self.activity,
            connection=self._connection.noted(),
        )

    def close(self) -> None:
        """A response that has not ended is broken off."""
        with self._wire.lock:
            if not self._is_answered and self._left is None and not self.late_note:
                self._reset(INTERNAL_ERROR)
            self._http.forget(self.number)
            self._callbacks.clear()
            self._leave("the request is over")  # wakes a thread that still receives
            if self._waiting is not None:
                self._waiting.release()
        self.ended = True
        if self._context is not None:
            self._connection.ledger.end(self._context.window, self.activity)

    def cut(self) -> None:
        """Break the stream off, because its window is closed or what allowed it is over. Any thread may call it."""
        with self._wire.lock:
            self._reset(CANCEL)
            callbacks = self._leave(CUT)
            others = list(self._others)
        for other in others:
            shut(other)
        run_all(callbacks)

    def search_late(self, body: Body) -> None:
        """Have searched for secrets what comes of a request after the response, from what nobody has read of it on."""
        if body.passing is None:
            return
        with body.searching(), self._wire.lock:
            if self._is_whole:
                return
            self.heard_late = body.passing.feed
            self.heard_late(bytes(self._unread) + self._late_fields)
            self._unread.clear()

    def hear_late(self, came: CameLate) -> None:
        """Take what nobody reads, since the response has ended. The lock is held."""
        if self.heard_late is not None:
            self.heard_late(came.data)
        elif came.is_fields:  # `search_late` is to come
            self._late_fields = came.data
        else:
            self.feed(came.data)

    # The carrier of its request.

    @property
    def client(self) -> tuple[str, int]:
        return self._connection.client

    @property
    def destination(self) -> Any:
        return self._connection.destination

    def adopt(self, other: socket.socket) -> socket.socket:
        """The socket ends with the connection, and is shut with this stream."""
        self._connection.adopt(other)
        with self._wire.lock:
            self._others = [sock for sock in self._others if sock.fileno() >= 0] + [other]
            is_cut = self._left == CUT
        if is_cut:
            shut(other)
        return other

    @property
    def is_cut(self) -> bool:
        return self._left == CUT or self._connection.is_cut

    def has_left(self) -> bool:
        """Whether the client has reset the stream, or its connection has ended."""
        return self._left is not None

    def release(self, other: socket.socket) -> None:
        with self._wire.lock:
            self._others = [sock for sock in self._others if sock is not other]
        self._connection.release(other)

    def allow_unread(self, route: InnerRoute | None, host: str) -> None:
        allowed_by = self.allowed_by = route, host
        connection = self._connection
        between = connection.ledger.window is None
        context = connection.target.attempt_context()
        if not is_still_allowed(context, connection.destination, allowed_by, between=between):
            self.cut()

    def outlive(self, lasting: Lasting) -> None:
        self.lasting = lasting
        if self._context is not None:
            self._connection.ledger.end(self._context.window, self.activity)
        self.activity.route, self.activity.what = lasting.route, lasting.exchange
        lasting.tell_if_over()

    def read_again(self) -> None:
        self.allowed_by = None

    # What the reader brings. It holds the lock, but for `run_all` of what `leave` returns.

    def feed(self, data: bytes) -> None:
        """A piece that there is no room for is dropped, and `receive` raises OverLimitError."""
        if self._is_over_limit or self._left is not None:
            return
        self._unread += data
        self._count_unread()
        self._wake()

    def _count_unread(self) -> None:
        if self._context is None:
            return  # what was read at once with its head
        if self._waiting is None:
            self._waiting = self._context.window.account.hold(WAITING)
        if not self._waiting.fits(len(self._unread)):
            self._is_over_limit = True
            self._unread.clear()
            self._waiting.release()

    def end_request(self, trailers: Headers) -> None:
        self._is_whole, self._trailers = True, trailers
        self._wake()

    def window_grew(self) -> None:
        self._wake()

    def leave(self, why: str, *, by_fault: bool = False) -> list[Callable[[], None]]:
        """Return what has to be called without the lock; `by_fault`: a request's fault has ended the connection."""
        if by_fault and self._left is None:
            self.broken_by = why
        return self._leave(why)

    def _leave(self, why: str) -> list[Callable[[], None]]:
        if self._left is not None:
            return []
        self._left = why
        self._wake()
        callbacks, self._callbacks = self._callbacks, []
        return callbacks

    # What comes: `Duplex`.

    @property
    def trailers(self) -> Headers:
        return self._trailers

    @property
    def is_whole(self) -> bool:
        return self._is_whole

    @property
    def disconnected(self) -> bool:
        return self._left is not None

    def receive(self, timeout: float | None = None) -> bytes:
        """`100 Continue` is sent when the body is first asked for, to a client that waits for it.

        Raises:
            ClientLeftError: The client has left before the end.
            OverLimitError: So much waited that its window would have kept more than it may.
            StalledError: The client has stopped within a body that is kept whole.
            TimeoutError: Nothing came in time.
        """
        self._continue()
        if timeout is not None or not self.is_kept_whole or self._is_whole:
            return self._receive(timeout)
        patience = Patience(self._connection.ledger.clock)
        while not patience.is_over:
            with contextlib.suppress(TimeoutError):
                return self._receive(patience.seconds_left)
        raise StalledError

    def _receive(self, timeout: float | None) -> bytes:
        with self._wire.lock:
            if not self._has_come():
                self._waits().wait_for(self._has_come, timeout)
            if self._is_over_limit:
                raise over_limit()
            if self._unread:
                return self._take_unread()
            if self._is_whole:
                return b""
            if self._left is not None or self._is_answered:  # after which nothing of it is read
                raise ClientLeftError(self._left or ANSWERED)
            raise TimeoutError(f"the client has sent nothing within {timeout:g} s")

    def _has_come(self) -> bool:
        is_over = self._is_whole or self._is_over_limit or self._left is not None
        return bool(self._unread) or is_over or self._is_answered

    def _waits(self) -> threading.Condition:
        """The condition by which a thread waits until something comes, or may be sent; the lock is held."""
        if self._changed is None:
            self._changed = threading.Condition(self._wire.lock)
        return self._changed

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.notify_all()

    def _take_unread(self) -> bytes:
        data = bytes(self._unread)
        self._unread.clear()
        if self._waiting is not None:
            self._waiting.release()
        if not self._is_whole and self._left is None:
            self._http.give_back(self.number, len(data))
            self._wire.queue(self._http.outgoing())
        return data

    def _continue(self) -> None:
        """Send `100 Continue` where the client waits for it (RFC 9110 section 10.1.1)."""
        if self._awaits_continue:
            self._awaits_continue = False
            with self._wire.lock:
                waits = not (self._unread or self._is_whole or self._has_started or self._left)
            if waits:
                self.send_interim(CONTINUE)

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        with self._wire.lock:
            has_left = self._left is not None
            if not has_left:
                self._callbacks.append(callback)
        if has_left:
            callback()
        return partial(self._take_back, callback)

    def _take_back(self, callback: Callable[[], None]) -> None:
        with self._wire.lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    # What goes: `Duplex`.

    def send_interim(self, status_code: int, headers: Headers = NO_FIELDS) -> None:
        """Raise RuntimeError where the response has begun, and ClientLeftError where the client has left."""
        if self._has_started:
            raise RuntimeError("an interim response cannot follow the response, which has begun")
        self._write(lambda: self._http.start(self.number, status_code, headers, ends=False))

    def start(
        self,
        status_code: int,
        headers: Headers = NO_FIELDS,
        *,
        reason: str | None = None,
        ends: bool = False,
    ) -> None:
        """Date is added where there is none. Raises ValueError where HTTP/2 cannot carry a field."""
        if "date" not in headers:
            date = http_date(int(self._connection.ledger.now()))
            headers = Headers([*headers.raw, ("date", date)])
        self._write(lambda: self._start(status_code, headers, ends=ends))

    def _start(self, status_code: int, headers: Headers, *, ends: bool) -> None:
        self.ends_connection = "close" in headers.get("connection", "").lower()
        self._http.start(self.number, status_code, headers, ends=ends)
        self._has_started = True
        if ends:
            self._answered()

    def respond(self, response: Response) -> None:
        """One write is made where there is room. Raises ValueError where HTTP/2 cannot carry a field."""
        has_body = carries_body(self.head.method, response)
        content, trailers = (response.content, response.trailers) if has_body else (b"", NO_FIELDS)
        framed = response.stream is None and not trailers.raw
        headers = sent_fields(response, http_date(int(self.started)), framed=framed)
        ends, fits = not (content or trailers.raw), False

        def write() -> None:
            nonlocal fits
            self._start(response.status_code, headers, ends=ends)
            fits = ends or len(content) <= self._http.room(self.number)
            if fits and not ends:
                self._send_rest(content, trailers)

        self._write(write, gathers=True)
        if not fits:
            self.send(content)
            self.finish(trailers)

    def _send_rest(self, content: bytes, trailers: Headers) -> None:
        """The client's window has room for the body."""
        if content:
            self._http.send(self.number, content, ends=not trailers.raw)
        if trailers.raw:
            self._http.finish(self.number, trailers)
        self._answered()

    def send(self, data: bytes) -> None:
        with self._sending:
            self._send(memoryview(data))

    def _send(self, left: memoryview) -> None:
        while left:
            with self._wire.lock:
                while not self._room():
                    self._waits().wait()
                left = left[self._send_frames(left[:READ_BYTES]) :]
                self._wire.drain(self.has_left)

    def _room(self) -> int:
        self._check()
        try:
            return self._http.room(self.number)
        except ConnectionError as error:
            raise ClientLeftError(str(error)) from error

    def _send_frames(self, data: memoryview) -> int:
        """Send as much as the client's window has room for; return how many bytes."""
        size = 0
        while size < len(data) and (room := self._room()):
            piece = bytes(data[size : size + room])
            self._http.send(self.number, piece)
            size += len(piece)
        self._wire.queue(self._http.outgoing())
        return size

    def finish(self, trailers: Headers = NO_FIELDS) -> None:
        """Raise ValueError where HTTP/2 cannot carry a trailer."""

        def write() -> None:
            self._http.finish(self.number, trailers)
            self._answered()

        with self._sending:
            self._write(write)

    def _answered(self) -> None:
        """Note the end of the response. The rest of an unfinished request is not wanted (RFC 9113 section 8.1)."""
        self._is_answered = True
        if not self._is_whole:
            self._http.reset(self.number, NO_ERROR)
            self._wake()  # a thread may wait for more of it

    def reset(self) -> None:
        with self._wire.lock:
            if not self._is_answered and self._left is None:
                self._reset(INTERNAL_ERROR)

    # What a fault does: `Line`.

    @property
    def has_begun(self) -> bool:
        return self._has_started

    def abort(self, why: str) -> None:
        self._server.abort(why)

    def hang_up(self, why: str) -> None:
        self._server.hang_up(why)

    @property
    def _server(self) -> Multiplexed:
        server = self._connection.multiplexed
        assert server is not None
        return server

    def reset_stream(self, why: str) -> bool:
        with self._wire.lock:
            if self._left is None:
                self._reset(INTERNAL_ERROR)
            callbacks = self._leave(why)
        run_all(callbacks)
        return True

    def send_raw(self, data: bytes) -> None:
        with self._wire.lock:
            self._check()
            self._wire.queue(self._http.raw(self.number, data))
            self._wire.drain(self.has_left)

    def _reset(self, code: int) -> None:
        self._is_answered = True
        self._http.reset(self.number, code)
        self._wire.queue(self._http.outgoing())
        self._wake()  # a thread may wait for the client's window

    def _write(self, write: Callable[[], None], *, gathers: bool = False) -> None:
        """Wait until the bytes are sent, unless `gathers`: then they may be sent a little later, with others."""
        with self._wire.lock:
            self._check()
            try:
                write()
            except ConnectionError as error:
                raise ClientLeftError(str(error)) from error
            finally:
                data = self._http.outgoing()
                is_kept = gathers and self._wire.gather(data)
                if not is_kept:
                    self._wire.queue(data)
            if not is_kept:
                self._wire.drain(self.has_left)

    def _check(self) -> None:
        """Raise ClientLeftError where nobody waits for the response."""
        if self._left is not None:
            raise ClientLeftError(self._left)
        if self._is_answered:
            raise ClientLeftError(ANSWERED)
        if self._wire.error is not None:
            raise ClientLeftError(str(self._wire.error)) from self._wire.error


def run_all(callbacks: list[Callable[[], None]]) -> None:
    """The caller does not hold the lock."""
    for callback in callbacks:
        callback()
