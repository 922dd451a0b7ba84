"""Routes: which declaration answers an attempt, and why the others do not.

A `Route` is looked up for every connection and every request, so what changes here changes at once. This module never
touches a socket or a clock: waiting is the ledger's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar

import pytest_egress.answers as answers
from pytest_egress.clock import check_seconds
from pytest_egress.errors import CallError
from pytest_egress.exchange import Entry, Exchange, Request, TlsInfo
from pytest_egress.matching import ANY_REQUEST, MATCHERS, Match

if TYPE_CHECKING:
    from pytest_egress.address import Address

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

Kind = Literal[
    "intercept_https",
    "intercept_http",
    "intercept_tls",
    "intercept_tcp",
    "passthrough",
    "block",
    "dns",
]
Scope = Literal["test", "class", "module", "session"]
DEFAULT_PORTS: Final[Mapping[Kind, int | None]] = {
    "intercept_https": 443,
    "intercept_http": 80,
    "intercept_tls": None,
    "intercept_tcp": None,
    "passthrough": None,
    "block": None,
    "dns": None,
}
ClientCertificate = Literal["request", "require"]
CLIENT_CERTIFICATES: Final = ("request", "require")  # the strictest last
HTTP: Final = ("intercept_https", "intercept_http")
RAW: Final = ("intercept_tls", "intercept_tcp")
TLS: Final = ("intercept_https", "intercept_tls")
NEVER_REQUIRED: Final = ("passthrough", "block", "dns")

Call = TypeVar("Call", bound=Entry)
"""What a route's calls are: an `Exchange`, a `TcpConnection` or a `DnsQuery`."""


class CallLog(Protocol):
    """What a route needs of the ledger: whose calls count now, and a way to wait for more."""

    @property
    def changed(self) -> AbstractContextManager[Any]:
        """Its lock; re-entrant."""
        ...

    def visible(self, window: object) -> bool:
        """Whether a call in that window counts now."""
        ...

    def routes_changed(self) -> None:
        """Let what is open be looked at again."""
        ...

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until the condition holds, for so many seconds."""
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
        if self.times is not None and isinstance(self.answer, answers.Sequence):
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
    if kind in ("passthrough", "block"):
        if answer is not None:
            raise TypeError(f"{kind}() has no answer, but was given {answer!r}")
        return None
    if kind == "dns":
        return answers.check_name_answer(answer)
    return answers.check_answer(answer, raw=kind in RAW)


class Route(Generic[Call]):
    """One declaration: an address, what a request must be like, and what answers it. Made by `Egress`.

    Use it as a decorator to give it its handler. Calls and counts are those of the running test; outside of tests,
    of the route's lifetime.

    Attributes:
        name: The name given, or None.
        times: How many calls it answers, or None for any number.
    """

    def __init__(self, declaration: Declaration, *, scope: Scope, place: str, log: CallLog) -> None:
        self.kind: Final = declaration.kind
        self.parsed_address: Final = declaration.address
        self.matcher: Final = declaration.match
        self.optional: Final = declaration.optional
        self.name: Final = declaration.name
        self.client_certificate: Final = declaration.client_certificate
        self.scope: Final = scope
        self.place: Final = place
        self.times = declaration.times
        self.removed = False
        self.ended = False
        self.expected_idle = False
        self._declared_times: Final = declaration.times
        self._log = log
        self._reserved = 0
        self._given_back: list[int] = []
        self._unproved: dict[int, Callable[[], bool]] = {}
        self._calls: list[tuple[object, Call]] = []
        self._has_let_go = False
        self._answer: object = None
        self._held: list[answers.Application] = []
        self._first_turn = 0
        self._context: Context
        self._take_up(declaration.answer)

    @property
    def address(self) -> str:
        """As it was declared."""
        return self.parsed_address.text

    def __call__(self, handler: answers.Handler) -> Route[Call]:
        """Make this the route's handler: the decorator form."""
        if not callable(handler):
            raise TypeError(f"@{self.kind}({self.address!r}) decorates a function, not {handler!r}")
        return self.respond(handler)

    def respond(self, handler: object) -> Route[Call]:
        """Change the answer in place; requests and connections that come from now on get it."""
        self._take_up(check_answer(self.kind, handler))
        return self

    def _take_up(self, answer: object) -> None:
        for application in applications(answer):
            application.acquire()
            self._held.append(application)  # to the end: requests that go on may use it
        with self._log.changed:
            self._answer, self._context = (
                answer,
                copy_context(),
            )  # handlers see the test's variables
            self._first_turn, self.times = self._reserved, self._declared_times
            if isinstance(answer, answers.Sequence):
                self._given_back.clear()
                self.times = self._reserved + len(answer)

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
        return not self.removed and self.kind != "dns" and self.parsed_address.matches(host, port)

    def claims(self, secure: bool, host: str, port: int) -> bool:
        """Whether its address and protocol are those of a request; its matchers are not asked."""
        other = "intercept_http" if secure else "intercept_https"
        return self.kind != other and self.kind not in RAW and self.covers(host, port)

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
        return self.kind in RAW and self.is_exhausted

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
            if turn >= self._first_turn or not isinstance(self._answer, answers.Sequence):
                self._given_back = sorted([*self._given_back, turn])

    @contextmanager
    def unproved(self, turn: int, is_silent: Callable[[], bool]) -> Iterator[None]:
        """Let `may_come_free` know of a turn that may be given back.

        Args:
            is_silent: Whether its connection has carried nothing so far.
        """
        with self._log.changed:
            self._unproved[turn] = is_silent
        try:
            yield
        finally:
            with self._log.changed:
                del self._unproved[turn]

    @property
    def may_come_free(self) -> bool:
        """Whether all of its `times` are taken, and one by a connection that may prove to be no call."""
        if not self.is_used_up:
            return False
        with self._log.changed:
            return any(is_silent() for is_silent in self._unproved.values())

    def answer(self, turn: int = 0) -> Any:
        """What answers: a handler, a static answer, or a `Forward`.

        Args:
            turn: What `reserve` returned.
        """
        answer = self._answer
        if not isinstance(answer, answers.Sequence):
            return answer
        return answer.answers[min(max(turn - self._first_turn, 0), len(answer) - 1)]

    def context(self) -> Context:
        """A context like that of the declaration, for one call."""
        return self._context.copy()

    def in_context(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in such a context."""
        return self.context().run(function, *args)

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
        with self._log.changed:
            if self._has_let_go:
                raise CallError(f"{self}: its calls are asked for too late: {LET_GO}")
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
            if self._log.wait_for(lambda: self.call_count >= count, timeout):
                return self.calls[count - 1]
            there = were(self.call_count)
        raise CallError(f"{self}: waited {timeout:g} s for call {count}; there {there}")

    def assert_called_once(self) -> Call:
        """The only call.

        Raises:
            CallError: There were none, or several.
        """
        calls = self.calls
        if len(calls) != 1:
            lines = [f"{self}: expected 1 call, there {were(len(calls))}", *call_lines(calls)]
            raise CallError("\n".join(lines))
        return calls[0]

    def assert_called_with(self, **match: Any) -> Call:
        """The first call that matches; takes `method`, `path`, `query`, `headers`, `json`, `content`, `match`.

        Raises:
            CallError: No call matches; the text says in which fields each differs.
        """
        if self.kind not in HTTP:
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
        raise CallError("\n".join(lines))

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
        return f"{self.kind}({', '.join(parts)})"

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


def call_lines(calls: Iterable[Entry]) -> list[str]:
    """Calls as indented lines."""
    return [f"  {call}" for call in calls]


def applications(answer: object) -> tuple[answers.Application, ...]:
    """What of an answer holds something open."""
    parts = answer.answers if isinstance(answer, answers.Sequence) else (answer,)
    return tuple(part for part in parts if isinstance(part, answers.Application))


class RouteTable:
    """The routes of one scope, most specific first, then the latest declared."""

    def __init__(self) -> None:
        self.routes: tuple[Route[Any], ...] = ()  # replaced, never changed: readers take no lock

    def add(self, route: Route[Any]) -> None:
        """Place a route before those that are as specific as it is; the ledger's lock is held."""
        later = sorted(
            (route, *self.routes), key=lambda r: r.parsed_address.specificity, reverse=True
        )
        self.routes = tuple(later)


def in_order(tables: Sequence[RouteTable]) -> Iterator[Route[Any]]:
    """Every route in the order in which they are asked: nearest scope, most specific, latest."""
    for table in tables:
        yield from table.routes


@dataclass(frozen=True, kw_only=True)
class NearMiss:
    """A route that did not answer, and why, as a line each."""

    route: Route[Any]
    differences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The route that answers, or the near misses.

    Attributes:
        turn: Which of its `times` it is, for `Route.answer`.
        unproved: The route that would answer, did the connection have the client certificate that it requires.
    """

    route: Route[Any] | None
    turn: int = 0
    near: tuple[NearMiss, ...] = ()
    unproved: Route[Any] | None = None


def opening(tables: Sequence[RouteTable], host: str, port: int) -> Route[Any] | None:
    """What says what a connection is, before it has said anything: the first route whose address is its.

    A raw route takes a connection whole. Where all of its `times` are taken, the next is asked.
    """
    covering = (route for route in in_order(tables) if route.covers(host, port))
    return next((route for route in covering if not route.is_used_up), None)


def may_come_free(tables: Sequence[RouteTable], host: str, port: int) -> bool:
    """Whether a raw route at an address is used up by a connection that may prove to be no call."""
    return any(route.may_come_free and route.covers(host, port) for route in in_order(tables))


def still_claims(
    tables: Sequence[RouteTable], route: Route[Any] | None, host: str, port: int
) -> bool:
    """Whether a connection that a route took, or None, would be its again."""
    for other in in_order(tables):
        if other.covers(host, port):
            if other is route:
                return True
            if not other.is_used_up:
                return False
    return route is None


def decide(tables: Sequence[RouteTable], request: Request) -> Decision:
    """Find what answers a request.

    What a predicate (`match=`) raises comes through.
    """
    secure, near = request.scheme == "https", []
    for route in in_order(tables):
        if not route.claims(secure, request.host, request.port):
            continue
        differences = route.matcher.differences(request)
        proved = route.is_exhausted or not lacks_certificate(route, request.tls)
        if not differences and not proved:
            return Decision(route=None, unproved=route)
        if not differences and (turn := route.reserve()) is not None:
            return Decision(route=route, turn=turn)
        differences = differences or [f"times: it has answered {route.times} of {route.times}"]
        near.append(NearMiss(route=route, differences=tuple(differences)))
    return Decision(route=None, near=tuple(sorted(near, key=lambda miss: len(miss.differences))))


def would_answer(tables: Sequence[RouteTable], request: Request) -> bool:
    """Whether a route is for a request, however often it has answered."""
    secure = request.scheme == "https"
    for route in in_order(tables):
        if route.claims(secure, request.host, request.port):
            try:
                if not route.matcher.differences(request):
                    return True
            except Exception:  # of a predicate, which is not asked in earnest
                return False
    return False


def claimed(tables: Sequence[RouteTable], host: str, port: int) -> Route[Any] | None:
    """The first route of any protocol whose address is this one; its `times` do not matter."""
    return next((route for route in in_order(tables) if route.covers(host, port)), None)


def certificate_route(
    tables: Sequence[RouteTable], hosts: Iterable[str], port: int
) -> Route[Any] | None:
    """The route of TLS that wants most of the clients at an address; None where none wants a certificate.

    A handshake comes before what says which route a request is for, so the strictest counts.

    Args:
        hosts: What the connection is for: its SNI, and the name or address that was dialled.
    """
    covering = [
        route
        for route in in_order(tables)
        if route.kind in TLS
        and not route.is_used_up
        and any(route.covers(host, port) for host in hosts)
    ]
    for wish in reversed(CLIENT_CERTIFICATES):
        for route in covering:
            if route.client_certificate == wish:
                return route
    return None


def lacks_certificate(route: Route[Any], tls: TlsInfo | None) -> bool:
    """Whether a route requires a client certificate, and a connection has none."""
    return route.client_certificate == "require" and (tls is None or tls.client_certificate is None)


def name_route(tables: Sequence[RouteTable], name: str) -> Route[Any] | None:
    """The DNS route of a name, or None where it has its synthetic addresses."""
    return next((r for r in in_order(tables) if r.kind == "dns" and r.names(name)), None)


def is_named(tables: Sequence[RouteTable], name: str) -> bool:
    """Whether any route is declared for a name; one of `*:53`, every DNS server, is for none."""
    return any(
        route.names(name) and (route.parsed_address.host, route.parsed_address.port) != ("*", 53)
        for route in in_order(tables)
    )


def nearest_by_name(tables: Sequence[RouteTable], name: str) -> NearMiss | None:
    """Of the routes that name no such name, the one whose own looks most alike, where one does."""
    from difflib import SequenceMatcher

    def likeness(route: Route[Any]) -> float:
        return SequenceMatcher(None, name, route.parsed_address.host).ratio()

    nearest = max((r for r in in_order(tables) if not r.removed), key=likeness, default=None)
    if nearest is None or likeness(nearest) < SIMILAR:
        return None
    difference = f"name: {name!r} is not {nearest.parsed_address.host!r}"
    return NearMiss(route=nearest, differences=(difference,))


def nearest_by_address(
    tables: Sequence[RouteTable], scheme: str, host: str, port: int
) -> NearMiss | None:
    """Of the routes whose address differs, the one that looks most alike, where one does.

    Args:
        scheme: "https", "http", or "tcp", to which only raw routes are alike.
    """
    kinds = RAW if scheme == "tcp" else HTTP
    routes = (r for r in in_order(tables) if not r.removed and r.kind in kinds)
    misses = [address_miss(route, scheme, host, port) for route in routes]
    likeness, miss = max(misses, key=lambda found: found[0], default=(0.0, None))
    return miss if likeness >= SIMILAR else None


def address_miss(route: Route[Any], scheme: str, host: str, port: int) -> tuple[float, NearMiss]:
    """How much alike the addresses are, over 1 where the host is the same, and where they differ."""
    from difflib import SequenceMatcher

    address, likeness, differences = route.parsed_address, 2.0, []
    if not address.matches(host, address.port or port):
        likeness = SequenceMatcher(None, host, address.host).ratio()
        differences.append(f"host: {host!r} is not {address.host!r}")
    if not differences and route.is_used_up:
        differences.append(f"times: it has answered {route.times} of {route.times}")
    of_route = scheme if scheme == "tcp" else route.kind.removeprefix("intercept_")
    for name, found, wanted in (
        ("scheme", scheme, of_route),
        ("port", port, address.port or port),
    ):
        if found != wanted:
            likeness -= LESS_LIKE
            differences.append(f"{name}: {found} is not {wanted}")
    return likeness, NearMiss(route=route, differences=tuple(differences))


SIMILAR: Final = 0.75  # of difflib's ratio: a letter or a label apart, not another service
LESS_LIKE: Final = 0.1  # for another scheme or port: of the same name both may differ
