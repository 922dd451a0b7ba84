"""`Route`: a declared route, with its answer and its calls.

Routes are looked up for every connection and every request, so a change takes effect at once. This module never
touches a socket or a clock: the ledger does the waiting.

Threads: the test's thread declares routes and asks for calls; the gateway's threads look up, reserve and count. The
answer and its context are replaced as one value, and read without a lock. Counts and calls change under the ledger's
lock. No matcher is called while that is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import pytest_egress.routes.answers as answers
import pytest_egress.routes.handles as handles
import pytest_egress.routes.raw as raw
from pytest_egress.base.clock import check_seconds
from pytest_egress.errors import CallError
from pytest_egress.routes.certificates import BadCertificate, Presented, TlsVersion, check_presented
from pytest_egress.routes.duplex import DuplexAnswer
from pytest_egress.routes.faults import ConnectFault, check_connect_faults, layers
from pytest_egress.routes.handles import Call
from pytest_egress.routes.kinds import Kind
from pytest_egress.routes.matching import ANY_REQUEST, MATCHERS, Match
from pytest_egress.routes.name_answers import check_cname, check_names
from pytest_egress.routes.sequences import AnswerSequence
from pytest_egress.traffic.dns_answers import NO_RECORDS, Records
from pytest_egress.traffic.entries import Entry, Exchange, TlsFailure
from pytest_egress.traffic.grpc import is_grpc
from pytest_egress.traffic.messages import UNSET, Request, shown

if TYPE_CHECKING:
    from pytest_egress.traffic.address import Address

Scope = Literal["test", "class", "module", "session"]
ClientCertificate = Literal["request", "require"]
CLIENT_CERTIFICATES: Final = ("request", "require")  # the strictest last


class CallLog(Protocol):
    """The part of the ledger that a route uses: which calls count now, and a way to wait for more."""

    @property
    def changed(self) -> AbstractContextManager[Any]:
        """The ledger's lock, which is re-entrant."""
        ...

    def visible_window(self) -> object | None:
        """The only window whose calls count now; None where all count."""
        ...

    def running(self) -> list[str]:
        """The names of the running containers; call it without holding the lock."""
        ...

    def routes_changed(self) -> None:
        """Have the gateways check again whether a route still allows each open connection."""
        ...

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until a condition holds, at most `timeout` seconds; return whether it does."""
        ...


class Holder(Protocol):
    """A connection that has taken one of a route's `times`, and gives it back where it proves to be no call."""

    def is_silent(self) -> bool:
        """Whether it may yet prove to be none."""
        ...

    def has_left(self) -> bool:
        """Whether its client has closed: it is known soon what it was."""
        ...


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The checked arguments of a route, before it belongs to a scope. `Egress.intercept_https` explains each field."""

    kind: Kind
    address: Address
    answer: object
    match: Match = ANY_REQUEST
    times: int | None = None
    optional: bool = False
    name: str | None = None
    client_certificate: ClientCertificate | None = None
    certificate: BadCertificate | None = None
    tls_version: TlsVersion | None = None
    stream: bool = False
    alpn: Sequence[str] = ()
    records: Records = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.stream, bool):
            raise TypeError(f"stream= takes True or False, not {self.stream!r}")
        if self.stream:
            check_head_decides(self.match, "stream=True")
        if self.client_certificate not in (None, *CLIENT_CERTIFICATES):
            raise ValueError(
                f"client_certificate={self.client_certificate!r}: it takes 'request' or 'require'"
            )
        presented = check_presented(self.certificate, self.tls_version, self.client_certificate)
        if presented.is_bad:
            self._check_decides_before_requests(presented)
        if self.times is not None and isinstance(self.answer, AnswerSequence):
            raise ValueError(f"times={self.times!r}: sequence() implies it; leave it out")
        if self.times is not None and (type(self.times) is not int or self.times < 1):
            raise ValueError(
                f"times={self.times!r}: a route answers 1 time or more; leave it out for any number"
            )
        if not isinstance(self.name, (str, type(None))):
            raise TypeError(f"name= takes a str, not {self.name!r}")
        check_protocols(self.alpn)
        check_layers(self.kind, self.address.text, self.answer)

    def _check_decides_before_requests(self, presented: Presented) -> None:
        """Refuse what only a request can meet on a route that is to be rejected before there is one.

        Raises:
            ValueError: There is such a condition, or a number of calls.
        """
        given = presented.given
        if conditions := str(self.match):
            raise ValueError(
                f"{conditions} with {given}: the handshake comes before the request, and is the same for "
                f"all requests to {self.address.text!r}; leave the conditions out"
            )
        check_uncounted(presented, self.times, self.answer)


def check_uncounted(presented: Presented, times: int | None, answer: object) -> None:
    """Refuse a number of calls on a route that is to be rejected.

    Raises:
        ValueError: There is one.
    """
    if presented.is_bad and (times is not None or isinstance(answer, AnswerSequence)):
        count = "sequence()" if times is None else f"times={times!r}"
        raise ValueError(
            f"{count} with {presented.given}: it counts calls, and a client that rejects makes none; leave it out"
        )


def check_layers(kind: Kind, address: str, answer: object) -> None:
    """Refuse a fault of connecting where a route answers after the connection is made.

    Raises:
        TypeError: It has one.
    """
    check_connect_faults(answer, kind.method, address, takes_unread=kind.takes_unread)


MAX_PROTOCOL_BYTES: Final = 255  # RFC 7301 section 3.1


def check_protocols(alpn: object) -> None:
    """Refuse what is no list of the names of ALPN.

    Raises:
        TypeError, ValueError: With the value, and what is accepted.
    """
    wanted = 'it takes names of protocols, as alpn=("postgresql",)'
    if not isinstance(alpn, (tuple, list)) or not all(isinstance(name, str) for name in alpn):
        raise TypeError(f"alpn={alpn!r}: {wanted}")
    for name in alpn:
        if not name.isascii() or not 1 <= len(name) <= MAX_PROTOCOL_BYTES:
            raise ValueError(
                f"alpn={alpn!r}: {name!r} is no name of ALPN, which has 1 to {MAX_PROTOCOL_BYTES} "
                f"characters of ASCII; {wanted}"
            )


def check_head_decides(match: Match, why: str) -> None:
    """Refuse conditions about the body on a route that answers before the body has come.

    Args:
        why: What makes it answer so early.
    """
    for name in ("json", "content"):
        if getattr(match, name) is not getattr(Match, name):
            raise ValueError(
                f"{name}= needs the whole body, and {why} answers before that has come: leave {name}= out, and "
                "look at the body in the handler"
            )


def check_answer(kind: Kind, answer: object, records: Records = NO_RECORDS) -> object:
    """Check the answer of a route of one kind, and convert it to the form that the route uses.

    Args:
        records: Of a DNS route: the records that it declares besides.

    Raises:
        TypeError, ValueError: A route of this kind cannot answer with it; the text lists what it takes.
    """
    if kind.answers_names:
        return check_names(answer, records)
    if kind.has_handler:
        given = raw.adapted(answer) if kind.reads_bytes else answer
        return answers.check_answer(given, raw=kind.reads_bytes)
    if answer is not None:
        raise TypeError(f"{kind.method}() has no answer, but was given {answer!r}")
    return None


@dataclass(frozen=True, kw_only=True)
class Given:
    """The current answer of a route. It is replaced as a whole, so readers take no lock.

    Attributes:
        answer: The answer, as `check_answer` returned it.
        context: The context variables at the place that declared it.
        first_turn: The first turn that it answers, as `Route.reserve` counts turns.
    """

    answer: object
    context: Context
    first_turn: int

    @cached_property
    def may_begin_at_head(self) -> bool:
        """Whether a part of the answer may read the body of some request by itself; see `takes_what_comes`."""
        kinds = DuplexAnswer, answers.Forward
        return any(part is UNSET or isinstance(part, kinds) for part in parts_of(self.answer))

    def of_turn(self, turn: int) -> Any:
        """The answer for a turn: one of a sequence, or always the same."""
        if not isinstance(self.answer, AnswerSequence):
            return self.answer
        answers = self.answer.answers
        return answers[min(max(turn - self.first_turn, 0), len(answers) - 1)]


class Route(handles.Route[Call]):
    """A route as the gateway and its scope use it; `handles.Route` documents the part for tests.

    Attributes:
        refuses: Whether a fault of connecting is among its answers.
        on_answer: Called under the ledger's lock where the answer has been set.
    """

    # Of the class until they change: objects of fewer than 30 attributes share the keys of their dictionaries
    # (PEP 412), and take 0.3 KB of memory in place of 1.6.
    removed = ended = expected_idle = refuses = False
    _reserved, _vacant, _has_let_go = 0, 0, False

    def __init__(
        self, declaration: Declaration, *, scope: Scope, declared_at: str, log: CallLog
    ) -> None:
        self.kind: Final = declaration.kind
        self.parsed_address: Final = declaration.address
        self.matcher: Final = declaration.match
        self.optional: Final = declaration.optional
        self.name = declaration.name
        self.client_certificate: Final = declaration.client_certificate
        self.presented: Final = Presented(declaration.certificate, declaration.tls_version)
        self.stream: Final = declaration.stream
        self.alpn: Final = tuple(declaration.alpn)
        self.records: Final = declaration.records
        self.scope: Final = scope
        self.declared_at: Final = declared_at
        self.times = declaration.times
        self._declared_times: Final = declaration.times
        self._log = log
        self._given_back: list[int] = []
        self._holders: list[Holder] = []
        self._calls: list[Call] = []
        self._calls_of: dict[object, list[Call]] = {}  # those of each window
        self._tls_failures: list[tuple[object, TlsFailure]] = []  # each with its window
        self._expecting: set[object] = set()  # the windows of tests that have asserted calls
        self._held: list[answers.Application] = []
        self.on_answer: Callable[[], None] = lambda: None
        self._given: Given
        self._set_answer(declaration.answer)

    @property
    def address(self) -> str:
        """The address as it was declared."""
        return self.parsed_address.text

    def __call__(self, handler: Any) -> Any:
        """Make a function the route's handler: the decorator form."""
        if not callable(handler):
            raise TypeError(
                f"@{self.kind.method}({self.address!r}) decorates a function, not {handler!r}"
            )
        return self.respond(handler)

    def respond(self, handler: Any) -> Any:
        """Replace the answer; requests and connections that begin from now on get the new one."""
        answer = check_answer(self.kind, handler, self.records)
        check_layers(self.kind, self.address, answer)
        check_uncounted(self.presented, None, answer)
        check_cname(self.address, answer, self.records)
        refused = self.refuses
        self._set_answer(answer)
        if refused or self.refuses:  # the kernels of targets have to know
            self._log.routes_changed()
        return self

    def _set_answer(self, answer: object) -> None:
        held = applications(answer)
        if any(isinstance(each, DuplexAnswer) for each in held):
            check_head_decides(self.matcher, shown(answer))
        for application in held:
            application.acquire()
            self._held.append(application)  # until the end: a running request may use it
        context = copy_context()  # handlers see the test's context variables
        with self._log.changed:
            first = self._reserved
            self._given = Given(answer=answer, context=context, first_turn=first)
            self.times = self._declared_times
            if isinstance(answer, AnswerSequence):
                self._vacant += len(self._given_back)
                self._given_back.clear()
                self.times = first - self._vacant + len(answer)
            self.refuses = any(isinstance(part, ConnectFault) for part in turns_of(answer))
            self.on_answer()

    def release(self) -> None:
        """End the route with its scope, and release the applications of its answers. Calling it again does nothing."""
        self.ended = True
        with ExitStack() as releases:  # all are released, even if one raises
            while self._held:
                releases.callback(self._held.pop().release)

    def remove(self) -> None:
        """Stop matching. Its calls stay; raw connections that it allowed are cut. A removed route is not required."""
        self.removed = True
        self._log.routes_changed()

    # For the gateway.

    def covers(self, host: str, port: int) -> bool:
        """Whether the route's address matches that of a connection, whatever its protocol."""
        is_for_connections = not self.removed and not self.kind.answers_names
        return is_for_connections and self.parsed_address.matches(host, port)

    def claims(self, secure: bool, host: str, port: int) -> bool:
        """Whether the route's address and scheme match those of a request; its matchers are not called."""
        return self.kind.claims_requests("https" if secure else "http") and self.covers(host, port)

    def names(self, name: str) -> bool:
        """Whether the route's address matches a host name, at any port."""
        return not self.removed and self.parsed_address.matches(name, self.parsed_address.port or 0)

    def is_for(self, host: str) -> bool:
        """Whether the route is declared for exactly this host, and not for a pattern that matches it."""
        return self.parsed_address.is_exact and self.parsed_address.host == host

    @property
    def is_exhausted(self) -> bool:
        """Whether all of the route's `times` are reserved."""
        return self.times is not None and self._taken >= self.times

    def was_exhausted(self, moment: float) -> bool:
        """Whether all of the route's `times` were reserved at a moment, in the time of entries."""
        if self.times is None or not self.is_exhausted:
            return False
        later = sum(call.started > moment for call in self._calls)
        return self._taken - later >= self.times

    @property
    def _taken(self) -> int:
        return self._reserved - self._vacant - len(self._given_back)

    @property
    def times_called(self) -> int:
        """How many of its `times` it has been called, in any test: the questions of one lookup of a name are once."""
        return self._taken if self.kind.answers_names else self.lifetime_count

    @property
    def sequence(self) -> AnswerSequence | None:
        """The answers that are used one after the other, or None."""
        answer = self._given.answer
        return answer if isinstance(answer, AnswerSequence) else None

    @property
    def is_used_up(self) -> bool:
        """Whether this is a raw route, all of whose `times` are reserved."""
        return self.kind.reads_bytes and self.is_exhausted

    @property
    def may_begin_at_head(self) -> bool:
        """Whether the route answers some request from its head on."""
        return self.stream or self._given.may_begin_at_head

    def begins_at_head(self, request: Request) -> bool:
        """Whether the route answers from the head of a request on, before its body has come."""
        parts = parts_of(self._given.answer)
        return self.stream or any(takes_what_comes(part, request) for part in parts)

    def reserve(self) -> int | None:
        """Reserve one of the route's `times`; return its turn, from 0, or None where all are reserved."""
        with self._log.changed:
            if self.is_exhausted:
                return None
            if self._given_back:
                return self._given_back.pop(0)
            self._reserved += 1
            return self._reserved - 1

    def give_back(self, turn: int) -> None:
        """Give back a turn that proved to be no call. The next connection gets it, with its answer.

        Of a turn from before a sequence nobody does: that has an answer for its own turns alone.
        """
        with self._log.changed:
            given = self._given
            if turn >= given.first_turn or not isinstance(given.answer, AnswerSequence):
                self._given_back = sorted([*self._given_back, turn])
            elif self.times is not None:
                self._vacant += 1
                self.times -= 1

    @contextmanager
    def turn_of(self, holder: Holder) -> Iterator[int | None]:
        """What `reserve` gives to a connection, which others know of until it is over.

        The turn of an answer with calls of its own stays free: each mail takes one (`reserve_mail`).
        """
        with self._log.changed:
            is_held = (turn := self.reserve()) is not None
            if turn is not None and self.takes_mails(turn):
                is_held = False
                self.give_back(turn)
            if is_held:
                self._holders.append(holder)
        try:
            yield turn
        finally:
            if is_held:
                with self._log.changed:
                    self._holders.remove(holder)

    def takes_mails(self, turn: int) -> bool:
        """Whether the answer for a turn has calls of its own, such as mails."""
        return isinstance(layers(self._given.of_turn(turn))[1], answers.Service)

    def reserve_mail(self, has_room: Callable[[], bool]) -> answers.Receipt:
        """Reserve a turn for a mail on an open connection; whether that is done, or why not.

        Args:
            has_room: Makes room for the mail, or returns False. It is called where there is a turn for it.
        """
        with self._log.changed:
            if (turn := self.reserve()) is None:
                return "used up"
            is_for_mails = self.takes_mails(turn)
            if is_for_mails and has_room():
                return "taken"
            self.give_back(turn)
            return "no room" if is_for_mails else "elsewhere"

    @property
    def may_come_free(self) -> bool:
        """Whether a turn may come free that is the next connection's: the last one, or an earlier one of a sequence."""
        with self._log.changed:
            silent = [holder for holder in self._holders if holder.is_silent()]
            if isinstance(self._given.answer, AnswerSequence) and not self.is_exhausted:
                return any(holder.has_left() for holder in silent)
            return self.is_used_up and bool(silent)

    def answer(self, turn: int = 0) -> tuple[Any, Context]:
        """The answer for a turn, and the context to call it in. Both are of one declaration, even during `respond`.

        It takes no lock, so that DNS answers can be looked up while the resolver's lock is held.

        Args:
            turn: The turn, as `reserve` returned it.

        Returns:
            A handler, a static answer, or a `Forward`; and a copy of its declaration's context, for one call.
        """
        given = self._given
        return given.of_turn(turn), given.context.copy()

    # Faults of connecting, which the target's kernel carries out before there is a connection.

    @property
    def next_fault(self) -> ConnectFault | None:
        """The fault of connecting that the next connection is answered by, or None. It takes no lock."""
        if not self.refuses:
            return None
        given, given_back = self._given, self._given_back
        answer = given.of_turn(given_back[0] if given_back else self._reserved)
        return answer if isinstance(answer, ConnectFault) else None

    def reserve_fault(self, fault: ConnectFault) -> int | None:
        """Reserve a turn for a dial that met this fault; None where the next connection is not answered by it."""
        with self._log.changed:
            return self.reserve() if self.next_fault == fault else None

    def is_replaced(self, turn: int) -> bool:
        """Whether another answer was given since a turn was reserved."""
        return turn < self._given.first_turn

    def is_outage(self, turn: int) -> bool:
        """Whether a fault of connecting has been given since a turn was reserved: it cuts what that turn let live."""
        given = self._given
        begins_by = given.of_turn(given.first_turn)
        return turn < given.first_turn and isinstance(begins_by, ConnectFault)

    def count(self, window: object, call: Call) -> None:
        """Record a call. The caller holds the ledger's lock."""
        self._calls.append(call)
        self._calls_of.setdefault(window, []).append(call)

    def add_failure(self, window: object, failure: TlsFailure) -> None:
        """Record a connection that ended by what the route presents. The caller holds the ledger's lock."""
        self._tls_failures.append((window, failure))

    @property
    def latest_fault(self) -> object | None:
        """The fault that the latest call was answered by, in any test; None where that was none."""
        return next((getattr(call, "fault", None) for call in self._calls[-1:]), None)

    def let_go(self) -> None:
        """Forget the route's calls, with all that they received, because its scope has ended."""
        with self._log.changed:
            self._calls.clear()
            self._calls_of.clear()
            self._tls_failures.clear()
            self._expecting.clear()
            self._has_let_go = True

    # For the test.

    @property
    def calls(self) -> list[Call]:
        """The calls that the route answered, in order: exchanges, raw connections, mails, or DNS queries.

        Raises:
            CallError: The route's scope has ended, and its calls are no longer kept.
        """
        with self._log.changed:
            calls = [*self._visible_calls()]
        self._check_kept()
        return calls

    def _check_kept(self) -> None:
        """Raise CallError if the calls have been forgotten.

        The lock must not be held: the text calls `__repr__` of the user's values.
        """
        if self._has_let_go:
            raise CallError(f"{self}: its calls are asked for too late: {LET_GO}")

    def _visible_calls(self) -> Sequence[Call]:
        """The calls that count now, in order. The caller holds the ledger's lock, and copies what it keeps."""
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

    @property
    def lifetime_count(self) -> int:
        """How many calls the route answered since it was declared, in any test."""
        return len(self._calls)

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
        """Return the first call that matches `method`, `path`, `query`, `headers`, `json`, `content` and `match`.

        Raises:
            CallError: No call matches; the text says in which fields each differs.
        """
        if not self.kind.reads_requests:
            raise TypeError(f"{self} has no requests to match: look at its calls")
        if unknown := [name for name in match if name not in MATCHERS]:
            takes = ", ".join(MATCHERS)
            raise TypeError(f"assert_called_with() does not take {unknown[0]}=; it takes {takes}")
        matcher, calls = Match(**match), self.calls
        what = f"none of {len(calls)} calls matches {matcher}" if calls else "was not called"
        lines: list[str] = []
        for call in calls:
            assert isinstance(call, Exchange)
            if not (differences := matcher.differences(call.request)):
                self._expect_calls()
                return call
            lines += [f"  {call}", *(f"      {difference}" for difference in differences)]
        raise self._failure(what, [*lines, *self._may_come(len(calls) + 1)])

    def _expect_calls(self) -> None:
        """Note that the running test has asserted calls, and so means them; in a fixture's set-up, all tests."""
        with self._log.changed:
            self._expecting.add(self._log.visible_window())

    def expects_calls(self, window: object) -> bool:
        """Whether the test of a window has asserted calls; what another test of a wider scope did says nothing."""
        return not self._expecting.isdisjoint((window, None))

    def _failure(self, what: str, lines: Iterable[str] = ()) -> CallError:
        """That its calls are not as expected; its headline begins with the address."""
        error = CallError("\n".join([f"{self}: {what}", *lines]))
        error.headline = f"{self.address}: {what}, {self}"
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
        self.expected_idle = (
            not self.presented.is_bad
        )  # no call is what a rejection looks like, too

    @property
    def rejections(self) -> list[TlsFailure]:
        """The connections whose client has rejected what the route presents, in order.

        Only a route with `certificate=`, or with `tls_version=` "TLSv1" or "TLSv1.1", has any.

        Raises:
            CallError: The route's scope has ended, and its rejections are no longer kept.
        """
        return [failure for failure in self._failures() if failure.reason == REJECTED]

    @property
    def is_rejected(self) -> bool:
        """Whether any client has rejected what the route presents since it was declared, in any test."""
        return any(failure.reason == REJECTED for _, failure in self._tls_failures)

    def _failures(self) -> list[TlsFailure]:
        """The connections that ended by what the route presents and that count now, in order."""
        with self._log.changed:
            failures = self._visible_failures()
        self._check_kept()
        return failures

    def _visible_failures(self) -> list[TlsFailure]:
        """The same. The caller holds the ledger's lock."""
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
        if not self.presented.is_bad:
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
        what = f"expected that {self.presented.to(self.address)} is rejected, and "
        what += f"it was accepted: there {were(len(calls))}" if calls else "there was no rejection"
        lines = [f"  {failure}: {failure.note}" for failure in failures if not calls]
        raise self._failure(what, [*call_lines(calls), *lines, *self._may_come(1)])

    def __str__(self) -> str:
        """The declaration: `intercept_https("api.stripe.com", path='/v1')`."""
        parts = [f'"{self.address}"', *filter(None, [str(self.matcher)])]
        parts += [f"times={self._declared_times}"] if self._declared_times is not None else []
        if self.client_certificate is not None:
            parts.append(f"client_certificate={self.client_certificate!r}")
        parts += [self.presented.given] if self.presented.given else []
        parts += [f"alpn={self.alpn!r}"] if self.alpn else []
        parts += [f"name={self.name!r}"] if self.name is not None else []
        return f"{self.kind.method}({', '.join(parts)})"

    def __repr__(self) -> str:
        return f"<Route {self}, {self.lifetime_count} calls>"


REJECTED: Final = "rejected"
"""The reason of a `TlsFailure` whose client has rejected what a route presents."""

LET_GO: Final = (
    "what a test received is let go of with its report, and what a wider scope did with its end; ask before that, "
    "or keep a copy"
)
"""Why calls and ledgers cannot be read after their scope: the end of the error's text."""


def were(count: int) -> str:
    """A count as the end of the sentence "there ..."."""
    return {0: "was none", 1: "was 1"}.get(count, f"were {count}")


def later_text(running: Sequence[str], count: int | str) -> str:
    """A sentence: containers still run and may call a route later, and how to wait for that.

    Args:
        running: The names of the containers.
        count: The number of the call to wait for.
    """
    verb = "still runs" if len(running) == 1 else "still run"
    call = f"wait_for_call({'' if count == 1 else count})"
    return f"{' and '.join(running)} {verb}, and may call later: {call} waits for that"


def call_lines(calls: Iterable[Entry]) -> list[str]:
    """Calls as indented lines."""
    return [f"  {call}" for call in calls]


def applications(answer: object) -> tuple[answers.Application, ...]:
    """The applications in an answer, which the route acquires and releases."""
    return tuple(part for part in parts_of(answer) if isinstance(part, answers.Application))


def takes_what_comes(answer: object, request: Request) -> bool:
    """Whether an answer reads the body of a request by itself. A call of gRPC is forwarded, and fails, as it comes.

    Both sides of such a call may wait for each other.

    Args:
        answer: An answer without the faults around it; UNSET of a fault in place of one.
    """
    if isinstance(answer, DuplexAnswer):
        return True
    return (isinstance(answer, answers.Forward) or answer is UNSET) and is_grpc(request)


def turns_of(answer: object) -> tuple[object, ...]:
    """The answers of a sequence, or the answer itself."""
    return answer.answers if isinstance(answer, AnswerSequence) else (answer,)


def parts_of(answer: object) -> tuple[object, ...]:
    """The answers of a sequence, or the answer itself; of a fault the answer that is within it."""
    return tuple(layers(part)[1] for part in turns_of(answer))
