"""The bodies of requests that make containers and commands: parsed strictly, refused by name, and made anew.

Go reads keys of JSON in any case, and the last of several. So a key counts only as the API's documentation writes
it, and once; any other key is refused unless its value is empty.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.targets.options import REFUSED_OPTIONS
from pytest_egress.traffic.shown import shown
from pytest_egress.traffic.strict_json import from_json

MAX_BODY: Final = 4 << 20  # bytes; variables and labels are in it

CONFIG: Final = frozenset(
    (
        "User", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce", "Env", "Cmd",
        "Healthcheck", "Image", "Volumes", "WorkingDir", "Entrypoint", "Labels", "StopSignal", "StopTimeout", "Shell",
    )
)  # fmt: skip
"""Keys of a container that are passed on."""
HOST: Final = frozenset(
    (
        "Binds", "ContainerIDFile", "RestartPolicy", "AutoRemove", "VolumeDriver", "VolumesFrom",
        "ConsoleSize", "Annotations", "CapAdd", "CapDrop", "CgroupnsMode", "GroupAdd", "IpcMode",
        "OomScoreAdj", "PidMode", "SecurityOpt", "StorageOpt", "Tmpfs", "ShmSize", "Sysctls", "Runtime",
        "CpuShares", "Memory", "NanoCpus", "CgroupParent", "BlkioWeight", "CpuPeriod", "CpuQuota",
        "CpusetCpus", "CpusetMems", "Devices", "MemoryReservation", "MemorySwap", "MemorySwappiness",
        "OomKillDisable", "Init", "PidsLimit", "Ulimits", "Mounts", "MaskedPaths", "ReadonlyPaths",
        "LogConfig", "UsernsMode",
    )
)  # fmt: skip
"""Keys of its HostConfig that are passed on."""
EXEC: Final = frozenset(
    (
        "AttachStdin", "AttachStdout", "AttachStderr", "DetachKeys", "Tty", "Env", "Cmd", "User",
        "WorkingDir", "ConsoleSize",
    )
)  # fmt: skip
SAID_TWICE: Final = ("Container", "Detach")  # docker-py says there what the path and the start say
DEVICE: Final = frozenset(("PathOnHost", "PathInContainer", "CgroupPermissions"))
MOUNT: Final = frozenset(
    (
        "Type", "Source", "Target", "ReadOnly", "Consistency", "BindOptions", "VolumeOptions", "TmpfsOptions",
    )
)  # fmt: skip
VOLUME: Final = frozenset(("NoCopy", "Labels", "DriverConfig", "Subpath"))
NETWORK: Final = REFUSED_OPTIONS["network_mode"]
OWN: Final = ("", "default", "bridge")  # the network of whoever asks for none
UNSAID: Final[Mapping[str, Any]] = {"MemorySwappiness": -1, "ConsoleSize": [0, 0]}

WHY: Final[Mapping[str, str]] = {
    "Privileged": REFUSED_OPTIONS["privileged"],
    "PortBindings": "ports are not published through egress.engine() yet",
    "PublishAllPorts": "ports are not published through egress.engine() yet",
    "Dns": REFUSED_OPTIONS["dns"],
    "DnsOptions": REFUSED_OPTIONS["dns"],
    "DnsSearch": REFUSED_OPTIONS["dns"],
    "Links": REFUSED_OPTIONS["links"],
    "MacAddress": NETWORK,
    "ReadonlyRootfs": "nothing can be put under a root that is read-only; egress.run(image, read_only=True) can",
}
"""Why a key is refused."""
NEXT_TO_NETWORK: Final = ("/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/vsock")
SOCKETS: Final = ("docker.sock", "containerd.sock", "podman.sock", "crio.sock")
LOG_DRIVERS: Final = ("", "json-file", "local", "journald", "none")
"""Those that keep a log on the engine's machine; others send it through the host's network."""


@dataclass(frozen=True, kw_only=True)
class AskedContainer:
    """A container that a tool asks for.

    Attributes:
        config: What is passed on of it; without a network.
        network: The network that it asks for: "none", or one of its own.
        extra_hosts: Further names of its /etc/hosts, with their addresses.
    """

    image: str
    env: Mapping[str, str]
    hostname: str | None
    domainname: str | None
    extra_hosts: Mapping[str, str]
    network: str
    config: Mapping[str, Any]


def parsed(body: bytes) -> dict[str, Any]:
    """The object that a body is; RefusedCall where it is none, or a key is there twice in any case."""
    try:
        found = from_json(body or b"{}")
    except ValueError as error:
        raise RefusedCall(f"the body cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise RefusedCall(f"the body is a JSON object, not {shown(found)}")
    return found


def asked(body: bytes) -> AskedContainer:
    """The container that a body of `POST /containers/create` asks for; RefusedCall where it could leave its sidecar."""
    found = parsed(body)
    host = take(found, "HostConfig", dict)
    network = network_of(host)
    image = take(found, "Image", str)
    if not image.strip():
        raise RefusedCall("the body names no Image")
    hosts = dict(host_of(line) for line in texts(host, "ExtraHosts"))
    host.pop("ExtraHosts", None)
    lines = texts(found, "Env")  # one without a sign unsets a variable of the image
    env = {name: value for name, sign, value in (each.partition("=") for each in lines) if sign}
    names = take(found, "Hostname", str) or None, take(found, "Domainname", str) or None
    take(found, "ExposedPorts", dict)  # nothing is published, and so nothing exposed
    check_endpoints(take(found, "NetworkingConfig", dict))
    check_namespaces(host)
    config = known(found, CONFIG, "the container")
    config["HostConfig"] = known(host, HOST, "HostConfig")
    check_devices(config["HostConfig"])
    check_mounts(config["HostConfig"])
    check_log(config["HostConfig"])
    return AskedContainer(
        image=image,
        env=env,
        hostname=names[0],
        domainname=names[1],
        extra_hosts=hosts,
        network=network,
        config=config,
    )


def command(body: bytes) -> dict[str, Any]:
    """The body of `POST /containers/{id}/exec`, made anew."""
    found = parsed(body)
    if found.get("Privileged"):
        raise RefusedCall("Privileged is refused: a privileged command can leave its namespace")
    for name in SAID_TWICE:
        found.pop(name, None)
    return known(found, EXEC, "the command")


def start(body: bytes) -> dict[str, Any]:
    """The body of `POST /exec/{id}/start`, made anew."""
    return known(parsed(body), frozenset(("Detach", "Tty", "ConsoleSize")), "the start")


def network_of(host: dict[str, Any]) -> str:
    mode: str = take(host, "NetworkMode", str)
    if mode in OWN:
        return ""
    if mode == "none":
        return mode
    if mode == "host" or mode.startswith("container:"):
        raise RefusedCall(f"the network {shown(mode)} is refused: {NETWORK}")
    raise RefusedCall(
        f"the network {shown(mode)} is refused: networks between containers are not there yet",
        HTTPStatus.NOT_IMPLEMENTED,
    )


def check_endpoints(config: dict[str, Any]) -> None:
    """The docker command names the network of whoever asks for none, without any settings."""
    ends = take(config, "EndpointsConfig", dict)
    known(config, frozenset(), "NetworkingConfig")
    for name, end in ends.items():
        if name not in OWN or (isinstance(end, dict) and any(map(is_said, end.values()))):
            raise RefusedCall(
                f"the network {shown(name)} is refused: networks between containers are not there yet",
                HTTPStatus.NOT_IMPLEMENTED,
            )


def check_namespaces(host: dict[str, Any]) -> None:
    for name in ("PidMode", "IpcMode", "UTSMode", "CgroupnsMode", "UsernsMode"):
        value = text(host.get(name), name)
        if value.lower() == "host" and name in ("PidMode", "IpcMode", "UTSMode"):
            raise RefusedCall(
                f"{name}='host' is refused: with it a target can reach the host's network namespace"
            )


def check_devices(host: dict[str, Any]) -> None:
    devices = items(host, "Devices")
    host["Devices"] = [known(each, DEVICE, "a device") for each in devices]
    for each in host["Devices"]:
        path = normal(text(each.get("PathOnHost"), "PathOnHost"))
        if any(is_under(device, path) or is_under(path, device) for device in NEXT_TO_NETWORK):
            raise RefusedCall(f"the device {shown(path)} is refused: {NETWORK}")


def check_mounts(host: dict[str, Any]) -> None:
    """An engine's socket starts containers that nobody captures."""
    host["Mounts"] = [known(each, MOUNT, "a mount") for each in items(host, "Mounts")]
    binds = [each.partition(":")[0] for each in texts(host, "Binds")]
    sources = [text(each.get("Source"), "Source") for each in host["Mounts"]]
    devices = [device_of(each) for each in host["Mounts"]]
    texts(host, "VolumesFrom")
    for source in [*binds, *sources, *devices]:
        if posixpath.basename(normal(source)) in SOCKETS:
            raise RefusedCall(
                f"the mount of {shown(source)} is refused: containers started there would not be captured"
            )


def device_of(mount: dict[str, Any]) -> str:
    """What a volume of the driver `local` mounts; "" where it says nothing."""
    options = known(take(dict(mount), "VolumeOptions", dict), VOLUME, "VolumeOptions")
    driver = known(take(options, "DriverConfig", dict), ("Name", "Options"), "DriverConfig")
    return text(take(driver, "Options", dict).get("device"), "device")


def check_log(host: dict[str, Any]) -> None:
    log = known(take(dict(host), "LogConfig", dict), ("Type", "Config"), "LogConfig")
    driver = text(log.get("Type"), "LogConfig.Type")
    if driver not in LOG_DRIVERS:
        raise RefusedCall(
            f"the log driver {shown(driver)} is refused: the engine would send the log past the sidecar; use one of "
            f"{', '.join(filter(None, LOG_DRIVERS))}"
        )


def known(found: Mapping[str, Any], keys: Collection[str], what: str) -> dict[str, Any]:
    """The known keys of an object; RefusedCall for another one, unless its value says nothing."""
    for name, value in found.items():
        if name in keys or not is_said(value) or UNSAID.get(name) == value:
            continue
        if why := WHY.get(name):
            raise RefusedCall(f"{name}={shown(value)} is refused: {why}")
        exact = [each for each in {*keys, *WHY} if each.casefold() == name.casefold()]
        raise RefusedCall(
            f"{what} has the key {shown(name)}, which is not known here"
            + (f": the API writes {exact[0]}" if exact else "")
        )
    return {name: value for name, value in found.items() if name in keys and value is not None}


def is_said(value: object) -> bool:
    """Whether a value is another one than that of a key which is left out, to Go."""
    if isinstance(value, dict):
        return any(map(is_said, value.values()))
    return bool(value)


def take(found: dict[str, Any], name: str, kind: type[Any]) -> Any:
    """Take a value out of an object, or an empty one; RefusedCall for another type."""
    value = found.pop(name, None)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise RefusedCall(f"{name} is no {shown(value)}")
    return value


def text(value: object, name: str) -> str:
    if not isinstance(value, (str, type(None))):
        raise RefusedCall(f"{name} is a text, not {shown(value)}")
    return value or ""


def texts(found: Mapping[str, Any], name: str) -> list[str]:
    values = found.get(name) or []
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise RefusedCall(f"{name} is a list of texts, not {shown(values)}")
    return values


def items(found: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    values = found.get(name) or []
    if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
        raise RefusedCall(f"{name} is a list of objects, not {shown(values)}")
    return values


def host_of(line: str) -> tuple[str, str]:
    """A line of ExtraHosts, `name:address` or `name=address`; the address may have colons."""
    name, sign, address = line.partition("=" if "=" in line else ":")
    if not (name and sign and address):
        raise RefusedCall(f"{shown(line)} in ExtraHosts: write name:address")
    return name, address


def normal(path: str) -> str:
    return posixpath.normpath(f"/{path.lstrip('/')}")


def is_under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")
