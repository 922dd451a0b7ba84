"""The bodies of requests that make containers and commands: parsed strictly, refused by name, and made anew.

Go reads keys of JSON in any case, and the last of several. So a key counts only as the API's documentation writes
it, and once; any other key is refused unless its value is empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_egress.endpoint.fields import NETWORK, known, take, text, texts
from pytest_egress.endpoint.mounts import check_devices, check_mounts
from pytest_egress.endpoint.networks import aliases_of
from pytest_egress.endpoint.ports import AskedPorts, asked_ports
from pytest_egress.endpoint.refusal import RefusedCall, refusals
from pytest_egress.targets.options import check_capabilities, check_namespace, check_security
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
        "OomKillDisable", "Init", "PidsLimit", "Ulimits", "Mounts", "LogConfig",
        "UsernsMode",
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
HOST_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}", re.ASCII)
IMAGE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_:@-]|[./](?=[A-Za-z0-9_-]))*", re.ASCII)
"""The signs of an image's name, digest or identifier; with others it would be another path of the engine's API."""
OWN: Final = ("", "default", "bridge")  # the network of whoever asks for none

LOG_DRIVERS: Final = ("", "json-file", "local", "journald", "none")
"""Those that keep a log on the engine's machine; others send it through the host's network."""


@dataclass(frozen=True, kw_only=True)
class AskedContainer:
    """A container that a tool asks for.

    Attributes:
        config: What is passed on of it; without a network.
        network: "none", or "" for one of its own.
        network_mode: As it was asked for.
        aliases: Its aliases in each network that it asks for by name.
        extra_hosts: Further names of its /etc/hosts, with their addresses.
    """

    image: str
    env: Mapping[str, str]
    hostname: str | None
    domainname: str | None
    extra_hosts: Mapping[str, str]
    network: str
    network_mode: str
    aliases: Mapping[str, tuple[str, ...]]
    ports: AskedPorts
    config: Mapping[str, Any]

    @property
    def host_lines(self) -> list[str]:
        return [f"{name}:{address}" for name, address in self.extra_hosts.items()]


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
    network_mode = host.get("NetworkMode") or "default"
    network = network_of(host)
    image = take(found, "Image", str)
    if not image.strip():
        raise RefusedCall("the body names no Image")
    if not IMAGE.fullmatch(image):
        raise RefusedCall(
            f"Image={shown(image)} is no name of an image: write shop:1.4, or its identifier"
        )
    hosts = dict(host_of(line) for line in texts(host, "ExtraHosts"))
    host.pop("ExtraHosts", None)
    lines = texts(found, "Env")  # one without a sign unsets a variable of the image
    env = {name: value for name, sign, value in (each.partition("=") for each in lines) if sign}
    names = take(found, "Hostname", str) or None, take(found, "Domainname", str) or None
    if names[0] and not HOST_NAME.fullmatch(names[0]):
        raise RefusedCall(
            f"Hostname={shown(names[0])} is no host name: write letters, digits, _ . and -"
        )
    ports = asked_ports(found, host)
    aliases = places_of(network_mode, take(found, "NetworkingConfig", dict))
    check_namespaces(host)
    check_masks(host)
    check_rights(host)
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
        network_mode=network_mode,
        aliases=aliases,
        ports=ports,
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
    if mode == "host" or ":" in mode:
        raise RefusedCall(f"the network {shown(mode)} is refused: {NETWORK}")
    return mode if mode == "none" else ""


def places_of(mode: str, config: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The aliases in each network that is asked for by its name; the docker command also names the one of `mode`."""
    ends = take(config, "EndpointsConfig", dict)
    known(config, frozenset(), "NetworkingConfig")
    found = {name: aliases_of(name, end) for name, end in {mode: None, **ends}.items()}
    for name in [each for each in found if each in (*OWN, "none")]:
        if found.pop(name):
            raise RefusedCall(
                f"aliases in the network {shown(name)} are refused: make a network for them"
            )
    if "host" in found or (found and mode == "none"):
        raise RefusedCall(f"the network {shown(next(iter(found)))} is refused: {NETWORK}")
    return found


def check_namespaces(host: dict[str, Any]) -> None:
    for name in ("PidMode", "IpcMode", "UTSMode", "CgroupnsMode", "UsernsMode"):
        value = text(host.get(name), name)
        if name in ("PidMode", "IpcMode", "UTSMode"):
            with refusals():
                check_namespace(value, name)


def check_masks(host: dict[str, Any]) -> None:
    """The engine's own lists of paths shield files of /proc by which root runs a program outside of the container."""
    for name in ("MaskedPaths", "ReadonlyPaths"):
        if host.pop(name, None) is not None:
            raise RefusedCall(
                f"{name} (--security-opt systempaths=...) is refused: with it a target can leave its namespace"
            )


def check_rights(host: dict[str, Any]) -> None:
    with refusals():
        check_capabilities(host.get("CapAdd"), "CapAdd")
        check_security(host.get("SecurityOpt"), "SecurityOpt")


def check_log(host: dict[str, Any]) -> None:
    log = known(take(dict(host), "LogConfig", dict), ("Type", "Config"), "LogConfig")
    driver = text(log.get("Type"), "LogConfig.Type")
    if driver not in LOG_DRIVERS:
        raise RefusedCall(
            f"the log driver {shown(driver)} is refused: the engine would send the log past the sidecar; use one of "
            f"{', '.join(filter(None, LOG_DRIVERS))}"
        )


def host_of(line: str) -> tuple[str, str]:
    """A line of ExtraHosts, `name:address` or `name=address`; the address may have colons."""
    name, sign, address = line.partition("=" if "=" in line else ":")
    if not (name and sign and address):
        raise RefusedCall(f"{shown(line)} in ExtraHosts: write name:address")
    return name, address
