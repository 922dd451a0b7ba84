"""What the connections of one target share: who it is, what answers, and where everything is recorded.

This module reads no socket and starts no thread.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from pytest_egress.agent.addresses import ADDRESS4, ADDRESS6
from pytest_egress.answers import NO_SUCH_NAME, NameAnswer
from pytest_egress.dns import Answer, Resolver, reversed_address, without_service
from pytest_egress.exchange import DnsQuery, Entry, Outcome
from pytest_egress.ledger import Ledger, Place
from pytest_egress.routing import Route, claimed, is_named, name_route, nearest_by_name
from pytest_egress.searchlist import tell_apart

if TYPE_CHECKING:
    from pytest_egress.authority import Authority

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

READ_BYTES: Final = 64 * 1024
FIRST_BYTES_KEPT: Final = 64
UNDECLARED: Final = 'no route names it, so by dns="strict" it does not exist'
NAMES_PORT: Final = 53  # of DNS, over UDP and TCP (RFC 1035, section 4.2)
IDLE_SECONDS: Final = 17.0
"""After which a connection that has been answered is closed.

Servers take from 5 s (Apache, Node.js, uvicorn) to 75 s (nginx). Clients give an idle connection up after 4 s (undici,
agentkeepalive), 5 s (Node.js, httpx, HttpURLConnection), 15 s (aiohttp), 30 s (Java's HttpClient), 60 s (.NET), 90 s
(Go, hyper), 118 s (curl), 180 s (Apache's HttpClient), 300 s (OkHttp), or never (urllib3, http.client). None has its
timer here, nor has a program that asks every so many seconds: few send something just as we close.
"""
UNUSED_SECONDS: Final = (
    330.0  # for a pool that connects ahead of its need: longer than the clients above keep one
)
WITHOUT_HANDLER: Final = ("passthrough", "block", "dns")  # what they see is a call at once


class Link(Protocol):
    """The sockets of a target's network namespace; see `DescriptorLink`."""

    @property
    def tcp(self) -> Sequence[socket.socket]:
        """Listeners: every TCP connection of the target."""

    @property
    def dns(self) -> Sequence[socket.socket]:
        """UDP sockets: every DNS query."""

    @property
    def packets(self) -> socket.socket:
        """Packets of other protocols, as the kernel's log gives them."""

    @property
    def monitors(self) -> Sequence[socket.socket]:
        """Events of what captures, for `tampering`; `proto` is the netlink family that they are of."""

    @property
    def channel(self) -> socket.socket:
        """At its end of file the sidecar has ended."""

    @property
    def reason(self) -> str:
        """Why it has ended: "it has ended"."""

    @property
    def ipv6(self) -> bool:
        """Whether the target has IPv6."""

    @property
    def most(self) -> int:
        """How many connections of the target it has room for at once: more wait where nobody sees them."""

    @property
    def lost_packets(self) -> int:
        """How many packets have not come to be read from `packets`, as far as is known."""

    def destination(self, sock: socket.socket, /) -> tuple[str, int] | None:
        """What the client of an accepted connection dialled; None for the listener itself."""

    def flush(self, timeout: float, /) -> None:
        """Return when what the target has done so far can be read from the sockets."""

    def connect(self, port: int, timeout: float, /) -> socket.socket:
        """A connection to a port of the target."""

    def close(self) -> None:
        """Close every socket."""


class Site(Protocol):
    """What the gateway knows of the target it serves."""

    @property
    def name(self) -> str:
        """As in the ledger."""
        ...

    @property
    def hosts(self) -> Mapping[str, NameAnswer]:
        """The names that are in its /etc/hosts, or were to be, normalised, with their addresses."""
        ...

    @property
    def is_ending(self) -> bool:
        """Whether the target is being ended: a connection that it leaves then tells nothing of its client."""
        ...

    @property
    def hints(self) -> Sequence[str]:
        """Why its clients may not trust the CA, as sentences."""
        ...

    def place(self) -> Place:
        """Where what it attempts now belongs."""
        ...

    def lost(self) -> None:
        """The sidecar died under a running target."""
        ...


class Hub:
    """What the connections of a target share.

    Args:
        link: The sidecar's sockets.
        site: The target, and where its attempts belong.
        authority: Issues the leaf certificates.
        ledger: Where everything is recorded.

    Attributes:
        lock: Guards the names and the connections; held, nobody waits for the ledger's.
        room: Notified when a connection has ended.
        connections: Those that are open.
        stopping: Whether everything is to end.
        idle_seconds: See `IDLE_SECONDS`.
        unused_seconds: How long a connection may be open before its first request.
    """

    idle_seconds: float = IDLE_SECONDS
    unused_seconds: float = UNUSED_SECONDS

    def __init__(self, link: Link, site: Site, authority: Authority, ledger: Ledger) -> None:
        self.link, self.site, self.authority, self.ledger = link, site, authority, ledger
        self.lock = threading.RLock()
        self.room = threading.Condition(self.lock)
        self.connections: set[Any] = set()
        self.stopping = False
        self._resolver = Resolver(ipv6=link.ipv6)
        self._upstream_tls: dict[tuple[str | None, ...], ssl.SSLContext] = {}

    @property
    def upstream_tls(self) -> ssl.SSLContext:
        """How real servers are verified: by this machine's roots, wherever the environment has them now."""
        where = tuple(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
        with self.lock:
            if where not in self._upstream_tls:
                context = ssl.create_default_context()
                context.set_alpn_protocols(["http/1.1"])
                self._upstream_tls = {where: context}
            return self._upstream_tls[where]

    def name(self, address: str) -> str:
        """The name that an address was given out for, or the address itself."""
        with self.lock:
            given = self._resolver.name(address)
            alias = self._resolver.alias(address)
        if alias is not None and self.gives(alias, address):
            return alias
        return given or address

    def gives(self, name: str, address: str) -> bool:
        """Whether a DNS route gives this address to a name now."""
        route = name_route(self.site.place().tables, name)
        return route is not None and address in route.answer().addresses

    def answer_query(self, query: bytes, *, over_tcp: bool = False) -> Answer:
        """Answer one DNS message, and record it where it is a query; what is none is the caller's to record."""
        place = self.site.place()
        found: NameAnswer | None = None

        def rules(name: str) -> NameAnswer | None:
            nonlocal found
            found = self._rule(place, name)
            return found

        with self.lock:
            reply = self._resolver.answer(query, rules, over_tcp=over_tcp)
        if reply.no_query:
            return reply
        entry = DnsQuery(
            **self.about(reply.question, None),
            outcome="recorded",
            route=name_route(place.tables, reply.question),
            type=reply.type,
            answer=reply.addresses,
            rcode=reply.rcode,
            note="" if reply.wire else "not answered",
        )
        if found is NO_SUCH_NAME:
            self._judge_name(place, entry)
        with self.ledger.changed:  # or another query could come in between
            if place.window.dns == "strict":
                tell_apart(place.window.entries, entry)
            self.record(place, entry)
        return reply

    def _judge_name(self, place: Place, query: DnsQuery) -> None:
        """Make a query for a name that nobody declared an attempt, unless it is about one that is declared.

        That are services of a name (`_https._tcp.api.test`, RFC 8552), and the names of addresses (RFC 1035, section
        3.5) that a route claims, or that are the target's own.
        """
        bare, address = without_service(query.host), reversed_address(query.host)
        with self.lock:
            is_ours = address in (ADDRESS4, ADDRESS6) or bool(self._resolver.name(address or ""))
        if is_ours or is_named(place.tables, address or bare):
            return
        query.outcome, query.note = self.unclaimed(place), UNDECLARED
        miss = nearest_by_name(place.tables, query.host)
        query.near = (miss,) if miss else ()

    def _rule(self, place: Place, name: str) -> NameAnswer | None:
        """What DNS says of a name: what a route does; nothing else by `dns="strict"` where none names it."""
        route = name_route(place.tables, name)
        if route is not None:
            answer: NameAnswer = route.answer()
            return answer
        if name in self.site.hosts:  # or its other family would be ours
            return self.site.hosts[name]
        strict = place.window.dns == "strict" and not is_named(place.tables, name)
        return NO_SUCH_NAME if strict else None

    def about(self, host: str, port: int | None, started: float | None = None) -> dict[str, Any]:
        """The fields that every entry has; it began now where nothing else is known."""
        return {
            "container": self.site.name,
            "started": self.ledger.now() if started is None else started,
            "host": host,
            "port": port,
        }

    def judge(
        self, place: Place, host: str, port: int, at_claimed: Outcome = "unrouted"
    ) -> dict[str, Any]:
        """The outcome of an attempt that no handler answers, and the route that says so.

        Args:
            at_claimed: Where a route claims the address, and yet cannot answer this.
        """
        route = claimed(place.tables, host, port)
        if route is None:
            return {"outcome": self.unclaimed(place)}
        if route.kind in ("block", "passthrough"):
            return {"outcome": "blocked", "route": route}
        return {"outcome": at_claimed}

    def unclaimed(self, place: Place) -> Outcome:
        """The outcome of an attempt that no route claims."""
        return "unrouted" if place.window.policy == "fail" else "blocked"

    @property
    def is_crowded(self) -> bool:
        """Whether threads become scarce: an idle connection then gives its own up at once."""
        return False

    def park(self, connection: Any, seconds: float) -> bool:
        """Keep an idle connection without a thread until it has something to read; False where that cannot be.

        Args:
            seconds: After which it is closed.
        """
        return False

    def record(self, place: Place, entry: Entry) -> None:
        """Put an entry into its window; what our own stop brings about is none."""
        if self.stopping:
            return
        self.ledger.record(place.window, entry)
        route = entry.route
        if route is None or route.kind not in WITHOUT_HANDLER:
            return
        if route.kind != "passthrough" or entry.outcome == "passthrough":
            self.ledger.count(route, place.window, entry)

    def complain(self, text: str) -> None:
        """Fail the test, whatever else happened."""
        self.ledger.complain(self.site.place().window, f"{self.site.name}: {text}")


def passes(place: Place, route: Route[Any] | None, hosts: Iterable[str], port: int) -> bool:
    """Whether a connection or a request goes to the real upstream.

    Args:
        route: What answers it; None where nothing does. What `unrouted` lets through is no way around a route that
            claims any of the hosts, and does not match or has answered as often as it may.
        hosts: All that it names: the name that was dialled, its address, the SNI, Host.
    """
    if route is not None:
        return route.kind == "passthrough"
    lenient = place.window.policy == "passthrough"
    return lenient and not any(claimed(place.tables, host, port) for host in hosts)


def trace(error: BaseException) -> str:
    """Its traceback as text."""
    return "".join(traceback.format_exception(error))
