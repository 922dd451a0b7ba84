"""A name has the addresses, or the error, that a route gives it."""

from __future__ import annotations

import socket

import pytest

from pytest_egress.gateway import dispatch
from pytest_egress.traffic.dns.answers import NameAnswer
from pytest_egress.traffic.entries import DnsQuery
from tests.support.echo import read_to_end
from tests.support.stage import ADDRESS, SECONDS, Stage


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited for the client's first byte here would fail the test."""
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 600.0)


# Names.


def test_a_name_has_the_addresses_that_a_route_gives_it(stage: Stage) -> None:
    route = stage.route("dns", "db.test", [ADDRESS, "2001:db8::7"])
    assert stage.resolve("db.test") == ADDRESS
    assert str(stage.query("db.test", "AAAA").answer[0][0]) == "2001:db8::7"
    stage.tcp("db.test:5432", b"by name")
    client = stage.dial(ADDRESS, 5432)
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(client) == b"by name"
    queries = stage.entries(DnsQuery)
    assert [(query.answer, query.route) for query in queries] == [
        ((ADDRESS,), route),
        (("2001:db8::7",), route),
    ]
    assert route.calls == queries


def test_a_route_of_the_address_answers_where_none_has_its_name(stage: Stage) -> None:
    stage.route("dns", "db.test", ADDRESS)
    stage.tcp(f"{ADDRESS}:5432", b"by address")
    assert stage.resolve("db.test") == ADDRESS
    client = stage.dial(ADDRESS, 5432)
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(client) == b"by address"


def test_the_name_of_an_address_holds_while_its_route_does(stage: Stage) -> None:
    route = stage.route("dns", "db.test", ADDRESS)
    stage.resolve("db.test")
    assert stage.gateway.names.of(ADDRESS) == ("db.test",)
    route.respond("192.0.2.7")
    assert stage.gateway.names.of(ADDRESS) == (ADDRESS,)


@pytest.mark.parametrize("rcode", ["NXDOMAIN", "SERVFAIL", "REFUSED"])
def test_a_name_has_the_error_that_a_route_gives_it(stage: Stage, rcode: str) -> None:
    stage.resolve("api.test")  # answered before, and kept
    route = stage.route("dns", "*.test", rcode)
    assert stage.query("api.test").rcode().name == rcode
    route.remove()
    assert stage.query("api.test").rcode().name == "NOERROR"


def test_a_name_without_addresses_has_an_empty_answer(stage: Stage) -> None:
    stage.route("dns", "api.test", [])
    reply = stage.query("api.test")
    assert (reply.rcode(), reply.answer) == (0, [])


def test_a_name_of_the_targets_own_hosts_file_has_no_other_address(stage: Stage) -> None:
    stage.hosts = {"db.internal": NameAnswer(addresses=("192.0.2.7",))}
    reply = stage.query("DB.internal", "AAAA")
    assert (reply.rcode(), reply.answer) == (0, [])
    ((address,),) = stage.query("db.internal").answer
    assert str(address) == "192.0.2.7"
    assert stage.query("api.test", "AAAA").answer != []


def test_silence_is_recorded(stage: Stage) -> None:
    stage.route("dns", "slow.test", "silence")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        import dns.message

        for name in ("slow.test", "next.test"):
            query = dns.message.make_query(name, "A")
            sock.sendto(query.to_wire(), stage.link.dns[0].getsockname())
        sock.settimeout(SECONDS)
        reply = dns.message.from_wire(sock.recv(4096))  # the first answer is the second's
    assert str(reply.question[0].name) == "next.test."
    silent, _ = stage.entries(DnsQuery)
    assert (silent.host, silent.rcode, silent.note) == ("slow.test", "", "not answered")


def test_where_names_are_strict_only_what_a_route_names_exists(stage: Stage) -> None:
    stage.window.dns = "strict"
    stage.https("api.test:8443")
    stage.route("block", "*.ads.test")
    stage.route("dns", "given.test", ADDRESS)
    stage.tcp("192.0.2.0/24")
    names = ("api.test", "x.ads.test", "given.test", "typo.test", "192.0.2.1.test", "localhost")
    exists = [name for name in names if stage.query(name).rcode() == 0]
    assert exists == ["api.test", "x.ads.test", "given.test", "localhost"]
