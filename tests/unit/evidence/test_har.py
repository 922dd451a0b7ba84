"""The HAR of a test, read by two programs that know nothing of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from haralyzer import HarParser  # type: ignore[import-untyped]
from hario_core.parse import parse

from pytest_egress.evidence.encoder import LineEncoder
from pytest_egress.evidence.har import BETWEEN, HAR_END, har_entry, har_head
from pytest_egress.ledger.windows import Window
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.notes import Marks, NotedMessages, Notes
from pytest_egress.traffic.redaction.redactor import BY_NAMES
from pytest_egress.traffic.websocket import WebSocketMessage
from tests.support.entries import about, http_exchange

OPENED = 1_796_000_000.0


def exchange(method: str = "POST", at: float = 0.0, **fields: Any) -> Exchange:
    request = Request(
        method=method,
        scheme="https",
        host="api.test",
        port=443,
        path="/v1/charges",
        query_string="expand=a%20b&flag",
        headers=Headers([("content-type", "application/json"), ("x", "1"), ("x", "2")]),
        content=b'{"amount": 4200}' if method == "POST" else b"",
        http_version="2",
    )
    common = about(port=443, outcome="routed", started=OPENED + at)
    return Exchange(**common | fields, request=request)


def har_of(entries: list[Exchange]) -> str:
    window = Window(entries=[*entries], opened=OPENED)
    encoder = LineEncoder([window], BY_NAMES)
    made = []
    for number, entry in enumerate(entries, 1):
        line = encoder.encoded(number, entry)
        made.append(har_entry(line, encoder.latest, OPENED))
    return har_head("test_shop.py::test_charge", OPENED) + BETWEEN.join(made) + HAR_END


def entry_of(entry: Exchange) -> dict[str, Any]:
    (found,) = json.loads(har_of([entry]))["log"]["entries"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def har(tmp_path: Path) -> Path:
    answered = exchange(response=Response(json={"id": "ch_1"}), duration=0.25)
    picture = exchange("GET", 0.5, response=Response(content=b"\x89PNG\xff"), duration=0.1)
    moved = Response(302, headers={"Location": "https://b.test/"})
    path = tmp_path / "traffic.har"
    path.write_text(har_of([answered, picture, exchange("GET", 1.0, response=moved), exchange()]))
    return path


def test_haralyzer_reads_it(har: Path) -> None:
    parser = HarParser(json.loads(har.read_text()))
    entries = parser.har_data["entries"]
    assert (parser.har_data["version"], len(entries)) == ("1.2", 4)
    assert [each["response"]["status"] for each in entries] == [200, 200, 302, 0]
    (page,) = parser.pages  # har2tree and others take no HAR without one
    assert (page.title, page.url, len(page.entries)) == (
        "test_shop.py::test_charge",
        entries[0]["request"]["url"],
        4,
    )
    assert parser.match_headers(entries[0], "request", "content-type", "json")
    assert parser.match_request_type(entries[0], "POST")
    assert parser.match_status_code(entries[2], "302")


def test_hario_reads_it_and_finds_each_field_of_its_model(har: Path) -> None:
    log = parse(har.read_bytes())
    first = log.entries[0]
    assert first.request.url == "https://api.test/v1/charges?expand=a%20b&flag"
    assert [(each.name, each.value) for each in first.request.queryString] == [
        ("expand", "a b"),
        ("flag", ""),
    ]
    assert first.request.postData is not None
    assert first.request.postData.text == '{"amount": 4200}'
    assert json.loads(first.response.content.text or "") == {"id": "ch_1"}
    assert log.entries[1].response.content.encoding == "base64"
    assert log.entries[2].response.redirectURL == "https://b.test/"
    assert log.entries[0].startedDateTime.timestamp() == OPENED


def test_each_entry_is_a_line(har: Path) -> None:
    lines = har.read_text().splitlines()
    assert len(lines) == 4 + 2


def test_without_an_entry_it_is_a_har_too() -> None:
    assert json.loads(har_head("x", OPENED) + HAR_END)["log"]["entries"] == []


def test_the_parts_of_its_time_come_of_the_marks_and_the_connection() -> None:
    entry = exchange(at=1.0, response=Response(200), duration=0.5)
    entry.marks = Marks(OPENED + 1.0)
    entry.marks.whole, entry.marks.sent = OPENED + 1.125, OPENED + 2.0
    note = entry.connection = Notes(lambda: OPENED + 0.25).connection()
    note.hello, note.secured, note.address = OPENED + 0.5, OPENED + 0.75, "192.0.2.7"
    found = entry_of(entry)
    assert found["timings"] == {
        "blocked": -1,
        "dns": -1,
        "connect": 500.0,
        "ssl": 250.0,
        "send": 125.0,
        "wait": 375.0,
        "receive": 500.0,
    }
    assert found["time"] == 1500.0  # ssl is a part of connect
    assert found["serverIPAddress"] == "192.0.2.7"


def test_what_har_has_no_field_for_begins_with_an_underscore() -> None:
    found = entry_of(http_exchange(note="it is cut", started=OPENED))
    assert found["_outcome"] == "unrouted"
    assert found["_note"] == found["_problem"] == "it is cut"
    assert (found["_container"], found["_entry"]) == ("shop", 1)


def test_messages_are_where_readers_look_for_them() -> None:
    class Over:
        subprotocol, close_code, close_reason, unkept = None, 1000, "", 0

    spoken = exchange("GET", response=Response.received(101, Headers(), reason=""))
    spoken.websocket = Over()
    spoken.messages.append(WebSocketMessage(content="hi", from_client=True, at=OPENED + 1))
    spoken.messages.append(WebSocketMessage(content=b"\xff", from_client=False, at=OPENED + 2))
    found = entry_of(spoken)
    assert found["_resourceType"] == "websocket"
    assert found["_webSocketMessages"] == [
        {"type": "send", "time": OPENED + 1, "opcode": 1, "data": "hi"},
        {"type": "receive", "time": OPENED + 2, "opcode": 2, "data": "/w=="},
    ]
    streamed = exchange("GET")
    streamed.noted = NotedMessages(Window().account)
    streamed.noted.add(OPENED + 1, b"data: 1\n\n", from_client=False)
    assert entry_of(streamed)["_eventSourceMessages"] == [
        {"time": OPENED + 1, "data": "data: 1\n\n"}
    ]
