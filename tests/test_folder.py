"""A run's folder: who may look into it, and how others tell whether the run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_egress.folder import LOCK_NAME, PREFIX, RunFolder, remove_folders, run_lives


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that no other run uses."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def folder() -> Iterator[RunFolder]:
    folder = RunFolder()
    yield folder
    folder.remove()


def mode(path: str | Path) -> int:
    return os.stat(path).st_mode & 0o777


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_folder_and_its_lock_are_its_owners_alone(folder: RunFolder, temporary: Path) -> None:
    assert Path(folder.path).parent == temporary
    assert Path(folder.path).name.startswith(PREFIX)
    assert os.listdir(folder.path) == [LOCK_NAME]
    assert (mode(folder.path), mode(f"{folder.path}/{LOCK_NAME}")) == (0o700, 0o600)


def test_a_run_lives_while_it_holds_its_lock(folder: RunFolder) -> None:
    before = descriptors()
    assert run_lives(folder.path) is True
    assert run_lives(Path(folder.path)) is True
    folder.unlock()
    folder.unlock()
    assert run_lives(folder.path) is False
    assert len(descriptors()) == len(before) - 1


def test_of_a_folder_that_is_not_there_nothing_is_known(temporary: Path) -> None:
    assert run_lives(temporary / "of another machine") is None
    assert run_lives(temporary) is None  # and it has no lock


def test_a_folder_is_removed_with_what_is_in_it_once(folder: RunFolder) -> None:
    Path(folder.path, "socket").touch()
    before = descriptors()
    folder.remove()
    assert not Path(folder.path).exists()
    assert len(descriptors()) == len(before) - 1
    Path(folder.path).mkdir()  # of somebody else, by the same name
    folder.remove()
    assert Path(folder.path).exists()


def test_a_folder_that_cannot_be_removed_is_no_error(folder: RunFolder) -> None:
    os.rename(folder.path, f"{folder.path}-moved")
    folder.remove()
    assert run_lives(f"{folder.path}-moved") is False


def test_a_forked_child_neither_removes_the_folder_nor_keeps_its_lock(folder: RunFolder) -> None:
    code = f"""
import os, tempfile, sys
tempfile.tempdir = {tempfile.gettempdir()!r}
from pytest_egress.folder import RunFolder, run_lives
folder = RunFolder()
read, write = os.pipe()
if os.fork() == 0:
    folder.remove()
    os.close(write)
    os.read(0, 1)
    os._exit(0)
os.close(write)
os.read(read, 1)
print(os.path.exists(folder.path), run_lives(folder.path))
folder.unlock()
print(run_lives(folder.path), flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-Wignore", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "True True\n"
        assert run.stdout.readline() == "False\n"


def test_the_folders_of_runs_that_are_gone_are_removed_and_no_others(
    folder: RunFolder, temporary: Path
) -> None:
    gone = RunFolder()
    gone.unlock()
    Path(gone.path, "sockets").mkdir()
    strange = temporary / f"{PREFIX}somebody-elses"  # without a lock
    other = temporary / "other"
    for each in (strange, other):
        each.mkdir()
    (other / LOCK_NAME).touch()
    link = temporary / f"{PREFIX}link"  # to a folder that is not ours
    link.symlink_to(other)
    remove_folders()
    assert {path.name for path in temporary.iterdir()} == {
        Path(folder.path).name,
        strange.name,
        other.name,
        link.name,
    }
    assert (other / LOCK_NAME).exists()
