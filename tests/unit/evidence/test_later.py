"""Which folders of a report are written again when a secret becomes known, and by which process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_egress.evidence.folder import MARKER, ReportFolder, folder_name
from pytest_egress.evidence.later import OFTEN, LaterSecrets
from pytest_egress.evidence.sealing import new_key
from pytest_egress.traffic.redaction.redactor import Redactor

KEY = "live_key_0123456789"
KNOWING = Redactor().hiding([("API_KEY", KEY)])


def called(write: Callable[[], object]) -> object:
    return write()


class Report:
    """A report of two workers, and of the controller, whose worker has no name."""

    def __init__(self, path: Path) -> None:
        self.folder, key = ReportFolder(path), new_key()
        self.workers = {
            name: LaterSecrets(self.folder, name, key, called) for name in ("gw0", "gw1", "")
        }

    def write(self, worker: str, test: str, text: str = KEY) -> Path:
        folder = self.folder.make(folder_name(test))
        (folder / "shop.log").write_text(text)
        row = {"id": test, "folder": folder.name, "worker": worker, "headline": text}
        self.folder.note(folder, row)
        self.workers[worker].wrote(folder)
        return folder

    def has_key(self) -> list[Path]:
        files = [path for path in self.folder.path.rglob("*") if path.is_file()]
        return [path for path in files if KEY in f"{path} {path.read_text()}"]


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path / "out")


def test_a_process_rewrites_its_own_folders(report: Report) -> None:
    folder = report.write("", "test_a")
    report.workers[""].learn(KNOWING)
    assert len(report.has_key()) == 2  # the log, and the row
    report.workers[""].end_test()
    assert (folder / "shop.log").read_text() == "<API_KEY>"
    assert report.folder.row(folder)["headline"] == "<API_KEY>"


def test_what_is_written_after_a_secret_was_known_is_left_as_it_is(report: Report) -> None:
    report.workers[""].learn(KNOWING)
    folder = report.write("", "test_a")
    report.workers[""].hide()
    assert (folder / "shop.log").read_text() == KEY


def test_a_folder_is_named_anew_and_can_be_rewritten_again(report: Report) -> None:
    later = report.workers[""]
    report.write("", f"test_a[{KEY} {KEY[::-1]}]")
    for secrets in ([("API_KEY", KEY)], [("API_KEY", KEY), ("OTHER", KEY[::-1])]):
        later.learn(Redactor().hiding(secrets))
        later.hide()
    ((folder, row),) = report.folder.rows()
    assert row["id"] == "test_a[<API_KEY> <OTHER>]"
    assert row["folder"] == folder.name == folder_name(row["id"])


def test_many_folders_are_not_read_at_each_secret(report: Report) -> None:
    later, found = report.workers[""], []
    for number in range(3 * OFTEN):
        report.write("", f"test_{number}")
    later.hide = lambda: found.append(later._ended)  # type: ignore[method-assign]
    for _ in range(3):
        later.learn(KNOWING)
        later.end_test()
    assert found == [3]


@pytest.mark.parametrize("ended", [{"gw0"}, {"gw0", "gw1"}], ids=["crashed", "ended"])
def test_a_secret_of_one_worker_is_in_no_folder_of_another(report: Report, ended: Any) -> None:
    report.write("gw0", f"test_a[{KEY}]")
    report.workers["gw1"].learn(KNOWING)
    if "gw1" not in ended:
        report.write("gw1", "test_b")
    assert KEY.encode().hex() not in (report.folder.path / MARKER).read_text()
    assert report.workers[""].hide_of_workers(ended).known(KEY) == "<API_KEY>"
    assert not report.has_key()


def test_what_another_run_has_sealed_is_told_and_the_rest_is_read(report: Report) -> None:
    told: list[ValueError] = []

    def attempt(read: Callable[[], object]) -> object:
        try:
            return read()
        except ValueError as error:
            told.append(error)
            return None

    report.folder.seal("gw7", "no note")
    report.workers["gw1"].learn(KNOWING)
    report.workers[""]._attempt = attempt
    assert report.workers[""].hide_of_workers(set()).known(KEY) == "<API_KEY>"
    assert len(told) == 1


def test_of_workers_that_know_the_same_nothing_is_read_again(report: Report) -> None:
    for worker in ("gw0", "gw1"):
        report.workers[worker].learn(KNOWING)
    folder = report.write("gw0", "test_a")
    report.workers[""].hide_of_workers({"gw0", "gw1"})
    assert (folder / "shop.log").read_text() == KEY
