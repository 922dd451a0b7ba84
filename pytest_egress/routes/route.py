"""`Route`: what a test holds of a declared route, to change its answer and to ask for its calls.

`InnerRoute`, a subclass, has the names for the gateway and the ledger: editors and type checkers show none of these.
This module never touches a socket or a clock: the ledger does the waiting.

Threads: the test's thread asks for calls, and the gateway's threads count them, under the ledger's lock. No matcher is
called while that is held.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar, overload

from pytest_egress.base.clock import check_seconds
from pytest_egress.base.renamed import renamed
from pytest_egress.errors import CallError
from pytest_egress.traffic.entries import (
    REJECTED,
    Datagram,
    DnsQuery,
    Entry,
    Exchange,
    KafkaRecord,
    Mail,
    TcpConnection,
    TlsFailure,
)
from pytest_egress.traffic.redaction.redactor import Redactor, redactor_of
from pytest_egress.traffic.shown import counted

if TYPE_CHECKING:
    # Type checkers bring `typing_extensions` with them; users need not install it.
    from typing_extensions import TypeVar as TypeVarWithDefault

    from pytest_egress.routes.answers import (
        DatagramsAnswer,
        DatagramsHandler,
        DnsAnswer,
        HttpAnswer,
        HttpHandler,
        RawAnswer,
        RawHandler,
        Service,
        StreamsFunction,
    )
    from pytest_egress.routes.datagrams import DatagramService
    from pytest_egress.routes.declarations import Declaration
    from pytest_egress.routes.matching import Match
    from pytest_egress.routes.turns import Turns

    Call = TypeVarWithDefault("Call", bound=Entry, default=Exchange)
else:
    Call = TypeVar("Call", bound=Entry)
"""The type of a route's calls: `Exchange` (the default), `TcpConnection`, `Mail`, `KafkaRecord`, `Datagram`,
`DnsQuery` or `ProxyCall`."""

RawCall = TypeVar("RawCall", TcpConnection, Mail, KafkaRecord)
"""The type of the calls of a raw route: its connections, or what a service gets on them."""

DatagramCall = TypeVar("DatagramCall", bound=Datagram)
"""The type of the calls of a route of datagrams: these, or their parts, such as metrics."""

Scope = Literal["test", "class", "module", "session"]


class CallLog(Protocol):
    """The part of the ledger that a route uses: which calls count now, and a way to wait for more."""

    @property
    def changed(self) -> AbstractContextManager[Any]:
        """The ledger's lock, which is re-entrant."""

    def visible_window(self) -> object | None:
        """The only window whose calls count now; None where all count."""

    @property
    def redactor(self) -> Redactor:
        """What hides secrets in what is shown, at present."""

    def running(self) -> list[str]:
        """The names of the running containers; call it without holding the lock."""

    def routes_changed(self) -> None:
        """Have the gateways check again whether a route still allows each open connection."""

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait at most `timeout` seconds; return whether the condition holds."""


class Route(Generic[Call]):
    """A declared route: an address, the conditions for a request, and an answer. The methods of `Egress` make it.

    Use it as a decorator to give it its handler. Calls and counts are those of the running test; outside of tests,
    those of the route's lifetime.

    Attributes:
        name: The name that it was declared with, or None.
    """

    name: str | None
    _declared: Declaration
    _turns: Turns
    _log: CallLog
    _calls: list[Call]
    _calls_of: dict[object, list[Call]]  # those of each window
    _tls_failures: list[tuple[object, TlsFailure]]  # each with its window
    _expecting: set[object]  # the windows of tests that have asserted calls
    _is_removed = _expects_none = _has_let_go = False

    def __dir__(self) -> list[str]:
        return sorted({*dir(Route), "name"})

    @property
    def address(self) -> str:
        """The address as it was declared."""
        return self._declared.address.text

    @property
    def times(self) -> int | None:
        """How many calls it answers, or None for any number."""
        return self._turns.times

    @overload
    def __call__(self: Route[Exchange], handler: HttpHandler, /) -> Route[Exchange]: ...
    @overload
    def __call__(
        self: Route[TcpConnection], handler: RawHandler | StreamsFunction, /
    ) -> Route[TcpConnection]: ...
    @overload
    def __call__(self: Route[Datagram], handler: DatagramsHandler, /) -> Route[Datagram]: ...
    def __call__(self, handler: Any, /) -> Any:
        """Make a function the route's handler: the decorator form."""
        if not callable(handler):
            method = self._declared.kind.method
            raise TypeError(f"@{method}({self.address!r}) decorates a function, not {handler!r}")
        return self.respond(handler)  # of a route of any kind

    @overload
    def respond(self: Route[Exchange], answer: HttpAnswer) -> Route[Exchange]: ...
    @overload
    def respond(self: Route[RawCall], answer: RawAnswer | Service[Any]) -> Route[RawCall]: ...
    @overload
    def respond(self: Route[DnsQuery], answer: DnsAnswer) -> Route[DnsQuery]: ...
    @overload
    def respond(
        self: Route[DatagramCall], answer: DatagramsAnswer | DatagramService[Any]
    ) -> Route[DatagramCall]: ...
    @renamed(handler="answer=")
    def respond(self, answer: Any) -> Any:
        """Replace the answer; requests and connections that begin from now on get the new one."""
        checked, refused = self._declared.another(answer), self._turns.refuses
        self._turns.replace(checked)
        if refused or self._turns.refuses:  # the kernels of targets have to know
            self._log.routes_changed()
        return self

    def remove(self) -> None:
        """Stop matching. Its calls stay; raw connections that it allowed are cut. A removed route is not required."""
        self._is_removed = True
        self._log.routes_changed()

    @property
    def calls(self) -> list[Call]:
        """The calls that the route answered, in order: exchanges, connections, mails, datagrams, ...

        Raises:
            CallError: The route's scope has ended, and its calls are no longer kept.
        """
        with self._log.changed:
            calls = [*self._visible_calls()]
        self._check_kept()
        return calls

    def _check_kept(self) -> None:
        """The lock must not be held: the text calls `__repr__` of the user's values."""
        if self._has_let_go:
            raise CallError(f"{self}: its calls are asked for too late: {LET_GO}")

    def _visible_calls(self) -> Sequence[Call]:
        """The caller holds the ledger's lock, and copies what it keeps."""
        window = self._log.visible_window()
        return self._calls if window is None else self._calls_of.get(window, ())

    @property
    def call_count(self) -> int:
        """How many calls the route answered; inside its handler, how many before this one."""
        with self._log.changed:
            count = len(self._visible_calls())
        self._check_kept()
        return count

    @property
    def intervals(self) -> list[float]:
        """Seconds from the start of each call to that of the next, in order of the starts: one less than calls.

        Of a client that backs off: `assert route.intervals == [approx(1, abs=0.3), approx(2, abs=0.3)]`.

        Raises:
            CallError: The route's scope has ended, and its calls are no longer kept.
        """
        starts = sorted(call.started for call in self.calls)
        return [later - earlier for earlier, later in pairwise(starts)]

    @property
    def called(self) -> bool:
        """Whether the route answered any call."""
        return self.call_count > 0

    def wait_for_call(self, count: int = 1, timeout: float = 5) -> Call:
        """Wait until the route has answered `count` calls, and return the last of these; no call is consumed.

        Args:
            count: The number of the call, 1 for the first.
            timeout: Seconds to wait.

        Raises:
            CallError: There were fewer calls in that time.
        """
        if count < 1:
            raise ValueError(f"count={count}: calls are counted from 1")
        check_seconds(timeout)
        with self._log.changed:  # until the calls are read: another window could open before
            self._log.wait_for(
                lambda: self._has_let_go or len(self._visible_calls()) >= count, timeout
            )
            calls = [*self._visible_calls()[:count]]
        self._check_kept()
        if len(calls) >= count:
            self._expect_calls()
            return calls[count - 1]
        raise self._failure(f"waited {timeout:g} s for call {count}; there {were(len(calls))}")

    def assert_called_once(self) -> Call:
        """Return the only call.

        Raises:
            CallError: There were none, or several.
        """
        calls = self.calls
        if len(calls) != 1:
            lines = call_lines(calls) if calls else self._may_come(1)
            raise self._failure(f"expected 1 call, there {were(len(calls))}", lines)
        self._expect_calls()
        return calls[0]

    def assert_called_with(self, **match: Any) -> Call:
        """Return the last call, which has to match `method`, `path`, `query`, `headers`, `json`, `content` and `match`.

        It is the last one as in `unittest.mock`; `assert_any_call` looks at all.

        Raises:
            CallError: There was no call, or the last one differs; the text says in which fields.
        """
        matcher, calls = self._matcher("assert_called_with", match), self.calls
        if not calls:
            raise self._failure("was not called", self._may_come(1))
        if not (lines := different_lines(matcher, calls[-1])):
            self._expect_calls()
            return calls[-1]
        which = f"the last of {len(calls)} calls" if len(calls) > 1 else "its call"
        numbered = enumerate(calls[:-1], 1)
        if also := next((n for n, call in numbered if not different_lines(matcher, call)), 0):
            lines.append(f"  call {also} of {len(calls)} matches, which assert_any_call(...) finds")
        what = f"{which} does not match {matcher.text(self._log.redactor)}"
        raise self._failure(what, [*lines, *self._may_come(len(calls) + 1)])

    def assert_called_once_with(self, **match: Any) -> Call:
        """Return the only call, which has to match as in `assert_called_with`.

        Raises:
            CallError: There were none, or several, or the only one differs.
        """
        self._matcher("assert_called_once_with", match)
        self.assert_called_once()
        return self.assert_called_with(**match)

    def assert_any_call(self, **match: Any) -> Call:
        """Return the first call that matches, by the same conditions as `assert_called_with`.

        Raises:
            CallError: No call matches; the text says in which fields each differs.
        """
        matcher, calls = self._matcher("assert_any_call", match), self.calls
        what = (
            f"none of {counted(len(calls), 'call')} matches {matcher.text(self._log.redactor)}"
            if calls
            else "was not called"
        )
        lines: list[str] = []
        for call in calls:
            if not (differences := different_lines(matcher, call)):
                self._expect_calls()
                return call
            lines += differences
        raise self._failure(what, [*lines, *self._may_come(len(calls) + 1)])

    def _matcher(self, method: str, match: dict[str, Any]) -> Match:
        from pytest_egress.routes.matching import MATCHERS, Match  # brings asyncio

        if not self._declared.kind.reads_requests:
            raise TypeError(f"{self} has no requests to match: look at its calls")
        if unknown := [name for name in match if name not in MATCHERS]:
            takes = ", ".join(MATCHERS)
            raise TypeError(f"{method}() does not take {unknown[0]}=; it takes {takes}")
        return Match(**match)

    def assert_not_sent(self, *needles: str | bytes | re.Pattern[str] | re.Pattern[bytes]) -> None:
        """Assert that none of these is in what the route's calls have sent, as `Egress.assert_not_sent` does for all.

        Raises:
            CallError: One was sent, or a call cannot be searched to its end, or there was no call.
            TypeError, ValueError: There is nothing to search for, or something that is in every text.
        """
        from pytest_egress.traffic.search.needles import checked
        from pytest_egress.traffic.search.verdict import search

        searched, calls = checked(needles), self.calls
        if not calls:
            raise self._failure("was not called, so that nothing can be found", self._may_come(1))
        if (error := search(calls, searched, advice="")) is not None:
            raise error

    def _expect_calls(self) -> None:
        """The running test has asserted calls, and so means them; in a fixture's set-up, all tests do."""
        with self._log.changed:
            self._expecting.add(self._log.visible_window())

    def _failure(self, what: str, lines: Iterable[str] = ()) -> CallError:
        hidden = self._log.redactor.hidden
        error = CallError(hidden("\n".join([f"{self}: {what}", *lines])))
        error.headline = hidden(f"{self.address}: {what}, {self}")
        return error

    def _may_come(self, count: int) -> list[str]:
        """Lines that say how to wait for the count-th call, where a container still runs that may make it."""
        running = self._log.running()
        return [f"  {later_text(running, count)}"] if running else []

    def assert_not_called(self) -> None:
        """Assert that the route was not called; from then on the test does not require it to be.

        Raises:
            CallError: It was called; the text lists the calls.
        """
        if calls := self.calls:
            raise self._failure(f"expected no call, there {were(len(calls))}", call_lines(calls))
        # No call is what a rejection looks like, too.
        self._expects_none = not self._declared.presented.is_bad

    @property
    def rejections(self) -> list[TlsFailure]:
        """The connections whose client has rejected what the route presents, in order.

        Only a route with `certificate=`, or with `tls_version=` "TLSv1" or "TLSv1.1", has any.

        Raises:
            CallError: The route's scope has ended, and its rejections are no longer kept.
        """
        return [failure for failure in self._failures() if failure.reason == REJECTED]

    def _failures(self) -> list[TlsFailure]:
        """The connections that ended by what the route presents and that count now, in order."""
        with self._log.changed:
            failures = self._visible_failures()
        self._check_kept()
        return failures

    def _visible_failures(self) -> list[TlsFailure]:
        """The caller holds the ledger's lock."""
        window = self._log.visible_window()
        return [each for of, each in self._tls_failures if window is None or window is of]

    def _is_decided(self) -> bool:
        """Whether a client has rejected what the route presents, or accepted it. The caller holds the ledger's lock."""
        is_rejected = any(each.reason == REJECTED for each in self._visible_failures())
        return is_rejected or bool(self._visible_calls()) or self._has_let_go

    def assert_rejected(self, timeout: float = 5) -> TlsFailure:
        """Return the first rejection of what the route presents, by `certificate=` or an old `tls_version=`.

        A client may be seen to reject a moment after it has said so: while a container runs, that is waited for.

        Args:
            timeout: Seconds to wait.

        Raises:
            CallError: Nobody has rejected it, or a request came over it; the text says what came instead.
        """
        if not self._declared.presented.is_bad:
            raise TypeError(
                f"{self} presents a good certificate: assert_rejected() is for a route with certificate=, or with "
                "tls_version='TLSv1' or 'TLSv1.1'"
            )
        check_seconds(timeout)
        if self._log.running():
            self._log.wait_for(self._is_decided, timeout)
        calls, failures, rejections = self.calls, self._failures(), self.rejections
        if rejections and not calls:
            return rejections[0]
        what = f"expected that {self._declared.presented.to(self.address)} is rejected, and "
        what += f"it was accepted: there {were(len(calls))}" if calls else "there was no rejection"
        lines = [f"  {failure}: {failure.note}" for failure in failures if not calls]
        raise self._failure(what, [*call_lines(calls), *lines, *self._may_come(1)])

    def __str__(self) -> str:
        return self._declared.text(self._log.redactor)

    def __repr__(self) -> str:
        return f"<Route {self}, {counted(len(self._calls), 'call')}>"


LET_GO: Final = (
    "what a test received is let go of with its report, and what a wider scope did with its end; ask before that, "
    "or keep a copy"
)
"""Why calls and ledgers cannot be read after their scope: the end of the error's text."""


def were(count: int) -> str:
    """The end of a sentence that begins with "there"."""
    return {0: "was none", 1: "was 1"}.get(count, f"were {count}")


def later_text(running: Sequence[str], count: int | str) -> str:
    """A sentence: containers still run and may make call number `count` later, and how to wait for that."""
    verb = "still runs" if len(running) == 1 else "still run"
    call = f"wait_for_call({'' if count == 1 else count})"
    return f"{' and '.join(running)} {verb}, and may call later: {call} waits for that"


def different_lines(matcher: Match, call: Entry) -> list[str]:
    """Lines that say in which fields a call differs; none where it matches. A predicate that raises is a difference."""
    assert isinstance(call, Exchange)
    try:
        differences = matcher.differences(call.request)
    except Exception as error:  # of the predicate
        differences = [matcher.raised(error, redactor_of(call.request))]
    return [f"  {call}", *(f"      {each}" for each in differences)] if differences else []


def call_lines(calls: Iterable[Entry]) -> list[str]:
    return [f"  {call}" for call in calls]
