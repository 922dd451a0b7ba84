"""What a kernel is to do with dials, as messages to the agent."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest

from pytest_egress.agent.dials import INSERT, MAX_BYTES, MAX_RULES, REPLACE, RULE
from pytest_egress.agent.mux import WINDOW
from pytest_egress.errors import LinkError
from pytest_egress.link.changes import (
    DialRule,
    Verdict,
    change,
    datagram_change,
    insertion,
    own_port,
    replacement,
)

ONE = DialRule(Verdict.REFUSED, ip_network("192.0.2.0/24"), None)
OTHER = DialRule(Verdict.SWALLOWED, ip_network("2001:db8::1"), 443, b"12345678")


def test_rules_are_packed_one_after_the_other() -> None:
    message = replacement([ONE, OTHER])
    assert message[:1] == REPLACE
    assert [*RULE.iter_unpack(message[1:])] == [
        (1, 4, 24, 0, bytes(8), socket.inet_aton("192.0.2.0") + bytes(12)),
        (3, 6, 128, 443, b"12345678", socket.inet_pton(socket.AF_INET6, "2001:db8::1")),
    ]


def test_an_insertion_is_told_from_a_replacement() -> None:
    assert insertion([ONE]) == INSERT + replacement([ONE])[1:]
    assert replacement([]) == REPLACE


def test_rules_that_are_put_before_the_others_are_told_alone() -> None:
    assert change([], [ONE]) == insertion([ONE])
    assert change([ONE], [OTHER, ONE]) == insertion([OTHER])
    assert change([ONE], [ONE, OTHER]) == replacement([ONE, OTHER])
    assert change([ONE, OTHER], [ONE]) == replacement([ONE])


def test_there_are_no_more_rules_than_either_link_takes() -> None:
    assert len(datagram_change([], [ONE] * MAX_RULES)) == MAX_BYTES <= WINDOW
    with pytest.raises(LinkError, match=r"takes 2049 rules .* and 2048 are the most\. Declare"):
        change([ONE] * MAX_RULES, [ONE] * (MAX_RULES + 1))


def test_the_port_id_is_among_the_features() -> None:
    assert own_port(["frames", "dials=1234"]) == 1234
    assert own_port(["frames"]) == 0
