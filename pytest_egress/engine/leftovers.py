"""What a run has on an engine: removed when it ends, or by the next run, if it was killed.

Labels find it, and names tell it: a label is inherited by whatever is committed or built of a container, and by what
runs on that; a name is not, and an engine has each name once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import requests.exceptions
from docker.errors import APIError, DockerException

from pytest_egress.base.clock import wall
from pytest_egress.engine.folder import run_lives

if TYPE_CHECKING:
    from docker import APIClient, DockerClient

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

SESSION_LABEL: Final = "org.pytest-egress.session"
FOLDER_LABEL: Final = "org.pytest-egress.folder"
NAME_LABEL: Final = "org.pytest-egress.name"  # of the container that it was put on
TARGET: Final = "pytest-egress-target-"  # begins the names of targets
KEPT: Final = "pytest-egress-kept-"  # takes its place in those that --egress-keep leaves
FILLED: Final = "pytest-egress/filled"  # the repository of images that a run makes
ENDED: Final = ("exited", "stopped", "dead")  # of a container's states
# What an engine that fails raises: none of it ends a removal that others wait for.
FAILURES: Final = (DockerException, requests.exceptions.RequestException)
ORPHAN_SECONDS: Final = 600  # after which what never had a sidecar belongs to no start
_IDENTIFIER: Final = re.compile("[0-9a-f]{64}")
_OWN_TAG: Final = re.compile(rf"(.+/)?{FILLED}:[^/]+")  # Podman puts a registry before it
_REMAINS: Final = re.compile(f'container from store "({_IDENTIFIER.pattern})": container not known')


def is_ours(container: Mapping[str, Any]) -> bool:
    """Whether a listed container was made by a run: its label tells its very name (`GET /containers/json`).

    One that somebody made of ours, by `docker commit` or a Dockerfile, has inherited the label, and has another name.
    """
    name = (container.get("Labels") or {}).get(NAME_LABEL)
    if not name:
        return False
    names = {each.lstrip("/") for each in container.get("Names") or []}
    return not names.isdisjoint({name, kept_name(name)})


def kept_name(name: str) -> str:
    """The name under which --egress-keep leaves a container of ours."""
    return f"{KEPT}{name.removeprefix(TARGET)}"


def own_tags(image: Mapping[str, Any]) -> list[str]:
    """The names that a run has given to a listed image (`GET /images/json`); others are somebody else's."""
    return [tag for tag in image.get("RepoTags") or [] if _OWN_TAG.fullmatch(tag)]


def labelled(api: APIClient, label: str) -> list[dict[str, Any]]:
    """The containers of runs that have a label, `name` or `name=value`, whatever they do (`GET /containers/json`).

    Podman removes a container in part where another one with its network is created at that moment: its entry has no
    storage any more. It lists none of a label as long as such remains have it, so they are removed first.

    Raises:
        APIError: The engine fails otherwise.
    """
    tried: set[str] = set()
    while True:
        try:
            listed = api.containers(all=True, filters={"label": label})
            return [container for container in listed if is_ours(container)]
        except APIError as error:
            remains = _REMAINS.search(str(error.explanation))
            if remains is None or remains[1] in tried:
                raise
            tried.add(remains[1])
            remove_remains(api, remains[1])


def remove_remains(api: APIClient, container: str) -> None:
    """Remove a container that is there in part, after ours with its network, which the engine's refusal names."""
    try:
        remove_container(api, container)
    except APIError as error:
        users = set(_IDENTIFIER.findall(str(error.explanation))) - {container}
        remove_containers(
            api, [*(user for user in users if is_known_as_ours(api, user)), container]
        )


def is_known_as_ours(api: APIClient, container: str) -> bool:
    """Whether a container, of which only the identifier is known, was made by a run."""
    with suppress(*FAILURES):  # it has gone
        found = api.inspect_container(container)
        return is_ours({"Names": [found["Name"]], "Labels": found["Config"]["Labels"]})
    return False


def remove_container(api: APIClient, container: str) -> None:
    """Remove a container with its anonymous volumes, whatever it does (`DELETE /containers/{id}`).

    Killed first, since Podman would ask it to end, and wait ten seconds.

    Raises:
        APIError: It is gone (404), or its removal is in progress (409), or the engine fails.
    """
    with suppress(APIError):  # it does not run
        api.kill(container)
    api.remove_container(container, force=True, v=True)


def is_gone(error: APIError) -> bool:
    """Whether an error of a removal says that there is nothing to remove, or soon nothing."""
    return error.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


def remove_containers(api: APIClient, containers: Iterable[str]) -> list[str]:
    """Remove what can be removed of these containers: Podman keeps a sidecar as long as its target is there.

    Returns:
        The identifiers of those that are gone, or soon gone.
    """
    gone: list[str] = []
    left, before = list(containers), -1
    while left and len(gone) > before:
        before = len(gone)
        for container in left.copy():
            if is_removed(api, container):
                gone.append(container)
                left.remove(container)
    return gone


def is_removed(api: APIClient, container: str) -> bool:
    """Try to remove a container; whether it is gone, or soon gone, whoever does it."""
    try:
        remove_container(api, container)
    except APIError as error:
        return is_gone(error)
    except FAILURES:
        return False
    return True


def remove_image(api: APIClient, image: Mapping[str, Any]) -> None:
    """Remove an image of ours, where no container uses it; somebody else's name for it stays, and so does it then.

    Its parent may have no name at all, and is the user's (`noprune`).
    """
    for tag in own_tags(image):
        with suppress(*FAILURES):
            api.remove_image(tag, noprune=True)


def remove_labelled(api: APIClient, label: str, kept: Collection[str] = ()) -> None:
    """Remove a run's containers and images, which have a label, `name=value`, but for containers that are kept."""
    listed = [each["Id"] for each in labelled(api, label)]
    remove_containers(api, [each for each in listed if each not in kept])
    for image in api.images(filters={"label": label}):
        remove_image(api, image)


def remove_orphans(client: DockerClient, *, kept: bool = False) -> list[str]:
    """Remove the containers that a run and its watchdog left when both were killed.

    Args:
        kept: Also those that --egress-keep has left.

    Returns:
        The identifiers of what was removed.
    """
    images = client.api.images(filters={"label": SESSION_LABEL})  # before what may still use them
    listed = labelled(client.api, SESSION_LABEL)
    there = {container["Id"] for container in listed if container["State"] not in ENDED}
    orphans = [
        container["Id"] for container in listed if is_orphan(client.api, container, there, kept)
    ]
    removed = remove_containers(client.api, orphans)
    living = {each["Labels"][SESSION_LABEL] for each in listed if each["Id"] not in removed}
    for image in images:
        if is_unused(image.get("Labels") or {}, living):
            remove_image(client.api, image)
    return removed


def is_unused(labels: Mapping[str, str], living: set[str]) -> bool:
    """Whether an image, which has the labels of the container that it was made of, is of a run that is gone.

    Args:
        living: The sessions that have a container: as long as a run uses an image, its sidecar is there.
    """
    if (lives := run_lives(labels.get(FOLDER_LABEL, "/"))) is not None:
        return not lives
    return labels.get(SESSION_LABEL) not in living


def is_orphan(api: APIClient, container: Mapping[str, Any], there: set[str], kept: bool) -> bool:
    """Whether a listed container with our label is of a run that is gone (`GET /containers/json`).

    Args:
        there: The identifiers of all that have our label, but for those that have ended.
        kept: Whether one that was kept is.
    """
    if any(KEPT in name for name in container.get("Names") or []):
        return kept
    if (lives := run_lives(container["Labels"].get(FOLDER_LABEL, "/"))) is not None:
        return not lives
    if (mode := network_mode(api, container)) is None:
        return False
    if mode.startswith("container:"):
        return mode.partition(":")[2] not in there
    # A sidecar, which ends by itself, or what an image is made from, which never runs.
    old: bool = wall() - container["Created"] > ORPHAN_SECONDS
    return container["State"] in ENDED or (old and container["State"] != "running")


def network_mode(api: APIClient, container: Mapping[str, Any]) -> str | None:
    """Whose network a listed container has, which Podman's list does not tell; None where nothing does."""
    told: Mapping[str, Any] = container.get("HostConfig") or {}
    if "NetworkMode" not in told:
        with suppress(*FAILURES):  # somebody else removes it
            told = api.inspect_container(container["Id"])["HostConfig"]
    return told.get("NetworkMode")
