"""Files that are written whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pytest_egress.shelf import among_writers, write_whole


def test_a_file_is_written_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "egress.lock"
    write_whole(file, "é\n")
    write_whole(file, b"second\r\n")
    assert file.read_bytes() == b"second\r\n"
    assert [*file.parent.iterdir()] == [file]


def test_a_write_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "egress.lock"
    file.write_text("first")

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as half:
            half.write(data[:2])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        write_whole(file, "second")
    assert file.read_text() == "first"
    assert [*tmp_path.iterdir()] == [file]


def test_a_file_without_a_change_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "egress.lock"
    assert write_whole(file, "same")
    before = file.stat()
    assert not write_whole(file, "same")
    assert file.stat().st_ino == before.st_ino


def test_a_file_keeps_its_mode_and_a_link_leads_where_it_led(tmp_path: Path) -> None:
    file, link = tmp_path / "shared.lock", tmp_path / "egress.lock"
    file.write_text("first")
    file.chmod(0o640)
    os.symlink(file, link)
    write_whole(link, "second")
    assert link.is_symlink()
    assert file.read_text() == "second"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_what_a_killed_writer_has_left_is_removed_by_the_next_write_and_by_none_beside_another(
    tmp_path: Path,
) -> None:
    left, mine = tmp_path / f".egress-{'0f' * 16}", tmp_path / ".egress-report"
    left.write_text("half")
    mine.write_text("{}")
    with among_writers(tmp_path):
        assert not left.exists()
        left.write_text("of one that writes")
        write_whole(tmp_path / "a.yaml", "a")
        assert left.exists()
    write_whole(tmp_path / "b.yaml", "b")
    assert {each.name for each in tmp_path.iterdir()} == {"a.yaml", "b.yaml", ".egress-report"}
