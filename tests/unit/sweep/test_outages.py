"""What fails before there is a call: which places a test has dialled and looked up, and the route that fails one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_egress.routes.faults import refuse
from pytest_egress.sweep.outages import SweptPlace, outage, places_of
from pytest_egress.traffic.entries import DnsQuery
from tests.support.attempts import LEDGER, attempt, exchange, query


def looked_up(host: str) -> DnsQuery:
    return replace(query(), host=host, answer=("198.18.0.1",))


def test_what_routes_have_answered_was_dialled_and_its_name_looked_up() -> None:
    entries = [looked_up("db.test"), attempt("routed"), attempt("routed"), exchange()]
    assert places_of(entries) == {
        "tcp://db.test:5432": SweptPlace("db.test", 5432),
        "tcp://api.test:443": SweptPlace("api.test", 443),
        "dns://db.test": SweptPlace("db.test"),
    }


def test_what_nobody_has_answered_is_no_place() -> None:
    refused = replace(looked_up("api.test"), answer=(), rcode="NXDOMAIN")
    assert (
        places_of([looked_up("db.test"), attempt("recorded"), attempt("unrouted"), refused]) == {}
    )


def test_a_call_through_a_proxy_has_not_dialled_its_host() -> None:
    call = exchange()
    call.through = "proxy.test:3128"
    assert places_of([looked_up("api.test"), call]) == {}


@pytest.mark.parametrize("host", ["*.test", "a b", "x\x1b]", "[", ""])
def test_a_hostile_name_makes_no_route_for_others(host: str) -> None:
    assert places_of([looked_up(host), replace(exchange(), host=host)]) == {}


@pytest.mark.parametrize(
    ("fault", "place", "address", "answer"),
    [
        ("refuse", SweptPlace("db.test", 5432), "db.test:5432", "refuse()"),
        ("refuse", SweptPlace("2001:db8::1", 443), "[2001:db8::1]:443", "refuse()"),
        ("nxdomain", SweptPlace("db.test"), "db.test", "NXDOMAIN"),
        ("servfail", SweptPlace("db.test"), "db.test", "SERVFAIL"),
        ("unanswered", SweptPlace("db.test"), "db.test", "silence"),
    ],
)
def test_a_fault_is_the_only_route_of_its_table(
    fault: str, place: SweptPlace, address: str, answer: str
) -> None:
    (route,) = outage(fault, place, LEDGER).routes
    assert route.is_swept
    assert route.parsed_address.text == address
    assert answer in f"{route.turns.answer()[0]!r}"


def test_a_kernel_is_told_of_a_refusal() -> None:
    table = outage("refuse", SweptPlace("db.test", 5432), LEDGER)
    (route,) = table.refusing
    given: Any = route.turns.next_fault
    assert (given, route.covers("db.test", 5432), route.covers("db.test", 1)) == (
        refuse(),
        True,
        False,
    )
