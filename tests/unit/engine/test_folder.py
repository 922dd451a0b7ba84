"""A run's temporary folder: its owner's alone, and known by a lock that nobody else can put there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_egress.engine.folder import (
    LOCK_NAME,
    PREFIX,
    WORDS_NAME,
    RunFolder,
    remove_folders,
    run_lives,
)

SOMEBODY = 12345  # a user who is not the one of the tests

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to somebody else")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def living(temporary: Path) -> Iterator[RunFolder]:
    folder = RunFolder()
    yield folder
    folder.remove()


def dead(parent: Path, name: str = "dead") -> Path:
    """The folder of a run that was killed."""
    folder = parent / f"{PREFIX}{name}"
    folder.mkdir(mode=0o700)
    (folder / LOCK_NAME).touch()
    return folder


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_nobody_but_its_owner_enters_it_whatever_the_umask_is(temporary: Path) -> None:
    before = os.umask(0)
    try:
        folder = RunFolder()
    finally:
        os.umask(before)
    try:
        assert Path(folder.path).parent == temporary
        assert mode_of(folder.path) == 0o700
        assert mode_of(f"{folder.path}/{LOCK_NAME}") == 0o600
    finally:
        folder.remove()


def test_its_lock_tells_whether_the_run_goes_on(living: RunFolder, temporary: Path) -> None:
    assert run_lives(living.path) is True
    living.unlock()
    assert run_lives(living.path) is False
    assert run_lives(temporary / "gone") is None


def test_a_program_that_is_started_does_not_get_the_lock(living: RunFolder) -> None:
    assert living._lock is not None
    assert not os.get_inheritable(living._lock)


def test_what_a_label_names_may_be_no_path_at_all() -> None:
    assert run_lives("a\0b") is None
    assert run_lives("") is None


def test_a_lock_that_is_a_link_is_not_followed(temporary: Path) -> None:
    folder = dead(temporary)
    (folder / LOCK_NAME).unlink()
    victim = temporary / "victim"
    victim.touch()
    (folder / LOCK_NAME).symlink_to(victim)
    assert run_lives(folder) is None


def test_a_folder_that_is_a_link_is_not_followed(temporary: Path) -> None:
    real = dead(temporary, "real")
    kept = real.rename(temporary / "kept")
    link = temporary / f"{PREFIX}link"
    link.symlink_to(kept)
    assert run_lives(kept) is False
    assert run_lives(link) is None
    remove_folders()
    assert kept.exists()
    assert link.is_symlink()


def test_a_pipe_in_its_place_is_not_waited_for(temporary: Path) -> None:
    folder = dead(temporary)
    (folder / LOCK_NAME).unlink()
    os.mkfifo(folder / LOCK_NAME)
    assert run_lives(folder) is None


@as_root
@pytest.mark.parametrize("whose", ["folder", "lock"])
def test_what_is_another_users_is_neither_looked_at_nor_removed(
    temporary: Path, whose: str
) -> None:
    folder = dead(temporary)
    os.chown(folder if whose == "folder" else folder / LOCK_NAME, SOMEBODY, -1)
    assert run_lives(folder) is None
    remove_folders()
    assert (folder / LOCK_NAME).exists()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_folder_is_removed_with_what_is_in_it_once(living: RunFolder) -> None:
    Path(living.path, "socket").touch()
    before = descriptors()
    living.remove()
    assert not Path(living.path).exists()
    assert len(descriptors()) == len(before) - 1
    Path(living.path).mkdir()  # of somebody else, by the same name
    living.remove()
    assert Path(living.path).exists()


def test_what_a_removal_that_was_cut_off_has_left_is_found_by_its_lock(
    living: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.unlink

    def interrupted(*args: Any, **options: Any) -> None:
        real(*args, **options)
        raise KeyboardInterrupt

    Path(living.path, WORDS_NAME).touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", interrupted)
        with pytest.raises(KeyboardInterrupt):
            living.remove()
    assert os.listdir(living.path) == [LOCK_NAME]
    living.unlock()
    remove_folders()
    assert not Path(living.path).exists()


def test_a_folder_that_cannot_be_removed_is_no_error(living: RunFolder) -> None:
    os.rename(living.path, f"{living.path}-moved")
    living.remove()
    assert run_lives(f"{living.path}-moved") is False


def test_a_forked_child_neither_removes_the_folder_nor_keeps_its_lock(living: RunFolder) -> None:
    code = f"""
import os, tempfile, sys
tempfile.tempdir = {tempfile.gettempdir()!r}
from pytest_egress.engine.folder import RunFolder, run_lives
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
    living: RunFolder, temporary: Path
) -> None:
    gone, unlocked = dead(temporary), temporary / f"{PREFIX}unlocked"
    unlocked.mkdir()
    remove_folders()
    assert not gone.exists()
    assert unlocked.exists()
    assert Path(living.path).exists()
