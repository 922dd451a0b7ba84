"""`Recorder`: decides the outcome of attempts, records them, and counts the calls of routes.

Nothing else decides what becomes of an attempt that no handler answers, puts an entry into a window, or counts a
call. It gets values, and knows no connection. Any thread calls it. It takes `Ledger.changed` and no other lock, so it
must not be called while `Connections.lock` or the lock of `Names` is held.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any, Final

from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.site import TargetView
from pytest_egress.gateway.tls_failures import DISTRUST
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.windows import AttemptContext
from pytest_egress.routes.route import Route
from pytest_egress.routes.table import NearMiss, claimed, nearest_by_address, opening
from pytest_egress.traffic.entries import Entry, Exchange, Outcome, TcpConnection, TlsFailure

FIRST_BYTES_KEPT: Final = 64


class Recorder:
    """Records what one target attempts.

    Args:
        target: Whose attempts they are.
        ledger: Where everything is recorded.

    Attributes:
        is_closed: Whether nothing is recorded any more: what our own stop brings about is no attempt. Set once, by
            whoever stops the gateway.
    """

    def __init__(self, target: TargetView, ledger: Ledger) -> None:
        self.target, self.ledger = target, ledger
        self.is_closed = False

    def about(self, host: str, port: int | None, started: float | None = None) -> dict[str, Any]:
        """The fields that every entry has; it began now where nothing else is known."""
        return {
            "container": self.target.name,
            "started": self.ledger.now() if started is None else started,
            "host": host,
            "port": port,
        }

    def outcome(
        self, context: AttemptContext, host: str, port: int, at_claimed: Outcome = "unrouted"
    ) -> dict[str, Any]:
        """The outcome of an attempt that no handler answers, and the route that says so, as fields of its entry.

        Args:
            at_claimed: Where a route claims the address, and yet cannot answer this.
        """
        route = claimed(context.tables, host, port)
        if route is None:
            return {"outcome": unclaimed(context)}
        if not route.kind.has_handler:
            return {"outcome": "blocked", "route": route}
        return {"outcome": at_claimed}

    def record(self, context: AttemptContext, entry: Entry) -> None:
        """Put an entry into its window. No handler runs for it, or its handler has not begun."""
        if self.is_closed:
            return
        self.ledger.record(context.window, entry)
        route = entry.route
        if route is None or route.kind.has_handler:
            return  # its call is counted when its handler has returned
        if not route.kind.passes_through or entry.outcome == "passthrough":
            self.ledger.count(route, context.window, entry)

    def count(self, context: AttemptContext, entry: Exchange | TcpConnection) -> None:
        """Count a recorded attempt as a call of its route, where that has answered: nothing has been sent."""
        if entry.outcome == "routed" and entry.route is not None and entry.error is None:
            self.ledger.count(entry.route, context.window, entry)

    def fail(
        self,
        context: AttemptContext,
        entry: Exchange | TcpConnection,
        error: BaseException,
        note: str,
    ) -> None:
        """Keep what a handler raised; for the test that runs, or just ends, where its own is over.

        Args:
            note: A sentence where there is more to say.
        """
        with self.ledger.changed:
            entry.error, entry.note = error, note or entry.note
            now = self.ledger.closing or self.target.attempt_context().window
            if now is not context.window:
                self.ledger.record(now, entry)

    def take_back(self, entry: TcpConnection, turn: int, note: str) -> None:
        """Make a recorded attempt no call after all: the next connection takes its turn.

        Args:
            turn: What its route has reserved for it.
        """
        with self.ledger.changed:
            entry.outcome, entry.note = "recorded", note
            entry.route.give_back(turn)
            self.ledger.changed.notify_all()

    def complain(self, text: str, error: BaseException | None = None) -> None:
        """Fail the test, whatever else happened.

        Args:
            error: A defect of ours, whose traceback follows the text.
        """
        if error is not None:
            text = f"{text}: {''.join(traceback.format_exception(error))}"
        self.ledger.complain(self.target.attempt_context().window, f"{self.target.name}: {text}")

    def evict(self, why: str) -> None:
        """Count a connection that we cut for want of room: its test fails.

        Args:
            why: What there was too little of.
        """
        self.ledger.evict(self.target.attempt_context().window, why)

    def miss(self, attempts: int) -> None:
        """Count attempts of which nothing else is known: their test fails."""
        self.ledger.count_unrecorded(self.target.attempt_context().window, attempts)

    # Connections that are not read as requests.

    def record_tcp(
        self, attempt: Attempt, first_bytes: bytes, note: str, at_claimed: Outcome
    ) -> None:
        """Record a connection that is neither TLS nor HTTP."""
        context, to = attempt.context, attempt.destination
        entry = TcpConnection(
            **self.about(to.host, to.port, attempt.started),
            **self.outcome(context, to.host, to.port, at_claimed),
            address=to.address,
            sni=to.sni,
            first_bytes=first_bytes,
            note=note,
        )
        if entry.outcome == "unrouted":
            miss = nearest_by_address(context.tables, "tcp", to.host, to.port)
            entry.near = (miss,) if miss else ()
        self.record(context, entry)

    def record_unreadable(self, attempt: Attempt, note: str) -> None:
        """Record a connection that speaks HTTP, and not so that it could be answered."""
        to = attempt.destination
        entry = TcpConnection(
            **self.about(to.host, to.port, attempt.started),
            **self.outcome(attempt.context, to.host, to.port),
            address=to.address,
            note=note,
        )
        self.record(attempt.context, entry)

    def begin_raw(
        self, attempt: Attempt, route: Route[Any] | None, outcome: Outcome, note: str
    ) -> TcpConnection:
        """Record that a connection begins whose bytes are not read as requests.

        Args:
            route: What answers it; None is `unrouted="passthrough"`.
            note: A sentence where there is more to say.
        """
        to = attempt.destination
        entry = TcpConnection(
            **self.about(to.host, to.port, attempt.started),
            outcome=outcome,
            route=route,
            address=to.address,
            sni=to.sni,
            note=note,
        )
        self.record(attempt.context, entry)
        return entry

    def record_tls(self, attempt: Attempt, reason: str, note: str, *, is_cut: bool) -> None:
        """Record a TLS connection that has not become a request; at a claimed address the end of its test judges it.

        Args:
            is_cut: Whether we ended it.
        """
        context, to = attempt.context, attempt.destination
        if is_cut:
            reason, note = "cut", "its handshake had not ended when its test did"
        elif self.target.is_ending and reason != "untrusted":  # no alert: it need not have left
            reason, note = "cut", "its handshake had not ended when its container was stopped"
        if reason in DISTRUST:
            note = "; ".join([note, *self.target.hints])
        entry = TlsFailure(
            **self.about(to.host, to.port, attempt.started),
            **self.outcome(context, to.host, to.port, "recorded"),
            address=to.address,
            sni=to.sni,
            reason=reason,
            client=to.tls_client(reason),
            note=note,
        )
        route = claimed(context.tables, to.host, to.port)
        if entry.outcome == "recorded" and route is not None:
            entry.near = (NearMiss(route=route, differences=()),)
        self.record(context, entry)

    def trust(self, attempt: Attempt) -> None:
        """Note that a TLS client has shown that it trusts us."""
        to = attempt.destination
        for reason in ("", "alpn"):
            peers = (self.target.name, to.host, to.port, to.tls_client(reason))
            self.ledger.record_handshake(attempt.context.window, peers, to.greeted)


def unclaimed(context: AttemptContext) -> Outcome:
    """The outcome of an attempt that no route claims."""
    return "unrouted" if context.window.policy == "fail" else "blocked"


def silent_outcome(attempt: Attempt) -> Outcome:
    """What silence means: where a client of HTTP or TLS is awaited, it has connected ahead of its need."""
    to = attempt.destination
    route = opening(attempt.context.tables, to.host, to.port)
    awaited = route is not None and route.kind.client_speaks_first
    return "recorded" if awaited else "unrouted"


def passes(
    context: AttemptContext, route: Route[Any] | None, hosts: Iterable[str], port: int
) -> bool:
    """Whether a connection or a request goes to the real upstream.

    Args:
        route: What answers it; None where nothing does. What `unrouted` lets through is no way around a route that
            claims any of the hosts, and does not match or has answered as often as it may.
        hosts: All that it names: the name that was dialled, its address, the SNI, Host.
    """
    if route is not None:
        return route.kind.passes_through
    lenient = context.window.policy == "passthrough"
    return lenient and not any(claimed(context.tables, host, port) for host in hosts)
