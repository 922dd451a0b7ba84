"""`Stack`: the services of a Compose project that runs behind an endpoint of its own.

The program makes the containers, and the endpoint captures them. What is made ends with the endpoint.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import docker.errors

import pytest_egress.targets.handle as container_handle
from pytest_egress.endpoint.compose import ComposeOptions, ComposeProject, compose_project
from pytest_egress.endpoint.container_calls import CapturedService
from pytest_egress.endpoint.server import EngineEndpoint
from pytest_egress.engine.leftovers import ENDED
from pytest_egress.errors import CallError, CommandError, ContainerError
from pytest_egress.targets.readiness import Probed
from pytest_egress.targets.results import (
    CompletedContainer,
    check_result,
    exit_text,
    with_logs,
)
from pytest_egress.traffic.entries import TcpConnection
from pytest_egress.traffic.shown import counted, shown

if TYPE_CHECKING:
    from docker import APIClient

    from pytest_egress.inner_egress import InnerEgress

MAX_CALLS: Final = 10  # of a failed assertion, in its text
STEP: Final = re.compile(r" *(Container|Network|Volume|Image) ")
PROGRAM_SECONDS: Final = 300.0  # for a command of the program


class Stack:
    """The services of a Compose project. Made by `Egress.compose`; usable as a context manager.

    `stack["web"]` is the container of a service, `stack["web", 2]` its second replica.
    """

    def __init__(
        self, scope: InnerEgress, project: ComposeProject, endpoint: EngineEndpoint
    ) -> None:
        self._scope, self._project, self._endpoint = scope, project, endpoint

    @property
    def services(self) -> list[str]:
        """The names of the services that have a container."""
        return [*dict.fromkeys(each.service for each in self._captured())]

    def __getitem__(self, key: str | tuple[str, int]) -> container_handle.Container:
        """The container of a service; with a number, of a replica.

        Raises:
            LookupError: There is none; the text lists those that there are.
        """
        service, number = key if isinstance(key, tuple) else (key, None)
        several = [each for each in self._captured() if each.service == service]
        for each in several:
            if number in (None, each.number) and each.target is not None:
                return each.target
        if several and number is None:
            raise LookupError(
                f"the service {shown(service)} has no network, and so is not captured"
            )
        there = [f"{each.service} {each.number}" for each in self._captured()]
        raise LookupError(
            f"there is no container of {shown(service)}"
            f"{'' if number is None else f' with the number {number}'}; there are: {', '.join(there) or 'none'}"
        )

    def compose(
        self, *arguments: str, timeout: float = PROGRAM_SECONDS, check: bool = True
    ) -> CompletedContainer:
        """Run a command of Docker Compose for this project, such as `compose("restart", "web")`.

        Args:
            timeout: Seconds within which it must end.
            check: Whether another exit code than 0 is an error.

        Raises:
            CommandError: It exited with another code than 0, and `check` is not False.
            ContainerTimeoutError: It still ran, and was killed.
        """
        done = self._project.run(*arguments, timeout=timeout)
        if check:
            window = self._scope.session.ledger.window
            entries = [*window.entries] if window is not None else []
            what = self._redactor.known(f"docker compose {' '.join(arguments)}")
            check_result(what, done, "", entries, self._redactor)
        return done

    def calls(self, source: str, destination: str, port: int | None = None) -> list[TcpConnection]:
        """The connections from one service to another, in order.

        Raises:
            LookupError: A service has no container.
        """
        sources, destinations = self._names(source), self._names(destination)
        return [
            entry
            for entry in self._scope.ledger
            if isinstance(entry, TcpConnection)
            and entry.container in sources
            and entry.between in destinations
            and port in (None, entry.port)
        ]

    def assert_no_calls(self, source: str, destination: str, port: int | None = None) -> None:
        """Raise CallError where a service has called another one."""
        if found := self.calls(source, destination, port):
            lines = [f"  {entry}" for entry in found[:MAX_CALLS]]
            raise CallError(
                "\n".join(
                    [f"{source} has called {destination} {counted(len(found), 'time')}:", *lines]
                )
            )

    def close(self) -> None:
        """Remove its containers, networks and volumes. Calling it again does nothing."""
        self._endpoint.close()

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Stack {self._project.name}, {counted(len(self.services), 'service')}>"

    @property
    def _redactor(self) -> Any:
        return self._scope.session.ledger.redactor

    def _captured(self) -> list[CapturedService]:
        return self._endpoint.services(self._project.name)

    def _names(self, service: str) -> set[str]:
        """The names that a service's containers have in the ledger."""
        self[service]
        return {
            each.target.name
            for each in self._captured()
            if each.service == service and each.target is not None
        }

    # The start.

    def start(self) -> None:
        """Start the services, and wait until they are ready.

        Raises:
            CommandError: The program failed, or a container did.
            ContainerTimeoutError: It took too long.
        """
        options, session = self._project.options, self._scope.session
        clock = session.ledger.clock
        end = clock() + options.timeout
        with self._scope.starting(), self._explained():
            with session.engine.progress.step(f"starting {self._project.name} by Docker Compose"):
                arguments = ("up", "--detach", "--quiet-pull", *options.services)
                done = self._project.run(*arguments, timeout=options.timeout)
            if done.exit_code:
                raise self._failure(done)
            for each in self._captured():
                self._wait_for(each, max(0.0, end - clock()))

    def _wait_for(self, service: CapturedService, timeout: float) -> None:
        """A service that has done its work and ended is ready, unless a condition is waited for."""
        conditions = self._project.options.wait.get(service.service, ())
        if service.target is None:
            return
        state = self._state(service)
        if not conditions and state["Status"] in ENDED:
            if code := state["ExitCode"]:
                raise self._ended(service, exit_text(service.target.name, code, ""), code)
            return
        own = [Healthy(self, service)] if state.get("Health") else []
        service.target.become_ready([*own, *conditions], timeout)

    def _state(self, service: CapturedService) -> dict[str, Any]:
        api: APIClient = self._scope.session.engine.client.api
        return dict(api.inspect_container(service.identifier)["State"])

    def _ended(self, service: CapturedService, text: str, code: int | None = None) -> CommandError:
        assert service.target is not None
        logs = service.target.log.tail()
        shown_logs = with_logs(text, logs, self._redactor)
        return CommandError(shown_logs, logs=logs, exit_code=code, container=service.target.name)

    def _failure(self, done: CompletedContainer) -> CommandError:
        """The program's own lines, and the end of the log of each container that has failed."""
        said = without_progress(done.stderr)
        text = with_logs(exit_text("docker compose up", done.exit_code, ""), said, self._redactor)
        found = [text]
        for each in self._captured():
            with contextlib.suppress(docker.errors.APIError):
                state = self._state(each)
                if each.target and (why := failure_of(each.target.name, state)):
                    found.append(str(self._ended(each, why)))
        return CommandError("\n".join(found), logs=done.stderr, exit_code=done.exit_code)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Add to an error what no route has claimed meanwhile."""
        try:
            yield
        except ContainerError as error:
            names = {each.target.name for each in self._captured() if each.target is not None}
            raise self._scope.explained(error, names) from error.__cause__


@dataclass(frozen=True)
class Healthy:
    """The condition of a health check."""

    stack: Stack
    service: CapturedService

    def missing(self, container: Probed) -> str | None:
        """See `Strategy`.

        Raises:
            CommandError: It is unhealthy.
        """
        assert self.service.target is not None
        state = self.stack._state(self.service)
        health = state.get("Health") or {"Status": "none"}
        if health["Status"] in ("healthy", "none"):
            return None
        said = [str(each.get("Output")).strip() for each in (health.get("Log") or ())[-1:]]
        text = f"its health check says {shown(health['Status'])}{f': {said[0]}' if said else ''}"
        if health["Status"] == "unhealthy" and state["Status"] not in ENDED:
            raise self.stack._ended(self.service, f"{self.service.target.name}: {text}")
        return text


def failure_of(name: str, state: dict[str, Any]) -> str:
    """Why a container keeps its project from starting; "" where it does not."""
    if state["Status"] in ENDED and state["ExitCode"]:
        return exit_text(name, state["ExitCode"], "")
    health = (state.get("Health") or {}).get("Status")
    return f"{name} is unhealthy" if health == "unhealthy" else ""


def without_progress(said: str) -> str:
    """What the program has written, without the lines about each step."""
    lines = [line for line in said.splitlines() if line.strip() and not STEP.match(line)]
    return "\n".join(lines) or said


def start_stack(scope: InnerEgress, options: ComposeOptions) -> Stack:
    """Start the services of a project. After an error nothing is left."""
    scope.hide(options.env)
    endpoint = EngineEndpoint(scope, publishes=False)
    scope.endings.append(endpoint.close)
    try:
        project = compose_project(options, endpoint.environment())
        for name in project.external_networks:
            endpoint.make_network(name)
        stack = Stack(scope, project, endpoint)
        stack.start()
    except BaseException:
        endpoint.close()
        raise
    return stack
