"""What the engine tells of containers, changed to what it would tell without us: no sidecar, label or variable of ours.

Values in, values out: nothing here asks an engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_egress.endpoint.bodies import AskedContainer
from pytest_egress.endpoint.networks import NetworkPlace
from pytest_egress.endpoint.ports import PortsByName
from pytest_egress.engine.leftovers import (
    FILLED,
    FOLDER_LABEL,
    NAME_LABEL,
    SESSION_LABEL,
    is_ours,
    is_sidecar,
)

OWN_LABELS: Final = frozenset((SESSION_LABEL, FOLDER_LABEL, NAME_LABEL))
MAX_LINE: Final = 1 << 20  # bytes of one event; a longer one is left out


@dataclass(frozen=True, kw_only=True)
class Face:
    """What a container is to look like.

    Attributes:
        hostname: The name that its programs see, where none was asked for.
        address: The address that its programs see; "" where it has no network.
        image_env: The variables of its image, as `NAME=value`.
        image_ports: The ports that its image exposes.
        added: The names of variables that only we have set.
    """

    asked: AskedContainer
    hostname: str
    address: str
    image_env: tuple[str, ...]
    image_ports: tuple[str, ...]
    added: frozenset[str]

    def networks(
        self, identifier: str, is_running: bool, places: Iterable[NetworkPlace]
    ) -> dict[str, Any]:
        address = self.address if is_running else ""
        return {
            place.network: {
                "IPAMConfig": None,
                "Links": None,
                "Aliases": [*place.aliases] or None,
                "MacAddress": "",
                "NetworkID": place.identifier,
                "EndpointID": identifier if is_running else "",
                "Gateway": "",
                "IPAddress": address,
                "IPPrefixLen": 32 if address else 0,
                "IPv6Gateway": "",
                "GlobalIPv6Address": "",
                "GlobalIPv6PrefixLen": 0,
                "DriverOpts": None,
                "DNSNames": None,
            }
            for place in places
        }

    def exposed(self, published: Iterable[str]) -> dict[str, Any]:
        return {port: {} for port in (*self.image_ports, *self.asked.ports.exposed, *published)}


def inspected(
    found: dict[str, Any], face: Face, ports: PortsByName, places: Iterable[NetworkPlace]
) -> dict[str, Any]:
    """`GET /containers/{id}/json`."""
    asked, config, host = face.asked, found["Config"], found["HostConfig"]
    exposed = face.exposed(asked.ports.bindings)
    config["Labels"] = theirs(config.get("Labels"))
    config["Env"] = env_of(config.get("Env") or (), face)
    config["Hostname"] = asked.hostname or face.hostname
    config["Domainname"] = asked.domainname or ""
    if exposed:
        config["ExposedPorts"] = exposed
    host["NetworkMode"] = asked.network_mode
    host["PortBindings"] = dict(asked.ports.said)
    host["PublishAllPorts"] = asked.ports.publishes_all
    host["ExtraHosts"] = asked.host_lines
    is_running = bool(found["State"]["Running"])
    networks = face.networks(found["Id"], is_running, places)
    settings = found["NetworkSettings"]
    settings["Networks"] = networks
    settings["Ports"] = {**dict.fromkeys(exposed), **ports} if is_running else {}
    for name, empty in (("IPAddress", ""), ("IPPrefixLen", 0), ("EndpointID", "")):
        settings[name] = networks.get("bridge", {}).get(name, empty)  # as the engine: of no other
    return found


def listed(
    found: dict[str, Any], face: Face, ports: PortsByName, places: Iterable[NetworkPlace]
) -> dict[str, Any]:
    """A container of `GET /containers/json`."""
    is_running = found.get("State") == "running"
    found["HostConfig"] = {
        **(found.get("HostConfig") or {}),
        "NetworkMode": face.asked.network_mode,
    }
    found["Ports"] = [*ports_of(face, ports)] if is_running else []
    found["NetworkSettings"] = {"Networks": face.networks(found["Id"], is_running, places)}
    return found


def ports_of(face: Face, ports: PortsByName) -> Iterator[dict[str, Any]]:
    for port, bindings in ports.items():
        number, _, kind = port.partition("/")
        for each in bindings:
            public = {"IP": each["HostIp"], "PublicPort": int(each["HostPort"])}
            yield {**public, "PrivatePort": int(number), "Type": kind}
    for port in face.exposed(()).keys() - ports.keys():
        number, _, kind = port.partition("/")
        yield {"PrivatePort": int(number), "Type": kind or "tcp"}


def others(containers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The containers of a list without our sidecars, and without our labels."""
    found = [each for each in containers if not (is_ours(each) and is_sidecar(each))]
    for each in found:
        each["Labels"] = theirs(each.get("Labels"))
    return found


def is_hidden(found: Mapping[str, Any]) -> bool:
    """Whether a container (`GET /containers/{id}/json`) is a sidecar of ours."""
    as_listed = {"Names": [found["Name"]], "Labels": found["Config"].get("Labels")}
    return is_ours(as_listed) and is_sidecar(as_listed)


def theirs(labels: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (labels or {}).items() if name not in OWN_LABELS}


def env_of(variables: Iterable[str], face: Face) -> list[str]:
    """The variables without those that only we have set, and with the image's own values of them."""
    kept = [each for each in variables if each.partition("=")[0] not in face.added]
    return kept + [each for each in face.image_env if each.partition("=")[0] in face.added]


class EventStream:
    """A stream of `GET /events`, as it comes in pieces, without what is ours."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_too_long = False

    def take(self, piece: bytes) -> bytes:
        """The whole events that have come, each a line."""
        self._rest += piece
        *lines, rest = bytes(self._rest).split(b"\n")
        if lines and self._is_too_long:
            lines, self._is_too_long = lines[1:], False
        if len(rest) > MAX_LINE:
            rest, self._is_too_long = b"", True
        self._rest = bytearray(rest)
        return b"".join(filter(None, map(event, lines)))


def event(line: bytes) -> bytes:
    """An event without our labels; b"" for one that is ours alone."""
    try:
        found = json.loads(line)
        actor, kind = found["Actor"], found["Type"]
        attributes = actor.get("Attributes") or {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return b""
    name = attributes.get("name") or ""
    as_listed = {"Names": [name], "Labels": attributes}
    if kind == "container" and is_ours(as_listed) and is_sidecar(as_listed):
        return b""
    if kind == "image" and FILLED in name:
        return b""
    if kind == "network" and name == "none":  # a sidecar's: it has no other
        return b""
    actor["Attributes"] = theirs(attributes)
    return json.dumps(found).encode() + b"\n"
