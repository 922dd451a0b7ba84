"""What dials a name that has a CNAME, and what dials the name that this leads to: two names, told apart."""

from __future__ import annotations

import socket

import pytest

from pytest_egress import forward, refuse
from pytest_egress.gateway.dials import VERDICTS
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.traffic.entries import Exchange, PacketAttempt, TcpConnection
from tests.support.outside import EDGE, Outside
from tests.support.stage import (
    ADDRESS,
    FIRST,
    GET,
    SECOND,
    Stage,
    ask,
    end_of,
    log_of,
    read_reply,
    udp,
)

TO_ALIAS = GET.replace(b"api.test", b"al.test")
TO_TARGET = GET.replace(b"api.test", b"tg.test")


@pytest.fixture
def aliased(stage: Stage) -> Stage:
    """Both names have been asked for, the one with a CNAME first: FIRST is its address, SECOND the other's."""
    stage.route("dns", "al.test", CNAME="tg.test")
    assert str(stage.query("al.test").answer[-1][0]) == FIRST
    assert stage.resolve("tg.test") == SECOND
    return stage


def said_to(stage: Stage, address: str) -> bytes:
    sock = stage.dial(address, 5432)
    sock.settimeout(10)
    try:
        return sock.recv(100)
    except ConnectionResetError:
        return b""


# Bytes.


def test_no_route_of_an_alias_answers_what_dials_its_target(aliased: Stage) -> None:
    aliased.tcp("al.test:5432", b"hello")
    assert (said_to(aliased, FIRST), said_to(aliased, SECOND)) == (b"hello", b"")
    assert [(e.host, e.outcome) for e in aliased.entries(TcpConnection)] == [
        ("al.test", "routed"),
        ("tg.test", "unrouted"),
    ]


def test_the_target_is_told_apart_whichever_was_asked_for_last(aliased: Stage) -> None:
    aliased.tcp("tg.test:5432", b"target")
    aliased.tcp("al.test:5432", b"alias")
    aliased.query("al.test")
    assert (said_to(aliased, FIRST), said_to(aliased, SECOND)) == (b"alias", b"target")


def test_a_block_of_an_alias_expects_nothing_of_its_target(aliased: Stage) -> None:
    aliased.route("block", "al.test")
    assert [end_of(aliased.dial(address, 443)) for address in (FIRST, SECOND)] == ["reset"] * 2
    for address in (FIRST, SECOND):
        aliased.link.packet_source.send(log_of(17, address, udp(123, b"time")))
    outcomes = [("al.test", "blocked"), ("tg.test", "unrouted")]
    assert [(e.host, e.outcome) for e in aliased.entries(TcpConnection)] == outcomes
    assert [(e.host, e.outcome) for e in aliased.entries(PacketAttempt)] == outcomes


def test_an_alias_is_its_target_at_the_ports_at_which_that_alone_has_a_route(
    aliased: Stage,
) -> None:
    aliased.tcp("al.test:443", b"unused", optional=True)
    aliased.tcp("tg.test:5432", b"target")
    assert said_to(aliased, FIRST) == b"target"
    assert aliased.only(TcpConnection).host == "tg.test"


def test_a_name_in_the_middle_of_cnames_is_matched_too(stage: Stage) -> None:
    stage.route("dns", "al.test", CNAME="mid.test")
    stage.route("dns", "mid.test", CNAME="tg.test")
    stage.query("al.test")
    stage.tcp("mid.test:5432", b"middle")
    assert said_to(stage, FIRST) == b"middle"


def test_an_alias_is_refused_by_the_kernel_where_its_target_alone_has_a_route(
    aliased: Stage,
) -> None:
    aliased.tcp("tg.test:5432", refuse())
    names = aliased.gateway.names
    assert (names.of(FIRST), names.of(SECOND)) == (("al.test", "tg.test"), ("tg.test",))
    assert refused(aliased) == {FIRST, SECOND}
    aliased.tcp("al.test:5432", b"hello", optional=True)
    assert refused(aliased) == {SECOND}


def refused(stage: Stage) -> set[str]:
    """The IPv4 addresses whose dials the kernel refuses."""
    rules = stage.gateway.dials._in_force
    found = [rule for rule in rules if rule.verdict is VERDICTS[refuse()]]
    return {str(each.network.network_address) for each in found if each.network.version == 4}


# Addresses that routes give.


def test_an_address_that_a_route_gives_is_the_name_s_that_was_answered_with_it_last(
    stage: Stage,
) -> None:
    stage.route("dns", "al.test", CNAME="tg.test")
    stage.route("dns", "tg.test", ADDRESS)
    names = stage.gateway.names
    stage.query("al.test")
    assert names.of(ADDRESS) == ("al.test", "tg.test")
    stage.resolve("tg.test")
    assert names.of(ADDRESS) == ("tg.test",)


def test_a_name_takes_its_own_address_back_from_a_route_that_gave_it_to_another(
    stage: Stage,
) -> None:
    stage.route("dns", "al.test", FIRST)
    names = stage.gateway.names
    for _ in range(2):
        stage.resolve("al.test")
        assert names.of(FIRST) == ("al.test",)
        assert stage.resolve("tg.test") == FIRST
        assert names.of(FIRST) == ("tg.test",)


# Requests.


def test_requests_to_either_name_are_answered_where_only_the_target_has_a_route(
    aliased: Stage,
) -> None:
    aliased.http("tg.test", b"plain")
    aliased.https("tg.test", b"in TLS")
    cases = ((FIRST, TO_ALIAS), (SECOND, TO_TARGET), (FIRST, TO_TARGET))
    assert [ask(aliased.dial(address, 80), get).status for address, get in cases] == [200] * 3
    secure = aliased.tls("al.test", FIRST)
    assert [ask(secure, TO_ALIAS).body for _ in range(2)] == [b"in TLS"] * 2
    assert ask(aliased.tls("tg.test", SECOND), TO_TARGET).body == b"in TLS"
    exchanges = aliased.entries(Exchange)
    assert {(e.host, e.outcome) for e in exchanges} == {("tg.test", "routed")}
    assert exchanges[3].request.url == "https://tg.test/"
    assert exchanges[3].request.headers["host"] == "al.test"


def test_no_route_of_an_alias_answers_requests_to_its_target(aliased: Stage) -> None:
    aliased.http("al.test", b"plain", optional=True)
    aliased.https("al.test", b"in TLS", optional=True)
    assert ask(aliased.dial(SECOND, 80), TO_TARGET).status == 502
    assert ask(aliased.tls("tg.test", SECOND), TO_TARGET).status == 502
    assert {(e.host, e.outcome) for e in aliased.entries(Exchange)} == {("tg.test", "unrouted")}


def test_a_request_to_an_alias_without_any_route_is_unrouted_by_the_name_that_was_asked_for(
    aliased: Stage,
) -> None:
    assert ask(aliased.tls("al.test", FIRST), TO_ALIAS).status == 502
    assert outcome_text(aliased.only(Exchange)).startswith("GET https://al.test/")


def test_a_request_for_a_third_name_is_misdirected(aliased: Stage) -> None:
    aliased.http("tg.test", optional=True)
    aliased.https("tg.test", optional=True)
    aliased.route("dns", "b.test", CNAME="tg.test")
    assert ask(aliased.dial(FIRST, 80), GET.replace(b"api", b"b")).status == 421
    assert ask(aliased.tls("al.test", FIRST), GET.replace(b"api", b"b")).status == 421


def test_an_open_connection_sees_a_route_of_the_alias_at_once(aliased: Stage) -> None:
    aliased.https("tg.test", b"target")
    sock = aliased.tls("al.test", FIRST)
    assert ask(sock, TO_ALIAS).body == b"target"
    aliased.https("al.test", b"alias")
    assert ask(sock, TO_ALIAS).body == b"alias"


def test_a_client_without_sni_may_name_the_alias_that_it_dialled(aliased: Stage) -> None:
    aliased.https("tg.test", b"target")
    aliased.trusting.check_hostname = False
    assert ask(aliased.tls(None, FIRST), TO_ALIAS).body == b"target"


# Real servers.


def test_the_policy_lets_no_alias_of_a_claimed_name_through(aliased: Stage) -> None:
    aliased.window.policy = "passthrough"
    aliased.http("tg.test", path="/other", optional=True)
    assert ask(aliased.dial(FIRST, 80), TO_ALIAS).status == 502
    assert aliased.only(Exchange).outcome == "unrouted"


def test_what_passes_by_the_target_s_route_goes_to_the_target(
    stage: Stage, outside: Outside
) -> None:
    stage.route("dns", "al.test", CNAME="edge.test")
    stage.query("al.test")
    listener = outside.far(socket.create_server, (EDGE, 80))
    stage.http("edge.test", forward())
    with listener, stage.dial(FIRST, 80) as client:
        client.sendall(TO_ALIAS)
        server, _ = listener.accept()
        with server:
            assert b"Host: al.test\r\n" in server.recv(65536)
            server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert read_reply(client).status == 204
