"""A temporary folder that tells whether its run goes on: a lock on a file in it, which ends with the process.

Other users may write where it is: only a folder of this user's own is looked into, and no link is followed.
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

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

PREFIX: Final = "pytest-egress-"
LOCK_NAME: Final = "lock"
WORDS_NAME: Final = "watchdog"  # of a file: why the run's watchdog failed
KINDS: Final = (stat.S_IFREG, stat.S_IFDIR)


class RunFolder:
    """A temporary folder of this run; when the run was killed, the next one removes it.

    Attributes:
        path: Absolute; its owner alone can enter.
    """

    def __init__(self) -> None:
        self.path: Final = tempfile.mkdtemp(prefix=PREFIX)
        self._lock: int | None = os.open(f"{self.path}/new", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(f"{self.path}/new", f"{self.path}/{LOCK_NAME}")  # nobody sees it without its lock
        close_in_forked_children(self, RunFolder.unlock)

    def remove(self) -> None:
        """Remove it with what is in it; again is harmless."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            self.unlock()

    def unlock(self) -> None:
        """Close the lock; again is harmless."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def remove_folders() -> list[str]:
    """Remove the temporary folders of runs that are gone.

    Returns:
        Why their watchdogs failed, the last line of each; a watchdog that does not fail has removed its folder.
    """
    failures = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if run_lives(folder) is False:
            with suppress(OSError):
                failures += (folder / WORDS_NAME).read_text("utf-8", "replace").split("\n")[-2:-1]
            shutil.rmtree(folder, ignore_errors=True)
    return failures


def run_lives(folder: str | Path) -> bool | None:
    """Whether the run goes on that has this temporary folder: it holds the lock in it (flock(2)).

    Returns:
        None where it is not to be seen from here: the folder is another machine's or user's, or has been removed.
    """
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
    """The lock in a run's folder, as a descriptor; follows no link, and takes what is this user's alone.

    A label may name any folder, and anybody may make one where temporary ones are.

    Raises:
        OSError: There is none, or it is another user's.
    """
    inside = open_own(folder, os.O_DIRECTORY)
    try:
        return open_own(LOCK_NAME, os.O_RDWR, inside)
    finally:
        os.close(inside)


def open_own(path: str | Path, flags: int, folder: int | None = None) -> int:
    """A file or folder of this user's, as a descriptor, which a child that is started does not get (PEP 446).

    Args:
        folder: The descriptor of the one in which it is.

    Raises:
        OSError: It is a link, or neither file nor folder, or another user's, or not there.
    """
    # A pipe, which anybody may have put there, would wait for its other end.
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or stat.S_IFMT(found.st_mode) not in KINDS:
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "it is not this user's own", str(path))
    return descriptor
