"""The names in a report's folder, and what a later report removes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_egress.evidence.folder import MARKER, ReportFolder, folder_name, log_name

NAMES = [
    ("test_shop.py::test_charge", "test_shop.py-test_charge"),
    ("tests/unit/test_shop.py::TestIt::test_charge", "tests-unit-test_shop.py-TestIt-test_charge"),
    ("test_a.py::test_b[one]", "test_a.py-test_b-one-"),
    ("::", "test"),
    ("../../etc/passwd", "etc-passwd"),
]


@pytest.mark.parametrize(("test", "name"), NAMES)
def test_a_test_has_a_folder_of_its_name(test: str, name: str) -> None:
    assert folder_name(test).startswith(name)
    assert not folder_name(test).startswith(".")


def test_odd_names_and_long_ones_are_told_apart_by_a_digest() -> None:
    tests = ["t.py::a[x y]", "t.py::a[x-y]", "t.py::a[x?y]", "ü" * 500, f"{'ü' * 500}x", "a" * 999]
    names = {folder_name(test) for test in tests}
    assert len(names) == len(tests)
    assert all(len(name.encode()) <= 130 for name in names)
    assert all(not {*name} & {*'<>:"/\\|?*[] '} for name in names)


def test_a_log_has_the_name_of_its_container() -> None:
    assert log_name("shop:latest") == "shop-latest.log"
    assert log_name("../x") == "x.log"
    assert log_name("::") == "container.log"


def test_a_rerun_has_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = ReportFolder(tmp_path / "out")
    assert [folder.make("a").name for _ in range(3)] == ["a", "a-2", "a-3"]
    assert {each.name for each in folder.tests()} == {"a", "a-2", "a-3"}


def test_what_a_worker_has_noted_is_read_by_another_process(tmp_path: Path) -> None:
    worker, controller = ReportFolder(tmp_path), ReportFolder(tmp_path)
    folder = worker.make("a")
    assert controller.rows() == [(folder, {})]
    worker.note(folder, {"folder": "a", "id": "test_a"})
    worker.seal("gw0", "sealed")
    with (tmp_path / MARKER).open("a") as marker:
        marker.write('["gw1"')  # of a worker that was killed
    assert controller.rows() == [(folder, {"folder": "a", "id": "test_a"})]
    assert [*controller.sealed()] == [("gw0", "sealed")]
    controller.settle()
    assert controller.tests() == [folder]
    assert not [*controller.sealed()]
    assert controller.rows() == [(folder, {})]


def test_a_folder_with_another_name_takes_none_that_there_is(tmp_path: Path) -> None:
    report = ReportFolder(tmp_path)
    folder = report.make("a")
    (tmp_path / "b").mkdir()
    assert report.rename(folder, "b").name == "b-2"
    assert [each.name for each in report.tests()] == ["b-2"]


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="out"):
        ReportFolder(tmp_path / "out").make("a")


def test_a_report_removes_only_what_an_earlier_one_has_written(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    folder = ReportFolder(out)
    written = folder.make("test_a")
    for name in ("timeline.html", "ledger.jsonl", "shop.log", "traffic.har.part"):
        (written / name).write_text("x")
    mixed = folder.make("test_b")
    (mixed / "mine.txt").write_text("x")
    other.mkdir()
    (other / "timeline.html").write_text("x")
    (other / MARKER).touch()
    (out / "link").symlink_to(other)
    (out / "unmarked").mkdir()
    (out / "unmarked" / "ledger.jsonl").write_text("x")
    (out / "index.html").write_text("x")
    folder.begin()
    assert {each.name for each in out.iterdir()} == {"test_b", "link", "unmarked"}
    assert (out / "unmarked" / "ledger.jsonl").exists()
    assert (other / "timeline.html").exists()
    assert (mixed / "mine.txt").exists()


def test_a_folder_that_is_no_report_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("x")
    ReportFolder(tmp_path).begin()
    assert (tmp_path / "index.html").exists()


def test_one_run_at_a_time_has_a_folder(tmp_path: Path) -> None:
    first, second = ReportFolder(tmp_path / "a" / "out"), ReportFolder(tmp_path / "a" / "out")
    assert first.claim()
    assert not second.claim()
    first.release()
    assert second.claim()
    second.leave()
    assert (tmp_path / "a").exists()  # which the other one has made
    first.leave()
    assert not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_locked_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    assert ReportFolder(tmp_path / "out").claim()
