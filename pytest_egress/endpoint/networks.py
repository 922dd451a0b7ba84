"""`Networks`: networks that tools make, kept by us. The engine makes none, and a container stays behind its sidecar.

A network has a name, an identifier and members, which tools ask for and compare. Its members reach each other by name.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from http import HTTPStatus
from typing import Any, Final

from pytest_egress.base.clock import wall
from pytest_egress.endpoint.fields import is_said, known, take, text, texts
from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.traffic.shown import shown
from pytest_egress.traffic.strict_json import from_json

MAX_NETWORKS: Final = 256  # each is kept until the endpoint ends
PREDEFINED: Final = ("bridge", "host", "none", "default")
NETWORK: Final = frozenset(
    (
        "Name", "CheckDuplicate", "Driver", "Internal", "Attachable", "IPAM", "EnableIPv4", "EnableIPv6", "Options",
        "Labels", "Scope",
    )
)  # fmt: skip
DRIVERS: Final = ("", "default", "bridge")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", re.ASCII)
ENDPOINT: Final = frozenset(
    (
        "Aliases", "NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway",
        "GlobalIPv6Address", "GlobalIPv6PrefixLen", "DriverOpts", "DNSNames", "GwPriority",
    )
)  # fmt: skip
"""Keys of a container's place in a network; all but the aliases are the engine's to tell."""
NAMES_ALONE: Final = (
    "containers of a network reach each other by their names and aliases alone here"
)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network as a tool asked for it."""

    name: str
    identifier: str
    created: str
    labels: Mapping[str, str]
    options: Mapping[str, str]
    ipam: Mapping[str, Any]
    is_internal: bool
    is_attachable: bool
    has_ipv6: bool


@dataclass(frozen=True, kw_only=True)
class NetworkPlace:
    """A container's place in a network.

    Attributes:
        network: The network's name.
        identifier: The network's identifier.
    """

    network: str
    identifier: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NetworkMember:
    """A container in a network, as the network tells it."""

    container: str
    name: str
    address: str


class Networks:
    """The networks of one endpoint, and which containers are in them.

    Threads: any. No call of the engine is made while the lock is held.

    Args:
        moved: Called, without the lock, after containers have joined or left a network.
    """

    def __init__(self, moved: Callable[[], object] = lambda: None) -> None:
        self._moved = moved
        self._networks: dict[str, Network] = {}
        self._places: dict[str, dict[str, NetworkPlace]] = {}
        self._lock = threading.Lock()

    def create(self, body: Mapping[str, Any]) -> Network:
        """`POST /networks/create`."""
        network = network_of(body)
        with self._lock:
            if any(each.name == network.name for each in self._networks.values()):
                raise RefusedCall(
                    f"network with name {network.name} already exists", HTTPStatus.CONFLICT
                )
            if len(self._networks) >= MAX_NETWORKS:
                raise RefusedCall(f"more than {MAX_NETWORKS} networks are refused")
            self._networks[network.identifier] = network
        return network

    def find(self, name: str) -> Network | None:
        """By name, identifier or the only identifier that begins so, as the engine does."""
        with self._lock:
            networks = [*self._networks.values()]
        exact = [each for each in networks if name in (each.name, each.identifier)]
        begun = [each for each in networks if name and each.identifier.startswith(name)]
        return exact[0] if exact else begun[0] if len(begun) == 1 else None

    def all(self) -> list[Network]:
        with self._lock:
            return [*self._networks.values()]

    def remove(self, network: Network, running: Iterable[str]) -> None:
        """Remove a network; RefusedCall where a container that runs is in it."""
        with self._lock:
            if any(network.identifier in self._places.get(each, ()) for each in running):
                raise RefusedCall(
                    f"error while removing network: network {network.name} id {network.identifier} has active "
                    "endpoints",
                    HTTPStatus.FORBIDDEN,
                )
            self._networks.pop(network.identifier, None)
            for places in self._places.values():
                places.pop(network.identifier, None)
        self._moved()

    def join(self, container: str, places: Iterable[NetworkPlace]) -> None:
        with self._lock:
            its = self._places.setdefault(container, {})
            its.update({each.identifier: each for each in places})
        self._moved()

    def leave(self, container: str, identifier: str) -> bool:
        """Take a container out of a network; whether it was in it."""
        with self._lock:
            was_in = self._places.get(container, {}).pop(identifier, None) is not None
        self._moved()
        return was_in

    def forget(self, container: str) -> None:
        with self._lock:
            self._places.pop(container, None)
        self._moved()

    def places(self, container: str) -> list[NetworkPlace]:
        with self._lock:
            return [*self._places.get(container, {}).values()]

    def mates(self, container: str) -> dict[str, list[NetworkPlace]]:
        """The containers of each network that one is in, itself as well, with their places there."""
        with self._lock:
            own = self._networks.keys() & self._places.get(container, {}).keys()
            shared = {
                other: [place for each, place in places.items() if each in own]
                for other, places in self._places.items()
            }
        return {other: places for other, places in shared.items() if places}


def network_of(body: Mapping[str, Any]) -> Network:
    """The network that a body of `POST /networks/create` asks for."""
    for name in ("Ingress", "ConfigOnly", "ConfigFrom"):
        if is_said(body.get(name)):
            raise RefusedCall(
                f"{name} is refused: networks are made for containers of this test alone"
            )
    found = known(body, NETWORK, "the network")
    name = text(found.get("Name"), "Name")
    if not NAME.fullmatch(name):
        raise RefusedCall(
            f"the network name {shown(name)} is refused: write letters, digits, _ . and -"
        )
    if name in PREDEFINED:
        raise RefusedCall(
            f"operation is not permitted on predefined {name} network", HTTPStatus.FORBIDDEN
        )
    if (driver := text(found.get("Driver"), "Driver")) not in DRIVERS:
        raise RefusedCall(
            f"the network driver {shown(driver)} is refused: it leads to a network of the host's; use bridge"
        )
    return Network(
        name=name,
        identifier=secrets.token_hex(32),
        created=datetime.fromtimestamp(wall(), timezone.utc).isoformat(),
        labels=named_texts(found, "Labels"),
        options=named_texts(found, "Options"),
        ipam={
            "Driver": "default",
            "Options": None,
            "Config": [],
            **take(dict(found), "IPAM", dict),
        },
        is_internal=found.get("Internal") is True,
        is_attachable=found.get("Attachable") is True,
        has_ipv6=found.get("EnableIPv6") is True,
    )


def named_texts(found: Mapping[str, Any], name: str) -> dict[str, str]:
    value: dict[str, str] = take(dict(found), name, dict)
    if not all(isinstance(each, str) for each in value.values()):
        raise RefusedCall(f"{name} has texts alone, not {shown(value)}")
    return value


def aliases_of(network: str, end: object) -> tuple[str, ...]:
    """The aliases of a container in a network; RefusedCall for what would need links."""
    if end is None:
        return ()
    if not isinstance(end, dict):
        raise RefusedCall(
            f"the place in the network {shown(network)} is an object, not {shown(end)}"
        )
    for name in ("IPAMConfig", "Links", "MacAddress"):
        if is_said(end.get(name)):
            raise RefusedCall(
                f"{name}={shown(end[name])} in the network {shown(network)} is refused: {NAMES_ALONE}",
                HTTPStatus.NOT_IMPLEMENTED,
            )
    return tuple(texts(known(end, ENDPOINT, "the place in a network"), "Aliases"))


def inspected_network(network: Network, members: Iterable[NetworkMember]) -> dict[str, Any]:
    """`GET /networks/{id}`; a list has it without members."""
    return {
        "Name": network.name,
        "Id": network.identifier,
        "Created": network.created,
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv6": network.has_ipv6,
        "IPAM": dict(network.ipam),
        "Internal": network.is_internal,
        "Attachable": network.is_attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            each.container: {
                "Name": each.name,
                "EndpointID": each.container,
                "MacAddress": "",
                "IPv4Address": f"{each.address}/32",
                "IPv6Address": "",
            }
            for each in members
        },
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }


def filters_of(written: str) -> dict[str, list[str]]:
    """The filters of a query, which have two forms: `{"name": ["a"]}` and `{"name": {"a": true}}`."""
    found = from_json(written or "{}")
    if not isinstance(found, dict):
        raise RefusedCall(f"filters is an object, not {shown(found)}")
    filters = {}
    for name, values in found.items():
        listed = [each for each in values if values[each]] if isinstance(values, dict) else values
        filters[name] = texts({name: listed}, name)
    return filters


def is_meant(network: Mapping[str, Any], filters: Mapping[str, list[str]], used: set[str]) -> bool:
    """Whether a network, as it is told, is one of those that filters name; of several names one is enough."""
    return all(fits(network, name, values, used) for name, values in filters.items() if values)


def fits(network: Mapping[str, Any], name: str, values: list[str], used: set[str]) -> bool:
    if name == "label":
        return all(has_label(network["Labels"] or {}, each) for each in values)
    if name == "name":
        return any(each in network["Name"] for each in values)
    if name == "id":
        return any(network["Id"].startswith(each) for each in values)
    if name in ("driver", "scope"):
        return network[name.title()] in values
    if name == "type":
        return ("builtin" if network["Name"] in PREDEFINED else "custom") in values
    if name == "dangling":
        is_used = network["Id"] in used or network["Name"] in PREDEFINED
        return str(not is_used).lower() in ["true" if each == "1" else each for each in values]
    raise RefusedCall(f"invalid filter {shown(name)}")


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, sign, value = wanted.partition("=")
    return name in labels and (not sign or labels[name] == value)
