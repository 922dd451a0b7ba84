"""A run is told of a watchdog that ended, or failed, before it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pytest_egress.engine.folder import WORDS_NAME, RunFolder, remove_folders
from pytest_egress.engine.watchdog import Watchdog


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_run_is_told_of_one_that_ended_before_it(temporary: Path) -> None:
    folder = RunFolder()
    watchdog = Watchdog("label=1", "{}", folder.path)
    watchdog._process.kill()
    watchdog._process.wait()
    assert watchdog.dismiss() == "the watchdog ended before its run (exit code -9)"
    assert watchdog.dismiss() == ""
    folder.remove()


def test_one_that_is_dismissed_has_nothing_to_tell(temporary: Path) -> None:
    folder = RunFolder()
    watchdog = Watchdog("label=1", "{}", folder.path)
    assert watchdog.dismiss() == ""
    assert watchdog._process.returncode == 0
    assert Path(folder.path, WORDS_NAME).read_bytes() == b""
    folder.remove()


def test_the_next_run_is_told_why_it_failed(temporary: Path) -> None:
    folder = RunFolder()
    watchdog = Watchdog("label=1", "no engine at all", folder.path)
    assert watchdog._process.stdin is not None
    watchdog._process.stdin.close()  # as at the end of a run that is killed
    assert watchdog._process.wait() == 1
    folder.unlock()
    (failure,) = remove_folders()
    assert failure.startswith("json.decoder.JSONDecodeError: ")
    assert not Path(folder.path).exists()
