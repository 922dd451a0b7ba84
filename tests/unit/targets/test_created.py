"""What of its machine a container was created with, as an engine tells of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest

from pytest_egress.engine.engine import Engine
from pytest_egress.targets.created import check_machine

VOLUMES = {"cgroups": {"Options": {"type": "none", "o": "bind", "device": "/sys/fs/cgroup"}}}


def inspect_volume(name: str) -> dict[str, Any]:
    if name == "gone":
        raise docker.errors.NotFound("no such volume")
    return VOLUMES.get(name, {"Options": None})


def check(mounts: list[dict[str, str]] | None, host: dict[str, Any]) -> None:
    api = SimpleNamespace(
        inspect_volume=inspect_volume, base_url="http+docker://localhost", _custom_adapter=None
    )
    engine = SimpleNamespace(client=SimpleNamespace(api=api))
    container = SimpleNamespace(attrs={"Mounts": mounts, "HostConfig": host})
    check_machine(cast("Engine", engine), cast("Any", container))


@pytest.mark.parametrize(
    ("mounts", "host", "error"),
    [
        ([{"Type": "bind", "Source": "/run/docker.sock"}], {}, "the mount of '/run/docker.sock'"),
        ([{"Type": "volume", "Name": "cgroups"}], {}, "the mount of '/sys/fs/cgroup'"),
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
    check(
        [*named, {"Type": "tmpfs"}, {"Type": "bind", "Source": "/srv/none.test"}], {"Devices": None}
    )
