"""`Watchdog`: a process that removes the containers of a killed run. It waits at a pipe that only the run holds.

A run that ends by itself dismisses the watchdog. Until the pipe closes it has imported nothing of ours, and costs an
idle interpreter.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Final

from pytest_egress.base.forks import close_in_forked_children
from pytest_egress.engine.folder import WORDS_NAME

DISMISSED: Final = b"dismissed"
PACKAGES: Final = ("pytest_egress", "docker", "requests", "urllib3")
"""The packages that it imports from the run's own folders. Their dependencies are beside them, or on the run's path."""

ACT: Final = """
import json, sys
from importlib.machinery import PathFinder
homes, path = json.loads(sys.argv.pop())
class Homes:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [homes[name]]) if name in homes else None
sys.meta_path.insert(0, Homes)
sys.path += [folder for folder in path if folder not in sys.path]
from pytest_egress.engine.watchdog import main
main()
"""
WAIT: Final = f"""
import os, sys
said = b""
while data := os.read(0, 100):
    said += data
if said != {DISMISSED!r}:
    os.execv(sys.executable, [sys.executable, "-I", "-c", {ACT!r}, *sys.argv[1:]])
"""
LOOKS: Final = 4  # the engine may finish a request of the killed run late
FIRST_LOOK_AT_SIDECARS: Final = 2  # by then it has created the target that a killed run asked for
LOOK_SECONDS: Final = 0.5


class Watchdog:
    """The watchdog's process, from a run's first contact with the engine to the run's end.

    Args:
        label: `name=value`, as the run's containers and images have it.
        engine: As `endpoint.describe` describes it.
    """

    def __init__(self, label: str, engine: str, folder: str) -> None:
        with open(f"{folder}/{WORDS_NAME}", "wb") as words:
            # It gets a session of its own: a signal to the run's process group must not end it.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", WAIT, label, engine, folder, import_paths()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=words,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        close_in_forked_children(self._process.stdin, lambda stdin: stdin.close())

    def dismiss(self) -> str:
        """End the process without a removal; return a sentence if it had ended too early, and "" otherwise."""
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            return ""
        ended = self._process.poll()
        with contextlib.suppress(OSError):  # the process has been killed
            self._process.stdin.write(DISMISSED)
            self._process.stdin.close()
        self._process.wait()
        return "" if ended is None else f"the watchdog ended before its run (exit code {ended})"


def import_paths() -> str:
    """The folders from which this process imports, as JSON, for a process that is to import the same modules.

    The current folder and the environment's variables are not used: a project may have a `docker.py` of its own.
    """
    homes: Mapping[str, str] = {
        name: os.path.dirname(os.path.abspath(package.__path__[0]))
        for name in PACKAGES
        if (package := sys.modules.get(name)) is not None
    }
    return json.dumps([homes, [folder for folder in sys.path if os.path.isabs(folder)]])


def main() -> None:
    """Remove the containers, images and folders of a run that has been killed; its sidecars last.

    The engine may still create a target for a request of that run. Where Podman removes a sidecar while it creates a
    container with the sidecar's network, the sidecar's lock has no owner afterwards and goes to two containers in the
    end: a deadlock, in which the whole service stands still.
    """
    from pytest_egress.engine.endpoint import another_client
    from pytest_egress.engine.folder import remove_folder, remove_folders
    from pytest_egress.engine.leftovers import FAILURES, remove_labelled

    label, engine, folder = sys.argv[1:]
    with contextlib.closing(another_client(engine)) as client:
        for look in range(LOOKS):
            with contextlib.suppress(*FAILURES):  # the next attempt may succeed
                remove_labelled(client.api, label, sidecars=look >= FIRST_LOOK_AT_SIDECARS)
            time.sleep(LOOK_SECONDS)
    remove_folder(folder)
    remove_folders()  # the folder of the ssh bridge that `client` used
