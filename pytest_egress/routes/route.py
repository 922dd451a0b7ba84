"""`Route`: one declaration, what answers it, and the calls that it has had.

A `Route` is looked up for every connection and every request, so what changes here changes at once. This module never
touches a socket or a clock: waiting is the ledger's.

Threads: the test's declares and asks; the gateway's look up, reserve and count. What is looked up is replaced as a
whole, and read without a lock; counts and calls change under the ledger's. No matcher is asked while that is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import pytest_egress.routes.answers as answers
import pytest_egress.routes.handles as handles
from pytest_egress.base.clock import check_seconds
from pytest_egress.errors import CallError
from pytest_egress.routes.handles import Call
from pytest_egress.routes.kinds import Kind
from pytest_egress.routes.matching import ANY_REQUEST, MATCHERS, Match
from pytest_egress.traffic.dns_answers import check_name_answer
from pytest_egress.traffic.entries import Entry, Exchange

if TYPE_CHECKING:
    from pytest_egress.traffic.address import Address

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

Scope = Literal["test", "class", "module", "session"]
ClientCertificate = Literal["request", "require"]
CLIENT_CERTIFICATES: Final = ("request", "require")  # the strictest last


class CallLog(Protocol):
    """What a route needs of the ledger: whose calls count now, and a way to wait for more."""

    @property
    def changed(self) -> AbstractContextManager[Any]:
        """Its lock; re-entrant."""
        ...

    def visible(self, window: object) -> bool:
        """Whether a call in that window counts now."""
        ...

    def running(self) -> list[str]:
        """The names of the containers that run; the lock is not held."""
        ...

    def routes_changed(self) -> None:
        """Let what is open be looked at again."""
        ...

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until the condition holds, for so many seconds."""
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
    """A route before it belongs to a scope. See `Egress.intercept_https` for the meaning of each field."""

    kind: Kind
    address: Address
    answer: object
    match: Match = ANY_REQUEST
    times: int | None = None
    optional: bool = False
    name: str | None = None
    client_certificate: ClientCertificate | None = None

    def __post_init__(self) -> None:
        if self.client_certificate not in (None, *CLIENT_CERTIFICATES):
            raise ValueError(
                f"client_certificate={self.client_certificate!r}: it takes 'request' or 'require'"
            )
        if self.times is not None and isinstance(self.answer, answers.AnswerSequence):
            raise ValueError(f"times={self.times!r}: sequence() implies it; leave it out")
        if self.times is not None and (type(self.times) is not int or self.times < 1):
            raise ValueError(
                f"times={self.times!r}: a route answers 1 time or more; leave it out for any number"
            )
        if not isinstance(self.name, (str, type(None))):
            raise TypeError(f"name= takes a str, not {self.name!r}")


def check_answer(kind: Kind, answer: object) -> object:
    """The answer as a route of that kind can use it.

    Raises:
        TypeError, ValueError: It cannot; the text lists what it can.
    """
    if kind.answers_names:
        return check_name_answer(answer)
    if kind.has_handler:
        return answers.check_answer(answer, raw=kind.reads_bytes)
    if answer is not None:
        raise TypeError(f"{kind.method}() has no answer, but was given {answer!r}")
    return None


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a route was given to answer with, replaced as a whole: readers take no lock.

    Attributes:
        context: The context variables of whoever gave it.
        first_turn: The first turn that is answered with it, as `Route.reserve` counts.
    """

    answer: object
    context: Context
    first_turn: int


class Route(handles.Route[Call]):
    """A route as the gateway and its scope see it; what tests ask of it is documented in `handles`."""

    def __init__(
        self, declaration: Declaration, *, scope: Scope, declared_at: str, log: CallLog
    ) -> None:
        self.kind: Final = declaration.kind
        self.parsed_address: Final = declaration.address
        self.matcher: Final = declaration.match
        self.optional: Final = declaration.optional
        self.name = declaration.name
        self.client_certificate: Final = declaration.client_certificate
        self.scope: Final = scope
        self.declared_at: Final = declared_at
        self.times = declaration.times
        self.removed = False
        self.ended = False
        self.expected_idle = False
        self._declared_times: Final = declaration.times
        self._log = log
        self._reserved = 0
        self._given_back: list[int] = []
        self._holders: list[Holder] = []
        self._calls: list[tuple[object, Call]] = []
        self._has_let_go = False
        self._held: list[answers.Application] = []
        self._given: Given
        self._set_answer(declaration.answer)

    @property
    def address(self) -> str:
        """As it was declared."""
        return self.parsed_address.text

    def __call__(self, handler: Any) -> Any:
        """Make this the route's handler: the decorator form."""
        if not callable(handler):
            raise TypeError(
                f"@{self.kind.method}({self.address!r}) decorates a function, not {handler!r}"
            )
        return self.respond(handler)

    def respond(self, handler: Any) -> Any:
        """Change the answer in place; requests and connections that come from now on get it."""
        self._set_answer(check_answer(self.kind, handler))
        return self

    def _set_answer(self, answer: object) -> None:
        for application in applications(answer):
            application.acquire()
            self._held.append(application)  # to the end: requests that go on may use it
        context = copy_context()  # handlers see the test's variables
        with self._log.changed:
            first = self._reserved
            self._given = Given(answer=answer, context=context, first_turn=first)
            self.times = self._declared_times
            if isinstance(answer, answers.AnswerSequence):
                self._given_back.clear()
                self.times = first + len(answer)

    def release(self) -> None:
        """End it with its scope: let go of what its answers hold open; again is harmless."""
        self.ended = True
        with ExitStack() as releases:  # one that fails keeps no other held
            while self._held:
                releases.callback(self._held.pop().release)

    def remove(self) -> None:
        """Stop matching; calls so far stay, what it let live is cut. A removed route is never required."""
        self.removed = True
        self._log.routes_changed()

    # What the gateway asks.

    def covers(self, host: str, port: int) -> bool:
        """Whether its address is that of a connection, whatever is spoken on it."""
        is_for_connections = not self.removed and not self.kind.answers_names
        return is_for_connections and self.parsed_address.matches(host, port)

    def claims(self, secure: bool, host: str, port: int) -> bool:
        """Whether its address and protocol are those of a request; its matchers are not asked."""
        scheme = "https" if secure else "http"
        return self.kind.claims_requests(scheme) and self.covers(host, port)

    def names(self, name: str) -> bool:
        """Whether it is declared for a host name, at whatever port."""
        return not self.removed and self.parsed_address.matches(name, self.parsed_address.port or 0)

    def is_for(self, host: str) -> bool:
        """Whether it is declared for this very host, and not for a pattern that the host is one of."""
        return self.parsed_address.is_exact and self.parsed_address.host == host

    @property
    def is_exhausted(self) -> bool:
        """Whether all of its `times` are taken."""
        return self.times is not None and self._reserved - len(self._given_back) >= self.times

    @property
    def is_used_up(self) -> bool:
        """Whether it is a raw route all of whose `times` are taken."""
        return self.kind.reads_bytes and self.is_exhausted

    def reserve(self) -> int | None:
        """Take one of its `times`: which, from 0; None where all are taken."""
        with self._log.changed:
            if self.is_exhausted:
                return None
            if self._given_back:
                return self._given_back.pop(0)
            self._reserved += 1
            return self._reserved - 1

    def give_back(self, turn: int) -> None:
        """Return what `reserve` took: it was no call. The next connection takes it, and the answer of its turn."""
        with self._log.changed:
            given = self._given
            if turn >= given.first_turn or not isinstance(given.answer, answers.AnswerSequence):
                self._given_back = sorted([*self._given_back, turn])

    @contextmanager
    def turn_of(self, holder: Holder) -> Iterator[int | None]:
        """What `reserve` gives to a connection, which others know of until it is over."""
        with self._log.changed:
            if (turn := self.reserve()) is not None:
                self._holders.append(holder)
        try:
            yield turn
        finally:
            if turn is not None:
                with self._log.changed:
                    self._holders.remove(holder)

    @property
    def may_come_free(self) -> bool:
        """Whether a turn may come free that is the next connection's: the last one, or an earlier one of a sequence."""
        with self._log.changed:
            silent = [holder for holder in self._holders if holder.is_silent()]
            if isinstance(self._given.answer, answers.AnswerSequence) and not self.is_exhausted:
                return any(holder.has_left() for holder in silent)
            return self.is_used_up and bool(silent)

    def answer(self, turn: int = 0) -> tuple[Any, Context]:
        """What answers, and the context for it: both of one declaration, whatever `respond` does meanwhile.

        Takes no lock, so that DNS answers can be looked up under the lock of the names.

        Args:
            turn: What `reserve` returned.

        Returns:
            A handler, a static answer, or a `Forward`; and a context like that of its declaration, for one call.
        """
        given = self._given
        answer, context = given.answer, given.context.copy()
        if isinstance(answer, answers.AnswerSequence):
            answer = answer.answers[min(max(turn - given.first_turn, 0), len(answer) - 1)]
        return answer, context

    def count(self, window: object, call: Call) -> None:
        """Record a call; the ledger's lock is held."""
        self._calls.append((window, call))

    def let_go(self) -> None:
        """Forget its calls, with all that they received; its scope has ended."""
        with self._log.changed:
            self._calls.clear()
            self._has_let_go = True

    # What the test asks.

    @property
    def calls(self) -> list[Call]:
        """What it answered, in order: exchanges; connections of a raw route; queries of a DNS one.

        Raises:
            CallError: Its scope has ended and been reported, and nobody knows them any more.
        """
        calls = self._visible_calls()
        self._check_kept()
        return calls

    def _check_kept(self) -> None:
        """Refuse to answer for calls that are gone. The lock is not held: the text has what the user's values say."""
        if self._has_let_go:
            raise CallError(f"{self}: its calls are asked for too late: {LET_GO}")

    def _visible_calls(self) -> list[Call]:
        with self._log.changed:
            return [call for window, call in self._calls if self._log.visible(window)]

    @property
    def call_count(self) -> int:
        """How many calls it answered; inside its handler, how many before this one."""
        return len(self.calls)

    @property
    def called(self) -> bool:
        """Whether it answered a request."""
        return bool(self.calls)

    @property
    def lifetime_count(self) -> int:
        """How many requests it answered since it was declared, in whichever test."""
        return len(self._calls)

    def wait_for_call(self, count: int = 1, timeout: float = 5) -> Call:
        """The count-th call, as soon as it has happened; nothing is consumed.

        Args:
            count: 1 for the first.
            timeout: Seconds.

        Raises:
            CallError: There were fewer calls in that time.
        """
        if count < 1:
            raise ValueError(f"count={count}: calls are counted from 1")
        check_seconds(timeout)
        with self._log.changed:  # or the calls could become another window's before they are read
            self._log.wait_for(
                lambda: self._has_let_go or len(self._visible_calls()) >= count, timeout
            )
            calls = self._visible_calls()
        self._check_kept()
        if len(calls) >= count:
            return calls[count - 1]
        there = were(len(calls))
        raise CallError(f"{self}: waited {timeout:g} s for call {count}; there {there}")

    def assert_called_once(self) -> Call:
        """The only call.

        Raises:
            CallError: There were none, or several.
        """
        calls = self.calls
        if len(calls) != 1:
            lines = [f"{self}: expected 1 call, there {were(len(calls))}", *call_lines(calls)]
            lines += [] if calls else self._may_come(1)
            raise CallError("\n".join(lines))
        return calls[0]

    def assert_called_with(self, **match: Any) -> Call:
        """The first call that matches; takes `method`, `path`, `query`, `headers`, `json`, `content`, `match`.

        Raises:
            CallError: No call matches; the text says in which fields each differs.
        """
        if not self.kind.reads_requests:
            raise TypeError(f"{self} has no requests to match: look at its calls")
        if unknown := [name for name in match if name not in MATCHERS]:
            takes = ", ".join(MATCHERS)
            raise TypeError(f"assert_called_with() does not take {unknown[0]}=; it takes {takes}")
        matcher, calls = Match(**match), self.calls
        lines = [
            f"{self}: none of {len(calls)} calls matches {matcher}"
            if calls
            else f"{self}: was not called"
        ]
        for call in calls:
            assert isinstance(call, Exchange)
            if not (differences := matcher.differences(call.request)):
                return call
            lines += [f"  {call}", *(f"      {difference}" for difference in differences)]
        raise CallError("\n".join([*lines, *self._may_come(len(calls) + 1)]))

    def _may_come(self, count: int) -> list[str]:
        """What to type where the count-th call may still come, as lines."""
        running = self._log.running()
        return [f"  {later_text(running, count)}"] if running else []

    def assert_not_called(self) -> None:
        """Hold that it was not called; it is then not required to be.

        Raises:
            CallError: It was.
        """
        if calls := self.calls:
            raise CallError(
                "\n".join(
                    [f"{self}: expected no call, there {were(len(calls))}", *call_lines(calls)]
                )
            )
        self.expected_idle = True

    def __str__(self) -> str:
        """The declaration: `intercept_https("api.stripe.com", path='/v1')`."""
        parts = [f'"{self.address}"', *filter(None, [str(self.matcher)])]
        parts += [f"times={self._declared_times}"] if self._declared_times is not None else []
        if self.client_certificate is not None:
            parts.append(f"client_certificate={self.client_certificate!r}")
        parts += [f"name={self.name!r}"] if self.name is not None else []
        return f"{self.kind.method}({', '.join(parts)})"

    def __repr__(self) -> str:
        return f"<Route {self}, {self.lifetime_count} calls>"


LET_GO: Final = (
    "what a test received is let go of with its report, and what a wider scope did with its end; ask before that, "
    "or keep a copy"
)
"""Why an answer would be an empty one."""


def were(count: int) -> str:
    """The end of "there ..."."""
    return {0: "was none", 1: "was 1"}.get(count, f"were {count}")


def later_text(running: Sequence[str], count: int | str) -> str:
    """That containers may call a route later, and how to wait for it.

    Args:
        running: Their names.
        count: Of the call.
    """
    verb = "still runs" if len(running) == 1 else "still run"
    call = f"wait_for_call({'' if count == 1 else count})"
    return f"{' and '.join(running)} {verb}, and may call later: {call} waits for that"


def call_lines(calls: Iterable[Entry]) -> list[str]:
    """Calls as indented lines."""
    return [f"  {call}" for call in calls]


def applications(answer: object) -> tuple[answers.Application, ...]:
    """What of an answer holds something open."""
    parts = answer.answers if isinstance(answer, answers.AnswerSequence) else (answer,)
    return tuple(part for part in parts if isinstance(part, answers.Application))
