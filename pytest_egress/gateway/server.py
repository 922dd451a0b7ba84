"""`Gateway`: the server for one target. It accepts what the sidecar's sockets catch and has every attempt answered.

One thread, the reader, reads the link: connections, DNS over UDP, packets, tampering, the sidecar's death. A connection
has a thread of its own while an attempt goes on, and is registered in the reader's poller while it waits for its
client. Any thread may call `flush`, `settle`, `settle_all`, `gather`, `turn_away`, `unread`, `busy`, `revise` and
`stop`. `Ledger.changed` is the outer lock and `Connections.lock` the inner: never acquire the first while holding the
second. This module knows nothing of containers or engines.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import pytest_egress.base.sockets as sockets
from pytest_egress.base.clock import LOOK_SECONDS, monotonic
from pytest_egress.base.forks import close_in_forked_children
from pytest_egress.base.polling import ENDED, poller
from pytest_egress.base.workers import Workers
from pytest_egress.gateway.connection import Carried, Connection, is_still_allowed
from pytest_egress.gateway.connections import (
    IDLE_SECONDS,
    MAX_CONNECTIONS,
    UNUSED_SECONDS,
    Connections,
)
from pytest_egress.gateway.datagram_rules import DatagramRules, candidates
from pytest_egress.gateway.datagrams import Datagrams
from pytest_egress.gateway.destination import Destination
from pytest_egress.gateway.dials import ConnectFaults
from pytest_egress.gateway.dispatch import Dispatcher, Parts
from pytest_egress.gateway.dns.late import Asker
from pytest_egress.gateway.dns.names import Names
from pytest_egress.gateway.http3.sockets import QuicSocket
from pytest_egress.gateway.packets import BATCH, Packets
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.gateway.site import TargetView
from pytest_egress.gateway.tls.authority import Authority
from pytest_egress.gateway.upstream.upstreams import Upstreams
from pytest_egress.ledger.ledger import CUT_SECONDS, Ledger
from pytest_egress.ledger.windows import DRAIN_SECONDS, AttemptContext
from pytest_egress.link.interface import BACKLOG, LISTENER, Link
from pytest_egress.link.tampering import tampering
from pytest_egress.routes.table import (
    certificate_route,
    lacks_certificate,
    names_exactly,
    presenting_route,
)
from pytest_egress.traffic.datagrams import SentDatagram

NO_ROOM: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}  # of accept(2)
UNREAD_SECONDS: Final = 0.002  # for a thread to read what has arrived

SIDECAR_LOST: Final = "its sidecar was lost while it ran ({}); nothing it sent after that was seen, and nothing got out"


class Gateway:
    """Serves one target until it is stopped.

    Args:
        link: The sidecar's sockets; the gateway closes it.
        idle_seconds: How many seconds a connection that has been answered may wait until it is closed.
        unused_seconds: How many seconds a connection may wait before its first request.
    """

    def __init__(
        self,
        link: Link,
        target: TargetView,
        authority: Authority,
        ledger: Ledger,
        *,
        idle_seconds: float = IDLE_SECONDS,
        unused_seconds: float = UNUSED_SECONDS,
    ) -> None:
        self.link, self.target, self.authority, self.ledger = link, target, authority, ledger
        self._poller = poller()  # poll() would scan thousands of parked connections
        self._waker, self._wake = sockets.pair()
        self.recorder = Recorder(target, ledger)
        self.upstreams = Upstreams(target.peers)
        self.workers = Workers(f"egress {target.name} request", MAX_CONNECTIONS)
        self.names = Names(self.recorder, ipv6=link.ipv6)
        self.dials = ConnectFaults(link, self.recorder, self.names)
        self.datagram_rules = DatagramRules(link, self.recorder, self.names)
        self.names.learn = self._learn
        self.packets = Packets(self.recorder, self.names, self.dials)
        self.datagrams = Datagrams(
            link,
            self.recorder,
            self.names,
            self.workers,
            self.packets.record_unreadable,
            self._begin_quic,
        )
        self.connections = Connections(
            self.recorder,
            link_most=link.most,
            poller=self._poller,
            wake=self._wake_reader,
            idle_seconds=idle_seconds,
            unused_seconds=unused_seconds,
        )
        self._parts = Parts(
            link=link,
            authority=authority,
            recorder=self.recorder,
            connections=self.connections,
            names=self.names,
            upstreams=self.upstreams,
            workers=self.workers,
        )
        self._flushes: list[threading.Event] = []
        self._reader = threading.Thread(target=self._run, name=f"egress {target.name}", daemon=True)
        close_in_forked_children(self, Gateway.abandon)

    @property
    def stopping(self) -> bool:
        return self.connections.stopping

    def start(self) -> None:
        """Raise LinkError where the target's kernel cannot do with connections and datagrams as the routes say."""
        datagrams = () if self.link.datagrams is None else (self.link.datagrams,)
        others = (*datagrams, self.link.packets, *self.link.monitors, self._wake)
        for sock in (*self.link.tcp, *self.link.dns, *others):
            sock.setblocking(False)
        self.connections.reads = True
        self._reader.start()
        for rules in (self.dials, self.datagram_rules):
            rules.apply()
            rules.check()

    def flush(self, timeout: float = 5.0) -> None:
        """Return when the reader has read everything that had arrived on the link. Handlers may still run."""
        done, deadline = threading.Event(), monotonic() + timeout
        self.link.flush(timeout)
        with self.connections.lock:
            if not self.connections.reads or self.stopping:
                return
            self._flushes.append(done)
            self._waker.send(b"f")
        done.wait(max(deadline - monotonic(), 0))

    def settle(self) -> None:
        """Return when the gateway has read, and assigned to a window, all that its target has sent."""
        self.flush()
        deadline = self.ledger.clock() + DRAIN_SECONDS
        while self.unread() and self.ledger.clock() < deadline:
            time.sleep(UNREAD_SECONDS)

    def settle_all(self) -> None:
        """Return when all that the target sent until its end has been handled.

        A handler that asks does not wait for itself. A connection that waits for a real server, and whose client has
        left, is cut.
        """
        self.settle()
        seconds, me = self.target.attempt_context().window.drain_seconds, threading.get_ident()

        def open_ones() -> list[Connection]:
            return [each for each in self.connections if {*each.threads()} != {me}]

        wait_for = self.ledger.wait_for
        wait_for(
            lambda: all(each.activity.is_abandoned() for each in open_ones()), seconds, LOOK_SECONDS
        )
        with self.ledger.changed:
            left = [each for each in open_ones() if each.activity.is_abandoned()]
        for each in left:
            each.cut()
        wait_for(lambda: not any(each.is_cut for each in open_ones()), CUT_SECONDS)

    def gather(self) -> None:
        """Record the attempts that the target has begun, as they are now."""
        if self.stopping:
            return
        self.settle()
        busy = self.busy()
        for connection in busy:
            connection.cut()
        self.ledger.wait_for(lambda: all(c.ended for c in busy), CUT_SECONDS)

    def turn_away(self) -> None:
        """Cut and count the connections that wait because the cap is reached: not accepted yet, or parked."""
        with self.connections.lock:
            if not self.connections.leaves_waiting:
                return
            waited = self.connections.cut_waiting()
        for listener in self.link.tcp:
            try:
                for _ in range(BACKLOG):
                    sock, _client = listener.accept()
                    sockets.reset(sock)
                    waited += 1
            except OSError as error:  # usually no connection is left
                if error.errno in NO_ROOM:
                    self.recorder.complain(
                        f"connections were left waiting that nobody counted ({error}); "
                        "`ulimit -n` gives this process more descriptors"
                    )
        self.recorder.miss(waited)

    def unread(self) -> bool:
        return self.connections.unread()

    def busy(self) -> list[Connection]:
        return self.connections.busy()

    def revise(self, *, test_over: bool = False) -> list[Carried]:
        """End what may go on no longer: called when the routes have changed. Return what ends.

        Connections and requests whose bytes pass unread are cut. A lasting call is told to end. A late answer of DNS is
        sent no more. With `test_over` the test has ended, and with it what its own routes and options allowed.
        """
        self.dials.apply()
        self.datagram_rules.apply()
        context, between = self.target.attempt_context(), self.ledger.window is None
        self.names.late.revise(test_over=test_over)
        self.datagrams.revise(test_over=test_over)
        if test_over:
            self.datagrams.forget()

        def is_diverted(connection: Connection) -> bool:
            """Whether a route has come between two containers: their pools are to dial again, and meet it."""
            to = connection.destination
            return connection.is_between and names_exactly(context.tables, to.name, to.port)

        def is_unspoken(connection: Connection) -> bool:
            """Whether a connection of QUIC has no route that has its datagrams let out any more."""
            if not isinstance(connection.sock, QuicSocket):
                return False
            to = connection.destination
            return not any(
                route.http3 for _, route in candidates(context.tables, to.hosts, to.port)
            )

        def is_over(carried: Carried) -> bool:
            if (lasting := carried.lasting) is not None:
                return lasting.is_over(test_over=test_over)
            allowed_by = carried.allowed_by
            if isinstance(carried, Connection) and (
                carried.is_in_outage or is_diverted(carried) or is_unspoken(carried)
            ):
                return True
            return allowed_by is not None and not is_still_allowed(
                context, carried.destination, allowed_by, between=between, test_over=test_over
            )

        carriers = (each for connection in self.connections for each in connection.carriers())
        over = [carried for carried in carriers if is_over(carried)]
        for carried in over:
            if carried.lasting is not None:
                carried.lasting.tell()
            else:
                carried.cut()
        self._close_outdated(context, test_over=test_over)
        return over

    def _close_outdated(self, context: AttemptContext, *, test_over: bool) -> None:
        """Cut idle connections that a client would not get now as they are; a pool then opens another.

        Those are a tunnel whose proxy is gone, and one whose handshake is not the one that routes want now.
        """
        some = any(table.requires_certificate or table.presents for table in context.tables)
        for connection in self.connections:
            if connection.idle_since is None or connection.allowed_by is not None:
                continue
            to = connection.destination
            may_be_outdated = to.tls is not None and (some or to.presented_by is not None)
            is_over = (may_be_outdated and is_outdated(context, to)) or (
                connection.is_tunnel and any(p.is_over(test_over=test_over) for p in to.proxies)
            )
            if is_over and not has_bytes(connection):
                connection.farewell()
                connection.cut()

    def stop(self, seconds: float = 1.0) -> list[str]:
        """Close every connection and the link; calling it again does nothing.

        Return where each thread stands that has not ended within `seconds`; usually there is none.
        """
        deadline = monotonic() + seconds
        if not self.stopping:
            self.turn_away()
        for connection in self.connections:
            connection.farewell()
        with self.connections.lock:
            self.recorder.is_closed = True
            self.connections.stop()
            sockets.shut(self._waker)  # close() wakes no reader while a forked child has a copy
            self._waker.close()
        if self._reader.ident is not None:
            self._reader.join(seconds)
        self.names.late.stop()
        self.datagrams.stop()
        self.workers.stop()
        stuck = self.connections.join(deadline)
        self.workers.join(deadline)
        for late in (self.names.late.workers, self.datagrams.late, self.datagrams.relays):
            late.join(deadline)
        self._wake.close()
        if not self._reader.is_alive():
            self._poller.close()
        self.link.close()
        return stuck

    def abandon(self) -> None:
        """Close a forked child's copies of the sockets; the child has none of the gateway's threads."""
        self._poller.close()
        self.connections.abandon()
        self.datagrams.relays.abandon()
        for sock in (self._waker, self._wake):
            if sock.fileno() >= 0:
                os.close(sock.detach())

    def _wake_reader(self) -> None:
        self._waker.send(b"p")

    def _learn(self, names: tuple[str, ...], addresses: Sequence[str]) -> None:
        self.dials.learn(names, addresses)
        self.datagram_rules.learn(names, addresses)

    # The reader's thread.

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # a defect of ours must fail the test, not hang its target
            self._shut_listeners()
            self.target.lost(f"the gateway failed: {''.join(traceback.format_exception(error))}")
        finally:
            self.connections.end_parked()
            self._flushed()

    def _read(self) -> None:
        work = self._sources()
        for descriptor in work:
            self._poller.register(descriptor, select.POLLIN)
        self._poller.register(self.link.channel, ENDED)
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
                    self.connections.resume(descriptor)
            if self.connections.needs_room:
                self.connections.make_room()
            self.connections.end_overdue()
            if not ready and seconds == 0:
                self._flushed()

    def _seconds(self) -> float | None:
        """How long the poller may wait; None is without end."""
        if self._flushes:
            return 0
        return self.connections.seconds_left()

    def _sources(self) -> dict[int, Callable[[], None]]:
        """The link's descriptors, each with the action to take when it can be read."""
        work: dict[int, Callable[[], None]] = {self._wake.fileno(): self._woken}

        def add(sock: socket.socket, action: Callable[[socket.socket], None]) -> None:
            work[sock.fileno()] = lambda: action(sock)

        for sock in self.link.tcp:
            add(sock, self._accept)
        for sock in self.link.dns:
            add(sock, self._answer_names)
        if self.link.datagrams is not None:
            add(self.link.datagrams, self.datagrams.read)
        add(self.link.packets, self.packets.read)
        for sock in self.link.monitors:
            add(sock, self._watch)
        return work

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)

    def _flushed(self) -> None:
        # No number after the last packets shows a gap.
        self.packets.count_missing(self.link.lost_packets)
        with self.connections.lock:
            done, self._flushes = self._flushes, []
        for event in done:
            event.set()

    def _lost(self) -> None:
        if not self.stopping:
            self._shut_listeners()  # the kernel still redirects to them, and clients would wait in vain
            self.target.lost(SIDECAR_LOST.format(self.link.reason))

    def _shut_listeners(self) -> None:
        for listener in self.link.tcp:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        connections = self.connections
        if not connections.has_room:
            connections.needs_room = True  # the connection waits in the backlog
            return
        try:
            sock, client = listener.accept()
        except OSError as error:  # usually the client has closed already
            if error.errno in NO_ROOM:
                connections.left_waiting = connections.needs_room = True
            elif error.errno == errno.EINVAL:  # by SOCK_DESTROY (sock_diag(7))
                self._poller.unregister(listener)
                self.target.lost(f"something closed {LISTENER}")
            return
        connections.left_waiting = False
        if sock.gettimeout() is not None:  # a default of the test's
            sock.setblocking(True)
        # Else each small chunk waits for 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(
            sock, client[:2], self._serve, registry=connections, recorder=self.recorder
        )
        connections.add(connection)

    def _serve(self, connection: Connection) -> None:
        Dispatcher(connection, self._parts).serve()

    def _begin_quic(self, sock: QuicSocket, sent: SentDatagram) -> bool:
        if not self.connections.has_room:
            self.connections.needs_room = True
            return False
        connection = Connection(
            sock, sent.client, self._serve_quic, registry=self.connections, recorder=self.recorder
        )
        self.connections.add(connection)
        return True

    def _serve_quic(self, connection: Connection) -> None:
        Dispatcher(connection, self._parts).serve_quic()

    def _answer_names(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                query, client = sock.recvfrom(65535)
            except OSError:
                return
            asker = Asker(client=(sock, client), send=partial(send_datagram, sock, client))
            if wire := self._answer_datagram(query, asker):
                asker.send(wire)

    def _answer_datagram(self, query: bytes, asker: Asker) -> bytes:
        """The reply to a datagram that was sent to a DNS server; b"" for no reply now."""
        try:
            reply = self.names.answer(query, asker)
        except Exception as error:  # a defect of ours must fail the test, and no other query
            self.recorder.complain("a DNS query was not answered", error)
            return b""
        if reply.no_query:
            self.packets.record_no_query(query, reply.no_query)
        return reply.wire

    def _watch(self, monitor: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            if (text := tampering(monitor, self.link.own_port)) and not self.stopping:
                self.target.lost(text)


def send_datagram(sock: socket.socket, client: Any, wire: bytes) -> None:
    """The client may have gone."""
    with contextlib.suppress(OSError):
        sock.sendto(wire, client)


def is_outdated(context: AttemptContext, to: Destination) -> bool:
    """Whether a handshake lacks a client certificate that is required now, or presented another than it would now."""
    wishing = certificate_route(context.tables, (to.host,), to.port)
    if wishing is not None and lacks_certificate(wishing, to.tls):
        return True
    return presenting_route(context.tables, to.host, to.port) is not to.presented_by


def has_bytes(connection: Connection) -> bool:
    """Whether a connection has unread bytes, such as a request, or an unread end."""
    poller = select.poll()
    with contextlib.suppress(ValueError):  # closed meanwhile
        poller.register(connection.sock, select.POLLIN)
    return bool(poller.poll(0))
