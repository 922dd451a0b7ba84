"""`Names`: answers a target's DNS queries, and knows which names an address was given out for.

The reader calls it for UDP, connections' threads for TCP and for what was dialled. Its lock guards the resolver alone;
while it is held no other lock is taken and no function of a user runs. Routes are asked before, under no lock or, where
turns are taken, under `Ledger.changed`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pytest_egress.base.sockets import READ_BYTES, receive_timeout
from pytest_egress.gateway.connection import Connection
from pytest_egress.gateway.dns.late import Asker, LateAnswer, LateAnswers, Lateness
from pytest_egress.gateway.dns.turns import AskedName, NameTurns, Turn
from pytest_egress.gateway.recorder import FIRST_BYTES_KEPT, Claim, Recorder, unclaimed
from pytest_egress.ledger.windows import AttemptContext
from pytest_egress.link.interface import OWN_ADDRESSES
from pytest_egress.routes.faults import Delayed, layers
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import (
    RouteTable,
    is_named,
    name_routes,
    nearest_by_name,
)
from pytest_egress.traffic.dns.answers import (
    ANY_TYPE,
    LAME,
    NO_ADDRESS,
    NO_SUCH_NAME,
    SILENCE,
    TRUNCATED,
    NameAnswer,
    Record,
    Resolution,
)
from pytest_egress.traffic.dns.resolver import (
    Answer,
    Question,
    Resolver,
    query_for,
    reversed_address,
    tcp_frame,
    tcp_frames,
    without_service,
)
from pytest_egress.traffic.dns.searchlist import mark_searches
from pytest_egress.traffic.entries import DnsQuery, note_through
from pytest_egress.traffic.notes import Marks

NAMES_PORT: Final = 53  # of DNS, over UDP and TCP (RFC 1035, section 4.2)
UNDECLARED: Final = 'no route names it, so by dns="strict" it does not exist'
MAX_CNAMES: Final = 8
"""How many CNAMEs are followed from one name, as unbound does: more are a loop, or a mistake."""

NOT_FOLLOWED: Final = ("CNAME", ANY_TYPE)
"""The types of questions that a CNAME itself answers (RFC 1034, section 3.6.2)."""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A DNS route that was asked about a name, and its answer without the faults around it."""

    route: InnerRoute
    answer: NameAnswer
    lateness: Lateness | None
    turn: Turn | None


@dataclass(frozen=True, kw_only=True)
class NameRuling:
    """What there is to say to a question about one name.

    Attributes:
        answer: The answer; None where the name has its synthetic addresses.
        is_undeclared: Whether no route names the name, where each has to be named.
    """

    visits: Sequence[Visit] = ()
    answer: NameAnswer | None = None
    is_undeclared: bool = False

    @property
    def route(self) -> InnerRoute | None:
        """The route that has answered, be it by "synthetic"; else the first one of the name, or None."""
        spoke = (v for v in self.visits if v.answer is self.answer or v.answer.leaves_all)
        first = next(iter(self.visits), None)
        visit = next(spoke, first)
        return None if visit is None else visit.route


class Names:
    """The DNS server of one target.

    Attributes:
        learn: Called for each answer with addresses before it is sent, with their names and these.
    """

    def __init__(self, recorder: Recorder, *, ipv6: bool) -> None:
        self._recorder, self._target = recorder, recorder.target
        self.late = LateAnswers(recorder)
        self._turns = NameTurns(recorder.ledger)
        self._lock = threading.Lock()
        self._resolver = Resolver(ipv6=ipv6)
        self.learn: Callable[[tuple[str, ...], Sequence[str]], None] = lambda names, addresses: None

    def of(self, address: str) -> tuple[str, ...]:
        """The names that an address was given out for: the one that was asked for, and those that its CNAMEs lead to.

        An address that was given out for none is its own name.
        """
        with self._lock:
            alias, own = self._resolver.alias(address), self._resolver.name(address)
        return self._called(self._target.attempt_context().tables, address, alias, own)

    def given(self) -> dict[str, tuple[str, ...]]:
        """The names of each address that was given out, as `of` returns them."""
        with self._lock:
            own, aliases = self._resolver.given()
        tables = self._target.attempt_context().tables
        return {
            address: self._called(tables, address, aliases.get(address), own.get(address))
            for address in {**own, **aliases}
        }

    def leading(self, name: str, address: str) -> tuple[str, ...]:
        """The names by which one leads to an address: itself, and those of its CNAMEs, in order.

        There is none where the name does not have the address, by any turn of a sequence.
        """
        with self._lock:
            own = self._resolver.name(address)
        return led(self._target.attempt_context().tables, name, address, own)

    def _called(
        self, tables: Sequence[RouteTable], address: str, alias: str | None, own: str | None
    ) -> tuple[str, ...]:
        """The names of an address, by the name that a rule gave it to, and by the one whose own it is."""
        asked = (name for name in (alias, own) if name is not None)
        names = (led(tables, name, address, own) for name in asked)
        return next(filter(None, names), (address,))

    def answer(self, query: bytes, asker: Asker) -> Answer:
        """Answer one DNS message, and record it if it is a query. The caller records a message that is not.

        Returns:
            The answer to send; without bytes where nothing is to be sent, or not now: `late` does that.
        """
        ledger = self._recorder.ledger
        begun = 0.0 if ledger.accounts.notes is None else ledger.now()
        with self._lock:
            question = self._resolver.question(query)
        if isinstance(question, Answer):
            return question
        context = self._target.attempt_context()
        rulings, resolution = self._resolve(context, question, asker)
        with self._lock:
            reply = self._resolver.answer(query, resolution, question, over_tcp=asker.over_tcp)
        if reply.addresses:
            self.learn(self.of(reply.addresses[0]), reply.addresses)
        visits = [visit for ruling in rulings for visit in ruling.visits]
        if reply.is_truncated and not asker.over_tcp:
            self._turns.note_truncated(filter(None, (visit.turn for visit in visits)), reply.type)
        lateness = tuple(filter(None, (visit.lateness for visit in visits)))
        entry = self._entry(rulings[0].route, resolution, reply, lateness)
        if self._target.peers(entry.host):
            entry._is_of_peer = True
        note_through(entry, asker.through)
        if begun:
            entry.marks = Marks(begun)
            entry.marks.answered = None if lateness else entry.started
        self._record(context, entry, is_undeclared=rulings[0].is_undeclared)
        if not (lateness and reply.wire):
            return reply
        self.late.add(context, LateAnswer(entry=entry, lateness=lateness, asker=asker), reply.wire)
        return replace(reply, wire=b"")

    def look_up(self, name: str, through: str) -> Answer:
        """Look up a name for the proxy `through`: the answer with addresses, else the one that says why there is none.

        It takes a turn of its own, and is recorded as a query of the target's. An answer that is late is used at once.
        """
        asker = Asker(client=object(), send=lambda wire: None, over_tcp=True, through=through)
        for type in ("A", "AAAA"):
            answer = self.answer(query_for(name, type), asker)
            if answer.addresses or answer.rcode != "NOERROR":
                break
        return answer

    def _entry(
        self,
        route: InnerRoute | None,
        resolution: Resolution,
        reply: Answer,
        lateness: Sequence[Lateness],
    ) -> DnsQuery:
        fault: object = None
        if not reply.wire:
            fault = SILENCE
        elif lateness:
            fault = lateness[0].delays[0]
        elif resolution.is_truncated and reply.is_truncated:
            fault = TRUNCATED
        return DnsQuery(
            **self._recorder.about(Claim("recorded", route), reply.question, None),
            type=reply.type,
            answer=(*reply.addresses, *reply.records),
            rcode=reply.rcode,
            cnames=reply.cnames,
            fault=fault,
            note=resolution.note if reply.wire else "not answered",
        )

    def _record(self, context: AttemptContext, entry: DnsQuery, *, is_undeclared: bool) -> None:
        if is_undeclared:
            self._judge_name(context, entry)
        # Held over both, so that no other query is recorded between the comparison and this one's entry.
        with self._recorder.ledger.changed:
            if context.window.dns == "strict":
                mark_searches(context.window.entries, entry, self._target.search)
            self._recorder.record(context, entry)

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

    def _resolve(
        self, context: AttemptContext, question: Question, asker: Asker
    ) -> tuple[list[NameRuling], Resolution]:
        """What is said to a question: about its name, and about each that a CNAME leads to, as a resolver asks."""
        if not question.has_rules:
            return [NameRuling()], Resolution()
        asked = AskedName(
            name=question.name,
            type=question.type,
            id=question.id,
            client=asker.client,
            over_tcp=asker.over_tcp,
        )
        rulings, cnames, names = [self._rule(context, asked)], list[Record](), [asked.name]
        while (cname := followed(rulings[-1], asked.type)) is not None:
            cnames.append(cname)
            names.append(cname.host)
            if cname.host in names[:-1] or len(cnames) > MAX_CNAMES:
                return rulings, Resolution(answer=LAME, note=LOOP.format(" -> ".join(names)))
            rulings.append(self._rule(context, replace(asked, name=cname.host), is_led=True))
        answer = rulings[-1].answer
        if cnames and answer is not None and answer.rcode == "REFUSED":
            answer = LAME  # which is what a resolver says that was refused
        is_truncated = any(v.answer.is_truncated for ruling in rulings for v in ruling.visits)
        return rulings, Resolution(answer=answer, cnames=tuple(cnames), is_truncated=is_truncated)

    def _rule(
        self, context: AttemptContext, asked: AskedName, *, is_led: bool = False
    ) -> NameRuling:
        """What is said to a question about one name: by routes, else by the target's /etc/hosts.

        A route that says nothing about the type asked for leaves that to the next one, whose errors count no more if
        the name has data by the first. With `dns="strict"` a name that no route names does not exist, but one that a
        declared CNAME leads to does.
        """
        visits: list[Visit] = []
        for visit in self._visits(context, asked):
            if visit.answer.is_error and not all(each.answer.leaves_all for each in visits):
                return NameRuling(visits=visits, answer=NO_ADDRESS)
            visits.append(visit)
            if visit.answer.answers(asked.type):
                return NameRuling(visits=visits, answer=visit.answer)
        # A name of /etc/hosts is asked for where the file has it for one address family only. A synthetic address for
        # the other family would lead such a client to the gateway.
        if asked.name in self._target.hosts:
            return NameRuling(visits=visits, answer=self._target.hosts[asked.name])
        is_named_somehow = (
            is_led
            or context.window.dns != "strict"
            or is_named(context.tables, asked.name)
            or bool(self._target.peers(asked.name))
        )
        if not is_named_somehow:
            return NameRuling(answer=NO_SUCH_NAME, is_undeclared=True)
        return NameRuling(visits=visits)

    def _visits(self, context: AttemptContext, asked: AskedName) -> Iterator[Visit]:
        """A route whose sequence has been used up is passed over; so is a pattern, where a container has the name."""
        is_peer = bool(self._target.peers(asked.name))
        for route in name_routes(context.tables, asked.name):
            if is_peer and not route.parsed_address.is_exact:
                continue
            if (given := self._turns.answer(route, asked)) is None:
                continue
            faults, said = layers(given.answer)
            delays = tuple(fault for fault in faults if isinstance(fault, Delayed))
            late = Lateness(delays=delays, route=route, context=given.context) if delays else None
            yield Visit(route=route, answer=said, lateness=late, turn=given.turn)


LOOP: Final = "its CNAMEs come to no end: {}"


def followed(ruling: NameRuling, type: str) -> Record | None:
    if ruling.answer is None or type in NOT_FOLLOWED:
        return None
    return ruling.answer.cname


def declared(tables: Sequence[RouteTable], name: str) -> Iterator[NameAnswer]:
    """The answers that the DNS routes for a name may give: all of a sequence, and what it leaves to the next route."""
    for route in name_routes(tables, name):
        sequence = route.turns.sequence
        given = (route.turns.answer()[0],) if sequence is None else sequence.answers
        answers = [layers(each)[1] for each in given]
        yield from answers
        if sequence is None and answers[0].answers("A"):
            return


def led(tables: Sequence[RouteTable], name: str, address: str, own: str | None) -> tuple[str, ...]:
    """The names by which a name leads to an address (`Names.leading`); `own` is the one whose own address it is."""
    if name == own and not any(table.leads for table in tables):
        return (name,)
    names = [name]
    while len(names) <= MAX_CNAMES:
        answers = [*declared(tables, names[-1])]
        if any(address in answer.addresses for answer in answers):
            return tuple(names)
        cname = next(filter(None, (answer.cname for answer in answers)), None)
        if cname is None or cname.host in names:
            break
        names.append(cname.host)
    return tuple(names) if name == own else ()


def serve_names(connection: Connection, names: Names) -> None:
    """Serve DNS over TCP (RFC 7766) to the end of a connection."""
    rest = b""
    receive_timeout(connection.sock, 0)
    asker = Asker(
        client=connection,
        send=lambda wire: connection.sock.sendall(tcp_frame(wire)),
        over_tcp=True,
        through=connection.destination.through,
    )
    try:
        while data := connection.sock.recv(READ_BYTES):
            queries, rest = tcp_frames(rest + data)
            for query in queries:
                reply = names.answer(query, asker)
                if reply.no_query:
                    connection.refuse(query[:FIRST_BYTES_KEPT], reply.no_query)
                    return
                connection.accounted = True
                if reply.wire:
                    with asker.sending:
                        asker.send(reply.wire)
            connection.end()
    finally:
        with asker.sending:
            names.late.forget(connection)
    if rest:
        connection.record_tcp(rest[:FIRST_BYTES_KEPT], "closed within a DNS query")
