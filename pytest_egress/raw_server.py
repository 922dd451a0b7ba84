"""TCP, and what is in TLS, as bytes: a handler that gets the socket, a static answer, or another server.

Such a connection keeps no window open: it may be a pool's, and live for longer than a test.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
from contextvars import Context
from typing import Any, Final

from pytest_egress.answers import Forward
from pytest_egress.calls import call
from pytest_egress.clock import monotonic
from pytest_egress.connection import READ_BYTES, Connection
from pytest_egress.entries import Outcome, TcpConnection
from pytest_egress.errors import UpstreamError
from pytest_egress.fields import MAX_BODY_BYTES
from pytest_egress.messages import Response
from pytest_egress.recorder import FIRST_BYTES_KEPT
from pytest_egress.relay import Direction, relay
from pytest_egress.route import Route
from pytest_egress.upstreams import Upstreams, upstream_host

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

CLIENT_LEFT: Final = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    ssl.SSLError,
)
"""What a handler raises when its client has gone: no fault of the handler's."""

CUT_NOTE: Final = "the connection had been cut: what let it live was over"
"""Of an entry whose handler raised after that: it may have read an end that its client never sent."""

NOT_SENT: Final = (bytes, bytearray, str, dict, list, tuple, Response)
"""What a handler may return in the belief that it is sent."""


class RawServer:
    """Serves one connection to its end, without reading it as requests."""

    def __init__(self, connection: Connection, upstreams: Upstreams) -> None:
        self.connection, self.upstreams = connection, upstreams
        self.recorder, self.ledger = connection.recorder, connection.ledger
        self.attempt: Final = connection.attempt
        self.context: Final = self.attempt.context

    def serve(self, route: Route[Any], found_for: str) -> None:
        """Let a raw route answer.

        Args:
            found_for: The host that it was found for.
        """
        if (turn := route.reserve()) is None:  # another connection took the last of its times
            self.connection.refuse(b"", f"{route} has answered {route.times} of {route.times}")
            return
        answer, context = route.answer(turn)
        entry = self.begin(route, "routed", found_for)
        if isinstance(answer, Forward):
            self.count(entry)
            self.relay(entry, answer)
        elif callable(answer):
            self.handle(entry, answer, context)
        else:
            self.count(entry)
            self.collect(entry, answer or b"")

    def pass_through(self, route: Route[Any] | None) -> None:
        """Let the real upstream answer.

        Args:
            route: What says so; None is `unrouted="passthrough"`.
        """
        found_for = self.attempt.destination.host
        self.relay(self.begin(route, "passthrough", found_for), Forward())

    def begin(self, route: Route[Any] | None, outcome: Outcome, found_for: str) -> TcpConnection:
        """Record that it begins. What its thread does from here on is the connection's, not a test's."""
        self.connection.accounted = True
        entry = self.recorder.begin_raw(self.attempt, route, outcome)
        self.connection.allow_unread(route, found_for)
        return entry

    def count(self, entry: TcpConnection) -> None:
        """Count the call."""
        self.recorder.count(self.context, entry)

    def finish(self, entry: TcpConnection) -> None:
        """It is over."""
        entry.duration = self.ledger.now() - entry.started

    # A handler.

    def handle(self, entry: TcpConnection, handler: Any, context: Context) -> None:
        """Call a handler with the socket; the connection ends when it returns."""
        connection, route = self.connection, entry.route
        connection.detach()
        connection.activity.route, connection.activity.what = route, str(entry)
        connection.sock.settimeout(None)
        # The handler may wrap its own in TLS, or close it: this one stays, for whoever has to cut it.
        twin = connection.adopt(connection.twin())
        try:
            result = call(handler, connection.sock, context)
            if isinstance(result, NOT_SENT):
                raise TypeError(f"a raw handler sends by sock.sendall(...); it returned {result!r}")
        except BaseException as error:  # whatever it is, the test's own thread raises it
            if not self.is_excused(error, twin):
                connection.reset()
                self.fail(entry, error)
                return
            entry.note = f"the connection ended before its handler did ({error})"
        finally:
            connection.activity.route = None
            self.finish(entry)
            if connection.sock.fileno() < 0:  # closed by the handler, or wrapped
                connection.release(twin)
        self.count(entry)
        if connection.sock.fileno() >= 0:
            connection.linger()

    def is_excused(self, error: BaseException, twin: socket.socket) -> bool:
        """Whether a handler raised since its connection had ended: by its client, or cut by us.

        What it raises about bytes that it has read is an error whenever the connection ends.
        """
        if self.connection.is_cut:
            return is_of_connection(error)
        return isinstance(error, CLIENT_LEFT) and has_ended(twin)

    def fail(self, entry: TcpConnection, error: BaseException) -> None:
        """Keep what a handler raised."""
        note = CUT_NOTE if self.connection.is_cut else ""
        self.recorder.fail(self.context, entry, error, note)

    # A static answer.

    def collect(self, entry: TcpConnection, greeting: bytes) -> None:
        """Send what there is to say, and keep what the client sends."""
        connection, lost = self.connection, 0
        connection.sock.settimeout(None)
        try:
            connection.sock.sendall(greeting)
            connection.end()
            while data := connection.sock.recv(READ_BYTES):
                held = self.ledger.hold(self.context.window, len(data))
                kept = data[: MAX_BODY_BYTES - len(entry.kept)] if held else b""
                entry.kept += kept
                lost += len(data) - len(kept)
                entry.first_bytes = bytes(entry.kept[:FIRST_BYTES_KEPT])
        finally:
            self.finish(entry)
            if lost:
                self.recorder.complain(f"{lost} bytes were not kept of what {entry} sent")
        connection.say_goodbye()

    # Another server.

    def relay(self, entry: TcpConnection, to: Forward) -> None:
        """Copy between the client and another server until both have ended."""
        connection = self.connection
        try:
            server = self.reach(entry, to)
        except UpstreamError as error:
            entry.note = str(error)
            self.finish(entry)
            connection.reset()
            return
        connection.end()
        connection.is_relayed = True

        def watch(out: Direction, back: Direction) -> None:
            entry.sent, entry.received, entry.first_bytes = out.count, back.count, out.first
            connection.idle_since = monotonic()

        try:
            relay(connection.sock, server, watch)
        except OSError as error:
            entry.note = f"broke off: {error}"
            connection.reset()
            return
        finally:
            self.finish(entry)
        connection.linger()

    def reach(self, entry: TcpConnection, to: Forward) -> Any:
        """A connection to another server; by TLS to the upstream of a client whose TLS ends here."""
        owner, where = self.connection, self.attempt.destination
        if to.container is not None or to.host is not None:
            return self.upstreams.connect(owner, to, where.port)
        host = upstream_host(self.context.tables, where, entry.route, where.host)
        sock = self.upstreams.reach(owner, entry.route, host, where.port, "tcp")
        if where.tls is not None:
            return self.upstreams.secure(owner, sock, where.host)
        return sock


def is_of_connection(error: BaseException) -> bool:
    """Whether an error is what reading or writing a connection raises that has been shut down.

    EOFError is what readers raise of a message that is cut short, such as `asyncio.IncompleteReadError`.
    """
    if isinstance(error, (*CLIENT_LEFT, EOFError)):
        return True
    return isinstance(error, OSError) and error.errno == errno.ENOTCONN


def has_ended(sock: socket.socket) -> bool:
    """Whether the other side has closed or reset a connection, whatever is unread (poll(2))."""
    poller = select.poll()
    poller.register(sock, select.POLLRDHUP)
    return bool(poller.poll(0))
