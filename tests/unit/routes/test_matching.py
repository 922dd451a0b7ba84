"""A request matches, or says in which fields it differs."""

from __future__ import annotations

import re
import uuid
from typing import Any
from unittest.mock import ANY

import pytest

from pytest_egress import partial
from pytest_egress.base.unset import UNSET
from pytest_egress.errors import AbsentError
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_HTTPS
from pytest_egress.routes.matching import Match
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.shown import shown
from tests.support.routes import Routes
from tests.support.traffic import request


@pytest.fixture
def routes() -> Routes:
    return Routes()


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
        ({"path": "/v1/{id}"}, {"url": "https://api.test/v1/cus_1"}, []),
        ({"path": "/v1/{id}"}, {"url": "https://api.test/v1/"}, ["path: '/v1/' is not '/v1/{id}'"]),
        (
            {"path": "/v1/{id}"},
            {"url": "https://api.test/v1/a/b"},
            ["path: '/v1/a/b' is not '/v1/{id}'"],
        ),
        ({"path": "/v1/{id}.json"}, {"url": "https://api.test/v1/a.json"}, []),
        ({"path": "/{kind}/{the-id}/*"}, {"url": "https://api.test/v1/a/b/c"}, []),
        ({"path": re.compile(r"/v\d/.+")}, {"url": "https://api.test/v2/a"}, []),
        (
            {"path": re.compile(r"/v\d")},
            {"url": "https://api.test/v2/a"},
            [
                "path: '/v2/a' does not match re.compile('/v\\\\d'): a part of it does, and all of it has to"
            ],
        ),
        (
            {"path": re.compile("/w")},
            {"url": "https://api.test/v"},
            ["path: '/v' does not match re.compile('/w')"],
        ),
        ({"query": {"a": "x*"}}, {"url": "https://api.test/?a=xyz"}, []),
        ({"query": {"a": ["*", re.compile("[0-9]")]}}, {"url": "https://api.test/?a=&a=7"}, []),
        (
            {"query": {"a": ["*"], "b": re.compile("[0-9]")}},
            {"url": "https://api.test/?a=1&a=2&b=x"},
            [
                "query['a']: ['1', '2'] is not ['*']",
                "query['b']: 'x' does not match re.compile('[0-9]')",
            ],
        ),
        ({"query": {"a": "1"}}, {"url": "https://api.test/?b=2&a=1"}, []),
        ({"query": {"a": "b c"}}, {"url": "https://api.test/?a=b+c"}, []),
        ({"query": {"a": ANY}}, {"url": "https://api.test/?a=1"}, []),
        (
            {"query": {"a": "1", "b": "2"}},
            {"url": "https://api.test/?a=2"},
            ["query['a']: '2' is not '1'", "query['b']: absent, expected '2'"],
        ),
        ({"query": {"a": "2"}}, {"url": "https://api.test/?a=1&a=2"}, []),
        ({"query": {"a": ["1", "2"]}}, {"url": "https://api.test/?a=1&b=&a=2"}, []),
        ({"query": {"a": ("1", ANY)}}, {"url": "https://api.test/?a=1&a=2"}, []),
        ({"query": {"a": []}}, {"url": "https://api.test/"}, []),
        (
            {"query": {"a": ["2", "1"], "b": ["1"], "c": []}},
            {"url": "https://api.test/?a=1&a=2&c="},
            [
                "query['a']: ['1', '2'] is not ['2', '1']",
                "query['b']: absent, expected ['1']",
                "query['c']: [''] is not []",
            ],
        ),
        (
            {"headers": {"Authorization": "Bearer *", "Accept": "*/*", "User-Agent": ANY}},
            {"headers": Headers({"authorization": "Bearer 1", "accept": "*/*", "user-agent": ""})},
            [],
        ),
        (
            {"headers": {"Authorization": "Bearer *", "User-Agent": re.compile("curl/.*")}},
            {"headers": Headers({"authorization": "Basic 1234567890", "user-agent": "wget"})},
            [
                "headers['Authorization']: 'Basic 12... (10 characters)' is not 'Bearer *'",
                "headers['User-Agent']: 'wget' does not match re.compile('curl/.*')",
            ],
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


def test_what_a_predicate_raises_is_a_difference_with_its_place(routes: Routes) -> None:
    def is_big(request: Request) -> bool:
        return bool(request.headers["x-size"])

    route = routes.https(match=is_big)
    (miss,) = routes.decide().near
    line = is_big.__code__.co_firstlineno + 1
    (difference,) = miss.differences
    assert difference.startswith("match: is_big raised AbsentError: ")
    assert difference.endswith(f", at test_matching.py:{line}")
    assert (miss.route, type(miss.error)) == (route, AbsentError)


def test_a_long_value_is_cut_in_the_middle() -> None:
    assert shown("x" * 58) == repr("x" * 58)
    assert shown("x" * 30 + "y" * 30) == f"'{'x' * 27}...{'y' * 27}'"


@pytest.mark.parametrize(
    ("match", "text"),
    [
        ({"method": 1}, "method= takes str, not int: 1"),
        ({"path": 1}, "path= takes str or Pattern, not int: 1"),
        ({"query": "a=1"}, "query= takes Mapping, not str: 'a=1'"),
        ({"content": "x"}, "content= takes bytes, not str: 'x'"),
        ({"match": "x"}, "match= takes a function of the request, not 'x'"),
        (
            {"query": {"a": ["1", 2]}},
            "query['a'] takes a str, which it is on the wire, or a compiled pattern, not int: 2",
        ),
        (
            {"query": {"a": 1}},
            "query['a'] takes a str, which it is on the wire, or a compiled pattern, not int: 1",
        ),
        (
            {"headers": {"a": None}},
            "headers['a'] takes a str, which it is on the wire, or a compiled pattern, not NoneType: None",
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


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/\u00fc", "/%C3%BC"),
        ("/a b", "/a%20b"),
        ("/*/\u20ac/\t\x7f", "/*/%E2%82%AC/%09%7F"),
        ("/\ud800", "/%ED%A0%80"),
    ],
)
def test_a_path_that_is_not_as_it_is_sent_is_refused_with_what_is(path: str, sent: str) -> None:
    text = (
        f"path={path!r} can never match: a path is compared as it is sent, percent-encoded: "
        f"path={sent!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Match(path=path)
    Match(path=sent)


@pytest.mark.parametrize("path", ["/a%20b", '/"<>[]^`{|}~', "/a;b=c,d!e@f&g=h+i$", "*"])
def test_a_path_that_a_client_may_send_is_accepted(path: str) -> None:
    Match(path=path)


def test_a_matcher_reads_as_it_was_declared() -> None:
    matcher = Match(method="GET", path="/x", json=None, match=bool)
    assert str(matcher) == "method='GET', path='/x', json=None, match=bool"
    patterns = Match(path=re.compile("/x"), headers={"a": "b*"}, json=partial({"c": [ANY]}))
    assert str(patterns) == (
        "path=re.compile('/x'), headers={'a': 'b*'}, json=partial({'c': [<ANY>]})"
    )
    assert str(Match()) == ""
    assert str(UNSET) == "UNSET"


def test_an_unknown_matcher_of_an_assertion_is_named(routes: Routes) -> None:
    with pytest.raises(TypeError) as caught:
        routes.https().assert_called_with(paht="/")
    assert str(caught.value) == (
        "assert_called_with() does not take paht=; it takes method, path, query, headers, json, content, match"
    )
    with pytest.raises(TypeError, match=r"^assert_any_call\(\) does not take paht="):
        routes.https().assert_any_call(paht="/")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"query": {"id": uuid.UUID(int=7)}}, "query['id'] takes a str, which it is on the wire"),
        (
            {"headers": {"user-agent": re.compile(b"curl.*")}},
            "headers['user-agent'] takes a pattern of str, not of bytes: re.compile(b'curl.*')",
        ),
        ({"query": {"a": ["1", re.compile(b"2")]}}, "query['a'] takes a pattern of str, not of"),
        ({"path": re.compile(b"/.*")}, "path= takes a pattern of str, not of bytes: re.compile(b"),
        ({"path": re.compile("v1/.*")}, "path=re.compile('v1/.*') can never match: the pattern"),
        ({"path": "/{}/x"}, "path='/{}/x': {} is no part of a template: {name} is one segment"),
        ({"path": "/{id:int}"}, "path='/{id:int}': {id:int} is no part of a template"),
        ({"json": {"a": [re.compile(b"x")]}}, "json.a[0] takes a pattern of str, not of bytes"),
        ({"json": partial({"a-b": re.compile(b"x")})}, "json['a-b'] takes a pattern of str"),
        ({"headers": {b"user-agent": "x"}}, "headers= takes names that are str, not b'user-agent'"),
        ({"method": ""}, "method='' can never match: leave it out, or name one"),
        ({"method": "GET, POST"}, "method='GET, POST' can never match: it is one token"),
        ({"method": "POST "}, "method='POST ' can never match: it is one token"),
        (
            {"headers": {"a:": "x"}},
            "headers['a:'] can never match: it is no name of a header field",
        ),
        (
            {"headers": {"a": " x"}},
            "headers['a']=' x' can never match: a value is compared without",
        ),
        ({"path": "/x#y"}, "path='/x#y' can never match: a path is without host and query (a fr"),
        ({"match": lambda: True}, "match= takes a function of the request, not <function"),
    ],
    ids=[
        *("uuid", "bytes pattern", "bytes pattern in list", "bytes pattern of path", "no slash"),
        *("empty braces", "typed braces", "bytes pattern in json", "bytes pattern in partial"),
        *("bytes", "method", "methods", "method with space"),
        *("name", "value", "fragment", "match"),
    ],
)
def test_what_can_never_match_is_refused(options: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(error)):
        declare(INTERCEPT_HTTPS, "a.test", **options)


def test_what_equals_a_text_by_an_equality_of_its_own_may_be_a_matcher() -> None:
    declare(INTERCEPT_HTTPS, "a.test", headers={"user-agent": ANY})
