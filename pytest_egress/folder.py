"""A temporary folder that tells whether its run goes on: a lock on a file in it, which ends with the process."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

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
        self._lock = os.open(f"{self.path}/{LOCK_NAME}", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove it with what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_folders() -> None:
    """Remove the folders of runs that are gone: nobody holds the lock in them (flock(2))."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder / LOCK_NAME, os.O_RDWR)
        except OSError:  # not ours, or somebody else removes it
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # its run goes on
        finally:
            os.close(lock)
