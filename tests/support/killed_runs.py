"""Runs in processes of their own, which a test may kill, and what is left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_egress.targets.sidecars.provision import LINK_VARIABLE
from tests.support.leftovers import Witness, until, watchdogs

LINKS = ("descriptor", "stream")

RUN = """
import os, sys, threading, time
sys.path.remove("")  # as where pytest is a command
from pytest_egress import Egress
with Egress() as egress:
    egress._inner.session.engine.client
    print(egress._inner.session.engine.labels["org.pytest-egress.session"], flush=True)
    print(egress._inner.session.engine.folder, flush=True)
    {action}
    print("up", flush=True)
    time.sleep(600)
"""
TARGET = "egress.start({image!r}, ['sleep', '600'], volumes=['/data'])"
READ_ONLY = "egress.start({image!r}, ['sleep', '600'], read_only=True)"


class KilledRun:
    """A run in a process of its own, as far as it has got.

    Args:
        action: What it does, as code.
        link: As the environment has it.
        python: Its interpreter.
        options: Of `subprocess.Popen`.
    """

    def __init__(
        self, action: str, link: str = "auto", python: str = sys.executable, **options: Any
    ) -> None:
        env = {**os.environ, LINK_VARIABLE: link, **options.pop("env", {})}
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [python, "-c", RUN.format(action=action)],
            env=env,
            **options,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.session, self.folder = self.line(), self.line()
        assert until(lambda: watchdogs(self.session))  # it may be between fork and exec
        (watchdog,) = watchdogs(self.session)
        self.watchdog = int(watchdog)

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "it ended"
        return line

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def left(self, witness: Witness) -> list[str]:
        """What is there of it."""
        return list(self.found(witness))

    def found(self, witness: Witness) -> Iterator[str]:
        """The same one by one: its folder first, which its watchdog removes last."""
        if Path(self.folder).exists():
            yield f"folder {self.folder}"
        yield from witness.found(self.session)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def assert_nothing_is_left(witness: Witness, run: KilledRun) -> None:
    assert until(lambda: not any(run.found(witness))), run.left(witness)
