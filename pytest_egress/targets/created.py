"""What of its machine a container was created with: its mounts, its devices, and the volumes of another container."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import docker.errors

from pytest_egress.engine.endpoint import engine_address
from pytest_egress.engine.engine import Engine
from pytest_egress.engine.leftovers import is_ours, is_sidecar
from pytest_egress.targets.mounts import (
    check_device,
    check_rule,
    check_run_folder,
    check_source,
    check_volume,
    device_of,
)

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer


def check_machine(engine: Engine, container: DockerContainer) -> None:
    """Raise ValueError for a file or device of the machine by which a container could start programs outside of it."""
    address = engine_address(engine.client)
    sockets = [address.removeprefix("unix://")] if address.startswith("unix://") else []
    for mount in mounts_of(engine, container):
        source = mount.get("Source") or ""
        if mount.get("Type") == "volume":
            check_volume(volume := volume_of(engine, mount["Name"]))
            source = device_of(volume.get("Options") or {})
        check_source(source, sockets)
        if sockets and source.startswith("/"):  # else the folders are those of another machine
            check_run_folder(source, engine.folder)
    host = container.attrs["HostConfig"]
    for device in host.get("Devices") or ():
        check_device(device["PathOnHost"])
    for rule in host.get("DeviceCgroupRules") or ():
        check_rule(rule)
    if (mode := host.get("IpcMode") or "").startswith("container:"):
        check_other(engine.container(mode.partition(":")[2]), f"ipc_mode={mode!r}")


def mounts_of(engine: Engine, container: DockerContainer) -> Iterator[dict[str, Any]]:
    """Those of a container, and those that it takes from others, which Podman does not list before it starts."""
    yield from container.attrs.get("Mounts") or ()
    for each in container.attrs["HostConfig"].get("VolumesFrom") or ():
        other = engine.container(each.partition(":")[0])
        check_other(other, f"volumes_from=[{each!r}]")
        yield from mounts_of(engine, other)


def check_other(other: DockerContainer, option: str) -> None:
    """Raise ValueError where the container whose files a target would share is a sidecar, or its relay."""
    if is_of_sidecar(other):
        raise ValueError(f"{option} is refused: it would reach a sidecar's sockets; leave it out")


def is_of_sidecar(container: DockerContainer) -> bool:
    """Whether an inspected container is a sidecar of a run, or a relay."""
    listed = {"Names": [container.attrs["Name"]], "Labels": container.attrs["Config"]["Labels"]}
    return is_ours(listed) and is_sidecar(listed)


def volume_of(engine: Engine, name: str) -> dict[str, Any]:
    """What the engine tells of a volume (`GET /volumes/{name}`); nothing where there is none."""
    with contextlib.suppress(docker.errors.NotFound):
        return dict(engine.client.api.inspect_volume(name))
    return {}
