"""`Plan`: the arguments of `start` and `run`, checked without asking an engine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from docker.models.containers import RUN_CREATE_KWARGS, RUN_HOST_CONFIG_KWARGS

from pytest_egress.engine.archive import File, build_tar
from pytest_egress.errors import EngineError
from pytest_egress.targets.options import REFUSED_OPTIONS, check_text
from pytest_egress.targets.options import container as check_container

if TYPE_CHECKING:
    from docker.models.images import Image

DOCKER_OPTIONS: Final = frozenset({*RUN_CREATE_KWARGS, *RUN_HOST_CONFIG_KWARGS, "volumes"})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The checked arguments of a start.

    Attributes:
        files: An archive to extract at `/`, or None.
        trust: Paths of files that get the CA, in addition to those that egress finds itself.
    """

    image: str
    command: Sequence[str] | str | None
    env: Mapping[str, str]
    files: bytes | None
    file_paths: Sequence[str]
    input: bytes | None
    trust: Sequence[str]
    options: Mapping[str, Any]


def plan(
    image: str,
    command: Sequence[str] | str | None = None,
    own: Mapping[str, Any] = MappingProxyType({}),
    /,
    *,
    env: Mapping[str, str] | None = None,
    files: Mapping[str, str | bytes | Path] | None = None,
    input: str | bytes | None = None,
    trust: Sequence[str] | None = None,
    **docker_options: Any,
) -> Plan:
    """Make a plan; bad arguments raise TypeError or ValueError. `own` are docker-py's options that `start` names."""
    check_container(
        image, command, env=env, files=files, input=input, trust=trust, **docker_options
    )
    check_text("an option", own)
    check_docker_options(docker_options)
    # An option that would be refused, but is not set, such as stdin_open=False, is accepted and dropped.
    harmless = {n: value for n, value in docker_options.items() if n not in REFUSED_OPTIONS}
    members = {os.fspath(path): file_of(content) for path, content in (files or {}).items()}
    return Plan(
        image=image,
        command=command,
        env={name: str(value) for name, value in (env or {}).items()},
        files=build_tar(members) if members else None,
        file_paths=tuple(members),
        input=input.encode() if isinstance(input, str) else input,
        trust=tuple(trust or ()),
        options={name: value for name, value in {**harmless, **own}.items() if value is not None},
    )


def check_command(image: Image, plan: Plan) -> None:
    """Raise EngineError where neither the image nor the test has a command: Podman's own error hardly explains it."""
    config = image.attrs["Config"]
    given = plan.command or plan.options.get("entrypoint")
    if not (given or config.get("Cmd") or config.get("Entrypoint")):
        raise EngineError(
            f"{plan.image!r} has no command of its own: give it one, as in run({plan.image!r}, [...])"
        )


def check_docker_options(names: Iterable[str]) -> None:
    """Raise TypeError for an option that neither docker-py nor we have."""
    for name in names:
        if name not in DOCKER_OPTIONS:
            raise TypeError(
                f"there is no option {name}=; besides their own, run() and start() take those of "
                "docker-py's containers.create()"
            )


def file_of(content: str | bytes | Path) -> File:
    """A file from disk stays executable if it is."""
    if isinstance(content, str):
        return File(content=content.encode())
    if isinstance(content, bytes):
        return File(content=content)
    return File(content=content.read_bytes(), mode=0o755 if os.access(content, os.X_OK) else 0o644)
