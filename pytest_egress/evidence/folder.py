"""The folder of a report: what is written to it, by several processes, and what is removed again.

A file `.egress-report` marks the report as ours, and each folder of a test in it: a later report removes these, and
nothing else. That of a test has its row of the index until that is written, so that what a worker has written is known
after it has crashed. That of the report has the secrets of the workers until then, sealed (`sealing`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
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
        self._made: list[Path] = []  # the folders that were not there, the innermost first
        self._lock = -1

    def claim(self) -> bool:
        """Keep other runs out of the folder until `release`; False where one keeps this run out.

        A folder that cannot be made, or not locked, is told of when something is written.
        """
        made = [each for each in (self.path, *self.path.parents) if not each.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = made
            self._lock = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def begin(self) -> None:
        """Remove what an earlier report has written to the folder, if there is one."""
        if not (self.path / MARKER).exists():
            return
        for folder in self.tests():
            remove_test(folder)
        for name in OF_A_RUN:
            for each in (name, f"{name}{PARTIAL}"):  # the latter of a run that was killed
                (self.path / each).unlink(missing_ok=True)
        (self.path / MARKER).unlink(missing_ok=True)

    def leave(self) -> None:
        """Leave nothing of a report without a test; the folder stays where something else is in it."""
        (self.path / MARKER).unlink(missing_ok=True)
        for each in self._made or [self.path]:
            with contextlib.suppress(OSError):
                each.rmdir()

    def release(self) -> None:
        """Let other runs have the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def make(self, name: str) -> Path:
        """Make the folder of a test; that of its rerun has `-2` behind its name.

        Raises:
            OSError: It cannot be made.
        """
        folder = self._new(name, lambda each: each.mkdir(parents=True))
        (folder / MARKER).touch()
        (self.path / MARKER).touch()
        return folder

    def rename(self, folder: Path, name: str) -> Path:
        """Give the folder of a test another name, as `make` gives it. What links to it leads nowhere then.

        Raises:
            OSError: It cannot be renamed.
        """
        return self._new(name, folder.rename)

    def _new(self, name: str, put: Callable[[Path], object]) -> Path:
        for number in range(1, MOST_RERUNS):
            folder = self.path / (name if number == 1 else f"{name}-{number}")
            if os.path.lexists(folder):
                continue
            try:
                put(folder)
                return folder
            except FileExistsError:
                if not os.path.lexists(folder):  # it is one above it
                    raise
        raise FileExistsError(f"there are {MOST_RERUNS} folders {name}-... in {self.path}")

    def note(self, folder: Path, row: Mapping[str, Any]) -> None:
        """Note the row of a test whose folder is written."""
        with replacing(folder / MARKER) as partial:
            partial.write_text(line_of(row), encoding="utf-8")

    def seal(self, worker: str, note: str) -> None:
        """Note what a worker has sealed: a line in one write, since several append to the file."""
        line = (line_of([worker, note]) + "\n").encode()
        self.path.mkdir(parents=True, exist_ok=True)
        marker = os.open(self.path / MARKER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(marker, line)
        finally:
            os.close(marker)

    def sealed(self) -> Iterator[tuple[str, str]]:
        """What workers have sealed, each with the name of its worker."""
        with contextlib.suppress(OSError), (self.path / MARKER).open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError):  # one that was not written whole
                    worker, note = json.loads(line)
                    yield worker, note

    def settle(self) -> None:
        """Leave the marks alone: the rows are in the index, without later secrets."""
        for folder in (*self.tests(), self.path):
            (folder / MARKER).write_text("")

    def tests(self) -> list[Path]:
        """The folders of tests."""
        found = [*self.path.iterdir()] if self.path.is_dir() else []
        return [each for each in found if not each.is_symlink() and (each / MARKER).is_file()]

    def rows(self) -> list[tuple[Path, dict[str, Any]]]:
        """The folders of tests with the row of each."""
        return [(folder, self.row(folder)) for folder in self.tests()]

    def row(self, folder: Path) -> dict[str, Any]:
        """The row of a test; empty where its folder was not written whole."""
        with contextlib.suppress(OSError, ValueError):
            row: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
            return row
        return {}


def foreign_file(path: Path) -> Path | None:
    """A file in a folder that a report would replace, and that none has written; None where there is none."""
    if (path / MARKER).exists():
        return None
    return next((path / name for name in OF_A_RUN if os.path.lexists(path / name)), None)


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
        if name in (*OF_A_TEST, MARKER) or name.endswith(".log"):
            file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else is in it
        folder.rmdir()
