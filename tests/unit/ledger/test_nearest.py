"""A route that was never called names the nearest request, and what answered it."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress import partial
from pytest_egress.ledger.nearest import nearest_lines
from pytest_egress.ledger.verdict import judge
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import BLOCK, INTERCEPT_HTTP, PASSTHROUGH
from pytest_egress.traffic.entries import Exchange, Outcome
from tests.support.attempts import route, route_of
from tests.support.traffic import request


def exchanged(
    url: str = "https://api.test/v1/charge",
    by: InnerRoute | None = None,
    outcome: Outcome = "routed",
    note: str = "",
    **fields: Any,
) -> Exchange:
    asked = request(url, **fields)
    about: dict[str, Any] = {"container": "shop", "started": 1.0, "outcome": outcome, "note": note}
    return Exchange(**about, host=asked.host, port=asked.port, request=asked, route=by)


def test_the_verdict_names_the_nearest_request_and_the_route_that_answered_it() -> None:
    general, missed = route(optional=True), route(path="/v1/charges", method="POST")
    entries = [exchanged(by=general), exchanged(by=general, method="POST")]
    verdict = judge(Window(entries=[*entries]), [general, missed])
    assert str(verdict) == (
        "a route was never called:\n\n"
        "  intercept_https(\"api.test\", method='POST', path='/v1/charges')  declared at test_it.py:7\n"
        "      nearest request: POST https://api.test/v1/charge\n"
        "          path: '/v1/charge' is not '/v1/charges'\n"
        '          answered by intercept_https("api.test"), declared at test_it.py:7\n\n'
        "Remove it, or declare it with optional=True."
    )


def told(missed: InnerRoute, *entries: Exchange, declared: list[InnerRoute]) -> list[str]:
    return [line.strip() for line in nearest_lines(missed, entries, declared)]


def test_the_path_decides_before_the_method_and_the_method_before_the_rest() -> None:
    general, missed = route(), route(path="/a", method="POST", headers={"x": "1", "y": "2"})
    other_path = exchanged(
        "https://api.test/b", general, method="POST", headers={"x": "1", "y": "2"}
    )
    other_method = exchanged("https://api.test/a", general, headers={"x": "1", "y": "2"})
    neither = exchanged("https://api.test/a", general, method="POST")
    listed = [other_path, other_method, neither]
    for nearest in (neither, other_method, other_path):
        first, *_ = told(missed, *listed, declared=[general, missed])
        assert first == f"nearest request: {nearest}"
        listed.remove(nearest)


def test_of_bodies_the_nearest_counts() -> None:
    general, missed = route(), route(json=partial({"a": 1, "b": 2}))
    entries = [exchanged(by=general, content=body) for body in (b"{}", b'{"a": 1, "b": 3}')]
    lines = told(missed, *entries, declared=[general, missed])
    assert lines[1] == "json.b: 3 is not 2"


def test_a_route_that_comes_first_is_told() -> None:
    missed = route(path="/v1/*")
    specific, later = route(path="/v1/{name}"), route(path="/v1/*")
    for first in (specific, later):
        lines = told(missed, exchanged(by=first), declared=[missed, specific, later])
        assert lines[1].startswith("it fits, and another route comes first: ")


@pytest.mark.parametrize("note", ["", "match: is_big raised KeyError: 'x'"])
def test_a_predicate_is_not_called_again(note: str) -> None:
    def is_big(request: object) -> bool:
        raise AssertionError("called again")

    general, missed = route("module"), route(match=is_big)
    lines = told(missed, exchanged(by=general, note=note), declared=[missed])
    assert lines[1] == (note or "match: is_big did not accept it")


@pytest.mark.parametrize(
    ("by", "outcome", "answered"),
    [
        (route_of(declare(BLOCK, "api.test")), "blocked", 'refused by block("api.test"), declared'),
        (route_of(declare(PASSTHROUGH, "*")), "passthrough", 'passed on by passthrough("*"), decl'),
        (None, "passthrough", 'passed on by unrouted="passthrough"'),
        (None, "blocked", 'refused by unrouted="block"'),
        (None, "recorded", "not answered"),
    ],
)
def test_what_became_of_the_nearest_request_is_told(
    by: InnerRoute | None, outcome: Outcome, answered: str
) -> None:
    missed = route(path="/other")
    lines = told(missed, exchanged(by=by, outcome=outcome), declared=[missed])
    assert lines[-1].startswith(answered)


def test_another_scheme_and_a_misspelt_host_are_differences() -> None:
    every, missed = route_of(declare(INTERCEPT_HTTP, "*")), route()
    for url, reason in (
        ("http://api.test/", "scheme: http is not https"),
        ("http://apis.test:443/", "host: 'apis.test' is not 'api.test'"),
    ):
        assert reason in told(missed, exchanged(url, every), declared=[every, missed])


def test_a_request_that_was_for_another_route_is_not_near() -> None:
    other, missed = route_of(declare(INTERCEPT_HTTP, "apis.test")), route()
    entry = exchanged("http://apis.test/", other)
    assert told(missed, entry, declared=[other, missed]) == []
    assert told(missed, exchanged(by=missed), declared=[missed]) == []


def test_secrets_of_the_nearest_request_stay_masked() -> None:
    general, missed = route(), route(query={"api_key": "shown"})
    entry = exchanged("https://api.test/?api_key=sk_live_12345678", general)
    lines = told(missed, entry, declared=[general, missed])
    assert lines[1] == "query['api_key']: 'sk_l... (16 characters)' is not 'shown'"
    assert not [line for line in lines if "12345678" in line]
