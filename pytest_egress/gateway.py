"""The server in the test process: accepts what the sidecar's sockets catch, and gives every attempt an answer.

One thread reads the link (connections, DNS, packets, tampering, the sidecar's death); each connection has a thread of
its own while something goes on in it. One that waits for its client is parked: it stands in the reader's poller, and
the reader alone ends it or gives it a thread again. This module knows nothing of containers or engines.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final

import pytest_egress.sockets as sockets
from pytest_egress.agent.capture import BACKLOG, LISTENER
from pytest_egress.agent.packets import Packet, parse_packets
from pytest_egress.agent.pump import reset
from pytest_egress.clock import monotonic
from pytest_egress.connection import LINGER_SECONDS, Connection, holds, where_stands
from pytest_egress.dispatch import serve
from pytest_egress.dns import why_no_query
from pytest_egress.exchange import PacketAttempt
from pytest_egress.forks import in_children
from pytest_egress.hub import (
    FIRST_BYTES_KEPT,
    IDLE_SECONDS,
    NAMES_PORT,
    UNUSED_SECONDS,
    Hub,
    Link,
    Site,
    trace,
)
from pytest_egress.ledger import Ledger, Place
from pytest_egress.link import tampering
from pytest_egress.relay import shut
from pytest_egress.routing import certificate_route, claimed, in_order, lacks_certificate

if TYPE_CHECKING:
    from pytest_egress.authority import Authority

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

MAX_CONNECTIONS: Final = 1000  # of a target, each with a thread: 100 MB of stacks; more wait
DESCRIPTORS_EACH: Final = 4  # of one at most, with an upstream's and the link's own
MAX_OPEN: Final = 10_000  # of a target, with those that wait for their client, which have no thread
DESCRIPTORS_OPEN: Final = 3  # of one that waits: its own, the link's, one for all else
ROOM_SECONDS: Final = 0.05  # for a connection to end before names and packets get their turn
NO_ROOM: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}  # of accept(2)
ANY_HOST: Final = "*"  # a datagram that is redirected does not tell what it was for
UDP_HEADER_BYTES: Final = 8
AT_WORK: Final = "as many as {} were at work at once (MAX_CONNECTIONS, or a quarter of `ulimit -n`)"
OPEN: Final = "as many as {} were open at once (MAX_OPEN, or less by `ulimit -n` and the link)"
NO_DESCRIPTOR: Final = "this process had no descriptor left (`ulimit -n`)"
"""Why a connection was cut: what ran out."""
BATCH: Final = 256  # datagrams read before connections get their turn again


class Gateway(Hub):
    """Serves one target until it is stopped.

    Args:
        link: The sidecar's sockets; the gateway closes it.
        site: The target, and where its attempts belong.
        authority: Issues the leaf certificates.
        ledger: Where everything is recorded.
        idle_seconds: After how many a connection that has been answered is closed.
        unused_seconds: The same before its first request.
    """

    def __init__(
        self,
        link: Link,
        site: Site,
        authority: Authority,
        ledger: Ledger,
        *,
        idle_seconds: float = IDLE_SECONDS,
        unused_seconds: float = UNUSED_SECONDS,
    ) -> None:
        super().__init__(link, site, authority, ledger)
        self.idle_seconds, self.unused_seconds = idle_seconds, unused_seconds
        descriptors = sockets.free_descriptors()
        self._cap = min(MAX_CONNECTIONS, descriptors // DESCRIPTORS_EACH)
        by_link = link.most - link.most // 4  # room for the next, or none would be seen to wait
        self._most_open = min(MAX_OPEN, descriptors // DESCRIPTORS_OPEN, by_link)
        self._parked: dict[int, Connection] = {}  # by descriptor
        self._overdue_at = inf  # the first of them, by `Ledger.clock`
        self._left_waiting = False  # by the last try, for want of a descriptor
        self._no_room = False  # for what was ready in this turn
        self._next_packet = self._missing = self._told_missing = 0
        self._flushes: list[threading.Event] = []
        self._reads = False
        self._poller = select.epoll()  # thousands may stand in it
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
        """Cut and count the connections that wait at the cap, where nobody takes them up or goes on with them."""
        with self.lock:
            if self._has_room() and not self._left_waiting:
                return
            parked = self._parked.values() if self._at_work >= self._cap else ()
            waiting = [c for c in parked if c.has_arrived() and not c.is_cut]
            for connection in waiting:
                connection.cut()
        waited = len(waiting)
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
        if not self._reader.is_alive():
            self._poller.close()
        self.link.close()
        return [text for ident in stuck if (text := where_stands(ident))]

    def abandon(self) -> None:
        """Close the copies of a forked child, which has no thread of ours."""
        self._poller.close()
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
            for connection in list(self._parked.values()):
                self._end(connection)
            self._flushed()

    def _read(self) -> None:
        work = self._sources()
        for descriptor in work:
            self._poller.register(descriptor, select.EPOLLIN)
        self._poller.register(self.link.channel, select.EPOLLRDHUP)
        while not self.stopping:
            seconds = self._seconds()
            ready = dict(self._poller.poll(seconds))
            if self.link.channel.fileno() in ready:
                self._lost()
                return
            for descriptor in ready:
                if descriptor in work:
                    work[descriptor]()
                else:
                    self._hear(descriptor)
            if self._no_room:
                self._make_room()
            self._end_overdue()
            if not ready and seconds == 0:
                self._flushed()

    def _seconds(self) -> float | None:
        """How long to wait for something that can be read; None is for ever."""
        if self._flushes:
            return 0
        return None if self._overdue_at == inf else max(self._overdue_at - self.ledger.clock(), 0)

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
        self._count_missing(self.link.lost_packets)  # the last ones leave no gap
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
            self._no_room = True  # the backlog waits
            return
        try:
            sock, client = listener.accept()
        except OSError as error:  # as a rule the client has gone
            if error.errno in NO_ROOM:
                self._left_waiting = self._no_room = True
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
        if taken:
            self._set_to_work(connection)
        else:
            connection.close()

    def _set_to_work(self, connection: Connection) -> None:
        try:
            connection.start()
        except RuntimeError as error:  # no thread can be started
            address, port = connection.client
            self.complain(f"a connection of {address}:{port} was not looked at: {error}")
            connection.close()

    # Room for more. Whoever must not have an answer that is old in a moment holds the lock.

    @property
    def _at_work(self) -> int:
        """How many connections have a thread, or are to get one."""
        return len(self.connections) - len(self._parked)

    @property
    def is_crowded(self) -> bool:
        """Whether threads become scarce: an idle connection then gives its own up at once."""
        return self._at_work > self._cap // 2

    def _has_room(self) -> bool:
        """Whether another connection can be accepted."""
        return self._at_work < self._cap and len(self.connections) < self._most_open

    def _shortage(self) -> str:
        """What there is too little of to take up another connection; "" for nothing."""
        if self._left_waiting:
            return NO_DESCRIPTOR
        if len(self.connections) >= self._most_open:
            return OPEN.format(self._most_open)
        return AT_WORK.format(self._cap) if self._at_work >= self._cap else ""

    def _make_room(self) -> None:
        """Cut the longest idle connection, or silent ones starve the next; where there is none, wait for one to end."""
        self._no_room = False
        if not (why := self._shortage()):
            return  # one has ended meanwhile
        longest = self._cut_longest_idle()
        if longest is not None:
            self.ledger.evict(self.site.place().window, why)
            if longest in self._parked.values():
                self._end(longest)
                return
        with self.lock:
            self.room.wait(ROOM_SECONDS)

    def _cut_longest_idle(self) -> Connection | None:
        """Cut a connection where that makes room.

        What waits for its client gives its thread up by itself: it is not cut for the sake of a thread.
        """
        with self.lock:
            threads = not self._left_waiting and len(self.connections) < self._most_open
            idle = [
                c
                for c in self.connections
                if c.idle_since is not None and not c.is_cut and not (threads and c.awaits)
            ]
            longest: Connection | None = min(idle, key=lambda c: c.idle_since or 0, default=None)
            if longest is None or (longest.awaits and longest.has_arrived()):
                return None
            longest.cut()
            return longest

    # Connections that wait for their client, without a thread.

    def park(self, connection: Connection, seconds: float) -> bool:
        """Keep an idle connection without a thread until it can be read; False where that cannot be.

        Args:
            connection: Its thread leaves it alone from here on.
            seconds: After which it is closed.
        """
        connection.deadline = self.ledger.clock() + seconds
        with self.lock:
            if self.stopping or not self._reads:
                return False
            descriptor = connection.sock.fileno()
            self._parked[descriptor] = connection
            self._poller.register(descriptor, select.EPOLLIN)
            if connection.deadline < self._overdue_at:
                self._overdue_at = connection.deadline
                self._waker.send(b"p")
            self.room.notify_all()
        return True

    def _unpark(self, connection: Connection) -> None:
        with self.lock:
            descriptor = connection.sock.fileno()
            del self._parked[descriptor]
            self._poller.unregister(descriptor)

    def _hear(self, descriptor: int) -> None:
        """Go on with what is parked and can be read."""
        connection = self._parked.get(descriptor)
        if connection is None:
            return
        arrived = None if connection.is_cut else connection.has_arrived()
        if arrived is None or (connection.is_ending and not connection.read_late()):
            self._end(connection)
        elif not arrived or connection.is_ending:
            return
        elif self._at_work >= self._cap:
            self._no_room = True  # it waits, unread
        else:
            connection.begin()  # while it is still seen as unread
            self._unpark(connection)
            self._set_to_work(connection)

    def _end(self, connection: Connection) -> None:
        """Close a parked connection."""
        self._unpark(connection)
        connection.say_goodbye()
        connection.close()

    def _end_overdue(self) -> None:
        """Tell clients that their connections end, where nothing has arrived; close those who were told a while ago."""
        if self._overdue_at == inf or (now := self.ledger.clock()) < self._overdue_at:
            return
        for connection in [c for c in list(self._parked.values()) if c.deadline <= now]:
            if connection.is_ending:
                self._end(connection)
            elif connection.has_arrived() is False:
                connection.tell_end()
                connection.deadline = now + LINGER_SECONDS
        with self.lock:
            later = (c.deadline for c in self._parked.values() if c.deadline > now)
            self._overdue_at = min(later, default=inf)

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
            if not data:  # a link has lost some
                self.complain("packets came faster than they could be recorded")
                return
            for packet in parse_packets(data):
                self._record_packet(packet)

    def _record_packet(self, packet: Packet) -> None:
        place, host = self.site.place(), self.name(packet.destination)
        if packet.sequence is not None:
            self._missing += packet.sequence - self._next_packet
            self._next_packet = packet.sequence + 1
            self._count_missing(self._missing)
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

    def _count_missing(self, missing: int) -> None:
        """Count the packets that have not come, once each: a gap in their numbers tells of them, or who lost them.

        Args:
            missing: How many there have been since the start.
        """
        if (more := missing - self._told_missing) > 0:
            self._told_missing = missing
            self.ledger.miss(self.site.place().window, more)

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
