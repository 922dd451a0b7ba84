"""Which route answers, and which is nearest."""

from __future__ import annotations

import re
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import lists, sampled_from, tuples

from pytest_egress.base.account import OverLimitError
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.duplex import ClientLeftError, ClientStoppedError
from pytest_egress.routes.faults import refuse
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import (
    NearMiss,
    claimed,
    decide,
    forecast,
    in_order,
    nearest_by_address,
    nearest_by_name,
    offered,
    opening,
    proxy_route,
)
from tests.support.routes import Routes
from tests.support.traffic import request


@pytest.fixture
def routes() -> Routes:
    return Routes()


# Which route.


def raises(error: type[Exception]) -> Any:
    def predicate(request: Any) -> bool:
        raise error

    return predicate


def test_the_nearest_scope_wins_over_the_most_specific_address(routes: Routes) -> None:
    session = routes.https("api.test", scope="session")
    module = routes.https("*", scope="module")
    assert routes.decide().route is module
    module.remove()
    assert routes.decide().route is session


@pytest.mark.parametrize(
    ("wide", "narrow", "url"),
    [
        ("*", "*.test", "https://api.test/"),
        ("*.test", "a*i.test", "https://api.test/"),
        ("*pi.test", "api.test", "https://api.test/"),
        ("api.test:*", "api.test:443", "https://api.test/"),
        ("*:443", "api.test:*", "https://api.test/"),
        ("203.0.113.0/24", "203.0.113.0/28", "https://203.0.113.9/"),
        ("203.0.113.0/28", "203.0.113.9", "https://203.0.113.9/"),
    ],
)
def test_within_a_scope_the_most_specific_address_wins(
    routes: Routes, wide: str, narrow: str, url: str
) -> None:
    first = routes.https(narrow)
    routes.https(wide)
    assert routes.decide(url).route is first
    last = routes.https(narrow)
    assert routes.decide(url).route is last


def test_of_equal_addresses_the_latest_wins_until_it_is_removed(routes: Routes) -> None:
    first, second = routes.https(), routes.https()
    assert routes.decide().route is second
    second.remove()
    assert routes.decide().route is first


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ({}, {"path": "/*"}),
        ({"path": "*"}, {"path": re.compile("/v1/a")}),
        ({"path": re.compile("/v1/a")}, {"path": "/*"}),
        ({"path": "/*"}, {"path": "/v1/*"}),
        ({"path": "/v1/*"}, {"path": "/v1/{name}"}),
        ({"path": "/{version}/{name}"}, {"path": "/v1/{name}"}),
        ({"path": "/v1/{name}"}, {"path": "/v1/a"}),
    ],
)
def test_of_equal_addresses_the_most_specific_path_wins(
    routes: Routes, wide: dict[str, Any], narrow: dict[str, Any]
) -> None:
    first = routes.https(**narrow)
    second = routes.https(**wide)
    url = "https://api.test/v1/a"
    assert routes.decide(url).route is first
    last = routes.https(**narrow)
    assert routes.decide(url).route is last
    last.remove()
    first.remove()
    assert routes.decide(url).route is second


def test_a_more_specific_address_wins_over_a_more_specific_path(routes: Routes) -> None:
    route = routes.https("api.test")
    routes.https("*.test", path="/v1/a")
    assert routes.decide("https://api.test/v1/a").route is route


def test_a_nearer_scope_wins_over_a_more_specific_path(routes: Routes) -> None:
    routes.https(path="/v1/a", scope="module")
    own = routes.https()
    assert routes.decide("https://api.test/v1/a").route is own


def test_a_block_refuses_what_no_path_claims(routes: Routes) -> None:
    route, block = routes.https(path="/v1/*"), routes.add("block", "api.test")
    assert routes.decide("https://api.test/v1/a").route is route
    assert routes.decide("https://api.test/").route is block


def test_the_way_to_read_a_connection_is_decided_by_the_latest_route_whatever_its_path(
    routes: Routes,
) -> None:
    routes.https(path="/v1/a")
    raw = routes.add("intercept_tls", "api.test:443")
    tables = [*routes.tables.values()]
    assert opening(tables, "api.test", 443) is raw
    later = routes.https(path="*")
    assert opening(tables, "api.test", 443) is later


@given(
    paths=lists(sampled_from([None, "*", "/*", "/v1/*", "/{a}/b", "/v1/{b}", "/v1/b"]), max_size=9)
)
def test_requests_are_offered_to_routes_by_address_then_path_then_declaration(
    paths: list[str | None],
) -> None:
    routes = Routes()
    addresses = cycle(["api.test", "*.test", "api.test:443"])
    every = [routes.https(next(addresses), path=path) for path in paths]

    def rank(route: InnerRoute) -> tuple[object, ...]:
        path = route.matcher.path_matcher.rank
        return route.parsed_address.specificity, path, every.index(route)

    tables = [*routes.tables.values()]
    found = [*offered(tables, request("https://api.test/v1/b"))]
    assert found == sorted(every, key=rank, reverse=True)


# A predicate that raises.


def test_the_next_route_answers_what_a_predicate_raised_about(routes: Routes) -> None:
    general = routes.https()
    broken = routes.https(path="/", match=raises(KeyError))
    decision = routes.decide()
    assert (decision.route, [miss.route for miss in decision.near]) == (general, [broken])


def test_where_no_route_answers_the_error_of_the_predicate_is_known(routes: Routes) -> None:
    routes.https(path="/", match=raises(KeyError))
    routes.https(method="POST")
    decision = routes.decide()
    assert decision.route is None
    assert [type(miss.error) for miss in decision.near if miss.error] == [KeyError]


@pytest.mark.parametrize("error", [ClientLeftError, ClientStoppedError, OverLimitError])
def test_the_end_of_a_client_within_a_predicate_is_no_error_of_the_predicate(
    routes: Routes, error: type[Exception]
) -> None:
    routes.https()
    routes.https(path="/", match=raises(error))
    with pytest.raises(error):
        routes.decide()


def test_a_predicate_may_fail_the_test_whatever_other_routes_there_are(routes: Routes) -> None:
    routes.https()
    routes.https(path="/", match=lambda request: pytest.fail("not like this"))
    with pytest.raises(pytest.fail.Exception, match="not like this"):
        routes.decide()


def test_a_route_that_does_not_match_leaves_the_request_to_the_next(routes: Routes) -> None:
    session = routes.https("*", scope="session")
    routes.https("api.test", method="POST")
    assert routes.decide().route is session


def test_a_route_answers_its_own_protocol_and_a_block_all(routes: Routes) -> None:
    plain = routes.add("intercept_http", "api.test:*")
    secure = routes.https("api.test:*")
    block = routes.add("block", "*")
    assert routes.decide("http://api.test/").route is plain
    assert routes.decide("https://api.test/").route is secure
    assert routes.decide("http://other.test/").route is block


def test_a_connection_is_claimed_by_the_first_route_of_any_protocol(routes: Routes) -> None:
    tables = list(routes.tables.values())
    assert claimed(tables, "api.test", 443) is None
    route = routes.https(scope="module")
    assert claimed(tables, "api.test", 443) is route
    assert claimed(tables, "api.test", 80) is None
    block = routes.add("block", "*")
    assert claimed(tables, "api.test", 443) is block


# What would have answered.


def test_near_misses_come_with_the_nearest_path_first_and_then_the_method(routes: Routes) -> None:
    other_path = routes.https(path="/v1/customers")
    near_path = routes.https(path="/v1/charges")
    other_method = routes.https(path="/v1/charge", method="POST")
    other_field = routes.https(path="/v1/{kind}", headers={"a": "b", "c": "d"}, query={"e": "f"})
    decision = routes.decide("https://api.test/v1/charge")
    found = [miss.route for miss in decision.near]
    assert found == [other_field, other_method, near_path, other_path]


def test_near_misses_come_with_the_fewest_differences_first(routes: Routes) -> None:
    far = routes.https(method="POST", path="/a", query={"x": "y"})
    near = routes.https(method="POST")
    decision = routes.decide()
    assert decision.route is None
    assert [(miss.route, len(miss.differences)) for miss in decision.near] == [(near, 1), (far, 3)]


@pytest.mark.parametrize(
    ("kind", "address", "differences"),
    [
        ("intercept_https", "apis.test", ("host: 'api.test' is not 'apis.test'",)),
        ("intercept_https", "api.test:8443", ("port: 443 is not 8443",)),
        ("intercept_http", "api.test", ("scheme: https is not http", "port: 443 is not 80")),
        ("intercept_http", "api.test:443", ("scheme: https is not http",)),
        ("intercept_https", "completely.example", None),
        ("block", "apis.test", None),
    ],
)
def test_of_other_addresses_the_most_alike_is_named(
    routes: Routes, kind: str, address: str, differences: tuple[str, ...] | None
) -> None:
    route = routes.add(kind, address)
    routes.https("far.example")
    miss = nearest_by_address(list(routes.tables.values()), "https", "api.test", 443)
    assert (miss and (miss.route, miss.differences)) == (differences and (route, differences))
    route.remove()
    assert nearest_by_address(list(routes.tables.values()), "https", "api.test", 443) is None


def test_the_same_name_is_nearer_than_one_like_it(routes: Routes) -> None:
    same = routes.add("intercept_http", "api.test:443")
    routes.https("apis.test")
    miss = nearest_by_address(list(routes.tables.values()), "https", "api.test", 443)
    assert miss is not None
    assert miss.route is same


def test_during_a_test_its_own_calls_are_seen_and_otherwise_all(routes: Routes) -> None:
    route, earlier, now = routes.https(scope="session"), Window(), Window()
    first, second = routes.call(route, window=earlier), routes.call(route, window=now)
    assert route.calls == [first, second]
    routes.ledger.window = now
    assert route.calls == [second]
    assert route.assert_called_once() is second
    assert route.wait_for_call() is second
    assert route.lifetime_count == 2


# Many routes.


HOSTS = ["api.test", "b.test", "api.other.test", "192.0.2.7", "2001:db8::7", "nowhere.test"]
ADDRESSES = [
    "api.test", "api.test:443", "api.test:80", "b.test", "192.0.2.7", "[2001:db8::7]", "192.0.2.0/24", "192.0.2.0/29",
    "*.test", "*.other.test", "a*", "*", "*:443",
]  # fmt: skip


@given(
    declared=lists(
        tuples(sampled_from(["test", "module", "session"]), sampled_from(ADDRESSES)), max_size=12
    ),
    host=sampled_from(HOSTS),
    port=sampled_from([80, 443]),
)
def test_a_look_up_by_host_finds_what_a_look_at_all_routes_in_order_finds(
    declared: list[tuple[str, str]], host: str, port: int
) -> None:
    routes = Routes()
    every = [routes.https(address, scope=scope) for scope, address in declared]

    def rank(route: InnerRoute) -> tuple[object, ...]:
        near = -[*routes.tables].index(route.scope)
        return near, route.parsed_address.specificity, every.index(route)

    covering = sorted((r for r in every if r.covers(host, port)), key=rank, reverse=True)
    tables = [*routes.tables.values()]
    assert claimed(tables, host, port) is next(iter(covering), None)
    assert [r for r in in_order(tables, host) if r.covers(host, port)] == covering
    assert {*in_order(tables)} == {*every}


def test_a_route_that_is_declared_later_is_a_near_miss_of_the_same_host_too(routes: Routes) -> None:
    tables = [*routes.tables.values()]
    assert nearest_by_address(tables, "https", "api.test", 443) is None
    later = routes.https("apis.test")
    miss = nearest_by_address(tables, "https", "api.test", 443)
    assert miss is not None
    assert miss.route is later
    later.remove()
    assert nearest_by_address(tables, "https", "api.test", 443) is None


def test_a_table_knows_whether_a_route_requires_a_certificate(routes: Routes) -> None:
    table = routes.tables["test"]
    routes.https(client_certificate="request")
    assert not table.requires_certificate
    routes.https(client_certificate="require")
    assert table.requires_certificate


# Faults of connecting.


def test_a_table_knows_the_routes_that_refuse_whatever_they_are_given(routes: Routes) -> None:
    first = routes.add("intercept_tcp", "a.test:5432", refuse())
    second = routes.add("intercept_tcp", "b.test:5432", b"ready")
    table = routes.tables["test"]
    refusing = [table.refusing]
    second.respond(sequence(b"ready", refuse()))
    second.respond(refuse())
    refusing.append(table.refusing)
    first.respond(b"ready")
    refusing.append(table.refusing)
    assert refusing == [(first,), (first, second), (second,)]


def test_the_routes_of_addresses_are_in_the_order_in_which_they_are_tried(routes: Routes) -> None:
    for address in ("*", "192.0.2.0/24", "*.test", "api.test", "192.0.2.7", "192.0.2.7:443"):
        routes.add("intercept_tcp", address, refuse())
    found = [route.address for route in routes.tables["test"].of_addresses()]
    assert found == ["192.0.2.7:443", "192.0.2.7", "192.0.2.0/24", "*"]


def test_a_name_by_idna_2003_is_linked_to_the_route_that_was_meant(routes: Routes) -> None:
    route = routes.https("fa\u00df.test")
    routes.https("fast.test")
    tables = [*routes.tables.values()]
    why = "'fass.test' is not 'xn--fa-hia.test', which 'fa\u00df.test' is by IDNA 2008; its client goes by IDNA 2003"
    miss = nearest_by_address(tables, "https", "fass.test", 443)
    assert miss == NearMiss(route=route, differences=(f"host: {why}",))
    assert nearest_by_name(tables, "fass.test") == NearMiss(
        route=route, differences=(f"name: {why}",)
    )


# What would answer a request that gets no answer.


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize(
    ("conditions", "answers_whole", "answers_part"),
    [
        ({}, True, True),
        ({"path": "/"}, True, True),
        ({"path": "/other"}, False, False),
        ({"json": 1}, True, True),
        ({"json": 2}, False, True),
        ({"content": b"2"}, False, True),
        ({"match": lambda request: True}, True, True),
        ({"match": lambda request: False}, False, False),
        ({"match": lambda request: False, "json": 1}, False, False),
        ({"match": raises(ClientLeftError)}, False, True),  # it has read what did not come
        ({"match": raises(ConnectionRefusedError)}, False, False),  # of a server of its own
        ({"match": raises(KeyError)}, False, False),
    ],
)
def test_what_would_answer_a_request_is_told_by_what_has_come(
    routes: Routes,
    conditions: dict[str, Any],
    answers_whole: bool,
    answers_part: bool,
    is_whole: bool,
) -> None:
    route = routes.https(**conditions)
    tables = list(routes.tables.values())
    found = forecast(tables, request(content=b"1"), is_whole=is_whole)
    would_answer = answers_whole if is_whole else answers_part
    assert found.route is (route if would_answer else None)
    assert [miss.route for miss in found.near] == ([] if would_answer else [route])


def test_what_would_answer_takes_no_turn_and_has_one_left(routes: Routes) -> None:
    route, tables = routes.https(times=1), list(routes.tables.values())
    assert all(forecast(tables, request()).route is route for _ in range(3))
    assert routes.decide().route is route
    spent = forecast(tables, request())
    assert (spent.route, spent.near[0].is_spent) == (None, True)


def test_a_route_whose_certificate_is_missing_would_not_answer(routes: Routes) -> None:
    route = routes.https(client_certificate="require")
    found = forecast(list(routes.tables.values()), request())
    assert (found.route, found.unproved) == (None, route)


def test_a_predicate_is_told_of_before_it_is_asked_and_no_other_condition_is(
    routes: Routes,
) -> None:
    told: list[object] = []

    def predicate(request: Any) -> bool:
        told.append("asked")
        return True

    route, tables = routes.https(match=predicate), list(routes.tables.values())
    routes.https(path="/other", match=predicate)
    decide(tables, request(), told.append)
    forecast(tables, request(), told.append)
    assert told == [route, "asked"] * 2


def test_the_first_route_that_decides_about_all_of_an_address_decides_about_a_proxy_there(
    routes: Routes,
) -> None:
    wide = routes.add("proxy", "*:3128", scope="session")
    tables = list(routes.tables.values())

    def found(port: int = 3128) -> InnerRoute | None:
        return proxy_route(tables, "proxy.test", port)

    assert (found(), found(3129)) == (wide, None)
    plain = routes.add("intercept_http", "proxy.test:3128")
    assert found() is wide
    block = routes.add("block", "*", scope="module")
    assert found() is None
    near = routes.add("proxy", "proxy.test:3128")
    assert found() is near
    near.remove()
    assert found() is None
    block.remove()
    assert found() is wide
    passing = routes.add("passthrough", "proxy.test")
    assert found() is None
    passing.remove()
    plain.remove()
    routes.add("dns", "proxy.test", "192.0.2.7")
    assert found() is wide


@pytest.mark.parametrize("first", ["block", "proxy"])
def test_of_a_proxy_and_a_block_at_one_address_the_latest_declared_decides(
    routes: Routes, first: str
) -> None:
    routes.add(first, "proxy.test:3128")
    last = routes.add("proxy" if first == "block" else "block", "proxy.test:3128")
    found = proxy_route(list(routes.tables.values()), "proxy.test", 3128)
    assert found is (last if first == "block" else None)
