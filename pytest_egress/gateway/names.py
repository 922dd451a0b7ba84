"""`Names`: answers a target's DNS queries, and knows which name an address was given out for.

The reader calls it for UDP, connections' threads for TCP and for what was dialled. Its lock guards the resolver alone;
while it is held no other lock is taken and no function of a user runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from pytest_egress.base.sockets import receive_timeout
from pytest_egress.gateway.connection import READ_BYTES, Connection
from pytest_egress.gateway.recorder import FIRST_BYTES_KEPT, Recorder, unclaimed
from pytest_egress.ledger.windows import AttemptContext
from pytest_egress.link.interface import OWN_ADDRESSES
from pytest_egress.routes.table import is_named, name_route, nearest_by_name
from pytest_egress.traffic.dns import (
    Answer,
    Resolver,
    reversed_address,
    tcp_frame,
    tcp_frames,
    without_service,
)
from pytest_egress.traffic.dns_answers import NO_SUCH_NAME, NameAnswer
from pytest_egress.traffic.entries import DnsQuery
from pytest_egress.traffic.searchlist import mark_searches

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

NAMES_PORT: Final = 53  # of DNS, over UDP and TCP (RFC 1035, section 4.2)
UNDECLARED: Final = 'no route names it, so by dns="strict" it does not exist'


class Names:
    """The DNS server of one target.

    Args:
        recorder: Records the queries.
        ipv6: Whether the target has IPv6.

    Attributes:
        learn: Called for each answer with addresses before it is sent, with the name and these.
    """

    def __init__(self, recorder: Recorder, *, ipv6: bool) -> None:
        self._recorder, self._target = recorder, recorder.target
        self._lock = threading.Lock()
        self._resolver = Resolver(ipv6=ipv6)
        self.learn: Callable[[str, Sequence[str]], None] = lambda name, addresses: None

    def name(self, address: str) -> str:
        """The name that an address was given out for, or the address itself."""
        with self._lock:
            given = self._resolver.name(address)
            alias = self._resolver.alias(address)
        if alias is not None and self.gives(alias, address):
            return alias
        return given or address

    def given(self) -> dict[str, str]:
        """The name of each address that was given out, as `name` returns it."""
        with self._lock:
            found, aliases = self._resolver.given()
        is_given = {
            address: alias for address, alias in aliases.items() if self.gives(alias, address)
        }
        return {**found, **is_given}

    def gives(self, name: str, address: str) -> bool:
        """Whether a DNS route gives this address to a name now."""
        route = name_route(self._target.attempt_context().tables, name)
        return route is not None and address in route.answer()[0].addresses

    def answer(self, query: bytes, *, over_tcp: bool = False) -> Answer:
        """Answer one DNS message, and record it if it is a query. The caller records a message that is not."""
        context = self._target.attempt_context()
        found: NameAnswer | None = None

        def rules(name: str) -> NameAnswer | None:
            nonlocal found
            found = self._rule(context, name)
            return found

        with self._lock:
            reply = self._resolver.answer(query, rules, over_tcp=over_tcp)
        if reply.no_query:
            return reply
        if reply.addresses:
            self.learn(reply.question, reply.addresses)
        entry = DnsQuery(
            **self._recorder.about(reply.question, None),
            outcome="recorded",
            route=name_route(context.tables, reply.question),
            type=reply.type,
            answer=reply.addresses,
            rcode=reply.rcode,
            note="" if reply.wire else "not answered",
        )
        if found is NO_SUCH_NAME:
            self._judge_name(context, entry)
        # Held over both, so that no other query is recorded between the comparison and this one's entry.
        with self._recorder.ledger.changed:
            if context.window.dns == "strict":
                mark_searches(context.window.entries, entry)
            self._recorder.record(context, entry)
        return reply

    def _judge_name(self, context: AttemptContext, query: DnsQuery) -> None:
        """Turn a query for an undeclared name into an attempt, unless it is about a declared name or address.

        A query is about a declared name if it is for a service of that name (`_https._tcp.api.test`, RFC 8552). A
        reverse query (RFC 1035, section 3.5) is about a declared address if a route claims the address, or the address
        is the target's own.
        """
        bare, address = without_service(query.host), reversed_address(query.host)
        with self._lock:
            is_ours = address in OWN_ADDRESSES or bool(self._resolver.name(address or ""))
        if is_ours or is_named(context.tables, address or bare):
            return
        query.outcome, query.note = unclaimed(context), UNDECLARED
        miss = nearest_by_name(context.tables, query.host)
        query.near = (miss,) if miss else ()

    def _rule(self, context: AttemptContext, name: str) -> NameAnswer | None:
        """The answer of DNS to a name: that of its route, else that of the target's /etc/hosts.

        None means a synthetic address. With `dns="strict"` a name that no route names does not exist.
        """
        route = name_route(context.tables, name)
        if route is not None:
            answer: NameAnswer
            answer, _ = route.answer()
            return answer
        # A name of /etc/hosts is asked for where the file has it for one address family only. A synthetic address for
        # the other family would lead such a client to the gateway.
        if name in self._target.hosts:
            return self._target.hosts[name]
        strict = context.window.dns == "strict" and not is_named(context.tables, name)
        return NO_SUCH_NAME if strict else None


def serve_names(connection: Connection, names: Names) -> None:
    """Serve DNS over TCP (RFC 7766) to the end of a connection."""
    rest = b""
    receive_timeout(connection.sock, 0)
    while data := connection.sock.recv(READ_BYTES):
        queries, rest = tcp_frames(rest + data)
        for query in queries:
            reply = names.answer(query, over_tcp=True)
            if reply.no_query:
                connection.refuse(query[:FIRST_BYTES_KEPT], reply.no_query)
                return
            connection.accounted = True
            if reply.wire:
                connection.sock.sendall(tcp_frame(reply.wire))
        connection.end()
    if rest:
        connection.record_tcp(rest[:FIRST_BYTES_KEPT], "closed within a DNS query")
