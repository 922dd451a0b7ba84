"""Removes what a process of tests has started when that process is gone, whatever ended it.

A process that is killed runs no `finally`. So a process of its own, in a session of its own, waits for the end of its
standard input, which the kernel closes with the last of the tests.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import docker

from tests.support.leftovers import is_alive, processes, until
from tests.support.project import ROOT

SECONDS = 60.0  # for an engine to end what it has, on however slow a machine
LABEL = "org.pytest-egress-test.process"
CGROUPS = Path("/sys/fs/cgroup")


class Reaper:
    """The process that waits for the end of this one.

    Args:
        kind: What it removes, "engine" or "containers".
        name: The engine's folder, or the containers' label.
    """

    def __init__(self, kind: str, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.reaper", kind, name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def close(self) -> None:
        """Let it remove what is there now, and wait until it has."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(2 * SECONDS) == 0, "what it could not remove is above"


class EngineRemains:
    """All that a private engine has on the machine, found by its folder alone.

    Attributes:
        name: Its namespace in containerd, and its cgroup.
        bridge: Its network interface.
        cgroup: The folder of the cgroup that its containers are in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"pytest-egress-{folder.name}"
        self.bridge = f"egress{folder.name[-8:]}"  # 15 characters at most (if_nametoindex(3))
        self.cgroup = CGROUPS / self.name

    def end_containers(self) -> None:
        """Kill all that runs in them, whether or not a daemon is there (cgroups(7), `cgroup.kill`)."""
        if self.cgroup.exists():
            (self.cgroup / "cgroup.kill").write_text("1")
            events = self.cgroup / "cgroup.events"
            ended = until(lambda: "populated 0" in events.read_text(), SECONDS)
            assert ended, f"{self.cgroup} has processes that do not end"

    def processes(self) -> list[int]:
        """Its dockerd, its containerd, and a shim for each container: their arguments name files below the folder."""
        return [int(pid) for pid in processes() if f"{self.folder}/" in command_line(pid)]

    def left(self) -> list[str]:
        """What is there of it."""
        interface = Path("/sys/class/net", self.bridge)
        there = [str(path) for path in (self.folder, self.cgroup, interface) if path.exists()]
        return [*there, *mounts_below(self.folder), *map(command_line, self.processes())]

    def remove(self) -> None:
        """Leave nothing of it: containers, processes, cgroups, mounts, the network interface, files."""
        self.end_containers()
        send(signal.SIGTERM, [pid for pid in self.processes() if is_dockerd(pid)])
        if not until(lambda: not any(map(is_dockerd, self.processes()))):
            print(f"the engine in {self.folder} had to be killed", file=sys.stderr)
        assert until(lambda: not send(signal.SIGKILL, self.processes()), SECONDS)
        for folder, _, _ in os.walk(self.cgroup, topdown=False):
            os.rmdir(folder)
        if has_interface(self.bridge):
            subprocess.run(["ip", "link", "delete", self.bridge], check=True)
        for mount in reversed(mounts_below(self.folder)):
            subprocess.run(["umount", "--lazy", mount], check=True)
        shutil.rmtree(self.folder)


def command_line(pid: int | str) -> str:
    """The arguments of a process, each ended by a NUL; "" where it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


def is_dockerd(pid: int) -> bool:
    return command_line(pid).split("\0")[0].endswith("dockerd")


def send(how: signal.Signals, pids: Iterable[int]) -> list[int]:
    """Send a signal to each of these processes, and return those that there were."""
    there = [pid for pid in pids if is_alive(pid)]
    for pid in there:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
    return there


def has_interface(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def mounts_below(folder: Path) -> list[str]:
    """What is mounted in a folder, the deepest last (proc(5), `mountinfo`)."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return sorted(point for point in points if Path(point).is_relative_to(folder))


class LabellingClient(docker.DockerClient):
    """A client that gives each container a label by which it is found when these tests are gone.

    Attributes:
        label: `name=value`; this process's own.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        value = uuid.uuid4().hex
        self.label = f"{LABEL}={value}"
        create: Any = self.api.create_container_from_config

        def create_labelled(config: dict[str, Any], *arguments: Any, **options: Any) -> Any:
            labels = {**(config.get("Labels") or {}), LABEL: value}
            return create({**config, "Labels": labels}, *arguments, **options)

        self.api.create_container_from_config = create_labelled  # type: ignore[method-assign]


def containers_with(client: docker.DockerClient, label: str) -> list[dict[str, Any]]:
    """The engine's entries of all containers that have a label."""
    listed: list[dict[str, Any]] = client.api.containers(all=True, filters={"label": label})
    return listed


def remove_containers(label: str) -> None:
    """Remove all containers that have a label, in rounds: Podman keeps one whose network another one has."""

    def none_is_left() -> bool:
        for container in containers_with(client, label):
            with contextlib.suppress(docker.errors.APIError):
                client.api.remove_container(container["Id"], force=True, v=True)
        return not containers_with(client, label)

    with contextlib.closing(docker.from_env()) as client:
        assert until(none_is_left, SECONDS), containers_with(client, label)


def main(kind: str, name: str) -> None:
    """Wait for the end of the tests, and remove."""
    sys.stdin.read()
    if kind == "engine":
        EngineRemains(Path(name)).remove()
    else:
        remove_containers(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
