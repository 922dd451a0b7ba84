"""Whatever a file has, it gives recordings that can be compared, hidden and written, or a CassetteError."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_egress.errors import CassetteError
from pytest_egress.routes.recordings.comparing import Wanted
from pytest_egress.traffic.cassettes.hiding import hidden
from pytest_egress.traffic.cassettes.reading import is_read_only, tape_in
from pytest_egress.traffic.cassettes.tape import text_of
from pytest_egress.traffic.redaction.redactor import BY_NAMES

OURS = """\
egress_cassette: 1
secrets: [KEY]
interactions:
- request: {method: POST, url: "https://a.test/a?b=<KEY>", headers: {a: [b, c]}, form: {a: [b], c: d}}
  response: {status: 200, headers: {content-type: text/event-stream}, events: [{json: {a: 1}}, b]}
- request: {grpc: https://a.test/a.B/C, metadata: {a: b}, messages: [AA==, {a: 1}]}
  response: {status: OK, details: a, messages: [], trailing_metadata: {a: b}}
- request: {websocket: wss://a.test/}
  messages: [{send: a}, {receive: {json: {a: 1}}}, {send: {base64: AA==}}]
  close: 1000
"""
OF_VCRPY = """\
interactions:
- request: {method: GET, uri: "https://a.test/", body: {base64_string: AA==}, headers: {A: [b]}}
  response:
    status: {code: 200, message: OK}
    body: {string: !!binary "H4s="}
    headers: {Content-Encoding: [gzip], Content-Type: application/json}
version: 1
"""
HAR = {
    "log": {
        "entries": [
            {
                "request": {
                    "method": "POST",
                    "url": "https://a.test/?b=1",
                    "headers": [{"name": "A", "value": "b\nc"}],
                    "postData": {"mimeType": "text/plain", "params": [{"name": "a", "value": "b"}]},
                },
                "response": {
                    "status": 200,
                    "headers": [{"name": "content-type", "value": "application/json"}],
                    "content": {"size": 2, "text": "AA==", "encoding": "base64", "_file": "a.txt"},
                },
            }
        ]
    }
}
WIREMOCK = {
    "mappings": [
        {
            "scenarioName": "a",
            "requiredScenarioState": "Started",
            "newScenarioState": "b",
            "request": {
                "method": "POST",
                "url": "/a",
                "headers": {"A": {"equalTo": "b"}},
                "queryParameters": {"q": {"equalTo": "1"}},
                "bodyPatterns": [{"equalToJson": "{}"}],
            },
            "response": {
                "status": 200,
                "headers": {"A": ["b"]},
                "jsonBody": {"a": 1},
                "base64Body": "AA==",
                "bodyFileName": "a",
                "body": "a",
            },
        }
    ]
}
NAMES = ("a.yaml", "a.yml", "a.har", "a.json")
PIECES = st.sampled_from(
    [
        "- ",
        ": ",
        "\n",
        "  ",
        "{",
        "}",
        "[",
        "]",
        '"',
        "'",
        "&a ",
        "*a ",
        "!!binary ",
        "? ",
        "| ",
        "> ",
        "---\n",
    ]
) | st.text(max_size=6)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["http://[", "https://a:b/", "\ud800", "1" * 5000, "http://a.test:99999/"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)


def check(text: str, name: str) -> None:
    try:
        tape = tape_in(text, name, lambda beside: b"{}")
    except CassetteError:
        return
    for each in tape.recordings:
        assert Wanted(each.request).request is each.request
    if is_read_only(name):
        return
    written = text_of(hidden(tape.recordings, BY_NAMES))
    assert len(tape_in(written, "b.yaml", lambda beside: b"").recordings) == len(tape.recordings)


@given(st.text(), st.sampled_from(NAMES))
def test_any_text_gives_recordings_or_an_error(text: str, name: str) -> None:
    check(text, name)
    check(f"egress_cassette: 1\ninteractions: {text}", name)


@given(st.sampled_from([OURS, OF_VCRPY]), st.data())
def test_a_file_of_yaml_that_somebody_has_changed_does(text: str, data: Any) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    check(text[:start] + data.draw(PIECES) + text[end:], "a.yaml")


@settings(max_examples=50)  # each is read as four kinds of files
@given(st.sampled_from([OURS, OF_VCRPY, HAR, WIREMOCK]), st.data())
def test_a_file_with_a_value_of_another_kind_does(given_: Any, data: Any) -> None:
    """The value of any key is replaced; JSON is YAML."""
    value = json.loads(json.dumps(given_)) if isinstance(given_, dict) else loaded(given_)
    holder: Any = value
    while True:
        keys = [*holder] if isinstance(holder, dict) else [*range(len(holder))]
        key = data.draw(st.sampled_from(keys))
        inner = holder[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            break
        holder = inner
    holder[key] = data.draw(JSON)
    for name in NAMES:
        check(json.dumps(value), name)


def loaded(text: str) -> Any:
    return yaml.safe_load(text.replace("!!binary ", ""))
