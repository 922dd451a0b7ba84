"""`NetworkCalls`: the calls of the API about networks. The engine is asked for its own three alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from pytest_egress.endpoint.bodies import parsed
from pytest_egress.endpoint.calls import ONE_NETWORK, EngineCall
from pytest_egress.endpoint.fields import known, text
from pytest_egress.endpoint.networks import (
    PREDEFINED,
    Network,
    NetworkMember,
    NetworkPlace,
    Networks,
    aliases_of,
    filters_of,
    inspected_network,
    is_meant,
)
from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.traffic.shown import shown

if TYPE_CHECKING:
    from docker import APIClient

CONNECT: Final = frozenset(("Container", "EndpointConfig"))
DISCONNECT: Final = frozenset(("Container", "Force"))

NetworkAnswer = tuple[int, bytes]


@dataclass(frozen=True, kw_only=True)
class NetworkCalls:
    """Answers the calls about networks.

    Attributes:
        captured: Gives the identifier of a container that may be in networks; RefusedCall for another one.
        members: Gives the containers made through the endpoint that run.
    """

    networks: Networks
    api: APIClient
    captured: Callable[[str], str]
    members: Callable[[], list[NetworkMember]]

    def answer(self, call: EngineCall, name: str, body: bytes) -> NetworkAnswer:
        """The status and body of a response."""
        acts: Mapping[tuple[str, str], Callable[[EngineCall, str, bytes], NetworkAnswer]] = {
            ("GET", "/networks"): self._list,
            ("GET", ONE_NETWORK): self._inspect,
            ("DELETE", ONE_NETWORK): self._remove,
            ("POST", "/networks/create"): self._create,
            ("POST", "/networks/prune"): self._prune,
            ("POST", f"{ONE_NETWORK}/connect"): self._connect,
            ("POST", f"{ONE_NETWORK}/disconnect"): self._disconnect,
        }
        return acts[call.row.method, call.row.path](call, name, body)

    def place(self, name: str, aliases: tuple[str, ...]) -> NetworkPlace:
        network = self._found(name)
        return NetworkPlace(network=network.name, identifier=network.identifier, aliases=aliases)

    def _found(self, name: str) -> Network:
        """A network that was made through the endpoint."""
        network = self.networks.find(name)
        if network is not None:
            return network
        if name in PREDEFINED:
            raise RefusedCall(
                f"{name} is a pre-defined network, which is not changed here: make another one",
                HTTPStatus.FORBIDDEN,
            )
        raise missing(name)

    def _told(self, network: Network, members: list[NetworkMember]) -> dict[str, Any]:
        def is_in(member: NetworkMember) -> bool:
            places = self.networks.places(member.container)
            return any(each.identifier == network.identifier for each in places)

        return inspected_network(network, filter(is_in, members))

    def _list(self, call: EngineCall, _: str, __: bytes) -> NetworkAnswer:
        filters = filters_of(call.query.get("filters", ""))
        members = self.members() if "dangling" in filters else []
        own = [self._told(each, members) for each in self.networks.all()]
        used = {each["Id"] for each in own if each["Containers"]}
        engines = [each for each in self.api.networks() if each["Name"] in PREDEFINED]
        found = [each for each in [*engines, *own] if is_meant(each, filters, used)]
        return said([{**each, "Containers": {}} for each in found])

    def _inspect(self, _: EngineCall, name: str, __: bytes) -> NetworkAnswer:
        if (network := self.networks.find(name)) is not None:
            return said(self._told(network, self.members()))
        for each in self.api.networks():
            if each["Name"] in PREDEFINED and (name == each["Name"] or each["Id"].startswith(name)):
                return said({**each, "Containers": {}})
        raise missing(name)

    def _create(self, _: EngineCall, __: str, body: bytes) -> NetworkAnswer:
        network = self.networks.create(parsed(body))
        return said({"Id": network.identifier, "Warning": ""}, HTTPStatus.CREATED)

    def _remove(self, _: EngineCall, name: str, __: bytes) -> NetworkAnswer:
        network = self._found(name)
        self.networks.remove(network, [each.container for each in self.members()])
        return HTTPStatus.NO_CONTENT, b""

    def _prune(self, call: EngineCall, _: str, __: bytes) -> NetworkAnswer:
        filters = filters_of(call.query.get("filters", ""))
        running, removed = [each.container for each in self.members()], []
        for network in self.networks.all():
            if is_meant(self._told(network, []), filters, set()):
                try:
                    self.networks.remove(network, running)
                except RefusedCall:  # a container in it runs
                    continue
                removed.append(network.name)
        return said({"NetworksDeleted": removed})

    def _connect(self, _: EngineCall, name: str, body: bytes) -> NetworkAnswer:
        found = known(parsed(body), CONNECT, "the connection")
        network, container = self._found(name), self._container(found)
        if any(each.identifier == network.identifier for each in self.networks.places(container)):
            raise RefusedCall(
                f"endpoint with name {found['Container']} already exists in network {network.name}",
                HTTPStatus.FORBIDDEN,
            )
        aliases = aliases_of(network.name, found.get("EndpointConfig"))
        self.networks.join(container, [self.place(network.identifier, aliases)])
        return said(None)

    def _disconnect(self, _: EngineCall, name: str, body: bytes) -> NetworkAnswer:
        found = known(parsed(body), DISCONNECT, "the disconnection")
        container = self._container(found)
        for place in self.networks.places(container):
            if name in (place.network, place.identifier):
                self.networks.leave(container, place.identifier)
                return said(None)
        raise RefusedCall(
            f"container {found['Container']} is not connected to network {name}",
            HTTPStatus.FORBIDDEN,
        )

    def _container(self, found: Mapping[str, Any]) -> str:
        name = text(found.get("Container"), "Container")
        if not name:
            raise RefusedCall("the body names no Container")
        return self.captured(name)


def said(value: object, status: HTTPStatus = HTTPStatus.OK) -> NetworkAnswer:
    return status, b"" if value is None else json.dumps(value).encode()


def missing(name: str) -> RefusedCall:
    return RefusedCall(f"network {shown(name).strip(chr(39))} not found", HTTPStatus.NOT_FOUND)
