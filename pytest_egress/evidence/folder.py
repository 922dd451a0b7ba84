"""The folder of a report: what is written to it, by several processes, and what is removed again.

A file `.egress-report` has a line of JSON for each folder of a test, and marks the report as ours: a later one removes
what these lines name, and nothing else. Workers append to it, a line in one write, so that what a worker has written is
known after it has crashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pytest_egress.evidence.lines import line_of

MARKER: Final = ".egress-report"
NAME_BYTES: Final = 120
DIGEST: Final = 8  # characters
MOST_RERUNS: Final = 1000
SEPARATORS: Final = re.compile(r"[/:]+")
ODD: Final = re.compile(r"[^A-Za-z0-9._-]+")
OF_A_RUN: Final = ("index.html", "summary.md")
OF_A_TEST: Final = ("timeline.html", "traffic.har", "ledger.jsonl")
PARTIAL: Final = ".part"  # ends the name of a file that is not whole yet


def folder_name(test: str) -> str:
    """The name of a test's folder, which any file system takes and any shop of artifacts.

    Args:
        test: Its node id, without secrets.
    """
    plain = SEPARATORS.sub("-", test)
    name = ODD.sub("-", plain).strip("-.") or "test"
    if name == plain and len(name) <= NAME_BYTES:
        return name
    digest = hashlib.sha256(test.encode("utf-8", "replace")).hexdigest()[:DIGEST]
    return f"{name[:NAME_BYTES].rstrip('-.')}-{digest}"


def log_name(container: str) -> str:
    """The name of a container's log: that of `shop:latest` is `shop-latest.log`."""
    return f"{ODD.sub('-', container)[:NAME_BYTES].strip('-.') or 'container'}.log"


class ReportFolder:
    """The folder of a run's report. Each process of the run has one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self) -> None:
        """Remove what an earlier report has written to the folder, if there is one."""
        if not (self.path / MARKER).exists():
            return
        for row in self.rows():
            remove_test(self.path / str(row["folder"]))
        for name in OF_A_RUN:
            for each in (name, f"{name}{PARTIAL}"):  # the latter of a run that was killed
                (self.path / each).unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Leave nothing of a report without a test; the folder stays where something else is in it."""
        (self.path / MARKER).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def make(self, name: str) -> Path:
        """Make the folder of a test; that of its rerun has `-2` behind its name.

        Raises:
            OSError: It cannot be made.
        """
        for number in range(1, MOST_RERUNS):
            folder = self.path / (name if number == 1 else f"{name}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                self._append({"folder": folder.name})
                return folder
        raise FileExistsError(f"there are {MOST_RERUNS} folders {name}-... in {self.path}")

    def note(self, row: Mapping[str, Any]) -> None:
        """Note what is known of a test whose folder is written."""
        self._append(row)

    def settle(self) -> None:
        """Keep of each test the name of its folder alone: the rest is in the index, without later secrets."""
        names = [row["folder"] for row in self.rows()]
        (self.path / MARKER).write_text("".join(line_of({"folder": each}) + "\n" for each in names))

    def _append(self, row: Mapping[str, Any]) -> None:
        line = (line_of(row) + "\n").encode()
        marker = os.open(self.path / MARKER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(marker, line)
        finally:
            os.close(marker)

    def rows(self) -> list[dict[str, Any]]:
        """What is noted of each folder of a test, the latest of each; nothing where this is no report."""
        found: dict[str, dict[str, Any]] = {}
        for row in self._noted():
            name = row.get("folder")
            if isinstance(name, str) and ODD.search(name) is None and name.strip("."):
                found[name] = row
        return [*found.values()]

    def _noted(self) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(OSError), (self.path / MARKER).open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    row = json.loads(line)
                    if isinstance(row, dict):
                        yield row


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside a file, which takes its name once the `with` block has written it whole."""
    partial = file.with_name(f"{file.name}{PARTIAL}")
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def remove_test(folder: Path) -> None:
    """Remove the files that a report writes for a test, and the folder where nothing else is in it."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for file in folder.iterdir():
        name = file.name.removesuffix(PARTIAL)
        if name in OF_A_TEST or name.endswith(".log"):
            file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else is in it
        folder.rmdir()
