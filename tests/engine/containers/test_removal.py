"""Removing containers on a real engine: what counts as gone, and what an engine that fails leaves."""

from __future__ import annotations

import uuid

import docker

from pytest_egress.engine.leftovers import (
    NAME_LABEL,
    SESSION_LABEL,
    SIDECAR,
    is_removed,
    remove_containers,
    remove_labelled,
)
from tests.support.leftovers import NOBODYS, containers, identity


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


def test_sidecars_stay_where_targets_alone_are_removed(
    engine_client: docker.DockerClient, bare_image: str
) -> None:
    session = uuid.uuid4().hex
    name = f"{SIDECAR}{session[:12]}"
    engine_client.containers.create(
        bare_image,
        network_mode="none",
        name=name,
        labels={SESSION_LABEL: session, NAME_LABEL: name},
    )
    engine_client.containers.create(bare_image, network_mode="none", **identity(session, "/"))
    label = f"{SESSION_LABEL}={session}"
    remove_labelled(engine_client.api, label, sidecars=False)
    assert containers(engine_client, session) == [f"/{name}"]
    remove_labelled(engine_client.api, label)
    assert containers(engine_client, session) == []
