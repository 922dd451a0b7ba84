"""One connection of a target: its thread, its window, its socket. What is spoken on it is `dispatch`'s.

Blocking sockets. Only the owning thread closes them; others wake it with `shutdown`. A connection that waits for its
client to speak has a thread for a second and none after that: it is parked, and owned by the gateway's reader.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Final

import h11

import pytest_egress.upstream as upstream
from pytest_egress.clienthello import ClientHello, client_of
from pytest_egress.clock import monotonic
from pytest_egress.exchange import Entry, Outcome, TcpConnection, TlsFailure, TlsInfo, host_port
from pytest_egress.handshake import DISTRUST
from pytest_egress.hub import READ_BYTES, Hub, passes, trace
from pytest_egress.ledger import Activity, Place, Window
from pytest_egress.relay import shut
from pytest_egress.report import naming
from pytest_egress.routing import (
    HTTP,
    TLS,
    NearMiss,
    Route,
    claimed,
    nearest_by_address,
    opening,
    still_claims,
)
from pytest_egress.sockets import Socket

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

LINGER_SECONDS: Final = 1.0  # for a client to read a refusal: unread data resets the connection
PARK_SECONDS: Final = 1.0  # that a thread waits: to start one for each request costs more than it
PEEK: Final = int(socket.MSG_PEEK)
PEEK_NOW: Final = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
CLIENT_SPEAKS_FIRST: Final = (*HTTP, *TLS)  # kinds of routes


Claim = tuple[Route[Any] | None, str]


class Parked(Exception):
    """A connection goes on without a thread; ends what served it, up to `Connection.run`.

    Args:
        go_on: Serves it from there on, on another thread.
        seconds: After which it is closed, unless something arrives.
    """

    def __init__(self, go_on: Callable[[], None], seconds: float) -> None:
        super().__init__()
        self.go_on, self.seconds = go_on, seconds


class Connection:
    """One connection of a target, from its first byte to its last.

    Args:
        hub: What it shares with the target's other connections.
        sock: As it was accepted.
        client: Address and port of the client inside the target.
        serve: Finds out what is spoken, and answers; called on its thread.

    Attributes:
        ident: Identifier of its thread; None while it has none.
        idle_since: When the last thing that went on in it ended, by `time.monotonic`; None while something does.
        awaits: Whether it waits for its client to speak: then it gives its thread up by itself.
        idle_seconds: After how many it is closed while it waits.
        deadline: Of a parked one: when it is closed, by `Ledger.clock`.
        is_ending: Whether its client has been told of that, and not yet closed its own side.
        started: When what goes on began, as entries have it.
        accounted: Whether an entry, or a byte of a request, tells of it: an attempt never vanishes.
        is_reset: Whether its client is to see that it did not end well.
        is_cut: Whether we ended it.
        ended: Whether its thread is done with it.
        address: The IP address that was dialled.
        dialled: The name that this address was given out for, or else the address.
        host: What routes are keyed on: the SNI where there is one, else `dialled`.
        hello: The ClientHello of its TLS, or None.
        greeted: When what brought that hello began, as entries have it.
        claim: Of one whose bytes pass unread: the route that lets it live (None is `unrouted="passthrough"`), and the
            host that it was found for.
        is_relayed: Whether its bytes are copied as they come: none wait for long.
    """

    def __init__(
        self,
        hub: Hub,
        sock: socket.socket,
        client: tuple[str, int],
        serve: Callable[[Connection], None],
    ) -> None:
        self.hub, self.ledger, self.site = hub, hub.ledger, hub.site
        self.sock, self.client = sock, client
        self.ident: int | None = None
        self.idle_since: float | None = None
        self.awaits, self.is_ending = False, False
        self.idle_seconds, self.deadline = hub.unused_seconds, 0.0
        self.started = 0.0
        self.accounted, self.is_reset, self.is_cut, self.ended = False, False, False, False
        self.is_relayed = False
        self.address, self.dialled, self.host, self.port = "", "", "", 0
        self.sni: str | None = None
        self.hello: ClientHello | None = None
        self.greeted = 0.0
        self.tls: TlsInfo | None = None
        self.claim: Claim | None = None
        self.activity = Activity(container=self.site.name, cut=self.cut, told=self.told)
        self._go_on: Callable[[], None] = lambda: serve(self)
        self._others: set[socket.socket] = set()
        self._place: Place | None = None
        self._trusted_in: Window | None = None
        self.begin()

    def told(self) -> str:
        """What it is, in words, as long as no handler runs."""
        return f"a connection to {host_port(self.host, self.port)}" if self.host else "a connection"

    # Threads and windows.

    def begin(self) -> None:
        """Something begins: it belongs to the window that is open now."""
        self.started = self.ledger.now()
        self.activity.thread = self.ident
        with self.ledger.changed:  # or the window could close in between
            self._place = self.site.place()
            self.ledger.begin(self._place.window, self.activity)
        self.idle_since, self.awaits = None, False

    def end(self) -> None:
        """It has ended: the connection is idle."""
        self.idle_since = monotonic()
        self.detach()

    def detach(self) -> None:
        """Let its window close without it, whatever goes on."""
        self.activity.route = None
        if self._place is not None:
            self.ledger.end(self._place.window, self.activity)
            self._place = None

    def await_begin(self, go_on: Callable[[], None]) -> bytes:
        """Wait, idle, for the first byte of something new; b"" at the end of the connection.

        It is left unread until it belongs to a window, so that whoever closes one sees it (`Gateway.unread`).

        Args:
            go_on: What to do with that byte where it comes so late that it is another thread's.

        Raises:
            Parked: It does not come soon.
        """
        self.awaits = True
        seconds = 0 if self.hub.is_crowded else min(PARK_SECONDS, self.idle_seconds)
        poller = select.poll()  # SO_RCVTIMEO would bound the reads that follow, too
        poller.register(self.sock, select.POLLIN)
        if not poller.poll(seconds * 1000):
            raise Parked(go_on, self.idle_seconds - seconds)
        if first := self.peek(1):
            self.begin()
        return first

    def has_arrived(self) -> bool | None:
        """Whether something can be read; None at its end. For one that waits: what has been read leaves nothing behind.

        TLS reads record by record, and a read takes a whole one; a request that h11 has begun to read is not idle.
        """
        try:
            return bool(self.peek(1, PEEK_NOW)) or None
        except BlockingIOError:
            return False
        except OSError:  # it has been reset
            return None

    def reset(self) -> None:
        """Let `close` send RST: the client sees "connection reset" at once (SO_LINGER, socket(7))."""
        self.is_reset = True
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def adopt(self, other: socket.socket) -> socket.socket:
        """Let a socket to a real server end with this connection."""
        with self.hub.lock:
            self._others = {sock for sock in self._others if sock.fileno() >= 0} | {other}
            if self.is_cut:
                shut(other)
        return other

    def adopt_tls(self, upstream_socket: socket.socket, host: str) -> socket.socket:
        """TLS to a real server, over a socket that was adopted: the handshake can be ended too.

        Raises:
            UpstreamError: Its certificate does not hold, or it speaks no TLS.
        """
        tls = upstream.secure(upstream_socket, host, self.hub.upstream_tls)
        self.adopt(tls)
        try:
            upstream.shake_hands(tls, host)
        except BaseException:
            self.release(tls)
            raise
        return tls

    def twin(self) -> socket.socket:
        """Another socket object for what TCP carries; it has a descriptor of its own."""
        return Socket(fileno=os.dup(self.sock.fileno()))

    def release(self, other: socket.socket) -> None:
        """End a socket that was adopted."""
        with self.hub.lock:
            self._others.discard(other)
            shut(other)
            other.close()

    def let_live(self, route: Route[Any] | None, host: str) -> None:
        """Claim it, and cut it at once where what lets it live has gone meanwhile.

        Args:
            host: What the route was found for.
        """
        claim = self.claim = route, host
        if not holds(self.site.place(), self, claim, self.ledger.window is None):
            self.cut()

    @property
    def hosts(self) -> set[str]:
        """All that it is known to be for: the name that was dialled, its address, the SNI."""
        return {self.dialled, self.address, self.host}

    def upstream_host(self, route: Route[Any] | None, host: str) -> str:
        """Where its real server is: what was dialled, unless the route answers by the name in SNI or Host alone.

        A route that lets a name through opens no address to whoever writes that name, nor a host that another route
        claims.

        Args:
            route: What says so; None is `unrouted="passthrough"`.
            host: The name in SNI or Host.
        """
        if route is None or self.answers(route, self.dialled) or self.answers(route, self.address):
            return self.dialled
        return host

    def answers(self, route: Route[Any], host: str) -> bool:
        """Whether a route covers a host, and none that is declared for another address comes before it."""
        first = opening(self.place.tables, host, self.port)
        same = first is not None and first.parsed_address == route.parsed_address
        return same and route.covers(host, self.port)

    def reach(
        self, route: Route[Any] | None, host: str, port: int, scheme: str, by: str = ""
    ) -> socket.socket:
        """A connection to the real server of a host, which ends with this one.

        Args:
            route: What lets it through: where it is for this very host, the user has named it.
            scheme: Of its URL, for the error's text.
            by: "request.forward" where a handler asks for it.

        Raises:
            UpstreamError: It cannot be reached, or may not be.
        """
        kind, address = (
            ("passthrough", f"*:{port}") if route is None else (route.kind, route.address)
        )
        named = route is not None and route.is_for(host)
        remedy = "" if named else naming(by or kind, address, scheme, host, port)
        return self.adopt(upstream.connect(host, port, remedy))

    def sockets(self) -> list[socket.socket]:
        """Its own, and those that end with it."""
        return [self.sock, *self._others]

    def cut(self) -> None:
        """Make its thread stop; any thread."""
        with self.hub.lock:
            self.is_cut = True
            for sock in self.sockets():
                shut(sock)

    def close(self) -> None:
        """End it; the owning thread, or none yet."""
        with self.hub.lock:
            self.hub.connections.discard(self)
            for other in self._others:
                other.close()
            if self.sock.fileno() >= 0:
                os.close(self.sock.detach())  # also where a handler left a file of it open
            self.sock.close()  # frees what TLS holds: the ledger's requests know their connection
            self.hub.room.notify_all()
        self.end()
        with self.ledger.changed:
            self.ended = True
            self.ledger.changed.notify_all()  # whoever waits for it, or for the last one

    def start(self) -> None:
        """Let a thread of its own serve it, from where it stands.

        Raises:
            RuntimeError: None can be started.
        """
        name = f"egress {self.site.name} {self.client[1]}"
        threading.Thread(target=self.run, name=name, daemon=True).start()

    def run(self) -> None:
        """Serve it to its end, or until it waits."""
        self.activity.thread = self.ident = threading.get_ident()
        is_parked = False
        try:
            is_parked = self._serve()
        finally:
            if not is_parked:
                self.close()

    def _serve(self) -> bool:
        """Whether it has been parked: it is another thread's then, already."""
        try:
            self._go_on()
        except Parked as parked:
            self._go_on = parked.go_on
            self.activity.thread = self.ident = None
            if self.hub.park(self, parked.seconds):
                return True
            self.say_goodbye()
        except (OSError, h11.ProtocolError) as error:  # ssl.SSLError is an OSError
            if not self.accounted:
                self.record_tcp(b"", f"broke off: {error}")
        except Exception as error:  # a defect of ours must fail the test, not end with its thread
            self.hub.complain(f"the gateway failed: {trace(error)}")
        return False

    @property
    def place(self) -> Place:
        """Where what goes on now belongs."""
        return self._place or self.site.place()

    def peek(self, size: int, flags: int = PEEK) -> bytes:
        """Up to so many bytes of what TCP carries, left unread; b"" at its end."""
        return socket.socket.recv(self.sock, size, flags)

    # Records.

    def about(self) -> dict[str, Any]:
        """The fields of every entry about it."""
        return self.hub.about(self.host, self.port, self.started)

    def judged(self, at_claimed: Outcome) -> dict[str, Any]:
        """The fields of an entry about what no handler answers."""
        return self.about() | self.hub.judge(self.place, self.host, self.port, at_claimed)

    def record_tcp(self, first_bytes: bytes, note: str) -> None:
        """Record a connection that is neither TLS nor HTTP; silence is no offence at a claimed address."""
        self._record_tcp(first_bytes, note, "unrouted" if first_bytes else self.silent_outcome())

    def silent_outcome(self) -> Outcome:
        """What silence means: where a client of HTTP or TLS is awaited, it has connected ahead of its need."""
        route = opening(self.place.tables, self.host, self.port)
        return "recorded" if route is not None and route.kind in CLIENT_SPEAKS_FIRST else "unrouted"

    def _record_tcp(self, first_bytes: bytes, note: str, at_claimed: Outcome) -> None:
        entry = TcpConnection(
            **self.judged(at_claimed),
            address=self.address,
            sni=self.sni,
            first_bytes=first_bytes,
            note=note,
        )
        if entry.outcome == "unrouted":
            miss = nearest_by_address(self.place.tables, "tcp", self.host, self.port)
            entry.near = (miss,) if miss else ()
        self.record(entry)

    def record_tls(self, reason: str, note: str) -> None:
        """Record a TLS connection that has not become a request; at a claimed address the end of its test judges it."""
        fields = self.judged("recorded")
        if self.is_cut:
            reason, note = "cut", "its handshake had not ended when its test did"
        elif self.site.is_ending and reason != "untrusted":  # no alert: it need not have left
            reason, note = "cut", "its handshake had not ended when its container was stopped"
        if reason in DISTRUST:
            note = "; ".join([note, *self.site.hints])
        entry = TlsFailure(
            **fields,
            address=self.address,
            sni=self.sni,
            reason=reason,
            client=self.tls_client(reason),
            note=note,
        )
        route = claimed(self.place.tables, self.host, self.port)
        if entry.outcome == "recorded" and route is not None:
            entry.near = (NearMiss(route=route, differences=()),)
        self.record(entry)

    def tls_client(self, reason: str = "") -> str:
        """What tells its TLS client from the container's others: one that has to come back with other protocols may."""
        return "" if self.hello is None else client_of(self.hello, alpn=reason != "alpn")

    def shook_hands(self) -> None:
        """Note that its TLS client has shown that it trusts us, once in each window."""
        window = self.place.window
        if window is self._trusted_in:
            return
        self._trusted_in = window
        for reason in ("", "alpn"):
            peers = (self.site.name, self.host, self.port, self.tls_client(reason))
            self.ledger.shook_hands(window, peers, self.greeted)

    def record(self, entry: Entry) -> None:
        """Put an entry into the window."""
        self.accounted = True
        self.hub.record(self.place, entry)

    def refuse(self, first_bytes: bytes, note: str = "") -> None:
        """Record what nothing can serve, and reset it."""
        self._record_tcp(first_bytes, note, "unrouted")
        self.reset()

    def fail_tls(self, reason: str, note: str) -> None:
        """Record a TLS connection that will never become a request, and reset it."""
        self.record_tls(reason, note)
        self.reset()

    # Its end.

    def tell_end(self) -> None:
        """Send the end of an idle connection; what the client has sent meanwhile can still be read."""
        self.is_ending = True
        if self.say_goodbye():
            self.record_late()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
        self.sock.settimeout(0)

    def read_late(self) -> bool:
        """Read what comes after `tell_end`; False at its end."""
        try:
            data = self.sock.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        if data:
            self.record_late()
        return bool(data)

    def record_late(self) -> None:
        """Record a request that crossed the end: it gets no answer, and its client asks again or fails."""
        self.begin()
        note = f"sent something in the moment in which it was closed: it had been idle for {self.idle_seconds:g} s"
        self.record_tcp(b"", note)
        self.end()

    def say_goodbye(self) -> bool:
        """Tell a TLS client that this is the end (close_notify, RFC 8446 section 6.1), not a cut.

        Returns:
            Whether it has just sent something: OpenSSL looks for the client's own end, and throws that away.
        """
        if isinstance(self.sock, ssl.SSLSocket) and not self.is_reset:
            try:
                self.sock.settimeout(0)  # its own is not waited for
                self.sock.unwrap()
            except ssl.SSLError as error:
                return error.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"
            except (OSError, ValueError):
                pass
        return False

    def linger(self) -> None:
        """Let the client read an answer while what it still sends is thrown away (RFC 9112 section 9.6)."""
        deadline = monotonic() + LINGER_SECONDS
        self.say_goodbye()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
            self.sock.settimeout(LINGER_SECONDS)
            while monotonic() < deadline and socket.socket.recv(self.sock, READ_BYTES):
                pass


def holds(
    place: Place, connection: Connection, claim: Claim, between: bool, test_over: bool = False
) -> bool:
    """Whether what lets a connection live is still there, and still comes first.

    Args:
        claim: The route that does, or none, and the host.
        between: Whether no test runs: then routes are only gone that have been removed or have ended.
        test_over: Whether what a test let through has ended.
    """
    route, host = claim
    if test_over and (route is None or route.scope == "test"):
        return False
    if route is None:
        return passes(place, None, {host, *connection.hosts}, connection.port)
    if between:
        return not (route.removed or route.ended)
    return still_claims(place.tables, route, host, connection.port)


def receive_timeout(sock: socket.socket, seconds: float) -> None:
    """Bound blocking reads in the kernel (SO_RCVTIMEO, socket(7)): unlike `settimeout` it leaves MSG_WAITALL to work.

    Args:
        seconds: 0 for no bound.
    """
    whole = int(seconds)
    value = struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)


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
