"""Files and devices of the machine: which are refused, by their texts and by what is found at them."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.types import DriverConfig, Mount

import pytest_egress.targets.mounts as mounts
from pytest_egress import Egress
from pytest_egress.targets.mounts import (
    check_device,
    check_run_folder,
    check_source,
    check_volume,
    mount_points,
)
from pytest_egress.targets.plan import plan
from pytest_egress.traffic.shown import shown
from tests.support.container_server import error_text

SOCKET = "containers and programs started by a socket there would not be captured; leave it out"
NETWORK = "the host's network can be entered there; leave it out"
KERNEL = "with it a target can run programs outside of its container, which would not be captured; leave it out"
DRIVER = "it runs on the host, and may use its network; use local"
KIND = (
    "the engine may mount files of the kernel by it, a disk, or what is on the host's network; known are none, bind, "
    "tmpfs"
)
DISK = (
    "with a disk a target can write the programs of its machine, which would not be captured; copy what it needs with "
    "files=, or mount a folder with volumes="
)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"volumes": [f"{path}:/in:ro"]}, f"the mount of {path!r} is refused: {why}")
        for path, why in {
            "/var/run/docker.sock": SOCKET,
            "/srv/../run": SOCKET,
            "/": SOCKET,
            "/run/user": SOCKET,
            "/run/user/1000": SOCKET,
            "/run/user/1000/podman/podman.sock": SOCKET,
            "/run/user/1000/bus": SOCKET,
            "/run/libvirt/libvirt-sock": SOCKET,
            "/proc": NETWORK,
            "/sys": KERNEL,
            "//sys/./fs/cgroup/": KERNEL,
        }.items()
    ]
    + [
        ({"volumes": {"/sys": {"bind": "/s", "mode": "ro"}}}, f"the mount of '/sys' is refused: {KERNEL}"),
        ({"volumes": ("/sys:/s",)}, f"the mount of '/sys' is refused: {KERNEL}"),
        ({"mounts": [Mount("/s", "/sys", type="bind")]}, f"the mount of '/sys' is refused: {KERNEL}"),
        ({"volume_driver": "sshfs"}, f"the volume driver 'sshfs' is refused: {DRIVER}"),
        *(
            ({"mounts": [Mount("/s", "data", driver_config=DriverConfig(*driver))]}, error)
            for driver, error in (
                (("sshfs",), f"the volume driver 'sshfs' is refused: {DRIVER}"),
                (("local", {"type": "proc", "device": "proc"}), f"the volume of type 'proc' is refused: {KIND}"),
            )
        ),
        *(
            ({"devices": [f"{path}:/dev/in:r"]}, f"the device {path!r} is refused: {DISK}")
            for path in (
                *("/dev/sda", "/dev/nvme0n1p1", "/dev/mapper/root", "/dev/sg0", "/dev//./vda", "/dev", "/dev/loop0"),
            )
        ),
        *(
            (
                {"device_cgroup_rules": [rule]},
                f"device_cgroup_rules=[{rule!r}] is refused: {DISK}; name a kind of character devices by its "
                'number, as in "c 189:* rmw"',
            )
            for rule in ("a", "a *:* rwm", "b 8:0 r", "c *:* rwm", "c 21:0 rwm")
        ),
    ],
)  # fmt: skip
def test_what_lets_a_target_start_programs_of_its_machine_is_refused(
    egress: Egress, options: dict[str, Any], error: str
) -> None:
    for method in (egress.run, egress.start):
        with pytest.raises(ValueError) as caught:
            method("never:looked-up", **options)
        assert error_text(caught) == error


@pytest.mark.parametrize(
    "options",
    [
        {"volumes": ["/srv/data:/data", "data:/var/data", "/data", "/system:/s", "/dev/shm:/s"]},
        {"volumes": ["/run/user/1000/wayland-0:/w", "/running:/r", "sys:/sys"]},
        {"mounts": [Mount("/data", None), Mount("/t", None, type="tmpfs")]},
        {"devices": ["/dev/net/tun", "/dev/video0", "/dev/kvm:/dev/kvm:rwm", "/dev/random"]},
        {"device_cgroup_rules": ["c 189:* rmw", "c 10:200 rwm", "c 211:0 r"]},
    ],
)
def test_other_files_and_devices_are_not(options: dict[str, Any]) -> None:
    assert plan("shop", **options).options == options


# What is found at a path.


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Path]:
    """The socket of an engine, whose name tells nothing."""
    with socket.socket(socket.AF_UNIX) as sock:
        (tmp_path / "engine").mkdir()
        sock.bind(str(tmp_path / "engine/s"))
        yield tmp_path / "engine/s"


def refused(path: Path, *sockets: Path) -> str:
    with pytest.raises(ValueError) as caught:
        check_source(str(path), [str(each) for each in sockets])
    return str(caught.value)


def test_a_socket_is_known_by_its_inode(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(engine)
    os.link(engine, hard := tmp_path / "hard")
    for each in (engine, engine.parent, engine.parent.parent, tmp_path / "link", hard):
        assert refused(each, engine) == f"the mount of {shown(str(each))} is refused: {SOCKET}"


def test_so_is_that_of_the_environment(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_source(str(engine.parent))
    for name in ("DOCKER_HOST", "CONTAINER_HOST"):
        with monkeypatch.context() as environment:
            environment.setenv(name, f"unix://{engine}")
            assert SOCKET in refused(engine.parent)
    (tmp_path / "engine/bus").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "engine"))
    assert SOCKET in refused(engine.parent)


def test_a_hard_link_to_a_socket_is_found_within_a_folder(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "outer/inner").mkdir(parents=True)
    check_source(str(tmp_path / "outer"), [str(engine)])
    os.link(engine, tmp_path / "outer/inner/s")
    assert refused(tmp_path / "outer", engine) == (
        f"the mount of {shown(f'{tmp_path}/outer')}, which has {shown(f'{tmp_path}/outer/inner/s')}, is refused: "
        f"{SOCKET}"
    )


@pytest.mark.parametrize("what", ["engine", "engine/s"])
def test_so_is_a_mount_point(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    (tmp_path / "outer/inner").mkdir(parents=True)
    (place := tmp_path / "outer/inner/mounted").symlink_to(tmp_path / what)
    check_source(str(tmp_path / "outer"), [str(engine)])
    monkeypatch.setattr(mounts, "mount_points", lambda: [(1, "ext4", str(place))])
    assert refused(tmp_path / "outer", engine) == (
        f"the mount of {shown(f'{tmp_path}/outer')}, which has {shown(str(place))}, is refused: {SOCKET}"
    )


def test_a_file_system_of_the_kernel_is_known_by_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_source(str(tmp_path))
    monkeypatch.setattr(
        mounts, "mount_points", lambda: [(tmp_path.stat().st_dev, "cgroup2", "/elsewhere")]
    )
    assert refused(tmp_path) == f"the mount of {shown(str(tmp_path))} is refused: {KERNEL}"


def test_the_mount_points_of_this_machine_are_read() -> None:
    found = {point: (device, kind) for device, kind, point in mount_points()}
    assert found["/proc"] == (os.stat("/proc").st_dev, "proc")


def test_a_blank_in_the_name_of_a_mount_point_is_one() -> None:
    assert mounts.plain(r"/a\040b\134c") == r"/a b\c"


def test_what_is_not_there_is_judged_by_its_text(tmp_path: Path) -> None:
    for path in (f"{tmp_path}/none", "/srv/none.test/data", "data", "", "/a\0b"):
        check_source(path)
    check_device("/dev/none.test")


def test_the_folder_of_a_run_is_in_no_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tmp/run/own", "beside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "tmp")
    for within in ("tmp/run/own", "beside", "none"):  # what is made for a target is in it
        check_run_folder(str(tmp_path / within), str(tmp_path / "tmp/run"))
    for above in ("", "tmp", "tmp/run", "link"):
        with pytest.raises(ValueError, match="is refused: the sockets of this run are in it"):
            check_run_folder(str(tmp_path / above), str(tmp_path / "tmp/run"))
    (place := tmp_path / "beside/mounted").symlink_to(tmp_path / "tmp")
    monkeypatch.setattr(mounts, "mount_points", lambda: [(1, "ext4", str(place))])
    with pytest.raises(ValueError, match="is refused: the sockets of this run are in it"):
        check_run_folder(str(tmp_path / "beside"), str(tmp_path / "tmp/run"))


# Volumes.


@pytest.mark.parametrize(
    ("driver", "options", "error"),
    [
        ("sshfs", None, f"the volume driver 'sshfs' is refused: {DRIVER}"),
        *(
            ("local", {"type": kind, "device": device}, f"the volume of type {kind!r} is refused: {KIND}")
            for kind, device in (
                *(("proc", "proc"), ("sysfs", "sysfs"), ("cgroup2", "none"), ("ext4", "/dev/sda1")),
                *(("overlay", "overlay"), ("nfs", ":/data"), ("NFS4", ":/data")),
            )
        ),
        *(
            (
                "local",
                {"type": "none", "o": "bind", "device": device},
                f"the volume with device={device!r} is refused: the engine may bind that path, from its own folder; "
                "write an absolute one",
            )
            for device in ("run", "../run", "./proc")
        ),
        ("local", {"type": "none", "device": "//proc/1"}, f"the mount of '//proc/1' is refused: {NETWORK}"),
    ],
)  # fmt: skip
def test_a_volume_that_is_more_than_a_folder_is_refused(
    driver: str, options: dict[str, str] | None, error: str
) -> None:
    with pytest.raises(ValueError) as caught:
        check_volume({"Driver": driver, "Options": options})
    assert str(caught.value) == error


def test_another_volume_is_not() -> None:
    for options in (
        None,
        {"type": "none", "o": "bind", "device": "/srv/none.test"},
        {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"},
        {"size": "10M"},
    ):
        check_volume({"Driver": "local", "Options": options})


# Devices.


def test_a_link_to_a_disk_is_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/sg0")
    with pytest.raises(ValueError, match="with a disk a target can write the programs"):
        check_device(str(tmp_path / "link"))


def test_a_disk_is_known_by_what_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/device").touch()
    check_device(str(tmp_path / "folder"))
    monkeypatch.setattr(stat, "S_ISBLK", lambda mode: True)
    with pytest.raises(ValueError, match="with a disk a target can write the programs"):
        check_device(str(tmp_path / "folder"))
