"""TCP, and what is in TLS, as bytes: a handler that gets the socket, a static answer, or another server.

Such a connection keeps no window open: it may be a pool's, and live for longer than a test.
"""

from __future__ import annotations

import contextlib
import inspect
import ssl
from typing import Any, Final

from pytest_egress import upstream
from pytest_egress.answers import Forward
from pytest_egress.connection import Connection
from pytest_egress.errors import UpstreamError
from pytest_egress.exchange import Outcome, Response, TcpConnection
from pytest_egress.http1 import MAX_BODY_BYTES
from pytest_egress.http_server import run_async
from pytest_egress.hub import READ_BYTES
from pytest_egress.ledger import Place
from pytest_egress.relay import relay
from pytest_egress.routing import Route

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

CLIENT_LEFT: Final = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    ssl.SSLError,
)
"""What a handler raises when its client has gone: no fault of the handler's."""

NOT_SENT: Final = (bytes, bytearray, str, dict, list, tuple, Response)
"""What a handler may return in the belief that it is sent."""


class RawServer:
    """Serves one connection to its end, without reading it as requests."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.hub, self.ledger = connection.hub, connection.ledger
        self.place: Final[Place] = connection.place

    def serve(self, route: Route[Any]) -> None:
        """Let a raw route answer."""
        if (turn := route.reserve()) is None:  # another connection took the last of its times
            self.connection.refuse(b"", f"{route} has answered {route.times} of {route.times}")
            return
        answer, entry = route.answer(turn), self.begin(route, "routed")
        if isinstance(answer, Forward):
            self.count(entry)
            self.relay(entry, answer)
        elif callable(answer):
            self.handle(entry, answer)
        else:
            self.count(entry)
            self.collect(entry, answer or b"")

    def pass_on(self, route: Route[Any] | None) -> None:
        """Let the real upstream answer.

        Args:
            route: What says so; None is `unrouted="passthrough"`.
        """
        self.relay(self.begin(route, "passthrough"), Forward())

    def begin(self, route: Route[Any] | None, outcome: Outcome) -> TcpConnection:
        """Record that it begins. What its thread does from here on is the connection's, not a test's."""
        connection = self.connection
        entry = TcpConnection(
            **connection.about(),
            outcome=outcome,
            route=route,
            address=connection.address,
            sni=connection.sni,
        )
        connection.claim = route, connection.host
        connection.record(entry)
        return entry

    def count(self, entry: TcpConnection) -> None:
        """Count the call."""
        self.ledger.count(entry.route, self.place.window, entry)

    def finish(self, entry: TcpConnection) -> None:
        """It is over."""
        entry.duration = self.ledger.now() - entry.started

    # A handler.

    def handle(self, entry: TcpConnection, handler: Any) -> None:
        """Call a handler with the socket; the connection ends when it returns."""
        connection, route = self.connection, entry.route
        connection.detach()
        connection.activity.route, connection.activity.what = route, str(entry)
        connection.sock.settimeout(None)
        try:
            result = route.in_context(handler, connection.sock)
            if inspect.isawaitable(result):
                result = route.in_context(run_async, result)
            if isinstance(result, NOT_SENT):
                raise TypeError(f"a raw handler sends by sock.sendall(...); it returned {result!r}")
        except CLIENT_LEFT as error:
            entry.note = f"the connection ended before its handler did ({error})"
        except BaseException as error:  # whatever it is, the test's own thread raises it
            connection.reset()
            self.fail(entry, error)
            return
        finally:
            connection.activity.route = None
            self.finish(entry)
        self.count(entry)
        if connection.sock.fileno() >= 0:
            connection.linger()

    def fail(self, entry: TcpConnection, error: BaseException) -> None:
        """Keep what a handler raised; for the test that runs now where its own is over."""
        with self.ledger.changed:
            entry.error = error
            now = self.hub.site.place().window
            if now is not self.place.window:
                now.entries.append(entry)

    # A static answer.

    def collect(self, entry: TcpConnection, greeting: bytes) -> None:
        """Send what there is to say, and keep what the client sends."""
        connection = self.connection
        kept = bytearray()
        connection.sock.settimeout(None)
        try:
            connection.sock.sendall(greeting)
            connection.end()
            while data := connection.sock.recv(READ_BYTES):
                kept += data[: MAX_BODY_BYTES - len(kept)]
                entry.content, entry.first_bytes = bytes(kept), bytes(kept[:64])
        finally:
            self.finish(entry)
        connection.say_goodbye()

    # Another server.

    def relay(self, entry: TcpConnection, to: Forward) -> None:
        """Copy between the client and another server until one has ended."""
        connection = self.connection
        try:
            server = connection.adopt(self.reach(to))
        except UpstreamError as error:
            entry.note = str(error)
            self.finish(entry)
            connection.reset()
            return
        connection.end()

        def count(sent: int, received: int) -> None:
            entry.sent, entry.received = sent, received

        try:
            relay(connection.sock, server, count)
        except OSError as error:
            entry.note = f"broke off: {error}"
            connection.reset()
        finally:
            self.finish(entry)
        with contextlib.suppress(OSError):
            connection.sock.settimeout(0)
            connection.say_goodbye()

    def reach(self, to: Forward) -> Any:
        """A connection to another server; by TLS to the upstream of a client whose TLS ends here."""
        connection = self.connection
        if to.container is not None:
            return upstream.connect_container(to.container, to.port or 0)
        sock = upstream.connect(to.host or connection.dialled, to.port or connection.port)
        if to.host is None and connection.tls is not None:
            return upstream.secure(sock, connection.host, self.hub.upstream_tls)
        return sock
