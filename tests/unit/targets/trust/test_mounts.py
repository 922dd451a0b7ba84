"""Which volumes are the container's own."""

from __future__ import annotations

from docker.models.containers import Container as DockerContainer

from pytest_egress.targets.trust import mounts


def test_a_volume_of_a_driver_that_may_keep_it_elsewhere_is_foreign() -> None:
    mount = {"Type": "volume", "Name": "0" * 64, "Destination": "/etc/ssl"}
    container = DockerContainer({"Mounts": [{**mount, "Driver": "local"}]})
    assert mounts.foreign_mounts(container) == []
    container = DockerContainer({"Mounts": [{**mount, "Driver": "nfs"}]})
    assert mounts.foreign_mounts(container) == ["/etc/ssl"]
