"""`Duplex`: both directions of one request, for answers that read and send by themselves: gRPC and WebSocket.

The rule: interfaces and no code that acts. `gateway` implements `Duplex` for each version of HTTP, and `Conversation`
for each call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from pytest_egress.base.account import Account
from pytest_egress.routes.answers import Application
from pytest_egress.routes.faults import End
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.headers import NO_FIELDS, Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response


class ClientLeftError(ConnectionError):
    """The client has reset its stream, or its connection has ended."""


class ClientStoppedError(Exception):
    """The client has stopped within a body, and is no longer waited for."""


class Duplex(Protocol):
    """The two directions of one request.

    `send_interim`, `start`, `send`, `finish` and `respond` raise `ClientLeftError` where the client has left.

    Threads: any thread may send, and each call of `send` is sent whole; one thread at a time receives. No method is
    called while a lock of the package is held.
    """

    @property
    def trailers(self) -> Headers:
        """The fields after the request's body, once `receive` has returned b""."""

    @property
    def disconnected(self) -> bool:
        """Whether the client has left, so that nobody reads the response."""

    def receive(self, timeout: float | None = None) -> bytes:
        """The next piece of the request's body, as it comes; b"" at its end.

        Raises:
            ClientLeftError: The client has left before the end.
            TimeoutError: Nothing came in `timeout` seconds; None is without end.
        """

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a function called once when the client leaves; at once where it has left. It must not block.

        Returns:
            A function that takes it back: it is not called from then on, unless that has just begun.
        """

    def send_interim(self, status_code: int, headers: Headers = NO_FIELDS) -> None:
        """An interim response is 102 to 199 (RFC 9110 section 15.2). Nothing happens in HTTP/1.0."""

    def start(
        self,
        status_code: int,
        headers: Headers = NO_FIELDS,
        *,
        reason: str | None = None,
        ends: bool = False,
    ) -> None:
        """The head is sent at once; after 101 in HTTP/1.1, bytes both ways follow.

        Args:
            reason: The reason phrase; None is the registered one.
            ends: Whether there is no body and there are no trailers.
        """

    def send(self, data: bytes) -> None:
        """The call waits while the client takes nothing."""

    def finish(self, trailers: Headers = NO_FIELDS) -> None: ...

    def respond(self, response: Response) -> None:
        """Send a response whose body is no stream, or is not sent at all: in one write, where that is possible."""

    def reset(self) -> None:
        """Break the response off, so that the client sees an error: RST_STREAM in HTTP/2, RST in HTTP/1.1."""


class Conversation(Protocol):
    """The interface by which a `DuplexAnswer` tells the gateway of the call that it answers."""

    @property
    def exchange(self) -> Exchange: ...

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the test in the context variables of the route's declaration."""

    def count(self) -> None:
        """The call is counted before its client can know that it is over; counting again does nothing."""

    @property
    def account(self) -> Account: ...

    def now(self) -> float:
        """Seconds since the epoch, by the clock of entries."""

    def detach(self, end: Callable[[], None]) -> None:
        """Have the call keep its test's window open no longer, though it goes on: it may outlive the test.

        Args:
            end: Ends the call. It is called on any thread, once, when the route has been removed or its test is over,
                and must not block. The gateway then waits for `converse` to return.
        """

    def fail(self, fault: End, is_over: Callable[[], bool]) -> NoReturn:
        """End the call as a fault says, and its connection or stream with it; then raise ClientLeftError.

        Args:
            is_over: Whether the call has been told to end, so that a silence is over.
        """

    def note_error(self, error: BaseException) -> None:
        """The error is recorded before `converse` raises it: the client is about to learn of the end."""

    def note_unreadable(self, why: str) -> None:
        """Record that the client has sent unreadable bytes; it fails the running test. `why` has no full stop."""

    def reject(self, note: str) -> None:
        """Make the call unrouted: nothing that the test declared answers it. `note` is a sentence for the entry."""


class DuplexAnswer(Application):
    """An answer that reads the request and sends the response by itself.

    A route with such an answer is chosen by the head of a request, so that it takes neither `json=` nor `content=`.
    """

    def refusal(self, request: Request) -> tuple[Response, str] | None:
        """The response to a request that this answer cannot serve, and why, as a sentence; None where it can."""
        raise NotImplementedError

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
        """An exception is the handler's error, and fails the test."""
        raise NotImplementedError
