"""Removes the containers, images and volumes that runs leave on an engine.

It is done at a run's end or, if it was killed, by its watchdog or the next run.

Labels find them, and names confirm them. An image that somebody commits or builds from a container of ours inherits its
label, and so do that image's containers. A name is not inherited, and an engine has each name once.
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

SESSION_LABEL: Final = "org.pytest-egress.session"
FOLDER_LABEL: Final = "org.pytest-egress.folder"
NAME_LABEL: Final = "org.pytest-egress.name"  # its value is the name of the container it was put on
OURS: Final = "pytest-egress-"  # begins the names of all containers of ours
TARGET: Final = f"{OURS}target-"  # begins the names of targets
SIDECAR: Final = f"{OURS}sidecar-"  # begins the names of sidecars
KEPT: Final = f"{OURS}kept-"  # begins the names of targets that --egress-keep leaves
FILLED: Final = "pytest-egress/filled"  # the repository of images that a run makes
ENDED: Final = ("exited", "stopped", "dead")  # the states of a container that has ended
# The errors of an engine that fails. None of them may end a removal before the others are removed.
FAILURES: Final = (DockerException, requests.exceptions.RequestException)
ORPHAN_SECONDS: Final = 600  # a start takes less: an older container without a sidecar is left over
_IDENTIFIER: Final = re.compile("[0-9a-f]{64}")
_OWN_TAG: Final = re.compile(rf"(.+/)?{FILLED}:[^/]+")  # Podman puts a registry before it
_REMAINS: Final = re.compile(f'container from store "({_IDENTIFIER.pattern})": container not known')


def is_ours(container: Mapping[str, Any]) -> bool:
    """Whether a listed container (`GET /containers/json`) was made by a run: its label then contains its own name.

    A container whose image somebody made from one of ours, by `docker commit` or a Dockerfile, has the label as well,
    and another name.
    """
    name = (container.get("Labels") or {}).get(NAME_LABEL)
    if not name:
        return False
    names = {each.lstrip("/") for each in container.get("Names") or []}
    return not names.isdisjoint({name, kept_name(name)})


def is_sidecar(container: Mapping[str, Any]) -> bool:
    """Whether a listed container (`GET /containers/json`) of ours is a sidecar."""
    return any(name.lstrip("/").startswith(SIDECAR) for name in container.get("Names") or [])


def kept_name(name: str) -> str:
    return f"{KEPT}{name.removeprefix(TARGET)}"


def own_tags(image: Mapping[str, Any]) -> list[str]:
    """The names that a run has given to a listed image (`GET /images/json`); somebody else gave it the others."""
    return [tag for tag in image.get("RepoTags") or [] if _OWN_TAG.fullmatch(tag)]


def labelled(api: APIClient, label: str) -> list[dict[str, Any]]:
    """List the containers of runs with a label, `name` or `name=value`, in any state (`GET /containers/json`).

    If a container is created while Podman removes the one whose network it shares, Podman removes that one only in
    part: the entry stays, without storage. As long as such remains have a label, Podman cannot list by that label. So
    they are removed first.

    Raises:
        APIError: The engine fails for another reason.
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
    """Remove the remains of a container, after our containers with its network, which the engine's refusal names."""
    try:
        remove_container(api, container)
    except APIError as error:
        users = set(_IDENTIFIER.findall(str(error.explanation))) - {container}
        remove_containers(
            api, [*(user for user in users if is_known_as_ours(api, user)), container]
        )


def is_known_as_ours(api: APIClient, container: str) -> bool:
    with suppress(*FAILURES):  # the container has been removed
        found = api.inspect_container(container)
        return is_ours({"Names": [found["Name"]], "Labels": found["Config"]["Labels"]})
    return False


def remove_container(api: APIClient, container: str, *, kill: bool = True) -> None:
    """Remove a container with its anonymous volumes, in any state (`DELETE /containers/{id}`).

    Args:
        kill: Whether to kill it first. Podman would send SIGTERM and wait ten seconds; Docker kills by itself.

    Raises:
        APIError: It has been removed (404), or is being removed (409), or the engine fails.
    """
    if kill:
        with suppress(APIError):  # the container does not run
            api.kill(container)
    api.remove_container(container, force=True, v=True)


def is_gone(error: APIError) -> bool:
    """Whether an error of a removal means that the container has been removed, or is being removed."""
    return error.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


def remove_containers(api: APIClient, containers: Iterable[str]) -> list[str]:
    """Remove containers, in turns: Podman keeps a sidecar while its target exists. Return those gone, or going."""
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
    """Try to remove a container; return whether it has been removed, or is being removed, by us or another."""
    try:
        remove_container(api, container)
    except APIError as error:
        return is_gone(error)
    except FAILURES:
        return False
    return True


def remove_image(api: APIClient, image: Mapping[str, Any]) -> None:
    """Remove our names of an image, and with the last name the image, if no container uses it.

    If somebody else has named it too, that name and the image stay. Its parent stays as well (`noprune`): it is the
    user's, even if it has no name.
    """
    for tag in own_tags(image):
        with suppress(*FAILURES):
            api.remove_image(tag, noprune=True)


def remove_labelled(
    api: APIClient, label: str, kept: Collection[str] = (), *, sidecars: bool = True
) -> None:
    """Remove a run's containers, images and volumes by their label, `name=value`, except containers that are kept."""
    listed = [each for each in labelled(api, label) if sidecars or not is_sidecar(each)]
    remove_containers(api, [each["Id"] for each in listed if each["Id"] not in kept])
    for image in api.images(filters={"label": label}):
        remove_image(api, image)
    for volume in labelled_volumes(api, label):
        remove_volume(api, volume)


def labelled_volumes(api: APIClient, label: str) -> list[dict[str, Any]]:
    return list(api.volumes(filters={"label": label}).get("Volumes") or ())


def remove_volume(api: APIClient, volume: Mapping[str, Any]) -> None:
    """Remove a listed volume (`GET /volumes`), unless a container uses it."""
    with suppress(*FAILURES):
        api.remove_volume(volume["Name"])


def remove_orphans(client: DockerClient, *, kept: bool = False) -> list[str]:
    """Remove what runs that were killed with their watchdogs have left, with `kept` what --egress-keep has too.

    Returns:
        The containers' identifiers.
    """
    # Images and volumes are listed before containers: what a run makes in between is not taken for unused.
    images = client.api.images(filters={"label": SESSION_LABEL})
    volumes = labelled_volumes(client.api, SESSION_LABEL)
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
    for volume in volumes:
        if is_unused(volume["Labels"], living):
            remove_volume(client.api, volume)
    return removed


def is_unused(labels: Mapping[str, str], living: set[str]) -> bool:
    """Whether an image or a volume belongs to a run that has ended. An image has the labels of its container.

    Args:
        living: The sessions that have a container: a run that uses one has a sidecar.
    """
    if (lives := run_lives(labels.get(FOLDER_LABEL, "/"))) is not None:
        return not lives
    return labels.get(SESSION_LABEL) not in living


def is_orphan(api: APIClient, container: Mapping[str, Any], there: set[str], kept: bool) -> bool:
    """Whether a listed container with our label (`GET /containers/json`) belongs to a run that has ended.

    Args:
        there: The identifiers of all containers with our label that have not ended.
    """
    if any(KEPT in name for name in container.get("Names") or []):
        return kept
    if (lives := run_lives(container["Labels"].get(FOLDER_LABEL, "/"))) is not None:
        return not lives
    if (mode := network_mode(api, container)) is None:
        return False
    if mode.startswith("container:"):
        return mode.partition(":")[2] not in there
    # Here it is a sidecar, which ends by itself, or a container from which an image is made, which never runs.
    old: bool = wall() - container["Created"] > ORPHAN_SECONDS
    return container["State"] in ENDED or (old and container["State"] != "running")


def network_mode(api: APIClient, container: Mapping[str, Any]) -> str | None:
    """Podman lists no network mode and is asked again; None where it does not tell."""
    told: Mapping[str, Any] = container.get("HostConfig") or {}
    if "NetworkMode" not in told:
        with suppress(*FAILURES):  # another process has removed it
            told = api.inspect_container(container["Id"])["HostConfig"]
    return told.get("NetworkMode")
