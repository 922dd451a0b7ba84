"""Removing containers on a real engine: what counts as gone, and what an engine that fails leaves."""

from __future__ import annotations

import contextlib

import docker

from pytest_egress.engine.leftovers import is_removed, remove_containers

NOBODYS = "f" * 64  # the identifier of no container


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


def test_of_an_engine_that_does_not_answer_nothing_is_gone() -> None:
    address = "tcp://127.0.0.1:1"  # docker-py leaves a UNIX socket open
    with contextlib.closing(docker.APIClient(base_url=address, version="1.41")) as api:
        assert not is_removed(api, NOBODYS)
        assert remove_containers(api, [NOBODYS]) == []
