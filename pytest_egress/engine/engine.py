"""`Engine`: the calls that the package makes of a container engine, with errors that say what to type."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import docker.utils
import requests.exceptions
from docker.errors import APIError, DockerException, create_api_error_from_http_exception

import pytest_egress.engine.leftovers as leftovers
from pytest_egress.base.once import once_property
from pytest_egress.base.sockets import descriptor_limit
from pytest_egress.engine.archive import CutArchiveError, File, Member, read_file, read_folder
from pytest_egress.engine.copier import again
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
from pytest_egress.engine.progress import Progress
from pytest_egress.engine.watchdog import Watchdog
from pytest_egress.errors import EngineError
from pytest_egress.link.attach import READ_BYTES, Output, OutputError, read_output

if TYPE_CHECKING:
    import requests
    from docker import DockerClient
    from docker.models.containers import Container as DockerContainer
    from docker.models.images import Image

log = logging.getLogger("pytest_egress.engine")  # users filter logs by this name
SEPARATE_RUNTIMES: Final = ("runsc", "gvisor", "kata")
# The engine's messages about a path at which nothing can be: errno(3), and links without an end.
UNREACHABLE: Final = (
    "not a directory",
    "too many links",
    "too many levels of symbolic links",
    "file name too long",
)
UNWATCHED: Final = "Had this run been killed, its containers would have stayed until the next one."
WRITE_LESS: Final = "That is not kept: have it write less, or into a file."
MIN_DESCRIPTORS: Final = 128  # pytest's, the engine's client's, a namespace's, some connections
CHUNK_BYTES: Final = 1 << 14  # to read while the engine makes the next chunk

RUNC_WAS_LOST: Final = "waiting for init preliminary setup: read init-p"
"""runc's message where its own process ended before it had a container's namespaces, so that nothing of the image ran.

It came in two of some ten thousand starts, all on a busy machine.
"""


class Feed(Protocol):
    """Takes the bytes of a log, such as `link.attach.Output`."""

    def feed(self, chunk: bytes) -> object: ...


Fed = TypeVar("Fed", bound=Feed)


class Engine:
    """One container engine, contacted when it is first needed.

    Args:
        client: Makes the client; called once.
        session: The value of the label that every container of this run has.
        address: The engine's address, as in DOCKER_HOST; None for the one that the environment names.

    Attributes:
        name: The name and version of the engine that was contacted; "" where none was.
        orphans: The containers of earlier runs that were removed at the first contact.
        notes: Sentences for the user about problems that fail no test.
    """

    def __init__(
        self, client: Callable[[], DockerClient], session: str, address: str | None = None
    ) -> None:
        self._make_client, self._address = client, address
        self.labels: Final = {leftovers.SESSION_LABEL: session}
        self._label: Final = f"{leftovers.SESSION_LABEL}={session}"
        self.progress: Final = Progress()
        self.orphans: list[str] = []
        self.notes: list[str] = []
        self._kept: set[str] = set()
        self.name = ""
        self._watchdog: Watchdog | None = None
        self._owner: Final = os.getpid()

    @property
    def inherited(self) -> bool:
        """Whether this process is a forked child of the run's own, and so must not end anything of the run."""
        return os.getpid() != self._owner

    def check_owner(self) -> None:
        """Raise EngineError in a forked child, which must not start containers."""
        if self.inherited:
            raise EngineError(
                f"process {os.getpid()} is a fork of {self._owner}, to which this run's containers belong: "
                "start them there, and end the child with os._exit()"
            )

    @property
    def marks(self) -> dict[str, str]:
        """The labels of a container of this run, with the folder by which other runs see whether this one goes on."""
        return {**self.labels, leftovers.FOLDER_LABEL: self.folder}

    @once_property
    def _folder(self) -> RunFolder:
        return RunFolder()

    @property
    def folder(self) -> str:
        """The folder is removed however the run ends."""
        return self._folder.path

    @once_property
    def client(self) -> DockerClient:
        """The client, with the watchdog started and orphans removed.

        Raises:
            EngineError: No engine answers; or this process may have too few descriptors.
        """
        check_descriptors()
        client, self.name = contact(self._make_client, self._address)
        try:
            self._watchdog = Watchdog(self._label, describe(client), self.folder)
        except OSError as error:  # no process can be started
            self._tell(f"there is no watchdog: {error}. {UNWATCHED}")
        with suppress(*leftovers.FAILURES):  # this run does not depend on it
            self.orphans = leftovers.remove_orphans(client)
        for failure in remove_folders():
            self._tell(f"the watchdog of a run that was killed has failed: {failure}")
        return client

    def _tell(self, text: str) -> None:
        self.notes.append(text)
        log.warning(text)

    @property
    def is_podman(self) -> bool:
        return self.name.startswith(PODMAN)

    def privileged_profile(self) -> str | None:
        """The seccomp profile of a privileged command (`GET /info`, SecurityOptions); Podman gives it none."""
        if self.is_podman:
            return None
        with engine_errors("ask for its seccomp profile"):
            settings = self.client.info().get("SecurityOptions") or []
        found = (it.partition(",profile=")[2] for it in settings if it.startswith("name=seccomp"))
        return next(found, None)

    def image(self, name: str) -> Image:
        """An image that is missing is pulled; ImageError where it cannot be."""
        return find_image(self.client, name, self.progress)

    def history(self, image: Image, name: str) -> list[str]:
        """The instructions by which an image was built, the last one first (`GET /images/{id}/history`).

        Args:
            name: The image's, as the test has it.
        """
        with engine_errors(f"read the history of the image {name!r}"):
            return [str(step.get("CreatedBy") or "") for step in image.history()]

    def create(self, image: Image, name: str, **options: Any) -> DockerContainer:
        """The container is labelled as ours (`POST /containers/create`); `name` is the image's, as the test has it."""
        labels = options.pop("labels", None) or {}
        named = labels if isinstance(labels, Mapping) else dict.fromkeys(labels, "")
        own_name = f"{leftovers.TARGET}{secrets.token_hex(6)}"
        marks = {**named, **self.marks, leftovers.NAME_LABEL: own_name}
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
        """The endpoint is `GET /containers/{id}/json`, for a name or id; EngineError where there is none such."""
        with engine_errors(f"find the container {name!r}"):
            return self.client.containers.get(name)

    def exec(
        self,
        container: DockerContainer,
        command: Sequence[str] | str,
        options: Mapping[str, Any],  # the options of docker-py's `exec_create`
        action: str,  # what is done, in an error's text: "run 'ls' in shop"
        output: Output,
        left: Callable[[], float],  # the seconds that it may still take
    ) -> int:
        """Run a command in a container, read its output, and return its exit code.

        Raises:
            EngineError: The engine refused, or broke off; or the command has written too much.
            TimeoutError: The time is over. The command goes on.
        """
        try:
            with engine_errors(action):
                return run_command(
                    self.client.api, str(container.id), command, output, left, **options
                )
        except TimeoutError:
            raise
        except OutputError as error:
            raise EngineError(f"cannot {action}: it wrote {error}. {WRITE_LESS}") from None
        except OSError as error:
            raise EngineError(f"the engine did not {action}: {error}") from None

    def commit(self, container: DockerContainer) -> Image:
        """The image has the container's labels and a name of ours (`POST /commit`)."""
        with engine_errors("make an image of a container"):
            return container.commit(repository=leftovers.FILLED, tag=secrets.token_hex(6))

    def remove_image(self, image: Image) -> None:
        """An image that a kept container uses stays, for a later run to remove."""
        leftovers.remove_image(self.client.api, image.attrs)

    def stat(self, container: DockerContainer, path: str) -> dict[str, Any] | None:
        """The description of the file at a path of a container; None where there is none.

        This is `HEAD /containers/{id}/archive`. docker-py's `get_archive` leaves its connection open after a 404.
        """
        with engine_errors(f"look at {path!r}"):
            answer = self.client.api.head(self._url(container, "archive"), params={"path": path})
            if answer.ok or answer.status_code == HTTPStatus.NOT_FOUND:
                return stat_of(answer, path)
        return self.members(container, path, 0)[0]  # a response to HEAD has no text that says why

    def members(
        self, container: DockerContainer, path: str, limit: int
    ) -> tuple[dict[str, Any] | None, dict[str, Member] | None]:
        """The result of `stat`, and the members of the folder at a path (`GET /containers/{id}/archive`).

        Members are None where the path is no folder, or its archive has more than `limit` bytes.
        """
        stat: dict[str, Any] | None = None

        def read() -> dict[str, Member] | None:
            nonlocal stat
            with self._archive(container, path) as answer:
                stat = stat_of(answer, path)
                if answer.ok:
                    return read_folder(answer.iter_content(CHUNK_BYTES), limit)
                check_missing(answer)
                return None

        with engine_errors(f"read {path!r}"), suppress(CutArchiveError):
            members = again(read)
            return stat, members
        return stat, None

    def read(self, container: DockerContainer, path: str, limit: int) -> File:
        """Read the regular file at a path of a container (`GET /containers/{id}/archive`).

        Raises:
            LargeFileError: It has more than `limit` bytes.
            EngineError: There is none.
        """

        def read() -> File:
            with self._archive(container, path) as answer:
                check_succeeded(answer)
                return read_file(answer.iter_content(CHUNK_BYTES), limit)

        try:
            with engine_errors(f"read {path!r}"):
                return again(read)
        except CutArchiveError as error:
            raise EngineError(f"the engine did not read {path!r}: {error}") from None

    def output(
        self, container: DockerContainer, name: str, output: Fed, **parameters: str | float
    ) -> Fed:
        """Read a container's log into an output, and return that (`GET /containers/{id}/logs`).

        docker-py takes two calls: it asks first whether the container has a terminal.

        Args:
            name: The container's name in an error's text.

        Raises:
            EngineError: The engine refused; or the log is too long to be kept whole.
        """
        params: dict[str, str | float] = {"stdout": 1, "stderr": 1, **parameters}
        url = self._url(container, "logs")
        try:
            with engine_errors(f"read the log of {name}"), self._get(url, params) as answer:
                check_succeeded(answer)
                for chunk in answer.iter_content(READ_BYTES):
                    output.feed(chunk)
        except OutputError as error:
            raise EngineError(f"{name} wrote {error}. {WRITE_LESS}") from None
        return output

    def _archive(self, container: DockerContainer, path: str) -> requests.Response:
        identity = {"Accept-Encoding": "identity"}  # compression would take the longest
        return self._get(self._url(container, "archive"), {"path": path}, headers=identity)

    def _get(
        self, url: str, params: Mapping[str, str | float], **options: Any
    ) -> requests.Response:
        """Each piece of the response may take as long as any call of docker-py's."""
        api = self.client.api
        return api.get(url, params=params, stream=True, timeout=api.timeout, **options)

    def _url(self, container: DockerContainer, what: str) -> str:
        api = self.client.api
        return f"{api.base_url}/v{api.api_version}/containers/{container.id}/{what}"

    def start(self, container: DockerContainer) -> None:
        """Start a container (`POST /containers/{id}/start`), once more where nothing has run yet (`RUNC_WAS_LOST`)."""
        try:
            container.start()
        except APIError as error:
            if RUNC_WAS_LOST not in explanation(error):
                raise
            container.start()

    def remove(self, container: DockerContainer) -> bool:
        """Remove a container with its anonymous volumes; return False where somebody else is still removing it.

        That it has been removed already is no error.
        """
        try:
            with engine_errors(f"remove the container {container.id}", passing=(APIError,)):
                leftovers.remove_container(self.client.api, str(container.id), kill=self.is_podman)
        except APIError as error:
            if not leftovers.is_gone(error):
                raise EngineError(
                    f"cannot remove the container {container.id}: {explanation(error)}"
                ) from None
            return error.status_code == HTTPStatus.NOT_FOUND
        return True

    def keep(self, container: DockerContainer) -> None:
        """The container stays for the user to inspect, under another name; its sidecar is removed."""
        self._kept.add(str(container.id))
        try:
            container.rename(leftovers.kept_name(str(container.name)))
            container.kill()
        except APIError as error:
            if error.status_code not in (404, 409):  # gone, or not running
                raise EngineError(
                    f"cannot stop the container {container.id}: {explanation(error)}"
                ) from None

    def close(self) -> None:
        """Remove what is left of this run, and close the client, if one was made.

        Usually nothing is left, but an interrupt may come after the engine has made a container and before its answer.
        """
        try:
            if "client" in self.__dict__:
                with suppress(*leftovers.FAILURES, EngineError):
                    leftovers.remove_labelled(self.client.api, self._label, self._kept)
                self.client.close()
        finally:
            if self._watchdog is not None and (failure := self._watchdog.dismiss()):
                self._tell(f"{failure}. {UNWATCHED}")
            if "_folder" in self.__dict__:
                self._folder.remove()
            for made in ("client", "_folder"):  # both are made anew if the engine is used again
                self.__dict__.pop(made, None)


def check_descriptors() -> None:
    """Raise EngineError where this process may have too few descriptors for a container: anything might fail later."""
    if (most := descriptor_limit()) < MIN_DESCRIPTORS:
        raise EngineError(
            f"this process may have {most} descriptors, and a container takes up to {MIN_DESCRIPTORS} at its start: "
            "raise the limit with `ulimit -n 1024`"
        )


START: Final = "Start one (`systemctl start docker`, `colima start`, Docker Desktop)"
JOIN: Final = (
    "This user may not connect to it: join the group that its socket belongs to "
    "(`sudo usermod --append --groups docker $USER`, and log in again)"
)


def contact(
    make_client: Callable[[], DockerClient], address: str | None = None
) -> tuple[DockerClient, str]:
    """Make the client of an engine, wait for its answer, and return the client and the engine's name.

    Args:
        address: For an error's text; None where no setting gives one.

    Raises:
        EngineError: No engine answers.
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
    api: docker.APIClient,
    container: str,
    command: Sequence[str] | str,
    output: Output,
    left: Callable[[], float],
    **options: Any,
) -> int:
    """As `Engine.exec`, over a connection of our own: docker-py's loses bytes that it has read with the headers."""
    made = api.exec_create(container, command, **options)["Id"]
    with connection_of(api) as sock:
        read_output(sock, f"/v{api.api_version}/exec/{made}/start", output, left)
    code: int | None = api.exec_inspect(made)["ExitCode"]
    if code is None:
        raise OSError("it does not tell the command's exit code")
    return code


def check_runtime(container: DockerContainer) -> None:
    """Raise EngineError for a runtime with a network stack of its own, which no sidecar shares (google/gvisor#7168)."""
    runtime = container.attrs.get("HostConfig", {}).get("Runtime") or ""
    if any(word in runtime.lower() for word in SEPARATE_RUNTIMES):
        raise EngineError(
            f"the runtime {runtime!r} is refused: it gives each container a network stack of its own, so that a "
            'sidecar cannot see what another one sends. Test the image with runtime="runc".'
        )


def check_missing(answer: requests.Response) -> None:
    """Raise APIError unless nothing can be at the path: a file must not be taken for missing.

    The response is read to its end.
    """
    said = answer.text  # a connection can be used again once its response has been read
    if answer.status_code != HTTPStatus.NOT_FOUND and not any(each in said for each in UNREACHABLE):
        check_succeeded(answer)


def check_succeeded(answer: requests.Response) -> None:
    try:
        answer.raise_for_status()
    except requests.exceptions.HTTPError as error:
        create_api_error_from_http_exception(error)


def stat_of(answer: requests.Response, path: str) -> dict[str, Any] | None:
    """None where nothing is at the path."""
    header = answer.headers.get("X-Docker-Container-Path-Stat")
    stat = docker.utils.decode_json_header(header) if header else None
    if stat and stat.get("linkTarget") == path:  # Podman's linkTarget of a file that is no link
        del stat["linkTarget"]
    return stat
