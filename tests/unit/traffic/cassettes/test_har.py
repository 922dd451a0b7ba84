"""HAR files: what browsers, proxies and Playwright have recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.cassettes.reading import tape_in


def entry(**changes: Any) -> dict[str, Any]:
    request = {
        "method": "post",
        "url": "https://api.test/a?b=1#c",
        "headers": [{"name": ":authority", "value": "api.test"}, {"name": "X-A", "value": "1"}],
        "postData": {"mimeType": "application/json", "text": '{"a": 1}'},
    }
    response = {
        "status": 200,
        "headers": [
            {"name": "Set-Cookie", "value": "a=1\nb=2"},
            {"name": "Content-Encoding", "value": "br"},
        ],
        "content": {"mimeType": "application/json", "text": '{"b": 2}'},
    }
    for name, value in changes.items():
        part = request if name in request else response
        part[name] = value
    return {"request": request, "response": response}


def read(*entries: Any) -> Any:
    text = json.dumps({"log": {"version": "1.2", "entries": entries}})
    return tape_in(text, "a.har", lambda name: f"<{name}>".encode())


def test_an_entry_is_a_recording() -> None:
    (found,) = read(entry()).recordings
    assert (found.request.method, found.request.url) == ("POST", "https://api.test/a?b=1")
    assert found.request.headers == (("x-a", "1"),)
    assert found.request.body == ("json", {"a": 1})
    assert found.response.headers == (("set-cookie", "a=1"), ("set-cookie", "b=2"))
    assert found.response.body == ("json", {"b": 2})


def test_what_had_no_response_is_left_out() -> None:
    assert read(entry(status=0), entry(status=101), entry(url="ws://api.test/")).recordings == ()


def test_what_has_lost_its_body_is_left_out() -> None:
    """A browser's file has the size of a body that it no longer keeps: a client got an empty one."""
    lost = {"size": 12, "mimeType": "application/json"}
    assert read(entry(content=lost)).recordings == ()
    kept = (entry(content={"size": 0}), entry(content=lost | {"text": "hi"}), entry(content={}))
    assert len(read(*kept, entry(method="HEAD", content=lost)).recordings) == 4


def test_bodies_in_base64_in_parameters_and_in_files_beside_it() -> None:
    tape = read(
        entry(content={"text": "aGk=", "encoding": "base64"}),
        entry(content={"_file": "0a1b.bin"}),
        entry(
            postData={
                "mimeType": "application/x-www-form-urlencoded",
                "params": [{"name": "a", "value": "b"}],
            }
        ),
    )
    first, second, third = tape.recordings
    assert first.response.body == ("text", "hi")
    assert second.response.body == ("text", "<0a1b.bin>")
    assert third.request.body == ("form", {"a": "b"})


@pytest.mark.parametrize(
    "broken", [{}, entry(content={"_file": "../../etc/passwd"}), entry(headers=[{}]), 7]
)
def test_what_cannot_be_replayed_has_its_number(broken: Any) -> None:
    with pytest.raises(CassetteError, match=r"^a\.har: entry 2 cannot be replayed"):
        read(entry(), broken)


def test_a_har_without_entries_is_an_error() -> None:
    with pytest.raises(CassetteError, match="the HAR has no entries"):
        tape_in('{"log": {}}', "a.har", lambda name: b"")
