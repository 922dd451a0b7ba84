"""Which route answers, why the others do not, and what a test can ask a route."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any
from unittest.mock import ANY

import pytest

from pytest_egress.errors import CallError
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.answers import Application, sequence
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_HTTPS, KINDS
from pytest_egress.routes.matching import Match, json_differences
from pytest_egress.routes.route import Route
from pytest_egress.routes.table import Decision, RouteTable, claimed, decide, nearest_by_address
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.messages import UNSET, Headers, Request, Response, shown
from tests.support.traffic import request

SECONDS = 10.0
KIND_OF = {kind.method: kind for kind in KINDS}


def called(route: Route[Any]) -> Any:
    """What the route's handler returns."""
    answer, context = route.answer()
    return context.run(answer, request())


class Routes:
    """Tables of the four scopes, nearest first, and the ledger that they share."""

    def __init__(self) -> None:
        self.ledger, self.window = Ledger(), Window()
        self.tables = {scope: RouteTable() for scope in ("test", "class", "module", "session")}

    def add(
        self, kind: str, address: str, handler: object = None, scope: Any = "test", **options: Any
    ) -> Route[Any]:
        declaration = declare(KIND_OF[kind], address, handler, **options)
        route: Route[Any] = Route(declaration, scope=scope, declared_at="", log=self.ledger)
        self.tables[scope].add(route)
        return route

    def https(self, address: str = "api.test", **options: Any) -> Route[Any]:
        return self.add("intercept_https", address, **options)

    def decide(self, *args: Any, **fields: Any) -> Decision:
        return decide(list(self.tables.values()), request(*args, **fields))

    def call(
        self,
        route: Route[Any],
        url: str = "https://api.test/",
        window: Window | None = None,
        **fields: Any,
    ) -> Exchange:
        exchange = Exchange(
            container="target",
            started=0.0,
            outcome="routed",
            host="api.test",
            request=request(url, **fields),
        )
        self.ledger.count(route, window or self.window, exchange)
        return exchange


@pytest.fixture
def routes() -> Routes:
    return Routes()


# Which route.


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


# How often.


def test_a_route_with_times_answers_so_often_and_says_why_no_more(routes: Routes) -> None:
    route = routes.https(times=2)
    assert [routes.decide().route for _ in range(3)] == [route, route, None]
    (miss,) = routes.decide().near
    assert (miss.route, miss.differences) == (route, ("times: it has answered 2 of 2",))


def test_times_are_taken_by_requests_that_match_alone(routes: Routes) -> None:
    route = routes.https(times=1, method="POST")
    assert routes.decide().route is None
    assert routes.decide(method="POST").route is route


def test_times_are_never_given_twice_to_threads(routes: Routes) -> None:
    routes.https(times=50)
    start = threading.Barrier(8)

    def reserve(_: int) -> int:
        start.wait(SECONDS)
        return sum(routes.decide().route is not None for _ in range(25))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(reserve, range(8))) == 50


@pytest.mark.parametrize("times", [0, -1, True, 1.0, "1"])
def test_times_that_are_no_number_of_calls_are_refused(routes: Routes, times: object) -> None:
    with pytest.raises(
        ValueError, match=r"^times=.*: a route answers 1 time or more; leave it out"
    ):
        routes.https(times=times)


# What a request must be like.


@pytest.mark.parametrize(
    ("match", "fields", "differences"),
    [
        ({"method": "post"}, {"method": "POST"}, []),
        ({"method": "post"}, {"method": "GET"}, ["method: GET is not POST"]),
        ({"path": "/"}, {}, []),
        ({"path": "/v1/*/x"}, {"url": "https://api.test/v1/a/b/x"}, []),
        ({"path": "*"}, {"url": "https://api.test/v1"}, []),
        ({"path": "/v1"}, {"url": "https://api.test/v1/x"}, ["path: '/v1/x' is not '/v1'"]),
        ({"path": "/v1.0"}, {"url": "https://api.test/v1x0"}, ["path: '/v1x0' is not '/v1.0'"]),
        ({"query": {"a": "1"}}, {"url": "https://api.test/?b=2&a=1"}, []),
        ({"query": {"a": "b c"}}, {"url": "https://api.test/?a=b+c"}, []),
        ({"query": {"a": ANY}}, {"url": "https://api.test/?a=1"}, []),
        (
            {"query": {"a": "1", "b": "2"}},
            {"url": "https://api.test/?a=2"},
            ["query['a']: '2' is not '1'", "query['b']: absent, expected '2'"],
        ),
        ({"headers": {"ACCEPT": "x"}}, {"headers": Headers({"accept": "x", "other": "y"})}, []),
        (
            {"headers": {"Accept": "x", "X-Y": "z"}},
            {"headers": Headers([("accept", "x"), ("Accept", "y")])},
            ["headers['Accept']: 'x, y' is not 'x'", "headers['X-Y']: absent, expected 'z'"],
        ),
        ({"content": b"x"}, {"content": b"x"}, []),
        ({"content": b"x"}, {"content": b"y"}, ["content: b'y' is not b'x'"]),
        ({"json": None}, {"content": b"null"}, []),
        ({"json": {"a": 1}}, {"content": b"{"}, ["json: the body is no JSON: b'{'"]),
        ({"match": lambda request: request.path == "/"}, {}, []),
        ({"match": bool}, {}, []),
    ],
)
def test_a_request_matches_or_says_in_which_fields_it_differs(
    match: dict[str, Any], fields: dict[str, Any], differences: list[str]
) -> None:
    assert Match(**match).differences(request(**fields)) == differences


def test_a_predicate_is_asked_last_and_named(routes: Routes) -> None:
    asked = []

    def is_big(request: Request) -> bool:
        asked.append(request)
        return False

    matcher = Match(method="POST", match=is_big)
    assert matcher.differences(request()) == ["method: GET is not POST"]
    assert asked == []
    assert matcher.differences(request(method="POST")) == ["match: is_big returned a false value"]


def test_what_a_predicate_raises_comes_through(routes: Routes) -> None:
    routes.https(match=lambda request: request.json()["id"])
    with pytest.raises(ValueError, match="has no JSON body"):
        routes.decide()


@pytest.mark.parametrize(
    ("wanted", "found", "differences"),
    [
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, []),
        ({"a": 1}, {"a": 2}, ["json.a: 2 is not 1"]),
        ({"a": 1}, {}, ["json.a: absent, expected 1"]),
        ({}, {"a-b": 1}, ["json['a-b']: 1 was not expected"]),
        (
            {"items": [{"price": 6}, {"price": 7}]},
            {"items": [{"price": 5}, {"price": 7, "x": 0}]},
            ["json.items[0].price: 5 is not 6", "json.items[1].x: 0 was not expected"],
        ),
        ([1, 2], [1], ["json: 1 items, expected 2"]),
        ({"a": [1]}, {"a": {"0": 1}}, ["json.a: {'0': 1} is not [1]"]),
        (1, 1.0, []),
        (1, True, ["json: True is not 1"]),
        ({"a": [True]}, {"a": [1]}, ["json.a[0]: 1 is not True"]),
        ({"a": ANY, "b": ANY, "c": ANY}, {"a": True, "b": [1], "c": None}, []),
        (ANY, {"a": 1}, []),
        ("x" * 90, "y", [f"json: 'y' is not '{'x' * 27}...{'x' * 27}'"]),
    ],
)
def test_json_differs_by_path(wanted: object, found: object, differences: list[str]) -> None:
    assert list(json_differences(wanted, found)) == differences


def test_a_long_value_is_cut_in_the_middle() -> None:
    assert shown("x" * 58) == repr("x" * 58)
    assert shown("x" * 30 + "y" * 30) == f"'{'x' * 27}...{'y' * 27}'"


@pytest.mark.parametrize(
    ("match", "text"),
    [
        ({"method": 1}, "method= takes str, not int: 1"),
        ({"query": "a=1"}, "query= takes Mapping, not str: 'a=1'"),
        ({"content": "x"}, "content= takes bytes, not str: 'x'"),
        ({"match": "x"}, "match= takes a function of the request, not 'x'"),
        ({"query": {"a": 1}}, "query['a'] takes a str, which it is on the wire, not int: 1"),
        (
            {"headers": {"a": None}},
            "headers['a'] takes a str, which it is on the wire, not NoneType: None",
        ),
    ],
)
def test_a_matcher_of_the_wrong_type_is_refused(match: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError) as caught:
        Match(**match)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/x?a=1", "the query goes into query="),
        ("x", "it starts with / or *"),
        ("https://api.test/x", "it starts with / or *"),
        ("", "it starts with / or *"),
    ],
)
def test_a_path_that_can_never_match_is_refused(path: str, hint: str) -> None:
    with pytest.raises(ValueError, match="can never match") as caught:
        Match(path=path)
    text = f"path={path!r} can never match: a path is without host and query ({hint})"
    assert str(caught.value) == text


def test_a_matcher_reads_as_it_was_declared() -> None:
    matcher = Match(method="GET", path="/x", json=None, match=bool)
    assert str(matcher) == "method='GET', path='/x', json=None, match=bool"
    assert str(Match()) == ""
    assert str(UNSET) == "UNSET"


# What would have answered.


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


# Its answer.


def test_a_handler_is_called_in_the_context_of_its_declaration(routes: Routes) -> None:
    name: ContextVar[str] = ContextVar("name", default="none")
    name.set("declared")
    route = routes.https(handler=lambda request: name.get())
    name.set("later")
    assert called(route) == "declared"
    route.respond(lambda request: name.get())
    assert called(route) == "later"


def test_as_a_decorator_a_route_takes_a_function_and_stays_a_route(routes: Routes) -> None:
    @routes.https()
    def charges(request: Request) -> dict[str, str]:
        return {"path": request.path}

    assert isinstance(charges, Route)
    assert called(charges) == {"path": "/"}
    with pytest.raises(TypeError) as caught:
        routes.https()({"id": 1})
    assert str(caught.value) == "@intercept_https('api.test') decorates a function, not {'id': 1}"


def test_the_answer_can_be_changed_in_place(routes: Routes) -> None:
    route = routes.https(handler={"id": 1})
    assert route.respond(503) is route
    assert route.answer()[0].status_code == 503


class Methods:
    def handler(self, request: Request) -> None: ...

    def __call__(self, request: Request) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [lambda request: None, lambda *args: None, Methods().handler, Methods(), print],
    ids=["lambda", "any number", "method", "object", "builtin"],
)
def test_whatever_can_be_called_with_a_request_is_a_handler(
    routes: Routes, handler: Callable[..., object]
) -> None:
    route = routes.https(handler=handler)
    called(route)


@pytest.mark.parametrize("handler", [lambda: None, lambda request, other: None, dict, Methods])
def test_a_function_that_takes_no_request_is_refused(
    routes: Routes, handler: Callable[..., object]
) -> None:
    with pytest.raises(TypeError) as caught:
        routes.https(handler=handler)
    text = f"the handler {handler!r} cannot be called with one argument, the Request"
    assert str(caught.value).partition(";")[0] == text


@pytest.mark.parametrize(
    ("application", "hint"),
    [
        (lambda environ, start_response: None, "; a WSGI application goes into wsgi(...)"),
        (lambda scope, receive, send: None, "; an ASGI one goes into asgi(...)"),
        (lambda: None, ", the Request"),
    ],
)
def test_an_application_that_is_given_as_a_handler_is_told_where_it_goes(
    routes: Routes, application: Callable[..., object], hint: str
) -> None:
    with pytest.raises(TypeError) as caught:
        routes.https(handler=application)
    assert str(caught.value).endswith(hint)


def test_an_application_is_no_answer_of_a_raw_route(routes: Routes) -> None:
    with pytest.raises(TypeError, match="answers requests, and a raw route has none"):
        routes.add("intercept_tcp", "db.test", Application())


def test_a_sequence_in_place_counts_from_there(routes: Routes) -> None:
    route = routes.https()
    for _ in range(3):
        assert route.reserve() is not None
    route.respond(sequence(201, 202))
    assert route.times == 5
    assert [route.answer(turn)[0].status_code for turn in (3, 4)] == [201, 202]


def test_every_application_of_a_route_is_released_although_one_fails(routes: Routes) -> None:
    class Counted(Application):
        held = 0

        def acquire(self) -> None:
            self.held += 1

        def release(self) -> None:
            self.held -= 1
            if self is bad:
                raise ValueError("bad")

    good, bad, later = Counted(), Counted(), Counted()
    route = routes.https(handler=sequence(good, bad))
    route.respond(later)
    assert (good.held, bad.held, later.held) == (1, 1, 1)  # requests that go on may use them
    with pytest.raises(ValueError, match="bad"):
        route.release()
    assert (good.held, bad.held, later.held) == (0, 0, 0)
    route.release()


def test_an_unknown_matcher_of_an_assertion_is_named(routes: Routes) -> None:
    with pytest.raises(TypeError) as caught:
        routes.https().assert_called_with(paht="/")
    assert str(caught.value) == (
        "assert_called_with() does not take paht=; it takes method, path, query, headers, json, content, match"
    )


def test_an_iterator_is_no_static_answer(routes: Routes) -> None:
    with pytest.raises(TypeError) as caught:
        routes.https(handler=Response(stream=iter([b"x"])))
    assert str(caught.value) == (
        "a static answer is sent many times, its iterator is read once; return it from a function"
    )
    routes.https(handler=Response(stream=[b"x"]))


# Its calls.


def test_calls_come_in_order_and_count(routes: Routes) -> None:
    route = routes.https()
    assert (route.called, route.call_count, route.calls) == (False, 0, [])
    exchanges = [routes.call(route), routes.call(route)]
    assert (route.called, route.call_count, route.calls) == (True, 2, exchanges)


def test_during_a_test_its_own_calls_are_seen_and_otherwise_all(routes: Routes) -> None:
    route, earlier, now = routes.https(scope="session"), Window(), Window()
    first, second = routes.call(route, window=earlier), routes.call(route, window=now)
    assert route.calls == [first, second]
    routes.ledger.window = now
    assert route.calls == [second]
    assert route.assert_called_once() is second
    assert route.wait_for_call() is second
    assert route.lifetime_count == 2


def test_a_call_that_has_happened_is_returned_at_once_and_not_consumed(routes: Routes) -> None:
    route = routes.https()
    first, second = routes.call(route), routes.call(route)
    assert [route.wait_for_call(n, timeout=0) for n in (1, 2, 1)] == [first, second, first]


def test_a_call_is_waited_for(routes: Routes) -> None:
    route = routes.https()
    timer = threading.Timer(0.05, routes.call, [route])
    timer.start()
    assert route.wait_for_call(timeout=SECONDS) in route.calls
    timer.join()


@pytest.mark.parametrize(("calls", "there"), [(0, "was none"), (1, "was 1"), (2, "were 2")])
def test_a_call_that_does_not_come_is_an_error(routes: Routes, calls: int, there: str) -> None:
    route = routes.https(path="/v1", times=3, name="charge")
    for _ in range(calls):
        routes.call(route)
    with pytest.raises(CallError) as caught:
        route.wait_for_call(calls + 1, timeout=0.01)
    assert str(caught.value) == (
        "intercept_https(\"api.test\", path='/v1', times=3, name='charge'): "
        f"waited 0.01 s for call {calls + 1}; there {there}"
    )


def test_calls_are_counted_from_1(routes: Routes) -> None:
    with pytest.raises(ValueError, match="count=0: calls are counted from 1"):
        routes.https().wait_for_call(0)


def test_no_wait_expires_while_a_prompt_is_open(routes: Routes) -> None:
    route, waits = routes.https(), threading.Event()
    found: list[object] = []

    def wait() -> None:
        waits.set()
        found.append(route.wait_for_call(timeout=0.2))

    routes.ledger.enter_prompt()
    thread = threading.Thread(target=wait)
    thread.start()
    assert waits.wait(SECONDS)
    thread.join(0.5)
    assert thread.is_alive()
    exchange = routes.call(route)
    thread.join(SECONDS)
    assert found == [exchange]
    routes.ledger.leave_prompt()


def test_a_wait_goes_on_for_its_rest_when_the_prompt_is_closed(routes: Routes) -> None:
    route = routes.https()
    routes.ledger.enter_prompt()
    routes.ledger.enter_prompt()  # on another thread
    timers = [threading.Timer(0.1, routes.ledger.leave_prompt) for _ in range(2)]
    for timer in timers:
        timer.start()
    with pytest.raises(CallError):
        route.wait_for_call(timeout=0.01)
    for timer in timers:
        timer.join()
    assert not routes.ledger.prompts


def test_assert_called_once_lists_the_calls(routes: Routes) -> None:
    route = routes.https()
    with pytest.raises(CallError) as caught:
        route.assert_called_once()
    assert str(caught.value) == 'intercept_https("api.test"): expected 1 call, there was none'
    exchange = routes.call(route)
    assert route.assert_called_once() is exchange
    routes.call(route, "https://api.test/x", method="PUT")
    with pytest.raises(CallError) as caught:
        route.assert_called_once()
    assert str(caught.value) == (
        'intercept_https("api.test"): expected 1 call, there were 2\n'
        "  GET https://api.test/\n"
        "  PUT https://api.test/x"
    )


def test_assert_called_with_returns_the_first_call_that_matches(routes: Routes) -> None:
    route = routes.https()
    calls = [routes.call(route, f"https://api.test/{n}", method="PUT") for n in (1, 2, 2)]
    assert route.assert_called_with(path="/2", method="put") is calls[1]
    with pytest.raises(CallError) as caught:
        route.assert_called_with(path="/3", method="POST")
    assert str(caught.value) == (
        "intercept_https(\"api.test\"): none of 3 calls matches method='POST', path='/3'\n"
        "  PUT https://api.test/1\n"
        "      method: PUT is not POST\n"
        "      path: '/1' is not '/3'\n"
        "  PUT https://api.test/2\n"
        "      method: PUT is not POST\n"
        "      path: '/2' is not '/3'\n"
        "  PUT https://api.test/2\n"
        "      method: PUT is not POST\n"
        "      path: '/2' is not '/3'"
    )


def test_assert_called_with_says_that_there_was_no_call(routes: Routes) -> None:
    with pytest.raises(CallError, match=r'^intercept_https\("api\.test"\): was not called$'):
        routes.https().assert_called_with(path="/x")


def test_assert_not_called_lists_the_calls_or_frees_the_route(routes: Routes) -> None:
    route = routes.https()
    route.assert_not_called()
    assert route.expected_idle
    called = routes.https()
    routes.call(called)
    with pytest.raises(CallError) as caught:
        called.assert_not_called()
    assert str(caught.value) == (
        'intercept_https("api.test"): expected no call, there was 1\n  GET https://api.test/'
    )
    assert not called.expected_idle


def test_a_route_shows_its_declaration_and_calls(routes: Routes) -> None:
    route = routes.https("*.test", json={"a": 1}, headers={"x": "y"})
    routes.call(route)
    text = "intercept_https(\"*.test\", headers={'x': 'y'}, json={'a': 1})"
    assert str(route) == text
    assert repr(route) == f"<Route {text}, 1 calls>"
    assert isinstance(route.matcher.headers, Mapping)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"query": {"id": uuid.UUID(int=7)}}, "query['id'] takes a str, which it is on the wire"),
        ({"headers": {"user-agent": re.compile("curl.*")}}, "headers['user-agent'] takes a str"),
        ({"headers": {b"user-agent": "x"}}, "headers= takes names that are str, not b'user-agent'"),
        ({"method": ""}, "method='' can never match: leave it out, or name one"),
        ({"path": "/x#y"}, "path='/x#y' can never match: a path is without host and query (a fr"),
        ({"match": lambda: True}, "match= takes a function of the request, not <function"),
    ],
    ids=["uuid", "pattern", "bytes", "method", "fragment", "match"],
)
def test_what_can_never_match_is_refused(options: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(error)):
        declare(INTERCEPT_HTTPS, "a.test", **options)


def test_what_equals_a_text_by_an_equality_of_its_own_may_be_a_matcher() -> None:
    declare(INTERCEPT_HTTPS, "a.test", headers={"user-agent": ANY})


@pytest.mark.parametrize("timeout", [None, "5", -1, float("inf"), float("nan"), True])
def test_what_is_no_time_to_wait_is_refused(timeout: Any) -> None:
    route = Routes().https()
    with pytest.raises(TypeError, match=r"timeout=\S+: it takes a number of seconds"):
        route.wait_for_call(timeout=timeout)
