"""A hostile target, root with the options left to it, reaches for the engine, kernel and disks of its machine."""

from __future__ import annotations

import os
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from pytest_egress import Egress
from pytest_egress.engine.endpoint import engine_address

pytestmark = pytest.mark.one_link  # of mounts and options, in which it has no part

ASK_THE_ENGINE = """
    import socket, sys, time
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(sys.argv[1])
        sock.send(b"GET /_ping HTTP/1.0\\r\\n\\r\\n")
        print(sock.recv(15).decode(), flush=True)
    time.sleep(0.5)  # an engine may lose the output of what has ended at once
"""


@pytest.fixture(params=["a link", "a mount point"])
def disguised(
    request: pytest.FixtureRequest, tmp_path: Path, engine_client: docker.DockerClient
) -> Iterator[tuple[Path, str]]:
    """What leads to the socket of the engine by another name, and where the socket is if that is mounted at `/in`."""
    socket = Path(engine_address(engine_client).removeprefix("unix://")).resolve()
    if request.param == "a link":
        (tmp_path / "link").symlink_to(socket)
        yield tmp_path / "link", "/in"
        return
    if os.geteuid():
        pytest.skip("only root mounts")
    # Not in /tmp: while the socket is mounted there, other tests of this machine may not mount /tmp.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as outer:
        (inner := Path(outer) / "inner").mkdir()
        (inner / "plain").touch()
        subprocess.run(["mount", "--bind", socket, inner / "plain"], check=True)
        try:
            yield Path(outer), "/in/inner/plain"
        finally:
            subprocess.run(["umount", inner / "plain"], check=True)


def test_the_socket_of_the_engine_is_refused_by_whatever_name_it_is_mounted(
    egress: Egress,
    engine_client: docker.DockerClient,
    clients_image: str,
    disguised: tuple[Path, str],
) -> None:
    source, place = disguised
    command = ["python3", "-c", textwrap.dedent(ASK_THE_ENGINE), place]
    volumes = [f"{source}:/in"]
    said = engine_client.containers.run(
        clients_image, command, user="root", network_mode="none", volumes=volumes, remove=True
    )
    assert said == b"HTTP/1.0 200 OK\n"
    with pytest.raises(
        ValueError, match="programs started by a socket there would not be captured"
    ):
        egress.run(clients_image, command, user="root", volumes=volumes)


@pytest.fixture
def other(engine_client: docker.DockerClient, clients_image: str) -> Iterator[str]:
    """A container of nobody's, which has the cgroups of its machine."""
    container = engine_client.containers.create(
        clients_image, ["true"], volumes=["/sys/fs/cgroup:/cgroups"]
    )
    try:
        yield str(container.id)
    finally:
        container.remove(force=True)


Volumes = Callable[..., str]


@pytest.fixture
def volume(engine_client: docker.DockerClient) -> Iterator[Volumes]:
    """Makes a volume by the options of its driver, as another tool may have done before."""
    made = []

    def make(kind: str, device: str, o: str = "") -> str:
        options = {"type": kind, "device": device} | ({"o": o} if o else {})
        made.append(engine_client.volumes.create(driver_opts=options))
        return str(made[-1].name)

    yield make
    for each in made:
        each.remove(force=True)


def test_the_cgroups_of_the_machine_are_refused_by_whatever_way_they_are_mounted(
    egress: Egress, clients_image: str, other: str, volume: Volumes, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("/sys/fs")
    ways: list[dict[str, Any]] = [
        {"volumes": [f"{tmp_path}/link/cgroup:/cgroups"]},
        {"volumes": [f"{volume('none', '/sys/fs/cgroup', 'bind')}:/cgroups"]},
        {"volumes_from": [other]},
    ]
    for options in ways:
        with pytest.raises(ValueError, match="run programs outside of its container"):
            egress.run(clients_image, ["true"], **options)


def test_a_volume_by_which_the_engine_mounts_the_kernels_files_is_refused(
    egress: Egress, engine_client: docker.DockerClient, clients_image: str, volume: Volumes
) -> None:
    processes = volume("proc", "proc")
    command = ["sh", "-c", "cat /in/1/comm; sleep 0.5"]
    said = engine_client.containers.run(
        clients_image, command, network_mode="none", volumes=[f"{processes}:/in"], remove=True
    )
    assert said.decode().strip() == Path("/proc/1/comm").read_text().strip()
    overlay = volume("overlay", "overlay", "lowerdir=/:/srv")
    for name, text in {
        processes: "the volume of type 'proc' is refused",
        volume("sysfs", "sysfs"): "the volume of type 'sysfs' is refused",
        overlay: "the volume of type 'overlay' is refused",
        volume("none", "run", "bind"): "the volume with device='run' is refused",
    }.items():
        with pytest.raises(ValueError, match=text):
            egress.run(clients_image, command, volumes=[f"{name}:/in"])


def test_the_sockets_of_the_run_are_refused_with_the_folder_that_they_are_in(
    egress: Egress, clients_image: str, volume: Volumes
) -> None:
    """By that of an endpoint a target would mount whatever it likes, and have images pulled from anywhere."""
    folder = tempfile.gettempdir()
    for source in (folder, volume("none", folder, "bind")):
        with pytest.raises(ValueError, match="the sockets of this run are in it"):
            egress.run(clients_image, ["true"], volumes=[f"{source}:/in"])


REACH = """
    import ctypes, os, stat
    libc = ctypes.CDLL(None)
    def node(kind, major, minor):
        os.mknod(path := f"/tmp/node-{major}-{minor}", 0o600 | kind, os.makedev(major, minor))
        return path
    def writes(path):
        with open(path, "r+b", buffering=0) as file: file.write(file.read(4096))
    def joins(path):
        os.write(os.open(f"{path}/cgroup.procs", os.O_WRONLY), b"0")
    def calls(name, *arguments):
        if getattr(libc, name)(*arguments) < 0: raise PermissionError
    tries = {
        "loop device": lambda: os.open(node(stat.S_IFBLK, 7, 0), os.O_RDONLY),
        "disk": lambda: os.open(node(stat.S_IFBLK, 8, 0), os.O_RDONLY),
        "memory": lambda: os.open(node(stat.S_IFCHR, 1, 1), os.O_RDWR),
        "device filter": lambda: joins("/sys/fs/cgroup/devices"),
        "cgroup": lambda: joins("/sys/fs/cgroup"),
        "core_pattern": lambda: writes("/proc/sys/kernel/core_pattern"),
        "modprobe": lambda: writes("/proc/sys/kernel/modprobe"),
        "uevent_helper": lambda: writes("/sys/kernel/uevent_helper"),
        "another /proc": lambda: calls("mount", b"p", b"/mnt", b"proc", 0, None),
        "another /sys": lambda: calls("mount", b"s", b"/mnt", b"sysfs", 0, None),
        "other cgroups": lambda: calls("mount", b"c", b"/mnt", b"cgroup2", 0, None),
        "settings": lambda: calls("mount", None, b"/proc/sys", None, 32 | 4096, None),  # MS_REMOUNT, MS_BIND
        "network": lambda: calls("unshare", 0x40000000),  # CLONE_NEWNET
    }
    def does(act):
        try: act()
        except OSError: return False
        return True
    print([name for name, act in tries.items() if does(act)])
"""
LEFT: dict[str, dict[str, Any]] = {
    "none": {},
    "seccomp": {"security_opt": ["seccomp=unconfined"], "cap_add": ["SYS_PTRACE", "NET_ADMIN"]},
    "tracing": {"cap_add": ["SYS_PTRACE", "SYSLOG", "PERFMON", "MKNOD", "SYS_CHROOT"]},
    "cgroupns": {"cgroupns": "host"},
    "cgroup": {"cgroup_parent": "/"},
    "users": {"userns_mode": "host"},
    "rules": {"device_cgroup_rules": ["c 189:* rmw"], "cap_add": ["MKNOD"]},
    "devices": {"volumes": ["/dev:/machine"]},
}


@pytest.mark.parametrize("options", LEFT.values(), ids=LEFT)
def test_with_the_options_that_are_left_a_target_does_not_reach_its_machine(
    egress: Egress, clients_image: str, options: dict[str, Any]
) -> None:
    command = ["python3", "-c", textwrap.dedent(REACH)]
    assert egress.run(clients_image, command, user="root", **options).stdout == "[]\n"
