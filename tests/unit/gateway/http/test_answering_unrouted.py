"""A request that no route answers gets a response that says why."""

from __future__ import annotations

from pytest_egress.traffic.entries import Exchange
from tests.support.stage import FIRST, Stage, ask

# What is refused.


def test_an_unclaimed_request_gets_502_and_says_what_would_answer_it(stage: Stage) -> None:
    stage.https("apis.test", path="/v1")
    reply = ask(stage.tls(), b"GET /v1?a=b HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert (reply.status, reply.headers["content-type"]) == (502, "text/plain; charset=utf-8")
    assert reply.body.decode() == (
        "pytest-egress: no route answers GET https://api.test/v1?a=b\n"
        "nearest route: intercept_https(\"apis.test\", path='/v1')\n"
        "    declared at test_it.py:7\n"
        "    host: 'api.test' is not 'apis.test'\n"
        'to answer it: egress.intercept_https("api.test", method="GET", path="/v1")\n'
    )
    assert stage.only(Exchange).outcome == "unrouted"


def test_a_request_that_no_matcher_accepts_is_unrouted_whatever_the_policy(stage: Stage) -> None:
    stage.window.policy = "block"
    stage.https("api.test", method="POST", json={"a": 1})
    reply = ask(stage.tls())
    assert reply.status == 502
    assert reply.body.decode() == (
        "pytest-egress: no route answers GET https://api.test/\n"
        "nearest route: intercept_https(\"api.test\", method='POST', json={'a': 1})\n"
        "    declared at test_it.py:7\n"
        "    method: GET is not POST\n"
        "    json: the request has no body. json= is a condition; the answer is the second argument\n"
        'to answer it: egress.intercept_https("api.test", method="GET", path="/")\n'
    )
    assert stage.only(Exchange).outcome == "unrouted"


def test_what_is_blocked_gets_502_and_says_by_what(stage: Stage) -> None:
    stage.route("block", "api.test")
    reply = ask(stage.tls())
    assert (reply.status, reply.body.decode()) == (
        502,
        'pytest-egress: GET https://api.test/ is blocked by block("api.test")  declared at test_it.py:7\n',
    )
    assert stage.only(Exchange).outcome == "blocked"


def test_the_policy_blocks_what_no_route_claims(stage: Stage) -> None:
    stage.window.policy = "block"
    reply = ask(stage.tls())
    assert (reply.status, reply.body.decode()) == (
        502,
        'pytest-egress: GET https://api.test/ is blocked by unrouted="block"\n',
    )
    assert stage.only(Exchange).outcome == "blocked"


def test_a_host_that_is_not_the_server_name_is_misdirected(stage: Stage) -> None:
    route = stage.https("api.test")
    reply = ask(stage.tls(), b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
    assert (reply.status, reply.body.decode()) == (
        421,
        "pytest-egress: GET https://api.test/: its Host is 'evil.test', which is not 'api.test'\n",
    )
    assert stage.only(Exchange).outcome == "unrouted"
    assert not route.called


def test_a_host_that_is_not_the_dialled_name_is_misdirected(stage: Stage) -> None:
    stage.resolve("api.test")
    for host in (b"evil.test", b"203.0.113.9", b"[", b"a b"):
        request = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host
        assert ask(stage.dial(FIRST, 80), request).status == 421
