"""`ComposeProject`: a project of Docker Compose, and the official program, which is run for it.

The program reads the files. We ask it for what it has read, and change by a file of ours what two runs of one project
would share: names of containers and of volumes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_egress.base.clock import check_seconds, monotonic
from pytest_egress.errors import ContainerTimeoutError, EngineError
from pytest_egress.targets.readiness import Strategy, strategies
from pytest_egress.targets.results import CompletedContainer
from pytest_egress.traffic.shown import shown
from pytest_egress.traffic.strict_json import from_json

COMMANDS: Final = (("docker", "compose"), ("docker-compose",))
LOOK_SECONDS: Final = 60.0  # for the program to say its version
KILL_SECONDS: Final = 10.0  # for it to be gone after it was killed
NO_PROGRAM: Final = (
    "egress.compose() runs Docker Compose, and neither `docker compose version` nor `docker-compose version` tells of "
    "version 2 or later: install docker-compose-plugin (Docker's packages), docker-compose (Debian) or "
    "docker-compose-v2 (Ubuntu)"
)


@dataclass(frozen=True, kw_only=True)
class ComposeOptions:
    """The arguments of `Egress.compose`, checked.

    Attributes:
        files: The Compose files; a later one overrides.
        services: Those to start, with what they depend on; none for all.
        wait: Conditions of readiness by service.
        timeout: Seconds for the whole start.
    """

    files: tuple[str, ...]
    services: tuple[str, ...]
    profiles: tuple[str, ...]
    env: Mapping[str, str]
    wait: Mapping[str, Sequence[Strategy]]
    project_directory: str
    timeout: float


def compose_options(
    file: object = "compose.yaml",
    *,
    services: object = None,
    profiles: object = (),
    env: object = None,
    wait: object = None,
    project_directory: object = None,
    timeout: float = 300,
) -> ComposeOptions:
    """Raises TypeError or ValueError, with the value and what is accepted."""
    check_seconds(timeout)
    files = [file] if isinstance(file, (str, os.PathLike)) else file
    if not isinstance(files, (list, tuple)) or not files:
        raise TypeError(f"compose() takes the path of a Compose file, or a list, not {shown(file)}")
    return ComposeOptions(
        files=tuple(path_of(each) for each in files),
        services=names_of(services, "services"),
        profiles=names_of(profiles, "profiles"),
        env=env_of(env),
        wait=waits_of(wait),
        project_directory="" if project_directory is None else path_of(project_directory),
        timeout=timeout,
    )


def path_of(path: object) -> str:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"compose() takes paths of Compose files, not {shown(path)}")
    found = os.path.abspath(path)
    if not os.path.exists(found):
        raise ValueError(f"there is no {shown(found)}: a path is relative to the current folder")
    return found


def names_of(names: object, what: str) -> tuple[str, ...]:
    listed = () if names is None else names
    if not isinstance(listed, (list, tuple)) or not all(isinstance(each, str) for each in listed):
        raise TypeError(f"{what}= takes a list of names, not {shown(names)}")
    for name in listed:
        if not name or name.startswith("-"):
            raise ValueError(f"{what}= takes names, not {shown(name)}")
    return tuple(listed)


def env_of(env: object) -> dict[str, str]:
    found = {} if env is None else env
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, str) for name, value in found.items()
    ):
        raise TypeError(f"env= takes a dict of names and texts, not {shown(env)}")
    return dict(found)


def waits_of(wait: object) -> dict[str, list[Strategy]]:
    found = {} if wait is None else wait
    if not isinstance(found, Mapping):
        raise TypeError(
            f'wait= takes a dict of services and their conditions, such as {{"web": http_ok(8080)}}, not {shown(wait)}'
        )
    return {str(name): strategies(each) for name, each in found.items()}


@dataclass(frozen=True, kw_only=True)
class ComposeProject:
    """A project, as one call of `Egress.compose` runs it.

    Args:
        engine: The variables that lead the program to the endpoint.

    Attributes:
        command: The program.
        model: The project as the program has read it.
        name: Its name, which no other project has.
    """

    command: tuple[str, ...]
    options: ComposeOptions
    engine: Mapping[str, str]
    model: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def services(self) -> Mapping[str, Any]:
        return self.model.get("services") or {}

    @property
    def external_networks(self) -> list[str]:
        """The names of networks that are to be there before it starts."""
        networks = (self.model.get("networks") or {}).values()
        return [each["name"] for each in networks if each and each.get("external")]

    def run(self, *arguments: str, timeout: float) -> CompletedContainer:
        """Run the program to its end.

        Raises:
            ContainerTimeoutError: It still ran, and was killed.
        """
        with self._own_file() as own:
            files = [*self.options.files, *own]
            return run(self._line(files, arguments), self._environment(), timeout)

    def _line(self, files: Sequence[str], arguments: Sequence[str]) -> list[str]:
        named = ["--project-name", self.name] if self.name else []
        folder = self.options.project_directory or os.path.dirname(self.options.files[0])
        return [
            *self.command,
            "--ansi=never",
            *named,
            "--project-directory",
            folder,
            *(part for each in files for part in ("--file", each)),
            *(part for each in self.options.profiles for part in ("--profile", each)),
            *arguments,
        ]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.options.env, **self.engine}

    @contextlib.contextmanager
    def _own_file(self) -> Iterator[list[str]]:
        changes = changes_of(self.model)
        if not changes:
            yield []
            return
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as own:
            own.write(changes)
            own.flush()
            yield [own.name]


def compose_project(options: ComposeOptions, engine: Mapping[str, str]) -> ComposeProject:
    """Have the program read the files.

    Raises:
        EngineError: The program is not there, or refuses them; its own lines are in the text.
    """
    project = ComposeProject(command=find_program(), options=options, engine=engine)
    read = project.run("config", "--format", "json", timeout=LOOK_SECONDS)
    if read.exit_code:
        raise EngineError(
            f"Docker Compose refuses {', '.join(options.files)}:\n{read.stderr.strip()}"
        )
    model = from_json(read.stdout_bytes)
    assert isinstance(model, dict), model
    unique = f"{model['name']}-{secrets.token_hex(4)}"
    found = ComposeProject(
        command=project.command, options=options, engine=engine, model=model, name=unique
    )
    for name in options.wait:
        if name not in found.services:
            raise ValueError(
                f"wait= names {shown(name)}, which is no service that is started: there are {', '.join(found.services)}"
            )
    return found


def find_program() -> tuple[str, ...]:
    """The command that is Docker Compose; EngineError where there is none."""
    for command in COMMANDS:
        with contextlib.suppress(OSError, ContainerTimeoutError):
            done = run([*command, "version", "--short"], dict(os.environ), LOOK_SECONDS)
            version = done.stdout.strip().lstrip("v")
            if done.exit_code == 0 and version.partition(".")[0].isdecimal() and version[0] != "1":
                return command
    raise EngineError(NO_PROGRAM)


def run(command: Sequence[str], env: Mapping[str, str], timeout: float) -> CompletedContainer:
    """Run a program in a session of its own, so that no Ctrl-C ends it before it is killed here with its children."""
    began = monotonic()
    with subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as program:
        try:
            stdout, stderr = program.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as expired:
            end(program)
            said = (expired.stderr or b"").decode("utf-8", "replace")
            text = f"`{' '.join(command[:2])}` still ran after {timeout:g} s, and was killed"
            raise ContainerTimeoutError(f"{text}:\n{said.strip()}", logs=said) from None
        except BaseException:
            end(program)
            raise
    return CompletedContainer(
        exit_code=program.returncode,
        stdout_bytes=stdout,
        stderr_bytes=stderr,
        duration=monotonic() - began,
    )


def end(program: subprocess.Popen[bytes]) -> None:
    """Kill a program with what it has started; its pipes are closed by the caller."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(KILL_SECONDS)


def changes_of(model: Mapping[str, Any]) -> str:
    """A Compose file that takes names away which two runs of a project would share; "" where there are none."""
    services = [
        line
        for name, service in (model.get("services") or {}).items()
        if service.get("container_name")
        for line in service_changes(name, service)
    ]
    volumes = [
        f"  {json.dumps(key)}: {{name: !reset null}}"
        for key, volume in (model.get("volumes") or {}).items()
        if volume
        and volume.get("name", "") != f"{model['name']}_{key}"
        and not volume.get("external")
    ]
    found = [*(["services:", *services] if services else [])]
    found += [*(["volumes:", *volumes] if volumes else [])]
    return "".join(f"{line}\n" for line in found)


def service_changes(name: str, service: Mapping[str, Any]) -> list[str]:
    """Others still reach it by its `container_name`, which becomes an alias in each of its networks."""
    lines = [f"  {json.dumps(name)}:", "    container_name: !reset null"]
    if networks := service.get("networks"):
        own = service["container_name"]
        aliases = {
            each: {"aliases": [*((its or {}).get("aliases") or ()), own]}
            for each, its in networks.items()
        }
        lines.append(f"    networks: {json.dumps(aliases)}")
    return lines
