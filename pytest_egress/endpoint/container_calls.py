"""`ContainerCalls`: the calls of the API that are passed on, and the containers made through the endpoint.

Each call is a method here, since all need the engine, the scope and the containers: so the module is long.

Threads: any. The lock guards the containers; no call of the engine is made while it is held.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import docker.errors
import h11

from pytest_egress.endpoint import bodies
from pytest_egress.endpoint.calls import SEGMENT, Act, EngineCall, Whose
from pytest_egress.endpoint.mounts import check_engine, sources_of, volumes_of
from pytest_egress.endpoint.network_calls import NetworkCalls
from pytest_egress.endpoint.networks import NetworkMember, NetworkPlace, Networks
from pytest_egress.endpoint.peers import names_of
from pytest_egress.endpoint.ports import PortTakenError, PublishedPorts, ports_of_image
from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.endpoint.veil import EventStream, Face, inspected, is_hidden, listed, others
from pytest_egress.endpoint.volume_calls import VolumeCalls
from pytest_egress.endpoint.wire import HeaderPairs, Tool, Upstream, answer_of, copy, pass_on
from pytest_egress.engine.endpoint import connection_of, engine_address
from pytest_egress.engine.leftovers import (
    NAME_LABEL,
    OURS,
    TARGET,
    is_gone,
    remove_container,
)
from pytest_egress.errors import EngineError
from pytest_egress.targets.external import ExternalContainer, check_created
from pytest_egress.targets.plan import plan
from pytest_egress.traffic.shown import shown

if TYPE_CHECKING:
    from pytest_egress.inner_egress import InnerEgress

PROJECT: Final = "com.docker.compose.project"  # the labels that Compose puts on what it makes
SERVICE: Final = "com.docker.compose.service"
NUMBER: Final = "com.docker.compose.container-number"
ONE_OFF: Final = "com.docker.compose.oneoff"
JSON: Final[HeaderPairs] = [(b"Content-Type", b"application/json")]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A container that was made through the endpoint.

    Attributes:
        name: Its name on the engine.
        target: What captures it; None where it has no network.
        face: What is told of it.
        ports: Its published ports.
    """

    name: str
    target: ExternalContainer | None
    face: Face
    ports: PublishedPorts


@dataclass(frozen=True, kw_only=True)
class CapturedService:
    """A container of a Compose service.

    Attributes:
        number: Which of the service's replicas it is, from 1.
        target: What captures it; None where it has no network.
    """

    identifier: str
    service: str
    number: int
    target: ExternalContainer | None


class ContainerCalls:
    """Answers the calls of one endpoint, until it ends.

    Args:
        publishes: Whether ports are published that a tool asks for.
    """

    def __init__(self, scope: InnerEgress, *, publishes: bool = True) -> None:
        self._scope, self._engine, self._publishes = scope, scope.session.engine, publishes
        self._api = self._engine.client.api  # found now, whatever becomes of DOCKER_HOST
        self._made: dict[str, Made] = {}
        self._networks = Networks(self._revise)
        self._network_calls = NetworkCalls(
            networks=self._networks,
            api=self._api,
            captured=self._connectable,
            members=self._members,
        )
        self._address = engine_address(self._engine.client)
        self._volume_calls = VolumeCalls(
            api=self._api, address=self._address, marks=self._engine.marks
        )
        self._lock = threading.Lock()
        self._has_ended = False

    def end(self) -> None:
        """Adopt no container any more."""
        with self._lock:
            self._has_ended = True

    def remove_all(self) -> None:
        """Remove the containers and volumes that were made through the endpoint."""
        with contextlib.ExitStack() as removals:  # all are called, even if one raises
            removals.callback(self._volume_calls.remove_all)  # the last one, when nothing uses them
            for identifier in [*self._made]:
                removals.callback(self._remove, identifier)

    def services(self, project: str) -> list[CapturedService]:
        """The containers of a Compose project, without those of `docker compose run`."""
        with self._lock:
            made = [*self._made.items()]
        found = [service_of(each, its) for each, its in made if is_service(its, project)]
        return sorted(found, key=lambda each: (each.service, each.number))

    def make_network(self, name: str) -> None:
        """Make a network that a tool expects to be there."""
        self._networks.create({"Name": name})

    def answer(self, tool: Tool, call: EngineCall) -> None:
        """Answer one request, whose head has been read."""
        acts = {
            Act.PASS: self._pass,
            Act.UPLOAD: self._upload,
            Act.CREATE: self._create,
            Act.INSPECT: self._inspect,
            Act.LIST: self._list,
            Act.ATTACH: self._attach,
            Act.EXEC_CREATE: self._exec_create,
            Act.EXEC_START: self._exec_start,
            Act.REMOVE: self._delete,
            Act.WAIT: self._wait,
            Act.START: self._start,
            Act.EVENTS: self._events,
            Act.NETWORK: self._network,
            Act.VOLUME: self._volume,
        }
        acts[call.row.act](tool, call, self._name(call))

    def _name(self, call: EngineCall) -> str:
        """The identifier of what a call is about, so that it cannot become another one's name meanwhile."""
        if call.row.whose is Whose.CAPTURED:
            return self._captured(call.name)
        if call.row.whose is Whose.EXEC:
            found = self._api.exec_inspect(call.name)
            self._check_made(str(found["ContainerID"]), call.name)
            return str(found["ID"])
        return call.name

    def _captured(self, name: str) -> str:
        """The identifier of a container that was made through the endpoint."""
        if not SEGMENT.fullmatch(name):  # it would be another path of the engine's API
            raise RefusedCall(f"No such container: {name}", HTTPStatus.NOT_FOUND)
        identifier = str(self._api.inspect_container(name)["Id"])
        self._check_made(identifier, name)
        return identifier

    def _check_made(self, identifier: str, name: str) -> None:
        with self._lock:
            if identifier not in self._made:
                raise RefusedCall(
                    f"{shown(name)} was not created through this endpoint, and is not captured: create it anew",
                    HTTPStatus.CONFLICT,
                )

    def _dial(self) -> contextlib.closing[Upstream]:
        return contextlib.closing(Upstream(connection_of(self._api)))

    def _pass(self, tool: Tool, call: EngineCall, name: str) -> None:
        tool.skip()
        if call.row.whose is Whose.EXEC and call.row.path.endswith("/json"):
            self._settle(str(self._api.exec_inspect(name)["ContainerID"]))
        with self._dial() as upstream:
            upstream.send(tool.method, call.target(name), tool.headers())
            pass_on(tool, upstream)

    def _upload(self, tool: Tool, call: EngineCall, name: str) -> None:
        with self._dial() as upstream:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has answered
                upstream.upload(tool.method, call.target(name), tool.headers(), tool.pieces())
            pass_on(tool, upstream)

    def _ask(
        self, tool: Tool, call: EngineCall, name: str, body: object = None
    ) -> tuple[int, HeaderPairs, bytes]:
        """Ask the engine with a body of ours; return the whole response."""
        content = b"" if body is None else json.dumps(body).encode()
        with self._dial() as upstream:
            upstream.send(tool.method, call.target(name), [] if body is None else JSON, content)
            response = upstream.response()
            return response.status_code, list(response.headers), upstream.body()

    def _wait(self, tool: Tool, call: EngineCall, name: str) -> None:
        """What the container has sent is in the ledger before its tool knows that it has ended."""
        tool.skip()
        is_to_go = call.query.get("condition") == "removed"

        def before_end() -> None:
            self._settle(name)
            if is_to_go and not self._exists(name):
                self._forget(name)

        with self._dial() as upstream:
            upstream.send(tool.method, call.target(name), tool.headers())
            pass_on(tool, upstream, before_end)

    def _exists(self, identifier: str) -> bool:
        with contextlib.suppress(docker.errors.NotFound):
            return bool(self._api.inspect_container(identifier))
        return False

    def _settle(self, identifier: str) -> None:
        """Wait until all that a container has sent is in the ledger."""
        with self._lock:
            made = self._made.get(identifier)
        if made is not None and made.target is not None:
            made.target.gateway.settle_all()

    def _delete(self, tool: Tool, call: EngineCall, name: str) -> None:
        tool.skip()
        status, headers, body = self._ask(tool, call, name)
        if status == HTTPStatus.NO_CONTENT:
            self._forget(name)
        tool.answer(status, body, headers)

    def _attach(self, tool: Tool, call: EngineCall, name: str) -> None:
        tool.skip()
        self._stream(tool, call, name, b"")

    def _exec_create(self, tool: Tool, call: EngineCall, name: str) -> None:
        status, headers, body = self._ask(
            tool, call, name, bodies.command(tool.body(bodies.MAX_BODY))
        )
        tool.answer(status, body, headers)

    def _exec_start(self, tool: Tool, call: EngineCall, name: str) -> None:
        body = bodies.start(tool.body(bodies.MAX_BODY))
        if body.get("Detach"):
            status, headers, said = self._ask(tool, call, name, body)
            tool.answer(status, said, headers)
        else:
            self._stream(tool, call, name, json.dumps(body).encode())

    def _stream(self, tool: Tool, call: EngineCall, name: str, body: bytes) -> None:
        if not tool.asks_to_switch:
            raise RefusedCall("a stream is asked for with `Connection: Upgrade` and `Upgrade: tcp`")
        with self._dial() as upstream:
            headers = JSON if body else []
            upstream.send(tool.method, call.target(name), headers, body, switches=True)
            response = answer_of(tool, upstream)
            if isinstance(response, h11.InformationalResponse):
                copy(tool, upstream, response)
            elif response.status_code < HTTPStatus.BAD_REQUEST:
                raise EngineError("the engine has not switched protocols for a stream")
            else:
                tool.answer(response.status_code, upstream.body(), list(response.headers))

    def _network(self, tool: Tool, call: EngineCall, name: str) -> None:
        tool.answer(*self._network_calls.answer(call, name, tool.body(bodies.MAX_BODY)))

    def _volume(self, tool: Tool, call: EngineCall, name: str) -> None:
        tool.answer(*self._volume_calls.answer(call, name, tool.body(bodies.MAX_BODY)))

    def _connectable(self, name: str) -> str:
        """The identifier of a container that may be in networks."""
        identifier = self._captured(name)
        if self._known(identifier).target is None:
            raise RefusedCall(f"{shown(name)} was created without a network: create it anew")
        return identifier

    def _members(self) -> list[NetworkMember]:
        """The containers made through the endpoint that run."""
        running = {each["Id"] for each in self._api.containers(quiet=True)}
        with self._lock:
            made = [(each, its) for each, its in self._made.items() if each in running]
        return [
            NetworkMember(container=i, name=its.name, address=its.face.address) for i, its in made
        ]

    def _known(self, identifier: str) -> Made:
        with self._lock:
            made = self._made.get(identifier)
        if made is None:  # it has been removed since it was looked for
            raise RefusedCall(f"No such container: {identifier}", HTTPStatus.NOT_FOUND)
        return made

    def _start(self, tool: Tool, call: EngineCall, name: str) -> None:
        """Start a container again, or for the first time, with its ports published."""
        tool.skip()
        made = self._known(name)
        try:
            self._publish(made)
        except PortTakenError as taken:
            if made.face.asked.config["HostConfig"].get("AutoRemove"):
                self._remove(name)  # as the engine does: `docker run --rm` waits for that
            raise RefusedCall(
                f"driver failed programming external connectivity on endpoint {call.name}: Bind for {taken} failed: "
                "port is already allocated",
                HTTPStatus.INTERNAL_SERVER_ERROR,
            ) from None
        status, headers, body = self._ask(tool, call, name)
        if status >= HTTPStatus.BAD_REQUEST:
            made.ports.close()
        tool.answer(status, body, headers)

    def _publish(self, made: Made) -> None:
        try:
            made.ports.open()
        except PortTakenError:
            self._withdraw()
            made.ports.open()

    def _withdraw(self) -> None:
        """Publish no port any more of containers that have ended."""
        with self._lock:
            several = [*self._made.values()]
        for each in several:
            each.ports.close_if_ended()

    def _events(self, tool: Tool, call: EngineCall, _: str) -> None:
        tool.skip()
        with self._dial() as upstream:
            upstream.send(tool.method, call.target(), tool.headers())
            pass_on(tool, upstream, change=EventStream().take)

    def _inspect(self, tool: Tool, call: EngineCall, name: str) -> None:
        tool.skip()
        status, headers, body = self._ask(tool, call, name)
        if status == HTTPStatus.OK:
            found = json.loads(body)
            if is_hidden(found):
                raise RefusedCall(f"No such container: {call.name}", HTTPStatus.NOT_FOUND)
            with self._lock:
                made = self._made.get(found["Id"])
            if made is not None:
                places = self._networks.places(found["Id"])
                found = inspected(found, made.face, made.ports.told(), places)
            body = json.dumps(found).encode()
        tool.answer(status, body, headers)

    def _list(self, tool: Tool, call: EngineCall, name: str) -> None:
        """A limit counts what is shown, and no sidecars."""
        tool.skip()
        limit = number_of(call.query.get("limit", ""))
        query = {name: value for name, value in call.query.items() if name != "limit"}
        query.update({"all": "1"} if limit else {})
        status, headers, body = self._ask(tool, dataclasses.replace(call, query=query), name)
        if status == HTTPStatus.OK:
            found = others(json.loads(body))[: limit or None]
            with self._lock:
                made = {each["Id"]: self._made.get(each["Id"]) for each in found}
            for each in found:
                if (its := made[each["Id"]]) is not None:
                    listed(each, its.face, its.ports.told(), self._networks.places(each["Id"]))
            body = json.dumps(found).encode()
        tool.answer(status, body, headers)

    # Containers.

    def _create(self, tool: Tool, call: EngineCall, _: str) -> None:
        asked = bodies.asked(tool.body(bodies.MAX_BODY))
        for other in asked.config["HostConfig"].get("VolumesFrom") or ():
            self._captured(other.partition(":")[0])
        check_engine(sources_of(asked.config["HostConfig"]), self._address)
        for volume in volumes_of(asked.config["HostConfig"]):
            self._volume_calls.ensure(volume)
        places = self._places(asked)
        name = name_of(call)
        found = self._api.inspect_image(asked.image)  # type: ignore[no-untyped-call]  # the tool pulls one that is missing, and asks again
        named = dataclasses.replace(call, query={**call.query, "name": name})
        config = {
            **asked.config,
            "Image": asked.image,
            "Env": [f"{n}={v}" for n, v in asked.env.items()],
        }
        labels = config.get("Labels") or {}
        if not isinstance(labels, dict):
            raise RefusedCall(f"Labels is an object, not {shown(labels)}")
        config["Labels"] = {**labels, **self._engine.marks, NAME_LABEL: name}
        target = None if asked.network else self._capture(asked, config)
        try:
            config["HostConfig"]["NetworkMode"] = asked.network or (target and target.network_mode)
            if target is None:  # a captured one has these of its sidecar
                config.update(Hostname=asked.hostname or "", Domainname=asked.domainname or "")
                config["HostConfig"]["ExtraHosts"] = asked.host_lines
            status, headers, body = self._ask(tool, named, "", config)
            if status == HTTPStatus.CREATED:
                made = self._made_of(name, asked, found["Config"], target, config["Env"])
                identifier = json.loads(body)["Id"]
                self._adopt(identifier, made)
                self._networks.join(identifier, places)
        except BaseException:
            if target is not None:
                target.close()
            raise
        if status != HTTPStatus.CREATED and target is not None:
            target.close()
        tool.answer(status, body, headers)

    def _made_of(
        self,
        name: str,
        asked: bodies.AskedContainer,
        image: Mapping[str, Any],
        target: ExternalContainer | None,
        variables: Iterable[str],
    ) -> Made:
        exposed = ports_of_image(image.get("ExposedPorts") or ())
        face = Face(
            asked=asked,
            hostname=target.hostname if target else "",
            address=target.own_address if target else "",
            image_env=tuple(image.get("Env") or ()),
            image_ports=exposed,
            added=frozenset(each.partition("=")[0] for each in variables) - {*asked.env},
        )
        to_publish = asked.ports.to_publish(exposed) if self._publishes else {}
        return Made(name=name, target=target, face=face, ports=PublishedPorts(to_publish, target))

    def _places(self, asked: bodies.AskedContainer) -> list[NetworkPlace]:
        """The networks that a container is to be in."""
        if not asked.aliases:
            name = asked.network or "bridge"
            return [NetworkPlace(network=name, identifier=self._network_id(name))]
        try:
            return [self._network_calls.place(name, its) for name, its in asked.aliases.items()]
        except RefusedCall as missing:  # to 404 the docker command pulls the image
            raise RefusedCall(str(missing)) from None

    def _network_id(self, name: str) -> str:
        with contextlib.suppress(docker.errors.APIError):
            return str(self._api.inspect_network(name)["Id"])
        return ""

    def _capture(self, asked: bodies.AskedContainer, config: dict[str, Any]) -> ExternalContainer:
        """Start the sidecar of a container, and set the variables that lead to the CA."""
        scope = self._scope
        scope.hide(asked.env)
        checked = plan(
            asked.image,
            env=asked.env,
            hostname=asked.hostname,
            domainname=asked.domainname,
            extra_hosts=asked.extra_hosts or None,
        )
        target = scope.new(ExternalContainer, checked, labels_of(asked).get(SERVICE, ""))
        variables = target.open()["environment"]
        config["Env"] = [f"{name}={value}" for name, value in variables.items()]
        return target

    def _adopt(self, identifier: str, made: Made) -> None:
        """Put the CA into a container that was created, before anybody can start it."""
        container = self._engine.container(identifier)
        try:
            if made.target is not None:
                made.target.adopt(container)
            else:  # it could still enter the network of a container whose processes it shares
                check_created(self._engine, container)
            with self._lock:
                if self._has_ended:
                    raise RefusedCall("egress.engine() has ended", HTTPStatus.SERVICE_UNAVAILABLE)
                self._made[identifier] = made
        except BaseException:
            self._engine.remove(container)
            raise
        if made.target is not None:
            made.target.find_peers = partial(self._peers, identifier)
            self._scope.keep(made.target)

    def _revise(self) -> None:
        """Have the kernel of each container know which names are containers' now: patterns refuse no dial of these."""
        with self._lock:
            targets = [each.target for each in self._made.values() if each.target is not None]
        for target in targets:
            target.gateway.revise()

    def _peers(self, identifier: str, name: str) -> list[ExternalContainer]:
        """The containers that a name is for, in a network that a container is in."""
        mates = self._networks.mates(identifier)
        with self._lock:
            made = [(other, its) for other in mates if (its := self._made.get(other)) is not None]
        return [
            its.target
            for other, its in made
            if its.target is not None
            and name in names_of(other, its.name, its.target.hostname, mates[other])
        ]

    def _remove(self, identifier: str) -> None:
        try:
            remove_container(self._api, identifier, kill=False)
        except docker.errors.APIError as error:
            if not is_gone(error):  # a container with --rm removes itself
                raise
        finally:
            self._forget(identifier)

    def _forget(self, identifier: str) -> None:
        """End the sidecar of a container that has been removed."""
        with self._lock:
            made = self._made.pop(identifier, None)
        self._networks.forget(identifier)
        if made is not None and made.target is not None:
            self._scope.discard(made.target)


def labels_of(asked: bodies.AskedContainer) -> Mapping[str, str]:
    labels = asked.config.get("Labels")
    return labels if isinstance(labels, dict) else {}


def is_service(made: Made, project: str) -> bool:
    labels = labels_of(made.face.asked)
    return labels.get(PROJECT) == project and labels.get(ONE_OFF) != "True"


def service_of(identifier: str, made: Made) -> CapturedService:
    labels = labels_of(made.face.asked)
    return CapturedService(
        identifier=identifier,
        service=labels.get(SERVICE, ""),
        number=int(labels.get(NUMBER) or 1),
        target=made.target,
    )


def number_of(text: str) -> int:
    """The limit of a list; 0 for none."""
    try:
        return max(0, int(text or 0))
    except ValueError:
        raise RefusedCall(f"limit={shown(text)} is no number") from None


def name_of(call: EngineCall) -> str:
    """The name of a container to be made. A name of ours would keep it from being listed, or removed."""
    name = call.query.get("name", "").lstrip("/")
    if name.startswith(OURS):
        raise RefusedCall(f"the name {shown(name)} is refused: {OURS}... are names of ours")
    return name or f"{TARGET}{secrets.token_hex(6)}"
