"""Writes the files of one test: its lines, its HAR, the logs of its containers, and its page of the lines.

One entry after the other becomes a dict, is written, and is dropped: what is held does not depend on their number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from pytest_egress.evidence.encoder import FORMAT, LineEncoder
from pytest_egress.evidence.folder import log_name
from pytest_egress.evidence.har import BETWEEN, HAR_END, har_entry, har_head
from pytest_egress.evidence.lines import line_of
from pytest_egress.evidence.pages.destinations import Destinations
from pytest_egress.evidence.pages.timeline import write_timeline
from pytest_egress.ledger.timeline import lookups
from pytest_egress.ledger.windows import Window
from pytest_egress.traffic.entries import Entry
from pytest_egress.traffic.redaction.redactor import Redactor
from pytest_egress.traffic.shown import cut

SHOWN_FAILING: Final = 60  # attempts in the row of a test
SHOWN_LINE: Final = 4000  # characters of a line of a log, in the page
SHOWN_HEADLINE: Final = 1000  # characters: its end may be a line of a log
SHOWN_VERDICT: Final = 200_000  # characters


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a test failed: the error's class, its headline and its text. They may have secrets."""

    error: str
    headline: str
    text: str


@dataclass(frozen=True, kw_only=True)
class TestFacts:
    """What is known of a test beside its traffic.

    Attributes:
        id: Its name in pytest; it may have secrets.
        outcome: "passed", "failed" or "skipped".
        duration: Seconds.
        when: The part that failed, or that was reported: "setup" or "call".
        worker: The worker of pytest-xdist that ran it; "" without one.
    """

    __test__ = False  # it is none of pytest's

    id: str
    outcome: str
    duration: float
    when: str = "call"
    worker: str = ""
    verdict: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class LoggedLine:
    """A line of a log; `at` is in seconds since the epoch."""

    at: float
    stream: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ContainerFacts:
    """What is known of a container, in seconds since the epoch."""

    name: str
    image: str
    origin: str = ""
    command: tuple[str, ...] = ()
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    lines: Sequence[LoggedLine] = ()
    is_cut: bool = False


def facts_of(container: Any) -> ContainerFacts:
    """What a `Container` of `targets` tells of itself, when it has ended too."""
    common: dict[str, Any] = {
        "name": container.name,
        "image": container.image,
        "origin": container.origin,
    }
    if (life := container.life()) is None:
        return ContainerFacts(**common)
    return ContainerFacts(
        **common,
        command=life.command,
        started=life.started,
        ended=life.ended,
        exit_code=life.exit_code,
        lines=[LoggedLine(at=line.at, stream=line.stream, text=line.text) for line in life.lines],
        is_cut=life.is_cut,
    )


@dataclass(kw_only=True)
class Tally:
    """What the entries of a test have shown. A lookup that led to an attempt is none by itself.

    Attributes:
        failing: Those that fail it, with how often each came: text, container, number of the first, why, count.
    """

    attempts: int = 0
    lookups: int = 0
    failing: dict[tuple[str, str, str], list[Any]] = field(default_factory=dict)
    number_failing: int = 0
    destinations: Destinations = field(default_factory=Destinations)

    def add(self, line: Mapping[str, Any], *, is_attempt: bool = True) -> None:
        self.attempts += is_attempt
        self.lookups += not is_attempt
        self.destinations.add(line)
        if line["fails"]:
            self.number_failing += 1
            self._tell(line)

    def _tell(self, line: Mapping[str, Any]) -> None:
        text = f"DNS {line['text']}" if line["kind"] == "dns" else line["text"]
        key = text, line["container"], line["problem"]
        if key in self.failing:
            self.failing[key][-1] += 1
        elif len(self.failing) < SHOWN_FAILING:
            self.failing[key] = [text, line["container"], line["n"], line["problem"], 1]


def write_test(
    folder: Path,
    windows: Sequence[Window],
    facts: TestFacts,
    containers: Sequence[ContainerFacts],
    redactor: Redactor,
) -> dict[str, Any]:
    """Write the files of a test to its folder, which is there. Return its row of the index.

    Args:
        windows: Those of the test, closed, its own first. An entry may be in several.

    Raises:
        OSError: A file cannot be written.
    """
    window, encoder, found = windows[0], LineEncoder(windows, redactor), Tally()
    hidden = redactor.hidden
    write_entries(folder, in_time(windows), encoder, window.opened, found, hidden(facts.id))
    logs = write_logs(folder, containers, redactor)
    verdict = facts.verdict and {
        "error": facts.verdict.error,
        "headline": cut(hidden(facts.verdict.headline), SHOWN_HEADLINE),
        "text": cut(hidden(facts.verdict.text), SHOWN_VERDICT),
    }
    paste = encoder.paste()
    head: dict[str, Any] = {
        "format": FORMAT,
        "test": {
            "id": hidden(facts.id),
            "outcome": facts.outcome,
            "duration": round(facts.duration * 1000, 1),
            "when": moment(window.opened),
            "worker": facts.worker,
        },
        "verdict": verdict,
        "policy": {"unrouted": window.policy, "dns": window.dns},
        "paste": paste,
        "containers": [container_dict(each, encoder, redactor) for each in containers],
        "routes": encoder.routes,
        "connections": [*encoder.connections.values()],
        "logs": [*log_dicts(containers, encoder, redactor)],
        "lookups": found.lookups,
        "files": ["ledger.jsonl", "traffic.har", *logs],
        "index": "../index.html",
    }
    write_timeline(folder / "timeline.html", head, folder / "ledger.jsonl")
    return {
        "id": hidden(facts.id),
        "folder": folder.name,
        "outcome": facts.outcome,
        "duration": head["test"]["duration"],
        "worker": facts.worker,
        "attempts": found.attempts,
        "error": verdict["error"] if verdict else "",
        "headline": verdict["headline"] if verdict else "",
        "images": sorted({hidden(each.image) for each in containers}),
        "hosts": found.destinations.cells(),
        "paste": paste,
        "unrouted": [*found.failing.values()],
        "failing": found.number_failing,
    }


def in_time(windows: Iterable[Window]) -> list[Entry]:
    """The entries of the windows, each once, by their times."""
    entries = {id(entry): entry for window in windows for entry in window.entries}
    return sorted(entries.values(), key=lambda entry: entry.started)


def write_entries(
    folder: Path,
    entries: Sequence[Entry],
    encoder: LineEncoder,
    opened: float,
    found: Tally,
    test: str,
) -> None:
    led = {id(query) for queries in lookups(entries).values() for query in queries}
    with contextlib.ExitStack() as files:
        ledger = files.enter_context((folder / "ledger.jsonl").open("w", encoding="utf-8"))
        har = files.enter_context((folder / "traffic.har").open("w", encoding="utf-8"))
        har.write(har_head(test, opened))
        comma = ""
        for number, entry in enumerate(entries, 1):
            line = encoder.encoded(number, entry)
            ledger.write(line_of(line) + "\n")
            if "request" in line:
                har.write(comma + har_entry(line, encoder.latest, opened))
                comma = BETWEEN
            found.add(line, is_attempt=id(entry) not in led)
        har.write(HAR_END)


def write_logs(folder: Path, containers: Sequence[ContainerFacts], redactor: Redactor) -> list[str]:
    """Write what each container has written; return the names of the files."""
    names: dict[str, None] = {}
    for old in folder.glob("*.log"):  # of the same test, before its teardown
        old.unlink()
    for each in containers:
        if not each.lines:
            continue
        name = log_name(redactor.hidden(each.name))
        while name in names:
            name = f"{name.removesuffix('.log')}-2.log"
        names[name] = None
        text = "".join(f"{line.text}\n" for line in each.lines)
        with (folder / name).open("w", encoding="utf-8", errors="backslashreplace") as file:
            if each.is_cut:
                file.write("(the end of it: the report keeps no more)\n")
            file.write(redactor.hidden(text))
    return [*names]


def container_dict(
    each: ContainerFacts, encoder: LineEncoder, redactor: Redactor
) -> dict[str, Any]:
    return {
        "name": redactor.hidden(each.name),
        "image": redactor.hidden(each.image),
        "command": [redactor.hidden(word)[:SHOWN_LINE] for word in each.command],
        "started": encoder.time(each.started),
        "ended": encoder.time(each.ended),
        "exit_code": each.exit_code,
        "origin": each.origin,
        "log_is_cut": each.is_cut,
    }


def log_dicts(
    containers: Sequence[ContainerFacts], encoder: LineEncoder, redactor: Redactor
) -> Iterable[dict[str, Any]]:
    """The lines of the logs, of a container without what it wrote before the test."""
    for container in containers:
        shown = redactor.hidden("\n".join(line.text for line in container.lines)).split("\n")
        whole = len(shown) == len(container.lines)  # else a secret had several lines
        remaining = {*shown}
        for number, line in enumerate(container.lines):
            at = encoder.time(line.at)
            if at is None or at < -SHORTLY:
                continue
            text = shown[number] if whole else redactor.hidden(line.text)
            if text not in remaining:
                text = OF_SEVERAL_LINES
            yield {
                "container": redactor.hidden(container.name),
                "at": max(at, 0),
                "stream": line.stream,
                "text": text[:SHOWN_LINE],
            }


OF_SEVERAL_LINES: Final = "<a secret of several lines>"
SHORTLY: Final = 50.0  # milliseconds by which the engine's clock may be behind


def moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
