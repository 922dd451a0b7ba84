"""Mappings of WireMock, as its recorder writes them: one, or `{"mappings": [...]}`. They are never written.

A mapping says no host, so that it answers for each that its route claims. It answers any number of requests, but where
a scenario gives several answers to one request: these are played in their order.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import urlencode

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.cassettes.bodies import (
    NO_BODY,
    RecordedBody,
    body_of,
    check_body,
    check_depth_and_text,
)
from pytest_egress.traffic.cassettes.making import NOT_KEPT
from pytest_egress.traffic.cassettes.tape import (
    RecordedFields,
    RecordedRequest,
    RecordedResponse,
    Recording,
    Tape,
)
from pytest_egress.traffic.http.headers import checked_fields
from pytest_egress.traffic.shown import shown

REQUEST: Final = ("method", "url", "urlPath", "headers", "bodyPatterns", "queryParameters")
NOT_PLAYED: Final = ("fault", "proxyBaseUrl", "transformers", "browserProxyUrl")
"""Keys of a response that is made when it is asked for: what a mapping says besides is not what a client got."""

SCENARIO: Final = ("scenarioName", "requiredScenarioState", "newScenarioState")
STARTED: Final = "Started"


def is_wiremock(value: Any) -> bool:
    return isinstance(value, dict) and (
        isinstance(value.get("mappings"), list) or {"request", "response"} <= value.keys()
    )


def tape_of_wiremock(value: dict[str, Any], name: str, beside: Callable[[str], bytes]) -> Tape:
    given = value.get("mappings")
    mappings = given if isinstance(given, list) else [value]
    recordings = []
    check_scenarios(mappings, name)
    for number, each in enumerate(in_scenarios(mappings), 1):
        try:
            recordings.append(recording_from(each, beside))
        except (
            *(AttributeError, KeyError, TypeError, ValueError, OSError),
            RecursionError,  # of a text that is JSON
        ) as error:
            called = each.get("name") or number if isinstance(each, dict) else number
            raise CassetteError(f"{name}: mapping {called} cannot be replayed: {error}") from None
    return Tape(recordings=tuple(recordings), answers_again=True)


def check_scenarios(mappings: Iterable[Any], name: str) -> None:
    """Refuse a scenario in which one request changes the answers to another: its order would answer wrongly."""
    first: dict[str, Any] = {}
    states: set[tuple[str, Any]] = set()
    for each in mappings:
        if not isinstance(each, dict) or each.get("scenarioName") is None:
            continue
        for key in SCENARIO:
            if not isinstance(each.get(key, ""), str):
                raise CassetteError(f"{name}: the {key} {shown(each[key])} is no text")
        scenario = each["scenarioName"]
        state = (scenario, each.get("requiredScenarioState", STARTED))
        if state in states or first.setdefault(scenario, each.get("request")) != each.get(
            "request"
        ):
            raise CassetteError(
                f"{name}: the scenario {shown(scenario)} has several requests; those that are played have the answers "
                "to one, in the order of their states"
            )
        states.add(state)


def in_scenarios(mappings: Iterable[Any]) -> list[Any]:
    """The mappings, those of a scenario in the order of its states. The recorder writes the last one first."""
    alone: list[Any] = []
    states: dict[str, dict[str, Any]] = {}
    for each in mappings:
        scenario = each.get("scenarioName") if isinstance(each, dict) else None
        if scenario is None:
            alone.append(each)
        else:
            states.setdefault(scenario, {})[each.get("requiredScenarioState", STARTED)] = each
    return [*alone, *(each for scenario in states.values() for each in by_state(scenario))]


def by_state(scenario: dict[str, Any]) -> Iterator[Any]:
    state: Any = STARTED
    left = dict(scenario)
    while (each := left.pop(state, None)) is not None:
        yield each
        state = each.get("newScenarioState")
    yield from left.values()


def recording_from(mapping: Any, beside: Callable[[str], bytes]) -> Recording:
    asked, answered = mapping["request"], mapping["response"]
    if unknown := [key for key in asked if key not in REQUEST]:
        raise ValueError(
            f"its request has {unknown[0]}, which is no recorded value; known are {', '.join(REQUEST)}"
        )
    if made := [key for key in NOT_PLAYED if answered.get(key)]:
        raise ValueError(f"its response has {made[0]}, and only a recorded response is played")
    status = answered.get("status", 200)
    if type(status) is not int or not 200 <= status <= 599:
        raise ValueError(f"its status, {shown(status)}, is no number from 200 to 599")
    url = asked.get("url") or asked.get("urlPath")
    if not isinstance(url, str):
        raise ValueError("its request has neither url nor urlPath")
    if wanted := asked.get("queryParameters"):
        url += "?" + urlencode({key: only(value, "equalTo") for key, value in wanted.items()})
    headers = tuple(fields(answered.get("headers") or {}))
    checked_fields(headers)
    return Recording(
        request=RecordedRequest(
            method=asked.get("method", "ANY").upper(),
            url=url,
            compared=tuple(compared(asked.get("headers") or {})),
            body=body_asked(asked.get("bodyPatterns") or []),
        ),
        response=RecordedResponse(
            status=status,
            headers=tuple(pair for pair in headers if pair[0] != "content-encoding"),
            body=body_answered(answered, headers, beside),
        ),
    )


def compared(headers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The conditions on header fields; only the one that a recorder writes is a recorded value."""
    for name, condition in headers.items():
        if not isinstance(condition, dict) or [*condition] != ["equalTo"]:
            raise ValueError(
                f"the condition on its header {name}, {shown(condition)}, is no equalTo alone"
            )
        yield name.lower(), str(condition["equalTo"])


def only(condition: Any, operator: str) -> Any:
    if not isinstance(condition, dict) or operator not in condition:
        raise ValueError(f"{shown(condition)} is no {operator}")
    return condition[operator]


def fields(headers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, values in headers.items():
        for value in values if isinstance(values, list) else [values]:
            if name.lower() not in NOT_KEPT:
                yield name.lower(), str(value)


def body_asked(patterns: list[Any]) -> RecordedBody:
    if not patterns:
        return NO_BODY
    if len(patterns) > 1:
        raise ValueError("its request has several bodyPatterns, and a recorded body is one value")
    pattern = patterns[0]
    if "equalToJson" in pattern:
        value = pattern["equalToJson"]
        value = json.loads(value) if isinstance(value, str) else value
        check_depth_and_text(value)
        return RecordedBody("json", value)
    kind, operator = (
        ("base64", "binaryEqualTo") if "binaryEqualTo" in pattern else ("text", "equalTo")
    )
    value = only(pattern, operator)
    if why := check_body(kind, value):
        raise ValueError(f"{operator}, {shown(value)}: {why}")
    return RecordedBody(kind, value)


def body_answered(
    answered: Any, headers: RecordedFields, beside: Callable[[str], bytes]
) -> RecordedBody:
    content_type = dict(headers).get("content-type", "")
    if "jsonBody" in answered:
        check_depth_and_text(answered["jsonBody"])
        return RecordedBody("json", answered["jsonBody"])
    if "base64Body" in answered:
        return body_of(base64.b64decode(answered["base64Body"]), content_type, of="response")
    if file := answered.get("bodyFileName"):
        if ".." in file.split("/") or file.startswith("/"):
            raise ValueError(f"its body is in {file!r}, which is not below __files")
        return body_of(beside(f"../__files/{file}"), content_type, of="response")
    return body_of(str(answered.get("body", "")).encode(), content_type, of="response")
