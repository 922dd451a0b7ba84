"""TCP, and what is in TLS, as bytes: a handler that gets the socket, a static answer, or another server.

Such a connection keeps no window open: it may be a pool's, and live for longer than a test.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
from contextvars import Context
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final

from pytest_egress.base.clock import monotonic
from pytest_egress.base.relay import Direction, relay
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.calls import call
from pytest_egress.gateway.connection import READ_BYTES, Connection
from pytest_egress.gateway.recorder import FIRST_BYTES_KEPT
from pytest_egress.gateway.tcp_info import Traffic, traffic
from pytest_egress.gateway.upstreams import Upstreams, upstream_host
from pytest_egress.link.stream_sockets import Accepted
from pytest_egress.routes.answers import Forward, place_of
from pytest_egress.routes.route import Route
from pytest_egress.traffic.entries import SPEAKS_HTTP2, Outcome, TcpConnection, server_of
from pytest_egress.traffic.fields import MAX_BODY_BYTES
from pytest_egress.traffic.messages import Response

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

CLIENT_LEFT: Final = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    ssl.SSLError,
)
"""What a handler raises when its client has gone: no fault of the handler's."""

NO_CALL: Final = "connected and closed, no byte either way"
"""Of a connection that was no call: a port probe, or a pool's that was not needed."""

CUT_SILENT: Final = "connected, and no byte either way until it was cut"
"""Likewise, where its client had not closed it."""

PROBE_MILLISECONDS: Final = 20  # for a port probe to close before it is greeted
SETTLE_SECONDS: Final = 1.0  # for the client's kernel to take or refuse what was sent
SETTLE_MILLISECONDS: Final = 5  # between two looks at that

NOT_ANSWERED: Final = (
    f"{SPEAKS_HTTP2}, and waits for an answer: forward(...) leads to a server of it"
)
"""Of a client that a route without an answer only listens to."""

NOT_AGREED: Final = (
    "the client offered {offered} alone by ALPN, and none was agreed on: intercept_tls has none"
)
"""Of a client that may leave for that."""

CUT_NOTE: Final = "the connection had been cut: what let it live was over"
"""Of an entry whose handler raised after that: it may have read an end that its client never sent."""

NOT_SENT: Final = (
    *(bytes, bytearray, str, dict, list, tuple, Response),
    *(GeneratorType, AsyncGeneratorType),
)
"""What a handler may return in the belief that it is sent."""


class RawServer:
    """Serves one connection to its end, without reading it as requests."""

    def __init__(self, connection: Connection, upstreams: Upstreams) -> None:
        self.connection, self.upstreams = connection, upstreams
        self.recorder, self.ledger = connection.recorder, connection.ledger
        self.attempt: Final = connection.attempt
        self.context: Final = self.attempt.context
        self.turn, self.left_first, self.is_counted = 0, False, False
        self.accepted: Final = connection.sock

    def serve(self, route: Route[Any], found_for: str) -> bool:
        """Let a raw route answer; False where others have taken all of its `times` meanwhile.

        Args:
            found_for: The host that it was found for.
        """
        with route.turn_of(self) as turn:
            if turn is None:
                return False
            answer, context = route.answer(turn)
            entry = self.begin(route, "routed", found_for)
            self.turn, self.left_first = turn, self.leaves()
            if isinstance(answer, Forward):
                self.relay(entry, answer)
            elif callable(answer):
                self.handle(entry, answer, context)
            else:
                self.collect(entry, answer or b"")
        return True

    def pass_through(self, route: Route[Any] | None) -> None:
        """Let the real upstream answer.

        Args:
            route: What says so; None is `unrouted="passthrough"`.
        """
        found_for = self.attempt.destination.host
        entry = self.begin(route, "passthrough", found_for)
        self.is_counted = True  # it reaches a real server, whatever is said there
        self.relay(entry, Forward())

    def begin(self, route: Route[Any] | None, outcome: Outcome, found_for: str) -> TcpConnection:
        """Record that it begins. What its thread does from here on is the connection's, not a test's."""
        self.connection.accounted = True
        entry = self.recorder.begin_raw(self.attempt, route, outcome, self.not_agreed())
        self.connection.allow_unread(route, found_for)
        return entry

    def not_agreed(self) -> str:
        """What is to be said of a client of HTTP/2 alone whose TLS ends here; "" for nothing."""
        to = self.attempt.destination
        alpn = to.hello and to.hello.alpn
        if to.tls is None or not alpn or "h2" not in alpn or to.tls.alpn is not None:
            return ""
        return f"{NOT_AGREED.format(offered=' and '.join(alpn))}. {server_of('h2', to.host)}"

    def count(self, entry: TcpConnection) -> None:
        """Count the call, once."""
        if not self.is_counted:
            self.is_counted = True
            self.recorder.count(self.context, entry)

    def finish(self, entry: TcpConnection) -> None:
        """It is over."""
        entry.duration = self.ledger.now() - entry.started

    # Port probes: a connection that its client ends, or the end of its test, with no byte either way is no call.

    def leaves(self) -> bool:
        """Whether the client has closed before anything was said; it gets a moment to do so.

        A port probe closes at once. What a server that speaks first says then comes after its end, and is never read.
        """
        sock = self.connection.sock
        if isinstance(sock, ssl.SSLSocket):
            return False
        poller = select.poll()
        poller.register(sock, select.POLLIN | select.POLLRDHUP)
        poller.poll(PROBE_MILLISECONDS)
        return has_ended(sock) and not traffic(sock).came

    def carried(self, sock: socket.socket) -> Traffic:
        """What the connection has carried so far.

        Behind a stream link the acknowledgements are the link's, and it tells with the client's end whether the client
        had got anything. What was under way then is answered by a reset, where the client has closed.

        Args:
            sock: The connection's, or a twin of it.
        """
        carried = traffic(sock)
        fate = self.accepted.fate if isinstance(self.accepted, Accepted) else "heard"
        if fate == "unheard":
            return carried._replace(heard=False)
        return carried if fate == "heard" else carried._replace(settled=carried.is_over)

    def is_silent(self) -> bool:
        """Whether it may yet prove to be no call."""
        carried = self.carried(self.accepted)
        is_heard = carried.sent and carried.heard and carried.settled
        return not carried.came and (self.left_first or not is_heard)

    def has_left(self) -> bool:
        """Whether the client has closed."""
        return has_ended(self.accepted)

    def is_no_call(self, sock: socket.socket) -> bool:
        """Whether its client, or the end of its test, has ended it with no byte either way.

        Bytes of ours that came after the client had closed are none that it got.

        Args:
            sock: The connection's, or a twin of it.
        """
        if not (self.connection.is_cut or has_ended(sock)):  # first: what has come by now counts
            return False
        carried = self.carried(sock)
        if carried.sent and not carried.came:
            carried = self.settled(sock)
        if carried.came or (carried.sent and (carried.heard or not carried.settled)):
            return False
        # Where it is our own end that was heard, the handler may have been the first to close.
        return self.left_first or self.connection.is_cut or not carried.heard

    def settled(self, sock: socket.socket) -> Traffic:
        """What it has carried once it is known whether the client got what was sent; after a second in any case."""
        deadline, poller = monotonic() + SETTLE_SECONDS, select.poll()
        poller.register(sock, 0)  # a reset is told all the same
        while not (carried := self.carried(sock)).settled and monotonic() < deadline:
            poller.poll(SETTLE_MILLISECONDS)
        return carried

    def conclude(self, entry: TcpConnection) -> None:
        """Count the call, where it was one."""
        if not self.is_counted and self.is_no_call(self.connection.sock):
            self.drop(entry, entry.note)
        else:
            self.count(entry)

    def drop(self, entry: TcpConnection, more: str = "") -> None:
        """Record that it was no call: the next connection takes its turn."""
        note = CUT_SILENT if self.connection.is_cut else NO_CALL
        with self.ledger.changed:
            entry.outcome, entry.note = "recorded", "; ".join(filter(None, [note, more]))
            entry.route.give_back(self.turn)
            self.ledger.changed.notify_all()

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
                raise TypeError(
                    f"{place_of(handler)} returned {result!r}: a raw handler sends by sock.sendall(...)"
                )
        except BaseException as error:  # whatever it is, the test's own thread raises it
            if self.is_no_call(twin):
                self.drop(entry, f"its handler raised {type(error).__name__}")
                return
            if not self.is_excused(error, twin):
                connection.reset()
                self.fail(entry, error)
                return
            entry.note = f"the connection ended before its handler did ({error})"
        else:
            if self.is_no_call(twin):
                self.drop(entry)
                return
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
        if traffic(connection.sock).came or (greeting and not self.left_first):
            self.count(entry)
        try:
            connection.sock.sendall(greeting)
            connection.end()
            while data := connection.sock.recv(READ_BYTES):
                self.count(entry)
                held = self.ledger.hold(self.context.window, len(data))
                kept = data[: MAX_BODY_BYTES - len(entry.kept)] if held else b""
                entry.kept += kept
                lost += len(data) - len(kept)
                entry.first_bytes = bytes(entry.kept[:FIRST_BYTES_KEPT])
                if entry.needs_server and not greeting:
                    entry.note = NOT_ANSWERED
        finally:
            self.conclude(entry)
            self.finish(entry)
            if lost:
                self.recorder.complain(f"{lost} bytes were not kept of what {entry} sent")
        connection.say_goodbye()

    # Another server.

    def relay(self, entry: TcpConnection, to: Forward) -> None:
        """Copy between the client and another server until both have ended."""
        connection = self.connection
        if traffic(connection.sock).came:
            self.count(entry)
        try:
            server = self.reach(entry, to)
        except UpstreamError as error:
            entry.note = str(error)
            self.conclude(entry)
            self.finish(entry)
            connection.reset()
            return
        connection.end()
        connection.is_relayed = True

        def watch(out: Direction, back: Direction) -> None:
            entry.sent, entry.received, entry.first_bytes = out.count, back.count, out.first
            connection.idle_since = monotonic()
            if self.is_counted:
                return
            if out.first or (back.count and not has_ended(connection.sock)):
                self.count(entry)

        try:
            relay(connection.sock, server, watch)
        except OSError as error:
            entry.note = f"broke off: {error}"
            connection.reset()
            return
        finally:
            self.conclude(entry)
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
    """Whether the other side has closed or reset a connection, whatever is unread (poll(2)); or we have closed it."""
    poller = select.poll()
    try:
        poller.register(sock, select.POLLRDHUP)
    except ValueError:  # of a socket without a descriptor
        return True
    return bool(poller.poll(0))
