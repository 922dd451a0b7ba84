"""The few calls we make of a Docker engine, with errors that say what to type. Nothing else talks to docker-py."""

from __future__ import annotations

import fcntl
import functools
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import docker.utils
import requests.exceptions
from docker.errors import APIError, DockerException, ImageNotFound

from pytest_egress.errors import EngineError, ImageError
from pytest_egress.forks import in_children
from pytest_egress.watchdog import Watchdog

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container as DockerContainer
    from docker.models.images import Image

    from pytest_egress.sidecar import LinkKind

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

log = logging.getLogger(__name__)
LINKS: Final = ("auto", "descriptor", "stream")
LINK_VARIABLE: Final = "PYTEST_EGRESS_LINK"
SESSION_LABEL: Final = "org.pytest-egress.session"
FOLDER_LABEL: Final = "org.pytest-egress.folder"
FOLDER_PREFIX: Final = "pytest-egress-"
LOCK_NAME: Final = "lock"
KEPT: Final = "pytest-egress-kept-"  # begins the names of containers that --egress-keep leaves
ORPHAN_SECONDS: Final = (
    600  # after which one that never had a sidecar belongs to no start that goes on
)


class Engine:
    """One Docker engine, contacted when first needed.

    Args:
        client: Makes the client; called once.
        session: Value of the label that every container of this run carries.
        link: One of `LINKS`; what the environment says where it is not given.

    Attributes:
        orphans: The containers of other runs, long gone, that were removed at the first contact.
    """

    def __init__(
        self, client: Callable[[], DockerClient], session: str, link: str | None = None
    ) -> None:
        self._make_client, self._link = client, link
        self.labels: Final = {SESSION_LABEL: session}
        self._label: Final = f"{SESSION_LABEL}={session}"
        self.orphans: list[str] = []
        self._kept: set[str] = set()
        self._watchdog: Watchdog | None = None
        self._lock: int | None = None

    @property
    def link(self) -> LinkKind:
        """How a sidecar's sockets are reached.

        Raises:
            EngineError: `PYTEST_EGRESS_LINK` has another value than "auto", "descriptor" or "stream".
        """
        wanted = self._link or os.environ.get(LINK_VARIABLE) or "auto"
        if wanted not in LINKS:
            raise EngineError(f"{LINK_VARIABLE}={wanted}: it takes {', '.join(LINKS)}")
        return "stream" if wanted == "stream" else "descriptor"

    @property
    def marks(self) -> dict[str, str]:
        """The labels of a container of this run: its own, and the folder by which others see whether it goes on."""
        return {**self.labels, FOLDER_LABEL: self.folder}

    @functools.cached_property
    def folder(self) -> str:
        """A temporary folder of this run; it goes with it, however it ends."""
        folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX)
        self._lock = os.open(f"{folder}/new", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(f"{folder}/new", f"{folder}/{LOCK_NAME}")  # nobody sees it without its lock
        in_children(self, Engine.unlock)
        return folder

    @functools.cached_property
    def client(self) -> DockerClient:
        """The client, once it has had an answer from its engine.

        Raises:
            EngineError: Nothing answers.
        """
        client: DockerClient | None = None
        try:
            client = self._make_client()
            client.ping()
        except (DockerException, requests.exceptions.RequestException) as error:
            address = engine_address(client)
            if client is not None:
                client.close()
            raise EngineError(
                f"no Docker engine answers at {address}: {root_cause(error)}\n"
                "Start one (`systemctl start docker`, Docker Desktop), or name another with "
                "DOCKER_HOST; `docker info` shows whether it answers."
            ) from None
        self._watchdog = Watchdog(self._label, engine_address(client), self.folder)
        self.orphans = remove_orphans(client)
        remove_folders()
        return client

    def image(self, name: str) -> Image:
        """The image, pulled when the engine does not have it.

        Raises:
            ImageError: It is not there and cannot be pulled.
        """
        with suppress(ImageNotFound), engine_errors(f"look up the image {name!r}"):
            return self.client.images.get(name)
        log.info("pulling %s", name)
        repository, tag = split_image(name)
        try:
            for step in self.client.api.pull(repository, tag=tag, stream=True, decode=True):
                log.debug("%s: %s %s", name, step.get("status", ""), step.get("progress", ""))
                if "error" in step:
                    raise APIError(step["error"])
            return self.client.images.get(name)
        except (APIError, requests.exceptions.RequestException) as error:
            raise ImageError(
                f"the image {name!r} is not on the engine and cannot be pulled: "
                f"{explanation(error)}\n"
                "Check the name (`docker images` lists what is there), "
                f"build it (`docker build -t {name} .`), "
                f"or log in to its registry (`{login(name)}`)."
            ) from None

    def create(self, image: Image, name: str, **options: Any) -> DockerContainer:
        """Create a container, labelled as ours (`POST /containers/create`).

        Args:
            image: What it runs.
            name: The image's name, as the test has it.
            options: As docker-py takes them.
        """
        labels = options.pop("labels", None) or {}
        named = labels if isinstance(labels, Mapping) else dict.fromkeys(labels, "")
        options = {"use_config_proxy": False} | options | {"labels": {**named, **self.marks}}
        with engine_errors(f"create a container of {name!r}"):
            return self.client.containers.create(str(image.id), **options)

    def container(self, name: str) -> DockerContainer:
        """A container by its name or id (`GET /containers/{id}/json`).

        Raises:
            EngineError: There is none.
        """
        with engine_errors(f"find the container {name!r}"):
            return self.client.containers.get(name)

    def commit(self, container: DockerContainer) -> Image:
        """An image of what a created container has, with its labels (`POST /commit`)."""
        with engine_errors("make an image of a container"):
            return container.commit()

    def remove_image(self, image: Image) -> None:
        """Remove an image of ours; no error where it is gone already."""
        with engine_errors("remove an image", passing=(APIError,)), suppress(APIError):
            # Its parent may have no other name: that is the user's.
            self.client.images.remove(str(image.id), force=True, noprune=True)

    def stat(self, container: DockerContainer, path: str) -> dict[str, Any] | None:
        """What is at a path of a container, or None (`HEAD /containers/{id}/archive`).

        docker-py's `get_archive` would do, but leaves its connection open where the path is missing.
        """
        api = self.client.api
        url = f"{api.base_url}/v{api.api_version}/containers/{container.id}/archive"
        with engine_errors(f"look at {path!r}"):
            header = api.head(url, params={"path": path}).headers.get(
                "X-Docker-Container-Path-Stat"
            )
        return docker.utils.decode_json_header(header) if header else None

    def remove(self, container: DockerContainer) -> None:
        """Remove a container with its anonymous volumes; no error where it is gone already."""
        try:
            with engine_errors(f"remove the container {container.id}", passing=(APIError,)):
                container.remove(force=True, v=True)
        except APIError as error:
            if error.status_code not in (404, 409):  # gone, or its removal is in progress
                raise EngineError(
                    f"cannot remove the container {container.id}: {explanation(error)}"
                ) from None

    def keep(self, container: DockerContainer) -> None:
        """Leave a container for a look at it, stopped; its sidecar, and so its network, goes."""
        self._kept.add(str(container.id))
        try:
            container.rename(f"{KEPT}{container.name}")
            container.kill()
        except APIError as error:
            if error.status_code not in (404, 409):  # gone, or not running
                raise EngineError(
                    f"cannot stop the container {container.id}: {explanation(error)}"
                ) from None

    def close(self) -> None:
        """Remove what is left of this run, and close the client, where one was made.

        What is left as a rule is nothing: an interrupt may fall between the engine's making of a container and its
        telling us.
        """
        try:
            if "client" in self.__dict__:
                self._remove_all()
        finally:
            if self._watchdog is not None:
                self._watchdog.dismiss()
            if "folder" in self.__dict__:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.unlock()
            for made in ("client", "folder"):  # it may be used again
                self.__dict__.pop(made, None)

    def unlock(self) -> None:
        """Close the lock of the folder; again is harmless."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _remove_all(self) -> None:
        with suppress(DockerException, requests.exceptions.RequestException, EngineError):
            for container in self.client.containers.list(
                all=True, filters={"label": self._label}, sparse=True, ignore_removed=True
            ):
                if container.id not in self._kept:
                    self.remove(container)
            for image in self.client.images.list(filters={"label": self._label}):
                self.remove_image(image)
        self.client.close()


def remove_orphans(client: DockerClient, *, kept: bool = False) -> list[str]:
    """Remove the containers that a run and its watchdog left when both were killed.

    Args:
        kept: Also those that --egress-keep has left.

    Returns:
        The identifiers of what was removed.
    """
    listed = client.api.containers(all=True)
    there = {container["Id"] for container in listed}
    orphans = [container["Id"] for container in listed if is_orphan(container, there, kept)]
    removed = []
    for orphan in orphans:
        with suppress(DockerException):  # somebody else removes it too
            client.api.remove_container(orphan, force=True, v=True)
            removed.append(orphan)
    left = [each for each in listed if each["Id"] not in removed]
    remove_images(client, {(each.get("Labels") or {}).get(SESSION_LABEL) for each in left})
    return removed


def remove_images(client: DockerClient, living: set[str | None]) -> None:
    """Remove the images of runs that are gone.

    Args:
        living: The sessions that have a container: as long as a run uses an image, its sidecar is there.
    """
    for image in client.api.images(filters={"label": SESSION_LABEL}):
        if (image.get("Labels") or {}).get(SESSION_LABEL) not in living:
            with suppress(DockerException):
                client.api.remove_image(image["Id"], force=True, noprune=True)


def remove_folders() -> None:
    """Remove the temporary folders of runs that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        if run_lives(folder) is False:
            shutil.rmtree(folder, ignore_errors=True)


def run_lives(folder: str | Path) -> bool | None:
    """Whether the run goes on that has this temporary folder: it holds the lock in it (flock(2)).

    Returns:
        None where it is not to be seen from here: the folder is another machine's, or has been removed.
    """
    try:
        lock = os.open(Path(folder, LOCK_NAME), os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


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
    mode = str(container["HostConfig"]["NetworkMode"])
    if mode.startswith("container:"):
        return mode.partition(":")[2] not in there
    # A sidecar, or what an image is made from: those that run end by themselves.
    old: bool = time.time() - container["Created"] > ORPHAN_SECONDS  # noqa: TID251 - the engine's clock
    return old and container["State"] != "running"


class engine_errors:  # used as a statement; a generator's frames would show in tracebacks
    """Turn what docker-py raises into an `EngineError` that names the action and quotes the engine's own sentence.

    Args:
        action: What the engine was asked to do: "start it".
        passing: Exceptions that come through as they are.
    """

    def __init__(self, action: str, *, passing: tuple[type[Exception], ...] = ()) -> None:
        self.action = action
        self.passing: tuple[type[Exception], ...] = (ImageNotFound, *passing)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, self.passing):
            return
        if isinstance(error, APIError):
            raise EngineError(f"the engine did not {self.action}: {explanation(error)}") from None
        if isinstance(error, requests.exceptions.RequestException):
            where = engine_address()
            raise EngineError(
                f"the engine at {where} did not {self.action}: {root_cause(error)}"
            ) from None


def explanation(error: Exception) -> str:
    """The engine's own sentence."""
    return str(getattr(error, "explanation", None) or error)


def root_cause(error: BaseException) -> BaseException:
    """The first of a chain of exceptions: docker-py and requests wrap the one that says something."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


def engine_address(client: DockerClient | None = None) -> str:
    """What docker-py connects to.

    Args:
        client: One that was made; without it, what the environment names.
    """
    if client is None:
        return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    path = getattr(getattr(client.api, "_custom_adapter", None), "socket_path", None)
    return f"unix://{path}" if path else str(client.api.base_url)  # docker-py hides the path


def login(image: str) -> str:
    """What to type to log in to an image's registry."""
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
