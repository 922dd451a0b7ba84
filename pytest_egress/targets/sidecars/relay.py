"""The relay of a run: the container that passes connections of the test process to sidecars of the stream link.

It has a network, and one port there; sidecars have none, and share a folder with it, which no target does. It keeps no
connection that it has passed, and knows nothing of a target. It ends with its standard input, and so with this process.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import secrets
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from docker.errors import APIError
from docker.types import LogConfig

import pytest_egress.link.relay as protocol
from pytest_egress.base.clock import monotonic
from pytest_egress.base.forks import close_in_forked_children
from pytest_egress.base.polling import BYTE_OR_END
from pytest_egress.base.sockets import await_ready
from pytest_egress.engine.archive import File, build_tar
from pytest_egress.engine.copier import again
from pytest_egress.engine.endpoint import connection_of, engine_address
from pytest_egress.engine.leftovers import NAME_LABEL, SIDECAR, is_gone, remove_container
from pytest_egress.errors import LinkError
from pytest_egress.link.attach import Attachment, attach
from pytest_egress.link.direct import DirectWay
from pytest_egress.targets.sidecars.program import (
    agent_archive,
    boot_of,
    ensure_image,
    library_path,
    python_mounts,
)
from pytest_egress.targets.sidecars.provision import SidecarSetup, sidecar_errors

if TYPE_CHECKING:
    import docker

    from pytest_egress.engine.engine import Engine

log = logging.getLogger("pytest_egress.engine")  # users filter logs by this name
RELAY: Final = f"{SIDECAR}relay-"  # begins the names of relays
START_SECONDS: Final = 30.0
NETWORK: Final = "bridge"  # the engine's own, on which it can publish ports
ON_PODMAN: Final = "Podman's networks are not tried"
ON_LINUX: Final = "it counts on what Linux tells of a connection that was reset"
ENCRYPTED: Final = (
    "the engine is reached by TLS or ssh, and connections to a relay are not encrypted"
)
NO_WAY: Final = "no address of it tells a reset from an end here"


class RelayContainer:
    """A relay that runs; `start` makes it.

    Attributes:
        address: Where this process connects to it.
    """

    def __init__(self, api: docker.APIClient, container: str, attachment: Attachment) -> None:
        self.id, self._api, self._attachment = container, api, attachment
        self.secret = secrets.token_bytes(protocol.SECRET_BYTES)
        self.address = ("", 0)
        # A child that outlives this process would keep the relay alive.
        close_in_forked_children(self, lambda relay: relay._attachment.sock.close())

    @classmethod
    def start(cls, engine: Engine, setup: SidecarSetup) -> RelayContainer:
        """Start one with the Python of a sidecar, and find the way to it.

        Raises:
            LinkError: The engine refuses it, or it cannot be reached by a way that tells RST from FIN.
        """
        api = engine.client.api
        name = f"{RELAY}{secrets.token_hex(6)}"
        host = published_at(engine_address(engine.client))
        with sidecar_errors():
            created = api.create_container(
                **program_of(api, setup),
                name=name,
                labels={**engine.marks, NAME_LABEL: name},
                stdin_open=True,
                ports=[protocol.PORT],
                host_config=api.create_host_config(
                    network_mode=NETWORK,
                    ipc_mode="shareable",
                    cap_drop=["ALL"],
                    security_opt=["label=disable", "no-new-privileges"],
                    auto_remove=True,
                    log_config=LogConfig(type="none"),
                    mounts=[] if setup.image is not None else python_mounts(),
                    port_bindings={protocol.PORT: None} if host else {},
                ),
            )
        try:
            return cls._start(api, str(created["Id"]), host)
        except BaseException:
            with contextlib.suppress(APIError):
                remove_container(api, created["Id"])
            raise

    @classmethod
    def _start(cls, api: docker.APIClient, container: str, host: str) -> RelayContainer:
        path = (
            f"/v{api.api_version}/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
        )
        with sidecar_errors():
            relay = cls(api, container, attach(connection_of(api), path))
        try:
            secret = build_tar({protocol.SECRET_PATH: File(content=relay.secret, mode=0o400)})
            with sidecar_errors():
                again(lambda: api.put_archive(container, "/", agent_archive("stream")))
                again(lambda: api.put_archive(container, "/", secret))
                api.start(container)
                relay._expect(protocol.READY, START_SECONDS)
                found = api.inspect_container(container)["NetworkSettings"]
            relay.address = relay._find_way(found, host)
        except BaseException:
            relay._attachment.close()
            raise
        return relay

    def way(self, key: bytes) -> DirectWay:
        return DirectWay(self.address, self.secret + key, self._attachment.sock)

    @property
    def has_ended(self) -> bool:
        return bool(await_ready(self._attachment.sock, BYTE_OR_END, 0))

    def close(self) -> None:
        """It ends with its input; the engine removes it."""
        self._attachment.close()
        try:
            remove_container(self._api, self.id)
        except APIError as error:
            if not is_gone(error):
                raise

    def _find_way(self, network: dict[str, Any], host: str) -> tuple[str, int]:
        """The address at which it is reached by a way that keeps RST and FIN apart, which many proxies do not."""
        tried: list[str] = []
        for address in addresses(network, host):
            try:
                protocol.try_way(address, self.secret, self._expect)
            except OSError as error:
                tried.append(f"{address[0]}:{address[1]}: {error.strerror or error}")
            else:
                return address
        raise LinkError("; ".join([NO_WAY, *tried]))

    def _expect(self, line: bytes, seconds: float) -> None:
        """OSError where it does not write this line in time."""
        deadline, said = monotonic() + seconds, b""
        while len(said) < len(line) and (left := deadline - monotonic()) > 0:
            if await_ready(self._attachment.sock, BYTE_OR_END, left):
                if (data := self._attachment.read()) is None:
                    raise OSError(errno.EPIPE, f"it ended: {self._attachment.text()}")
                said += data
        if said != line:
            raise OSError(errno.EPROTO, f"it said {said!r}, not {line!r}")


class RelayOfRun:
    """Starts the relay of a run when a sidecar first needs it. Safe to call from any thread.

    Attributes:
        refusal: Why there is none, where one was needed; else "".
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._relay: RelayContainer | None = None
        self.refusal = ""

    def for_sidecar(self, setup: SidecarSetup) -> RelayContainer | None:
        """None where the link needs none, or where there can be none: all goes by the engine's stream then."""
        if setup.link != "stream":
            return None
        with self._lock:
            if self._relay is not None and self._relay.has_ended:
                self._relay.close()
                self._relay = None
            if self._relay is None and not self.refusal:
                self._start(setup)
            return self._relay

    def _start(self, setup: SidecarSetup) -> None:
        self.refusal = reason_for_none(self._engine)
        if self.refusal:
            return
        try:
            self._relay = RelayContainer.start(self._engine, setup)
        except (LinkError, OSError) as error:
            self.refusal = str(error)
            log.info("Connections go by the engine's stream, without a relay: %s", error)

    def close(self) -> None:
        with self._lock:
            relay, self._relay = self._relay, None
        if relay is not None:
            relay.close()


def reason_for_none(engine: Engine) -> str:
    """Why no relay of this engine is tried; "" where one is."""
    if engine.is_podman:
        return ON_PODMAN
    if sys.platform != "linux":
        return ON_LINUX
    return ENCRYPTED if urlsplit(engine_address(engine.client)).scheme in ("https", "ssh") else ""


def published_at(engine: str) -> str:
    """The host at which an engine publishes ports for this process; "" where there is none but its own network's."""
    parts = urlsplit(engine)
    return parts.hostname or "" if parts.scheme == "http" else ""


def addresses(network: dict[str, Any], host: str) -> Iterator[tuple[str, int]]:
    """The addresses to be tried, from the `NetworkSettings` of the relay: its own first, then a published port's."""
    own = network.get("IPAddress") or network["Networks"].get(NETWORK, {}).get("IPAddress")
    if own:
        yield own, protocol.PORT
    for binding in (network.get("Ports") or {}).get(f"{protocol.PORT}/tcp") or []:
        if host and ":" not in binding["HostIp"]:
            yield host, int(binding["HostPort"])


def program_of(api: docker.APIClient, setup: SidecarSetup) -> dict[str, Any]:
    command = [*setup.python(), "-c", boot_of("relay")]
    if setup.image is not None:
        return {
            "image": setup.image,
            "user": "0:0",
            "working_dir": "/",
            "entrypoint": command,
        }
    return {"image": ensure_image(api), "command": command, "environment": library_path()}
