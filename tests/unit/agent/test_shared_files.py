"""The files that a target shares with its sidecar: what is put back, and what is told where that fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import pytest_egress.agent.shared_files as module
from pytest_egress.agent.shared_files import SharedFiles


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n")
    path.chmod(0o644)
    monkeypatch.setattr(module, "SHARED", (str(path),))
    return path


def fill(path: Path) -> None:
    path.write_bytes(b"127.0.0.1 localhost\n" + bytes(3 << 20))


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("192.0.2.1 evil.test\n"),
        lambda path: os.truncate(path, 0),
        lambda path: path.chmod(0o4755),
        fill,
    ],
    ids=["content", "no content", "mode", "3 MiB"],
)
def test_what_a_target_has_changed_is_put_back(
    hosts: Path, change: Callable[[Path], object]
) -> None:
    files = SharedFiles()
    change(hosts)
    assert files.put_back()
    assert hosts.read_text() == "127.0.0.1 localhost\n"
    assert hosts.stat().st_mode & 0o7777 == 0o644


def test_what_cannot_be_undone_is_told(hosts: Path) -> None:
    files = SharedFiles()
    os.setxattr(hosts, "user.left", b"1")
    assert not files.put_back()
    hosts.unlink()
    assert not files.put_back()


def test_one_that_cannot_be_written_is_told_though_it_seems_to_be_as_it_was(hosts: Path) -> None:
    """The next target could not write it either: a file that is executed stands for one that chattr(1) has closed."""
    program = shutil.which("sleep")
    assert program is not None
    shutil.copy(program, hosts)
    files = SharedFiles()
    assert files.put_back()
    with subprocess.Popen([hosts, "600"]) as process:
        try:
            assert not files.put_back()
        finally:
            process.kill()
