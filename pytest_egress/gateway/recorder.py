"""`Recorder`: decides the outcome of attempts, records them, and counts the calls of routes.

No other module of the gateway decides the outcome of an attempt that no handler answers, puts an entry into a window,
or counts a call. The recorder gets values, and knows no connection. Any thread calls it. It takes `Ledger.changed` and
no other lock, so it must not be called while `Connections.lock` or the lock of `Names` is held.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict

from pytest_egress.base.account import Account
from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.destination import Destination
from pytest_egress.gateway.site import TargetView
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.windows import AttemptContext
from pytest_egress.routes.answers import Receipt
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import NearMiss, claimed, nearest_by_address, opening, spent_route
from pytest_egress.traffic.entries import (
    CERTAIN,
    DISTRUST,
    LIKELY_REJECTED,
    REJECTED,
    Accepted,
    Called,
    Entry,
    Exchange,
    Handshake,
    KafkaRecord,
    Mail,
    Outcome,
    ProxyCall,
    TcpConnection,
    TlsFailure,
    note_through,
)
from pytest_egress.traffic.http.headers import Headers, basic_credentials
from pytest_egress.traffic.kafka.records import ProducedRecord
from pytest_egress.traffic.notes import Marks
from pytest_egress.traffic.tls.clients import library_of

if TYPE_CHECKING:
    from pytest_egress.routes.answers import Delivery

Heard = Callable[["bytes | memoryview"], object]
"""Gets what has come of a client."""

FIRST_BYTES_KEPT: Final = 64
ELSEWHERE: Final = "it was not taken, since the next answer is for another connection, on which it can be sent again"
"""The note of a mail or a record that is no call, and whose client was told to connect again."""

NO_TURN: Final = "its route has no turn left for it"
"""The note of a mail or a record that a route would have taken, had it answered less often."""

FIRST_ALONE: Final = f"are kept in part: the first {FIRST_BYTES_KEPT} alone"
NOT_READ: Final = "could not be read, and are not kept"
"""Why the bytes of a connection that nobody has answered are not all in its entry."""


class Claim(NamedTuple):
    """What becomes of an attempt: its outcome, and the route that decides it, if one does."""

    outcome: Outcome
    route: InnerRoute | None = None


class Common(TypedDict):
    """The fields that every entry has."""

    container: str
    started: float
    outcome: Outcome
    host: str
    port: int | None
    route: InnerRoute | None


def note_attempt(entry: Entry, attempt: Attempt) -> None:
    """Note by which proxy an attempt came, and on which connection where notes are asked for."""
    note_through(entry, attempt.destination.through)
    if attempt.connection is not None:
        entry.connection = attempt.connection


class Recorder:
    """Records the attempts of one target.

    Attributes:
        is_closed: Whether nothing is recorded any more, since the effects of our own stop are no attempts. Set once, by
            the thread that stops the gateway.
    """

    def __init__(self, target: TargetView, ledger: Ledger) -> None:
        self.target, self.ledger = target, ledger
        self.is_closed = False

    def about(
        self, claim: Claim, host: str, port: int | None, started: float | None = None
    ) -> Common:
        """Without `started` the attempt began now."""
        return {
            "container": self.target.name,
            "started": self.ledger.now() if started is None else started,
            "outcome": claim.outcome,
            "host": host,
            "port": port,
            "route": claim.route,
        }

    def outcome(
        self, context: AttemptContext, host: str, port: int, at_claimed: Outcome = "unrouted"
    ) -> Claim:
        """The outcome is `at_claimed` where a route with a handler claims the address but cannot answer the attempt."""
        route = claimed(context.tables, host, port)
        if route is None:
            return Claim(unclaimed(context))
        return Claim("blocked", route) if route.kind.claims_all else Claim(at_claimed)

    def note_request(self, entry: Exchange, attempt: Attempt, *, is_whole: bool) -> None:
        """Note a request before it is recorded, as `note_attempt` does; where notes are asked for, its times too."""
        note_attempt(entry, attempt)
        if attempt.context.window.account.notes is not None:
            entry.marks = Marks(attempt.started)
            entry.marks.whole = self.ledger.now() if is_whole else None

    def record(self, context: AttemptContext, entry: Entry) -> None:
        """Put an entry into its window, before its handler runs; count the call where its route has no handler."""
        if self.is_closed:
            return
        if entry.route is not None and entry.route.is_swept:
            entry.swept = True
        self.ledger.record(context.window, entry)
        self._count_unhandled(context, entry)

    def decide(
        self,
        context: AttemptContext,
        entry: Exchange,
        claim: Claim,
        near: tuple[NearMiss, ...],
        note: str,
        error: BaseException | None,
        fault: object,
    ) -> None:
        """Complete an entry that was recorded before it was decided what becomes of its attempt."""
        with self.ledger.changed:
            entry.outcome, entry.route = claim
            entry.near, entry.note, entry.error, entry.fault = near, note, error, fault
            if not self.is_closed:
                self._count_unhandled(context, entry)
            self.ledger.tell()

    def _count_unhandled(self, context: AttemptContext, entry: Entry) -> None:
        """Count the call of a route without a handler. Else the caller counts it when the handler has returned."""
        route = entry.route
        if route is None or route.kind.has_handler:
            return
        if not route.kind.passes_through or entry.outcome == "passthrough":
            self.ledger.count(route, context.window, entry)

    def count(
        self, context: AttemptContext, entry: Exchange | TcpConnection | Mail | KafkaRecord
    ) -> None:
        """Count a recorded attempt as a call of its route, if the route has answered. The answer has not been sent."""
        has_failed = not isinstance(entry, (Mail, KafkaRecord)) and entry.error is not None
        if entry.outcome == "routed" and entry.route is not None and not has_failed:
            self.ledger.count(entry.route, context.window, entry)

    def fail(
        self,
        context: AttemptContext,
        entry: Called,
        error: BaseException,
        note: str,
    ) -> None:
        """Record a handler's error. If the entry's own window has closed, the test that runs now fails by it too."""
        with self.ledger.changed:
            entry.error, entry.note = error, note or entry.note
            now = self.ledger.closing or self.target.attempt_context().window
            if now is not context.window:
                self.ledger.record(now, entry)

    def take_back(self, entry: TcpConnection, turn: int | None, note: str) -> None:
        """Make a recorded attempt no call after all: the next connection takes its turn."""
        with self.ledger.changed:
            entry.outcome, entry.note = "recorded", note
            if turn is not None:
                entry.route.turns.give_back(turn)
            self.ledger.tell()

    def reject(self, entry: Exchange, turn: int, note: str) -> None:
        """Make a recorded request unrouted after all: its answer has found that it answers no such request."""
        with self.ledger.changed:
            route, entry.route = entry.route, None
            entry.outcome, entry.note = "unrouted", note
            route.turns.give_back(turn)
            self.ledger.tell()

    def complain(self, text: str, error: BaseException | None = None) -> None:
        """Fail the test that runs now; `error` is a defect of ours, whose traceback follows the text."""
        if error is not None:
            text = f"{text}: {''.join(traceback.format_exception(error))}"
        self.ledger.complain(self.target.attempt_context().window, f"{self.target.name}: {text}")

    def evict(self, why: str) -> None:
        """Count a connection that was cut because something (`why`) had run out. The test that runs now fails."""
        self.ledger.evict(self.target.attempt_context().window, why)

    def miss(self, attempts: int) -> None:
        """Count attempts of which nothing but their number is known. The test that runs now fails."""
        self.ledger.count_unrecorded(self.target.attempt_context().window, attempts)

    # Connections that are not read as requests.

    def record_tcp(
        self, attempt: Attempt, first_bytes: bytes, note: str, at_claimed: Outcome
    ) -> None:
        context, to = attempt.context, attempt.destination
        claim = self.outcome(context, to.host, to.port, at_claimed)
        entry = self._connection(attempt, claim, note, first_bytes)
        if len(first_bytes) >= FIRST_BYTES_KEPT:
            entry.unread = FIRST_ALONE
        if entry.outcome == "unrouted":
            miss = nearest_by_address(context.tables, "tcp", to.host, to.port)
            entry.near = (miss,) if miss else ()
        self.record(context, entry)

    def record_unreadable(self, attempt: Attempt, note: str, sent: bytes = b"") -> Heard | None:
        """Record a connection whose HTTP cannot be read.

        Args:
            sent: What has come of the request.

        Returns:
            What takes bytes of it that come later, to search them for secrets; None where none is declared.
        """
        to = attempt.destination
        entry = self._connection(attempt, self.outcome(attempt.context, to.host, to.port), note)
        entry.unread = NOT_READ
        search = searching(entry, attempt.context.window.account)
        if search is not None:
            search(sent)
        if entry.outcome == "unrouted":
            miss = spent_route(attempt.context.tables, to.host, to.port)
            entry.near = (miss,) if miss else ()
        self.record(attempt.context, entry)
        return search

    def record_unreadable_message(self, exchange: Exchange, note: str) -> None:
        """Record an unreadable message on an open WebSocket, which may have outlived its test."""
        with self.ledger.changed:  # else the window could close between these calls
            context = self.target.attempt_context()
            host, port = exchange.host, exchange.request.port
            claim = self.outcome(context, host, port)
            common = self.about(claim, host, port)
            entry = TcpConnection(**common, address=host, note=note, unread=NOT_READ)
            note_through(entry, exchange.through)
            self.ledger.record(self.ledger.closing or context.window, entry)

    def begin_raw(
        self, attempt: Attempt, route: InnerRoute | None, outcome: Outcome, note: str
    ) -> TcpConnection:
        """Record a connection that is not read as requests; without a route it is `unrouted="passthrough"`."""
        entry = self._connection(attempt, Claim(outcome, route), note)
        self.record(attempt.context, entry)
        return entry

    def begin_between(self, attempt: Attempt) -> TcpConnection:
        """Record a connection to another container of a network of the target's: no egress."""
        entry = self._connection(attempt, Claim("recorded"), "")
        entry.between = attempt.destination.name
        self.record(attempt.context, entry)
        return entry

    def _connection(
        self, attempt: Attempt, claim: Claim, note: str, first_bytes: bytes = b""
    ) -> TcpConnection:
        to = attempt.destination
        entry = TcpConnection(
            **self.about(claim, to.host, to.port, attempt.started),
            address=to.address,
            sni=to.sni,
            tls=to.tls,
            first_bytes=first_bytes,
            note=note,
            accepted=accepted(to),
        )
        note_attempt(entry, attempt)
        return entry

    def record_proxied(
        self,
        attempt: Attempt,
        route: InnerRoute,
        method: str,
        target: str,
        headers: Headers,
        refused: str,
    ) -> None:
        """Record what a proxy was asked, as a call of its route; unrouted where `refused` says why it leads nowhere."""
        to = attempt.destination
        user, password = basic_credentials(headers) or (None, None)
        claim = Claim("unrouted" if refused else "recorded", None if refused else route)
        entry = ProxyCall(
            **self.about(claim, to.host, to.port, attempt.started),
            address=to.address,
            method=method,
            target=target,
            headers=headers,
            user=user,
            password=password,
            note=refused,
        )
        note_attempt(entry, attempt)
        self.record(attempt.context, entry)

    def record_dial(
        self,
        context: AttemptContext,
        route: InnerRoute | None,
        fault: object,
        host: str,
        port: int,
        address: str,
        note: str = "",
        through: str = "",
    ) -> None:
        """Record a dial that a fault of connecting answered, as a call unless `note` says why it is none."""
        entry = TcpConnection(
            **self.about(Claim("recorded" if note else "routed", route), host, port),
            address=address,
            duration=0.0,
            fault=fault,
            note=note,
        )
        note_through(entry, through)
        with self.ledger.changed:
            self.record(context, entry)
            self.count(context, entry)

    def take_delivery(self, connection: TcpConnection, delivery: Delivery) -> Receipt:
        """Record a delivery that came on a connection, and count it as a call of its route, of which it takes a turn.

        One without a turn is unrouted. Where the next connection to the address has another answer, or another raw
        route, it is recorded only: its client may send it there.
        """
        with self.ledger.changed:  # else the window could close between these calls
            context = self.target.attempt_context()
            has_room = partial(context.window.account.has_room, delivery.size, delivery.kind)
            receipt: Receipt = connection.route.turns.reserve_delivery(has_room)
            if receipt == "used up":
                route = opening(context.tables, connection.host, connection.port or 0)
                if route is not None and route.kind.reads_bytes:
                    receipt = "elsewhere"
            if receipt == "taken":
                entry = self._delivered(connection, delivery, Claim("routed", connection.route))
                self.record(context, entry)
                self.count(context, entry)
            elif receipt == "used up":
                self._record_refused(context, connection, delivery, NO_TURN)
            elif receipt == "elsewhere" and has_room():
                entry = self._delivered(connection, delivery, Claim("recorded"), ELSEWHERE)
                self.record(context, entry)
        return receipt

    def refuse_delivery(self, connection: TcpConnection, delivery: Delivery, why: str) -> None:
        """Record a delivery that was refused for its form. It fails the test that runs now."""
        with self.ledger.changed:
            self._record_refused(self.target.attempt_context(), connection, delivery, why)

    def _record_refused(
        self, context: AttemptContext, connection: TcpConnection, delivery: Delivery, why: str
    ) -> None:
        if not context.window.account.has_room(delivery.size, delivery.kind):
            return
        miss = nearest_by_address(context.tables, "tcp", connection.host, connection.port or 0)
        entry = self._delivered(connection, delivery, Claim("unrouted"), why)
        entry.near = (miss,) if miss is not None and miss.differences else ()
        self.record(context, entry)

    def _delivered(
        self, connection: TcpConnection, delivery: Delivery, claim: Claim, note: str = ""
    ) -> Mail | KafkaRecord:
        make: Any = KafkaRecord if isinstance(delivery, ProducedRecord) else Mail
        entry: Mail | KafkaRecord = make(
            **self.about(claim, connection.host, connection.port),
            **delivery.fields,
            note=note,
            address=connection.address,
            tls=connection.tls,
            user=delivery.user,
        )
        note_through(entry, connection.through)
        if connection.connection is not None:
            entry.connection = connection.connection
        return entry

    def record_tls(self, attempt: Attempt, reason: str, note: str, *, is_cut: bool) -> None:
        """At a claimed address the verdict judges the connection later."""
        context, to = attempt.context, attempt.destination
        presenting = to.presented_by if to.presented.is_bad else None
        if is_cut:
            reason, note = "cut", "its handshake had not ended when its test did"
        # Without an alert, it may have been the stop that broke the handshake off, and not distrust.
        elif self.target.is_ending and reason not in (*CERTAIN, REJECTED):
            reason, note = "cut", "its handshake had not ended when its container was stopped"
        elif reason == LIKELY_REJECTED:
            reason = REJECTED
        elif reason == "unused" and presenting is not None:
            reason = "silent"  # its client has neither rejected what was presented, nor made a request over it
        if reason in DISTRUST:
            note = "; ".join([note, *self.target.hints])
        unanswered = self.outcome(context, to.host, to.port, "recorded")
        claim = Claim("recorded", presenting) if reason == REJECTED else unanswered
        entry = TlsFailure(
            **self.about(claim, to.host, to.port, attempt.started),
            address=to.address,
            sni=to.sni,
            reason=reason,
            client=to.tls_client(reason),
            note=note,
        )
        note_attempt(entry, attempt)
        route = claimed(context.tables, to.host, to.port)
        if entry.outcome == "recorded" and entry.route is None and route is not None:
            entry.near = (NearMiss(route=route, differences=()),)
        self.record(context, entry)
        if presenting is not None and not self.is_closed:
            self.ledger.add_failure(presenting, context.window, entry)

    def trust(self, attempt: Attempt) -> None:
        to = attempt.destination
        for reason in ("", "alpn"):
            peers = (self.target.name, to.host, to.port, to.tls_client(reason))
            handshake = Handshake(to.greeted, to.address)
            self.ledger.record_handshake(attempt.context.window, peers, handshake)


def searching(entry: TcpConnection, account: Account) -> Heard | None:
    """What searches the bytes of a client for secrets: those outside of TLS, and those within; None without secrets."""
    if account.secrets is None:
        return None
    from pytest_egress.traffic.search.passing import Passing

    outside, within = Passing(account.secrets), Passing(account.secrets)
    entry._passing = ((True, outside), (False, within))
    return lambda data: (outside if entry.tls is None else within).feed(data)


def accepted(to: Destination) -> Accepted | None:
    """What the client of a connection has accepted and should not have; None for nothing.

    What a route presented that is gone is no business of the test that runs now.
    """
    route = to.presented_by
    if route is None or not route.presented.is_bad or route.is_over():
        return None
    return Accepted(route, library_of(to.hello) if to.hello is not None else None)


def unclaimed(context: AttemptContext) -> Outcome:
    return "unrouted" if context.window.policy == "fail" else "blocked"


def silent_outcome(attempt: Attempt) -> Outcome:
    """The outcome of a connection on which nothing was sent.

    Where a route for HTTP or TLS claims it, it is recorded only: its client connected before it had a request.
    """
    to = attempt.destination
    route = opening(attempt.context.tables, to.host, to.port)
    awaited = route is not None and route.kind.client_speaks_first
    return "recorded" if awaited else "unrouted"


def passes(
    context: AttemptContext, route: InnerRoute | None, hosts: Iterable[str], port: int
) -> bool:
    """Whether a connection or a request goes to the real upstream.

    Args:
        route: The route that answers it; None where none does. Then `unrouted="passthrough"` lets it through, unless a
            route claims one of the hosts: one that does not match, or that has answered as often as it may.
        hosts: All hosts that it names: the dialled name, the dialled address, the SNI, Host.
    """
    if route is not None:
        return route.kind.passes_through
    lenient = context.window.policy == "passthrough"
    return lenient and not any(claimed(context.tables, host, port) for host in hosts)
