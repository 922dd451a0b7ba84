"""One connection of a target: its thread, its socket, its window. What is spoken on it is `dispatch`'s.

Blocking sockets. Only the owning thread closes them; others wake it with `shutdown`. A connection that waits for its
client to speak has a thread for a second and none after that: it is parked, and owned by the gateway's reader.

Threads: the owner (its own thread, or the reader while it is parked) calls everything, and is the only one that
writes its fields, but for these. `cut` is any thread's, and sets `is_cut` under `Connections.lock`. What other
threads read is set in one assignment each: `destination`, `idle_since`, `awaits`, `allowed_by`, `is_relayed`, `ident`
and `ended`. Locks are taken one after the other, never the second within the first: `Ledger.changed` in `begin`,
`detach` and `close`, `Connections.lock` in `adopt`, `release`, `cut` and `close`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import h11

from pytest_egress.base.clock import monotonic
from pytest_egress.base.sockets import Socket, reset_at_close, shut
from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.destination import Destination
from pytest_egress.gateway.recorder import Recorder, passes, silent_outcome
from pytest_egress.ledger.windows import Activity, AttemptContext, Window
from pytest_egress.routes.route import Route
from pytest_egress.routes.table import still_claims
from pytest_egress.traffic.messages import host_port

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

READ_BYTES: Final = 64 * 1024
LINGER_SECONDS: Final = 1.0  # for a client to read a refusal: unread data resets the connection
PARK_SECONDS: Final = 1.0  # that a thread waits: to start one for each request costs more than it
PEEK: Final = int(socket.MSG_PEEK)
PEEK_ALL: Final = int(
    socket.MSG_PEEK | socket.MSG_WAITALL
)  # sleeps in the kernel until it is all there
PEEK_NOW: Final = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)


AllowedBy = tuple[Route[Any] | None, str]
"""What lets bytes pass unread: a route (None is `unrouted="passthrough"`), and the host that it was found for."""


class Parked(Exception):
    """A connection goes on without a thread; ends what served it, up to `Connection.run`.

    Args:
        go_on: Serves it from there on, on another thread.
        seconds: After which it is closed, unless something arrives.
    """

    def __init__(self, go_on: Callable[[], None], seconds: float) -> None:
        super().__init__()
        self.go_on, self.seconds = go_on, seconds


class Registry(Protocol):
    """What a connection needs of those of its target; see `Connections`."""

    idle_seconds: float
    unused_seconds: float

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Guards which sockets end with a connection."""
        ...

    @property
    def is_crowded(self) -> bool:
        """Whether threads become scarce: an idle connection then gives its own up at once."""
        ...

    def park(self, connection: Connection, seconds: float) -> bool:
        """Keep an idle connection without a thread until it can be read; False where that cannot be."""
        ...

    def discard(self, connection: Connection) -> None:
        """Note that it has ended."""
        ...


class Connection:
    """One connection of a target, from its first byte to its last.

    Args:
        sock: As it was accepted.
        client: Address and port of the client inside the target.
        serve: Finds out what is spoken, and answers; called on its thread.
        registry: Those of its target.
        recorder: Where its attempts are recorded.

    Attributes:
        destination: What was dialled, as far as it is known.
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
        allowed_by: Of one whose bytes pass unread: what lets them; None where they are read.
        is_relayed: Whether its bytes are copied as they come: none wait for long.
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
        self.destination = Destination()
        self.ident: int | None = None
        self.idle_since: float | None = None
        self.awaits, self.is_ending = False, False
        self.idle_seconds, self.deadline = registry.unused_seconds, 0.0
        self.started = 0.0
        self.accounted, self.is_reset, self.is_cut, self.ended = False, False, False, False
        self.is_relayed = False
        self.allowed_by: AllowedBy | None = None
        self.activity = Activity(container=self.target.name, cut=self.cut, told=self.told)
        self._go_on: Callable[[], None] = lambda: serve(self)
        self._others: set[socket.socket] = set()
        self._context: AttemptContext | None = None
        self._trusted_in: Window | None = None
        self.begin()

    def told(self) -> str:
        """What it is, in words, as long as no handler runs."""
        host, port = self.destination.host, self.destination.port
        return f"a connection to {host_port(host, port)}" if host else "a connection"

    # Threads and windows.

    def begin(self) -> None:
        """Something begins: it belongs to the window that is open now."""
        self.started = self.ledger.now()
        self.activity.thread = self.ident
        with self.ledger.changed:  # or the window could close in between
            self._context = self.target.attempt_context()
            self.ledger.begin(self._context.window, self.activity)
        self.idle_since, self.awaits = None, False

    def end(self) -> None:
        """It has ended: the connection is idle."""
        self.idle_since = monotonic()
        self.detach()

    def detach(self) -> None:
        """Let its window close without it, whatever goes on."""
        self.activity.route = None
        if self._context is not None:
            self.ledger.end(self._context.window, self.activity)
            self._context = None

    def await_begin(self, go_on: Callable[[], None]) -> bytes:
        """Wait, idle, for the first byte of something new; b"" at the end of the connection.

        It is left unread until it belongs to a window, so that whoever closes one sees it (`Gateway.unread`).

        Args:
            go_on: What to do with that byte where it comes so late that it is another thread's.

        Raises:
            Parked: It does not come soon.
        """
        self.awaits = True
        seconds = 0 if self._registry.is_crowded else min(PARK_SECONDS, self.idle_seconds)
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
        reset_at_close(self.sock)

    def adopt(self, other: socket.socket) -> socket.socket:
        """Let a socket to a real server end with this connection."""
        with self._registry.lock:
            self._others = {sock for sock in self._others if sock.fileno() >= 0} | {other}
            if self.is_cut:
                shut(other)
        return other

    def twin(self) -> socket.socket:
        """Another socket object for what TCP carries; it has a descriptor of its own."""
        return Socket(fileno=os.dup(self.sock.fileno()))

    def release(self, other: socket.socket) -> None:
        """End a socket that was adopted."""
        with self._registry.lock:
            self._others.discard(other)
            shut(other)
            other.close()

    def allow_unread(self, route: Route[Any] | None, host: str) -> None:
        """Mark its bytes as allowed to pass unread, and cut it at once where what allows them has gone meanwhile.

        Args:
            route: What allows them; None is `unrouted="passthrough"`.
            host: What the route was found for.
        """
        allowed_by = self.allowed_by = route, host
        between = self.ledger.window is None
        context = self.target.attempt_context()
        if not is_still_allowed(context, self.destination, allowed_by, between=between):
            self.cut()

    def read_again(self) -> None:
        """Note that its bytes are read from here on."""
        self.allowed_by = None

    def sockets(self) -> list[socket.socket]:
        """Its own, and those that end with it."""
        return [self.sock, *self._others]

    def cut(self) -> None:
        """Make its thread stop; any thread."""
        with self._registry.lock:
            self.is_cut = True
            for sock in self.sockets():
                shut(sock)

    def close(self) -> None:
        """End it; the owning thread, or none yet."""
        with self._registry.lock:
            for other in self._others:
                other.close()
            if self.sock.fileno() >= 0:
                os.close(self.sock.detach())  # also where a handler left a file of it open
            self.sock.close()  # frees what TLS holds: the ledger's requests know their connection
            self._registry.discard(self)
        self.end()
        with self.ledger.changed:
            self.ended = True
            self.ledger.changed.notify_all()  # whoever waits for it, or for the last one

    def start(self) -> None:
        """Let a thread of its own serve it, from where it stands.

        Raises:
            RuntimeError: None can be started.
        """
        name = f"egress {self.target.name} {self.client[1]}"
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
            if self._registry.park(self, parked.seconds):
                return True
            self.say_goodbye()
        except (OSError, h11.ProtocolError) as error:  # ssl.SSLError is an OSError
            if not self.accounted:
                self.record_tcp(b"", f"broke off: {error}")
        except Exception as error:  # a defect of ours must fail the test, not end with its thread
            self.recorder.complain("the gateway failed", error)
        return False

    @property
    def context(self) -> AttemptContext:
        """Where what goes on now belongs."""
        return self._context or self.target.attempt_context()

    def peek(self, size: int, flags: int = PEEK) -> bytes:
        """Up to so many bytes of what TCP carries, left unread; b"" at its end."""
        return socket.socket.recv(self.sock, size, flags)

    @property
    def attempt(self) -> Attempt:
        """What goes on now."""
        return Attempt(
            context=self.context,
            destination=self.destination,
            started=self.started,
            activity=self.activity,
        )

    # Records.

    def record_tcp(self, first_bytes: bytes, note: str) -> None:
        """Record a connection that is neither TLS nor HTTP; silence is no offence at a claimed address."""
        attempt = self.attempt
        outcome = "unrouted" if first_bytes else silent_outcome(attempt)
        self.accounted = True
        self.recorder.record_tcp(attempt, first_bytes, note, outcome)

    def record_tls(self, reason: str, note: str) -> None:
        """Record a TLS connection that has not become a request; at a claimed address the end of its test judges it."""
        self.accounted = True
        self.recorder.record_tls(self.attempt, reason, note, is_cut=self.is_cut)

    def note_trust(self) -> None:
        """Note that its TLS client has shown that it note_trust us, once in each window."""
        window = self.context.window
        if window is not self._trusted_in:
            self._trusted_in = window
            self.recorder.trust(self.attempt)

    def refuse(self, first_bytes: bytes, note: str = "") -> None:
        """Record what nothing can serve, and reset it."""
        self.accounted = True
        self.recorder.record_tcp(self.attempt, first_bytes, note, "unrouted")
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


def is_still_allowed(
    context: AttemptContext,
    destination: Destination,
    allowed_by: AllowedBy,
    *,
    between: bool,
    test_over: bool = False,
) -> bool:
    """Whether what lets the bytes of a connection pass unread is still there, and still comes first.

    Args:
        between: Whether no test runs: then routes are only gone that have been removed or have ended.
        test_over: Whether what a test let through has ended.
    """
    route, host = allowed_by
    if test_over and (route is None or route.scope == "test"):
        return False
    if route is None:
        return passes(context, None, (host, *destination.hosts), destination.port)
    if between:
        return not (route.removed or route.ended)
    return still_claims(context.tables, route, host, destination.port)
