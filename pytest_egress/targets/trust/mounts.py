"""Finds the mounts of a container that are not its own: nothing is ever written to those."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from pytest_egress.base.paths import normal, touches
from pytest_egress.targets.trust.runtimes import DIRECTORY, ROOT_DIRECTORY

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer

MOUNT_OPTIONS: Final = ("volumes", "mounts", "tmpfs", "volumes_from", "volume_driver")
ANONYMOUS: Final = re.compile(r"[0-9a-f]{64}")  # the name of a volume that goes with its container


def directory_for(options: Mapping[str, Any], declared: Iterable[str] = ()) -> str:
    """The directory for our files in a container with these options of docker-py's.

    Args:
        declared: The volumes of its image. Under a read-only root they are made anew, without our files.
    """
    points = [*mount_points(options), *(declared if options.get("read_only") else ())]
    mounted = options.get("volumes_from") or touches(DIRECTORY, points)
    return ROOT_DIRECTORY if mounted else DIRECTORY


def mount_points(options: Mapping[str, Any]) -> list[str]:
    """The mount points in a container's options, in each of the forms that docker-py takes."""
    volumes, tmpfs = options.get("volumes") or {}, options.get("tmpfs") or {}
    if isinstance(volumes, Mapping):
        points = [each["bind"] if isinstance(each, Mapping) else each for each in volumes.values()]
    else:
        points = [part[1] if len(part := text.split(":")) > 1 else text for text in volumes]
    points += [mount["Target"] for mount in options.get("mounts") or []]
    return [normal(point) for point in (*points, *(text.partition(":")[0] for text in tmpfs))]


def foreign_mounts(container: DockerContainer) -> list[str]:
    """The mount points of a created container whose content is not its own."""
    host = container.attrs.get("HostConfig", {})
    mounts = container.attrs.get("Mounts") or []
    foreign = [mount["Destination"] for mount in mounts if not is_own(mount, host)]
    return [normal(point) for point in (*foreign, *(host.get("Tmpfs") or {}))]


def is_own(mount: Mapping[str, Any], host: Mapping[str, Any]) -> bool:
    """Whether a mount is a volume that was made for this container, and is removed with it."""
    declared = host.get("Mounts") or []
    named = {text.partition(":")[0] for text in host.get("Binds") or []}
    named |= {each.get("Source") for each in declared}
    by_driver = {  # a volume driver's options may lead to any folder of the host
        each["Target"] for each in declared if (each.get("VolumeOptions") or {}).get("DriverConfig")
    }
    return bool(
        mount["Type"] == "volume"
        and mount.get("Driver") == "local"
        and ANONYMOUS.fullmatch(mount.get("Name") or "")
        and mount["Name"] not in named
        and mount["Destination"] not in by_driver
        and not host.get("VolumesFrom")
    )
