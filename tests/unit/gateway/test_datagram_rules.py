"""The rules by which a target's kernel lets datagrams out: what routes decide, for names and for literal addresses."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from pytest_egress.agent.dials import DATAGRAMS, INSERT, LET_OUT, REPLACE, RULE
from pytest_egress.errors import LinkError
from pytest_egress.gateway.datagram_rules import NO_SOCKET, candidates
from pytest_egress.link.changes import NOT_LET_OUT
from tests.support.loopback import LoopbackLink
from tests.support.stage import FIRST, Stage


class NoDatagrams:
    """A link of a sidecar without CAP_NET_RAW."""

    datagrams = None

    def __init__(self, link: LoopbackLink) -> None:
        self.change_dials = link.change_dials


Rule = tuple[bool, str, int]


def rules_of(message: bytes) -> tuple[bytes, list[Rule]]:
    """How a message changes the rules, and its rules: whether each lets out, the network and the port."""
    assert message[:1] == DATAGRAMS
    found = []
    for verdict, version, prefix, port, _, address in RULE.iter_unpack(message[2:]):
        packed = address[:4] if version == 4 else address
        found.append((verdict == LET_OUT, str(ip_network((packed, prefix))), port))
    return message[1:2], found


def latest(stage: Stage) -> list[Rule]:
    stage.gateway.revise()
    return rules_of(stage.link.changes[-1])[1]


def test_without_a_route_of_datagrams_the_kernel_is_told_nothing(stage: Stage) -> None:
    stage.route("block", "*")
    stage.resolve("a.test")
    stage.gateway.revise()
    assert stage.link.changes == []


def test_a_name_is_let_out_before_its_address_is_given_and_changes_no_other_rule(
    stage: Stage,
) -> None:
    stage.route("intercept_udp", "*.test:9")
    stage.gateway.revise()
    assert stage.link.changes == []
    stage.resolve("a.test")
    how, first = rules_of(stage.link.changes[0])
    assert how == INSERT
    assert (True, f"{FIRST}/32", 9) in first
    stage.resolve("b.test")
    how, more = rules_of(stage.link.changes[-1])
    assert how == INSERT
    assert f"{FIRST}/32" not in {network for _, network, _ in more}


def test_the_first_route_that_fits_decides(stage: Stage) -> None:
    stage.resolve("a.test")
    stage.route("block", "a.test")
    stage.route("intercept_udp", "*.test:9")
    assert (True, f"{FIRST}/32", 9) not in latest(stage)
    stage.route("intercept_udp", "a.test:9")
    assert [rule for rule in latest(stage) if rule[1] == f"{FIRST}/32"] == [
        (True, f"{FIRST}/32", 9),
        (False, f"{FIRST}/32", 0),
    ]


def test_a_route_without_a_port_leaves_dns_and_https_alone(stage: Stage) -> None:
    stage.resolve("a.test")
    stage.route("intercept_https", "a.test")
    stage.route("intercept_udp", "a.test")
    assert [rule for rule in latest(stage) if rule[1] == f"{FIRST}/32"] == [
        (False, f"{FIRST}/32", 53),
        (False, f"{FIRST}/32", 443),
        (True, f"{FIRST}/32", 0),
    ]
    tables = [stage.table]
    assert not [*candidates(tables, ["a.test"], 443)]
    assert not [*candidates(tables, ["a.test"], 53)]
    assert [host for host, _ in candidates(tables, ["a.test"], 9)] == ["a.test"]


def test_literal_addresses_come_after_names(stage: Stage) -> None:
    stage.route("intercept_udp", "198.51.100.0/24")
    stage.route("block", "198.51.100.9")
    stage.route("intercept_https", "198.51.100.7")
    assert latest(stage) == [
        (False, "198.51.100.9/32", 0),
        (False, "198.51.100.0/24", 53),
        (False, "198.51.100.7/32", 443),
        (True, "198.51.100.0/24", 0),
    ]


def test_a_removed_route_lets_nothing_out(stage: Stage) -> None:
    stage.resolve("a.test")
    route = stage.route("intercept_udp", "a.test:9")
    assert latest(stage)
    route.remove()
    stage.gateway.revise()
    assert rules_of(stage.link.changes[-1]) == (REPLACE, [])


def test_a_sidecar_without_the_capability_says_so(stage: Stage) -> None:
    stage.resolve("a.test")
    stage.gateway.datagram_rules._link = NoDatagrams(stage.link)  # type: ignore[assignment]
    stage.route("intercept_udp", "a.test:9")
    stage.gateway.revise()
    assert stage.link.changes == []
    with pytest.raises(LinkError, match="CAP_NET_RAW"):
        stage.gateway.datagram_rules.check()
    assert stage.window.complaints == [f"target: {NO_SOCKET}"]
    stage.window.complaints.clear()


def test_a_kernel_that_refuses_fails_the_test(stage: Stage) -> None:
    stage.link.refusal = NOT_LET_OUT.format("why")
    stage.route("intercept_udp", "192.0.2.1:9")
    stage.gateway.revise()
    assert stage.window.complaints == [f"target: {NOT_LET_OUT.format('why')}"]
    stage.window.complaints.clear()
