"""What a user made of a run's containers is the user's, whatever labels it inherits: nothing of ours removes it."""

from __future__ import annotations

import io
import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from pytest_egress import Egress, cli
from pytest_egress.engine.folder import LOCK_NAME
from pytest_egress.engine.leftovers import (
    FOLDER_LABEL,
    NAME_LABEL,
    SESSION_LABEL,
    TARGET,
    labelled,
    own_tags,
    remove_orphans,
)
from tests.support.killed_runs import READ_ONLY, KilledRun
from tests.support.leftovers import until

SLEEP = ["sleep", "600"]


def ours(client: docker.DockerClient, session: str) -> list[str]:
    """What is there of a run: containers and images that it named itself."""
    label = f"{SESSION_LABEL}={session}"
    images = client.api.images(filters={"label": label})
    there = [name for container in labelled(client.api, label) for name in container["Names"]]
    return there + [tag for image in images for tag in own_tags(image)]


def target_of(client: docker.DockerClient, session: str) -> Container:
    (found,) = (
        each["Id"]
        for each in labelled(client.api, f"{SESSION_LABEL}={session}")
        if any(TARGET in name for name in each["Names"])
    )
    return client.containers.get(found)


class Users:
    """What a user has made of a target, which has the labels of its run.

    Args:
        client: The engine.
        session: The target's run.
    """

    def __init__(self, client: docker.DockerClient, session: str) -> None:
        self.client = client
        self.containers: list[Container] = []
        self.names: list[str] = []
        self.target = target_of(client, session)

    def make(self) -> None:
        """Make each thing that inherits labels."""
        repository, tag = f"users-{uuid.uuid4().hex[:12]}", "latest"
        committed = self.target.commit(repository=repository, tag=tag)
        self.names.append(f"{repository}:{tag}")
        self.run(committed.id)
        self.names.append(str(self.target.commit().id))  # it has no name
        built = f"{repository}-built:latest"
        file = io.BytesIO(f"FROM {repository}:{tag}\nENV MORE=1\n".encode())
        self.client.images.build(fileobj=file, tag=built, rm=True)
        self.names.append(built)
        self.run(built)

    def adopt_image(self) -> None:
        """Give the image that a read-only target runs on another name, and run it."""
        repository = f"users-{uuid.uuid4().hex[:12]}"
        assert self.target.image is not None
        self.target.image.tag(repository, "latest")
        self.names.append(f"{repository}:latest")
        self.run(f"{repository}:latest")

    def run(self, image: str | None) -> None:
        made = self.client.containers.run(str(image), SLEEP, network_mode="none", detach=True)
        assert made.labels[SESSION_LABEL] == self.target.labels[SESSION_LABEL]
        self.containers.append(made)

    def gone(self) -> list[str]:
        """What is no longer there, or no longer runs."""
        missing = []
        for container in self.containers:
            try:
                container.reload()
                missing += [] if container.status == "running" else [f"{container.name} has ended"]
            except docker.errors.NotFound:
                missing.append(f"container {container.name}")
        for name in self.names:
            try:
                self.client.images.get(name)
            except docker.errors.ImageNotFound:
                missing.append(f"image {name}")
        return missing

    def close(self) -> None:
        for container in self.containers:
            container.remove(force=True)
        for name in reversed(self.names):
            self.client.images.remove(name, force=True)


@pytest.fixture
def living(bare_image: str) -> Iterator[KilledRun]:
    """A run with a target that is up."""
    run = KilledRun(READ_ONLY.format(image=bare_image))
    assert run.line() == "up"
    yield run
    run.close()


@pytest.fixture
def users(living: KilledRun, engine_client: docker.DockerClient) -> Iterator[Users]:
    """What a user made of it."""
    users = Users(engine_client, living.session)
    try:
        users.make()
        users.adopt_image()
        yield users
    finally:
        users.close()


def by_the_watchdog(run: KilledRun) -> None:
    run.kill()


def by_the_next_run(run: KilledRun) -> None:
    os.kill(run.watchdog, signal.SIGKILL)
    run.kill()
    with Egress() as egress:
        egress._inner.session.engine.client.ping()


def by_clean(run: KilledRun) -> None:
    os.kill(run.watchdog, signal.SIGKILL)
    run.kill()
    assert cli.main(["clean"]) == 0


@pytest.mark.parametrize("removed", [by_the_watchdog, by_the_next_run, by_clean])
def test_what_is_made_of_a_target_outlives_the_killed_run(
    living: KilledRun,
    users: Users,
    engine_client: docker.DockerClient,
    removed: Callable[[KilledRun], None],
) -> None:
    assert len(ours(engine_client, living.session)) == 3  # sidecar, target, its image
    removed(living)
    assert until(lambda: not ours(engine_client, living.session)), ours(
        engine_client, living.session
    )
    assert users.gone() == []


def test_what_is_made_of_a_target_outlives_a_run_that_ends_well(
    engine_client: docker.DockerClient, bare_image: str
) -> None:
    with Egress() as egress:
        egress.start(bare_image, SLEEP, read_only=True)
        session = egress._inner.session.engine.labels[SESSION_LABEL]
        users = Users(engine_client, session)
        users.make()
        users.adopt_image()
    try:
        assert until(lambda: not ours(engine_client, session)), ours(engine_client, session)
        assert users.gone() == []
    finally:
        users.close()


def test_what_is_made_of_a_target_outlives_a_run_on_another_machine(
    living: KilledRun, users: Users, engine_client: docker.DockerClient
) -> None:
    os.kill(living.watchdog, signal.SIGKILL)
    living.kill()
    shutil.rmtree(living.folder)  # what a run elsewhere looks like from here

    def swept() -> bool:
        remove_orphans(engine_client)
        return not ours(engine_client, living.session)

    assert until(swept)  # once the sidecar has ended
    assert users.gone() == []


def test_a_target_whose_image_a_user_made_of_another_is_ours_again(
    engine_client: docker.DockerClient, bare_image: str
) -> None:
    with Egress() as egress:
        first = egress.start(bare_image, SLEEP)
        engine = egress._inner.session.engine
        name = f"users-{uuid.uuid4().hex[:12]}"
        image = engine.container(first.id).commit(repository=name, tag="latest")
        try:
            egress.start(f"{name}:latest", SLEEP)
            session = engine.labels[SESSION_LABEL]
            assert len(ours(engine_client, session)) == 4
            egress.close()
            egress._inner.session.sidecars.close()  # they wait for other targets
            assert until(lambda: not ours(engine_client, session))
            assert engine_client.images.get(f"{name}:latest").id == image.id
        finally:
            engine_client.images.remove(f"{name}:latest", force=True)


def test_an_image_of_ours_that_a_users_container_runs_on_stays(
    engine_client: docker.DockerClient, bare_image: str
) -> None:
    with Egress() as egress:
        target = egress.start(bare_image, SLEEP, read_only=True)
        image = engine_client.containers.get(target.id).image
        assert image is not None
        used = engine_client.containers.run(str(image.id), SLEEP, network_mode="none", detach=True)
    try:
        used.reload()
        assert used.status == "running"
        assert engine_client.images.get(str(image.id)).tags
    finally:
        used.remove(force=True)
    remove_orphans(engine_client)
    with pytest.raises(docker.errors.ImageNotFound):
        engine_client.images.get(str(image.id))


def test_a_label_of_a_dead_run_alone_makes_nothing_ours(
    engine_client: docker.DockerClient, bare_image: str, tmp_path: Path
) -> None:
    (tmp_path / LOCK_NAME).touch()  # and nobody holds it
    labels = {
        SESSION_LABEL: uuid.uuid4().hex,
        FOLDER_LABEL: str(tmp_path),
        NAME_LABEL: f"{TARGET}gone",
    }
    users = engine_client.containers.create(bare_image, network_mode="none", labels=labels)
    try:
        assert users.id not in remove_orphans(engine_client)
        users.reload()
    finally:
        users.remove(force=True)
