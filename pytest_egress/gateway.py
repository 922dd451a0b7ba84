"""The server in the test process: accepts what the sidecar's sockets catch, and gives every attempt an answer.

One thread reads the link (connections, DNS, packets, tampering, the sidecar's death); each connection has a thread of
its own, with blocking sockets. Only the owning thread closes a socket; others wake it with `shutdown`. This module
knows nothing of containers or engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import select
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, Protocol

import h11

from pytest_egress.agent.packets import Packet, parse_packets
from pytest_egress.clienthello import ClientHello, bytes_needed, parse_client_hello
from pytest_egress.dns import SyntheticNames, answer, tcp_frame, tcp_frames
from pytest_egress.errors import AddressError, ClientHelloError
from pytest_egress.exchange import (
    DnsQuery,
    Entry,
    Exchange,
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
from pytest_egress.link import DescriptorLink, is_local, original_destination, tampering
from pytest_egress.report import blocked_body, handler_error_body, refused_body, unrouted_body
from pytest_egress.routing import Route, claimed, decide, nearest_by_address

if TYPE_CHECKING:
    from pytest_egress.authority import Authority
    from pytest_egress.http1 import Head

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

FIRST_BYTE_SECONDS: Final = (
    1.0  # a client that says nothing for so long waits for the server to speak
)
HANDSHAKE_SECONDS: Final = 10.0  # for a whole ClientHello, and again for the handshake
LINGER_SECONDS: Final = (
    1.0  # to let a client read a refusal before unread data resets the connection
)
MAX_CONNECTIONS: Final = 1000  # of a target: 100 MB of thread stacks; more wait in the backlog
EVICT_AFTER_SECONDS: Final = 0.05  # with all connections in use, the longest idle one gives way
WRITE_BYTES: Final = 256 * 1024  # a slice: `sendall` counts its timeout over the whole buffer
FIRST_BYTES_KEPT: Final = 64
BATCH: Final = 256  # datagrams read before connections get their turn again
METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,24}")
REQUEST_LINE: Final = re.compile(METHOD.pattern + rb" (/|\*|[A-Za-z][A-Za-z0-9+.-]*:|[^ ]+:\d)")


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

    def __init__(
        self, link: DescriptorLink, site: Site, authority: Authority, ledger: Ledger
    ) -> None:
        self.link, self.site, self.authority, self.ledger = link, site, authority, ledger
        self._names = SyntheticNames()  # under the lock
        self.lock = threading.RLock()
        self.room = threading.Condition(self.lock)
        self.connections: set[Connection] = set()
        self.stopping = False
        self._flushes: list[threading.Event] = []
        self._waker, self._wake = socket.socketpair()
        self._reader = threading.Thread(target=self._read, name=f"egress {site.name}", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        for sock in (
            *self.link.tcp,
            *self.link.dns,
            self.link.packets,
            *self.link.monitors,
            self._wake,
        ):
            sock.setblocking(False)
        self._reader.start()

    def flush(self, timeout: float = 5.0) -> None:
        """Return when everything that had arrived has been taken from the link. Handlers may still run.

        Args:
            timeout: Seconds.
        """
        done = threading.Event()
        with self.lock:
            if self.stopping or not self._reader.is_alive():
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
        """Close every connection and the link.

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

    def _read(self) -> None:
        poller, work = select.poll(), self._sources()
        for descriptor in work:
            poller.register(descriptor, select.POLLIN)
        poller.register(self.link.channel, select.POLLRDHUP)
        try:
            while not self.stopping:
                ready = dict(poller.poll(0 if self._flushes else None))
                if self.link.channel.fileno() in ready:
                    self._lost()
                    return
                for descriptor in ready.keys() & work.keys():
                    work[descriptor]()
                if not ready:
                    self._flushed()
        finally:
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
        with self.lock:
            if self.stopping:
                return
            for listener in self.link.tcp:
                with contextlib.suppress(OSError):
                    listener.shutdown(
                        socket.SHUT_RDWR
                    )  # capture goes on without the agent; nobody would answer
        self.site.lost()

    def _accept(self, listener: socket.socket) -> None:
        self._make_room()
        try:
            sock, client = listener.accept()
        except OSError:  # the client has gone, or no descriptor is free: the backlog waits
            return
        sock.setblocking(True)
        connection = Connection(self, sock, client[:2])
        with self.lock:
            if self.stopping:
                sock.close()
                return
            self.connections.add(connection)
        try:
            connection.start()
        except RuntimeError:  # no thread can be started
            connection.close()

    def _make_room(self) -> None:
        """At the cap wait for a connection to end; evict the longest idle one, or silent ones starve the next."""
        with self.lock:
            while len(self.connections) >= MAX_CONNECTIONS and not self.stopping:
                if not self.room.wait(EVICT_AFTER_SECONDS):
                    idle = [c for c in self.connections if c.idle_since is not None]
                    if idle:
                        min(idle, key=lambda c: c.idle_since or 0).wake()

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
            reply = answer(query, self._names, ipv6=self.link.ipv6)
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
            return self._names.name(address) or address

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
                with self.ledger.changed:
                    self.site.place().window.complaints.append(f"{self.site.name}: {text}")

    # What connections share.

    def about(self, host: str, port: int | None, outcome: Outcome) -> dict[str, Any]:
        """The fields that every entry has."""
        return {
            "container": self.site.name,
            "started": wall_clock(),
            "outcome": outcome,
            "host": host,
            "port": port,
        }

    def outcome(self, place: Place, host: str, port: int) -> Outcome:
        """What an attempt means that is no HTTP request."""
        route = claimed(place.tables, host, port)
        if route is not None:
            return "blocked" if route.kind == "block" else "unrouted"
        return unclaimed(place)


def unclaimed(place: Place) -> Outcome:
    """What an attempt means that no route claims."""
    return "unrouted" if place.window.policy == "fail" else "blocked"


class Connection(threading.Thread):
    """One connection of a target, from its first byte to its last."""

    def __init__(self, gateway: Gateway, sock: socket.socket, client: tuple[str, int]) -> None:
        super().__init__(name=f"egress {gateway.site.name} {client[1]}", daemon=True)
        self.gateway, self.ledger, self.site = gateway, gateway.ledger, gateway.site
        self.sock, self.client = sock, client
        self.idle_since: float | None = None
        self.address, self.port = "", 0
        self.sni: str | None = None
        self.tls: TlsInfo | None = None
        self.host = ""
        self._activity = Activity()
        self._place: Place | None = None
        self.begin()

    # Threads and windows.

    def begin(self) -> Place:
        """Something begins: it belongs to the window that is open now."""
        place = self._place = self.site.place()
        self.idle_since = None
        self._activity.thread = self.ident
        self.ledger.begin(place.window, self._activity)
        return place

    def end(self) -> None:
        """It has ended: the connection is idle."""
        self.idle_since = time.monotonic()
        self._activity.route = None
        if self._place is not None:
            self.ledger.end(self._place.window, self._activity)
            self._place = None

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
        """Serve it, and close it whatever happens."""
        self._activity.thread = self.ident
        try:
            self.serve()
        except (
            OSError,
            h11.ProtocolError,
        ):  # ssl.SSLError is an OSError; what it meant has been recorded
            pass
        except (
            Exception
        ) as error:  # a defect of ours must fail the test, not vanish with its thread
            with self.ledger.changed:
                text = "".join(traceback.format_exception(error))
                self.place.window.complaints.append(f"{self.site.name}: the gateway failed: {text}")
        finally:
            self.close()

    @property
    def place(self) -> Place:
        """Where what goes on now belongs."""
        return self._place or self.site.place()

    # What the connection is.

    def serve(self) -> None:
        """Find out what it is, and treat it so."""
        if is_local(self.sock):  # the target dialled the listener itself: no attempt to leave
            return
        self.address, self.port = original_destination(self.sock)
        self.host = self.gateway.name(self.address)
        if self.port == 53:
            self.serve_names()
        elif (
            first := self.first_byte()
        ) == b"\x16":  # a TLS handshake record (RFC 8446 section 5.1)
            self.serve_tls()
        elif first and self.looks_like_http():
            self.serve_http()
        elif first:
            self.refuse(self.peek(FIRST_BYTES_KEPT))

    def first_byte(self) -> bytes:
        """The first byte, left unread; b"" when there is none and the connection has been dealt with."""
        receive_timeout(self.sock, FIRST_BYTE_SECONDS)
        try:
            first = self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return self.first_byte_of_a_silent_client()
        except OSError:
            first = b""
        if not first:
            self.record_tcp(b"", "connected and closed without sending a byte")
        return first

    def first_byte_of_a_silent_client(self) -> bytes:
        """It waits for the server to speak, or has connected ahead of its need."""
        route = claimed(self.place.tables, self.host, self.port)
        self.record_tcp(b"", f"connected and sent nothing within {FIRST_BYTE_SECONDS:g} s")
        if route is None or route.kind == "block":
            reset(self.sock)
            return b""
        self.end()
        receive_timeout(self.sock, 0)
        first = self.sock.recv(1, socket.MSG_PEEK)
        self.begin()
        return first

    def peek(self, size: int) -> bytes:
        """Up to so many bytes, left unread."""
        return self.sock.recv(size, socket.MSG_PEEK)

    def looks_like_http(self) -> bool:
        """Whether it begins as a request does (RFC 9112 section 3); waits for as much as that takes."""
        receive_timeout(self.sock, HANDSHAKE_SECONDS)
        wanted, data = 1, self.peek(FIRST_BYTES_KEPT)
        while METHOD.fullmatch(data) or (data.count(b" ") == 1 and len(data) < FIRST_BYTES_KEPT):
            if REQUEST_LINE.match(data):
                return True
            wanted = len(data) + 1
            data = self.sock.recv(wanted, socket.MSG_PEEK | socket.MSG_WAITALL)
            if len(data) < wanted:
                return False
        return bool(REQUEST_LINE.match(data))

    def record_tcp(self, first_bytes: bytes, note: str) -> None:
        """Record a connection that is neither TLS nor HTTP; at an address that an HTTP route claims only so far."""
        place = self.place
        route = claimed(place.tables, self.host, self.port)
        outcome = self.gateway.outcome(place, self.host, self.port)
        if route is not None and route.kind != "block" and not first_bytes:
            outcome = "recorded"
        about = self.gateway.about(self.host, self.port, outcome)
        self.record(TcpAttempt(**about, address=self.address, first_bytes=first_bytes, note=note))

    def record(self, entry: Entry) -> None:
        """Put an entry into the window of what goes on now."""
        self.ledger.record(self.place.window, entry)

    def refuse(self, first_bytes: bytes, note: str = "") -> None:
        """Record what is neither TLS nor HTTP, and reset it."""
        self.record_tcp(first_bytes, note)
        reset(self.sock)

    def serve_names(self) -> None:
        """DNS over TCP (RFC 7766)."""
        receive_timeout(self.sock, 0)
        rest = b""
        while data := self.sock.recv(READ_BYTES):
            queries, rest = tcp_frames(rest + data)
            for query in queries:
                if reply := self.gateway.answer_query(query):
                    self.sock.sendall(tcp_frame(reply))
            self.end()

    # TLS.

    def serve_tls(self) -> None:
        """Terminate TLS with a leaf for the name asked for, then serve what is inside."""
        hello = self.read_hello()
        if hello is None or not self.take_name(hello):
            return
        receive_timeout(self.sock, 0)
        context = self.gateway.authority.context(self.host)
        self.sock.settimeout(HANDSHAKE_SECONDS)  # SO_RCVTIMEO does nothing under ssl
        tls = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        with (
            self.gateway.lock
        ):  # wrap_socket detached the first object: swap, and look again for a stop
            self.sock = tls
            if self.gateway.stopping:
                return
        try:
            tls.do_handshake()
        except OSError as error:
            if not self.gateway.stopping:
                self.fail_tls(*broken_handshake(error, self.host))
            return
        cipher = tls.cipher()
        self.tls = TlsInfo(
            version=tls.version() or "",
            cipher=cipher[0] if cipher else "",
            alpn=tls.selected_alpn_protocol(),
        )
        self.serve_http()

    def read_hello(self) -> ClientHello | None:
        """The whole ClientHello, left unread; the kernel wakes us when it is there."""
        deadline, needed = time.monotonic() + HANDSHAKE_SECONDS, 5
        while (left := deadline - time.monotonic()) > 0:
            receive_timeout(self.sock, left)
            try:
                data = self.sock.recv(needed, socket.MSG_PEEK | socket.MSG_WAITALL)
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
        from pytest_egress.address import normalise_host

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
        place = self.place
        route = claimed(place.tables, self.host, self.port)
        outcome: Outcome = (
            "recorded" if route is not None and route.kind != "block" else unclaimed(place)
        )
        if route is not None and route.kind == "block":
            outcome = "blocked"
        about = self.gateway.about(self.host, self.port, outcome)
        self.record(
            TlsFailure(**about, address=self.address, sni=self.sni, reason=reason, note=note)
        )
        reset(self.sock)

    # HTTP.

    def serve_http(self) -> None:
        """Answer requests until one side closes."""
        http, exchange = Http1(), HttpExchange(self)
        self.sock.settimeout(FIRST_BYTE_SECONDS if self.tls else None)
        if self.tls is None:
            receive_timeout(self.sock, 0)
        while True:
            try:
                head = self.read_head(http, first=exchange.number == 0)
                if head is None or not exchange.answer(http, head):
                    return
            except h11.RemoteProtocolError as error:
                if not self.gateway.stopping:
                    self.refuse_http(
                        http, error.error_status_hint, f"the request cannot be read: {error}"
                    )
                return
            self.end()
            if http.has_begun:
                self.begin()

    def read_head(self, http: Http1, *, first: bool) -> Head | None:
        """The next request's head, or None at the end of the connection."""
        while (head := http.read_head()) is None:
            if http.closed:
                return None
            try:
                data = self.sock.recv(READ_BYTES)
            except (
                TimeoutError
            ):  # TLS, and no byte since the handshake: connected ahead of its need
                self.sock.settimeout(None)
                self.end()
                continue
            except OSError as error:
                if first and self._place and not self.gateway.stopping:
                    self.fail_tls(*broken_handshake(error, self.host))
                raise
            if self._place is None:
                if data:
                    self.begin()
            elif (
                not data and first and self.tls and not http.has_begun and not self.gateway.stopping
            ):
                self.fail_tls(*silent_after_handshake(self.host))
            if data and self.tls and first:
                self.sock.settimeout(None)
            http.receive(data)
        return head

    def refuse_http(self, http: Http1, status_code: int, text: str) -> None:
        """Record what cannot be read as HTTP/1.1, say so, and close."""
        about = self.gateway.about(self.host, self.port, unclaimed(self.place))
        self.record(TcpAttempt(**about, address=self.address, note=text))
        self.write(http.refusal(status_code, text, formatdate(usegmt=True)))
        self.linger()

    def write(self, data: bytes) -> None:
        """Send it all, in slices, however slowly the client reads."""
        if len(data) <= WRITE_BYTES:
            self.sock.sendall(data)
            return
        view = memoryview(data)
        for start in range(0, len(view), WRITE_BYTES):
            self.sock.sendall(view[start : start + WRITE_BYTES])

    def linger(self) -> None:
        """Let the client read an answer while what it still sends is thrown away (RFC 9112 section 9.6)."""
        deadline = time.monotonic() + LINGER_SECONDS
        with contextlib.suppress(OSError):
            if not isinstance(self.sock, ssl.SSLSocket):
                self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(LINGER_SECONDS)
            while time.monotonic() < deadline and self.sock.recv(READ_BYTES):
                pass


class HttpExchange:
    """Reads one request after the other of a connection, and answers it."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.gateway, self.ledger = (
            connection,
            connection.gateway,
            connection.ledger,
        )
        self.number = 0

    def answer(self, http: Http1, head: Head) -> bool:
        """Read the body, find the route, send its answer; False when the connection is over."""
        self.number += 1
        began, started = time.perf_counter(), wall_clock()
        connection = self.connection
        if head.is_http2_preface:
            connection.refuse_http(
                http, 505, "the client speaks HTTP/2 without having been offered it"
            )
            return False
        if interim := http.interim():
            connection.write(interim)
        try:
            if (head.expected or 0) > MAX_BODY_BYTES:
                raise RequestTooLargeError
            body, trailers = self.read_body(http)
        except RequestTooLargeError:
            return self.refuse_large(http, head, started)
        except (OSError, h11.RemoteProtocolError) as error:
            self.record_incomplete(http, head, started, error)
            return False
        request = self.request(head, body, trailers)
        about = self.gateway.about(request.host, request.port, "unrouted") | {"started": started}
        entry = Exchange(**about, request=request)
        response = self.respond(entry, request, head)
        entry.response, entry.duration = response, time.perf_counter() - began
        return self.send(http, entry, response) and http.next_request()

    def read_body(self, http: Http1) -> tuple[bytes, Any]:
        """The whole body and its trailers."""
        while (whole := http.read_body()) is None:
            http.receive(self.connection.sock.recv(READ_BYTES))
        return whole

    def request(self, head: Head, body: bytes, trailers: Any) -> Request:
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
            entry.outcome = unclaimed(place)
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
            return self.call(entry, route, request, place)
        entry.outcome = "unrouted" if decision.near else unclaimed(place)
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
        if not head.authority or request.method == "CONNECT":
            return False
        if connection.host == connection.address and connection.sni is None:
            return False
        return host_name(head.authority) != request.host

    def call(self, entry: Exchange, route: Route, request: Request, place: Place) -> Response:
        """What the route answers. A call counts once its handler has returned."""
        activity = self.connection._activity
        activity.route, activity.what = route, f"{request.method} {request.url}"
        try:
            result = route.answer(request)
            if inspect.isawaitable(result):
                result = route.in_context(run_async, result)
            response = response_from(result, of_function=True)
        except BaseException as error:  # whatever it is, the test's own thread raises it
            entry.error = error
            return Response(500, text=handler_error_body(entry))
        finally:
            activity.route = None
        self.ledger.count(route, place.window, entry)
        return response

    def send(self, http: Http1, entry: Exchange, response: Response) -> bool:
        """Send it; False when the connection is over."""
        method = entry.request.method
        try:
            for piece in http.send(response, method, formatdate(usegmt=True)):
                self.connection.write(piece)
        except OSError as error:
            entry.note = (
                entry.note or f"the client closed before the whole response was sent ({error})"
            )
            return False
        except BaseException as error:  # of a streamed body, or a response that HTTP cannot carry
            entry.error = entry.error or error
            reset(self.connection.sock)
            return False
        return True

    def refuse_large(self, http: Http1, head: Head, started: float) -> bool:
        """413, and the connection closes (RFC 9110 section 15.5.14)."""
        connection = self.connection
        request = self.request(head, b"", ())
        text = f"the body is over MAX_BODY_BYTES, {MAX_BODY_BYTES} bytes"
        about = self.gateway.about(request.host, request.port, unclaimed(connection.place)) | {
            "started": started
        }
        self.ledger.record(connection.place.window, Exchange(**about, request=request, note=text))
        connection.write(http.refusal(413, text, formatdate(usegmt=True)))
        connection.linger()
        return False

    def record_incomplete(self, http: Http1, head: Head, started: float, error: Exception) -> None:
        """A request whose body never became whole is an attempt all the same."""
        if self.gateway.stopping:
            return
        place = self.connection.place
        request = self.request(head, http.body_so_far, ())
        outcome: Outcome = unclaimed(place)
        if claimed(place.tables, request.host, request.port):
            outcome = "recorded"
        about = self.gateway.about(request.host, request.port, outcome) | {"started": started}
        note = f"the body ended early, after {len(request.content)} bytes ({error})"
        self.ledger.record(place.window, Exchange(**about, request=request, note=note))


def wall_clock() -> float:
    """Seconds since the epoch, for the ledger alone: no deadline hangs on it."""
    return time.time()  # noqa: TID251


async def await_it(awaitable: Any) -> Any:
    """A coroutine of whatever can be awaited: `asyncio.run` takes nothing else."""
    return await awaitable


def run_async(awaitable: Any) -> Any:
    """Run an async handler to its end, on a loop of its own."""
    return asyncio.run(await_it(awaitable))


def host_name(authority: str) -> str | None:
    """The normalised host of an authority, or None where it is none."""
    from pytest_egress.address import normalise_host

    try:
        return normalise_host(split_authority(authority)[0])
    except AddressError:
        return None


def receive_timeout(sock: socket.socket, seconds: float) -> None:
    """Bound blocking reads in the kernel (SO_RCVTIMEO, socket(7)): unlike `settimeout` it leaves MSG_WAITALL to work.

    Args:
        seconds: 0 for no bound.
    """
    whole = int(seconds)
    value = struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)


def reset(sock: socket.socket) -> None:
    """Close with RST when the owner closes: the client sees "connection reset" at once (SO_LINGER, socket(7))."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def where_stands(ident: int | None) -> str:
    """The line of the user's code, or ours, at which a thread stands; "" when it has ended."""
    frame = sys._current_frames().get(ident or 0)
    if frame is None:
        return ""
    stack = traceback.extract_stack(frame)
    last = stack[-1]
    return f"{last.filename}:{last.lineno} in {last.name}: {last.line or ''}".rstrip(": ")
