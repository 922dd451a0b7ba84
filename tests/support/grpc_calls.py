"""A call of gRPC without a connection: what its client sends and gets, for tests of servicers alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pytest_egress.base.account import Account
from pytest_egress.routes.duplex import ClientLeftError, DuplexAnswer
from pytest_egress.routes.faults import End
from pytest_egress.routes.grpc.server import GrpcServer
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.grpc import GrpcCall, MessageBuffer, frame, status_in
from pytest_egress.traffic.http.headers import NO_FIELDS, Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response

SECONDS = 10.0  # what is bound to happen, on however slow a machine


class CallDuplex:
    """A `Duplex` whose client is the test. It refuses what breaks the order of a response."""

    def __init__(self) -> None:
        self.pieces: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.sent: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.head: Headers | None = None
        self.trailers_sent: Headers | None = None
        self.trailers = NO_FIELDS
        self.disconnected = False
        self.finished = threading.Event()
        self.blocked = threading.Event()
        self.blocked.set()  # clear it, and nothing more is sent
        self.sending = threading.Event()
        self._callbacks: list[Callable[[], None]] = []

    def leave(self) -> None:
        """The client cancels."""
        self.disconnected = True
        self.blocked.set()
        for callback in self._callbacks:
            callback()

    def receive(self, timeout: float | None = None) -> bytes:
        if self.disconnected:
            raise ClientLeftError("reset by the client")
        try:
            return self.pieces.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        if self.disconnected:
            callback()
        return lambda: self._callbacks.remove(callback)

    def respond(self, response: Response) -> None:
        self.start(response.status_code, response.headers)
        self.send(response.content)
        self.finish(response.trailers)

    def send_interim(self, status_code: int, headers: Headers = NO_FIELDS) -> None:
        raise AssertionError("gRPC has no interim responses")

    def start(
        self,
        status_code: int,
        headers: Headers = NO_FIELDS,
        *,
        reason: str | None = None,
        ends: bool = False,
    ) -> None:
        self._check()
        assert self.head is None
        assert status_code == 200
        self.head = headers
        if ends:
            self.finished.set()

    def send(self, data: bytes) -> None:
        self._check()
        assert self.head is not None
        self.sending.set()
        assert self.blocked.wait(SECONDS)
        self._check()
        self.sent.put(data)

    def finish(self, trailers: Headers = NO_FIELDS) -> None:
        self._check()
        assert self.head is not None
        self.trailers_sent = trailers
        self.finished.set()

    def reset(self) -> None:
        raise AssertionError("a call of gRPC ends by its status")

    def _check(self) -> None:
        assert not self.finished.is_set(), "sent after the end"
        if self.disconnected:
            raise ClientLeftError("reset by the client")


class CallConversation:
    """A `Conversation` that notes what it is told."""

    def __init__(self, exchange: Exchange, context: Context) -> None:
        self.exchange = exchange
        self.counted: list[tuple[Any, bool]] = []  # the status, and whether the client knew
        self.rejected: list[str] = []
        self.account = Account()
        self.duplex: CallDuplex
        self._context = context

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._context.copy().run(function, *arguments)

    def count(self) -> None:
        assert self.exchange.grpc is not None
        self.counted.append((self.exchange.grpc.status, self.duplex.finished.is_set()))

    def now(self) -> float:
        return 0.0

    def detach(self, end: Callable[[], None]) -> None:
        raise AssertionError("a call of gRPC keeps its window open")

    def fail(self, fault: End, is_over: Callable[[], bool]) -> NoReturn:
        raise NotImplementedError

    def note_error(self, error: BaseException) -> None:
        """What has failed is raised too."""

    def note_unreadable(self, why: str) -> None:
        raise AssertionError(why)

    def reject(self, note: str) -> None:
        self.rejected.append(note)


@dataclass
class Call:
    """One call of a `GrpcServer`, or of what else answers calls, which runs on a thread of its own."""

    server: DuplexAnswer
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    context: Context = field(default_factory=copy_context)

    def __post_init__(self) -> None:
        fields = {"content-type": "application/grpc", "te": "trailers", **self.headers}
        request = Request(
            method="POST",
            scheme="https",
            host="greeter.test",
            port=443,
            path=self.path,
            headers=Headers(fields),
            http_version="2",
            client=("192.0.2.7", 50123),
        )
        exchange = Exchange(
            container="one", started=0, outcome="routed", host="greeter.test", request=request
        )
        self.duplex, self.conversation = CallDuplex(), CallConversation(exchange, self.context)
        self.conversation.duplex = self.duplex
        self.error: BaseException | None = None
        self._sent = MessageBuffer("gzip")
        self._thread = threading.Thread(target=self._serve, args=(request,), daemon=True)

    def _serve(self, request: Request) -> None:
        assert self.server.refusal(request) is None
        try:
            self.context.copy().run(self.server.converse, request, self.duplex, self.conversation)
        except BaseException as error:
            self.error = error

    def start(self, *messages: Any, ends: bool = True) -> Call:
        """Begin the call, with these messages."""
        for message in messages:
            self.say(message)
        if ends:
            self.half_close()
        self._thread.start()
        return self

    def say(self, message: Any) -> None:
        """Send a message of the client's, or bytes as they are."""
        is_raw = isinstance(message, bytes)
        self.duplex.pieces.put(message if is_raw else frame(message.SerializeToString()))

    def half_close(self) -> None:
        """Send no more."""
        self.duplex.pieces.put(b"")

    def join(self) -> Call:
        """Wait until the servicer has returned."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self

    def hear(self, kind: Any) -> Any:
        """The servicer's next message."""
        while (data := self._sent.next_message()) is None:
            self._sent.receive(self.duplex.sent.get(timeout=SECONDS))
        return kind.FromString(data)

    def heard(self, kind: Any) -> list[Any]:
        """All messages that the servicer has sent and that have not been heard yet."""
        messages = []
        while not self.duplex.sent.empty() or self._sent._bytes:
            messages.append(self.hear(kind))
        return messages

    @property
    def grpc(self) -> GrpcCall:
        """What the exchange has of the call."""
        call = self.conversation.exchange.grpc
        assert isinstance(call, GrpcCall)
        return call

    @property
    def status(self) -> tuple[str | None, str]:
        """Name and text of the status that the client got."""
        code, details = status_in(*filter(None, (self.duplex.trailers_sent, self.duplex.head)))
        return code.name if code is not None else None, details


def served_call(server: GrpcServer, path: str, *messages: Any, **headers: str) -> Call:
    """Make a call, and wait for its end."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Call(server, path, fields).start(*messages).join()


def pairs(headers: Headers | None, *names: str) -> Iterable[tuple[str, str]]:
    """Those fields of a head that have one of these names."""
    assert headers is not None
    return [(name, value) for name, value in headers.raw if name in names]
