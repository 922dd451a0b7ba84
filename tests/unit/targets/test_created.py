"""What of its machine a container was created with, as an engine tells of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest

from pytest_egress.engine.engine import Engine
from pytest_egress.engine.leftovers import NAME_LABEL, SIDECAR, TARGET
from pytest_egress.targets.created import check_machine

VOLUMES: dict[str, dict[str, Any]] = {
    "cgroups": {"Options": {"type": "none", "o": "bind", "device": "/sys/fs/cgroup"}},
    "processes": {"Driver": "local", "Options": {"type": "proc", "device": "proc"}},
    "share": {"Driver": "sshfs"},
}


def other(name: str, mounts: list[dict[str, str]]) -> SimpleNamespace:
    labels = {NAME_LABEL: name}
    attrs = {"Name": f"/{name}", "Config": {"Labels": labels}, "HostConfig": {}, "Mounts": mounts}
    return SimpleNamespace(attrs=attrs)


OTHERS = {
    "sidecar": other(f"{SIDECAR}relay-0", []),
    "target": other(f"{TARGET}0", []),
    "reaper": other("reaper", [{"Type": "bind", "Source": "/run/docker.sock"}]),
}


def inspect_volume(name: str) -> dict[str, Any]:
    if name == "gone":
        raise docker.errors.NotFound("no such volume")
    return VOLUMES.get(name, {"Options": None})


def check(
    mounts: list[dict[str, str]] | None, host: dict[str, Any], *, socket: str = "", folder: str = ""
) -> None:
    adapter = SimpleNamespace(socket_path=socket) if socket else None
    api = SimpleNamespace(
        inspect_volume=inspect_volume, base_url="http+docker://localhost", _custom_adapter=adapter
    )
    client = SimpleNamespace(api=api)
    engine = SimpleNamespace(client=client, folder=folder, container=OTHERS.__getitem__)
    container = SimpleNamespace(attrs={"Mounts": mounts, "HostConfig": host})
    check_machine(cast("Engine", engine), cast("Any", container))


@pytest.mark.parametrize(
    ("mounts", "host", "error"),
    [
        ([{"Type": "bind", "Source": "/run/docker.sock"}], {}, "the mount of '/run/docker.sock'"),
        ([{"Type": "volume", "Name": "cgroups"}], {}, "the mount of '/sys/fs/cgroup'"),
        ([{"Type": "volume", "Name": "processes"}], {}, "the volume of type 'proc'"),
        ([{"Type": "volume", "Name": "share"}], {}, "the volume driver 'sshfs'"),
        (None, {"VolumesFrom": ["sidecar:ro"]}, r"volumes_from=\['sidecar:ro'\]"),
        (None, {"IpcMode": "container:sidecar"}, "ipc_mode='container:sidecar'"),
        (None, {"VolumesFrom": ["target", "reaper"]}, "the mount of '/run/docker.sock'"),
        (None, {"Devices": [{"PathOnHost": "/dev/sda"}]}, "the device '/dev/sda'"),
        ([], {"DeviceCgroupRules": ["b *:* rwm"]}, "device_cgroup_rules="),
    ],
)
def test_what_starts_programs_of_the_machine_is_refused(
    mounts: list[dict[str, str]] | None, host: dict[str, Any], error: str
) -> None:
    with pytest.raises(ValueError, match=f"{error}.* is refused"):
        check(mounts, host)


def test_other_mounts_and_devices_are_not() -> None:
    named = [{"Type": "volume", "Name": name, "Source": "/var/lib/x"} for name in ("data", "gone")]
    check(None, {"VolumesFrom": ["target"], "IpcMode": "container:target"})
    check(
        [*named, {"Type": "tmpfs"}, {"Type": "bind", "Source": "/srv/none.test"}], {"Devices": None}
    )


def test_the_folder_of_the_run_is_refused_where_the_engine_is_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp/run").mkdir(parents=True)
    folder = str(tmp_path / "tmp/run")
    volume = {"Options": {"type": "none", "o": "bind", "device": str(tmp_path / "tmp")}}
    monkeypatch.setitem(VOLUMES, "tmp", volume)
    for mount in (
        {"Type": "bind", "Source": str(tmp_path / "tmp")},
        {"Type": "volume", "Name": "tmp"},
    ):
        check([mount], {}, folder=folder)  # another machine has another folder there
        with pytest.raises(ValueError, match="the sockets of this run are in it"):
            check([mount], {}, socket="/srv/none.test/engine", folder=folder)
