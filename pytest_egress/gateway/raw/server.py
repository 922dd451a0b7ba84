"""`RawServer`: serves a connection as bytes, by a raw handler, a static answer, or a relay to another server.

The bytes are those of TCP, or of TLS that the gateway has terminated. Such a connection keeps no window open, since it
may be a connection pool's, and last longer than a test.

A connection that ends with no byte either way is no call of its route: it is a port probe, or one that a pool did not
need. Who has sent and got bytes is asked of the kernel (`tcp_info`), because a handler may use the socket in any way.
The turn that it has reserved is given back then. To reserve none before it has been open for a while would not do: on a
busy machine 27 of 150 probes by Python were open for more than 20 ms, and one for more than 100, by which every client
of a server that speaks first would be late.

A connection that a fault ends is a call: `reset()` and its like act once the client had its moment to close.

The module is long, because each way to answer has to settle the same questions at its end: whether the connection was a
call, what is kept of it, and what becomes of its turn.

Threads: everything runs on the connection's thread, but for `is_silent`, which another connection's asks under
`Ledger.changed` while it waits for its turn; it reads what the kernel counts, and takes no lock. No lock is held while
a handler runs, or while bytes are copied.
"""

from __future__ import annotations

import errno
import socket
import ssl
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from contextvars import Context
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from pytest_egress.base.account import Hold
from pytest_egress.base.clock import monotonic
from pytest_egress.base.pacing import PLAIN, Pacer, Shape
from pytest_egress.base.polling import BYTE_OR_END, has_ended
from pytest_egress.base.relay import Direction, play, relay
from pytest_egress.base.sockets import READ_BYTES, await_ready
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.connection import Connection
from pytest_egress.gateway.connections import Connections
from pytest_egress.gateway.handlers import call
from pytest_egress.gateway.raw.ends import Ends
from pytest_egress.gateway.raw.faults import RETURNABLE, Shaped, returned_plan
from pytest_egress.gateway.raw.hearing import RAW, Hearing, keep_within, passing
from pytest_egress.gateway.raw.sockets import (
    ClientEndedError,
    RawSocket,
    RawTlsSocket,
    decrypted,
    for_handler,
)
from pytest_egress.gateway.raw.starttls import StartTls
from pytest_egress.gateway.recorder import FIRST_BYTES_KEPT, Heard, Recorder
from pytest_egress.gateway.tcp_info import ANYTHING, FIN, Traffic, traffic
from pytest_egress.gateway.tls.authority import Authority
from pytest_egress.gateway.upstream.upstreams import Upstreams, upstream_host
from pytest_egress.ledger.windows import AttemptContext, Pause
from pytest_egress.link.stream_sockets import AcceptedSocket
from pytest_egress.routes.answers import Forward, Receipt, Service, place_of
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.routes.faults import ConnectFault, End, Fault, FaultPlan, Raw, Reset, plan
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.raw.libraries import AsyncHandler
from pytest_egress.routes.table import Instead
from pytest_egress.traffic.entries import (
    Outcome,
    TcpConnection,
    server_of,
    speaks_http2,
    transcript_of,
)
from pytest_egress.traffic.http.head import MAX_BODY_BYTES
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import redactor_in

if TYPE_CHECKING:
    from pytest_egress.routes.answers import Delivery

CLIENT_LEFT: Final = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    ssl.SSLError,
)
"""Errors that reading from a client which has closed its connection raises, and writing to it."""

NO_CALL: Final = "connected and closed, no byte either way"
"""The note of an entry that was no call and that its client closed: a port probe, or a connection of a pool."""

MADE_BEFORE: Final = "connected before {fault} was in force, and was reset; it is no call"
"""The note of a connection that a fault of connecting came too late for."""

CUT_SILENT: Final = "connected, and no byte either way until it was cut"
"""The note of an entry that was no call, where the end of its test cut the connection."""

PROBE_SECONDS: Final = 0.02  # for a port probe to close before it is greeted
SILENT_SECONDS: Final = 0.25
"""How long a client waits for a byte that a fault holds back, until it is a call: no port probe waits for one."""
SETTLE_SECONDS: Final = 1.0  # for the client's kernel to acknowledge or refuse what was sent
SETTLE_LOOK_SECONDS: Final = 0.005  # between two checks of that

CUT_SECONDS: Final = 0.25
"""For an async handler to end by a cut, before what it awaits is cancelled."""

LEFT: Final = "the client closed the connection"
"""The note of a connection that a fault sweep had fail, and that its client has ended."""

NOT_ANSWERED: Final = (
    "the client speaks HTTP/2, and waits for an answer: intercept_http gives one, and forward(...) leads to "
    "a server of it"
)
"""The note of an entry whose client speaks HTTP/2 to a route that only reads."""

NOT_AGREED: Final = (
    "the client offered {offered} alone by ALPN, and none was agreed on: alpn={alpn!r} agrees"
)
"""The note of an entry whose client offered protocols by ALPN, and may close since none was accepted."""

CUT_NOTE: Final = "the connection had been cut: what let it live was over"
"""The note of an entry whose handler raised after its connection was cut.

The handler may have read an end of the stream that its client never sent.
"""

CANCELLED_NOTE: Final = (
    "the connection had been cut, and what its handler still awaited was cancelled"
)
"""The note of an entry whose async handler did not end by the cut itself."""

NOT_SENT: Final = (
    *(bytes, bytearray, str, dict, list, tuple, Response),
    *(GeneratorType, AsyncGeneratorType),
)
"""Types of return values that show a mistake: the handler's author expects them to be sent."""


PASSED: Final = "were passed on to a server, and are not kept"
"""Why the bytes of a connection that was passed on are not in its entry."""


class RawServer:
    """Serves one connection to its end, without reading it as requests."""

    def __init__(
        self,
        connection: Connection,
        upstreams: Upstreams,
        authority: Authority,
        connections: Connections,
    ) -> None:
        self.connection, self.upstreams = connection, upstreams
        self.authority, self.connections = authority, connections
        self.recorder, self.ledger = connection.recorder, connection.ledger
        self.attempt: Final = connection.attempt
        self.context: Final = self.attempt.context
        self.turn: int | None = None
        self.left_first, self.is_counted = False, False
        self.lost = 0  # bytes that were not kept
        self.has_calls_of_its_own, self.ends = False, Ends()
        self.between: Shaped | None = None
        self.overdue_from: float | None = None
        self.accepted: Final = connection.sock
        self.tcp = connection.sock  # of which the kernel is asked what it has carried

    def serve(self, route: InnerRoute, found_for: str) -> bool:
        """Answer the connection by a raw route; False if other connections have taken all of its `times` meanwhile."""
        if (instead := self.asked_instead(route)) is not None:
            self.fail_in_place(route, instead, found_for)
            return True
        with ExitStack() as taken:
            with self.ledger.changed:  # else the answer could be replaced between these calls
                turn = taken.enter_context(route.turns.turn_of(self))
                if turn is None:
                    return False
                answer, context = route.turns.answer(turn)
                self.turn = None if route.turns.is_service_turn(turn) else turn
            if isinstance(answer, ConnectFault):
                self.turn_down(route, turn, answer)
                return True
            if route.turns.refuses:
                self.ledger.turns_changed()  # before the client can dial again
            self.connection.turn = turn
            entry = self.begin(route, "routed", found_for)
            self.left_first = self.leaves(PROBE_SECONDS)
            try:
                found = context.run(plan, answer)
            except BaseException as error:  # of a function of seconds: the test's thread raises it
                self.fail(entry, error)
                self.connection.reset()
                return True
            entry.fault = found.fault
            self.carry_out(entry, found, context)
        return True

    def asked_instead(self, route: InnerRoute) -> Instead | None:
        """What a fault sweep has the connection answered by. It is not asked about a port probe, which is no call."""
        window, to = self.context.window, self.attempt.destination
        if window.trial is None or route.turns.is_exhausted or route.turns.refuses:
            return None
        self.left_first = self.leaves(PROBE_SECONDS)
        if self.left_first:
            return None
        host = redactor_in(window.account).host_glob(to.host)
        return window.trial.intervene_in_connection(host, to.port)

    def fail_in_place(self, route: InnerRoute, instead: Instead, found_for: str) -> None:
        """Fail the connection in place of its route, of which it is no call."""
        self.is_counted = True
        entry = self.begin(route, "routed", found_for)
        entry.swept, found = True, plan(instead.answer)
        entry.fault = found.fault
        self.spoil(entry, found)

    def carry_out(self, entry: TcpConnection, plan: FaultPlan, context: Context) -> None:
        answer = plan.answer
        if isinstance(answer, Forward):
            self.pass_to(entry, answer, plan.shape)
        elif isinstance(answer, Service):
            self.serve_by(entry, answer, context, plan.shape)
        elif callable(answer):
            self.handle(entry, answer, context, plan.shape)
        elif plan.fault is not None:
            self.spoil(entry, plan)
        else:
            self.collect(entry, answer or b"")

    def turn_down(self, route: InnerRoute, turn: int, fault: ConnectFault) -> None:
        """Reset a connection that the target's kernel should not have made. It is no call."""
        route.turns.give_back(turn)
        self.connection.accounted = True
        self.recorder.record_dial(
            self.attempt.context,
            route,
            fault,
            self.attempt.destination.host,
            self.attempt.destination.port,
            self.attempt.destination.address,
            MADE_BEFORE.format(fault=fault),
            self.attempt.destination.through,
        )
        self.connection.reset()

    def pass_through(self, route: InnerRoute | None) -> None:
        """Relay the connection to the real upstream; a route of None is `unrouted="passthrough"`."""
        found_for = self.attempt.destination.host
        entry = self.begin(route, "passthrough", found_for)
        # `Recorder.record` counts it: even a silent connection reaches a real server.
        self.is_counted = True
        self.pass_to(entry, Forward())

    def begin(self, route: InnerRoute | None, outcome: Outcome, found_for: str) -> TcpConnection:
        self.connection.accounted = True
        entry = self.recorder.begin_raw(self.attempt, route, outcome, self.not_agreed())
        self.connection.allow_unread(route, found_for)
        return entry

    def not_agreed(self) -> str:
        """A note about a client that offered protocols by ALPN and got none; "" for any other client."""
        to = self.attempt.destination
        alpn = to.hello and to.hello.alpn
        if to.tls is None or not alpn or to.tls.alpn is not None:
            return ""
        note = NOT_AGREED.format(offered=" and ".join(alpn), alpn=alpn)
        return f"{note}. {server_of('h2', to.host)}" if "h2" in alpn else note

    def traffic(self, sock: socket.socket) -> Traffic:
        return traffic(sock, self.connection.before)

    def count(self, entry: TcpConnection) -> None:
        """The connection of a service is never counted: its calls are."""
        if not self.is_counted and not self.has_calls_of_its_own:
            self.is_counted = True
            self.recorder.count(self.context, entry)

    def finish(self, entry: TcpConnection) -> None:
        entry.duration = self.ledger.now() - entry.started

    # Port probes: a connection that its client ends, or the end of its test, with no byte either way is no call.

    def leaves(self, seconds: float) -> bool:
        """Wait a moment for the client to close, and return whether it has, with nothing sent.

        A port probe closes at once. What a handler that speaks first then sends comes after that end, and is never
        read.
        """
        sock = self.connection.sock
        if isinstance(sock, ssl.SSLSocket):
            return False
        await_ready(sock, BYTE_OR_END, seconds)
        return has_ended(sock) and not self.traffic(sock).came

    def carried(self, sock: socket.socket) -> Traffic:
        """What the connection has carried, as its client sees it; the socket may be a twin of the connection's.

        Behind a stream link the kernel's acknowledgements come from the link's own socket. The link reports at the
        client's end whether the client had received anything (`AcceptedSocket.fate`). Until that is known, the counters
        are final only once the connection is over: a client that has closed answers late bytes by a reset.
        """
        carried = self.traffic(sock)
        if not isinstance(self.accepted, AcceptedSocket):
            return carried
        if carried is ANYTHING and sock.fileno() >= 0:  # macOS has no counters after a reset
            came = self.accepted.came > self.connection.before.came
            carried = carried._replace(came=came)
        fate = self.accepted.fate
        if fate == "unheard":
            return carried._replace(heard=False)
        return carried if fate == "heard" else carried._replace(settled=carried.is_over)

    def is_silent(self) -> bool:
        """Whether the connection may yet prove to be no call: its client has sent nothing, nor surely got anything."""
        if self.is_counted:
            return False
        carried = self.carried(self.tcp)
        is_heard = carried.sent and carried.heard and carried.settled
        return not carried.came and (self.left_first or not is_heard)

    def has_left(self) -> bool:
        return has_ended(self.tcp)

    def is_no_call(self, sock: socket.socket) -> bool:
        """Whether the connection was no call: its client, or the end of its test, ended it with no byte either way.

        Bytes that we sent after the client had closed do not count, since it never got them.
        """
        # The end is looked for before the counters are read: the other way round, bytes and an end that came in between
        # would look like an end without bytes.
        if not (self.connection.is_cut or has_ended(sock)):
            return False
        carried = self.carried(sock)
        if carried.sent and not carried.came:
            carried = self.settled(sock)
        if carried.came or (carried.sent and (carried.heard or not carried.settled)):
            return False
        # Where only our FIN was acknowledged, the handler may have closed first: then the client did not end it.
        return self.left_first or self.connection.is_cut or not carried.heard

    def settled(self, sock: socket.socket) -> Traffic:
        """Wait, for a second at most, until the client's kernel has acknowledged or refused what was sent."""
        deadline = monotonic() + SETTLE_SECONDS
        while not (carried := self.carried(sock)).settled and monotonic() < deadline:
            await_ready(sock, 0, SETTLE_LOOK_SECONDS)  # or until it is reset
        return carried

    def conclude(self, entry: TcpConnection) -> None:
        if not self.is_counted and self.is_no_call(self.connection.sock):
            self.drop(entry, entry.note)
        else:
            self.count(entry)

    def drop(self, entry: TcpConnection, more: str = "") -> None:
        """Record that the connection was no call, and give its turn back for the next connection."""
        note = CUT_SILENT if self.connection.is_cut else NO_CALL
        entry.fault = None
        if self.between is not None:
            self.between.give_up()
        self.recorder.take_back(entry, self.turn, "; ".join(filter(None, [note, more])))
        if entry.route.turns.refuses:
            self.ledger.turns_changed()

    # A handler.

    def handle(self, entry: TcpConnection, handler: Any, context: Context, shape: Shape) -> None:
        """The connection ends when the handler returns."""
        self.connection.detach()
        if shape.is_plain:
            self.run_handler(entry, handler, context)
            return
        # The handler gets one end of another connection, so that it may do with its socket whatever it likes.
        with Shaped(self.connection, shape, self.ledger.clock) as self.between:
            self.run_handler(entry, handler, context)

    def run_handler(self, entry: TcpConnection, handler: Any, context: Context) -> None:
        connection, route = self.connection, entry.route
        connection.activity.route, connection.activity.what = route, str(entry)
        # The handler may wrap its socket in TLS, or close it, and either detaches that object. The twin still refers to
        # the TCP connection, so that a cut reaches it and its counters can be read.
        twin = connection.adopt(connection.twin())
        client = self.tcp = twin if self.between is None else self.between.client
        hearing = Hearing(entry, self.context.window.account, keeps=not self.has_calls_of_its_own)
        self.hand_over(entry, hearing)
        try:
            with self.handed(handler) as sock:
                result = call(handler, sock, context, self.is_overdue)
            if isinstance(result, End):
                self.end_by(entry, handler, result, twin)
            elif isinstance(result, NOT_SENT):
                raise TypeError(
                    f"{place_of(handler)} returned {result!r}: a raw handler sends by sock.sendall(...)"
                )
        except BaseException as error:  # the test's thread raises it again, whatever it is
            if self.is_no_call(client):
                self.drop(entry, f"its handler raised {type(error).__name__}")
                return
            if not self.is_excused(error, client):
                self.fail(entry, error)  # before the client can know: its test may end by that
                connection.reset()
                return
            ended = f"the connection ended before its handler did ({error})"
            if isinstance(error, ClientLeftError):
                ended = CANCELLED_NOTE
            entry.note = "; ".join(filter(None, [entry.note, ended]))
        else:
            if self.is_no_call(client):
                self.drop(entry)
                return
        finally:
            connection.activity.route = None
            self.finish(entry)
            is_open = connection.sock.fileno() >= 0  # neither closed by the handler, nor wrapped
            self.hear_rest(entry, hearing, twin)
            if not is_open:
                connection.regain(twin)
        self.count(entry)
        if is_open and not connection.is_reset:
            self.leave(entry, hearing, hearing.heard)

    def hear_rest(self, entry: TcpConnection, hearing: Hearing, twin: socket.socket) -> None:
        """Keep what has come, and the handler has not read; or note that it has read it in another way."""
        sock = self.connection.sock
        with suppress(OSError, ValueError):
            if isinstance(sock, RawTlsSocket):
                sock.settimeout(0)
                while not hearing.is_full and sock.recv(READ_BYTES):
                    pass
            elif entry.tls is None and self.between is None:
                while not hearing.is_full and (data := received_now(twin)):
                    hearing.heard(data)
        carried = self.traffic(self.tcp)
        if entry.tls is None and carried.received > hearing.count + FIN:
            hearing.missed()

    def leave(
        self, entry: TcpConnection, hearing: Hearing, heard: Heard, *, goodbye: bool = True
    ) -> None:
        """Close our side, and keep what the client still sends; of TLS, note that there was some."""
        if goodbye and self.connection.say_goodbye():
            hearing.missed()
        self.connection.linger(goodbye=False, heard=hearing.sealed if entry.tls else heard)

    def end_by(self, entry: TcpConnection, handler: Any, result: End, twin: socket.socket) -> None:
        if (plan := returned_plan(result)) is None:
            raise TypeError(
                f"{place_of(handler)} returned {result}: a raw handler sends by sock.sendall(...), and may return "
                f"{RETURNABLE}"
            )
        entry.fault = result
        if isinstance(plan.end, Reset):
            self.settled(twin)
            self.connection.reset()
        elif plan.ends_after != 0:
            self.count(entry)
            self.connection.activity.route = None  # no handler runs any more
            sock = self.connection.sock if self.connection.sock.fileno() >= 0 else twin
            self.wait(entry, sock, Pacer(PLAIN, self.ledger.clock), plan.ends_after)

    def serve_by(
        self, entry: TcpConnection, service: Service[Any], context: Context, shape: Shape
    ) -> None:
        """Have a service answer, which has calls of its own: a connection without one says so."""
        self.has_calls_of_its_own, to = True, self.attempt.destination
        unfinished = self.context.window.account.hold(service.deliveries)
        desk = ServiceDesk(self.recorder, self.context, entry, unfinished)
        self.handle(entry, lambda sock: service.serve(sock, to.host, to.port, desk), context, shape)
        if entry.outcome == "routed" and not desk.has_calls:
            entry.note = "; ".join(filter(None, [service.none_came, entry.note]))

    def hand_over(self, entry: TcpConnection, hearing: Hearing) -> None:
        """Make the connection's socket one for a handler, which can make it TLS in mid-connection."""
        connection = self.connection
        connection.replace_by(
            lambda sock: for_handler(sock, self.ends, hearing.heard, hearing.said)
        )
        if isinstance(connection.sock, RawSocket):
            connection.sock.secure = StartTls(
                connection, entry, self.authority, self.connections, self.ends, hearing
            )
        connection.sock.settimeout(None)

    def handed(self, handler: Any) -> AbstractContextManager[socket.socket]:
        """A handler of asyncio cannot read from a TLS socket: it gets one of the decrypted bytes."""
        sock = self.connection.sock
        if isinstance(handler, AsyncHandler) and isinstance(sock, RawTlsSocket):
            return decrypted(sock)
        return nullcontext(sock)

    def is_overdue(self) -> bool:
        """Whether the connection was cut, and its async handler has had the time to end by that itself."""
        if not self.connection.is_cut:
            return False
        self.overdue_from = self.overdue_from or monotonic() + CUT_SECONDS
        return monotonic() >= self.overdue_from

    def is_excused(self, error: BaseException, twin: socket.socket) -> bool:
        """Whether a handler raised because its connection had ended: closed by its client, or cut by us.

        An error about bytes that the handler has read is its own, whenever the connection ends; and so is one about
        another connection, such as that of a database which the handler asks.
        """
        if error is self.ends.failure or isinstance(error, ClientEndedError):
            return True
        is_cut = self.connection.is_cut or (self.between is not None and self.between.is_cut)
        if is_cut and isinstance(error, ClientLeftError):  # we have cancelled what it awaited
            return True
        if not is_cut and (type(error) is EOFError or not has_ended(twin)):
            return False
        return is_of_connection(error) and self.ends.is_about(error)

    def fail(self, entry: TcpConnection, error: BaseException) -> None:
        note = CUT_NOTE if self.connection.is_cut else ""
        self.recorder.fail(self.context, entry, error, note)

    # A static answer.

    def collect(self, entry: TcpConnection, greeting: bytes) -> None:
        """Send a static greeting, and keep what the client sends until it closes."""
        connection = self.connection
        connection.sock.settimeout(None)
        speaks_first = self.traffic(connection.sock).came
        if greeting and not speaks_first and not self.left_first:
            self.count(entry)
        try:
            connection.sock.sendall(greeting)
            transcript_of(entry).add(greeting, from_client=False)
            connection.end()
            while data := connection.sock.recv(READ_BYTES):
                self.keep(entry, data)
                if speaks_http2(entry) and not greeting:
                    entry.note = NOT_ANSWERED
        finally:
            if speaks_first:  # though a reset has taken what it said
                self.count(entry)
            self.close_book(entry)
        connection.say_goodbye()

    def keep(self, entry: TcpConnection, data: bytes) -> None:
        """Keep what the client has sent, before anybody finds the call."""
        kept = data[: MAX_BODY_BYTES - len(entry.kept)]
        self.lost += len(data) - len(kept)
        if self.lost:
            entry.unread = f"are kept in part: {self.lost} are missing"
        if self.context.window.account.has_room(len(kept), RAW):
            entry.kept += kept
            transcript_of(entry).add(kept, from_client=True)
        entry.first_bytes = bytes(entry.kept[:FIRST_BYTES_KEPT])
        self.count(entry)

    def close_book(self, entry: TcpConnection) -> None:
        self.conclude(entry)
        self.finish(entry)
        if self.lost:
            self.recorder.complain(f"{self.lost} bytes were not kept of what {entry} sent")

    # A fault that no handler is part of.

    def spoil(self, entry: TcpConnection, plan: FaultPlan) -> None:
        """Send bytes as a fault says, or nothing; keep what the client sends, and end as the fault says."""
        connection, clock = self.connection, self.ledger.clock
        pacer = Pacer(plan.shape, clock)
        pacer.put(plan.end.data if isinstance(plan.end, Raw) else plan.answer or b"")
        ends_at = None if plan.ends_after is None else clock() + plan.ends_after
        is_left = True
        try:
            if not self.is_left_alone(plan, pacer):
                self.count(entry)
                connection.end()
                seconds = None if ends_at is None else max(ends_at - clock(), 0.0)
                is_left = self.wait(entry, connection.sock, pacer, seconds)
        finally:
            if is_left and entry.swept:
                entry.note = LEFT  # before its duration says that it has ended
            self.close_book(entry)
        if is_left:
            connection.say_goodbye()
        elif isinstance(plan.end, Reset) or (pacer.is_cut and plan.shape.resets):
            self.settled(connection.sock)
            connection.reset()
        else:
            hearing = Hearing(entry, self.context.window.account)
            self.leave(entry, hearing, partial(self.keep, entry), goodbye=not pacer.is_cut)

    def is_left_alone(self, plan: FaultPlan, pacer: Pacer) -> bool:
        """Whether the client closes before a fault has kept it waiting, so that the connection is no call.

        A client that gives up later has met the fault: a bare connection to a server that should speak first is one.
        """
        if self.left_first or self.traffic(self.connection.sock).came:
            return self.left_first
        seconds = 0.0 if isinstance(plan.end, Reset) else pacer.seconds
        if seconds is None:
            seconds = (
                SILENT_SECONDS if pacer.is_empty and plan.ends_after is None else plan.ends_after
            )
        self.left_first = self.leaves(min(seconds or 0.0, SILENT_SECONDS))
        return self.left_first or self.connection.is_cut

    def wait(
        self, entry: TcpConnection, sock: socket.socket, pacer: Pacer, seconds: float | None
    ) -> bool:
        """Send what a fault lets through, and keep what comes; return whether the client has ended.

        The fault ends `seconds` after all has been sent; None where the client ends it.
        """
        assert isinstance(entry.fault, Fault)
        sock.settimeout(0)
        with self.ledger.pausing(Pause(entry, entry.fault), None, is_endless=seconds is None):
            return play(
                sock, pacer, lambda data: self.keep(entry, data), seconds, self.ledger.clock
            )

    # Another server.

    def pass_to(self, entry: TcpConnection, to: Forward, shape: Shape = PLAIN) -> None:
        """Copy between the client and another server until both have ended."""
        connection = self.connection
        if self.traffic(connection.sock).came:
            entry.unread = PASSED  # before anybody finds the call
            self.count(entry)
        try:
            server = self.reach(entry, to)
        except UpstreamError as error:
            entry.note = str(error)
            if self.traffic(connection.sock).came:
                entry.unread = PASSED
            self.conclude(entry)
            self.finish(entry)
            connection.reset()
            return
        connection.end()
        connection.is_relayed = True

        def watch(out: Direction, back: Direction) -> None:
            entry.sent, entry.received, entry.first_bytes = out.count, back.count, out.first
            connection.idle_since = monotonic()
            entry.unread = PASSED if out.first else entry.unread
            transcript_of(entry).begin(out.first, back.first)
            if self.is_counted:
                return
            if out.first or (back.count and not has_ended(connection.sock)):
                self.count(entry)

        is_cut = False
        try:
            heard = passing(entry, self.context.window.account)
            is_cut = relay(
                connection.sock, server, watch, shape=shape, clock=self.ledger.clock, heard=heard
            )
        except OSError as error:
            entry.note = f"broke off: {error}"
            connection.reset()
            return
        finally:
            self.conclude(entry)
            self.finish(entry)
        if is_cut and shape.resets:
            self.settled(connection.sock)
            connection.reset()
        else:
            connection.linger(goodbye=not is_cut)

    def reach(self, entry: TcpConnection, to: Forward) -> Any:
        """If the gateway has terminated the client's TLS, the upstream gets TLS as well."""
        owner, where = self.connection, self.attempt.destination
        if to.container is not None or to.host is not None:
            return self.upstreams.connect(owner, to, where.port)
        host = upstream_host(self.context.tables, where, entry.route, where.host)
        sock = self.upstreams.reach(owner, entry.route, host, where.port, "tcp")
        if where.tls is not None:
            return self.upstreams.secure(owner, sock, where.host)
        return sock


class ServiceDesk:
    """The `Desk` of one connection; it `has_calls` once a delivery has come that was whole, or refused."""

    def __init__(
        self, recorder: Recorder, context: AttemptContext, entry: TcpConnection, unfinished: Hold
    ) -> None:
        self._recorder, self._context, self._entry = recorder, context, entry
        self._unfinished = unfinished
        self._asked = 0  # bytes that were to be kept
        self.has_calls = False

    def take(self, delivery: Delivery) -> Receipt:
        self.has_calls = True
        receipt = self._recorder.take_delivery(self._entry, delivery)
        if self._entry.route.turns.refuses:
            self._recorder.ledger.turns_changed()  # before the client can dial again
        return receipt

    def refuse(self, delivery: Delivery, why: str) -> None:
        self.has_calls = True
        self._recorder.refuse_delivery(self._entry, delivery, why)

    def fail(self, error: Exception) -> None:
        self._entry.unread = "are in part of a request that cannot be answered"
        self._recorder.fail(self._context, self._entry, error, "")

    def has_room(self, size: int) -> bool:
        return self._unfinished.fits(size)

    def keep(self, data: bytes) -> None:
        entry = self._entry
        self._asked += len(data)
        keep_within(entry, self._context.window.account, data)
        if len(entry.kept) < self._asked:
            entry.unread = f"are kept in part: the first {len(entry.kept)} of its requests"

    def note(self, text: str, unread: str = "") -> None:
        self._entry.note = "; ".join(filter(None, [self._entry.note, text]))
        self._entry.unread = self._entry.unread or unread


def is_of_connection(error: BaseException) -> bool:
    """Whether an error is one that reading or writing raises on a connection that has been shut down.

    EOFError is among them, because readers raise it for a message that is cut short: asyncio's as
    `IncompleteReadError`, and a handler's own after a cut, which its client has not made.
    """
    if isinstance(error, (*CLIENT_LEFT, EOFError)):
        return True
    return isinstance(error, OSError) and error.errno == errno.ENOTCONN


def received_now(sock: socket.socket) -> bytes:
    """What has come, whatever the timeout of the socket's other objects; BlockingIOError where nothing has."""
    return socket.socket.recv(sock, READ_BYTES, socket.MSG_DONTWAIT)
