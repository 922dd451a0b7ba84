"""`InnerRoute`: a declared route as the gateway, the ledger and its scope use it.

Routes are looked up for every connection and every request, so a change takes effect at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pytest_egress.routes.declarations import Declaration
from pytest_egress.routes.route import CallLog, Route, Scope
from pytest_egress.routes.turns import Turns
from pytest_egress.traffic.entries import REJECTED, Entry, TlsFailure


class InnerRoute(Route[Any]):
    """A route with the names that are not for tests."""

    # Of the class until it changes: objects of fewer than 30 attributes share the keys of their dictionaries
    # (PEP 412), and take 0.3 KB of memory in place of 1.6.
    ended = False
    is_swept = False  # whether a fault sweep has declared it, to fail what it answers

    def __init__(
        self,
        declaration: Declaration,
        *,
        scope: Scope,
        declared_at: str,
        log: CallLog,
        bind: Callable[[object], object] = lambda answer: answer,
    ) -> None:
        self.kind: Final = declaration.kind
        self.parsed_address: Final = declaration.address
        self.matcher: Final = declaration.match
        self.predicate: Final = declaration.predicate
        self.optional: Final = declaration.optional
        self.name = declaration.name
        self.client_certificate: Final = declaration.client_certificate
        self.presented: Final = declaration.presented
        self.stream: Final = declaration.stream
        self.alpn: Final = tuple(declaration.alpn)
        self.http3: Final = declaration.http3
        self.records: Final = declaration.records
        self.scope: Final = scope
        self.declared_at: Final = declared_at
        self._declared, self._log = declaration, log
        self._turns = self.turns = Turns(declaration.answer, declaration.times, log.changed, bind)
        self._calls, self._calls_of, self._tls_failures = [], {}, []
        self._expecting = set()

    def release(self) -> None:
        """The route ends with its scope. Calling it again does nothing."""
        self.ended = True
        self.turns.release()

    @property
    def removed(self) -> bool:
        return self._is_removed

    def is_over(self, *, test_over: bool = False) -> bool:
        """Whether the route is there no more; with `test_over`, also whether it goes with its test."""
        return self._is_removed or self.ended or (test_over and self.scope == "test")

    @property
    def expected_idle(self) -> bool:
        """Whether the test has asserted that it was not called."""
        return self._expects_none

    def covers(self, host: str, port: int) -> bool:
        """The protocol of the connection does not matter."""
        is_for_connections = self.kind.is_for_connections and not self._is_removed
        return is_for_connections and self.parsed_address.matches(host, port)

    @property
    def lets_datagrams_out(self) -> bool:
        """Whether its datagrams come to be answered: they are its calls, or carry them by QUIC."""
        return self.kind.reads_datagrams or self.http3

    @property
    def decides_datagrams(self) -> bool:
        """Whether it says what becomes of a datagram: it answers or refuses it."""
        return self.lets_datagrams_out or self.kind.refuses

    def takes_datagrams(self, host: str, port: int) -> bool:
        """Whether it says what becomes of a datagram to an address: it answers or refuses it."""
        decides = self.decides_datagrams and not self._is_removed
        return decides and self.parsed_address.matches(host, port)

    def claims(self, secure: bool, host: str, port: int) -> bool:
        """The matchers of the route are not called."""
        return self.kind.claims_requests("https" if secure else "http") and self.covers(host, port)

    def names(self, name: str) -> bool:
        """The port of the address does not matter."""
        return not self._is_removed and self.parsed_address.matches(
            name, self.parsed_address.port or 0
        )

    def is_for(self, host: str) -> bool:
        """A pattern that matches the host does not count."""
        return self.parsed_address.is_exact and self.parsed_address.host == host

    @property
    def is_used_up(self) -> bool:
        counts = self.kind.reads_bytes or self.kind.reads_datagrams
        return counts and self.turns.is_exhausted

    def was_exhausted(self, moment: float) -> bool:
        """The moment is in the time of entries."""
        if self.times is None or not self.turns.is_exhausted:
            return False
        later = [call for call in self._calls if call.started > moment]
        return self.turns.taken - len(later) >= self.times

    @property
    def times_called(self) -> int:
        """The questions of one lookup of a name are one call. Calls in any test count."""
        return self.turns.taken if self.kind.answers_names else self.lifetime_count

    @property
    def lifetime_count(self) -> int:
        """Calls in any test count."""
        return len(self._calls)

    def count(self, window: object, call: Entry) -> None:
        """The caller holds the ledger's lock."""
        self._calls.append(call)
        self._calls_of.setdefault(window, []).append(call)

    def add_failure(self, window: object, failure: TlsFailure) -> None:
        """The caller holds the ledger's lock."""
        self._tls_failures.append((window, failure))

    @property
    def latest_fault(self) -> object | None:
        """The latest call may be of any test; None where it was answered by no fault."""
        return next((getattr(call, "fault", None) for call in self._calls[-1:]), None)

    def let_go(self) -> None:
        """Forget the route's calls, because its scope has ended."""
        with self._log.changed:
            self._calls.clear()
            self._calls_of.clear()
            self._tls_failures.clear()
            self._expecting.clear()
            self._has_let_go = True

    def expects_calls(self, window: object) -> bool:
        """Whether the test of a window has asserted calls; what another test of a wider scope did says nothing."""
        return not self._expecting.isdisjoint((window, None))

    @property
    def is_rejected(self) -> bool:
        """Rejections in any test count."""
        return any(failure.reason == REJECTED for _, failure in self._tls_failures)
