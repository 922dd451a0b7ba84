"""A temporary folder that tells whether its run goes on: a lock on a file in it, which ends with the process."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from pytest_egress.forks import in_children

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

PREFIX: Final = "pytest-egress-"
LOCK_NAME: Final = "lock"


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
        in_children(self, RunFolder.unlock)

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


def remove_folders() -> None:
    """Remove the temporary folders of runs that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if run_lives(folder) is False:
            shutil.rmtree(folder, ignore_errors=True)


def run_lives(folder: str | Path) -> bool | None:
    """Whether the run goes on that has this temporary folder: it holds the lock in it (flock(2)).

    Returns:
        None where it is not to be seen from here: the folder is another machine's, or has been removed.
    """
    try:
        lock = os.open(Path(folder, LOCK_NAME), os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
