"""`RunFolder`: a run's temporary folder. The lock on a file in it shows whether the run's process still exists.

Other users may write to the folder that it is in. So only folders of this user's own are read, and no link is followed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from pytest_egress.base.forks import close_in_forked_children

PREFIX: Final = "pytest-egress-"
LOCK_NAME: Final = "lock"
WORDS_NAME: Final = "watchdog"  # the file of the watchdog's standard error
KINDS: Final = (stat.S_IFREG, stat.S_IFDIR)


class RunFolder:
    """A temporary folder of this run, which only its owner can enter. If the run is killed, the next one removes it."""

    def __init__(self) -> None:
        self.path: Final = tempfile.mkdtemp(prefix=PREFIX)
        self._lock: int | None = os.open(f"{self.path}/new", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(f"{self.path}/new", f"{self.path}/{LOCK_NAME}")  # nobody sees it without its lock
        close_in_forked_children(self, RunFolder.unlock)

    def remove(self) -> None:
        if self._lock is not None:
            remove_folder(self.path)
            self.unlock()

    def unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def remove_folders() -> list[str]:
    """Remove the folders of runs that have ended; return the last line of each watchdog that has failed."""
    failures = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if run_lives(folder) is False:
            with suppress(OSError):
                failures += (folder / WORDS_NAME).read_text("utf-8", "replace").split("\n")[-2:-1]
            remove_folder(folder)
    return failures


def remove_folder(folder: str | Path) -> None:
    """Remove a run's folder, its lock last: the next run finds by the lock what a removal that was cut off has left."""
    with suppress(OSError):
        for entry in [each for each in os.scandir(folder) if each.name != LOCK_NAME]:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
    shutil.rmtree(folder, ignore_errors=True)


def run_lives(folder: str | Path) -> bool | None:
    """Whether a run goes on (flock(2)), by its folder; None where that is another's, or gone."""
    try:
        lock = open_lock(folder)
    except (OSError, ValueError):  # ValueError where a label is no path
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def open_lock(folder: str | Path) -> int:
    """Open the lock file in a run's folder, if it is this user's, and follow no link; else raise OSError.

    The path comes from a container's label and may name any folder, and any user may make one among temporary folders.
    """
    inside = open_own(folder, os.O_DIRECTORY)
    try:
        return open_own(LOCK_NAME, os.O_RDWR, inside)
    finally:
        os.close(inside)


def open_own(path: str | Path, flags: int, folder: int | None = None) -> int:
    """Open a file or folder of this user's, not to be inherited (PEP 446); OSError for anything else, as for a link."""
    # Not blocking: another user may have put a named pipe there, whose open() waits for its other end.
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or stat.S_IFMT(found.st_mode) not in KINDS:
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "it is not this user's own", str(path))
    return descriptor
