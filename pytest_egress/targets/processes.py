"""With which containers a target may share processes: it can enter the network of each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_egress.engine.engine import Engine
from pytest_egress.engine.leftovers import is_known_as_ours
from pytest_egress.targets.created import check_machine, is_of_sidecar
from pytest_egress.targets.options import check_capabilities, check_security

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer


def check_processes(engine: Engine, container: DockerContainer) -> None:
    """Raise ValueError for processes shared with a container of another network, which could be entered (setns(2))."""
    if not shares_processes(container):
        return
    mode = container.attrs["HostConfig"]["PidMode"]
    other = engine.container(mode.partition(":")[2])
    if not is_captured(engine, other):
        reach = (
            "the capabilities of a sidecar"
            if is_of_sidecar(other)
            else "the network of that container"
        )
        raise ValueError(
            f"pid_mode={mode!r} is refused: with it a target can reach {reach}; name another target"
        )
    try:
        check_reach(engine, other)
    except ValueError as error:
        raise ValueError(
            f"pid_mode={mode!r} is refused, since a target has through /proc what that container has: {error}"
        ) from None


def check_reach(engine: Engine, container: DockerContainer) -> None:
    """Raise ValueError for what a container has of its machine, or one that it shares processes with."""
    config = container.attrs["HostConfig"]
    check_capabilities(config.get("CapAdd"), "cap_add")
    check_security(config.get("SecurityOpt"), "security_opt")
    check_machine(engine, container)
    if shares_processes(container):
        check_reach(engine, engine.container(config["PidMode"].partition(":")[2]))


def shares_processes(container: DockerContainer) -> bool:
    return (container.attrs["HostConfig"].get("PidMode") or "").startswith("container:")


def is_captured(engine: Engine, container: DockerContainer) -> bool:
    """Whether a container has the network of a sidecar, or none, and no processes but a target's.

    The processes of a sidecar are not a target's: the first one may make network namespaces.
    """
    config = container.attrs["HostConfig"]
    if config.get("Privileged") or config.get("PidMode") == "host" or is_of_sidecar(container):
        return False
    kind, _, name = (config.get("NetworkMode") or "").partition(":")
    if kind != "none" and not (kind == "container" and is_known_as_ours(engine.client.api, name)):
        return False
    kind, _, name = (config.get("PidMode") or "").partition(":")
    return kind != "container" or is_captured(engine, engine.container(name))
