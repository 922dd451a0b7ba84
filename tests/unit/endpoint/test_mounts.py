"""Which mounts, volumes and devices are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_egress.endpoint.mounts import (
    check_devices,
    check_engine,
    check_mounts,
    check_volume,
    sources_of,
    volumes_of,
)
from pytest_egress.endpoint.refusal import RefusedCall

NFS = {"type": "nfs", "o": "addr=192.0.2.1", "device": ":/data"}


def driven(name: str = "", **options: str) -> dict[str, Any]:
    driver = {"Name": name, "Options": options}
    return {"Type": "volume", "Source": "data", "VolumeOptions": {"DriverConfig": driver}}


@pytest.mark.parametrize(
    ("host", "text"),
    [
        *(
            ({"Binds": [f"{path}:/in:ro"]}, "would not be captured")
            for path in (
                "/var/run/docker.sock",
                "/run//./docker.sock/",
                "/srv/../run/docker.sock",
                "/",
                "/run",
                "/var/run",
                "/var/run/user/1000",
                "/run/containerd",
                "/run/dbus/system_bus_socket",
                "/srv/engine/docker.sock",
            )
        ),
        *(
            ({"Binds": [f"{path}:/in:ro"]}, "the host's network can be entered there")
            for path in ("/proc", "/proc/1/ns/net", "/var/run/docker/netns", "/run/netns/a")
        ),
        ({"Mounts": [{"Type": "bind", "Source": "/run//docker.sock/"}]}, "would not be captured"),
        ({"Mounts": [{"source": "/run/docker.sock"}]}, "the API writes Source"),
        ({"Mounts": [{"Type": "image", "Source": "shop"}]}, "the mount of type 'image' is refused"),
        ({"Mounts": [driven(device="/var/run", o="bind")]}, "would not be captured"),
        ({"Mounts": [driven(device="run", o="bind")]}, "the engine may bind that path"),
        ({"Mounts": [driven(type="tmpfs", device="../run", o="bind")]}, "the engine may bind that path"),
        ({"Mounts": [driven(**NFS)]}, "the volume of type 'nfs' is refused: the engine may mount"),
        ({"Mounts": [driven(type="CIFS")]}, "the volume of type 'CIFS' is refused"),
        ({"Mounts": [driven(TYPE="nfs")]}, "the API writes type"),
        ({"Mounts": [driven("sshfs")]}, "the volume driver 'sshfs' is refused: it runs on the host"),
        ({"Mounts": [{"VolumeOptions": {"driverconfig": {"x": 1}}}]}, "the API writes DriverConfig"),
        ({"VolumeDriver": "sshfs"}, "the volume driver 'sshfs' is refused"),
    ],
)  # fmt: skip
def test_a_mount_that_leads_out_is_refused(host: dict[str, Any], text: str) -> None:
    for each in host.get("Mounts", ()):
        each.setdefault("Type", "volume")
    with pytest.raises(RefusedCall) as refused:
        check_mounts(host)
    assert text in str(refused.value)


def test_a_link_to_such_a_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/var/run/docker.sock")
    with pytest.raises(RefusedCall, match="would not be captured"):
        check_mounts({"Binds": [f"{tmp_path}/link:/s"]})


@pytest.mark.parametrize("bound", ["", "engine.sock"])
@pytest.mark.parametrize("way", ["bind", "mount", "volume", "link"])
def test_the_socket_of_this_engine_is_refused_wherever_it_is(
    tmp_path: Path, bound: str, way: str
) -> None:
    folder = tmp_path / "engine"
    source, link = folder / bound, tmp_path / "link"
    link.symlink_to(source)
    ways: dict[str, dict[str, Any]] = {
        "bind": {"Binds": [f"{source}:/in"]},
        "mount": {"Mounts": [{"Type": "bind", "Source": str(source)}]},
        "volume": {"Mounts": [driven(device=str(source), o="bind")]},
        "link": {"Binds": [f"{link}:/in"]},
    }
    host = ways[way]
    check_mounts(host)
    check_engine(sources_of(host), "https://192.0.2.1:2376")
    check_engine(sources_of(host), f"unix://{tmp_path}/other/engine.sock")
    with pytest.raises(RefusedCall, match="would not be captured"):
        check_engine(sources_of(host), f"unix://{folder}/engine.sock")


def test_other_mounts_are_not() -> None:
    host: dict[str, Any] = {
        "Binds": ["/srv/data:/data", "data:/var/data:ro", "/running:/running", "/procs:/procs"],
        "Mounts": [
            {"Type": "volume", "Source": "more", "Target": "/more"},
            {"Type": "tmpfs", "Target": "/t"},
            driven("local", type="tmpfs", device="tmpfs", o="size=1m"),
        ],
    }
    check_mounts(host)
    assert [each["Name"] for each in volumes_of(host)] == ["data", "more", "data"]
    assert volumes_of(host)[2]["DriverOpts"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}


def test_a_volume_that_exists_is_judged_as_one_that_is_made() -> None:
    check_volume({"Driver": "local", "Options": None})
    for found in ({"Driver": "local", "Options": NFS}, {"Driver": "sshfs", "Options": None}):
        with pytest.raises(RefusedCall):
            check_volume(found)


@pytest.mark.parametrize("path", ["/dev/net/../net/tun", "/dev", "/dev/vsock"])
def test_a_device_of_the_network_is_refused(path: str) -> None:
    with pytest.raises(RefusedCall, match=r"the device '/dev.*' is refused"):
        check_devices({"Devices": [{"PathOnHost": path}]})
