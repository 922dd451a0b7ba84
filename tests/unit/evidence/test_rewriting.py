"""Secrets that became known after the files of a test were written."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from pytest_egress.evidence.rewriting import rewrite_test, value_without, without
from pytest_egress.evidence.writing import ContainerFacts, LoggedLine, TestFacts, write_test
from pytest_egress.ledger.windows import Window
from pytest_egress.traffic.redaction.redactor import BY_NAMES, Redactor
from tests.support.entries import http_exchange

KEY = "Live/key_01234<6789"
LATER = Redactor(secrets=(("API_KEY", KEY),))
FACTS = TestFacts(id="t.py::t", outcome="failed", duration=1.0)


def test_each_file_is_without_them_and_is_what_it_was_otherwise(tmp_path: Path) -> None:
    said = [LoggedLine(at=101.0, stream="stdout", text=f"key {KEY}")]
    shop = ContainerFacts(name="shop", image="shop", command=(KEY,), lines=said)
    window = Window(entries=[http_exchange(path=f"/{KEY}")], opened=99.0)
    write_test(tmp_path, [window], FACTS, [shop], BY_NAMES)
    rewrite_test(tmp_path, LATER)
    rewritten = {each.name: each.read_text() for each in tmp_path.iterdir()}
    assert not [name for name, text in rewritten.items() if LATER.known(text) != text]
    assert rewritten["shop.log"] == "key <API_KEY>\n"
    assert json.loads(rewritten["ledger.jsonl"])["text"] == "GET https://api.test/<API_KEY>"
    (entry,) = json.loads(rewritten["traffic.har"])["log"]["entries"]
    assert entry["request"]["url"] == "https://api.test/<API_KEY>"
    assert '"command":["\\u003cAPI_KEY>"]' in rewritten["timeline.html"]
    assert "script-src 'sha256-" in rewritten["timeline.html"]


def test_a_file_without_one_is_not_written_again(tmp_path: Path) -> None:
    write_test(tmp_path, [Window(entries=[http_exchange()], opened=99.0)], FACTS, [], BY_NAMES)
    before = {each.name: each.stat().st_ino for each in tmp_path.iterdir()}
    rewrite_test(tmp_path, LATER)
    assert {each.name: each.stat().st_ino for each in tmp_path.iterdir()} == before


def test_what_is_base64_stays_base64() -> None:
    body = base64.b64encode(f"\xff{KEY}\x00".encode("latin-1")).decode()
    for made in ({"size": 3, "base64": body}, {"encoding": "base64", "text": body}):
        shown = value_without(made, LATER)
        text = shown.get("base64") or shown["text"]
        assert base64.b64decode(text) == b"\xff<API_KEY>\x00"


def test_a_line_of_a_har_keeps_its_comma_and_a_line_of_text_is_one() -> None:
    assert without(f'{{"a":"{KEY}"}},\n', LATER) == '{"a":"<API_KEY>"},\n'
    assert without(f'{{"a":"{KEY}\n', LATER) == '{"a":"<API_KEY>\n'


def test_a_log_whose_name_has_a_secret_has_another_and_the_page_leads_to_it(tmp_path: Path) -> None:
    said = [LoggedLine(at=101.0, stream="stdout", text="ready")]
    shop = ContainerFacts(name="shop-live_key_01234", image="shop", lines=said)
    write_test(tmp_path, [Window(opened=99.0)], FACTS, [shop], BY_NAMES)
    rewrite_test(tmp_path, Redactor(secrets=(("API_KEY", "live_key_01234"),)))
    assert (tmp_path / "shop--API_KEY.log").read_text() == "ready\n"
    assert '"traffic.har","shop--API_KEY.log"]' in (tmp_path / "timeline.html").read_text()


def test_what_a_killed_process_has_left_is_rewritten_as_far_as_it_came(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(b'{"text":"' + KEY.encode() + b" \xc3")
    (tmp_path / "timeline.html.part").write_text(KEY)
    rewrite_test(tmp_path, LATER)
    (rewritten,) = tmp_path.iterdir()
    assert rewritten.read_text() == '{"text":"<API_KEY> \\xc3'
