"""The server in the test process: accepts what the sidecar's sockets catch, and gives every attempt an answer.

One thread reads the link (connections, DNS, packets, tampering, the sidecar's death); each connection has a thread of
its own, with blocking sockets. Only the owning thread closes a socket; others wake it with `shutdown`. This module
knows nothing of containers or engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import re
import resource
import select
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

import h11

from pytest_egress.address import normalise_host
from pytest_egress.agent.packets import Packet, parse_packets
from pytest_egress.clienthello import ClientHello, bytes_needed, parse_client_hello
from pytest_egress.dns import Resolver, tcp_frame, tcp_frames
from pytest_egress.errors import AddressError, ClientHelloError
from pytest_egress.exchange import (
    DnsQuery,
    Entry,
    Exchange,
    Headers,
    Outcome,
    PacketAttempt,
    Request,
    Response,
    TcpAttempt,
    TlsFailure,
    TlsInfo,
    response_from,
)
from pytest_egress.handshake import broken_handshake, silent_after_handshake
from pytest_egress.http1 import (
    MAX_BODY_BYTES,
    READ_BYTES,
    Http1,
    RequestTooLargeError,
    split_authority,
)
from pytest_egress.ledger import Activity, Ledger, Place
from pytest_egress.link import tampering
from pytest_egress.report import blocked_body, handler_error_body, refused_body, unrouted_body
from pytest_egress.routing import Route, claimed, decide, nearest_by_address

if TYPE_CHECKING:
    from pytest_egress.authority import Authority
    from pytest_egress.http1 import Head

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

FIRST_BYTE_SECONDS: Final = 1.0  # a client that is silent for longer waits for the server to speak
HANDSHAKE_SECONDS: Final = 10.0  # for a whole ClientHello, and again for the handshake
LINGER_SECONDS: Final = 1.0  # for a client to read a refusal: unread data resets the connection
MAX_CONNECTIONS: Final = 1000  # of a target: 100 MB of thread stacks; more wait in the backlog
ROOM_SECONDS: Final = 0.05  # for a connection to end before names and packets get their turn
NO_ROOM: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}  # of accept(2)
FIRST_BYTES_KEPT: Final = 64
PEEK: Final = int(socket.MSG_PEEK)
PEEK_ALL: Final = int(
    socket.MSG_PEEK | socket.MSG_WAITALL
)  # sleeps in the kernel until it is all there
BATCH: Final = 256  # datagrams read before connections get their turn again
METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,24}")
REQUEST_LINE: Final = re.compile(METHOD.pattern + rb" (/|\*|[A-Za-z][A-Za-z0-9+.-]*:|[^ ]+:\d)")
QUERY_BEGINS: Final = b"\x00\x01"  # the high byte of its length in TCP; no query has 512 bytes


class Link(Protocol):
    """The sockets of a target's network namespace; see `DescriptorLink`."""

    @property
    def tcp(self) -> Sequence[socket.socket]:
        """Listeners: every TCP connection of the target."""

    @property
    def dns(self) -> Sequence[socket.socket]:
        """UDP sockets: every DNS query."""

    @property
    def packets(self) -> socket.socket:
        """Packets of other protocols, as the kernel's log gives them."""

    @property
    def monitors(self) -> Sequence[socket.socket]:
        """Events of what captures, for `tampering`."""

    @property
    def channel(self) -> socket.socket:
        """At its end of file the sidecar has ended."""

    @property
    def ipv6(self) -> bool:
        """Whether the target has IPv6."""

    def destination(self, sock: socket.socket, /) -> tuple[str, int] | None:
        """What the client of an accepted connection dialled; None for the listener itself."""

    def connect(self, port: int, timeout: float, /) -> socket.socket:
        """A connection to a port of the target."""

    def close(self) -> None:
        """Close every socket."""


class Site(Protocol):
    """What the gateway knows of the target it serves."""

    @property
    def name(self) -> str:
        """As in the ledger."""
        ...

    def place(self) -> Place:
        """Where what it attempts now belongs."""
        ...

    def lost(self) -> None:
        """The sidecar died under a running target."""
        ...


class Gateway:
    """Serves one target until it is stopped.

    Args:
        link: The sidecar's sockets; the gateway closes it.
        site: The target, and where its attempts belong.
        authority: Issues the leaf certificates.
        ledger: Where everything is recorded.
    """

    def __init__(self, link: Link, site: Site, authority: Authority, ledger: Ledger) -> None:
        self.link, self.site, self.authority, self.ledger = link, site, authority, ledger
        self.lock = threading.RLock()  # held, nobody waits for the ledger's
        self.room = threading.Condition(self.lock)
        self.connections: set[Connection] = set()
        self.stopping = False
        self._resolver = Resolver(ipv6=link.ipv6)
        self._cap = min(MAX_CONNECTIONS, free_descriptors() // 2)
        self._flushes: list[threading.Event] = []
        self._reads = False
        self._waker, self._wake = socket.socketpair()
        self._reader = threading.Thread(target=self._run, name=f"egress {site.name}", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        others = (self.link.packets, *self.link.monitors, self._wake)
        for sock in (*self.link.tcp, *self.link.dns, *others):
            sock.setblocking(False)
        self._reads = True
        self._reader.start()

    def flush(self, timeout: float = 5.0) -> None:
        """Return when everything that had arrived has been taken from the link. Handlers may still run.

        Args:
            timeout: Seconds.
        """
        done = threading.Event()
        with self.lock:
            if not self._reads or self.stopping:
                return
            self._flushes.append(done)
            self._waker.send(b"f")
        done.wait(timeout)

    def unread(self) -> bool:
        """Whether an idle connection has bytes, or its end, waiting for its thread."""
        with self.lock:
            idle = [c.sock for c in self.connections if c.idle_since is not None]
            poller = select.poll()
            for sock in idle:
                with contextlib.suppress(ValueError):  # closed meanwhile
                    poller.register(sock, select.POLLIN)
            return bool(poller.poll(0))

    def stop(self, seconds: float = 1.0) -> list[str]:
        """Close every connection and the link; again is harmless.

        Args:
            seconds: How long threads may take to end.

        Returns:
            Where a thread that did not end stands, one text each; empty as a rule.
        """
        deadline = time.monotonic() + seconds
        with self.lock:
            self.stopping = True
            self.room.notify_all()
            for connection in self.connections:
                connection.wake()
            self._waker.close()
        if self._reader.ident is not None:
            self._reader.join(seconds)
        with self.lock:
            while self.connections and (left := deadline - time.monotonic()) > 0:
                self.room.wait(left)
            stuck = [connection.ident for connection in self.connections]
        self._wake.close()
        self.link.close()
        return [text for ident in stuck if (text := where_stands(ident))]

    # The reader's thread.

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # a defect of ours must fail the test, not hang its target
            self._shut_listeners()
            self.complain(f"the gateway failed: {trace(error)}")
        finally:
            with self.lock:
                self._reads = False
            self._flushed()

    def _read(self) -> None:
        poller, work = select.poll(), self._sources()
        for descriptor in work:
            poller.register(descriptor, select.POLLIN)
        poller.register(self.link.channel, select.POLLRDHUP)
        while not self.stopping:
            ready = dict(poller.poll(0 if self._flushes else None))
            if self.link.channel.fileno() in ready:
                self._lost()
                return
            for descriptor in ready.keys() & work.keys():
                work[descriptor]()
            if not ready:
                self._flushed()

    def _sources(self) -> dict[int, Callable[[], None]]:
        """What to do when a descriptor can be read."""
        work: dict[int, Callable[[], None]] = {self._wake.fileno(): self._woken}

        def add(sock: socket.socket, action: Callable[[socket.socket], None]) -> None:
            work[sock.fileno()] = lambda: action(sock)

        for sock in self.link.tcp:
            add(sock, self._accept)
        for sock in self.link.dns:
            add(sock, self._answer_names)
        add(self.link.packets, self._record_packets)
        for sock in self.link.monitors:
            add(sock, self._watch)
        return work

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)

    def _flushed(self) -> None:
        with self.lock:
            done, self._flushes = self._flushes, []
        for event in done:
            event.set()

    def _lost(self) -> None:
        if not self.stopping:
            self._shut_listeners()  # capture goes on without the agent; nobody would answer
            self.site.lost()

    def _shut_listeners(self) -> None:
        for listener in self.link.tcp:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        if not self._has_room():
            return  # the backlog waits
        try:
            sock, client = listener.accept()
        except OSError as error:  # as a rule the client has gone
            if error.errno in NO_ROOM:
                self._make_room()
            return
        sock.setblocking(True)
        sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # or each small chunk waits for 40 ms
        connection = Connection(self, sock, client[:2])
        with self.lock:
            if self.stopping:
                connection.close()
                return
            self.connections.add(connection)
        try:
            connection.start()
        except RuntimeError:  # no thread can be started
            connection.close()

    def _has_room(self) -> bool:
        with self.lock:
            if len(self.connections) >= self._cap:
                self._make_room()
            return len(self.connections) < self._cap and not self.stopping

    def _make_room(self) -> None:
        """Evict the longest idle connection, or silent ones starve the next; wait for one to end."""
        with self.lock:
            idle = [c for c in self.connections if c.idle_since is not None]
            if idle:
                min(idle, key=lambda c: c.idle_since or 0).wake()
            self.room.wait(ROOM_SECONDS)

    def _answer_names(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                query, client = sock.recvfrom(65535)
            except OSError:
                return
            if reply := self.answer_query(query):
                with contextlib.suppress(OSError):
                    sock.sendto(reply, client)

    def answer_query(self, query: bytes) -> bytes | None:
        """Answer and record one DNS message; None where it cannot be answered."""
        with self.lock:
            reply = self._resolver.answer(query)
        if reply is None:
            return None
        entry = DnsQuery(
            **self.about(reply.question, None, "recorded"),
            type=reply.type,
            answer=reply.addresses,
            rcode=reply.rcode,
        )
        self.ledger.record(self.site.place().window, entry)
        return reply.wire

    def name(self, address: str) -> str:
        """The name that an address was given out for, or the address itself."""
        with self.lock:
            return self._resolver.names.name(address) or address

    def _record_packets(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                data = sock.recv(65536)
            except OSError:  # ENOBUFS says that the kernel lost some: the sequence numbers show it
                return
            for packet in parse_packets(data):
                self._record_packet(packet)

    def _record_packet(self, packet: Packet) -> None:
        place, host = self.site.place(), self.name(packet.destination)
        outcome = self.outcome(place, host, packet.port or 0)
        if packet.protocol_name == "TCP":  # of a connection that has been seen
            outcome = "recorded"
        entry = PacketAttempt(
            **self.about(host, packet.port, outcome),
            protocol=packet.protocol_name,
            address=packet.destination,
            size=packet.size,
            first_bytes=packet.payload[:FIRST_BYTES_KEPT],
        )
        self.ledger.record(place.window, entry)

    def _watch(self, monitor: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            if (text := tampering(monitor)) and not self.stopping:
                self.complain(text)

    # What connections share.

    def complain(self, text: str) -> None:
        """Fail the test, whatever else happened."""
        with self.ledger.changed:
            self.site.place().window.complaints.append(f"{self.site.name}: {text}")
            self.ledger.changed.notify_all()

    def about(
        self, host: str, port: int | None, outcome: Outcome, started: float | None = None
    ) -> dict[str, Any]:
        """The fields that every entry has; it began now where nothing else is known."""
        return {
            "container": self.site.name,
            "started": self.ledger.now() if started is None else started,
            "outcome": outcome,
            "host": host,
            "port": port,
        }

    def outcome(
        self, place: Place, host: str, port: int, at_claimed: Outcome = "unrouted"
    ) -> Outcome:
        """What an attempt means that no handler answers.

        Args:
            at_claimed: Where a route of HTTP claims the address.
        """
        route = claimed(place.tables, host, port)
        if route is not None:
            return "blocked" if route.kind == "block" else at_claimed
        return "unrouted" if place.window.policy == "fail" else "blocked"


class Connection(threading.Thread):
    """One connection of a target, from its first byte to its last.

    Attributes:
        idle_since: When the last thing that went on in it ended, by `time.monotonic`; None while something does.
        started: When what goes on began, as entries have it.
        accounted: Whether an entry, or a byte of a request, tells of it: an attempt never vanishes.
        is_cut: Whether its client is to see that it did not end well.
    """

    def __init__(self, gateway: Gateway, sock: socket.socket, client: tuple[str, int]) -> None:
        super().__init__(name=f"egress {gateway.site.name} {client[1]}", daemon=True)
        self.gateway, self.ledger, self.site = gateway, gateway.ledger, gateway.site
        self.sock, self.client = sock, client
        self.idle_since: float | None = None
        self.started = 0.0
        self.accounted, self.is_cut = False, False
        self.address, self.port = "", 0
        self.sni: str | None = None
        self.tls: TlsInfo | None = None
        self.host = ""
        self.activity = Activity()
        self._place: Place | None = None
        self.begin()

    # Threads and windows.

    def begin(self) -> None:
        """Something begins: it belongs to the window that is open now."""
        self.started = self.ledger.now()
        self.activity.thread = self.ident
        with self.ledger.changed:  # or the window could close in between
            self._place = self.site.place()
            self.ledger.begin(self._place.window, self.activity)
        self.idle_since = None

    def end(self) -> None:
        """It has ended: the connection is idle."""
        self.idle_since = time.monotonic()
        self.activity.route = None
        if self._place is not None:
            self.ledger.end(self._place.window, self.activity)
            self._place = None

    def await_begin(self) -> bytes:
        """Wait, idle, for the first byte of something new; b"" at the end of the connection.

        It is left unread until it belongs to a window, so that whoever closes one sees it (`Gateway.unread`).
        """
        if first := self.peek(1):
            self.begin()
        return first

    def reset(self) -> None:
        """Let `close` send RST: the client sees "connection reset" at once (SO_LINGER, socket(7))."""
        self.is_cut = True
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def wake(self) -> None:
        """Make its thread stop; any thread, the gateway's lock held."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown: that drops the TLS layer first, and a racing send goes out as plain text.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """End it; the owning thread, or none yet."""
        with self.gateway.lock:
            self.gateway.connections.discard(self)
            self.sock.close()
            self.gateway.room.notify_all()
        self.end()
        with self.ledger.changed:
            self.ledger.changed.notify_all()  # whoever waits for the last connection

    def run(self) -> None:
        """Serve it to its end."""
        self.activity.thread = self.ident
        try:
            self.serve()
        except (OSError, h11.ProtocolError) as error:  # ssl.SSLError is an OSError
            if not self.accounted:
                self.record_tcp(b"", f"broke off: {error}")
        except (
            Exception
        ) as error:  # a defect of ours must fail the test, not vanish with its thread
            self.gateway.complain(f"the gateway failed: {trace(error)}")
        finally:
            self.close()

    @property
    def place(self) -> Place:
        """Where what goes on now belongs."""
        return self._place or self.site.place()

    # What the connection is.

    def serve(self) -> None:
        """Find out what it is, and serve that."""
        try:
            dialled = self.gateway.link.destination(self.sock)
        except OSError as error:
            self.gateway.complain(f"what a connection dialled cannot be known ({error})")
            return
        if dialled is None:  # the listener itself: no attempt to leave
            return
        self.address, self.port = dialled
        self.host = self.gateway.name(self.address)
        first = self.first_byte()
        if first == b"\x16":  # a TLS handshake record (RFC 8446 section 5.1)
            self.serve_tls()
        elif first and self.port == 53 and first in QUERY_BEGINS:
            self.serve_names()
        elif first and self.looks_like_http():
            receive_timeout(self.sock, 0)
            self.serve_http()
        elif first:
            self.refuse(self.peek(FIRST_BYTES_KEPT))

    def first_byte(self) -> bytes:
        """The first byte, left unread; b"" when there is none and the connection has been dealt with."""
        receive_timeout(self.sock, FIRST_BYTE_SECONDS)
        try:
            first = self.peek(1)
        except BlockingIOError:
            self.record_tcp(b"", f"connected and sent nothing within {FIRST_BYTE_SECONDS:g} s")
            receive_timeout(self.sock, 0)
            return self.await_late_byte()
        if not first:
            self.record_tcp(b"", "connected and closed without sending a byte")
        return first

    def await_late_byte(self) -> bytes:
        """Give a silent client time where a route may answer it: it has connected ahead of its need."""
        route = claimed(self.place.tables, self.host, self.port)
        if route is None or route.kind == "block":
            self.reset()
            return b""
        self.end()
        return self.await_begin()

    def peek(self, size: int, flags: int = PEEK) -> bytes:
        """Up to so many bytes of what TCP carries, left unread; b"" at its end."""
        return socket.socket.recv(self.sock, size, flags)

    def looks_like_http(self) -> bool:
        """Whether it begins as a request does (RFC 9112 section 3); waits for as much as that takes."""
        receive_timeout(self.sock, HANDSHAKE_SECONDS)
        data = self.peek(FIRST_BYTES_KEPT)
        while METHOD.fullmatch(data) or may_be_request_line(data):
            if REQUEST_LINE.match(data):
                return True
            wanted = len(data) + 1
            data = self.peek(wanted, PEEK_ALL)
            if len(data) < wanted:
                return False
        return bool(REQUEST_LINE.match(data))

    def record_tcp(self, first_bytes: bytes, note: str) -> None:
        """Record a connection that is neither TLS nor HTTP; silence is no offence at a claimed address."""
        silent: Outcome = "unrouted" if first_bytes else "recorded"
        outcome = self.gateway.outcome(self.place, self.host, self.port, at_claimed=silent)
        about = self.gateway.about(self.host, self.port, outcome, self.started)
        entry = TcpAttempt(**about, address=self.address, first_bytes=first_bytes, note=note)
        self.record(entry)

    def record(self, entry: Entry) -> None:
        """Put an entry into the window; what our own stop brings about is none."""
        self.accounted = True
        if not self.gateway.stopping:
            self.ledger.record(self.place.window, entry)

    def refuse(self, first_bytes: bytes, note: str = "") -> None:
        """Record what is neither TLS nor HTTP, and reset it."""
        self.record_tcp(first_bytes, note)
        self.reset()

    def serve_names(self) -> None:
        """DNS over TCP (RFC 7766)."""
        receive_timeout(self.sock, 0)
        rest = b""
        while data := self.sock.recv(READ_BYTES):
            queries, rest = tcp_frames(rest + data)
            for query in queries:
                if (reply := self.gateway.answer_query(query)) is None:
                    self.refuse(query[:FIRST_BYTES_KEPT])
                    return
                self.accounted = True
                self.sock.sendall(tcp_frame(reply))
            self.end()
        if rest:
            self.record_tcp(rest[:FIRST_BYTES_KEPT], "closed within a DNS query")

    # TLS.

    def serve_tls(self) -> None:
        """Serve HTTP in TLS, under a certificate for the name that the client asks for."""
        hello = self.read_hello()
        if hello is None or not self.take_name(hello):
            return
        receive_timeout(self.sock, 0)
        context = self.gateway.authority.context(self.host)
        try:
            self.shake_hands(context)
        except OSError as error:
            self.fail_tls(*broken_handshake(error, self.host))
            return
        if not self.gateway.stopping and self.awaits_request():
            self.serve_http()

    def shake_hands(self, context: ssl.SSLContext) -> None:
        """Make it a TLS connection."""
        self.sock.settimeout(HANDSHAKE_SECONDS)  # SO_RCVTIMEO does nothing under ssl
        tls = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        with (
            self.gateway.lock
        ):  # wrap_socket detached the first object: swap, and look again for a stop
            self.sock = tls
            if self.gateway.stopping:
                return
        tls.do_handshake()
        cipher = tls.cipher()
        self.tls = TlsInfo(
            version=tls.version() or "",
            cipher=cipher[0] if cipher else "",
            alpn=tls.selected_alpn_protocol(),
        )

    def awaits_request(self) -> bool:
        """Wait for what follows the handshake; False when nothing will and the connection has been dealt with."""
        self.sock.settimeout(FIRST_BYTE_SECONDS)
        try:
            self.peek(1)
        except TimeoutError:
            note = f"sent nothing within {FIRST_BYTE_SECONDS:g} s of the handshake"
            self.record_tls("silent", note)
            self.sock.settimeout(None)
            return bool(self.await_late_byte())
        except OSError:
            pass  # the read that follows says what it meant
        self.sock.settimeout(None)
        return True

    def read_hello(self) -> ClientHello | None:
        """The whole ClientHello, left unread; the kernel wakes us when it is there."""
        deadline, needed = time.monotonic() + HANDSHAKE_SECONDS, 5
        while (left := deadline - time.monotonic()) > 0:
            receive_timeout(self.sock, left)
            try:
                data = self.peek(needed, PEEK_ALL)
                if len(data) < needed:
                    break
                if more := bytes_needed(data):
                    needed = more
                    continue
                return parse_client_hello(data)
            except ClientHelloError as error:
                self.fail_tls("protocol", f"it sent no ClientHello: {error}")
                return None
            except OSError:
                break
        self.fail_tls("incomplete", "it ended, or stopped, within its ClientHello")
        return None

    def take_name(self, hello: ClientHello) -> bool:
        """Key everything that follows on the SNI where there is one."""
        self.sni = hello.sni
        if hello.sni is None:
            return True
        try:
            self.host = normalise_host(hello.sni)
        except AddressError as error:
            self.fail_tls("sni", f"its server name is no host name: {error}")
            return False
        return True

    def fail_tls(self, reason: str, note: str) -> None:
        """Record a TLS connection that will never become a request, and reset it."""
        self.record_tls(reason, note)
        self.reset()

    def record_tls(self, reason: str, note: str) -> None:
        """Record a TLS connection that has not become a request."""
        outcome = self.gateway.outcome(self.place, self.host, self.port, at_claimed="recorded")
        about = self.gateway.about(self.host, self.port, outcome, self.started)
        self.record(
            TlsFailure(**about, address=self.address, sni=self.sni, reason=reason, note=note)
        )

    # HTTP.

    def serve_http(self) -> None:
        """Serve one request after the other."""
        http, exchange = Http1(), HttpExchange(self)
        self.started = self.ledger.now()  # what came before was the connection's, not the request's
        try:
            while (head := self.read_head(http)) is not None and exchange.answer(http, head):
                if not http.has_begun:
                    self.end()
                else:  # sent before its turn: it has been read in this window, and so has begun in it
                    self.started = self.ledger.now()
        except h11.RemoteProtocolError as error:
            text = f"the request cannot be read: {error}"
            self.refuse_http(http, error.error_status_hint, text)
        self.say_goodbye()

    def read_head(self, http: Http1) -> Head | None:
        """The next request's head, or None at the end of the connection."""
        while (head := http.read_head()) is None:
            if http.closed:
                return None
            if self._place is None:
                self.await_begin()
            http.receive(self.read(http))
        return head

    def read(self, http: Http1) -> bytes:
        """What comes next of a head; b"" at the end of the connection.

        Clients that do not trust us break off here, with an alert or without a word.
        """
        try:
            data = self.sock.recv(READ_BYTES)
        except OSError as error:
            if self.tls and not self.accounted:
                self.fail_tls(*broken_handshake(error, self.host))
            elif http.has_begun:
                self.record_tcp(b"", f"broke off within the head of a request: {error}")
            raise
        if data:
            self.accounted = True
        elif self.tls and not self.accounted:
            self.fail_tls(*silent_after_handshake(self.host))
        return data

    def refuse_http(self, http: Http1, status_code: int, text: str) -> None:
        """Record what cannot be read as HTTP/1.1, say so, and close."""
        outcome = self.gateway.outcome(self.place, self.host, self.port)
        about = self.gateway.about(self.host, self.port, outcome, self.started)
        self.record(TcpAttempt(**about, address=self.address, note=text))
        self.write_refusal(http, status_code, text)

    def write_refusal(self, http: Http1, status_code: int, text: str) -> None:
        """Answer, where that is still possible, and let the client read it."""
        with contextlib.suppress(OSError):
            self.sock.sendall(http.refusal(status_code, text, http_date(int(self.ledger.now()))))
            self.linger()

    def say_goodbye(self) -> None:
        """Tell a TLS client that this is the end (close_notify, RFC 8446 section 6.1), not a cut."""
        if isinstance(self.sock, ssl.SSLSocket) and not self.is_cut:
            with contextlib.suppress(OSError, ValueError):
                self.sock.settimeout(0)  # its own is not waited for
                self.sock.unwrap()

    def linger(self) -> None:
        """Let the client read an answer while what it still sends is thrown away (RFC 9112 section 9.6)."""
        deadline = time.monotonic() + LINGER_SECONDS
        self.say_goodbye()
        socket.socket.shutdown(self.sock, socket.SHUT_WR)
        self.sock.settimeout(LINGER_SECONDS)
        while time.monotonic() < deadline and socket.socket.recv(self.sock, READ_BYTES):
            pass


class BodyError(Exception):
    """A response could not be sent, and not for the client's sake; the exchange has the error."""


class HttpExchange:
    """Reads one request after the other of a connection, and answers it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.gateway, self.ledger = connection.gateway, connection.ledger

    def answer(self, http: Http1, head: Head) -> bool:
        """Read the body, find the route, send its answer; False when the connection is over."""
        connection = self.connection
        if head.is_http2_preface:
            text = "the client speaks HTTP/2 without having been offered it"
            connection.refuse_http(http, 505, text)
            return False
        try:
            body, trailers = self.read_body(http, head)
        except RequestTooLargeError:
            text = f"the body is over MAX_BODY_BYTES, {MAX_BODY_BYTES} bytes"
            return self.refuse_body(http, head, 413, text, at_claimed="unrouted")
        except (OSError, h11.RemoteProtocolError) as error:
            text = f"the body broke off after {len(http.body_so_far)} bytes ({error})"
            return self.refuse_body(http, head, 400, text, at_claimed="recorded")
        request = self.request(head, body, trailers)
        about = self.gateway.about(request.host, request.port, "unrouted", connection.started)
        entry = Exchange(**about, request=request)
        response = self.respond(entry, request, head)
        entry.response, entry.duration = response, self.ledger.now() - entry.started
        if entry.route is not None and entry.outcome == "routed" and entry.error is None:
            self.ledger.count(entry.route, connection.place.window, entry)
        return self.send(http, entry, response) and http.next_request()

    def read_body(self, http: Http1, head: Head) -> tuple[bytes, Headers]:
        """The whole body and its trailers."""
        if (head.expected or 0) > MAX_BODY_BYTES:
            raise RequestTooLargeError
        if interim := http.interim():
            self.connection.sock.sendall(interim)
        while (whole := http.read_body()) is None:
            http.receive(self.connection.sock.recv(READ_BYTES))
        return whole

    def refuse_body(
        self, http: Http1, head: Head, status_code: int, text: str, at_claimed: Outcome
    ) -> bool:
        """Record a request whose body is not whole: an attempt all the same; the connection closes."""
        connection = self.connection
        request = self.request(head, http.body_so_far, Headers())
        outcome = self.gateway.outcome(connection.place, request.host, request.port, at_claimed)
        about = self.gateway.about(request.host, request.port, outcome, connection.started)
        connection.record(Exchange(**about, request=request, note=text))
        connection.write_refusal(http, status_code, text)
        return False

    def request(self, head: Head, body: bytes, trailers: Headers) -> Request:
        """The request as handlers see it."""
        connection = self.connection
        return Request(
            method=head.method,
            scheme="https" if connection.tls else "http",
            host=self.host_of(head),
            port=connection.port,
            path=head.path,
            query_string=head.query_string,
            headers=head.headers,
            content=body,
            trailers=trailers,
            http_version=head.http_version,
            sni=connection.sni,
            tls=connection.tls,
            client=connection.client,
            container=connection.site.name,
        )

    def host_of(self, head: Head) -> str:
        """The host that routes are keyed on: SNI, else the dialled name, else the address, else the name in Host."""
        connection = self.connection
        if connection.tls or connection.host != connection.address:
            return connection.host
        named = host_name(head.authority)
        if named is None or claimed(connection.place.tables, connection.host, connection.port):
            return connection.host
        return named

    def respond(self, entry: Exchange, request: Request, head: Head) -> Response:
        """Decide, record, and make the response."""
        place = self.connection.place
        if self.misdirected(request, head):
            entry.outcome = self.gateway.outcome(place, request.host, request.port)
            entry.note = f"its Host is {head.authority!r}, which is not {request.host!r}"
            self.ledger.record(place.window, entry)
            return Response(421, text=refused_body(entry))  # RFC 9110 section 15.5.20
        try:
            decision = decide(place.tables, request)
        except BaseException as error:  # of a predicate; the test's own thread raises it
            entry.error, entry.outcome = error, "routed"
            self.ledger.record(place.window, entry)
            return Response(500, text=handler_error_body(entry))
        route, entry.near = decision.route, decision.near
        if route is not None and route.kind != "block":
            entry.route, entry.outcome = route, "routed"
            self.ledger.record(place.window, entry)
            return self.call(entry, route, request)
        entry.outcome = self.gateway.outcome(place, request.host, request.port)
        if route is not None:
            entry.route, entry.outcome = route, "blocked"
        elif not decision.near and (miss := nearest_by_address(place.tables, request)):
            entry.near = (miss,)
        self.ledger.record(place.window, entry)
        return Response(
            502, text=blocked_body(entry) if entry.outcome == "blocked" else unrouted_body(entry)
        )

    def misdirected(self, request: Request, head: Head) -> bool:
        """Whether Host names another host than the SNI, or than the name that was dialled."""
        connection = self.connection
        if head.authority in ("", request.host) or request.method == "CONNECT":
            return False
        if connection.host == connection.address and connection.sni is None:
            return False
        return host_name(head.authority) != request.host

    def call(self, entry: Exchange, route: Route, request: Request) -> Response:
        """What the route answers."""
        activity = self.connection.activity
        activity.route, activity.request = route, request
        try:
            result = route.answer(request)
            if inspect.isawaitable(result):
                result = route.in_context(run_async, result)
            return response_from(result, of_function=True)
        except BaseException as error:  # whatever it is, the test's own thread raises it
            entry.error = error
            return Response(500, text=handler_error_body(entry))
        finally:
            activity.route = None

    def send(self, http: Http1, entry: Exchange, response: Response) -> bool:
        """Send it; False when the connection is over."""
        try:
            for piece in self.pieces(http, entry, response):
                self.connection.sock.sendall(piece)
        except BodyError:
            self.connection.reset()
            return False
        except OSError as error:
            if entry.outcome == "routed":
                entry.note = f"the client closed before the whole response was sent ({error})"
            return False
        finally:
            if response.stream is not None:
                self.close_stream(entry, response.stream)
        return True

    def pieces(self, http: Http1, entry: Exchange, response: Response) -> Iterator[bytes]:
        """What goes out; what a streamed body raises is the handler's error, and no connection's."""
        if response.stream is not None:
            self.connection.activity.route = entry.route  # its handler still runs
        try:
            yield from http.send(response, entry.request.method, http_date(int(entry.started)))
        except GeneratorExit:
            raise
        except BaseException as error:  # or a response that HTTP cannot carry
            entry.error = entry.error or error
            raise BodyError from error
        finally:
            self.connection.activity.route = None

    def close_stream(self, entry: Exchange, stream: object) -> None:
        """Let a generator end its work, also where the client has not read it all."""
        try:
            getattr(stream, "close", lambda: None)()
        except BaseException as error:  # of its `finally`
            entry.error = entry.error or error


async def await_it(awaitable: Any) -> Any:
    """The coroutine that `asyncio.run` wants of any awaitable."""
    return await awaitable


def run_async(awaitable: Any) -> Any:
    """Run an async handler to its end, on a loop of its own."""
    return asyncio.run(await_it(awaitable))


@lru_cache(maxsize=1024)
def host_name(authority: str) -> str | None:
    """The normalised host of an authority, or None where it is none."""
    try:
        return normalise_host(split_authority(authority)[0])
    except AddressError:
        return None


@lru_cache(maxsize=1)
def http_date(second: int) -> str:
    """A Date field (RFC 9110 section 6.6.1), made once a second."""
    return formatdate(second, usegmt=True)


def may_be_request_line(data: bytes) -> bool:
    """Whether what follows a method may still become a target."""
    return data.count(b" ") == 1 and b"\n" not in data and len(data) < FIRST_BYTES_KEPT


def free_descriptors() -> int:
    """How many descriptors this process may have (getrlimit(2))."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def receive_timeout(sock: socket.socket, seconds: float) -> None:
    """Bound blocking reads in the kernel (SO_RCVTIMEO, socket(7)): unlike `settimeout` it leaves MSG_WAITALL to work.

    Args:
        seconds: 0 for no bound.
    """
    whole = int(seconds)
    value = struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)


def trace(error: BaseException) -> str:
    """Its traceback as text."""
    return "".join(traceback.format_exception(error))


NOT_THE_USERS: Final = (os.path.dirname(os.__file__), os.path.dirname(os.path.abspath(__file__)))


def where_stands(ident: int | None) -> str:
    """The line of the user's code, or else of any, at which a thread stands; "" when it has ended."""
    frame = sys._current_frames().get(ident or 0)
    if frame is None:
        return ""
    stack = traceback.extract_stack(frame)
    users = [
        f
        for f in stack
        if not f.filename.startswith(NOT_THE_USERS) and "site-packages" not in f.filename
    ]
    last = (users or stack)[-1]
    return f"{last.filename}:{last.lineno} in {last.name}: {last.line or ''}".rstrip(": ")
