"""The few calls we make of a Docker engine, with errors that say what to type."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import docker.utils
import requests.exceptions
from docker.errors import APIError, DockerException, create_api_error_from_http_exception

from pytest_egress.base.once import once_property
from pytest_egress.engine.archive import Member, read_folder
from pytest_egress.engine.endpoint import PODMAN, connection_of, describe, engine_address, identify
from pytest_egress.engine.failures import (
    FORBIDS,
    check_allowed,
    engine_errors,
    explanation,
    root_cause,
)
from pytest_egress.engine.folder import RunFolder, remove_folders
from pytest_egress.engine.images import find_image
from pytest_egress.engine.leftovers import (
    FAILURES,
    FILLED,
    FOLDER_LABEL,
    NAME_LABEL,
    SESSION_LABEL,
    TARGET,
    is_gone,
    kept_name,
    remove_container,
    remove_image,
    remove_labelled,
    remove_orphans,
)
from pytest_egress.engine.progress import Progress
from pytest_egress.engine.watchdog import Watchdog
from pytest_egress.errors import EngineError
from pytest_egress.link.attach import output_of

if TYPE_CHECKING:
    import requests
    from docker import DockerClient
    from docker.models.containers import Container as DockerContainer
    from docker.models.images import Image

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

log = logging.getLogger("pytest_egress.engine")  # as in the logs of its users from the start
SEPARATE_RUNTIMES: Final = ("runsc", "gvisor", "kata")
# What the engine says of a path that nothing can be at: errno(3), and links without an end.
UNREACHABLE: Final = (
    "not a directory",
    "too many links",
    "too many levels of symbolic links",
    "file name too long",
)
UNWATCHED: Final = "Had this run been killed, its containers would have stayed until the next one."
CHUNK_BYTES: Final = 1 << 14  # read while the engine makes the next ones


class Engine:
    """One Docker engine, contacted when first needed.

    Args:
        client: Makes the client; called once.
        session: Value of the label that every container of this run carries.
        address: Where it is, as DOCKER_HOST has it; what the environment says where it is not given.

    Attributes:
        orphans: The containers of other runs, long gone, that were removed at the first contact.
        notes: What a user should know and no test fails by, as sentences.
    """

    def __init__(
        self,
        client: Callable[[], DockerClient],
        session: str,
        address: str | None = None,
    ) -> None:
        self._make_client, self._address = client, address
        self.labels: Final = {SESSION_LABEL: session}
        self._label: Final = f"{SESSION_LABEL}={session}"
        self.progress: Final = Progress()
        self.orphans: list[str] = []
        self.notes: list[str] = []
        self._kept: set[str] = set()
        self._name = ""
        self._watchdog: Watchdog | None = None
        self._owner: Final = os.getpid()

    @property
    def inherited(self) -> bool:
        """Whether this process is a forked child of the one whose run it is: nothing of it is the child's to end."""
        return os.getpid() != self._owner

    def check_owner(self) -> None:
        """Refuse to act for a forked child.

        Raises:
            EngineError: This is one.
        """
        if self.inherited:
            raise EngineError(
                f"process {os.getpid()} is a fork of {self._owner}, to which this run's containers belong: "
                "start them there, and end the child with os._exit()"
            )

    @property
    def marks(self) -> dict[str, str]:
        """The labels of a container of this run: its own, and the folder by which others see whether it goes on."""
        return {**self.labels, FOLDER_LABEL: self.folder}

    @once_property
    def _folder(self) -> RunFolder:
        return RunFolder()

    @property
    def folder(self) -> str:
        """A temporary folder of this run; it goes with it, however it ends."""
        return self._folder.path

    @once_property
    def client(self) -> DockerClient:
        """The client, once it has had an answer from its engine.

        Raises:
            EngineError: Nothing answers.
        """
        client, self._name = contact(self._make_client, self._address)
        try:
            self._watchdog = Watchdog(self._label, describe(client), self.folder)
        except OSError as error:  # no process is to be had
            self._tell(f"there is no watchdog: {error}. {UNWATCHED}")
        with suppress(*FAILURES):  # this run can do without
            self.orphans = remove_orphans(client)
        for failure in remove_folders():
            self._tell(f"the watchdog of a run that was killed has failed: {failure}")
        return client

    def _tell(self, text: str) -> None:
        """Say once what fails no test."""
        self.notes.append(text)
        log.warning(text)

    @property
    def name(self) -> str:
        """What was contacted; "" where nothing was."""
        return self._name

    @property
    def is_podman(self) -> bool:
        """Whether the engine that was contacted is Podman."""
        return self._name.startswith(PODMAN)

    def image(self, name: str) -> Image:
        """The image, pulled when the engine does not have it.

        Raises:
            ImageError: It is not there and cannot be pulled.
        """
        return find_image(self.client, name, self.progress)

    def history(self, image: Image) -> list[str]:
        """The instructions that an image was built by, the last first (`GET /images/{id}/history`)."""
        with engine_errors(f"read the history of the image {image.id}"):
            return [str(step.get("CreatedBy") or "") for step in image.history()]

    def create(self, image: Image, name: str, **options: Any) -> DockerContainer:
        """Create a container, named and labelled as ours (`POST /containers/create`).

        Args:
            image: What it runs.
            name: The image's name, as the test has it.
            options: As docker-py takes them.
        """
        labels = options.pop("labels", None) or {}
        named = labels if isinstance(labels, Mapping) else dict.fromkeys(labels, "")
        own_name = f"{TARGET}{secrets.token_hex(6)}"
        marks = {**named, **self.marks, NAME_LABEL: own_name}
        options = {"use_config_proxy": False} | options | {"name": own_name, "labels": marks}
        with engine_errors(f"create a container of {name!r}"):
            container = self.client.containers.create(str(image.id), **options)
        try:
            check_runtime(container)
        except EngineError:
            self.remove(container)
            raise
        return container

    def container(self, name: str) -> DockerContainer:
        """A container by its name or id (`GET /containers/{id}/json`).

        Raises:
            EngineError: There is none.
        """
        with engine_errors(f"find the container {name!r}"):
            return self.client.containers.get(name)

    def exec(
        self,
        container: DockerContainer,
        command: Sequence[str] | str,
        options: Mapping[str, Any],
        name: str,
    ) -> tuple[int, bytes, bytes]:
        """Run a command in a container: its exit code, and what it wrote to its two streams.

        Args:
            options: As docker-py's `exec_create` takes them.
            name: The container's, for errors.
        """
        action = f"run {command!r} in {name}"
        try:
            with engine_errors(action):
                return run_command(self.client.api, str(container.id), command, **options)
        except OSError as error:
            raise EngineError(f"the engine did not {action}: {error}") from None

    def commit(self, container: DockerContainer) -> Image:
        """An image of what a created container has, with its labels and a name of ours (`POST /commit`)."""
        with engine_errors("make an image of a container"):
            return container.commit(repository=FILLED, tag=secrets.token_hex(6))

    def remove_image(self, image: Image) -> None:
        """Remove an image of ours; one that a kept container uses goes after it, by a later run."""
        remove_image(self.client.api, image.attrs)

    def stat(self, container: DockerContainer, path: str) -> dict[str, Any] | None:
        """What is at a path of a container, or None (`HEAD /containers/{id}/archive`).

        docker-py's `get_archive` would do, but leaves its connection open where the path is missing.
        """
        with engine_errors(f"look at {path!r}"):
            answer = self.client.api.head(self._archive_url(container), params={"path": path})
            if answer.ok or answer.status_code == HTTPStatus.NOT_FOUND:
                return stat_of(answer, path)
        return self.members(container, path, 0)[0]  # no answer to HEAD says why

    def members(
        self, container: DockerContainer, path: str, limit: int
    ) -> tuple[dict[str, Any] | None, dict[str, Member] | None]:
        """What `stat` says of a path, and all that is below it, if it is a folder (`GET /containers/{id}/archive`).

        Args:
            limit: The bytes of the archive that are read at most; of a larger one nothing is known.
        """
        with (
            engine_errors(f"read {path!r}"),
            self.client.api.get(
                self._archive_url(container),
                params={"path": path},
                headers={"Accept-Encoding": "identity"},  # compressing takes longer than all else
                stream=True,
            ) as answer,
        ):
            if not answer.ok:
                check_missing(answer)
                return stat_of(answer, path), None
            return stat_of(answer, path), read_folder(answer.iter_content(CHUNK_BYTES), limit)

    def _archive_url(self, container: DockerContainer) -> str:
        api = self.client.api
        return f"{api.base_url}/v{api.api_version}/containers/{container.id}/archive"

    def remove(self, container: DockerContainer) -> None:
        """Remove a container with its anonymous volumes; no error where it is gone already."""
        try:
            with engine_errors(f"remove the container {container.id}", passing=(APIError,)):
                remove_container(self.client.api, str(container.id))
        except APIError as error:
            if not is_gone(error):
                raise EngineError(
                    f"cannot remove the container {container.id}: {explanation(error)}"
                ) from None

    def keep(self, container: DockerContainer) -> None:
        """Leave a container for a look at it, stopped; its network goes with its sidecar."""
        self._kept.add(str(container.id))
        try:
            container.rename(kept_name(str(container.name)))
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
            if self._watchdog is not None and (failure := self._watchdog.dismiss()):
                self._tell(f"{failure}. {UNWATCHED}")
            if "_folder" in self.__dict__:
                self._folder.remove()
            for made in ("client", "_folder"):  # it may be used again
                self.__dict__.pop(made, None)

    def _remove_all(self) -> None:
        with suppress(*FAILURES, EngineError):
            remove_labelled(self.client.api, self._label, self._kept)
        self.client.close()


START: Final = "Start one (`systemctl start docker`, Docker Desktop)"
JOIN: Final = (
    "This user may not connect to it: join the group that its socket belongs to "
    "(`sudo usermod --append --groups docker $USER`, and log in again)"
)


def contact(
    make_client: Callable[[], DockerClient], address: str | None = None
) -> tuple[DockerClient, str]:
    """The client of an engine that has answered, and what it is.

    Args:
        address: Where it is, if a setting says so.

    Raises:
        EngineError: Nothing answers.
    """
    client: DockerClient | None = None
    try:
        client = make_client()
        kind, version, system = identify(client)
    except (DockerException, requests.exceptions.RequestException, *FORBIDS) as error:
        where = (client is None and address) or engine_address(client)
        if client is not None:
            client.close()
        check_allowed(error, where)
        if isinstance(error, FORBIDS):
            raise
        cause = root_cause(error)
        is_forbidden = isinstance(cause, PermissionError)
        raise EngineError(
            f"no Docker engine answers at {where}: {cause}\n{JOIN if is_forbidden else START}, or name another with "
            f"{'egress_engines' if address else 'DOCKER_HOST'}; `docker info` shows whether it answers."
        ) from None
    if system != "linux":
        client.close()
        raise EngineError(
            f"the engine at {engine_address(client)} runs containers of {system}: what captures is "
            "Linux's own. Switch it to Linux containers."
        )
    return client, f"{kind} {version} at {engine_address(client)}"


def run_command(
    api: docker.APIClient, container: str, command: Sequence[str] | str, **options: Any
) -> tuple[int, bytes, bytes]:
    """Run a command in a container: its exit code, and what it wrote to its two streams.

    By a connection of our own: docker-py's loses what it has read ahead with the headers.

    Args:
        options: As docker-py's `exec_create` takes them.
    """
    made = api.exec_create(container, command, **options)["Id"]
    with connection_of(api) as sock:
        stdout, stderr = output_of(sock, f"/v{api.api_version}/exec/{made}/start")
    return api.exec_inspect(made)["ExitCode"] or 0, stdout, stderr


def check_runtime(container: DockerContainer) -> None:
    """Refuse a container whose runtime gives it a network stack of its own, which no sidecar shares.

    Raises:
        EngineError: It is gVisor's or Kata's (google/gvisor#7168).
    """
    runtime = container.attrs.get("HostConfig", {}).get("Runtime") or ""
    if any(word in runtime.lower() for word in SEPARATE_RUNTIMES):
        raise EngineError(
            f"the runtime {runtime!r} is refused: it gives each container a network stack of its own, so that a "
            'sidecar cannot see what another one sends. Test the image with runtime="runc".'
        )


def check_missing(answer: requests.Response) -> None:
    """See to it that an answer about a path says that nothing can be there, and read it to its end.

    Raises:
        APIError: It says that the engine failed: whatever is there must not be taken for missing.
    """
    said = answer.text  # read, a connection serves the next call too
    if answer.status_code != HTTPStatus.NOT_FOUND and not any(each in said for each in UNREACHABLE):
        try:
            answer.raise_for_status()
        except requests.exceptions.HTTPError as error:
            create_api_error_from_http_exception(error)


def stat_of(answer: requests.Response, path: str) -> dict[str, Any] | None:
    """What an answer about a path says; None where nothing is there."""
    header = answer.headers.get("X-Docker-Container-Path-Stat")
    stat = docker.utils.decode_json_header(header) if header else None
    if stat and stat.get("linkTarget") == path:  # Podman says so of what is no link
        del stat["linkTarget"]
    return stat
