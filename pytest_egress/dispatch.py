"""Finds out what a connection is, and hands it on: to a raw route, to the real upstream, or to be read as HTTP.

What is known without reading decides first, so that protocols in which the server speaks first do not wait.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from pytest_egress.address import normalise_host
from pytest_egress.clienthello import ClientHello, bytes_needed, parse_client_hello
from pytest_egress.clock import monotonic
from pytest_egress.connection import Connection, receive_timeout
from pytest_egress.dns import tcp_frame, tcp_frames
from pytest_egress.errors import AddressError, ClientHelloError
from pytest_egress.exchange import TlsInfo
from pytest_egress.handshake import broken_handshake, no_client_certificate
from pytest_egress.http_server import HttpServer
from pytest_egress.hub import FIRST_BYTES_KEPT, NAMES_PORT, READ_BYTES, passes
from pytest_egress.raw_server import RawServer
from pytest_egress.routing import (
    Route,
    certificate_route,
    claimed,
    in_order,
    lacks_certificate,
    may_come_free,
    opening,
)

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

FIRST_BYTE_SECONDS: Final = 1.0  # a client that is silent for longer waits for the server to speak
TURN_SECONDS: Final = 5.0  # for what may be a port probe to end
HANDSHAKE_SECONDS: Final = 10.0  # for a whole ClientHello, and again for the handshake
STALLED_SECONDS: Final = 10.0  # for the next byte of what may become a request line
PEEK_ALL: Final = int(
    socket.MSG_PEEK | socket.MSG_WAITALL
)  # sleeps in the kernel until it is all there
METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,24}")
REQUEST_LINE: Final = re.compile(METHOD.pattern + rb" (/|\*|[A-Za-z][A-Za-z0-9+.-]*:|[^ ]+:\d)")
EMPTY_LINES: Final = b"\r\n"  # any of these
QUERY_BEGINS: Final = b"\x00\x01"  # the high byte of its length in TCP; no query has 512 bytes
TLS_BEGINS: Final = b"\x16"  # a handshake record (RFC 8446 section 5.1)


def serve(connection: Connection) -> None:
    """Serve a connection to its end."""
    Dispatcher(connection).serve()


class Dispatcher:
    """Looks at one connection until it is known what it is."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.hub = connection, connection.hub

    def serve(self) -> None:
        """By what was dialled; where that does not tell, by what the client says."""
        connection = self.connection
        try:
            dialled = self.hub.link.destination(connection.sock)
        except OSError as error:
            self.hub.complain(f"what a connection dialled cannot be known ({error})")
            return
        if dialled is None:  # the listener itself: no attempt to leave
            return
        connection.address, connection.port = dialled
        connection.dialled = self.hub.name(connection.address)
        connection.host = self.keyed_on(connection.dialled)
        self.await_turn()
        if not self.hand_on(self.opening(), named=not self.may_be_named_yet()):
            self.listen()

    def await_turn(self) -> None:
        """Wait for a port probe to end that has the last of a raw route's `times`: this may be what follows it."""
        host, port = self.connection.host, self.connection.port
        self.connection.ledger.wait_for(
            lambda: not may_come_free(self.connection.place.tables, host, port), TURN_SECONDS
        )

    def may_be_named_yet(self) -> bool:
        """Whether a route could claim it by what the client is still to say: the SNI, or Host."""
        connection = self.connection
        if connection.dialled == connection.address:
            return True
        routes = (r for r in in_order(connection.place.tables) if not r.removed and r.kind != "dns")
        return any(route.parsed_address.port in (None, connection.port) for route in routes)

    def keyed_on(self, dialled: str) -> str:
        """The name that was dialled; its address where a route is declared for that alone."""
        tables, address = self.connection.place.tables, self.connection.address
        port = self.connection.port
        if not claimed(tables, dialled, port) and claimed(tables, address, port):
            return address
        return dialled

    def opening(self) -> Route[Any] | None:
        """The route that says what the connection is."""
        connection = self.connection
        return opening(connection.place.tables, connection.host, connection.port)

    def hand_on(self, route: Route[Any] | None, *, named: bool) -> bool:
        """Serve what need not be read; False where it has to be.

        Args:
            named: Whether it is known which host is meant.
        """
        connection = self.connection
        if route is not None and route.kind == "intercept_tcp":
            RawServer(connection).serve(route, connection.host)
        elif (route is not None or named) and passes(
            connection.place, route, connection.hosts, connection.port
        ):
            RawServer(connection).pass_on(route)
        else:
            return False
        return True

    def listen(self) -> None:
        """Wait for the client to speak, and serve what its first bytes tell."""
        if first := self.first_byte():
            self.take_up(first)

    def take_up(self, first: bytes) -> None:
        """Serve what the client's first bytes tell.

        Args:
            first: The first of them, left unread.
        """
        connection = self.connection
        if first == TLS_BEGINS:
            self.serve_tls()
        elif connection.port == NAMES_PORT and first in QUERY_BEGINS:
            self.serve_names()
        elif not self.is_for_tls() and self.looks_like_http():
            receive_timeout(connection.sock, 0)
            HttpServer(connection).serve()
        else:
            self.turn_down()

    def turn_down(self) -> None:
        """Serve what is neither TLS nor HTTP: nobody does, as a rule."""
        receive_timeout(self.connection.sock, 0)
        route = self.opening()
        if self.hand_on(route, named=True):
            return
        note = f"{route} expects TLS, and this is none" if self.is_for_tls() else ""
        self.connection.refuse(self.connection.peek(FIRST_BYTES_KEPT), note)

    def is_for_tls(self) -> bool:
        """Whether nothing but TLS can be served here."""
        route = self.opening()
        return route is not None and route.kind == "intercept_tls"

    def first_byte(self) -> bytes:
        """The first byte, left unread; b"" when there is none and the connection has been dealt with."""
        connection = self.connection
        receive_timeout(connection.sock, FIRST_BYTE_SECONDS)
        try:
            first = connection.peek(1)
        except BlockingIOError:
            receive_timeout(connection.sock, 0)
            if self.hand_on(self.opening(), named=True):
                return b""
            note = f"connected and sent nothing within {FIRST_BYTE_SECONDS:g} s"
            connection.record_tcp(b"", note)
            return self.await_late_byte(lambda: self.take_up(connection.peek(1)))
        if not first:
            connection.record_tcp(b"", "connected and closed without sending a byte")
        return first

    def await_late_byte(self, go_on: Callable[[], None]) -> bytes:
        """Give a silent client time where a route may answer it: it has connected ahead of its need.

        Args:
            go_on: See `Connection.await_begin`.
        """
        connection = self.connection
        if connection.silent_outcome() == "unrouted":
            connection.reset()
            return b""
        connection.end()
        return connection.await_begin(go_on)

    def looks_like_http(self) -> bool:
        """Whether it begins as a request does (RFC 9112 section 3); waits for as much as that takes.

        Where a real server may be meant that speaks another protocol, a client that stalls waits for its answer.
        """
        connection, route = self.connection, self.opening()
        passes_on = passes(connection.place, route, connection.hosts, connection.port)
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

    def serve_names(self) -> None:
        """DNS over TCP (RFC 7766)."""
        connection, rest = self.connection, b""
        receive_timeout(connection.sock, 0)
        while data := connection.sock.recv(READ_BYTES):
            queries, rest = tcp_frames(rest + data)
            for query in queries:
                reply = self.hub.answer_query(query, over_tcp=True)
                if reply.no_query:
                    connection.refuse(query[:FIRST_BYTES_KEPT], reply.no_query)
                    return
                connection.accounted = True
                if reply.wire:
                    connection.sock.sendall(tcp_frame(reply.wire))
            connection.end()
        if rest:
            connection.record_tcp(rest[:FIRST_BYTES_KEPT], "closed within a DNS query")

    # TLS.

    def serve_tls(self) -> None:
        """Serve what is in TLS, under a certificate for the name that the client asks for."""
        connection = self.connection
        dialled_as = connection.host
        hello = self.read_hello()
        if hello is None or not self.take_name(hello):
            return
        receive_timeout(connection.sock, 0)
        route, found_for = self.opening(), connection.host
        if route is None:  # by no name of its own: then by what was dialled
            route, found_for = (
                opening(connection.place.tables, dialled_as, connection.port),
                dialled_as,
            )
        known = route is None or found_for == connection.host
        if known and self.hand_on(route, named=True):
            return
        hosts = (connection.host, dialled_as)
        wishing = certificate_route(connection.place.tables, hosts, connection.port)
        wish = None if wishing is None else wishing.client_certificate
        about = connection.host, connection.hello
        try:
            self.shake_hands(self.hub.authority.context(connection.host, wish))
        except OSError as error:
            connection.fail_tls(*broken_handshake(error, *about, wishing))
            return
        if self.hub.stopping:
            return
        if route is not None and route.kind == "intercept_tls":
            if lacks_certificate(route, connection.tls):  # it was declared within the handshake
                connection.fail_tls(*no_client_certificate(*about, route))
                return
            connection.shook_hands()
            RawServer(connection).serve(route, found_for)
        elif self.awaits_request():
            HttpServer(connection).serve()

    def shake_hands(self, context: ssl.SSLContext) -> None:
        """Make it a TLS connection.

        Raises:
            OSError: The handshake failed, or the connection was cut before it.
        """
        connection = self.connection
        connection.sock.settimeout(HANDSHAKE_SECONDS)  # SO_RCVTIMEO does nothing under ssl
        tls = context.wrap_socket(connection.sock, server_side=True, do_handshake_on_connect=False)
        with self.hub.lock:  # the first object is detached: swap, and look again for an end
            connection.sock = tls
            if self.hub.stopping:
                return
            if connection.is_cut:
                raise ConnectionAbortedError("it was cut before its handshake")
        tls.do_handshake()
        tls.settimeout(None)
        cipher = tls.cipher()
        connection.tls = TlsInfo(
            version=tls.version() or "",
            cipher=cipher[0] if cipher else "",
            alpn=tls.selected_alpn_protocol(),
            client_certificate=tls.getpeercert(binary_form=True),
        )

    def awaits_request(self) -> bool:
        """Wait for what follows the handshake; False when nothing will and the connection has been dealt with."""
        connection = self.connection
        connection.sock.settimeout(FIRST_BYTE_SECONDS)
        try:
            connection.peek(1)
        except TimeoutError:
            note = f"sent nothing within {FIRST_BYTE_SECONDS:g} s of the handshake"
            connection.record_tls("silent", note)
            connection.shook_hands()  # one that distrusts us would have left
            connection.sock.settimeout(None)
            return bool(self.await_late_byte(lambda: HttpServer(connection).serve()))
        except OSError:
            pass  # the read that follows says what it meant
        connection.sock.settimeout(None)
        return True

    def read_hello(self) -> ClientHello | None:
        """The whole ClientHello, left unread; the kernel wakes us when it is there."""
        connection = self.connection
        deadline, needed = monotonic() + HANDSHAKE_SECONDS, 5
        while (left := deadline - monotonic()) > 0:
            receive_timeout(connection.sock, left)
            try:
                data = connection.peek(needed, PEEK_ALL)
                if len(data) < needed:
                    break
                if more := bytes_needed(data):
                    needed = more
                    continue
                return parse_client_hello(data)
            except ClientHelloError as error:
                connection.fail_tls("protocol", f"it sent no ClientHello: {error}")
                return None
            except OSError:
                break
        connection.fail_tls("incomplete", "it ended, or stopped, within its ClientHello")
        return None

    def take_name(self, hello: ClientHello) -> bool:
        """Key everything that follows on the SNI where there is one."""
        connection = self.connection
        connection.hello, connection.sni = hello, hello.sni
        connection.greeted = connection.started
        if hello.sni is None:
            return True
        try:
            connection.host = normalise_host(hello.sni)
        except AddressError as error:
            connection.fail_tls("sni", f"its server name is no host name: {error}")
            return False
        return True


def may_become_request(data: bytes) -> bool:
    """Whether more of the same may be a request line: empty lines (RFC 9112 section 2.2), a method, a target begun."""
    if len(data) >= FIRST_BYTES_KEPT:
        return False
    line = data.lstrip(EMPTY_LINES)
    method, space, target = line.partition(b" ")
    if not space:
        return not line or METHOD.fullmatch(line) is not None
    return METHOD.fullmatch(method) is not None and not {*b" \n"} & {*target}
