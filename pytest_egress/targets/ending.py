"""`Ending`: the end of one container, as the engine knows it: how it is asked for, awaited and explained."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import docker.errors
import requests.exceptions

from pytest_egress.engine.engine import Engine
from pytest_egress.engine.failures import engine_errors, explanation
from pytest_egress.engine.leftovers import ENDED
from pytest_egress.errors import CommandError, ContainerTimeoutError, EngineError
from pytest_egress.ledger.report import awaited_text
from pytest_egress.targets.logs import NO_LOG, Log
from pytest_egress.targets.results import OUT_OF_MEMORY, exit_text, with_logs

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer

    from pytest_egress.ledger.ledger import Ledger

NO_ANSWER_YET: Final = (requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError)
STOP_SIGNAL: Final = "SIGTERM"  # where the image has none of its own
NOT_RUNNING: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)  # answers to a signal
PAUSED: Final = ", and is paused (`docker unpause` would let it go on)"


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The end of a container that has been created."""

    container: DockerContainer
    name: str
    log: Log
    engine: Engine
    ledger: Ledger

    def exit_code(self, timeout: float) -> int | None:
        """Wait for its exit code (`POST /containers/{id}/wait`); None on a timeout. An open prompt stops the clock."""
        clock = self.ledger.clock
        deadline = clock() + timeout
        while (left := deadline - clock()) > 0:
            with (
                contextlib.suppress(*NO_ANSWER_YET),
                engine_errors(f"wait for {self.name}", passing=NO_ANSWER_YET),
            ):
                return int(self.container.wait(timeout=left)["StatusCode"])
            with engine_errors(f"wait for {self.name}"):
                self.engine.client.ping()  # an error means a timeout only where this answers
        return None

    def ask(self, timeout: float) -> str:
        """Send the stop signal. Return why the container has to be killed; "" where it has ended by itself."""
        name = signal_name(self.container.attrs["Config"].get("StopSignal") or STOP_SIGNAL)
        if not self.send(name) or self.exit_code(timeout) is not None:
            return ""
        return f"it still ran {timeout:g} s after {name}{self._paused()}, and was killed"

    def send(self, name: str) -> bool:
        """The endpoint is `POST /containers/{id}/kill`; False where the container does not run."""
        try:
            with engine_errors(f"signal {self.name}", passing=(docker.errors.APIError,)):
                self.container.kill(name)
        except docker.errors.APIError as error:
            if error.status_code in NOT_RUNNING:
                return False
            said = explanation(error)
            raise EngineError(f"the engine did not send {name} to {self.name}: {said}") from None
        return True

    def note(self, written: bytes, killed: str) -> str:
        """The note of a result with an error, or without output: what the engine knows of the container's end.

        On a busy machine Docker 26.1 sometimes loses the output of a container that ends before the engine has noted
        its start. `docker run` loses it too.
        """
        self.container.reload()
        state = self.container.attrs["State"]
        if state.get("OOMKilled"):
            return OUT_OF_MEMORY
        if killed:
            return killed
        if written or state["FinishedAt"] > state["StartedAt"]:
            return ""
        return "it ended before the engine had noted its start: on a busy machine Docker may lose such output"

    def check_waiting(self, missing: str, timeout: float, deadline: float) -> None:
        """Raise an error if the container has ended before it was ready, or the time is over."""
        with engine_errors(f"look at {self.name}"):
            self.container.reload()
        if self.container.status in ENDED:
            state = self.container.attrs["State"]
            code, why = state["ExitCode"], OUT_OF_MEMORY if state.get("OOMKilled") else ""
            text = f"{exit_text(self.name, code, why)} before it was ready: {missing}"
            logs = self.log.tail()
            if not logs:
                command = [self.container.attrs["Path"], *self.container.attrs["Args"]]
                text = f"{text}\nIts entrypoint and command: {self.ledger.redactor.shown(command)}"
            raise CommandError(
                with_logs(text, logs, self.ledger.redactor),
                logs=logs,
                exit_code=code,
                container=self.name,
            )
        if self.ledger.clock() >= deadline:
            text = self.late(f"{self.name} was not ready after {timeout:g} s", f": {missing}")
            raise self.timeout(text, self.log.tail())

    def late(self, before: str, after: str) -> str:
        """A text about a timeout, with what holds the container up: a pause, and the faults that it still waits for."""
        return f"{before}{self._paused()}{after}{awaited_text(self.ledger.pauses_of(self.name))}"

    def timeout(self, text: str, logs: str) -> ContainerTimeoutError:
        shown = with_logs(text, logs, self.ledger.redactor)
        return ContainerTimeoutError(shown, logs=logs, container=self.name)

    def _paused(self) -> str:
        with contextlib.suppress(*NO_LOG):
            self.container.reload()
        return PAUSED if self.container.status == "paused" else ""


def signal_name(value: object) -> str:
    """An image, and Podman, may give the signal's number."""
    with contextlib.suppress(ValueError):
        return signal.Signals(int(str(value))).name
    return str(value)
