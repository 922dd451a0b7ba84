"""Names with faults and records, as clients of a gateway see them over UDP and TCP."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import dns.flags
import dns.message
import pytest

from pytest_egress import delayed, sequence
from pytest_egress.errors import HandlerError
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.ledger.verdict import judge
from pytest_egress.traffic.dns.answers import NameAnswer
from pytest_egress.traffic.dns.resolver import tcp_frame, tcp_frames
from pytest_egress.traffic.entries import DnsQuery
from tests.support.stage import ADDRESS, FIRST, SECOND, SECONDS, Stage, eventually

LONG = 10_000.0


class NamesClient:
    """A client of DNS, with a socket of its own."""

    def __init__(self, stage: Stage, *, tcp: bool = False) -> None:
        self.tcp, self.rest = tcp, b""
        if tcp:
            self.sock = stage.dial("198.18.0.1", 53)
        else:
            self.sock = stage.open.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            self.sock.connect(stage.link.dns[0].getsockname())
        self.sock.settimeout(SECONDS)

    def send(self, name: str, type: str = "A", id: int | None = None) -> None:
        message = dns.message.make_query(name, type, id=id)
        wire = message.to_wire()
        self.sock.sendall(tcp_frame(wire) if self.tcp else wire)

    def receive(self) -> dns.message.Message:
        if not self.tcp:
            return dns.message.from_wire(self.sock.recv(65535))
        frames, _ = tcp_frames(self.rest)
        while not frames:
            self.rest += self.sock.recv(65535)
            frames, _ = tcp_frames(self.rest)
        self.rest = self.rest[2 + len(frames[0]) :]
        return dns.message.from_wire(frames[0])

    def ask(self, name: str, type: str = "A", id: int | None = None) -> dns.message.Message:
        self.send(name, type, id)
        return self.receive()


def said(message: dns.message.Message) -> str:
    """The last record of an answer, or its error."""
    return str(message.answer[-1][0]) if message.answer else message.rcode().name


def look_up(stage: Stage, name: str = "db.test", tcp: bool = False) -> list[str]:
    """What both families of a lookup are answered."""
    client = NamesClient(stage, tcp=tcp)
    return [said(client.ask(name, type)) for type in ("A", "AAAA")]


# Sequences.


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_each_lookup_takes_the_next_answer_and_then_the_name_is_what_it_was(
    stage: Stage, tcp: bool
) -> None:
    answers = sequence("SERVFAIL", "NXDOMAIN", [], [ADDRESS, "2001:db8::7"])
    route = stage.route("dns", "db.test", answers)
    found = [look_up(stage, tcp=tcp) for _ in range(5)]
    assert found[:4] == [
        ["SERVFAIL"] * 2,
        ["NXDOMAIN"] * 2,
        ["NOERROR"] * 2,
        [ADDRESS, "2001:db8::7"],
    ]
    assert found[4] == [FIRST, "fd00:198:18::1"]
    assert len(route.calls) == 8
    assert stage.entries(DnsQuery)[-1].route is None
    assert stage.gateway.names.leading("db.test", ADDRESS)


def test_after_a_sequence_an_earlier_route_answers_and_by_synthetic_in_between(
    stage: Stage,
) -> None:
    stage.route("dns", "*.test", ADDRESS)
    route = stage.route("dns", "db.test", sequence("synthetic", "REFUSED", "synthetic"))
    found = [look_up(stage)[0] for _ in range(4)]
    assert found == [ADDRESS, "REFUSED", ADDRESS, ADDRESS]
    assert len(route.calls) == 6
    assert stage.gateway.names.of(ADDRESS) == ("db.test",)


def test_a_name_whose_sequence_is_used_up_is_still_declared(stage: Stage) -> None:
    stage.window.dns = "strict"
    stage.route("dns", "db.test", sequence("SERVFAIL"))
    assert [look_up(stage)[0] for _ in range(2)] == ["SERVFAIL", FIRST]
    assert {query.outcome for query in stage.entries(DnsQuery)} == {"recorded"}


def test_a_question_that_is_sent_again_is_the_same_one(stage: Stage) -> None:
    stage.route("dns", "db.test", sequence("silence", ADDRESS))
    client = NamesClient(stage)
    client.send("db.test", id=7)
    client.send("db.test", id=7)
    assert said(client.ask("db.test", id=8)) == ADDRESS
    assert [outcome_text(query) for query in stage.entries(DnsQuery)] == [
        "DNS db.test A -> silence",
        "DNS db.test A -> silence",
        f"DNS db.test A -> {ADDRESS}",
    ]


def test_truncated_is_asked_over_tcp_in_the_same_turn(stage: Stage) -> None:
    route = stage.route("dns", "db.test", sequence("truncated", ADDRESS))
    cut = NamesClient(stage).ask("db.test")
    assert (cut.answer, bool(cut.flags & dns.flags.TC)) == ([], True)
    assert said(NamesClient(stage, tcp=True).ask("db.test")) == FIRST
    assert said(NamesClient(stage).ask("db.test")) == ADDRESS
    assert [outcome_text(call) for call in route.calls] == [
        "DNS db.test A -> NOERROR  [truncated]",
        f"DNS db.test A -> {FIRST}",
        f"DNS db.test A -> {ADDRESS}",
    ]


# Late answers.


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_late_answer_holds_up_no_other_and_no_window(stage: Stage, tcp: bool) -> None:
    go_on = threading.Event()

    def until_told() -> float:
        go_on.wait(SECONDS)
        return 0.01

    route = stage.route("dns", "late.test", delayed(ADDRESS, until_told))
    stage.route("dns", "later.test", delayed(ADDRESS, LONG))
    client = NamesClient(stage, tcp=tcp)
    client.send("later.test")
    client.send("late.test", id=7)
    assert said(client.ask("next.test")) == FIRST
    stage.settle()
    assert [outcome_text(call) for call in route.calls] == [
        f"DNS late.test A -> {ADDRESS}  [delayed({ADDRESS!r}, until_told)]"
    ]
    assert len(stage.ledger.pauses_of("target")) == 2
    go_on.set()
    assert client.receive().id == 7
    assert len(stage.ledger.pauses_of("target")) == 1


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_late_answer_ends_with_its_test(stage: Stage, tcp: bool) -> None:
    stage.route("dns", "late.test", delayed(ADDRESS, LONG))
    client = NamesClient(stage, tcp=tcp)
    client.send("late.test")
    assert eventually(lambda: stage.ledger.pauses)
    stage.gateway.revise(test_over=True)
    assert not stage.ledger.pauses
    assert said(client.ask("next.test")) == FIRST


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_client_that_leaves_is_not_missed(stage: Stage, tcp: bool) -> None:
    stage.route("dns", "late.test", delayed(ADDRESS, 0.05))
    client = NamesClient(stage, tcp=tcp)
    client.send("late.test")
    assert eventually(lambda: stage.ledger.pauses)
    client.sock.close()
    assert eventually(lambda: not stage.ledger.pauses)
    assert look_up(stage, "next.test") == [FIRST, "fd00:198:18::1"]


def test_what_a_function_of_seconds_raises_fails_the_test(stage: Stage) -> None:
    def seconds() -> float:
        raise LookupError("no time")

    stage.route("dns", "late.test", delayed(ADDRESS, seconds))
    with contextlib.suppress(TimeoutError):
        client = NamesClient(stage)
        client.sock.settimeout(0.1)
        client.ask("late.test")
    (query,) = stage.entries(DnsQuery)
    assert eventually(lambda: query.error is not None)
    verdict = judge(stage.window, [])
    assert isinstance(verdict, HandlerError)
    assert "LookupError: no time\n  for late.test A of target" in str(verdict)
    assert outcome_text(query).endswith("handler raised LookupError")


# Records.


def test_routes_of_one_name_complete_each_other_by_type(stage: Stage) -> None:
    texts = stage.route("dns", "shop.test", TXT="hello")
    mails = stage.route("dns", "*.test", "NXDOMAIN")
    mails = stage.route("dns", "shop.test", MX="10 mail.test")
    client = NamesClient(stage)
    found = [said(client.ask("shop.test", type)) for type in ("TXT", "MX", "A", "SRV")]
    assert found == ['"hello"', "10 mail.test.", "NOERROR", "NOERROR"]
    assert [(call.type, call.answer) for call in texts.calls] == [("TXT", ("hello",))]
    assert [call.type for call in mails.calls] == ["MX", "A", "SRV"]
    assert said(client.ask("gone.test", "MX")) == "NXDOMAIN"


def test_a_name_with_records_keeps_its_addresses(stage: Stage) -> None:
    stage.route("dns", "shop.test", MX="10 mail.test")
    assert look_up(stage, "shop.test") == [FIRST, "fd00:198:18::1"]
    stage.route("dns", "*.test", ADDRESS)
    assert look_up(stage, "shop.test")[0] == ADDRESS


def test_records_fail_first_and_then_are_there(stage: Stage) -> None:
    stage.route("dns", "_db._tcp.test", sequence("SERVFAIL", "synthetic"), SRV="0 0 1 a.test")
    client = NamesClient(stage)
    found = [said(client.ask("_db._tcp.test", "SRV")) for _ in range(3)]
    assert found == ["SERVFAIL", "0 0 1 a.test.", "NOERROR"]


# CNAMEs.


def test_a_cname_is_followed_through_routes_hosts_and_synthetic_names(stage: Stage) -> None:
    stage.hosts = {"own.test": NameAnswer(addresses=("192.0.2.9",))}
    stage.route("dns", "a.test", CNAME="b.test")
    stage.route("dns", "b.test", CNAME="c.test")
    stage.route("dns", "c.test", sequence(ADDRESS, "NXDOMAIN", "SERVFAIL", "REFUSED"))
    stage.route("dns", "own-too.test", CNAME="own.test")
    reply = NamesClient(stage).ask("a.test")
    assert [str(rrset) for rrset in reply.answer] == [
        "a.test. 10 IN CNAME b.test.",
        "b.test. 10 IN CNAME c.test.",
        f"c.test. 10 IN A {ADDRESS}",
    ]
    found = [look_up(stage, "a.test")[0] for _ in range(4)]
    assert found == ["c.test.", "SERVFAIL", "SERVFAIL", FIRST]
    assert said(NamesClient(stage).ask("own-too.test")) == "192.0.2.9"
    texts = [outcome_text(query) for query in stage.entries(DnsQuery)]
    assert texts[0] == f"DNS a.test A -> b.test -> c.test -> {ADDRESS}"
    assert texts[1] == "DNS a.test A -> b.test -> c.test -> NXDOMAIN"


def test_a_cname_itself_is_asked_for(stage: Stage) -> None:
    stage.route("dns", "a.test", CNAME="b.test")
    stage.route("dns", "b.test", ADDRESS)
    for type in ("CNAME", "ANY"):
        reply = NamesClient(stage).ask("a.test", type)
        assert [str(each) for rrset in reply.answer for each in rrset] == ["b.test."]


def test_a_loop_of_cnames_is_told(stage: Stage) -> None:
    stage.route("dns", "a.test", CNAME="b.test")
    stage.route("dns", "b.test", CNAME="a.test")
    stage.route("dns", "*.long.test", CNAME="b.test")
    for number in range(20):
        stage.route("dns", f"{number}.test", CNAME=f"{number + 1}.test")
    assert [look_up(stage, name)[0] for name in ("a.test", "0.test")] == ["SERVFAIL"] * 2
    queries = stage.entries(DnsQuery)
    assert queries[0].note == "its CNAMEs come to no end: a.test -> b.test -> a.test"
    assert queries[2].note.startswith("its CNAMEs come to no end: 0.test -> 1.test -> ")
    assert not stage.gateway.names.leading("a.test", ADDRESS)


def test_a_target_of_a_cname_exists_where_names_are_strict(stage: Stage) -> None:
    stage.window.dns = "strict"
    stage.route("dns", "a.test", CNAME="b.test")
    assert look_up(stage, "a.test") == [FIRST, "fd00:198:18::1"]
    assert look_up(stage, "b.test") == ["NXDOMAIN"] * 2
    assert [query.outcome for query in stage.entries(DnsQuery)] == [
        *("recorded", "recorded", "unrouted", "unrouted")
    ]


@pytest.mark.parametrize("given", [{}, {"answer": ADDRESS}], ids=["synthetic", "declared"])
def test_what_dials_after_a_cname_is_of_the_name_that_was_asked_for_and_those_it_leads_to(
    stage: Stage, given: dict[str, Any]
) -> None:
    stage.route("dns", "a.test", CNAME="b.test")
    if given:
        stage.route("dns", "b.test", given["answer"])
    (address, _) = look_up(stage, "a.test")
    assert stage.gateway.names.of(address) == ("a.test", "b.test")
    assert stage.resolve("other.test") in (FIRST, SECOND)


def test_the_name_of_an_address(stage: Stage) -> None:
    stage.window.dns = "strict"
    stage.route("dns", ADDRESS, PTR="db.test")
    reverse = ".".join(reversed(ADDRESS.split("."))) + ".in-addr.arpa"
    assert said(NamesClient(stage).ask(reverse, "PTR")) == "db.test."
    assert stage.entries(DnsQuery)[0].answer == ("db.test",)
