"""Routes: which declaration answers a request, and why the others do not.

One `difference` both decides and explains. A `Route` is looked up for every request, so what changes here changes at
once for connections that are open. This module never touches a socket or a clock: waiting is the ledger's.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from pytest_egress.errors import CallError
from pytest_egress.exchange import UNSET, Exchange, Request, Response, response_from

if TYPE_CHECKING:
    from pytest_egress.address import Address

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

Kind = Literal["intercept_https", "intercept_http", "block"]
Scope = Literal["test", "class", "module", "session"]
DEFAULT_PORTS: Final[Mapping[Kind, int | None]] = {
    "intercept_https": 443,
    "intercept_http": 80,
    "block": None,
}
SHOWN_VALUE: Final = 60  # characters of a value in a message: two fit on a line of a terminal


class CallLog(Protocol):
    """What a route needs of the ledger: whose calls count now, and a way to wait for more."""

    @property
    def changed(self) -> AbstractContextManager[Any]:
        """Its lock; re-entrant."""
        ...

    def visible(self, window: object) -> bool:
        """Whether a call in that window counts now."""
        ...

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until the condition holds, for so many seconds."""
        ...


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a request must be like, apart from its address. Absent fields do not matter."""

    method: str | None = None
    path: str | None = None
    query: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    json: Any = UNSET
    content: bytes | None = None
    match: Callable[[Request], object] | None = None

    def __post_init__(self) -> None:
        for name, kinds in MATCH_TYPES.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kinds):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise TypeError(f"{name}= takes {wanted}, not {type(value).__name__}: {value!r}")
        if self.path is not None and (not self.path.startswith(("/", "*")) or "?" in self.path):
            hint = "the query goes into query=" if "?" in self.path else "it starts with / or *"
            raise ValueError(
                f"path={self.path!r} can never match: a path is without host and query ({hint})"
            )
        for name in ("query", "headers"):
            for key, value in (getattr(self, name) or {}).items():
                check_wire_text(f"{name}[{key!r}]", value)
        if self.match is not None and not callable(self.match):
            raise TypeError(f"match= takes a function of the request, not {self.match!r}")

    def differences(self, request: Request) -> list[str]:
        """Every field in which the request is not what was asked for, as a line each; none means that it matches."""
        found = []
        if self.method is not None and self.method.upper() != request.method.upper():
            found.append(f"method: {request.method} is not {self.method.upper()}")
        if self.path is not None and not path_pattern(self.path).fullmatch(request.path):
            found.append(f"path: {shown(request.path)} is not {shown(self.path)}")
        for name, wanted, values in (
            ("query", self.query, request.query if self.query else {}),
            ("headers", self.headers, request.headers),
        ):
            for key, value in (wanted or {}).items():
                if key not in values:
                    found.append(f"{name}[{key!r}]: absent, expected {shown(value)}")
                elif values[key] != value:
                    found.append(f"{name}[{key!r}]: {shown(values[key])} is not {shown(value)}")
        if self.content is not None and self.content != request.content:
            found.append(f"content: {shown(request.content)} is not {shown(self.content)}")
        if self.json is not UNSET:
            found += json_request_differences(self.json, request)
        if self.match is not None and not found and not self.match(request):
            found.append(
                f"match: {getattr(self.match, '__name__', self.match)} returned a false value"
            )
        return found

    def __str__(self) -> str:
        """As keywords of the declaration: `method='POST', path='/x'`."""
        fields = [(name, getattr(self, name)) for name in (*MATCH_TYPES, "json", "match")]
        given = [(name, value) for name, value in fields if value is not getattr(Match, name)]
        return ", ".join(f"{name}={shown_declaration(value)}" for name, value in given)


MATCH_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "method": (str,),
    "path": (str,),
    "query": (Mapping,),
    "headers": (Mapping,),
    "content": (bytes,),
}


def check_wire_text(what: str, value: object) -> None:
    """Refuse what never equals a text; an object with an equality of its own (`mock.ANY`) may."""
    if not isinstance(value, str) and type(value).__module__ == "builtins":
        raise TypeError(
            f"{what} takes a str, which it is on the wire, not {type(value).__name__}: {value!r}"
        )


@lru_cache(maxsize=1024)
def path_pattern(path: str) -> re.Pattern[str]:
    """The whole path; `*` is any run of characters."""
    return re.compile(".*".join(map(re.escape, path.split("*"))), re.DOTALL)


def json_request_differences(wanted: Any, request: Request) -> list[str]:
    """As `json_differences`, for the body of a request."""
    try:
        return list(json_differences(wanted, request.json()))
    except ValueError:
        return [f"json: the body is no JSON: {shown(request.content)}"]


def json_differences(wanted: Any, found: Any, path: str = "json") -> Iterator[str]:
    """Where two JSON values differ, by path: `json.items[0].price: 5 is not 6`."""
    if isinstance(wanted, Mapping) and isinstance(found, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            place = f"{path}.{key}" if str(key).isidentifier() else f"{path}[{key!r}]"
            if key not in found:
                yield f"{place}: absent, expected {shown(wanted[key])}"
            elif key not in wanted:
                yield f"{place}: {shown(found[key])} was not expected"
            else:
                yield from json_differences(wanted[key], found[key], place)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (mine, theirs) in enumerate(zip(wanted, found, strict=True)):
            yield from json_differences(mine, theirs, f"{path}[{index}]")
    elif isinstance(wanted, list) and isinstance(found, list):
        yield f"{path}: {len(found)} items, expected {len(wanted)}"
    elif wanted != found or is_true_for_one(wanted, found):
        yield f"{path}: {shown(found)} is not {shown(wanted)}"


def is_true_for_one(wanted: object, found: object) -> bool:
    """Whether one is `true` where the other is 1: equal in Python, not in JSON."""
    numbers = isinstance(wanted, (int, float)) and isinstance(found, (int, float))
    return numbers and isinstance(wanted, bool) != isinstance(found, bool)


def shown(value: object) -> str:
    """The value's repr, cut in the middle where it is long."""
    text = repr(value)
    if len(text) <= SHOWN_VALUE:
        return text
    half = (SHOWN_VALUE - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def shown_declaration(value: object) -> str:
    """A value as it stands in a declaration; functions by their name."""
    return str(getattr(value, "__name__", shown(value)))


Handler = Callable[[Request], Any]


def check_handler(handler: object) -> Handler | Response:
    """A function of the request, or a static answer.

    Raises:
        TypeError: It is neither; the text lists what is.
    """
    if callable(handler) and (isinstance(handler, type) or not takes_one_argument(handler)):
        raise TypeError(f"the handler {handler!r} cannot be called with one argument, the Request")
    if isinstance(handler, Response) and isinstance(handler.stream, Iterator):
        raise TypeError(
            "a static answer is sent many times, its iterator is read once; return it from a function"
        )
    if callable(handler):
        return handler
    return response_from(handler, of_function=False)


def takes_one_argument(handler: Callable[..., Any]) -> bool:
    """Whether it can be called with a request; True where its signature cannot be known."""
    try:
        inspect.signature(handler).bind(object())
    except TypeError:
        return False
    except ValueError:
        return True
    return True


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """A route before it belongs to a scope. See `Egress.intercept_https` for the meaning of each field."""

    kind: Kind
    address: Address
    answer: Handler | Response
    match: Match = Match()
    times: int | None = None
    optional: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        if self.times is not None and (type(self.times) is not int or self.times < 1):
            raise ValueError(
                f"times={self.times!r}: a route answers 1 time or more; leave it out for any number"
            )
        if not isinstance(self.name, (str, type(None))):
            raise TypeError(f"name= takes a str, not {self.name!r}")


class Route:
    """One declaration: an address, what a request must be like, and what answers it. Made by `Egress`.

    Use it as a decorator to give it its handler. Calls and counts are those of the running test; outside of tests,
    of the route's lifetime.

    Attributes:
        name: The name given, or None.
    """

    def __init__(self, declaration: Declaration, *, scope: Scope, place: str, log: CallLog) -> None:
        self.kind: Final = declaration.kind
        self.parsed_address: Final = declaration.address
        self.matcher: Final = declaration.match
        self.times: Final = declaration.times
        self.optional: Final = declaration.optional
        self.name: Final = declaration.name
        self.scope: Final = scope
        self.place: Final = place
        self.removed = False
        self.expected_idle = False
        self._log = log
        self._reserved = 0
        self._calls: list[tuple[object, Exchange]] = []
        self._answer: Handler | Response = declaration.answer
        self._context: Context = (
            copy_context()
        )  # a handler sees the declaring test's context variables

    @property
    def address(self) -> str:
        """As it was declared."""
        return self.parsed_address.text

    def __call__(self, handler: Handler) -> Route:
        """Make this the route's handler: the decorator form."""
        if not callable(handler):
            raise TypeError(f"@{self.kind}({self.address!r}) decorates a function, not {handler!r}")
        return self.respond(handler)

    def respond(self, handler: object) -> Route:
        """Change the answer in place; requests that come from now on get it."""
        self._answer, self._context = check_handler(handler), copy_context()
        return self

    def remove(self) -> None:
        """Stop matching; calls so far stay. A removed route is never required."""
        self.removed = True

    # What the gateway asks.

    def claims(self, secure: bool, host: str, port: int) -> bool:
        """Whether its address and protocol are those of a request; its matchers are not asked."""
        if self.removed or self.kind == ("intercept_http" if secure else "intercept_https"):
            return False
        return self.parsed_address.matches(host, port)

    def reserve(self) -> bool:
        """Take one of its `times`; False where all are taken."""
        if self.times is None:
            return True
        with self._log.changed:
            if self._reserved >= self.times:
                return False
            self._reserved += 1
            return True

    def answer(self, request: Request) -> Any:
        """The static answer, or what the handler returns, in the context of its declaration. May be a coroutine."""
        if isinstance(self._answer, Response):
            return self._answer
        return self.in_context(self._answer, request)

    def in_context(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the context of the declaration."""
        return self._context.copy().run(function, *args)

    def count(self, window: object, exchange: Exchange) -> None:
        """Record a call; the ledger's lock is held."""
        self._calls.append((window, exchange))

    # What the test asks.

    @property
    def calls(self) -> list[Exchange]:
        """The exchanges it answered, in order."""
        with self._log.changed:
            return [exchange for window, exchange in self._calls if self._log.visible(window)]

    @property
    def call_count(self) -> int:
        """How many requests it answered; inside its handler, how many before this one."""
        return len(self.calls)

    @property
    def called(self) -> bool:
        """Whether it answered a request."""
        return bool(self.calls)

    @property
    def lifetime_count(self) -> int:
        """How many requests it answered since it was declared, in whichever test."""
        return len(self._calls)

    def wait_for_call(self, count: int = 1, timeout: float = 5) -> Exchange:
        """The count-th call, as soon as it has happened; nothing is consumed.

        Args:
            count: 1 for the first.
            timeout: Seconds.

        Raises:
            CallError: There were fewer calls in that time.
        """
        if count < 1:
            raise ValueError(f"count={count}: calls are counted from 1")
        with self._log.changed:  # or the calls could become another window's before they are read
            if self._log.wait_for(lambda: self.call_count >= count, timeout):
                return self.calls[count - 1]
            there = were(self.call_count)
        raise CallError(f"{self}: waited {timeout:g} s for call {count}; there {there}")

    def assert_called_once(self) -> Exchange:
        """The only call.

        Raises:
            CallError: There were none, or several.
        """
        calls = self.calls
        if len(calls) != 1:
            lines = [f"{self}: expected 1 call, there {were(len(calls))}", *call_lines(calls)]
            raise CallError("\n".join(lines))
        return calls[0]

    def assert_called_with(self, **match: Any) -> Exchange:
        """The first call that matches; takes `method`, `path`, `query`, `headers`, `json`, `content`, `match`.

        Raises:
            CallError: No call matches; the text says in which fields each differs.
        """
        matcher, calls = Match(**match), self.calls
        lines = [
            f"{self}: none of {len(calls)} calls matches {matcher}"
            if calls
            else f"{self}: was not called"
        ]
        for exchange in calls:
            if not (differences := matcher.differences(exchange.request)):
                return exchange
            lines += [
                f"  {exchange.request.method} {exchange.request.url}",
                *(f"      {d}" for d in differences),
            ]
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
        parts += [f"times={self.times}"] if self.times is not None else []
        parts += [f"name={self.name!r}"] if self.name is not None else []
        return f"{self.kind}({', '.join(parts)})"

    def __repr__(self) -> str:
        return f"<Route {self}, {self.lifetime_count} calls>"


def were(count: int) -> str:
    """The end of "there ..."."""
    return {0: "was none", 1: "was 1"}.get(count, f"were {count}")


def call_lines(calls: Iterable[Exchange]) -> list[str]:
    """Calls as indented lines."""
    return [f"  {exchange.request.method} {exchange.request.url}" for exchange in calls]


class RouteTable:
    """The routes of one scope, most specific first, then the latest declared."""

    def __init__(self) -> None:
        self.routes: tuple[Route, ...] = ()  # replaced, never changed: readers take no lock

    def add(self, route: Route) -> None:
        """Place a route before those that are as specific as it is; the ledger's lock is held."""
        later = sorted(
            (route, *self.routes), key=lambda r: r.parsed_address.specificity, reverse=True
        )
        self.routes = tuple(later)


@dataclass(frozen=True, kw_only=True)
class NearMiss:
    """A route that did not answer, and why, as a line each."""

    route: Route
    differences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The route that answers a request, or the near misses."""

    route: Route | None
    near: tuple[NearMiss, ...] = ()


def decide(tables: Sequence[RouteTable], request: Request) -> Decision:
    """Find what answers a request: nearest scope, most specific address, latest declared.

    What a predicate (`match=`) raises comes through.
    """
    secure, near = request.scheme == "https", []
    for table in tables:
        for route in table.routes:
            if not route.claims(secure, request.host, request.port):
                continue
            differences = route.matcher.differences(request)
            if not differences and route.reserve():
                return Decision(route=route)
            differences = differences or [f"times: it has answered {route.times} of {route.times}"]
            near.append(NearMiss(route=route, differences=tuple(differences)))
    return Decision(route=None, near=tuple(sorted(near, key=lambda miss: len(miss.differences))))


def claimed(tables: Sequence[RouteTable], host: str, port: int) -> Route | None:
    """The first route of any protocol whose address is this one: what a connection is, before it has said anything."""
    for table in tables:
        for route in table.routes:
            if route.claims(True, host, port) or route.claims(False, host, port):
                return route
    return None


def nearest_by_address(tables: Sequence[RouteTable], request: Request) -> NearMiss | None:
    """Of the routes whose address differs, the one that looks most alike, where one does."""
    routes = (route for table in tables for route in table.routes)
    misses = [address_miss(r, request) for r in routes if not r.removed and r.kind != "block"]
    likeness, miss = max(misses, key=lambda found: found[0], default=(0.0, None))
    return miss if likeness >= SIMILAR else None


def address_miss(route: Route, request: Request) -> tuple[float, NearMiss]:
    """How much alike the addresses are, over 1 where the host is the same, and where they differ."""
    from difflib import SequenceMatcher

    address, scheme = route.parsed_address, route.kind.removeprefix("intercept_")
    likeness, differences = 2.0, []
    if not address.matches(request.host, address.port or request.port):
        likeness = SequenceMatcher(None, request.host, address.host).ratio()
        differences.append(f"host: {request.host!r} is not {address.host!r}")
    for name, found, wanted in (
        ("scheme", request.scheme, scheme),
        ("port", request.port, address.port or request.port),
    ):
        if found != wanted:
            likeness -= LESS_LIKE
            differences.append(f"{name}: {found} is not {wanted}")
    return likeness, NearMiss(route=route, differences=tuple(differences))


SIMILAR: Final = 0.75  # of difflib's ratio: a letter or a label apart, not another service
LESS_LIKE: Final = 0.1  # for another scheme or port: of the same name both may differ
