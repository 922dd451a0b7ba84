"""The server in the test process: accepts what the sidecar's sockets catch, and gives every attempt an answer.

One thread reads the link (connections, DNS, packets, tampering, the sidecar's death); each connection has a thread of
its own. This module knows nothing of containers or engines.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pytest_egress.sockets as sockets
from pytest_egress.agent.capture import BACKLOG, LISTENER
from pytest_egress.agent.packets import Packet, parse_packets
from pytest_egress.agent.pump import reset
from pytest_egress.clock import monotonic
from pytest_egress.connection import Connection, holds, where_stands
from pytest_egress.dispatch import serve
from pytest_egress.dns import why_no_query
from pytest_egress.exchange import PacketAttempt
from pytest_egress.forks import in_children
from pytest_egress.hub import FIRST_BYTES_KEPT, NAMES_PORT, Hub, Link, Site, trace
from pytest_egress.ledger import Ledger, Place
from pytest_egress.link import tampering
from pytest_egress.relay import shut
from pytest_egress.routing import certificate_route, claimed, in_order, lacks_certificate

if TYPE_CHECKING:
    from pytest_egress.authority import Authority

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

MAX_CONNECTIONS: Final = 1000  # of a target: 100 MB of thread stacks; more wait in the backlog
DESCRIPTORS_EACH: Final = 4  # at most, with an upstream's and the link's own
ROOM_SECONDS: Final = 0.05  # for a connection to end before names and packets get their turn
NO_ROOM: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}  # of accept(2)
ANY_HOST: Final = "*"  # a datagram that is redirected does not tell what it was for
UDP_HEADER_BYTES: Final = 8
BATCH: Final = 256  # datagrams read before connections get their turn again


class Gateway(Hub):
    """Serves one target until it is stopped.

    Args:
        link: The sidecar's sockets; the gateway closes it.
        site: The target, and where its attempts belong.
        authority: Issues the leaf certificates.
        ledger: Where everything is recorded.
    """

    def __init__(self, link: Link, site: Site, authority: Authority, ledger: Ledger) -> None:
        super().__init__(link, site, authority, ledger)
        self._left_waiting = False  # by the last try, for want of a descriptor
        self._cap = min(MAX_CONNECTIONS, sockets.free_descriptors() // DESCRIPTORS_EACH)
        self._next_packet = 0
        self._flushes: list[threading.Event] = []
        self._reads = False
        self._poller = select.poll()
        self._waker, self._wake = sockets.pair()
        self._reader = threading.Thread(target=self._run, name=f"egress {site.name}", daemon=True)
        in_children(self, Gateway.abandon)

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
        done, deadline = threading.Event(), monotonic() + timeout
        self.link.flush(timeout)
        with self.lock:
            if not self._reads or self.stopping:
                return
            self._flushes.append(done)
            self._waker.send(b"f")
        done.wait(max(deadline - monotonic(), 0))

    def turn_away(self) -> None:
        """Reset and count the connections that wait at the cap, where nobody takes them up."""
        with self.lock:
            if len(self.connections) < self._cap and not self._left_waiting:
                return
        waited = 0
        for listener in self.link.tcp:
            try:
                for _ in range(BACKLOG):
                    sock, _client = listener.accept()
                    reset(sock)
                    waited += 1
            except OSError as error:  # none is left, as a rule
                if error.errno in NO_ROOM:
                    self.complain(
                        f"connections were left waiting that nobody counted ({error}); "
                        "`ulimit -n` gives this process more descriptors"
                    )
        self.ledger.miss(self.site.place().window, waited)

    def unread(self) -> bool:
        """Whether an idle connection has bytes, or its end, waiting for its thread."""
        with self.lock:
            idle = [
                c.sock for c in self.connections if c.idle_since is not None and not c.is_relayed
            ]
            poller = select.poll()
            for sock in idle:
                with contextlib.suppress(ValueError):  # closed meanwhile
                    poller.register(sock, select.POLLIN)
            return bool(poller.poll(0))

    def busy(self) -> list[Connection]:
        """The connections on which something has begun and not ended, but for those that something lets live."""
        with self.lock:
            return [c for c in self.connections if c.idle_since is None and c.claim is None]

    def revise(self, *, test_over: bool = False) -> list[Connection]:
        """Cut what is not read as requests and would not be let through any more: a route has come, gone or ended.

        Args:
            test_over: Whether what a test let through has ended too.

        Returns:
            What was cut.
        """
        place, between = self.site.place(), self.ledger.window is None
        with self.lock:
            claimed = [(c, claim) for c in self.connections if (claim := c.claim) is not None]
        over = [c for c, claim in claimed if not holds(place, c, claim, between, test_over)]
        for connection in over:
            connection.cut()
        self._close_unproved(place)
        return over

    def _close_unproved(self, place: Place) -> None:
        """Close what is idle without the client certificate that a route requires now: a pool opens another."""
        if not any(route.client_certificate == "require" for route in in_order(place.tables)):
            return
        with self.lock:
            idle = [c for c in self.connections if c.idle_since is not None and c.claim is None]
        for connection in idle:
            host, port, tls = connection.host, connection.port, connection.tls
            route = certificate_route(place.tables, (host,), port) if tls is not None else None
            if route is not None and lacks_certificate(route, tls) and not has_bytes(connection):
                connection.cut()

    def stop(self, seconds: float = 1.0) -> list[str]:
        """Close every connection and the link; again is harmless.

        Args:
            seconds: How long threads may take to end.

        Returns:
            Where a thread that did not end stands, one text each; empty as a rule.
        """
        deadline = monotonic() + seconds
        if not self.stopping:
            self.turn_away()
        with self.lock:
            self.stopping = True
            self.room.notify_all()
            for connection in self.connections:
                connection.cut()
            shut(self._waker)  # closing it wakes nobody where a forked child has a copy
            self._waker.close()
        if self._reader.ident is not None:
            self._reader.join(seconds)
        with self.lock:
            while self.connections and (left := deadline - monotonic()) > 0:
                self.room.wait(left)
            stuck = [connection.ident for connection in self.connections]
        self._wake.close()
        self.link.close()
        return [text for ident in stuck if (text := where_stands(ident))]

    def abandon(self) -> None:
        """Close the copies of a forked child, which has no thread of ours."""
        connections = [sock for c in list(self.connections) for sock in c.sockets()]
        for sock in (self._waker, self._wake, *connections):
            if sock.fileno() >= 0:
                os.close(sock.detach())

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
        work = self._sources()
        for descriptor in work:
            self._poller.register(descriptor, select.POLLIN)
        self._poller.register(self.link.channel, select.POLLRDHUP)
        while not self.stopping:
            ready = dict(self._poller.poll(0 if self._flushes else None))
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
                self._left_waiting = True
                self._make_room()
            elif error.errno == errno.EINVAL:  # by SOCK_DESTROY (sock_diag(7))
                self._poller.unregister(listener)
                self.complain(f"something closed {LISTENER}")
            return
        self._left_waiting = False
        sock.setblocking(True)
        sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # or each small chunk waits for 40 ms
        connection = Connection(self, sock, client[:2], serve)
        with self.lock:
            taken = not self.stopping
            if taken:
                self.connections.add(connection)
        try:
            if taken:
                connection.start()
        except RuntimeError as error:  # no thread can be started
            self.complain(f"a connection of {client[0]}:{client[1]} was not looked at: {error}")
            taken = False
        if not taken:
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
                min(idle, key=lambda c: c.idle_since or 0).cut()
            self.room.wait(ROOM_SECONDS)

    def _answer_names(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                query, client = sock.recvfrom(65535)
            except OSError:
                return
            if wire := self._answer_datagram(query):
                with contextlib.suppress(OSError):
                    sock.sendto(wire, client)

    def _answer_datagram(self, query: bytes) -> bytes:
        """What is to be sent back to a datagram that was for a DNS server."""
        try:
            reply = self.answer_query(query)
        except (
            Exception
        ) as error:  # a defect of ours must fail the test, and no other client's query
            self.complain(f"a DNS query was not answered: {trace(error)}")
            return b""
        if reply.no_query:
            place = self.site.place()
            entry = PacketAttempt(
                **self.about(ANY_HOST, NAMES_PORT),
                **self.judge(place, ANY_HOST, NAMES_PORT),
                protocol="UDP",
                address="",
                size=UDP_HEADER_BYTES + len(query),
                first_bytes=query[:FIRST_BYTES_KEPT],
                note=f"{reply.no_query}; for which server it was is not known",
            )
            self.record(place, entry)
        return reply.wire

    def _record_packets(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: the kernel lost some
                data = b""
            if not data:  # a link has lost some; the numbers tell how many, if more follow
                self.complain("packets came faster than they could be recorded")
                return
            for packet in parse_packets(data):
                self._record_packet(packet)

    def _record_packet(self, packet: Packet) -> None:
        place, host = self.site.place(), self.name(packet.destination)
        if packet.sequence is not None:
            self.ledger.miss(place.window, packet.sequence - self._next_packet)
            self._next_packet = packet.sequence + 1
        entry = PacketAttempt(
            **self.about(host, packet.port),
            **self._judge_packet(place, packet, host),
            protocol=packet.protocol_name,
            address=packet.destination,
            size=packet.size,
            first_bytes=packet.payload[:FIRST_BYTES_KEPT],
        )
        if entry.protocol == "UDP" and entry.port == NAMES_PORT:
            entry.note = why_no_query(packet.payload)
        self.record(place, entry)

    def _judge_packet(self, place: Place, packet: Packet, host: str) -> dict[str, Any]:
        """What is no IP has no address to declare; UDP where HTTPS is answered is QUIC, which falls back to it."""
        if packet.protocol is None:
            return {"outcome": "recorded"}
        route = claimed(place.tables, host, packet.port or 0)
        quic = packet.protocol_name == "UDP" and route and route.kind == "intercept_https"
        return self.judge(place, host, packet.port or 0, "recorded" if quic else "unrouted")

    def _watch(self, monitor: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            if (text := tampering(monitor)) and not self.stopping:
                self.complain(text)


def has_bytes(connection: Connection) -> bool:
    """Whether something of a connection, or its end, is still to be read: a request that has been sent."""
    poller = select.poll()
    with contextlib.suppress(ValueError):  # closed meanwhile
        poller.register(connection.sock, select.POLLIN)
    return bool(poller.poll(0))
