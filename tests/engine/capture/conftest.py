"""A captured namespace with a target in it, for each module."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest

from pytest_egress.targets.sidecars.sidecar import AnyLink
from tests.support.target_shell import LINK, Target, captured_namespace, packets, target_in


@pytest.fixture(scope="module")
def namespace(
    engine_client: docker.DockerClient, clients_image: str
) -> Iterator[tuple[AnyLink, Target]]:
    with (
        captured_namespace(engine_client, LINK) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image) as target,
    ):
        yield link, target


@pytest.fixture(scope="module")
def link(namespace: tuple[AnyLink, Target]) -> AnyLink:
    return namespace[0]


@pytest.fixture
def target(namespace: tuple[AnyLink, Target]) -> Target:
    link, target = namespace
    while packets(link):  # what an earlier test left
        pass
    return target
