"""`LaterSecrets`: takes secrets out of the folders of a report that were written before they were known.

Each process of a run rewrites its own folders, soon after it has learned of a secret, and when it ends. A worker of
pytest-xdist seals what it learns, at once: whoever writes the index rewrites the folders of the other workers by that,
and those of one that has crashed.

Threads: any thread may learn of a secret, within the lock of the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, Final

from pytest_egress.evidence.folder import ReportFolder, folder_name
from pytest_egress.evidence.lines import line_of
from pytest_egress.evidence.rewriting import rewrite_test, value_without
from pytest_egress.evidence.sealing import sealed, unsealed
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.traffic.redaction.redactor import Redactor

NamedValue = tuple[str, str]

OFTEN: Final = 8
"""Folders that are rewritten for each test that has ended since: all of few at once, and of many each some times."""


class LaterSecrets:
    """The secrets that one process of a run knows, and the folders that it has written.

    Args:
        worker: The worker of pytest-xdist that this is; "" for none.
        key: What the workers' secrets are sealed with.
        attempt: Calls what reads and writes files, and tells what it raises.
    """

    def __init__(
        self, folder: ReportFolder, worker: str, key: bytes, attempt: Callable[[Any], object]
    ) -> None:
        self._folder, self._worker, self._key, self._attempt = folder, worker, key, attempt
        self._learned: list[NamedValue] = []
        self._known: set[NamedValue] = set()
        self._written: dict[Path, int] = {}  # with how many were known then
        self._hidden = self._ended = 0  # secrets that all folders are without; tests since then

    def watch(self, ledger: Ledger) -> None:
        """Learn all that a session hides from now on."""
        ledger.has_learned = self.learn
        self.learn(ledger.redactor)

    def learn(self, redactor: Redactor) -> None:
        new = [each for each in redactor.secrets if each not in self._known]
        if not new:
            return
        self._known.update(new)
        self._learned += new
        if self._worker:
            self._attempt(lambda: self._folder.seal(self._worker, sealed(line_of(new), self._key)))

    def wrote(self, folder: Path) -> None:
        """Note that a folder was written, without all that is known now."""
        self._written[folder] = len(self._learned)

    def rename(self, folder: Path, test: str) -> Path:
        """Give a folder of this process the name of its test, of which a secret has become known."""
        renamed = self._folder.rename(folder, folder_name(test))
        self._written[renamed] = self._written.pop(folder, 0)
        return renamed

    def end_test(self) -> None:
        """Rewrite what has to be, unless that was done a short while ago: each time all folders are read."""
        self._ended += 1
        if self._hidden < len(self._learned) and self._ended * OFTEN >= len(self._written):
            self.hide()

    def hide(self) -> None:
        """Rewrite the folders of this process that were written before a secret was known."""
        self._hidden, self._ended = len(self._learned), 0
        redactors: dict[int, Redactor] = {}
        for folder, known in [*self._written.items()]:
            if known < self._hidden:
                redactor = redactors.setdefault(known, hiding(self._learned[known:]))
                del self._written[folder]
                self._attempt(partial(self._rewrite, folder, redactor))

    def _rewrite(self, folder: Path, redactor: Redactor) -> None:
        self.wrote(rewritten(self._folder, folder, redactor))

    def hide_of_workers(self, ended: Collection[str]) -> Redactor:
        """Rewrite the folders of all workers; return what hides the secrets of each of them.

        Args:
            ended: The workers that have rewritten their own folders.
        """
        learned = self._unsealed()
        of_all = {each for secrets in learned.values() for each in secrets}
        redactors: dict[frozenset[NamedValue], Redactor] = {}
        for folder, row in [*self._folder.rows()] if of_all else ():
            worker = row.get("worker", "")
            own = learned.get(worker, set()) if worker in ended else set()
            if new := frozenset(of_all - own):
                redactor = redactors.setdefault(new, hiding(sorted(new)))
                self._attempt(partial(rewritten, self._folder, folder, redactor))
        return hiding(sorted(of_all))

    def _unsealed(self) -> dict[str, set[NamedValue]]:
        found: dict[str, set[NamedValue]] = {}
        for worker, note in self._folder.sealed():
            read: Any = self._attempt(lambda note=note: json.loads(unsealed(note, self._key)))
            found.setdefault(worker, set()).update((name, value) for name, value in read or ())
        return found


def hiding(secrets: Collection[NamedValue]) -> Redactor:
    return Redactor().hiding(secrets)


def rewritten(report: ReportFolder, folder: Path, redactor: Redactor) -> Path:
    """Take secrets out of the files of a test, its row, and the name of its folder; return the folder.

    Raises:
        OSError: A file cannot be read, or not written.
    """
    rewrite_test(folder, redactor)
    row = report.row(folder)
    shown = value_without(row, redactor)
    if shown == row:
        return folder
    if shown["id"] != row["id"]:
        folder = report.rename(folder, folder_name(shown["id"]))
        shown["renamed"] = True
    report.note(folder, shown | {"folder": folder.name})
    return folder
