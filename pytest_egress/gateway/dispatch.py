"""`Dispatcher`: finds out what a connection carries, and passes it to the server for that.

The servers are a raw route, the real upstream, HTTP, and DNS. What was dialled decides first, without reading: in some
protocols the server speaks first, and both sides would wait. Then the client's first bytes decide. They are peeked at
and stay in the kernel's buffer, so that whoever serves the connection reads it from its beginning. Everything runs on
the connection's thread.
"""

from __future__ import annotations

import re
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pytest_egress.base.clock import LOOK_SECONDS, monotonic
from pytest_egress.base.sockets import await_ready, receive_timeout
from pytest_egress.base.workers import Workers
from pytest_egress.gateway.connection import PEEK_ALL, Connection
from pytest_egress.gateway.connections import Connections
from pytest_egress.gateway.destination import Destination
from pytest_egress.gateway.dns.names import NAMES_PORT, Names, serve_names
from pytest_egress.gateway.http.answering import Answering
from pytest_egress.gateway.http.forwarding import Carrier
from pytest_egress.gateway.http1.server import Http1Server
from pytest_egress.gateway.http3.sockets import QuicSocket
from pytest_egress.gateway.proxying import Proxying
from pytest_egress.gateway.raw.between import serve_between
from pytest_egress.gateway.raw.server import RawServer
from pytest_egress.gateway.recorder import FIRST_BYTES_KEPT, Recorder, passes, silent_outcome
from pytest_egress.gateway.tcp_info import has_heard
from pytest_egress.gateway.tls.authority import ALPN, HTTP1_ALONE, Authority, Identity
from pytest_egress.gateway.tls.failures import (
    broken_handshake,
    no_client_certificate,
)
from pytest_egress.gateway.tls.handshake import (
    REJECTION_SECONDS,
    handshake,
    read_hello,
    set_host,
    stays,
)
from pytest_egress.gateway.upstream.upstreams import Upstreams
from pytest_egress.link.interface import Link
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import (
    certificate_route,
    counted_routes,
    in_order,
    keyed_on,
    lacks_certificate,
    names_exactly,
    opening,
    presenting_route,
)
from pytest_egress.traffic.tls.hello import X25519, ClientHello
from pytest_egress.traffic.tls.quic import NOTHING

FIRST_BYTE_SECONDS: Final = 1.0  # a client that is silent for longer waits for the server to speak
TURN_SECONDS: Final = 5.0  # for earlier connections to prove that they are calls, or port probes
STALLED_SECONDS: Final = 10.0  # for the next byte of an unfinished request line
METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,24}")
REQUEST_LINE: Final = re.compile(METHOD.pattern + rb" (/|\*|[A-Za-z][A-Za-z0-9+.-]*:|[^ ]+:\d)")
EMPTY_LINES: Final = b"\r\n"  # the bytes of empty lines, in any order
QUERY_BEGINS: Final = b"\x00\x01"  # high bytes of a query's length over TCP; no query has 512 bytes
TLS_BEGINS: Final = b"\x16"  # a handshake record (RFC 8446 section 5.1)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a gateway that serve its connections."""

    link: Link
    authority: Authority
    recorder: Recorder
    connections: Connections
    names: Names
    upstreams: Upstreams
    workers: Workers


class Dispatcher:
    """Finds out what one connection carries, and has it served."""

    def __init__(self, connection: Connection, parts: Parts) -> None:
        self.connection, self.parts = connection, parts

    def serve(self) -> None:
        """Serve the connection to its end: by what was dialled, or else by the client's first bytes."""
        connection = self.connection
        try:
            dialled = self.parts.link.destination(connection.sock)
        except OSError as error:
            self.parts.recorder.complain(f"what a connection dialled cannot be known ({error})")
            return
        if dialled is None:  # the target dialled the listener itself, and so nothing outside
            return
        connection.destination = self.destination(*dialled)
        if not self.serve_between():
            self.serve_dialled()

    def destination(self, address: str, port: int) -> Destination:
        name, *led = self.parts.names.of(address)
        host = keyed_on(self.connection.context.tables, (name, *led, address), port)
        return Destination(address=address, port=port, name=name, led=tuple(led), host=host)

    def serve_between(self) -> bool:
        """Copy the connection to another container that has the dialled name, unless a route is for this name."""
        to, tables = self.connection.destination, self.connection.context.tables
        if to.name == to.address:  # a name that looks like it leads no client there
            return False
        if not (peers := self.connection.target.peers(to.name)):
            return False
        if names_exactly(tables, to.name, to.port):
            return False
        serve_between(self.connection, self.parts.upstreams, peers)
        return True

    def serve_dialled(self) -> None:
        """Serve a connection whose destination is known, and of which no byte has been read."""
        self.await_turn()
        if not self.try_without_reading(self.opening(), named=not self.may_be_named_yet()):
            self.listen()

    def await_turn(self) -> None:
        """Wait while earlier connections take their turns of a raw route's `times`, and port probes give theirs back.

        A client that probes a port connects for real a moment later. If the probe ends without a byte, its turn is
        given back, and this connection can have it.
        """
        to, ledger = self.connection.destination, self.connection.ledger
        counted = counted_routes(self.connection.context.tables, to.host, to.port)

        def comes() -> bool:
            return not (self.overtakes() or any(route.turns.may_come_free for route in counted))

        deadline = ledger.clock() + TURN_SECONDS
        while counted and not ledger.wait_for(comes, LOOK_SECONDS) and ledger.clock() < deadline:
            pass

    def overtakes(self) -> bool:
        """Whether an earlier connection to the same address has no entry yet."""
        to = self.connection.destination
        for other in self.parts.connections:
            if other is self.connection:
                return False
            theirs = other.destination
            is_alike = not theirs.host or (theirs.host, theirs.port) == (to.host, to.port)
            if is_alike and not other.accounted:
                return True
        return False

    def may_be_named_yet(self) -> bool:
        """Whether a route could still claim the connection by a name that the client has yet to send: SNI or Host."""
        to, tables = self.connection.destination, self.connection.context.tables
        if to.name == to.address:
            return True
        routes = (r for r in in_order(tables) if not r.removed and r.kind.is_for_connections)
        return any(route.parsed_address.port in (None, to.port) for route in routes)

    def opening(self) -> InnerRoute | None:
        connection, to = self.connection, self.connection.destination
        return opening(connection.context.tables, to.host, to.port)

    def passes(self, route: InnerRoute | None) -> bool:
        connection, to = self.connection, self.connection.destination
        return passes(connection.context, route, to.hosts, to.port)

    def try_without_reading(self, route: InnerRoute | None, *, named: bool) -> bool:
        """Serve the connection if a raw route takes it, or it passes to the real upstream: neither needs its bytes.

        Args:
            named: Whether the host is known for certain. `unrouted="passthrough"` lets nothing through before that,
                since a route for the name in SNI or Host may still claim the connection.

        Returns:
            False where the first bytes have to decide.
        """
        while route is not None and route.kind.takes_unread:
            if self.serve_raw(route, self.connection.destination.host):
                return True
            self.await_turn()
            route = self.opening()
        if (route is not None or named) and self.passes(route):
            self.raw_server().pass_through(route)
            return True
        return False

    def serve_raw(self, route: InnerRoute, found_for: str) -> bool:
        return self.raw_server().serve(route, found_for)

    def raw_server(self) -> RawServer:
        parts = self.parts
        return RawServer(self.connection, parts.upstreams, parts.authority, parts.connections)

    def listen(self) -> None:
        if first := self.first_byte():
            self.serve_first_bytes(first)

    def serve_first_bytes(self, first: bytes) -> None:
        """Serve TLS, DNS or HTTP, whichever the unread first byte starts; reject a connection that starts none."""
        connection = self.connection
        if first == TLS_BEGINS:
            self.serve_tls()
        elif connection.destination.port == NAMES_PORT and first in QUERY_BEGINS:
            serve_names(connection, self.parts.names)
        elif not self.is_for_tls() and self.looks_like_http():
            receive_timeout(connection.sock, 0)
            self.serve_http()
        else:
            self.reject()

    def reject(self) -> None:
        """Use a raw or passthrough route if one claims bytes of neither TLS nor HTTP, else record and reset."""
        receive_timeout(self.connection.sock, 0)
        route = self.opening()
        if self.try_without_reading(route, named=True):
            return
        note = f"{route} expects TLS, and this is none" if self.is_for_tls() else ""
        self.connection.refuse(self.connection.peek(FIRST_BYTES_KEPT), note)

    def is_for_tls(self) -> bool:
        route = self.opening()
        return route is not None and route.kind.needs_tls

    def first_byte(self) -> bytes:
        """Return the first byte, left unread; b"" where none came: the connection was served, or recorded and ended."""
        connection = self.connection
        receive_timeout(connection.sock, FIRST_BYTE_SECONDS)
        try:
            first = connection.peek(1)
        except BlockingIOError:
            receive_timeout(connection.sock, 0)
            # The client may wait for the server to speak first. Nothing more can be known about the host then, so the
            # dialled name counts as certain.
            if self.try_without_reading(self.opening(), named=True):
                return b""
            note = f"connected and sent nothing within {FIRST_BYTE_SECONDS:g} s"
            connection.record_tcp(b"", note)
            if self.await_late_byte(lambda: self.serve_first_bytes(connection.peek(1))):
                return connection.peek(1)
            return b""
        if not first:
            connection.record_tcp(b"", "connected and closed without sending a byte")
        return first

    def await_late_byte(self, go_on: Callable[[], None]) -> bool:
        """Keep a silent connection, such as a pool's, open where a route for HTTP or TLS claims it; reset any other."""
        connection = self.connection
        if silent_outcome(connection.attempt) == "unrouted":
            connection.reset()
            return False
        connection.end()
        return connection.await_begin(go_on)

    def looks_like_http(self) -> bool:
        """Whether the first bytes are a request line (RFC 9112 section 3); wait for as many as are needed to know.

        The wait is short where the connection may pass to a real server: that may speak a protocol whose first message
        looks like the start of a request line, and its client waits for an answer to it.
        """
        connection, route = self.connection, self.opening()
        passes_on = self.passes(route)
        receive_timeout(connection.sock, FIRST_BYTE_SECONDS if passes_on else STALLED_SECONDS)
        data = connection.peek(FIRST_BYTES_KEPT)
        while may_become_request(data):
            if REQUEST_LINE.match(data.lstrip(EMPTY_LINES)):
                return True
            wanted = len(data) + 1
            data = connection.peek(wanted, PEEK_ALL)
            if len(data) < wanted:
                return False
        return bool(REQUEST_LINE.match(data.lstrip(EMPTY_LINES)))

    def serve_http(self) -> None:
        """Serve the version of HTTP that ALPN agreed on; where it agreed on none, the one that the client begins."""
        tls = self.connection.destination.tls
        if tls is not None and tls.alpn == "h2":
            self.serve_http2()
        else:
            self.serve_http1(None if tls is not None and tls.alpn else self.serve_http2)

    def serve_http1(self, begin_http2: Callable[[bytes], None] | None) -> None:
        connection, idle_seconds = self.connection, self.parts.connections.idle_seconds
        proxying = None
        if connection.destination.tls is None:
            proxying = Proxying(connection, self.parts.names, self.serve_dialled)
        Http1Server(
            connection,
            self.answering(connection),
            idle_seconds=idle_seconds,
            begin_http2=begin_http2,
            proxying=proxying,
        ).serve()

    def serve_http2(self, first: bytes = b"") -> None:
        from pytest_egress.gateway.http2.server import Http2Server  # brings in h2: 38 ms

        parts = self.parts
        idle_seconds = parts.connections.idle_seconds
        Http2Server(
            self.connection, self.answering, parts.workers, idle_seconds=idle_seconds
        ).serve(first)

    def answering(self, carrier: Carrier) -> Answering:
        parts = self.parts
        return Answering(carrier, parts.recorder, parts.names, parts.upstreams)

    # QUIC.

    def serve_quic(self) -> None:
        """Make the handshake of QUIC with a certificate for the name in the SNI, and serve HTTP/3."""
        from pytest_egress.gateway.http3.handshake import shake_hands  # these bring in aioquic
        from pytest_egress.gateway.http3.server import Http3Server
        from pytest_egress.traffic.http.http3 import Http3

        connection, parts = self.connection, self.parts
        sock = connection.sock
        assert isinstance(sock, QuicSocket)
        connection.destination = self.destination(*sock.sent.server)
        http = Http3(monotonic, sock.first_id, self.identify, sock.give_id)
        try:
            shake_hands(connection, http)
        except OSError as error:
            if not connection.accounted:
                to = connection.destination
                # A ClientHello in QUIC does not tell its library: those that are known are of TLS over TCP.
                failure = broken_handshake(error, to.host, presented=to.presented)
                connection.fail_tls(*failure)
            return
        Http3Server(
            connection,
            self.answering,
            parts.workers,
            idle_seconds=parts.connections.idle_seconds,
            http=http,
        ).serve(NOTHING)

    def identify(self, hello: ClientHello | None) -> Identity:
        """The certificate that answers a ClientHello; OSError where it is refused, which has been recorded."""
        connection = self.connection
        if hello is not None and not set_host(connection, hello):
            raise ConnectionAbortedError("its server name is no host name")
        asked = connection.destination.host
        host, to = self.follow_server_name(), connection.destination
        presenting = presenting_route(connection.context.tables, host, to.port)
        to = connection.destination = connection.destination._replace(presented_by=presenting)
        return self.parts.authority.identity(asked, to.presented)

    # TLS.

    def serve_tls(self) -> None:
        """Terminate TLS with a certificate for the name in the SNI, and serve the decrypted bytes.

        A connection that a route takes unread, or that passes to the real upstream, keeps its TLS: the ClientHello
        tells its host, and is still unread.
        """
        connection, tables = self.connection, self.connection.context.tables
        dialled_as = connection.destination.host
        hello = read_hello(connection)
        if hello is None or not set_host(connection, hello):
            return
        receive_timeout(connection.sock, 0)
        asked, port = connection.destination.host, connection.destination.port
        host = self.follow_server_name()
        route, found_for = self.opening(), host
        if route is None:  # no route is for the SNI, but one may be for what was dialled
            route, found_for = opening(tables, dialled_as, port), dialled_as
        # A route that was found for the dialled name passes nothing through unread: the SNI asks for another host.
        known = route is None or found_for == host
        if known and self.try_without_reading(route, named=True):
            return
        presenting = presenting_route(tables, host, port)
        if presenting is None and route is not None and route.kind.needs_tls:
            presenting = presenting_route(tables, found_for, port)
        to = connection.destination = connection.destination._replace(presented_by=presenting)
        wishing = certificate_route(tables, (host, dialled_as), port)
        if to.presented.is_bad:  # a client that rejects it is not to be asked for anything
            wishing = None
        wish = None if wishing is None else wishing.client_certificate
        accepted = connection.sock
        try:
            context = self.parts.authority.context(
                asked,
                wish,
                protocols_for(route),
                to.presented,
                x25519=X25519 in hello.key_shares,
            )
            handshake(connection, context, self.parts.connections)
        except OSError as error:
            saw_nothing = not has_heard(connection.sock, accepted, connection.before)
            failure = broken_handshake(
                error, asked, hello, wishing, to.presented, saw_nothing=saw_nothing
            )
            connection.fail_tls(*failure)
            return
        if self.parts.connections.stopping:
            return
        if route is not None and route.kind.needs_tls:
            connection.sock.settimeout(None)
            # The route was declared while the handshake went on, which asked for none.
            if lacks_certificate(route, connection.destination.tls):
                connection.fail_tls(*no_client_certificate(asked, hello, route))
                return
            if to.presented.is_bad and not stays(connection):
                return
            connection.note_trust()
            if not self.serve_raw(route, found_for):
                connection.refuse(b"", f"{route} takes no more. {route.turns.ended}")
        elif self.awaits_request():
            self.serve_http()

    def follow_server_name(self) -> str:
        """Let a server name that has a CNAME, and no route, stand for the name that this leads to; return the host."""
        to, tables = self.connection.destination, self.connection.context.tables
        if to.server_name and any(table.leads for table in tables):
            names = self.parts.names.leading(to.server_name, to.address) or (to.server_name,)
            led = tuple(dict.fromkeys((*to.led, *names[1:])))
            host = keyed_on(tables, names, to.port)
            self.connection.destination = to._replace(host=host, led=led)
        return self.connection.destination.host

    def awaits_request(self) -> bool:
        """Wait for the first byte after the handshake, or for an error that reading will raise.

        A client that distrusts the CA closes here, with an alert or without. One that stays silent has connected
        before it has a request.

        Returns:
            False where the connection has been reset.
        """
        connection = self.connection
        is_bad = connection.destination.presented.is_bad
        seconds = REJECTION_SECONDS if is_bad else FIRST_BYTE_SECONDS
        if await_ready(connection.sock, select.POLLIN, seconds):
            return True
        note = f"sent nothing within {seconds:g} s of the handshake"
        connection.record_tls("silent", note)
        connection.note_trust()  # one that distrusts us would have left
        return self.await_late_byte(self.serve_http)


def protocols_for(route: InnerRoute | None) -> tuple[str, ...]:
    if route is None or not route.kind.needs_tls:
        return ALPN
    return route.alpn or HTTP1_ALONE


def may_become_request(data: bytes) -> bool:
    """Whether bytes are the unfinished start of a request line: empty lines (RFC 9112 section 2.2), method, target."""
    if len(data) >= FIRST_BYTES_KEPT:
        return False
    line = data.lstrip(EMPTY_LINES)
    method, space, target = line.partition(b" ")
    if not space:
        return not line or METHOD.fullmatch(line) is not None
    return METHOD.fullmatch(method) is not None and not {*b" \n"} & {*target}
