"""What a run leaves on an engine when it and its watchdog are killed: told by labels, removed by the next run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from docker.errors import APIError, DockerException

from pytest_egress.clock import wall
from pytest_egress.folder import run_lives

if TYPE_CHECKING:
    from docker import APIClient, DockerClient

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

SESSION_LABEL: Final = "org.pytest-egress.session"
FOLDER_LABEL: Final = "org.pytest-egress.folder"
KEPT: Final = "pytest-egress-kept-"  # begins the names of containers that --egress-keep leaves
ORPHAN_SECONDS: Final = 600  # after which what never had a sidecar belongs to no start


def remove_container(api: APIClient, container: str) -> None:
    """Remove a container with its anonymous volumes, whatever it does (`DELETE /containers/{id}`).

    Killed first, since Podman would ask it to end, and wait ten seconds.

    Raises:
        APIError: It is gone, or its removal is in progress (404, 409), or the engine fails.
    """
    with suppress(APIError):  # it does not run
        api.kill(container)
    api.remove_container(container, force=True, v=True)


def remove_containers(api: APIClient, containers: Iterable[str]) -> list[str]:
    """Remove what can be removed of these containers: Podman keeps a sidecar as long as its target is there.

    Returns:
        The identifiers of those that were.
    """
    removed: list[str] = []
    left, before = list(containers), -1
    while left and len(removed) > before:
        before = len(removed)
        for container in left.copy():
            with suppress(DockerException):  # somebody else removes it too, or it has to wait
                remove_container(api, container)
                removed.append(container)
                left.remove(container)
    return removed


def remove_orphans(client: DockerClient, *, kept: bool = False) -> list[str]:
    """Remove the containers that a run and its watchdog left when both were killed.

    Args:
        kept: Also those that --egress-keep has left.

    Returns:
        The identifiers of what was removed.
    """
    images = client.api.images(filters={"label": SESSION_LABEL})  # before what may still use them
    listed = client.api.containers(all=True)
    there = {container["Id"] for container in listed}
    orphans = [container["Id"] for container in listed if is_orphan(container, there, kept)]
    removed = remove_containers(client.api, orphans)
    left = [each for each in listed if each["Id"] not in removed]
    living = {(each.get("Labels") or {}).get(SESSION_LABEL) for each in left}
    for image in images:
        if is_unused(image.get("Labels") or {}, living):
            with suppress(DockerException):
                client.api.remove_image(image["Id"], force=True, noprune=True)
    return removed


def is_unused(labels: Mapping[str, str], living: set[str | None]) -> bool:
    """Whether an image, which has the labels of the container that it was made of, is of a run that is gone.

    Args:
        living: The sessions that have a container: as long as a run uses an image, its sidecar is there.
    """
    if (lives := run_lives(labels.get(FOLDER_LABEL, "/"))) is not None:
        return not lives
    return labels.get(SESSION_LABEL) not in living


def is_orphan(container: Mapping[str, Any], there: set[str], kept: bool) -> bool:
    """Whether a listed container is of a run that is gone (`GET /containers/json`).

    Args:
        there: The identifiers of all containers.
        kept: Whether one that was kept is.
    """
    names, labels = container.get("Names") or [], container.get("Labels") or {}
    if SESSION_LABEL not in labels:
        return False
    if any(KEPT in name for name in names):
        return kept
    if (lives := run_lives(labels.get(FOLDER_LABEL, "/"))) is not None:
        return not lives
    mode = str((container.get("HostConfig") or {}).get("NetworkMode"))  # Podman does not tell
    if mode.startswith("container:"):
        return mode.partition(":")[2] not in there
    # A sidecar, or what an image is made from: those that run end by themselves.
    old: bool = wall() - container["Created"] > ORPHAN_SECONDS
    return old and container["State"] != "running"
