"""Which files and devices of its machine a target may have: none by which it starts a program that is not captured.

A path is judged as a text, and then by the inodes at it and at the mount points below it, since a bind mount or a hard
link gives a socket another name. Inodes are those of this machine: of an engine on another one, the text alone counts.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pytest_egress.base.paths import is_under, normal, touches
from pytest_egress.traffic.shown import shown

SOCKET_NAMES: Final = frozenset(
    ("docker.sock", "containerd.sock", "podman.sock", "crio.sock", "buildkitd.sock", "system_bus_socket")
)  # fmt: skip
"""Whoever connects to one of these starts programs on its machine."""
SOCKET_PATHS: Final = (
    "/run/docker.sock", "/run/containerd", "/run/podman", "/run/crio", "/run/buildkit", "/run/dbus", "/run/systemd",
    "/run/libvirt", "/run/bus",
)  # fmt: skip
"""Where those sockets are. A user's own are at the same places in /run/user/UID instead of /run."""
NAMESPACE_PATHS: Final = ("/proc", "/run/docker", "/run/netns")
"""Where the machine's network namespaces can be opened."""
KERNEL_PATHS: Final = ("/sys",)
KERNEL_FILE_SYSTEMS: Final = frozenset(
    (
        "proc",
        "sysfs",
        "cgroup",
        "cgroup2",
        "debugfs",
        "tracefs",
        "configfs",
        "securityfs",
        "bpf",
        "binfmt_misc",
    )
)
"""The kernel's own: with a cgroup that can be written, a target leaves the filter of its devices, and has the disks."""
SOCKETS: Final = (
    "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock", "/run/dbus/system_bus_socket", "/run/systemd/private",
)  # fmt: skip
DISK: Final = re.compile(
    r"/dev(/(((sd|hd|vd|xvd)[a-z]|(sr|sg|md|ng|nvme|mmcblk|loop|nbd|zram|dm-)[0-9]).*|(block|bsg|disk|mapper)(/.*)?))?"
)
DISK_RULE: Final = re.compile(r"\s*([ab]\b|c\s+(\*|0*21):).*", re.IGNORECASE)  # 21 is SCSI generic

VOLUME_DRIVERS: Final = ("", "local")
FILE_SYSTEMS: Final = ("", "none", "bind", "tmpfs")
"""Those of a volume of the driver `local` that have nothing but a folder of the machine, or nothing yet.

By the others an engine mounts its machine's own /proc (`proc`), a disk (`ext4`), any folder (`overlay`), or what is on
the network (`nfs`).
"""
NO_DEVICE: Final = ("", "none", "tmpfs")

STARTS_PROGRAMS: Final = "containers and programs started by a socket there would not be captured"
ENTERS_NETWORK: Final = "the host's network can be entered there"
RULES_KERNEL: Final = (
    "with it a target can run programs outside of its container, which would not be captured"
)
HAS_RUN: Final = (
    "the sockets of this run are in it, by one of which containers are started; mount a folder in it, or have TMPDIR "
    "name another one"
)
HAS_DISKS: Final = (
    "with a disk a target can write the programs of its machine, which would not be captured; copy what it needs "
    "with files=, or mount a folder with volumes="
)


def check_mounts(options: Mapping[str, Any]) -> None:
    """Raise ValueError for a mount or device of docker-py's options that leads out, as far as its text tells."""
    for source in sources(options):
        check_path(source)
    check_driver(str(options.get("volume_driver") or ""))
    for driver in drivers(options):
        check_volume({"Driver": driver.get("Name"), "Options": driver.get("Options")})
    devices = options.get("devices")
    for device in devices if isinstance(devices, (list, tuple)) else ():
        if isinstance(device, str):
            check_disk(device.partition(":")[0])
    rules = options.get("device_cgroup_rules")
    for rule in rules if isinstance(rules, (list, tuple)) else ():
        check_rule(str(rule))


def sources(options: Mapping[str, Any]) -> Iterator[str]:
    """The paths of `volumes` and `mounts`; docker-py itself says what is wrong with values of other types."""
    volumes, mounts = options.get("volumes"), options.get("mounts")
    if isinstance(volumes, (Mapping, list, tuple)):
        yield from (str(each).partition(":")[0] for each in volumes)
    for mount in mounts if isinstance(mounts, (list, tuple)) else ():
        if isinstance(mount, Mapping):
            yield str(mount.get("Source") or "")


def drivers(options: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The drivers of `mounts`, by which an engine makes volumes."""
    mounts = options.get("mounts")
    for mount in mounts if isinstance(mounts, (list, tuple)) else ():
        if isinstance(mount, Mapping):
            yield (mount.get("VolumeOptions") or {}).get("DriverConfig") or {}


def check_source(source: str, sockets: Iterable[str] = ()) -> None:
    """Raise ValueError for a path of the machine, however it is written, that is, has or is in one that leads out.

    Args:
        sockets: Paths of sockets of engines, in addition to those that are known.
    """
    check_path(source, sockets)
    if not source.startswith("/") or "\0" in source:  # a volume's name, or no path at all
        return
    with contextlib.suppress(OSError):  # the engine may be on another machine
        found = os.path.realpath(source)
        check_resolved(found, source, sockets)
        check_inodes(found, source, sockets)


def check_path(source: str, sockets: Iterable[str] = ()) -> None:
    """Raise ValueError for a path that leads out by its text."""
    if source.startswith("/"):
        check_resolved(source, source, sockets)


def check_resolved(path: str, source: str, sockets: Iterable[str]) -> None:
    path = of_run(normal(path))
    own = [of_run(normal(each)) for it in sockets for each in (it, os.path.realpath(it))]
    if posixpath.basename(path) in SOCKET_NAMES or touches(path, (*SOCKET_PATHS, *own)):
        refuse(source, STARTS_PROGRAMS)
    if touches(path, NAMESPACE_PATHS):
        refuse(source, ENTERS_NETWORK)
    if touches(path, KERNEL_PATHS):
        refuse(source, RULES_KERNEL)


def of_run(path: str) -> str:
    """A path with /run for /var/run, which is a link to it, and for the same folder of a user."""
    if is_under(path, "/var/run"):
        path = path.removeprefix("/var")
    return re.sub(r"^/run/user(/[^/]+)?(?=/|$)", "/run", path)


def refuse(source: str, why: str, inner: str = "") -> None:
    at = f", which has {shown(inner)}," if inner else ""
    raise ValueError(f"the mount of {shown(source)}{at} is refused: {why}; leave it out")


# What is found at a path, and at the mount points below it.


def check_run_folder(source: str, folder: str) -> None:
    """Raise ValueError for a mount that has the run's folder, where sidecars and endpoints have their sockets."""
    above = {*inodes_above(folder)}
    for place in places(os.path.realpath(source), mount_points()):
        with contextlib.suppress(OSError):
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in above:
                raise ValueError(f"the mount of {shown(source)} is refused: {HAS_RUN}")


def places(path: str, mounted: Iterable[tuple[int, str, str]]) -> list[str]:
    """A path, and the mount points below it."""
    below = (point for _, _, point in mounted if point != path and is_under(point, path))
    return [path, *below]


def check_inodes(path: str, source: str, sockets: Iterable[str]) -> None:
    mounted = mount_points()
    known = [*SOCKETS, *sockets_of_environment(), *sockets]
    engines = {each for socket in known for each in inodes_above(socket)}
    kinds = {device: kind for device, kind, _ in mounted}
    for place in places(path, mounted):
        with contextlib.suppress(OSError):
            status = os.stat(place)
            inner = "" if place == path else place
            if (status.st_dev, status.st_ino) in engines:
                refuse(source, STARTS_PROGRAMS, inner)
            if kinds.get(status.st_dev) in KERNEL_FILE_SYSTEMS:
                refuse(source, RULES_KERNEL, inner)
            if link := second_name(place, status.st_dev, known):
                refuse(source, STARTS_PROGRAMS, link)


def mount_points() -> list[tuple[int, str, str]]:
    """The device, file system and folder of each mount (proc_pid_mountinfo(5)); on a Mac there are none."""
    found = []
    with (
        contextlib.suppress(OSError),
        open("/proc/self/mountinfo", errors="surrogateescape") as file,
    ):
        for line in file:
            fields, _, rest = line.partition(" - ")
            _, _, device, _, point, *_ = fields.split(" ")
            major, _, minor = device.partition(":")
            found.append((os.makedev(int(major), int(minor)), rest.split(" ")[0], plain(point)))
    return found


def plain(point: str) -> str:
    """Undo the octal escapes, by which a blank in a folder's name is written."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point)


def sockets_of_environment() -> list[str]:
    """The sockets of engines that the environment names."""
    addresses = [os.environ.get(name, "") for name in ("DOCKER_HOST", "CONTAINER_HOST")]
    found = [each.removeprefix("unix://") for each in addresses if each.startswith("unix://")]
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        names = ("bus", "docker.sock", "podman/podman.sock", "systemd/private")
        found += [f"{folder}/{name}" for name in names]
    return found


def inodes_above(path: str) -> Iterator[tuple[int, int]]:
    """Those of a socket and of each folder that it is in; none of a socket that is not there."""
    path = os.path.realpath(path)
    with contextlib.suppress(OSError):
        while True:
            status = os.stat(path)
            yield status.st_dev, status.st_ino
            if path == (path := os.path.dirname(path)):
                return


def second_name(folder: str, device: int, known: Iterable[str]) -> str:
    """A hard link to a known socket in a folder, or "". The folder is searched only if some socket has a hard link."""
    linked = set()
    for path in known:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if status.st_dev == device and status.st_nlink > 1:
                linked.add(status.st_ino)
    for inside, _, names in os.walk(folder) if linked else ():
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(path := f"{inside}/{name}")
                if status.st_dev == device and status.st_ino in linked:
                    return path
    return ""


# Volumes.


def check_volume(found: Mapping[str, Any]) -> None:
    """Raise ValueError for a volume (`GET /volumes/{name}`) that leads out, whoever made it."""
    check_driver(str(found.get("Driver") or ""))
    check_volume_options(found.get("Options") or {})


def check_driver(name: str) -> None:
    if name not in VOLUME_DRIVERS:
        raise ValueError(
            f"the volume driver {shown(name)} is refused: it runs on the host, and may use its network; use local"
        )


def check_volume_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError for options of the driver `local` by which an engine mounts more than a folder."""
    kind, device = str(options.get("type") or ""), device_of(options)
    if kind.lower() not in FILE_SYSTEMS:
        raise ValueError(
            f"the volume of type {shown(kind)} is refused: the engine may mount files of the kernel by it, a disk, or "
            f"what is on the host's network; known are {', '.join(filter(None, FILE_SYSTEMS))}"
        )
    if not device.startswith("/") and device not in NO_DEVICE:
        raise ValueError(
            f"the volume with device={shown(device)} is refused: the engine may bind that path, from its own folder; "
            "write an absolute one"
        )
    check_source(device)


def device_of(options: Mapping[str, Any]) -> str:
    """The path that a volume stands for; "" for one of the engine's own."""
    return str(options.get("device") or "")


# Devices.


def check_device(path: str) -> None:
    """Raise ValueError for a device that is a disk, or a folder with one, by its name or by what is there."""
    check_disk(path)
    real = os.path.realpath(path)
    if DISK.fullmatch(real):  # the engine follows a link
        raise ValueError(f"the device {shown(path)} is refused: {HAS_DISKS}")
    for place in [real, *(f"{inside}/{each}" for inside, _, its in os.walk(real) for each in its)]:
        with contextlib.suppress(OSError):  # the engine may be on another machine
            if stat.S_ISBLK(os.stat(place).st_mode):
                raise ValueError(f"the device {shown(path)} is refused: {HAS_DISKS}")


def check_disk(path: str) -> None:
    if DISK.fullmatch(normal(path)):
        raise ValueError(f"the device {shown(path)} is refused: {HAS_DISKS}")


def check_rule(rule: str) -> None:
    """Raise ValueError for a rule of `device_cgroup_rules` that lets a target make the node of a disk and open it."""
    if DISK_RULE.fullmatch(rule):
        raise ValueError(
            f"device_cgroup_rules=[{shown(rule)}] is refused: {HAS_DISKS}; name a kind of character devices by its "
            'number, as in "c 189:* rmw"'
        )
