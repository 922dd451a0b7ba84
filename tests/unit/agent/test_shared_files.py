"""The files that a target shares with its sidecar: what is put back, and what is told where that fails."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
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


FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
NO_DUMP_NO_TIMES = 0x40 | 0x80  # chattr +dA


def flags_of(path: Path, add: int = 0) -> int:
    """The flags of a file by chattr(1), after more have been set."""
    with path.open("rb") as file:
        try:
            found = fcntl.ioctl(file, FS_IOC_GETFLAGS, bytes(8))
            if add:
                flags = int.from_bytes(found[:4], "little") | add
                fcntl.ioctl(file, FS_IOC_SETFLAGS, struct.pack("l", flags))
        except OSError as error:
            pytest.skip(f"files have no such flags in {path.parent}: {error}")
        return int.from_bytes(fcntl.ioctl(file, FS_IOC_GETFLAGS, bytes(8))[:4], "little")


def test_flags_that_a_target_has_set_are_taken_away(hosts: Path) -> None:
    before, files = flags_of(hosts), SharedFiles()
    assert flags_of(hosts, NO_DUMP_NO_TIMES) != before
    os.utime(hosts, (1, 1))
    assert files.put_back()
    assert flags_of(hosts) == before
    assert 1 not in (hosts.stat().st_atime, hosts.stat().st_mtime)


def test_flags_that_cannot_be_taken_away_are_told(
    hosts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SharedFiles()
    flags_of(hosts, NO_DUMP_NO_TIMES)
    monkeypatch.setattr(module, "set_attributes", lambda _file, _wanted: None)
    assert not files.put_back()


def test_a_file_system_without_flags_is_no_obstacle(
    hosts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_file: int, _request: int, _argument: bytes) -> bytes:
        raise OSError(errno.ENOTTY, "no such flags")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    files = SharedFiles()
    hosts.write_text("192.0.2.1 evil.test\n")
    assert files.put_back()


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
