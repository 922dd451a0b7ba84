"""One connection of a target: its thread, its socket, its window. `dispatch` finds out what it carries.

Sockets block. Only the owning thread closes them; other threads wake it by `shutdown`. A connection that waits for its
client keeps its thread for a second. After that it is parked: it has no thread, and the gateway's reader owns it.
`Connection` is one long class, because open, idle, parked, cut and over are states of one thing that several threads
move.

Threads: the owner (its own thread, or the reader while it is parked) calls everything, and is the only one that
writes its fields, but for these. `cut` is any thread's, and sets `is_cut` under `Connections.lock`. What other
threads read is set in one assignment each: `destination`, `idle_since`, `awaits`, `allowed_by`, `is_relayed`,
`is_tunnel`, `ident` and `ended`. Locks are taken one after the other, never the second within the first:
`Ledger.changed` in `begin`, `detach` and `close`, `Connections.lock` in `adopt`, `release`, `cut` and `close`.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import h11

from pytest_egress.base.clock import monotonic
from pytest_egress.base.polling import BYTE_OR_END, ENDED
from pytest_egress.base.sockets import (
    BLOCKED,
    READ_BYTES,
    Socket,
    await_ready,
    has_closed_both_ways,
    reset_at_close,
    shut,
    wanted,
)
from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.destination import Destination
from pytest_egress.gateway.lasting import Lasting
from pytest_egress.gateway.patience import Patience, StalledError
from pytest_egress.gateway.recorder import Recorder, passes, silent_outcome
from pytest_egress.gateway.tcp_info import NOTHING, Counts, carried_so_far
from pytest_egress.ledger.windows import Activity, AttemptContext, Window
from pytest_egress.link.stream_sockets import AcceptedSocket
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import still_claims
from pytest_egress.traffic.notes import ConnectionNote
from pytest_egress.traffic.shown import host_port
from pytest_egress.traffic.tls.clients import library_of

LINGER_SECONDS: Final = 1.0  # for a client to read a refusal: unread data resets the connection
PARK_SECONDS: Final = 1.0
"""A thread waits for the next request: one more start costs more than that."""
PEEK: Final = int(socket.MSG_PEEK)
PEEK_ALL: Final = int(socket.MSG_PEEK | socket.MSG_WAITALL)  # blocks until all of it has arrived
END_OF_HEAD: Final = re.compile(rb"\n\r?\n")  # as h11 has it
LONGEST_END: Final = 2  # bytes of one before its last


AllowedBy = tuple[InnerRoute | None, str]
"""What lets bytes pass unread: a route (None is `unrouted="passthrough"`), and the host that it was found for."""


class Parked(Exception):
    """A connection is to wait without a thread: raised in what serves it, and caught by `Connection.run`.

    Args:
        go_on: Continues to serve the connection when something arrives, on another thread.
        seconds: How long the connection may wait until it is closed.
    """

    def __init__(self, go_on: Callable[[], None], seconds: float) -> None:
        super().__init__()
        self.go_on, self.seconds = go_on, seconds


class Registry(Protocol):
    """The part of `Connections` that a single connection needs."""

    idle_seconds: float
    unused_seconds: float

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Guards the sockets that are shut and closed together with a connection."""
        ...

    @property
    def is_crowded(self) -> bool:
        """Whether threads become scarce. An idle connection then gives up its own at once."""
        ...

    def park(self, connection: Connection, seconds: float) -> bool:
        """Keep an idle connection without a thread until it can be read; False where it cannot be parked."""
        ...

    def discard(self, connection: Connection) -> None: ...


class Carried(Protocol):
    """What may pass unread while a route allows that: a connection, or one stream where a connection has several."""

    activity: Activity
    allowed_by: AllowedBy | None
    lasting: Lasting | None
    ended: bool

    @property
    def destination(self) -> Destination: ...

    def cut(self) -> None:
        """Any thread may call this."""
        ...


class Multiplexed(Protocol):
    """The server of a connection that has several requests at once. Any thread may call these."""

    def farewell(self) -> None:
        """Tell the client that no request is wanted any more."""
        ...

    def close(self) -> None:
        """Send nothing any more: the socket is about to be closed."""
        ...

    def abort(self, why: str) -> None:
        """Reset the connection, and end all requests on it, with `why` as their reason."""
        ...

    def hang_up(self, why: str) -> None:
        """Close our side of the connection without a farewell, and end all requests on it."""
        ...

    def threads(self) -> list[int | None]:
        """The identifiers of the threads that serve requests; None of one that has not begun."""
        ...

    def carriers(self) -> Sequence[Carried]: ...


class Connection:
    """One connection of a target, from its first byte to its last.

    Attributes:
        ident: Identifier of its thread; None while it has none.
        idle_since: When its last attempt ended, by `time.monotonic`; None while an attempt goes on.
        awaits: Whether it waits for its client to send something. It then gives up its thread by itself.
        deadline: When a parked connection is closed, by `Ledger.clock`.
        is_ending: Whether a parked connection has sent its end, and waits for its client to close too.
        started: When its current attempt began, in the time of entries.
        accounted: Whether an entry, or a byte of a request, tells of it. Without either it must be recorded at its end,
            since no attempt may vanish.
        is_reset: Whether it is closed by RST, so that its client sees an error.
        is_cut: Whether we ended it.
        allowed_by: What allows its bytes to pass unread; None where they are read.
        is_between: Whether it is for another container of a network of the target's.
        is_relayed: Whether its bytes are copied to another server as they come, so that none stay unread for long.
        multiplexed: Its server, where it has several requests at once, each an attempt of its own. Then the connection
            itself has none, but before the first request and within a request's head.
        is_reading: Whether bytes of such a connection are being read, whose requests have not begun yet.
        is_tunnel: Whether it leads to its destination by a tunnel.
        note: What is kept of it where notes are asked for; else None.
        before: What it had carried before it began to lead to its destination, by a tunnel; nothing, as a rule.
        read_late: Records what the client has sent after `tell_end`. Its thread calls it, once.
    """

    def __init__(
        self,
        sock: socket.socket,
        client: tuple[str, int],
        serve: Callable[[Connection], None],
        *,
        registry: Registry,
        recorder: Recorder,
    ) -> None:
        self.recorder, self.ledger, self.target = recorder, recorder.ledger, recorder.target
        self.sock, self.client, self._registry = sock, client, registry
        self._is_copied, self._has_asked = isinstance(sock, AcceptedSocket), False
        self.destination = Destination()
        self.ident: int | None = None
        self.idle_since: float | None = None
        self.awaits, self.is_ending, self._ended_by = False, False, ""
        self.idle_seconds, self.deadline = registry.unused_seconds, 0.0
        self.started = 0.0
        self.accounted, self.is_reset, self.is_cut, self.ended = False, False, False, False
        self.is_relayed, self.is_reading, self.is_between = False, False, False
        has_carried = isinstance(sock, AcceptedSocket) and sock.is_direct
        self.is_tunnel, self.before = False, carried_so_far(sock) if has_carried else NOTHING
        self.multiplexed: Multiplexed | None = None
        self.allowed_by: AllowedBy | None = None
        self.turn = 0
        self.lasting: Lasting | None = None
        notes = self.ledger.accounts.notes
        self.note: ConnectionNote | None = None if notes is None else notes.connection()
        self.activity = Activity(container=self.target.name, cut=self.cut, told=self.told)
        self._go_on: Callable[[], None] = lambda: serve(self)
        self.read_late: Callable[[], None] = self._read_late
        self._others: set[socket.socket] = set()
        self._context: AttemptContext | None = None
        self._trusted_in: Window | None = None
        self._poller: select.poll | None = None
        self.begin()

    def told(self) -> str:
        """The connection in words, for a message that names what keeps a window open while no handler runs."""
        host, port = self.destination.host, self.destination.port
        return f"a connection to {host_port(host, port)}" if host else "a connection"

    # Threads and windows.

    def begin(self) -> None:
        """The attempt belongs to the window that is open now."""
        self.started = self.ledger.now()
        self.activity.thread = self.ident
        with self.ledger.changed:  # else the window could close between these two calls
            self._context = self.target.attempt_context()
            self.ledger.begin(self._context.window, self.activity)
        self.idle_since, self.awaits = None, False

    def end(self) -> None:
        self.idle_since = monotonic()
        self.detach()

    def detach(self) -> None:
        """Keep the window open no longer, though the connection may go on."""
        self.activity.route = None
        if self._context is not None:
            self.ledger.end(self._context.window, self.activity)
            self._context = None

    def outlive(self, lasting: Lasting) -> None:
        self.lasting = lasting
        self.detach()
        self.activity.route, self.activity.what = lasting.route, lasting.exchange
        lasting.tell_if_over()

    def arrive(self) -> None:
        """Note that a parked connection can be read: its attempt begins, or those of the requests that it brings will.

        Called before it leaves `Connections.parked`, so that a test that closes its window sees it as unread or as
        begun, and never as neither.
        """
        if self.multiplexed is None:
            self.begin()
        else:
            self.is_reading = True

    @property
    def has_attempt(self) -> bool:
        """Whether the connection itself has an attempt: those of several requests on it do not count."""
        return self._context is not None

    @property
    def is_crowded(self) -> bool:
        return self._registry.is_crowded

    def threads(self) -> list[int | None]:
        """A None stands for no thread: the connection is parked."""
        others = [] if self.multiplexed is None else self.multiplexed.threads()
        return others or [self.ident]

    def carriers(self) -> Sequence[Carried]:
        return [self, *([] if self.multiplexed is None else self.multiplexed.carriers())]

    def farewell(self) -> None:
        """Any thread may call this. Nothing is sent where the protocol has no farewell."""
        if self.multiplexed is not None:
            self.multiplexed.farewell()

    def await_begin(self, go_on: Callable[[], None]) -> bool:
        """Wait, idle, for the first byte of the next attempt; False at the end of the connection.

        The byte is left unread until the attempt belongs to a window: a test's thread that closes its window looks for
        unread bytes (`Gateway.unread`), and would otherwise close it between the read and the attempt's beginning.

        Raises:
            Parked: No byte comes soon.
        """
        self.awaits = True
        seconds = 0 if self._registry.is_crowded else min(PARK_SECONDS, self.idle_seconds)
        if self._poller is None:
            self._poller = select.poll()  # SO_RCVTIMEO would limit the reads that follow too
            self._poller.register(self.sock, BYTE_OR_END)
        if not (ready := self._poller.poll(seconds * 1000)):
            raise Parked(go_on, self.idle_seconds - seconds)
        if has_come := self._is_byte(ready[0][1]):
            self.begin()
        return has_come

    def _is_byte(self, came: int) -> bool:
        """Whether what poll(2) has found is a byte, which is looked at only where an end has come too."""
        return came == select.POLLIN or bool(self.peek(1))

    def has_arrived(self) -> bool | None:
        """Whether a waiting connection can be read; None at its end.

        The kernel's buffer alone tells, since no layer above it holds bytes back here: a TLS read takes a whole record,
        and a connection with a request that h11 has begun to read does not wait.
        """
        if not (came := await_ready(self.sock, BYTE_OR_END, 0)):
            return False
        try:
            return self._is_byte(came) or None
        except OSError:  # the connection has been reset
            return None

    def reset(self) -> None:
        """Make `close` send RST, so that the client sees "connection reset" at once (SO_LINGER, socket(7))."""
        self.is_reset = True
        reset_at_close(self.sock)

    def abort(self) -> None:
        """Have its thread find the end of the connection, which `close` then resets. Any thread may call it."""
        self.reset()
        with self._registry.lock:
            self.is_cut = True
            with contextlib.suppress(OSError):  # SHUT_WR would send FIN first
                socket.socket.shutdown(self.sock, socket.SHUT_RD)
            for other in self._others:
                shut(other)

    def drop(self) -> None:
        """Close the socket before the connection's end. Its thread calls it."""
        with self._registry.lock:
            if self.sock.fileno() >= 0:
                os.close(self.sock.detach())

    def adopt(self, other: socket.socket) -> socket.socket:
        with self._registry.lock:
            self._others = {sock for sock in self._others if sock.fileno() >= 0} | {other}
            if self.is_cut:
                shut(other)
        return other

    def twin(self) -> socket.socket:
        """A second socket object for the same TCP connection, with a descriptor of its own."""
        return Socket(fileno=os.dup(self.sock.fileno()))

    def release(self, other: socket.socket) -> None:
        with self._registry.lock:
            self._others.discard(other)
            shut(other)
            other.close()

    def replace_by(self, make: Callable[[socket.socket], socket.socket]) -> None:
        """Replace the socket object by one of the same TCP connection, under the lock: a cut reaches one of the two."""
        with self._registry.lock:
            self.sock = make(self.sock)

    def regain(self, twin: socket.socket) -> None:
        """Own an adopted twin as the connection's socket, since the first one is closed, and end the connection."""
        with self._registry.lock:
            self._others.discard(twin)
            self.sock = twin
        if self.is_reset:
            reset_at_close(twin)
        else:
            shut(twin)

    def return_to(self, sock: socket.socket) -> None:
        """Own an adopted socket as the connection's again, and close the one that stood in its place."""
        with self._registry.lock:
            self._others.discard(sock)
            if self.sock.fileno() >= 0:
                os.close(self.sock.detach())  # sock.close() waits for a handler's open makefile()
            self.sock = sock

    def reset_adopted(self, other: socket.socket) -> None:
        """The thread that uses the adopted socket calls this."""
        with self._registry.lock:
            self._others.discard(other)
            reset_at_close(other)
            if other.fileno() >= 0:
                os.close(other.detach())

    def allow_unread(self, route: InnerRoute | None, host: str) -> None:
        """Mark the connection's bytes as allowed to pass unread, and cut it if that is allowed no longer.

        The mark comes first: a route that goes after it makes `Gateway.revise` cut the connection, and one that went
        before it, since it was looked up, is noticed here. A route of None is `unrouted="passthrough"`.
        """
        allowed_by = self.allowed_by = route, host
        between = self.ledger.window is None
        context = self.target.attempt_context()
        is_allowed = is_still_allowed(context, self.destination, allowed_by, between=between)
        if not is_allowed or self.is_in_outage:
            self.cut()

    @property
    def is_in_outage(self) -> bool:
        """Whether the route that allows its bytes has been given a fault of connecting since."""
        route = self.allowed_by and self.allowed_by[0]
        return route is not None and route.turns.is_outage(self.turn)

    def read_again(self) -> None:
        self.allowed_by = None

    def has_left(self) -> bool:
        """Whether the client has closed the connection, or reset it. Any thread may call it, whatever lock it holds.

        A client may close its sending side alone, behind its request, and wait for the response. Its kernel is asked
        once, since the question stays there unread: if the client closes later, that is a reset. Behind a stream link
        nothing tells the two apart.
        """
        if not await_ready(self.sock, ENDED, 0):
            return False
        if self._is_copied or await_ready(self.sock, 0, 0):  # the latter: reset, or closed by us
            return True
        if self._has_asked:
            return False
        self._has_asked = True
        return has_closed_both_ways(self.sock)

    def sockets(self) -> list[socket.socket]:
        return [self.sock, *self._others]

    def cut(self) -> None:
        """Shutting the sockets wakes the connection's thread. Any thread may call this."""
        with self._registry.lock:
            self.is_cut = True
            for sock in self.sockets():
                shut(sock)

    def close(self) -> None:
        """The owning thread calls this, or another one before there is one."""
        if self.multiplexed is not None:
            self.multiplexed.close()
        with self._registry.lock:
            for other in self._others:
                other.close()
            if self.sock.fileno() >= 0:
                os.close(self.sock.detach())  # sock.close() waits for a handler's open makefile()
            self.sock.close()  # frees the TLS state: requests in the ledger keep this object alive
            self._registry.discard(self)
        self.end()
        with self.ledger.changed:
            self.ended = True
            self.ledger.tell()  # threads wait for this connection, or for the last one

    def run(self) -> None:
        """Serve the connection to its end, or until it is parked. The thread has served other ones before."""
        threading.current_thread().name = f"egress {self.target.name} {self.client[1]}"
        self.activity.thread = self.ident = threading.get_ident()
        is_parked = False
        try:
            is_parked = self._serve()
        finally:
            if not is_parked:
                self.close()

    def _serve(self) -> bool:
        """Return whether the connection has been parked: another thread may own it by then."""
        try:
            if self.is_ending:
                self.read_late()
            else:
                self._go_on()
        except Parked as parked:
            self._go_on = parked.go_on
            self.activity.thread = self.ident = None
            if self._registry.park(self, parked.seconds):
                return True
            self.say_goodbye()
        except (OSError, h11.ProtocolError) as error:  # ssl.SSLError is an OSError
            if not self.accounted:
                self.record_tcp(b"", f"broke off: {error}")
        except Exception as error:
            # A defect of ours must fail the test, not vanish with its thread.
            self.recorder.complain("the gateway failed", error)
        return False

    @property
    def context(self) -> AttemptContext:
        return self._context or self.target.attempt_context()

    def lead_to(self, destination: Destination, before: Counts) -> None:
        """Go on as a connection that has just been made to another destination, by a tunnel."""
        self.destination, self.before, self.is_tunnel = destination, before, True
        self.started, self.accounted = self.ledger.now(), False
        if (notes := self.ledger.accounts.notes) is not None:
            self.note = notes.connection()
        self.idle_seconds, self.read_late = self._registry.unused_seconds, self._read_late
        self.sock.settimeout(None)

    def peek(self, size: int, flags: int = PEEK) -> bytes:
        """Up to `size` bytes of the TCP stream, below any TLS, left unread; b"" at its end."""
        return socket.socket.recv(self.sock, size, flags)

    def receive_head(self, come: bytes) -> bytes:
        """Read as `receive` does, and not beyond the end of a head of HTTP/1.1, of which the bytes `come` have come."""
        tail = come[-LONGEST_END:]
        ahead = self.receive(READ_BYTES, PEEK)
        end = END_OF_HEAD.search(tail + ahead)
        return self.receive(len(ahead) if end is None else end.end() - len(tail))

    def receive(self, size: int, flags: int = 0) -> bytes:
        """Read up to `size` bytes more of a head or a body that has begun; b"" at the end of the connection.

        The socket blocks no more afterwards: `ssl` would ask the kernel before each write whether it can be made, and
        a change of mode is a call of the system too.

        Raises:
            StalledError: Nothing has come for `STALL_SECONDS`. A TLS record that is not whole counts as nothing.
        """
        sock, patience = self.sock, None
        if sock.gettimeout() != 0:
            sock.settimeout(0)
        while True:
            try:
                return sock.recv(size, flags)
            except BLOCKED as blocked:
                if patience is None:
                    patience = Patience(self.ledger.clock)
                elif patience.is_over:
                    raise StalledError from None
                await_ready(sock, wanted(blocked, select.POLLIN), patience.seconds_left)

    @property
    def attempt(self) -> Attempt:
        return Attempt(
            context=self._context or self.target.attempt_context(),
            destination=self.destination,
            started=self.started,
            activity=self.activity,
            connection=self.noted(),
        )

    def noted(self) -> ConnectionNote | None:
        """The note of this connection, with what is known of its destination."""
        if (note := self.note) is None:  # as a rule
            return None
        to = self.destination
        note.address, note.port, note.sni, note.tls = to.address, to.port, to.sni, to.tls
        if note.library is None and to.hello is not None:
            note.library = library_of(to.hello)
        note.presented = to.presented.to(to.host) if to.presented.is_bad else ""
        return note

    # Records.

    def record_tcp(self, first_bytes: bytes, note: str) -> None:
        """Record a connection that is neither TLS nor HTTP. A silent one does not fail a test at a claimed address."""
        attempt = self.attempt
        outcome = "unrouted" if first_bytes else silent_outcome(attempt)
        self.accounted = True
        self.recorder.record_tcp(attempt, first_bytes, note, outcome)

    def record_broken(self, note: str, sent: bytes = b"") -> None:
        """Record a connection whose client has not sent the head of a request whole, so that no route answers it."""
        self.accounted = True
        self.recorder.record_unreadable(self.attempt, note, sent)

    def record_tls(self, reason: str, note: str) -> None:
        """Record a TLS connection that has not become a request. At a claimed address the verdict judges it later."""
        self.accounted = True
        if self.is_cut and self.allowed_by is not None:
            return  # of a raw handler: the connection's own entry tells of it, and the end was ours
        self.recorder.record_tls(self.attempt, reason, note, is_cut=self.is_cut)

    def note_trust(self) -> None:
        """Record once in each window that the TLS client trusts the CA; accepting a bad certificate shows nothing."""
        window = self.context.window
        if window is not self._trusted_in and not self.destination.presented.is_bad:
            self._trusted_in = window
            self.recorder.trust(self.attempt)

    def refuse(self, first_bytes: bytes, note: str = "") -> None:
        self.accounted = True
        self.recorder.record_tcp(self.attempt, first_bytes, note, "unrouted")
        self.reset()

    def fail_tls(self, reason: str, note: str) -> None:
        """Record a TLS connection that will never become a request, and reset it, unless its client has looked only."""
        self.record_tls(reason, note)
        if reason != "probe":
            self.reset()

    # Its end.

    def tell_end(self, why: str = "") -> None:
        """Close our side of an idle connection; what crosses that can still be read. No `why`: it was idle too long."""
        self.is_ending, self._ended_by = True, why
        if self.multiplexed is not None:
            self.multiplexed.farewell()  # the client closes now: what it sends before is read by its protocol
            return
        if self.say_goodbye():
            self._record_late()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
        self.sock.settimeout(0)

    def _read_late(self) -> None:
        """Read what the client has sent after `tell_end`, where no server of requests does that."""
        with contextlib.suppress(OSError):
            if self.sock.recv(READ_BYTES):
                self.record_tcp(b"", self.late_note())
                self.linger(goodbye=False)

    def late_note(self, why: str = "") -> str:
        """The note of a request that has crossed our end: its client retries or fails. No `why`: that of `tell_end`."""
        why = why or self._ended_by or f"it had been idle for {self.idle_seconds:g} s"
        return f"sent something in the moment in which it was closed: {why}"

    def _record_late(self) -> None:
        self.begin()
        self.record_tcp(b"", self.late_note())
        self.end()

    def say_goodbye(self) -> bool:
        """Send a TLS client close_notify (RFC 8446 section 6.1), by which it tells an end from a cut.

        Returns:
            Whether the client has just sent something. OpenSSL reads on for the client's own close_notify, and has
            discarded that.
        """
        if not self.is_reset:
            self.farewell()
        if isinstance(self.sock, ssl.SSLSocket) and not self.is_reset:
            try:
                self.sock.settimeout(0)  # do not wait for the client's own close_notify
                self.sock.unwrap()
            except ssl.SSLError as error:
                return error.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"
            except (OSError, ValueError):
                pass
        return False

    def linger(
        self, *, goodbye: bool = True, heard: Callable[[bytes], object] = lambda data: None
    ) -> None:
        """Close our side, and discard what the client still sends, until it closes (RFC 9112 section 9.6).

        Closing at once would reset the connection if bytes were unread, and the client could lose the answer.

        Args:
            heard: Gets what is discarded: in TLS, its records.
        """
        deadline = monotonic() + LINGER_SECONDS
        if goodbye:
            self.say_goodbye()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
            self.sock.settimeout(LINGER_SECONDS)
            while monotonic() < deadline and (data := socket.socket.recv(self.sock, READ_BYTES)):
                heard(data)


def is_still_allowed(
    context: AttemptContext,
    destination: Destination,
    allowed_by: AllowedBy,
    *,
    between: bool,
    test_over: bool = False,
) -> bool:
    """Whether the bytes of a connection may still pass unread: what allowed it still exists, and no route precedes it.

    Args:
        between: Whether no test runs. Then only a route that was removed, or whose scope has ended, allows it no
            longer.
        test_over: Whether the test has ended, and with it what its own routes and options allowed.
    """
    route, host = allowed_by
    if test_over and (route is None or route.scope == "test"):
        return False
    if route is None:
        return passes(context, None, (host, *destination.hosts), destination.port)
    if between:
        return not route.is_over()
    return still_claims(context.tables, route, host, destination.port)
