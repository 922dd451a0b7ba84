"""Files that are written whole: to a temporary name beside, which then takes the place of the file.

No reader sees a half of one, and a write that fails leaves the file as it was. A file without a change is not written.
Writers share a lock of the folder. A temporary file that is there while nobody has that lock was left by a process that
was killed: the next write in that folder removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TEMPORARY: Final = re.compile(r"\.egress-[0-9a-f]{32}")


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> bool:
    """Write a file, and its folders; text is UTF-8. Of a link the file is written that it leads to.

    Returns:
        Whether anything was written: a file with the same bytes is left alone.

    Raises:
        OSError: It cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    file = Path(os.path.realpath(path))
    if has(file, data):
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".egress-{uuid.uuid4().hex}")
    with among_writers(file.parent):
        try:
            beside.write_bytes(data)
            with contextlib.suppress(FileNotFoundError):  # a new one has what the umask leaves
                beside.chmod(stat.S_IMODE(file.stat().st_mode))
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def among_writers(folder: Path) -> Iterator[None]:
    """Share the lock of a folder, after the removal of what killed writers have left in it."""
    try:
        lock = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it may be written to all the same
        yield
        return
    try:
        with contextlib.suppress(OSError):  # another writes now, or the file system has no locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_left(folder)
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def remove_left(folder: Path) -> None:
    for each in folder.iterdir():
        if TEMPORARY.fullmatch(each.name):
            each.unlink(missing_ok=True)


def has(file: Path, data: bytes) -> bool:
    """Whether a file has just these bytes."""
    try:
        return file.stat().st_size == len(data) and file.read_bytes() == data
    except FileNotFoundError:
        return False
