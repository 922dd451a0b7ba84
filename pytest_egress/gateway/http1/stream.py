"""`Http1Duplex`: both directions of one request of HTTP/1.1.

The thread that serves the connection makes one for each request, and closes it when the request is over. Until `share`
only that thread reads and writes, and waits for as long as a client may take. After `share` the socket is a `Wire`'s:
any thread may send while one receives.

Threads: one thread at a time calls `receive`. Any thread calls `start`, `send`, `finish`, `send_interim`, `reset`,
`disconnected`, `on_disconnect`, and what a fault does. The thread that serves the connection calls `share`, `respond`
and `close`. The lock guards h11 and a shared socket. It is not held while a socket waits, or a callback runs. Where the
socket is not shared, another lock has its bytes sent in the order in which they were made.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import h11

from pytest_egress.base.acknowledged import await_acknowledged
from pytest_egress.base.clock import LOOK_SECONDS, monotonic
from pytest_egress.base.sockets import READ_BYTES, send_all
from pytest_egress.base.wire import Wire
from pytest_egress.gateway.connection import Connection
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.traffic.http.headers import NO_FIELDS, Headers
from pytest_egress.traffic.http.http1 import Http1
from pytest_egress.traffic.http.response import Response, http_date, reason_phrase

Result = TypeVar("Result")
SWITCHING: Final = 101
BEGUN: Final = "an interim response cannot follow the response, which has begun"


class Http1Duplex:
    """Both directions of one request.

    Args:
        http: Its state of HTTP, which uses the same lock.
        lock: Guards `http` and the socket. It is re-entrant.
        method: The request's.

    Attributes:
        is_switched: Whether the bytes of another protocol follow, after 101.
        is_reset: Whether the response has been broken off.
        hangs_up: Why our side of the connection is to be closed, though nothing in the response says so; else "".
        broken: Why nothing more comes or goes; None while that is not so.
    """

    def __init__(
        self, connection: Connection, http: Http1, lock: threading.RLock, method: str
    ) -> None:
        self._connection, self._http, self._lock, self._method = connection, http, lock, method
        self.is_switched, self.is_reset = False, False
        self.hangs_up = ""
        self._wire: Wire | None = None  # once it is shared
        self._sending = threading.RLock()  # taken before `lock`, where the socket is not shared
        self._behind = b""  # the first bytes after 101, where they came together with the head
        self._has_left = False
        self.broken: str | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._watched: threading.Event | None = None  # set to end the thread that looks
        self._is_over = False

    # Its begin and end.

    def share(self) -> None:
        """Let other threads send and receive from here on."""
        self._wire = Wire(self._connection.sock, self._lock)

    def close(self) -> None:
        """Note that the request is over, and that nothing is sent or received here any more."""
        if (watched := self._watched) is not None:
            self._tell_if_left()
            watched.set()
        with self._lock:
            self._is_over = True
            self._callbacks.clear()

    # What comes.

    @property
    def trailers(self) -> Headers:
        return self._http.trailers

    def receive(self, timeout: float | None = None) -> bytes:
        """The next piece of the body; b"" at its end. After 101 the next bytes; b"" at the end of the connection.

        `100 Continue` goes to a client that waits for it when the body is first asked for: a client whose body nobody
        wants never sends it. The timeout counts where the socket is shared.

        Raises:
            ClientLeftError: The client has left before the end, or its body cannot be read.
            StalledError: It has stopped. A shared socket is waited for without end: whoever reads there decides.
            TimeoutError: Nothing came in time.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if self.is_switched:
            behind, self._behind = self._behind, b""
            return behind or self._read(deadline)
        data = None
        while (piece := self._next_piece(data)) is None:
            if awaited := self._http.awaited():
                self.send_raw(awaited)
            data = self._read(deadline)
        return piece

    def _next_piece(self, data: bytes | None) -> bytes | None:
        """The next piece of the body, after these bytes have come; None where it needs more of them."""
        with self._lock:
            self._raise_if_over()
            try:
                if data is not None:
                    self._http.receive(data)
                return self._http.read_piece()
            except h11.RemoteProtocolError as error:
                raise ClientLeftError(str(error)) from error

    def _read(self, deadline: float | None) -> bytes:
        if self._wire is None:
            return self._call(lambda: self._connection.receive(READ_BYTES))
        wire, left = self._wire, None if deadline is None else deadline - monotonic()
        with self._lock:
            data = self._call(lambda: wire.receive(left, self._has_ended))
            self._raise_if_over()
        if data is None:
            raise TimeoutError("the client has sent nothing in time")
        return data

    # Whether the client has left.

    @property
    def disconnected(self) -> bool:
        """A client that has closed its sending side alone waits for the response (`Connection.has_left`)."""
        with self._lock:
            if not self._has_left and not self._is_over:
                self._has_left = self.broken is not None or self._connection.has_left()
            return self._has_left or self._is_over

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """A thread looks for the client's end, and calls the functions. It ends when it has none to call."""
        take_back = partial(self._take_back, callback)
        with self._lock:
            self._callbacks.append(callback)
            if self._watched is not None or self._is_over:
                return take_back
            ended = self._watched = threading.Event()
        watch = partial(self._watch, ended)
        threading.Thread(target=watch, name="egress client", daemon=True).start()
        return take_back

    def _take_back(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)
            if self._watched is not None and not self._callbacks:
                self._watched.set()
                self._watched = None

    def _watch(self, ended: threading.Event) -> None:
        while not ended.is_set():
            self._tell_if_left()
            ended.wait(LOOK_SECONDS)

    def _tell_if_left(self) -> None:
        """Call the functions that wait for the client to leave, where it has, each once."""
        with self._lock:
            if self._is_over or not self.disconnected:
                return
            callbacks = self._callbacks.copy()
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    def _has_ended(self) -> bool:
        return self.broken is not None or self.is_reset or self._is_over

    def _raise_if_over(self) -> None:
        if self.broken is not None or self.is_reset or self._is_over:
            raise ClientLeftError(self.broken or "the request is over")

    # What goes.

    def send_interim(self, status_code: int, headers: Headers = NO_FIELDS) -> None:
        """Raise RuntimeError where the response has begun, and ClientLeftError where the client has left."""

        def interim() -> bytes:
            if self._http.has_answered:
                raise RuntimeError(BEGUN)
            return self._http.interim(status_code, headers)

        self._send(interim)

    def start(
        self,
        status_code: int,
        headers: Headers = NO_FIELDS,
        *,
        reason: str | None = None,
        ends: bool = False,
    ) -> None:
        def head() -> bytes:
            if status_code == SWITCHING:
                data = self._http.switch(headers)
                self.is_switched, self._behind = True, self._http.waiting
                return data
            phrase = reason_phrase(status_code) if reason is None else reason
            response = Response.received(status_code, headers, reason=phrase)
            date = http_date(int(self._connection.ledger.now()))
            return self._http.head(response, date, framed=ends) + (
                self._http.end() if ends else b""
            )

        self._send(head)

    def send(self, data: bytes) -> None:
        """Bytes after 101 are sent too. Return when the kernel has taken them."""
        self._send(lambda: data if self.is_switched else self._http.piece(data))

    def finish(self, trailers: Headers = NO_FIELDS) -> None:
        """After 101 the connection ends when the request is over."""
        if not self.is_switched:
            self._send(lambda: self._http.end(trailers))

    def respond(self, response: Response) -> None:
        """The rest of the request's body is discarded, as far as it has come: the response was made without it."""
        date = http_date(int(self._connection.started))
        with self._sending:
            plain = None if self._wire is not None else self._http.plain_answer(response, date)
            if plain is not None:
                self._send_now(plain)
                return
            with contextlib.suppress(h11.RemoteProtocolError):
                while not self._http.is_read and self._http.read_piece():
                    pass
            for piece in self._http.whole(response, self._method, date):
                self.send_raw(piece)

    def reset(self) -> None:
        """The client sees "connection reset" when the request is over."""
        if self.hangs_up:
            return
        self.is_reset = True
        self._connection.reset()

    # What a fault does: `Line`.

    @property
    def broken_by(self) -> str:
        """The connection carries one request at a time: no other one's fault ends it."""
        return ""

    @property
    def has_begun(self) -> bool:
        return self._http.has_answered

    def abort(self, why: str) -> None:
        """The connection is reset when the request is over."""
        await_acknowledged(self._connection.sock)
        self._break(why)
        self.reset()

    def hang_up(self, why: str) -> None:
        """Our side is closed when the request is over."""
        self._break(why)
        self.hangs_up = why

    def reset_stream(self, why: str) -> bool:
        """HTTP/1.1 has no stream to reset."""
        return False

    def send_raw(self, data: bytes) -> None:
        self._send(lambda: data)

    def _break(self, why: str) -> None:
        """Have whoever sends or receives find the request over."""
        with self._lock:
            self.broken = self.broken or why
        self._tell_if_left()

    def _send(self, make: Callable[[], bytes]) -> None:
        """Send bytes, which are made while the lock is held; return when the kernel has taken them.

        Nothing is asked of `http` once the request is over: it is in the next one by then.
        """
        if self._wire is None:
            with self._sending:
                with self._lock:
                    self._raise_if_over()
                    data = make()
                self._send_now(data)
            return
        with self._lock:
            self._raise_if_over()
            self._wire.queue(make())
            if not self._wire.drain(self._has_ended):
                if self._wire.error is not None:
                    self.broken = str(self._wire.error)
                self._raise_if_over()

    def _send_now(self, data: bytes) -> None:
        """The socket is not shared. Its client may take its time: `lock` is not held."""
        try:
            send_all(self._connection.sock, data)
        except OSError as error:
            self.broken = str(error)
            raise ClientLeftError(self.broken) from error

    def _call(self, function: Callable[[], Result]) -> Result:
        try:
            return function()
        except OSError as error:
            self.broken = str(error)
            raise ClientLeftError(self.broken) from error
