"""A server on loopback whose requests a `DuplexAnswer` answers: HTTP/1.1 without the gateway."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import h11

from pytest_egress.base.account import Account
from pytest_egress.routes.duplex import ClientLeftError, DuplexAnswer
from pytest_egress.routes.faults import End
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.headers import NO_FIELDS, Headers, raw_fields
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response


class SocketDuplex:
    """Both directions of a request that becomes a WebSocket, on a plain socket.

    Attributes:
        started: The status that was answered, or None.
        is_reset: Whether it was broken off.
    """

    trailers = NO_FIELDS
    disconnected = False

    def __init__(self, sock: socket.socket, http: h11.Connection) -> None:
        self._sock, self._http, self._first = sock, http, b""
        self.started: int | None = None
        self.is_reset = False

    def receive(self, timeout: float | None = None) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        if not poller.poll(None if timeout is None else timeout * 1000):
            raise TimeoutError
        try:
            return self._sock.recv(65536)
        except OSError as error:
            raise ClientLeftError from error

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        raise NotImplementedError

    def respond(self, response: Response) -> None:
        self.start(response.status_code, response.headers)
        self.send(response.content)
        self.finish(response.trailers)

    def send_interim(self, status_code: int, headers: Headers = NO_FIELDS) -> None:
        raise NotImplementedError

    def start(
        self,
        status_code: int,
        headers: Headers = NO_FIELDS,
        *,
        reason: str | None = None,
        ends: bool = False,
    ) -> None:
        self.started = status_code
        kind = h11.InformationalResponse if status_code == 101 else h11.Response
        self._send(self._http.send(kind(status_code=status_code, headers=raw_fields(headers))))
        if status_code == 101:
            self._http.next_event()
            self._first = self._http.trailing_data[0]

    def send(self, data: bytes) -> None:
        self._send(data if self.started == 101 else self._http.send(h11.Data(data=data)))

    def _send(self, data: bytes | None) -> None:
        try:
            self._sock.sendall(data or b"")
        except OSError as error:
            raise ClientLeftError from error

    def finish(self, trailers: Headers = NO_FIELDS) -> None:
        if self.started != 101:
            self._send(self._http.send(h11.EndOfMessage()))
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.is_reset = True
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._sock.shutdown(socket.SHUT_RDWR)


@dataclass
class ServedCall:
    """A call as the answer sees it; `done` is set when `converse` has returned.

    Attributes:
        error: What `converse` raised, or None.
        end: Ends the call, as the end of its test does; set once it is detached.
    """

    exchange: Exchange
    error: BaseException | None = None
    rejected: str = ""
    unreadable: list[str] = field(default_factory=list)
    end: Callable[[], None] | None = None
    counted: threading.Event = field(default_factory=threading.Event)
    detached: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    duplex: SocketDuplex | None = None
    account: Account = field(default_factory=Account)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def count(self) -> None:
        self.counted.set()

    def now(self) -> float:
        return 0.0

    def detach(self, end: Callable[[], None]) -> None:
        self.end = end
        self.detached.set()

    def fail(self, fault: End, is_over: Callable[[], bool]) -> NoReturn:
        raise NotImplementedError

    def note_error(self, error: BaseException) -> None:
        pass

    def note_unreadable(self, why: str) -> None:
        self.unreadable.append(why)

    def reject(self, note: str) -> None:
        self.rejected = note


class DuplexServer:
    """Serves each connection's first request by an answer, on a thread of its own.

    Attributes:
        url: Where it listens, as a client of WebSockets wants it.
        calls: The calls, in the order in which they came.
    """

    def __init__(self, answer: DuplexAnswer) -> None:
        self.answer = answer
        self.calls: list[ServedCall] = []
        self._came = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def call(self, number: int = 1) -> ServedCall:
        """Wait for a call until it is open."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.calls) >= number, 20)
            call = self.calls[number - 1]
        assert call.detached.wait(20)
        return call

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            http = h11.Connection(h11.SERVER)
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(sock.recv(65536))
            if isinstance(event, h11.Request):
                self._answer(sock, http, request_of(event))
            sock.settimeout(2)
            while sock.recv(65536):
                pass

    def _answer(self, sock: socket.socket, http: h11.Connection, request: Request) -> None:
        if (refused := self.answer.refusal(request)) is not None:
            response, _ = refused
            fields = [*raw_fields(response.headers), (b"Connection", b"close")]
            head = h11.Response(status_code=response.status_code, headers=fields)
            events = (head, h11.Data(data=response.content), h11.EndOfMessage())
            sock.sendall(b"".join(http.send(event) or b"" for event in events))
            sock.shutdown(socket.SHUT_WR)
            return
        exchange = Exchange(
            container="app", started=0.0, outcome="routed", host="ws.test", request=request
        )
        call = ServedCall(exchange, duplex=SocketDuplex(sock, http))
        with self._came:
            self.calls.append(call)
            self._came.notify_all()
        try:
            assert call.duplex is not None
            self.answer.converse(request, call.duplex, call)
        except BaseException as error:
            call.error = error
        finally:
            call.done.set()


def request_of(event: h11.Request) -> Request:
    fields = [(name.decode(), value.decode("latin-1")) for name, value in event.headers.raw_items()]
    return Request(
        method=event.method.decode(),
        scheme="http",
        host="ws.test",
        port=80,
        path=event.target.decode(),
        headers=Headers(fields),
    )


@contextlib.contextmanager
def serving(answer: DuplexAnswer) -> Iterator[DuplexServer]:
    """Serve connections by an answer within the `with` block."""
    server = DuplexServer(answer)
    try:
        yield server
    finally:
        server.close()
