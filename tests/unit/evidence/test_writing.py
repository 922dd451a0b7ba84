"""The files of a test: what is in them, and that what is held while they are written does not grow."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from pytest_egress.evidence.encoder import LineEncoder
from pytest_egress.evidence.writing import (
    ContainerFacts,
    Failure,
    LoggedLine,
    TestFacts,
    write_test,
)
from pytest_egress.ledger.windows import Window
from pytest_egress.traffic.entries import Entry
from pytest_egress.traffic.notes import Notes
from pytest_egress.traffic.redaction.redactor import BY_NAMES
from tests.support.entries import dns_query, http_exchange, packet, tcp

KEY = "live_key_0123456789abcdef"
FACTS = TestFacts(id="test_shop.py::test_charge", outcome="failed", duration=1.5)


def lines_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


def test_the_files_have_the_entries_of_all_windows_once_and_in_time(tmp_path: Path) -> None:
    early, late, shared = tcp(started=101.0), http_exchange(started=103.0), tcp(started=102.0)
    windows = [Window(entries=[late, shared], opened=100.0), Window(entries=[early, shared])]
    row = write_test(tmp_path, windows, FACTS, [], BY_NAMES)
    assert [(line["n"], line["at"], line["fails"]) for line in lines_in(tmp_path)] == [
        (1, 1000.0, True),
        (2, 2000.0, True),
        (3, 3000.0, True),
    ]
    assert len(json.loads((tmp_path / "traffic.har").read_text())["log"]["entries"]) == 1
    assert (row["attempts"], row["failing"]) == (3, 3)
    assert row["unrouted"][0][1:] == ["shop", 1, "no route claims it", 2]
    assert row["paste"] == [
        'egress.intercept_tcp("api.test:5432")',
        'egress.intercept_https("api.test", method="GET", path="/")',
    ]


def test_a_lookup_that_led_to_an_attempt_is_not_counted_beside_it(tmp_path: Path) -> None:
    entries: list[Entry] = [
        dns_query(started=100.0),
        dns_query(started=100.1, type="AAAA"),
        http_exchange(started=100.2),
        dns_query(started=100.3, host="other.test"),
    ]
    row = write_test(tmp_path, [Window(entries=entries, opened=100.0)], FACTS, [], BY_NAMES)
    assert row["attempts"] == 2
    assert '"lookups":2' in (tmp_path / "timeline.html").read_text().replace(": ", ":")
    assert len(lines_in(tmp_path)) == 4


def test_a_secret_of_several_lines_in_a_log_hides_no_other_that_is_broken(tmp_path: Path) -> None:
    wrapped = [KEY[:12], KEY[12:]]
    several = "first line 4711\nsecond line 0815"
    said = ["begin", *wrapped, "between", *several.split("\n"), "end"]
    lines = [LoggedLine(at=101.0, stream="stdout", text=each) for each in said]
    redactor = BY_NAMES.knowing({"API_KEY": KEY, "OTHER_KEY": several})
    containers = [ContainerFacts(name="shop", image="shop", lines=lines)]
    write_test(tmp_path, [Window(opened=100.0)], FACTS, containers, redactor)
    page = (tmp_path / "timeline.html").read_text()
    assert all(each in page for each in ("begin", "between", "end"))
    assert not [each for each in (*wrapped, *several.split("\n")) if each in page]


def test_the_first_bytes_of_a_connection_end_with_no_piece_of_a_secret(tmp_path: Path) -> None:
    said = b"x" * 50 + KEY[:14].encode()
    redactor = BY_NAMES.knowing({"API_KEY": KEY})
    entries: list[Entry] = [tcp(first_bytes=said), packet(first_bytes=said)]
    write_test(tmp_path, [Window(entries=entries, opened=100.0)], FACTS, [], redactor)
    for line in lines_in(tmp_path):
        assert line["body"]["text"] == "x" * 50 + "<API_KEY>"


def test_a_test_without_attempts_has_its_files_too(tmp_path: Path) -> None:
    row = write_test(tmp_path, [Window()], FACTS, [], BY_NAMES)
    assert {path.name for path in tmp_path.iterdir()} == {
        "ledger.jsonl",
        "timeline.html",
        "traffic.har",
    }
    assert (row["attempts"], row["unrouted"], row["hosts"]) == (0, [], {})


def test_logs_are_files_and_lines_of_the_page_without_what_was_before_the_test(
    tmp_path: Path,
) -> None:
    said = [
        LoggedLine(at=99.0, stream="stdout", text="before"),
        LoggedLine(at=101.0, stream="stderr", text=f"key {KEY} \u2028 \udcff"),
    ]
    containers = [
        ContainerFacts(name="shop:1", image="shop:1", lines=said, is_cut=True),
        ContainerFacts(name="shop-1", image="shop", lines=said),
        ContainerFacts(name="quiet", image="quiet"),
    ]
    redactor = BY_NAMES.knowing({"API_KEY": KEY})
    row = write_test(tmp_path, [Window(opened=100.0)], FACTS, containers, redactor)
    log = (tmp_path / "shop-1.log").read_text()
    assert log.startswith("(the end of it: the report keeps no more)\nbefore\nkey <API_KEY>")
    assert (tmp_path / "shop-1-2.log").exists()
    assert not (tmp_path / "quiet.log").exists()
    page = (tmp_path / "timeline.html").read_text()
    assert KEY not in page
    assert "before" not in page.partition('"logs":')[2].partition("]")[0]
    assert row["images"] == ["quiet", "shop", "shop:1"]


def test_no_secret_of_a_verdict_or_a_command_is_in_any_file(tmp_path: Path) -> None:
    redactor = BY_NAMES.knowing({"API_KEY": KEY})
    verdict = Failure(error="UnroutedError", headline=f"a {KEY}", text=f"b {KEY}")
    facts = TestFacts(id=f"t.py::t[{KEY}]", outcome="failed", duration=1.0, verdict=verdict)
    container = ContainerFacts(name="shop", image="shop", command=("run", f"--key={KEY}"))
    row = write_test(tmp_path, [Window()], facts, [container], redactor)
    assert KEY not in json.dumps(row)
    for path in tmp_path.iterdir():
        assert KEY not in path.read_text()


class Watched(dict[str, Any]):
    """A dict that can be referred to weakly."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def test_what_is_held_does_not_grow_with_the_number_of_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exchanges, each on a connection of its own: their lines live one after the other."""
    alive: weakref.WeakSet[Watched] = weakref.WeakSet()
    most, encoded = [0], LineEncoder.encoded

    def watched(self: LineEncoder, number: int, entry: Entry) -> dict[str, Any]:
        made = Watched(encoded(self, number, entry))
        alive.add(made)
        most[0] = max(most[0], len(alive))
        return made

    monkeypatch.setattr(LineEncoder, "encoded", watched)
    monkeypatch.setattr("pytest_egress.evidence.encoder.SHOWN_CONNECTIONS", 100)
    notes, entry = Notes(lambda: 100.0), http_exchange()
    entries: list[Entry] = []
    for number in range(3_000):
        made = http_exchange(started=100.0 + number)
        made.__dict__.update(request=entry.request, connection=notes.connection())
        entries.append(made)
    window = Window(entries=entries, opened=100.0)
    gc.disable()
    try:
        row = write_test(tmp_path, [window], FACTS, [], BY_NAMES)
    finally:
        gc.enable()
    assert row["attempts"] == 3_000
    assert most[0] <= 3
    assert len(row["unrouted"]) <= 100
    with (tmp_path / "ledger.jsonl").open() as file:
        assert sum(1 for _ in file) == 3_000


def test_of_a_long_text_of_an_error_the_page_and_the_row_have_both_ends(tmp_path: Path) -> None:
    text = f"begin {KEY}{'x' * 1_000_000} end"
    facts = TestFacts(
        id="a", outcome="failed", duration=1.0, verdict=Failure(error="E", headline=text, text=text)
    )
    redactor = BY_NAMES.hiding([("API_KEY", KEY)])
    row = write_test(tmp_path, [Window(opened=1.0)], facts, [], redactor)
    assert len(row["headline"]) <= 1000
    assert row["headline"].startswith("begin <API_KEY>x")
    assert row["headline"].endswith("x end")
    assert (tmp_path / "timeline.html").stat().st_size < 400_000
