"""What may be left of a run: containers, images, volumes, network namespaces, processes. It must be nothing.

Attributed to runs by their label, as they come into being, so that others may use the same engine meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import requests.exceptions
from docker.errors import DockerException

from pytest_egress.engine.leftovers import (
    FOLDER_LABEL,
    NAME_LABEL,
    SESSION_LABEL,
    TARGET,
    kept_name,
)

SECONDS = 60.0  # for what ends by itself, on however slow a machine


def identity(session: str, folder: str, *, kept: bool = False) -> dict[str, Any]:
    """Name and labels of a container of a run, as docker-py takes them."""
    name = f"{TARGET}{secrets.token_hex(6)}"
    labels = {SESSION_LABEL: session, FOLDER_LABEL: folder, NAME_LABEL: name}
    return {"name": kept_name(name) if kept else name, "labels": labels}


def until(condition: Callable[[], object], seconds: float = SECONDS) -> bool:
    """Whether a condition comes true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def containers(client: docker.DockerClient, session: str) -> list[str]:
    """The names of the containers of a run, whatever their state; what the engine says where it cannot list them."""
    try:
        listed = client.api.containers(all=True, filters={"label": f"{SESSION_LABEL}={session}"})
    except docker.errors.APIError as error:
        return [str(error)]
    return [name for container in listed for name in container["Names"]]


def running(client: docker.DockerClient, session: str) -> list[str]:
    """Those that run: Podman keeps a sidecar that has ended as long as its target is there."""
    listed = client.api.containers(filters={"label": f"{SESSION_LABEL}={session}"})
    return [name for container in listed for name in container["Names"]]


def images(client: docker.DockerClient, session: str) -> list[str]:
    listed = client.api.images(filters={"label": f"{SESSION_LABEL}={session}"})
    return [image["Id"] for image in listed]


def namespace(pid: int | str) -> str:
    """The network namespace of a process; "" where it has gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def is_mounted(key: str) -> bool:
    """Whether a namespace is held by this file, which the engine removes within a minute after."""
    try:
        return os.stat(key).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def in_container(pid: str, container: str) -> bool:
    """Whether a process runs in a container."""
    try:
        return container in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def is_alive(pid: int | str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def processes() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdecimal()]


def watchdogs(session: str) -> list[str]:
    """The processes that have the run's label among their arguments."""
    found = []
    for pid in processes():
        with contextlib.suppress(OSError):
            if f"{SESSION_LABEL}={session}" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


class Witness:
    """Sees what each run makes, from the engine's events; to be closed.

    Args:
        client: The engine; its own, since it is read in a thread.
    """

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        self.made: dict[str, set[str]] = defaultdict(set)  # containers, by session
        self.volumes: dict[str, set[str]] = defaultdict(set)
        self.keys: dict[str, set[str]] = defaultdict(set)  # where the engine holds a namespace
        self._events = client.events(decode=True, filters={"type": "container"})
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(DockerException, requests.exceptions.RequestException, OSError):
            for event in self._events:
                session = event["Actor"]["Attributes"].get(SESSION_LABEL)
                if session and event["Action"] in ("create", "start"):
                    self._look(session, event["Actor"]["ID"])

    def _look(self, session: str, container: str) -> None:
        self.made[session].add(container)
        with contextlib.suppress(DockerException):  # it has gone again
            seen: dict[str, Any] = self.client.api.inspect_container(container)
            for mount in seen["Mounts"]:
                if mount["Type"] == "volume":
                    self.volumes[session].add(mount["Name"])
            if key := seen["NetworkSettings"].get("SandboxKey"):
                self.keys[session].add(key)

    def left(self, session: str) -> list[str]:
        """What is there of a run, each with what it is."""
        return list(self.found(session))

    def found(self, session: str) -> Iterator[str]:
        """The same one by one, what an engine lists cheaply first: whoever waits needs the first alone."""
        yield from (f"container {name}" for name in containers(self.client, session))
        yield from (f"watchdog {pid}" for pid in watchdogs(session))
        yield from (f"namespace at {key}" for key in list(self.keys[session]) if is_mounted(key))
        yield from (f"namespace {name}" for name in self._held(session))
        seen = {name for name in list(self.volumes[session]) if self._has_volume(name)}
        yield from (f"volume {name}" for name in seen.union(self.volumes_of(session)))
        yield from (f"image {name}" for name in images(self.client, session))

    def volumes_of(self, session: str) -> list[str]:
        """The volumes with the label of a run."""
        listed = self.client.api.volumes(filters={"label": f"{SESSION_LABEL}={session}"})
        return [volume["Name"] for volume in listed["Volumes"] or ()]

    def _has_volume(self, name: str) -> bool:
        try:
            self.client.api.inspect_volume(name)
        except docker.errors.NotFound:
            return False
        return True

    def _held(self, session: str) -> set[str]:
        """The namespaces in which a process of the run's containers lives."""
        made = list(self.made[session])
        alive = (pid for pid in processes() if any(in_container(pid, each) for each in made))
        return {name for pid in alive if (name := namespace(pid))}

    def close(self) -> None:
        self._events.close()
        self._thread.join(SECONDS)
        self.client.close()


NOBODYS = "f" * 64  # the identifier of no container
