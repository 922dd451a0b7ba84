"""Finds images by name, and pulls those that the engine does not have."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import requests.exceptions
from docker.errors import APIError, DockerException, ImageNotFound

from pytest_egress.base.clock import monotonic
from pytest_egress.engine.endpoint import engine_address
from pytest_egress.engine.failures import engine_errors, explanation
from pytest_egress.engine.progress import Progress, Step
from pytest_egress.errors import ImageError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

log = logging.getLogger("pytest_egress.images")  # as in the logs of its users from the start
WITHOUT_CREDENTIALS: Final = (
    "pulling %s without credentials, which ~/.docker/config.json has a program keep: %s"
)
PROGRESS_SECONDS: Final = 2.0  # between two lines of a pull


def find_image(client: DockerClient, name: str, progress: Progress) -> Image:
    """Find an image by name, or pull it (`POST /images/create`); ImageError where the engine cannot."""
    with suppress(ImageNotFound), engine_errors(f"look up the image {name!r}"):
        return client.images.get(name)
    try:
        with progress.step(f"pulling {name}") as step:
            pull(client, name, step)
        return client.images.get(name)
    except requests.exceptions.RequestException as error:  # APIError is one
        raise ImageError(
            f"the image {name!r} is not on the engine at {engine_address(client)} and cannot be pulled: "
            f"{explanation(error)}\n"
            f"Check the name (`docker images` lists what is there), build it (`docker build -t {name} .`), "
            f"or log in to its registry (`{login(name)}`)."
        ) from None


def pull(client: DockerClient, name: str, told: Step) -> None:
    """Report the pull's progress to the log and in a step's text; APIError where the engine cannot pull."""
    repository, tag = split_image(name)
    progress = PullProgress(name)
    for step in steps_of_pull(client, repository, tag):
        if "error" in step:
            raise APIError(step["error"])
        told.text = progress.take_step(step)


def steps_of_pull(client: DockerClient, repository: str, tag: str | None) -> Any:
    """Without credentials where the program that keeps them is not to be had: a public image takes none.

    `docker-credential-desktop`, which Docker Desktop configures, is not in the PATH of an IDE that was started from the
    Dock.
    """
    try:
        return client.api.pull(repository, tag=tag, stream=True, decode=True)
    except APIError:
        raise
    except (DockerException, UserWarning) as error:  # the program is missing, or fails
        log.warning(WITHOUT_CREDENTIALS, repository, error)
        return client.api.pull(repository, tag=tag, stream=True, decode=True, auth_config={})


class PullProgress:
    """Logs the progress of a pull (`POST /images/create`), when the download begins and then every few seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._layers: dict[str, tuple[int, int]] = {}  # bytes that have come, and in all
        self._next = 0.0
        self._text = f"pulling {name}"
        log.info("%s", self._text)

    def take_step(self, step: Mapping[str, Any]) -> str:
        detail = step.get("progressDetail") or {}
        if step.get("status") == "Downloading" and "total" in detail:
            self._layers[step["id"]] = detail["current"], detail["total"]
        elif step.get("id") in self._layers and step.get("status") == "Download complete":
            _, total = self._layers[step["id"]]
            self._layers[step["id"]] = total, total
        else:
            return self._text
        come, whole = (sum(numbers) / 1e6 for numbers in zip(*self._layers.values(), strict=True))
        self._text = f"pulling {self._name}: {come:.1f} of {whole:.1f} MB"
        if monotonic() >= self._next:
            self._next = monotonic() + PROGRESS_SECONDS
            log.info("%s", self._text)
        return self._text


def login(image: str) -> str:
    registry = image.partition("/")[0]
    named = "/" in image and ("." in registry or ":" in registry)
    return f"docker login {registry}" if named else "docker login"


def split_image(name: str) -> tuple[str, str | None]:
    """Repository and tag (or digest) as the pull endpoint takes them; the tag is `latest` where none is written."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    repository, _, tag = name.rpartition(":")
    return (repository, tag) if repository and "/" not in tag else (name, "latest")
