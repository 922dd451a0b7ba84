"""`RouteTable`: the routes of a scope, and which of them answers an attempt and why the others do not.

Threads: any thread may look routes up. The routes of one host are replaced as a whole, and read without a lock. This
module never touches a socket or a clock.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

from pytest_egress.base.account import OverLimitError
from pytest_egress.routes.declarations import CLIENT_CERTIFICATES
from pytest_egress.routes.duplex import ClientLeftError, ClientStoppedError, DuplexAnswer
from pytest_egress.routes.faults import Fault
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.matching import pass_by
from pytest_egress.traffic.address import is_ip_address
from pytest_egress.traffic.http.request import Request, TlsInfo
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import redactor_of

Rank: TypeAlias = "Callable[[InnerRoute], tuple[object, ...]]"


def by_address(route: InnerRoute) -> tuple[object, ...]:
    return route.parsed_address.specificity


def by_address_and_path(route: InnerRoute) -> tuple[object, ...]:
    return *route.parsed_address.specificity, *route.matcher.path_matcher.rank


def placed(route: InnerRoute, routes: tuple[InnerRoute, ...], rank: Rank) -> tuple[InnerRoute, ...]:
    """The new route comes before those that are as specific."""
    own = rank(route)
    place = bisect_left(routes, True, key=lambda other: rank(other) <= own)
    return (*routes[:place], route, *routes[place:])


class Ranking:
    """The routes of a scope by one rank. Tuples are replaced, never changed: readers take no lock.

    Attributes:
        exact: The routes for a single host, by it.
        patterns: The other routes.
    """

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self.exact: dict[str, tuple[InnerRoute, ...]] = {}
        self.patterns: tuple[InnerRoute, ...] = ()

    def add(self, route: InnerRoute) -> None:
        address = route.parsed_address
        if address.is_exact:
            here = self.exact.get(address.host, ())
            self.exact[address.host] = placed(route, here, self._rank)
        else:
            self.patterns = placed(route, self.patterns, self._rank)

    def of(self, host: str) -> tuple[InnerRoute, ...]:
        return self.exact.get(host, ()) + self.patterns


class RouteTable:
    """The routes of one scope, most specific address first, then the latest declared.

    A route for a single name or address is found by it. All of these are more specific than any pattern, so that a look
    at one host's own routes and then at the patterns keeps the order.

    Requests have an order of their own: among routes with equally specific addresses, the most specific path comes
    first. A connection has no path, and is read before there is one, so that the order of declaration decides there.

    Attributes:
        requires_certificate: Whether a route requires a client certificate, or did before it was removed.
        refusing: The routes with a fault of connecting among their answers, without a look at all routes.
        presents: Whether a route presents other than the usual in its handshakes, or did before it was removed.
        may_begin_at_head: Whether a route answers some request from its head on, or did before it was removed.
        leads: Whether a route has a CNAME, or did before it was removed.
        has_proxy: Whether a route is a proxy, or was before it was removed.
        has_datagrams: Whether a route has datagrams let out, or did before it was removed.
    """

    def __init__(self) -> None:
        self._ranked, self._by_path = Ranking(by_address), Ranking(by_address_and_path)
        self._alike: dict[str, tuple[Likeness, ...]] = {}  # replaced by an empty one at each change
        self._addressed: tuple[str, ...] = ()  # the hosts in `_ranked.exact` that are IP addresses
        self.requires_certificate, self.presents, self.may_begin_at_head = False, False, False
        self.leads, self.has_proxy, self.has_datagrams = False, False, False
        self.refusing: tuple[InnerRoute, ...] = ()

    def add(self, route: InnerRoute) -> None:
        """The caller holds the ledger's lock."""
        address = route.parsed_address
        is_new = address.is_exact and address.host not in self._ranked.exact
        if is_new and is_ip_address(address.host):
            self._addressed = (*self._addressed, address.host)
        self._ranked.add(route)
        self._by_path.add(route)
        self._alike = {}
        self.requires_certificate |= route.client_certificate == "require"
        self.presents |= not route.presented.is_usual
        self.leads |= "CNAME" in route.records
        self.has_proxy |= route.kind.is_proxy
        self.has_datagrams |= route.lets_datagrams_out
        route.turns.on_answer = lambda: self._note_answer(route)
        self._note_answer(route)

    def _note_answer(self, route: InnerRoute) -> None:
        self.may_begin_at_head |= route.stream or route.turns.may_begin_at_head
        if route.turns.refuses != (route in self.refusing):
            others = tuple(other for other in self.refusing if other is not route)
            self.refusing = (*others, route) if route.turns.refuses else others

    @property
    def routes(self) -> tuple[InnerRoute, ...]:
        """The routes of one host are in the order in which they are tried."""
        exact = [*self._ranked.exact.values()]  # in one step: another thread may add a route
        return (*chain.from_iterable(exact), *self._ranked.patterns)

    def of(self, *hosts: str) -> Sequence[InnerRoute]:
        """The order is that in which the routes are tried."""
        if len(hosts) == 1:
            return self._ranked.of(hosts[0])
        exact = (self._ranked.exact.get(host, ()) for host in dict.fromkeys(hosts))
        return (*chain.from_iterable(exact), *self._ranked.patterns)

    def for_requests(self, host: str) -> Sequence[InnerRoute]:
        """The routes of a host in the order in which its requests are offered to them."""
        return self._by_path.of(host)

    def of_addresses(self) -> Iterator[InnerRoute]:
        """The routes that may be for an IP address that no name was given, in the order in which they are tried."""
        for host in self._addressed:
            yield from self._ranked.exact[host]
        for route in self._ranked.patterns:
            if route.parsed_address.networks:
                yield route

    def alike(self, host: str) -> tuple[Likeness, ...]:
        known = self._alike  # before the routes are read
        if (found := known.get(host)) is None:
            found = tuple(similar_routes(host, self.routes))
            if len(known) < MAX_ALIKE:
                known[host] = found
        return found


def in_order(tables: Sequence[RouteTable], *hosts: str) -> Iterator[InnerRoute]:
    """Nearest scope first, then most specific, then latest declared. Without hosts it is all routes."""
    for table in tables:
        yield from table.of(*hosts) if hosts else table.routes


def offered(tables: Sequence[RouteTable], request: Request) -> Iterator[InnerRoute]:
    """The routes for a request's scheme, host and port: nearest scope first, then by address, path and declaration."""
    secure, host, port = request.scheme == "https", request.host, request.port
    for table in tables:
        for route in table.for_requests(host):
            if route.claims(secure, host, port):
                yield route


@dataclass(frozen=True, kw_only=True)
class NearMiss:
    """A route that did not answer."""

    route: InnerRoute
    differences: tuple[str, ...]  # the reasons, a line each
    is_spent: bool = False  # whether the only reason is that it has answered as often as it may
    error: Exception | None = None  # what its predicate has raised


@dataclass(frozen=True, kw_only=True)
class Instead:
    """What is answered in place of a route's own answer, where a sweep has its call fail.

    Attributes:
        answer: A `Response`, a fault, or what opens a WebSocket; `truncated` cuts the route's own answer.
        is_processed: Whether the route's own answer is made first, and lost. Where not, the request is no call of its
            route, and takes no turn.
    """

    answer: Response | Fault | DuplexAnswer
    is_processed: bool


class SweptFault(NamedTuple):
    """What fails while a cell of a fault sweep runs, as `egress.fault` says it.

    Attributes:
        call: The call that fails, such as "POST https://api.stripe.com/v1/charges".
        fault: How it fails, as the name of the cell has it: "503", "reset", "silence", ...
    """

    call: str
    fault: str


Intervene: TypeAlias = "Callable[[Request], Instead | None]"
"""Asked once about a request that a route is to answer, before that takes a turn."""


class Decision(NamedTuple):
    """The route that answers a request, or the near misses.

    Attributes:
        turn: The turn that is reserved on the route, for `Turns.answer`.
        near: Where no route answers, those that came nearest, the nearest first. Where one does, those before it whose
            predicates have raised.
        unproved: The route that would answer if the connection had the client certificate that it requires.
        instead: What is answered in place of the route's own answer. Where the request is not processed, no turn is
            reserved.
    """

    route: InnerRoute | None
    turn: int = 0
    near: tuple[NearMiss, ...] = ()
    unproved: InnerRoute | None = None
    instead: Instead | None = None


def opening(tables: Sequence[RouteTable], host: str, port: int) -> InnerRoute | None:
    """The first route with the address of a new connection decides how it is read, before any of its bytes.

    A raw route whose `times` are all reserved is skipped.
    """
    covering = (route for route in in_order(tables, host) if route.covers(host, port))
    return next((route for route in covering if not route.is_used_up), None)


def keyed_on(tables: Sequence[RouteTable], hosts: Sequence[str], port: int) -> str:
    """The first of a connection's names and addresses that has a route at a port, else the first.

    Args:
        hosts: The name of the connection, those that CNAMEs lead to, and the address that was dialled.
    """
    return next((host for host in hosts if claimed(tables, host, port)), hosts[0])


def counted_routes(tables: Sequence[RouteTable], host: str, port: int) -> list[InnerRoute]:
    """Raw routes that answer a number of times: which connection comes first matters there."""
    return [
        route
        for route in in_order(tables, host)
        if route.times is not None and route.kind.reads_bytes and route.covers(host, port)
    ]


def still_claims(
    tables: Sequence[RouteTable], route: InnerRoute | None, host: str, port: int
) -> bool:
    """Whether a connection would be assigned to the same route again; `route` is None where it was to none."""
    for other in in_order(tables, host):
        if other.covers(host, port):
            if other is route:
                return True
            if not other.is_used_up:
                return False
    return route is None


Asking: TypeAlias = "Callable[[InnerRoute], None]"
"""Called before the predicate (`match=`) of a route is: it is a function of the user's, and may never return."""


def tell_nobody(route: InnerRoute) -> None:
    """The `Asking` where nobody wants to know."""


def decide(
    tables: Sequence[RouteTable],
    request: Request,
    asking: Asking = tell_nobody,
    intervene: Intervene | None = None,
) -> Decision:
    """Find the route that answers a request, and reserve a turn on it.

    A predicate (`match=`) that raises does not accept the request; its error is in `Decision.near`. What is no error of
    the test's comes through: the end of the client within the body that the predicate reads, and a body too large.
    """
    near: list[NearMiss] = []
    instead: Instead | None = None
    for route in offered(tables, request):
        differences, error = asked(route, request, asking)
        if route.turns.deck is not None and not differences:
            differences = route.turns.deck.misses(request)
        proved = not lacks_certificate(route, request.tls) or route.turns.is_exhausted
        if not differences and not proved:
            return Decision(route=None, unproved=route)
        if intervene is not None and not differences and is_to_answer(route):
            instead, intervene = intervene(request), None
        is_processed = instead is None or instead.is_processed
        if not differences and (turn := route.turns.reserve() if is_processed else 0) is not None:
            raised = tuple(miss for miss in near if miss.error is not None) if near else ()
            return Decision(route=route, turn=turn, near=raised, instead=instead)
        is_spent = not differences
        reasons = tuple(differences or [used_up(route)])
        miss = NearMiss(route=route, differences=reasons, is_spent=is_spent, error=error)
        near.append(miss)
    return Decision(route=None, near=nearest_first(near, request))


def is_to_answer(route: InnerRoute) -> bool:
    """Whether a route has a turn for a request, which it answers by something of the test's."""
    return route.kind.reads_requests and not route.turns.is_exhausted


def asked(
    route: InnerRoute, request: Request, asking: Asking
) -> tuple[list[str], Exception | None]:
    """The differences of a request, and the error of the predicate where it has raised one."""
    told = partial(asking, route) if route.matcher.match is not None else pass_by
    try:
        return route.matcher.differences(request, told), None
    except (ClientLeftError, ClientStoppedError, OverLimitError):
        raise
    except Exception as error:
        return [route.matcher.raised(error, redactor_of(request))], error


def nearest_first(near: Iterable[NearMiss], request: Request) -> tuple[NearMiss, ...]:
    """By the path first, then by the method, then by the number of differences."""

    def remoteness(miss: NearMiss) -> tuple[float, bool, int]:
        return (*miss.route.matcher.remoteness(request), len(miss.differences))

    return tuple(sorted(near, key=remoteness))


def forecast(
    tables: Sequence[RouteTable],
    request: Request,
    asking: Asking = tell_nobody,
    *,
    is_whole: bool = True,
    since: float = math.inf,
) -> Decision:
    """Find the route that would have answered a request which gets no answer, as `decide` does; no turn is reserved.

    Args:
        is_whole: Whether the request has come whole. Where only the rest of its body could tell, a route would.
        since: When the request began, in the time of entries. Turns that were taken later were free then: its client
            may have taken one by asking again.
    """
    near = []
    for route in offered(tables, request):
        told = partial(asking, route)
        differences = route.matcher.forecast(request, told, is_whole=is_whole)
        if route.turns.deck is not None and is_whole and not differences:
            differences = route.turns.deck.misses(request)
        if not differences and not route.was_exhausted(since):
            unproved = route if lacks_certificate(route, request.tls) else None
            return Decision(route=None if unproved else route, unproved=unproved)
        is_spent = not differences
        differences = differences or [used_up(route)]
        near.append(NearMiss(route=route, differences=tuple(differences), is_spent=is_spent))
    return Decision(route=None, near=nearest_first(near, request))


def begins_at_head(
    tables: Sequence[RouteTable], request: Request, *, unclaimed: bool = False
) -> bool:
    """Whether a request is answered from its head on, before its body has come.

    That is so where the first route that fits the head says so, and no route before it needs the body to decide. A
    route whose predicate (`match=`) is the only thing left to decide counts as one that fits.

    Args:
        unclaimed: The answer where no route fits the head, or one that blocks.
    """
    if not unclaimed and not any([table.may_begin_at_head for table in tables]):
        return False  # as a rule, and without a look at the routes
    for route in offered(tables, request):
        if not route.turns.is_exhausted and not route.matcher.head_differences(request):
            if route.kind.refuses:
                return unclaimed
            return route.stream or route.turns.begins_at_head(request)
    return unclaimed


def claimed(tables: Sequence[RouteTable], host: str, port: int) -> InnerRoute | None:
    """The route's `times` do not matter."""
    return next((route for route in in_order(tables, host) if route.covers(host, port)), None)


def names_exactly(tables: Sequence[RouteTable], name: str, port: int) -> bool:
    """Whether a route is for this one name and port, or answers DNS for this one name; no pattern counts."""
    exact = (route for route in in_order(tables, name) if route.parsed_address.is_exact)
    return any(
        route.covers(name, port) or (route.kind.answers_names and route.names(name))
        for route in exact
    )


def proxy_route(tables: Sequence[RouteTable], host: str, port: int) -> InnerRoute | None:
    """The route that is the proxy at an address; None where there is none, or a route before it claims all there.

    A route for requests leaves a proxy at its address what asks for other hosts.
    """
    if not any([table.has_proxy for table in tables]):
        return None  # as a rule, and without a look at the routes
    covering = (route for route in in_order(tables, host) if route.covers(host, port))
    decisive = (route for route in covering if route.kind.is_proxy or route.kind.claims_all)
    route = next(decisive, None)
    return route if route is not None and route.kind.is_proxy else None


def certificate_route(
    tables: Sequence[RouteTable], hosts: Iterable[str], port: int
) -> InnerRoute | None:
    """The route that decides whether a handshake asks for a client certificate.

    The handshake comes before the request that selects a route, so the strictest route at the address counts.

    Args:
        hosts: The SNI of the connection, and the name or address that was dialled.
    """
    hosts = tuple(hosts)
    covering = [
        route
        for route in in_order(tables, *hosts)
        if route.kind.ends_tls
        and not route.is_used_up
        and any(route.covers(host, port) for host in hosts)
    ]
    for wish in reversed(CLIENT_CERTIFICATES):
        for route in covering:
            if route.client_certificate == wish:
                return route
    return None


def presenting_route(tables: Sequence[RouteTable], host: str, port: int) -> InnerRoute | None:
    """The route whose certificate and version of TLS a handshake presents; None where they are the usual ones.

    The handshake comes before the request that selects a route, so the first route at the address decides.

    Args:
        host: The SNI of the connection, or else the name or address that was dialled.
    """
    for route in in_order(tables, host):
        if route.kind.ends_tls and not route.is_used_up and route.covers(host, port):
            return None if route.presented.is_usual else route
    return None


def lacks_certificate(route: InnerRoute, tls: TlsInfo | None) -> bool:
    return route.client_certificate == "require" and (tls is None or tls.client_certificate is None)


def name_routes(tables: Sequence[RouteTable], name: str) -> Iterator[InnerRoute]:
    return (r for r in in_order(tables, name) if r.kind.answers_names and r.names(name))


def is_named(tables: Sequence[RouteTable], name: str) -> bool:
    """A route for `*:53`, every DNS server, is for no name."""
    return any(
        route.names(name) and (route.parsed_address.host, route.parsed_address.port) != ("*", 53)
        for route in in_order(tables, name)
    )


def nearest_by_name(tables: Sequence[RouteTable], name: str) -> NearMiss | None:
    found = (each for table in tables for each in table.alike(name) if not each.route.removed)
    nearest = max(found, key=lambda each: each.ratio, default=None)
    if nearest is None:
        return None
    difference = f"name: {another_host(name, nearest.route)}"
    return NearMiss(route=nearest.route, differences=(difference,))


def spent_route(tables: Sequence[RouteTable], host: str, port: int) -> NearMiss | None:
    covering = [route for route in in_order(tables, host) if route.covers(host, port)]
    if not covering or not all(route.is_used_up for route in covering):
        return None
    return NearMiss(route=covering[0], differences=(used_up(covering[0]),), is_spent=True)


def nearest_by_address(
    tables: Sequence[RouteTable], scheme: str, host: str, port: int
) -> NearMiss | None:
    """The route whose address is most similar to one that no route has; for "tcp" and "udp", of their own alone."""
    misses = [
        address_miss(each, scheme, host, port)
        for table in tables
        for each in table.alike(host)
        if not each.route.removed and is_of_scheme(each.route, scheme)
    ]
    likeness, miss = max(misses, key=lambda found: found[0], default=(0.0, None))
    return miss if likeness >= SIMILAR else None


def is_of_scheme(route: InnerRoute, scheme: str) -> bool:
    if scheme == "udp":
        return route.kind.reads_datagrams
    return route.kind.reads_bytes if scheme == "tcp" else route.kind.reads_requests


def address_miss(alike: Likeness, scheme: str, host: str, port: int) -> tuple[float, NearMiss]:
    """The similarity is over 1 where the host matches."""
    route, likeness, differences = alike.route, alike.ratio, []
    address = route.parsed_address
    if likeness < HOST_MATCHES:
        differences.append(f"host: {another_host(host, route)}")
    elif route.is_used_up:
        differences.append(used_up(route))
    for name, found, wanted in (
        ("scheme", scheme, route.kind.scheme),
        ("port", port, address.port or port),
    ):
        if found != wanted:
            likeness -= LESS_LIKE
            differences.append(f"{name}: {found} is not {wanted}")
    is_spent = likeness == HOST_MATCHES and route.is_used_up
    return likeness, NearMiss(route=route, differences=tuple(differences), is_spent=is_spent)


def another_host(host: str, route: InnerRoute) -> str:
    address = route.parsed_address
    text = f"{host!r} is not {address.host!r}"
    if host != address.by_idna2003:
        return text
    return f"{text}, which {address.text!r} is by IDNA 2008; its client goes by IDNA 2003"


def used_up(route: InnerRoute) -> str:
    text = route.turns.ended
    if (fault := route.latest_fault) is None:
        return text
    return f"{text}; {REPEATED.format(fault)}"


REPEATED: Final = "the call before it was answered by {}: the client may have repeated it by itself"


class Likeness(NamedTuple):
    """`ratio` is difflib's, or one of the constants."""

    ratio: float
    route: InnerRoute


def similar_routes(host: str, routes: Iterable[InnerRoute]) -> Iterator[Likeness]:
    """Few routes are compared: difflib prepares one of the two texts, and has two upper bounds that cost little."""
    from difflib import SequenceMatcher

    matcher = SequenceMatcher(None, "", host)
    for route in routes:
        address = route.parsed_address
        if address.matches(host, address.port or 0):
            yield Likeness(HOST_MATCHES, route)
            continue
        if host == address.by_idna2003:
            yield Likeness(SAME_BY_IDNA2003, route)
            continue
        matcher.set_seq1(address.host)
        bounds = matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio
        if all(bound() >= SIMILAR for bound in bounds):
            yield Likeness(matcher.ratio(), route)


HOST_MATCHES: Final = 2.0  # more than any ratio
SAME_BY_IDNA2003: Final = 1.0  # as that of a name that differs in nothing
SIMILAR: Final = 0.75  # the least ratio of difflib: a letter or a label apart, not another service
LESS_LIKE: Final = 0.1  # is subtracted for another scheme, and for another port
MAX_ALIKE: Final = 1024  # hosts that a table keeps the similar routes of
