"""A `Duplex` without a connection: it gives the pieces that a test says, and keeps what is sent."""

from __future__ import annotations

from collections.abc import Callable

from pytest_egress.base.account import Account
from pytest_egress.gateway.http.bodies import Body
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.traffic.http.headers import NO_FIELDS, Headers
from pytest_egress.traffic.http.response import Response


class FakeDuplex:
    """Both directions of a request.

    Attributes:
        sent: What was sent, in order: heads and trailers as tuples, pieces as bytes.
        asked: How often a piece was asked for.
        disconnected: Whether the client has left.
    """

    def __init__(self, *pieces: bytes, trailers: Headers = NO_FIELDS, breaks: bool = False) -> None:
        self._pieces, self._breaks = [*pieces], breaks
        self.trailers = trailers
        self.disconnected = False
        self.asked = 0
        self.has_begun = False
        self.sent: list[object] = []
        self._callbacks: list[Callable[[], None]] = []

    def receive(self, timeout: float | None = None) -> bytes:
        self.asked += 1
        if not self._pieces and self._breaks:
            raise ClientLeftError("it broke off")
        return self._pieces.pop(0) if self._pieces else b""

    def leave(self) -> None:
        self.disconnected = True
        for callback in self._callbacks:
            callback()

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def respond(self, response: Response) -> None:
        self.start(response.status_code, response.headers)
        self.send(response.content)
        self.finish(response.trailers)

    def send_interim(self, status_code: int, headers: Headers = NO_FIELDS) -> None:
        self._send((status_code, dict(headers)))

    def start(
        self,
        status_code: int,
        headers: Headers = NO_FIELDS,
        *,
        reason: str | None = None,
        ends: bool = False,
    ) -> None:
        assert not self.has_begun, "a response has one head"
        self.has_begun = True
        self._send((status_code, dict(headers), *(["ends"] if ends else [])))

    def send(self, data: bytes) -> None:
        self._send(data)

    def finish(self, trailers: Headers = NO_FIELDS) -> None:
        self._send(("end", dict(trailers)))

    def reset(self) -> None:
        self.sent.append("reset")

    broken_by = ""

    def abort(self, why: str) -> None:
        self.sent.append(("abort", why))
        self.leave()

    def hang_up(self, why: str) -> None:
        self.sent.append(("hang up", why))
        self.leave()

    def reset_stream(self, why: str) -> bool:
        self.sent.append(("reset stream", why))
        self.leave()
        return True

    def send_raw(self, data: bytes) -> None:
        self._send(("raw", data))

    def _send(self, what: object) -> None:
        if self.disconnected:
            raise ClientLeftError("the client has left")
        self.sent.append(what)


def coming_body(duplex: FakeDuplex, expected: int | None = None) -> Body:
    """A body that comes from a duplex, without a limit of what is kept."""
    return Body(duplex, Account(), expected)


def whole(content: bytes, headers: Headers = NO_FIELDS, trailers: Headers = NO_FIELDS) -> Response:
    """A response that `Duplex.respond` sends."""
    return Response.received(200, headers, reason="OK", content=content, trailers=trailers)
