"""Which route answers an attempt, and why the others do not.

Threads: any. What is looked up is replaced as a whole, and read without a lock. This module never touches a socket or
a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_egress.traffic.messages import Request, TlsInfo

if TYPE_CHECKING:
    pass
from pytest_egress.routes.route import CLIENT_CERTIFICATES, Route

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours


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


def counted_routes(tables: Sequence[RouteTable], host: str, port: int) -> list[Route[Any]]:
    """The raw routes at an address that answer so many times: which connection comes first matters there."""
    return [
        route
        for route in in_order(tables)
        if route.times is not None and route.kind.reads_bytes and route.covers(host, port)
    ]


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
        if route.kind.ends_tls
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
    return next((r for r in in_order(tables) if r.kind.answers_names and r.names(name)), None)


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
    misses = [
        address_miss(route, scheme, host, port)
        for route in in_order(tables)
        if not route.removed
        and (route.kind.reads_bytes if scheme == "tcp" else route.kind.reads_requests)
    ]
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
    for name, found, wanted in (
        ("scheme", scheme, route.kind.scheme),
        ("port", port, address.port or port),
    ):
        if found != wanted:
            likeness -= LESS_LIKE
            differences.append(f"{name}: {found} is not {wanted}")
    return likeness, NearMiss(route=route, differences=tuple(differences))


SIMILAR: Final = 0.75  # of difflib's ratio: a letter or a label apart, not another service
LESS_LIKE: Final = 0.1  # for another scheme or port: of the same name both may differ
