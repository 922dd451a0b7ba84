"""`Contents`: what is put into a container before its first instruction, and what its image and mounts tell of it.

Threads: one fills a container; `roots_lock` is held while an image is looked at, and `Ledger.changed` is not taken
meanwhile. The standard input is fed on a thread of its own.
"""

from __future__ import annotations

import contextlib
import posixpath
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from docker.types import Mount

import pytest_egress.targets.trust.placing as trust
import pytest_egress.targets.trust.runtimes as runtimes
from pytest_egress.base.paths import is_under, normal
from pytest_egress.base.sockets import shut
from pytest_egress.engine.archive import build_tar
from pytest_egress.engine.engine import Engine
from pytest_egress.engine.failures import engine_errors
from pytest_egress.errors import EngineError
from pytest_egress.targets.plan import Plan
from pytest_egress.targets.sidecars.sidecar import NAMESERVER
from pytest_egress.targets.trust.mounts import MOUNT_OPTIONS, foreign_mounts
from pytest_egress.targets.trust.packages import LEADING, Packaged, find_packaged, places
from pytest_egress.targets.trust.roots import FileKind, Files, Roots, find_roots
from pytest_egress.targets.trust.runtimes import DIRECTORY
from pytest_egress.traffic.dns.searchlist import normal_suffixes, suffixes_in

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer
    from docker.models.images import Image

    from pytest_egress.gateway.tls.authority import Authority

# Podman writes no resolv.conf for the network "none".
RESOLV_CONF: Final = "/etc/resolv.conf"
MOUNTED: Final = "/pytest-egress-mounted"
RESOLVER: Final = build_tar(
    {RESOLV_CONF: f"nameserver {NAMESERVER}\nsearch .\noptions ndots:1\n".encode()}
)
SCRATCH_OPTIONS: Final = (*MOUNT_OPTIONS, "entrypoint")


class FillServices(Protocol):
    """The part of a session that filling a container needs.

    Attributes:
        packaged: The roots of SDKs and browsers in images, by image and the other inputs of that search.
        trust: Paths of files that get the CA in every image that has them.
        roots_lock: Guards `roots` and `packaged`; held while an image is searched.
    """

    engine: Engine
    roots: dict[str, Roots]
    packaged: dict[object, Packaged]
    trust: Sequence[str]
    roots_lock: threading.Lock

    @property
    def authority(self) -> Authority: ...


class Contents:
    """What is put into one container.

    Args:
        hostname: The container's; its domain is the search list where a resolv.conf has none.
        directory: The directory for our files in it.

    Attributes:
        hints: Reasons why its clients may not trust the CA, as sentences.
        search: The suffixes of its resolvers' search lists, known when it has been filled.
    """

    def __init__(
        self,
        services: FillServices,
        plan: Plan,
        image: Image,
        hostname: str,
        directory: str = DIRECTORY,
    ) -> None:
        self._services, self._plan, self._image = services, plan, image
        self._hostname, self._directory = hostname, directory
        self._env = runtimes.variables(image.attrs["Config"].get("Env") or [])
        self._all_env = {**self._env, **plan.env}
        self.hints: list[str] = []
        self.search = local_domains(self._all_env)

    def environment(self) -> dict[str, str]:
        return runtimes.environment(self._env, self._plan.env, self._directory)

    def filled_image(self, options: Mapping[str, Any]) -> Image:
        """Make an image with the CA and the files in it, since nothing can be put under a root that is read-only."""
        engine = self._services.engine
        kept = {name: options[name] for name in SCRATCH_OPTIONS if name in options}
        scratch = self._create_scratch(**kept)
        try:
            self.fill(scratch)
            return engine.commit(scratch)
        finally:
            engine.remove(scratch)

    def _create_scratch(self, **options: Any) -> DockerContainer:
        """A container that never runs. The image may have no command, without which none is created."""
        plan, create = self._plan, self._services.engine.create
        return create(self._image, plan.image, command=plan.command, network_mode="none", **options)

    def fill(self, container: DockerContainer) -> None:
        """Put the CA and the files into the container, except into mounts that are not its own."""
        services, ca_pem = self._services, self._services.authority.ca_pem
        files = self.files(container)
        if files.foreign:
            trust.check_directory(files, self._directory)
            trust.check_places(files, self._plan.file_paths)
        roots, packaged = self.roots(files), self._packaged(files)
        besides, left = trust.placed(files, trust.extended(packaged, ca_pem, self._directory))
        besides |= trust.named_files(files, self._plan.trust, ca_pem, wherever=services.trust)
        wanted = besides | trust.trusting(
            ca_pem, services.authority.ca_subject, roots, self._directory
        )
        try:
            trust.put(container, build_tar(trust.placed(files, wanted)[0]), "the CA")
        except EngineError:  # a container that was removed meanwhile seemed to have no roots
            services.roots.pop(str(self._image.id), None)
            services.packaged.clear()
            raise
        self.hints = runtimes.defeated(self._env, self._plan.env, [*roots.extended(), *besides])
        self.hints += [
            f"{path} is in a mount, and was left as it is" for path in (*packaged.mounted, *left)
        ]
        self.hints += [
            f"{path} is larger than any roots, and was left as it is"
            for path in (*roots.large, *packaged.large)
        ]
        if services.engine.is_podman:
            trust.put(container, RESOLVER, "resolv.conf")
        if self._plan.files is not None:
            trust.put(container, self._plan.files, "files=")
        self._note_searches(container, files.foreign)

    def files(self, container: DockerContainer) -> Files:
        java_home = self._all_env.get("JAVA_HOME", "")
        return Files(self._services.engine, container, foreign_mounts(container), java_home)

    def roots(self, files: Files) -> Roots:
        """The roots that the image trusts, searched once; those of a container with mounts are searched each time."""
        services, user_env = self._services, self._plan.env
        if files.foreign or not user_env.keys().isdisjoint(runtimes.LEADING):
            return find_roots(files, self._env, user_env)
        with services.roots_lock:  # another start of this image waits for the result
            if (key := str(self._image.id)) not in services.roots:
                services.roots[key] = find_roots(files, self._env, user_env)
            return services.roots[key]

    def _packaged(self, files: Files) -> Packaged:
        """The roots of SDKs and browsers in the image, searched once for each set of mounts: these may hide some."""
        services, theirs = self._services, self._all_env
        config, workdir = self._image.attrs["Config"], self._plan.options.get("working_dir")
        named = [theirs.get(name, "") for name in LEADING]
        key = (self._image.id, workdir, *named, *files.foreign)
        with services.roots_lock:  # another start of this image waits for the result
            if key not in services.packaged:
                where = places(
                    theirs,
                    workdir or config.get("WorkingDir") or "",
                    config.get("User") or "",
                    services.engine.history(self._image, self._plan.image),
                )
                services.packaged[key] = find_packaged(files, where)
            return services.packaged[key]

    def _note_searches(self, container: DockerContainer, foreign: Sequence[str]) -> None:
        """Note the search list of a created container's resolv.conf, if that is not ours."""
        mounted = [point for point in foreign if is_under(RESOLV_CONF, point)]
        # Docker puts its own over any other mount, and over what is put into the container.
        is_other = RESOLV_CONF in mounted
        if self._services.engine.is_podman:
            is_other = bool(mounted) or RESOLV_CONF in self._plan.file_paths
        if not is_other:
            return
        if self._services.engine.is_podman and RESOLV_CONF in mounted:
            text = self._mounted_resolv_conf(container)
        else:
            text = text_of(self.files(container), RESOLV_CONF)  # as it is with the files put in
        suffixes = suffixes_in(text)
        if suffixes is None:  # then it is the domain in the host name
            suffixes = normal_suffixes([self._hostname.partition(".")[2]])
        self.search |= {*suffixes}

    def _mounted_resolv_conf(self, container: DockerContainer) -> str:
        """A resolv.conf that is a mount by itself; "" where it cannot be read.

        Podman's archive has no file that is one until its container runs, which asks for names by then. So the folder
        that the file lies in is mounted into a container that never runs.
        """
        engine, mounts = self._services.engine, container.attrs.get("Mounts") or ()
        sources = [each["Source"] for each in mounts if normal(each["Destination"]) == RESOLV_CONF]
        folder, name = posixpath.split(sources[-1])
        scratch = self._create_scratch(mounts=[Mount(MOUNTED, folder, type="bind", read_only=True)])
        try:
            return text_of(Files(engine, scratch, foreign_mounts(scratch)), f"{MOUNTED}/{name}")
        finally:
            engine.remove(scratch)


def local_domains(env: Mapping[str, str]) -> set[str]:
    """The search list that a variable gives to glibc's resolver, and to c-ares."""
    return {*normal_suffixes(env.get("LOCALDOMAIN", "").split())}


def text_of(files: Files, path: str) -> str:
    """A file that does not exist, or is too large, has the text ""."""
    real, kind = files.resolve(path)
    found = files.read_small([real] if kind is FileKind.REGULAR else ())
    return b"".join(file.content for file in found.values()).decode("utf-8", "replace")


def attach_input(
    container: DockerContainer, name: str, cleanup: contextlib.ExitStack
) -> socket.socket:
    """The endpoint is `POST /containers/{id}/attach`."""
    with engine_errors(f"attach to the standard input of {name}"):
        stream = container.attach_socket(params={"stdin": 1, "stream": 1})
    sock: socket.socket = getattr(stream, "_sock", stream)  # type: ignore[arg-type]  # docker-py hides it in a reader
    for opened in (sock, stream, getattr(stream, "_response", stream)):
        cleanup.callback(opened.close)
    return sock


def feed(sock: socket.socket, content: bytes, name: str, cleanup: contextlib.ExitStack) -> None:
    """The content is written on a thread, since the container may read late or never."""

    def write() -> None:
        with contextlib.suppress(OSError):  # the container has ended, or is being removed
            sock.sendall(content)
            sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=write, name=f"egress input {name}", daemon=True)
    thread.start()
    cleanup.callback(thread.join)
    cleanup.callback(shut, sock)
