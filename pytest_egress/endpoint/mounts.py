"""The mounts, volumes and devices that a container asks for: none leads to an engine or to the host's network.

Only paths and drivers are judged that do so by themselves. A folder of the host is the user's to give.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pytest_egress.targets.mounts as mounts
from pytest_egress.base.paths import normal, touches
from pytest_egress.endpoint.fields import items, known, take, text, texts
from pytest_egress.endpoint.refusal import RefusedCall, refusals
from pytest_egress.targets.options import REFUSED_OPTIONS
from pytest_egress.traffic.shown import shown

DEVICE: Final = frozenset(("PathOnHost", "PathInContainer", "CgroupPermissions"))
NEXT_TO_NETWORK: Final = ("/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/vsock")
MOUNT: Final = frozenset(
    (
        "Type", "Source", "Target", "ReadOnly", "Consistency", "BindOptions", "VolumeOptions", "TmpfsOptions",
    )
)  # fmt: skip
KINDS: Final = ("bind", "volume", "tmpfs")
VOLUME: Final = frozenset(("NoCopy", "Labels", "DriverConfig", "Subpath"))
OPTIONS: Final = ("type", "o", "device", "size")


def check_devices(host: dict[str, Any]) -> None:
    devices = items(host, "Devices")
    host["Devices"] = [known(each, DEVICE, "a device") for each in devices]
    for each in host["Devices"]:
        path = normal(text(each.get("PathOnHost"), "PathOnHost"))
        if touches(path, NEXT_TO_NETWORK):
            raise RefusedCall(
                f"the device {shown(path)} is refused: {REFUSED_OPTIONS['network_mode']}"
            )


def check_mounts(host: dict[str, Any]) -> None:
    """RefusedCall for a mount that leads out; those of volumes that exist already are for `check_volume`."""
    host["Mounts"] = [known(each, MOUNT, "a mount") for each in items(host, "Mounts")]
    check_driver(text(host.get("VolumeDriver"), "VolumeDriver"))
    texts(host, "VolumesFrom")
    for source in [each.partition(":")[0] for each in texts(host, "Binds")]:
        check_source(source)
    for each in host["Mounts"]:
        kind = text(each.get("Type"), "Type")
        if kind not in KINDS:
            raise RefusedCall(
                f"the mount of type {shown(kind)} is refused: known are {', '.join(KINDS)}"
            )
        check_source(text(each.get("Source"), "Source"))
        options = known(take(dict(each), "VolumeOptions", dict), VOLUME, "VolumeOptions")
        driver = known(take(options, "DriverConfig", dict), ("Name", "Options"), "DriverConfig")
        check_driver(text(driver.get("Name"), "Name"))
        check_options(take(driver, "Options", dict))


def check_engine(sources: Iterable[str], address: str) -> None:
    """RefusedCall for a mount of the socket that the engine is asked by, or of a folder that it is in.

    Args:
        sources: Paths of the host that are mounted.
        address: Such as `unix:///srv/engine.sock`.
    """
    scheme, _, path = address.partition("://")
    for source in sources if scheme == "unix" else ():
        check_source(source, (path,))


def sources_of(host: Mapping[str, Any]) -> list[str]:
    """The paths of the host that a HostConfig mounts, which has been checked."""
    found = [each.partition(":")[0] for each in host.get("Binds") or ()]
    for each in host.get("Mounts") or ():
        driver = (each.get("VolumeOptions") or {}).get("DriverConfig") or {}
        found += [each.get("Source") or "", (driver.get("Options") or {}).get("device") or ""]
    return [each for each in found if each.startswith("/")]


def volumes_of(host: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The volumes with a name in a HostConfig that has been checked, each as a body of `POST /volumes/create`."""
    driver = host.get("VolumeDriver") or ""
    names = [each.partition(":")[0] for each in host.get("Binds") or () if ":" in each]
    found = [{"Name": name, "Driver": driver} for name in names]
    for mount in host.get("Mounts") or ():
        options = mount.get("VolumeOptions") or {}
        by = options.get("DriverConfig") or {}
        made = {"Driver": by.get("Name"), "DriverOpts": by.get("Options")}
        found.append({"Name": mount.get("Source"), "Labels": options.get("Labels"), **made})
    return [each for each in found if each["Name"] and not each["Name"].startswith("/")]


def check_volume(found: Mapping[str, Any]) -> None:
    """RefusedCall where a volume that exists (`GET /volumes/{name}`) leads out."""
    check_driver(str(found.get("Driver") or ""))
    check_options(dict(found.get("Options") or {}))


def check_driver(name: str) -> None:
    with refusals():
        mounts.check_driver(name)


def check_options(options: Mapping[str, Any]) -> None:
    known(options, OPTIONS, "a volume's Options")
    for name in ("type", "device"):
        text(options.get(name), name)
    with refusals():
        mounts.check_volume_options(options)


def check_source(source: str, sockets: Iterable[str] = ()) -> None:
    with refusals():
        mounts.check_source(source, sockets)
