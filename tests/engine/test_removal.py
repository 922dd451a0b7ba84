"""Removing containers on a real engine: what counts as gone, and what an engine that fails leaves."""

from __future__ import annotations

import docker

from pytest_egress.engine.leftovers import is_removed, remove_containers
from tests.support.leftovers import NOBODYS


def test_what_was_removed_and_what_had_gone_before_are_gone(
    engine_client: docker.DockerClient, bare_image: str
) -> None:
    sidecar = engine_client.containers.run(
        bare_image, ["sleep", "600"], network_mode="none", detach=True
    )
    target = engine_client.containers.create(bare_image, network_mode=f"container:{sidecar.id}")
    ours = {str(sidecar.id), str(target.id)}
    assert {*remove_containers(engine_client.api, [*ours, NOBODYS])} == {*ours, NOBODYS}
    left = {each["Id"] for each in engine_client.api.containers(all=True)}
    assert ours.isdisjoint(left)
    assert is_removed(engine_client.api, NOBODYS)
    assert remove_containers(engine_client.api, []) == []
