"""Mappings of WireMock, as its recorder writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.cassettes.reading import tape_in


def mapping(
    request: dict[str, Any] | None = None, response: dict[str, Any] | None = None, **more: Any
) -> Any:
    return {
        "request": {"url": "/a?b=1", "method": "GET", **(request or {})},
        "response": {"status": 200, "body": "hi", **(response or {})},
        **more,
    }


def read(*mappings: Any) -> Any:
    return tape_in(json.dumps({"mappings": mappings}), "a.json", lambda name: f"<{name}>".encode())


def test_a_mapping_is_a_recording_for_any_host_that_answers_again() -> None:
    tape = read(mapping(response={"headers": {"Content-Type": "text/plain", "Vary": ["a", "b"]}}))
    (found,) = tape.recordings
    assert (found.request.url, found.request.method, tape.answers_again) == ("/a?b=1", "GET", True)
    assert found.response.body == ("text", "hi")
    assert found.response.headers == (("content-type", "text/plain"), ("vary", "a"), ("vary", "b"))


def test_bodies_of_each_kind() -> None:
    tape = read(
        mapping({"bodyPatterns": [{"equalToJson": '{"a": 1}'}]}, {"jsonBody": {"b": 2}}),
        mapping({"bodyPatterns": [{"equalTo": "x"}]}, {"base64Body": "aGk="}),
        mapping({"bodyPatterns": [{"binaryEqualTo": "/w=="}]}, {"bodyFileName": "x/y.txt"}),
        mapping({"url": None, "urlPath": "/p", "queryParameters": {"q": {"equalTo": "1 2"}}}),
    )
    asked = [each.request.body for each in tape.recordings]
    answered = [each.response.body for each in tape.recordings]
    assert asked == [("json", {"a": 1}), ("text", "x"), ("base64", "/w=="), ("", None)]
    assert answered == [
        ("json", {"b": 2}),
        ("text", "hi"),
        ("text", "<../__files/x/y.txt>"),
        ("text", "hi"),
    ]
    assert tape.recordings[3].request.url == "/p?q=1+2"


def test_a_condition_on_a_header_is_kept_for_the_comparison() -> None:
    (found,) = read(mapping({"headers": {"X-Tenant": {"equalTo": "7"}}})).recordings
    assert found.request.compared == (("x-tenant", "7"),)


def test_a_scenario_is_played_in_the_order_of_its_states() -> None:
    tape = read(
        mapping(response={"body": "3"}, scenarioName="s", requiredScenarioState="b"),
        mapping(
            response={"body": "2"},
            scenarioName="s",
            requiredScenarioState="a",
            newScenarioState="b",
        ),
        mapping(response={"body": "1"}, scenarioName="s", newScenarioState="a"),
    )
    assert [each.response.body.value for each in tape.recordings] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (mapping({"urlPattern": "/a.*"}), "its request has urlPattern, which is no recorded value"),
        (mapping({"bodyPatterns": [{"matches": ".*"}]}), "is no equalTo"),
        (mapping({"bodyPatterns": [{}, {}]}), "several bodyPatterns"),
        (mapping({"url": None}), "neither url nor urlPath"),
        (mapping({"cookies": {"a": {"equalTo": "1"}}}), "its request has cookies"),
        (
            mapping({"headers": {"X-Tenant": {"matches": "7+"}}}),
            "the condition on its header X-Tenant, {'matches': '7+'}, is no equalTo alone",
        ),
        (mapping({"queryParameters": {"q": {"absent": True}}}), "is no equalTo"),
        (mapping(response={"bodyFileName": "../../etc/passwd"}), "not below __files"),
        (mapping(response={"fault": "EMPTY_RESPONSE"}), "its response has fault"),
        (mapping(response={"proxyBaseUrl": "http://a.test"}), "its response has proxyBaseUrl"),
        (mapping(response={"status": 700}), "its status, 700, is no number from 200 to 599"),
        (7, "mapping 1 cannot be replayed"),
    ],
)
def test_what_is_a_rule_and_no_recording_is_an_error(broken: Any, said: str) -> None:
    with pytest.raises(CassetteError) as caught:
        read(broken)
    assert said in str(caught.value)


def test_a_scenario_in_which_one_request_changes_the_answer_to_another_is_refused() -> None:
    """Without its first answer, a client got the second one before it had asked for the change."""
    state: Any = {"scenarioName": "todo", "requiredScenarioState": "Started"}
    todo = mapping(response={"body": "none"}, **state)
    added = mapping({"method": "POST"}, newScenarioState="added", **state)
    later = mapping(response={"body": "one"}, scenarioName="todo", requiredScenarioState="added")
    for several in ((todo, added, later), (added, later), (todo, todo)):
        with pytest.raises(CassetteError, match=r"the scenario 'todo' has several requests"):
            read(*several)
