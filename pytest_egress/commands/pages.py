"""The report of an audit: a page for each run of the image, and the index of them."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pytest_egress.commands.order import Order
from pytest_egress.commands.trial import Trial
from pytest_egress.evidence.folder import ReportFolder, folder_name, foreign_file
from pytest_egress.evidence.pages.index import write_index
from pytest_egress.evidence.writing import TestFacts, write_test
from pytest_egress.ledger.verdict import failing
from pytest_egress.traffic.redaction.redactor import Redactor


def check_folder(path: Path) -> None:
    """Raise OSError where no report can be written, before an image is run for it."""
    if (file := foreign_file(path)) is not None:
        raise FileExistsError(errno.EEXIST, "it is of no report, and would be replaced", str(file))
    there = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass
    if not there:
        path.rmdir()


def write_report(path: Path, order: Order, runs: Mapping[str, Trial], redactor: Redactor) -> Path:
    """Write the runs, by what each was shown, in place of an earlier report; return the path of the index.

    Raises:
        OSError: A file cannot be written.
    """
    report = ReportFolder(path)
    report.begin()
    rows = []
    for name, trial in runs.items():
        if trial.window is None:
            continue
        facts = TestFacts(
            id=f"{order.image}: {name}",
            outcome="failed" if failing(trial.window) else "passed",
            duration=trial.duration,
        )
        folder = report.make(folder_name(redactor.hidden(facts.id)))
        rows.append(write_test(folder, [trial.window], facts, trial.containers, redactor))
    write_index(path / "index.html", rows)
    return path / "index.html"
