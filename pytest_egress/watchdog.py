"""Removes what a killed run leaves: a small process of its own, which waits at a pipe that only the run holds.

A run that ends well dismisses it. Until then it has imported nothing, and costs an idle interpreter.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from typing import Final

from pytest_egress.forks import in_children

DISMISSED: Final = b"dismissed"
WAIT: Final = f"""
import os, sys
said = b""
while data := os.read(0, 100):
    said += data
if said != {DISMISSED!r}:
    os.execv(sys.executable, [sys.executable, "-m", "pytest_egress.watchdog", *sys.argv[1:]])
"""
LOOKS: Final = 3  # a request that the engine had not finished when the run was killed may come late
LOOK_SECONDS: Final = 0.5


class Watchdog:
    """The process, from the first container of a run to the run's end.

    Args:
        label: Of the run's containers and images, `name=value`.
        engine: What `endpoint.describe` says of the engine.
        folder: The run's temporary folder.
    """

    def __init__(self, label: str, engine: str, folder: str) -> None:
        # A session of its own: what ends the run's process group must not end it.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WAIT, label, engine, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        in_children(self._process.stdin, lambda stdin: stdin.close())

    def dismiss(self) -> None:
        """Let it end without a deed; again is harmless."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            with contextlib.suppress(OSError):  # it has been killed
                self._process.stdin.write(DISMISSED)
                self._process.stdin.close()
            self._process.wait()


def main() -> None:
    """Remove everything of a run that has been killed."""
    from pytest_egress.endpoint import another_client
    from pytest_egress.folder import remove_folders
    from pytest_egress.leftovers import FAILURES, remove_labelled

    label, engine, folder = sys.argv[1:]
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.closing(another_client(engine)) as client:
        for _ in range(LOOKS):
            with contextlib.suppress(*FAILURES):  # of an engine that may do so the next time
                remove_labelled(client.api, label)
            time.sleep(LOOK_SECONDS)
    remove_folders()  # an ssh connection's own


if __name__ == "__main__":
    main()
