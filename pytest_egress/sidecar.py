"""The sidecar container: holds a target's network namespace and runs the agent in it.

As a rule no image is pulled: it is empty directories, with this process's own Python mounted read-only. That,
and the folder that the descriptor link needs, take an engine that sees this machine's files; another one gets an
image with a Python of its own, and the stream link.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.resources
import importlib.util
import marshal
import os
import platform
import re
import secrets
import select
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlencode

import docker
import requests.exceptions
from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import LogConfig, Mount

import pytest_egress.stream as stream
from pytest_egress.agent.addresses import ADDRESS4
from pytest_egress.agent.main import ANOTHER_HOST, NO_UNIX_SOCKET, SIGNATURE, STREAM
from pytest_egress.archive import File, build_tar
from pytest_egress.attach import Attachment, attach, connect
from pytest_egress.choices import LinkKind as LinkKind
from pytest_egress.clock import monotonic
from pytest_egress.endpoint import socket_of
from pytest_egress.errors import LinkError
from pytest_egress.leftovers import NAME_LABEL, is_gone, remove_container
from pytest_egress.link import DescriptorLink, Rendezvous
from pytest_egress.stream import StreamLink

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

AnyLink: TypeAlias = DescriptorLink | StreamLink


class Way(NamedTuple):
    """How a sidecar is had.

    Attributes:
        link: How its sockets are reached.
        image: Whose Python runs its agent: that of an image, or, with None, this process's own.
    """

    link: LinkKind = "descriptor"
    image: str | None = None

    def __str__(self) -> str:
        python = self.image or f"this Python {platform.python_version()}"
        return f"{self.link} link, sidecar with {python}"

    def python(self) -> list[str]:
        """How its Python is started, up to the program."""
        program = "python3" if self.image is not None else _executable()
        return [program, "-I", "-S", "-B"]  # isolated, without site-packages, writing no cache


DESCRIPTOR: Final = Way()


class SidecarError(LinkError):
    """A sidecar is not to be had in this way; in another it may be."""


START_SECONDS = 30.0
"""How long a started sidecar may take until its sockets are here: far more than it needs."""

KILLED = 128
"""Exit codes from here on are of a program that a signal ended."""

EXIT_SECONDS = 5
"""How long the engine may take to tell the exit code of a sidecar that has ended its output."""

IMAGE_REPOSITORY = "pytest-egress/sidecar"
"""The local image; its tag is a hash of its content."""

NAMESERVER = "192.0.2.53"
"""What resolv.conf names: a documentation address (RFC 5737): queries to any server come to us."""

AGENT_FOLDER, LINK_FOLDER = "/egress", "/run/egress"
"""Where the agent and the rendezvous folder are in the sidecar."""

_BOOT = f"import sys; sys.path.insert(0, {AGENT_FOLDER!r}); from agent.main import main; main()"
_SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_ENABLE_IPV6 = {f"net.ipv6.conf.{scope}.disable_ipv6": "0" for scope in ("all", "default")}
_IPV6_SETTINGS = "/proc/sys/net/ipv6/conf/all"
_NOT_SHARED = re.compile(
    "bind source path does not exist|mounts denied|statfs .*no such file", re.IGNORECASE
)
_NO_PROGRAM = re.compile("executable file not found|: no such file or directory", re.IGNORECASE)
_GAVE_UP = re.compile(rf"^{SIGNATURE} (\d+): (.*)$", re.MULTILINE)
_ONLY_STREAM: Final = ("dialled", "mux", "pump", "stream")  # modules of the agent
_FRAME_HEADER = 8  # POST /containers/{id}/attach: stream, three zeros, length


def made_up_hostname() -> str:
    """As the engine makes them up; none that resolvers would read as an IPv4 address, which is one in 280 (inet(3))."""
    while (name := secrets.token_hex(6)).isdecimal():
        pass
    return name


class Sidecar:
    """One sidecar, from created to removed.

    Attributes:
        id: The container's id; targets join its namespace with network mode `container:<id>`.
        name: The container's name.
        link: What `start` returned; None before.
    """

    def __init__(
        self, client: docker.DockerClient, hostname: str, folder: str | None, way: Way
    ) -> None:
        self.id = ""
        self.name = f"pytest-egress-sidecar-{secrets.token_hex(6)}"
        self.link: AnyLink | None = None
        self._api = client.api
        self._hostname, self._way = hostname, way
        self._rendezvous = Rendezvous(folder) if way.link == "descriptor" else None
        self._output: _Output | None = None
        self._attachment: Attachment | None = None

    @classmethod
    def create(
        cls,
        client: docker.DockerClient,
        *,
        hostname: str | None = None,
        domainname: str | None = None,
        extra_hosts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        folder: str | None = None,
        after_create: Callable[[str], None] | None = None,
        way: Way = DESCRIPTOR,
    ) -> Sidecar:
        """Create the container, ready to start. A target can be created as soon as this returns.

        Args:
            client: The engine; a start uses it from two threads, here and in `start`.
            hostname: The target's host name, which resolves to its own address; random by default.
            domainname: The target's domain name.
            extra_hosts: More lines of the target's /etc/hosts, from name to address.
            labels: The container's labels.
            folder: Where temporary files go.
            after_create: Called with the container's id as soon as it exists.
            way: Its link, and whose Python it runs; an image must be on the engine.

        Raises:
            SidecarError: The engine does not share this machine's files, or refuses the container.
            LinkError: This machine does not run Linux.
        """
        if sys.platform != "linux":
            raise LinkError(f"this machine runs {sys.platform}; tests run on Linux alone")
        sidecar = cls(client, hostname or made_up_hostname(), folder, way)
        try:
            sidecar._create(domainname, extra_hosts or {}, labels or {})
            if after_create is not None:
                after_create(sidecar.id)
            sidecar._api.put_archive(sidecar.id, "/", agent_archive(way.link))
            with _engine_errors(client.api):  # Podman starts the program as far as that fails
                if way.link == "stream":
                    sidecar._attachment = _attach(client.api, sidecar.id)
                else:
                    sidecar._output = _Output(client, sidecar.id)
        except BaseException:
            sidecar.remove()
            raise
        return sidecar

    def start(self) -> AnyLink:
        """Start the container and wait for the namespace's sockets; the caller closes the link.

        Raises:
            LinkError: The sidecar gave up or was silent; the text says why. It has been removed.
            SidecarError: It did not come as far as to capture.
        """
        try:
            with _engine_errors(self._api):
                self._api.start(self.id)
            self.link = self._receive() if self._attachment is None else self._open_stream()
        except BaseException:
            self.remove()
            raise
        self._release()
        return self.link

    def remove(self) -> None:
        """Remove the container by force, whatever its state; again is harmless. Leaves the link."""
        self._release()
        if not self.id:
            return
        try:
            remove_container(self._api, self.id)
        except APIError as error:
            # Podman keeps it for a target that somebody else removes.
            if not is_gone(error) and "dependent containers" not in str(error):
                raise

    # ---------------------------------------------------------------- creating

    def _create(
        self, domainname: str | None, extra_hosts: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        # One line, the qualified name first: `hostname --fqdn` prints what is first.
        names = f"{self._hostname}.{domainname} {self._hostname}" if domainname else self._hostname
        hosts = {names: ADDRESS4, **extra_hosts}
        config: dict[str, Any] = {
            **self._program(),
            "stdin_open": self._rendezvous is None,
            "name": self.name,
            "hostname": self._hostname,
            "domainname": domainname,
            "labels": {**labels, NAME_LABEL: self.name},
        }
        with _engine_errors(self._api):
            try:
                container = self._create_container(config, hosts, _ipv6_settings())
            except APIError as error:
                if "sysctl" not in str(error).lower():
                    raise
                container = self._create_container(config, hosts, {})
        self.id = container["Id"]

    def _create_container(
        self, config: dict[str, Any], hosts: dict[str, str], sysctls: dict[str, str]
    ) -> dict[str, Any]:
        host_config = self._api.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN"],
            security_opt=["label=disable"],  # SELinux would refuse both the mounts and the socket
            auto_remove=True,
            log_config=LogConfig(type="none"),
            dns=[NAMESERVER],
            dns_search=["."],  # else the host's list makes `db` into `db.corp`
            dns_opt=["ndots:1"],
            extra_hosts=hosts,
            sysctls=sysctls,
            mounts=[*self._python_mounts(), *self._link_mounts()],
        )
        created: dict[str, Any] = self._api.create_container(host_config=host_config, **config)
        return created

    def _program(self) -> dict[str, Any]:
        """Image, program and environment."""
        program = [*self._way.python(), "-c", _BOOT, *self._arguments()]
        if self._way.image is not None:
            # Whatever the image says of user and entry point: the agent needs its capability.
            own = {"image": self._way.image, "user": "0:0", "working_dir": "/"}
            return {**own, "entrypoint": program}
        return {
            "image": ensure_image(self._api),
            "command": program,
            # The loader's cache of library paths is not mounted.
            "environment": {"LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"},
        }

    def _arguments(self) -> list[str]:
        """Of the agent."""
        if self._rendezvous is None:
            return [STREAM, f"{stream.GONE_SECONDS:g}", str(stream.most_streams())]
        return [LINK_FOLDER, self._rendezvous.nonce]

    def _python_mounts(self) -> list[Mount]:
        return [] if self._way.image is not None else _python_mounts()

    def _link_mounts(self) -> list[Mount]:
        rendezvous = self._rendezvous
        return [] if rendezvous is None else [_mount(rendezvous.folder, LINK_FOLDER)]

    # ---------------------------------------------------------------- starting

    def _open_stream(self) -> StreamLink:
        """The link, when the agent has greeted; an error when it has ended or time is up."""
        assert self._attachment is not None, "create() opens it"
        link = StreamLink(self._attachment)
        self._attachment = None  # the link's from here on
        try:
            link.start(START_SECONDS)
        except EOFError:
            raise self._ended(quoted(link.words())) from None
        except TimeoutError:
            raise LinkError(_silent(quoted(link.words()))) from None
        return link

    def _receive(self) -> DescriptorLink:
        """The link, when the agent has connected; an error when it has ended or time is up."""
        assert self._output is not None, "create() opens it"
        assert self._rendezvous is not None, "create() opens it"
        deadline = monotonic() + START_SECONDS
        poller = select.poll()
        poller.register(self._rendezvous.socket, select.POLLIN)
        poller.register(self._output, select.POLLIN)
        while (left := deadline - monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poller.poll(left * 1000)}
            if self._rendezvous.socket.fileno() in ready:
                return self._rendezvous.accept()
            if self._output.fileno() in ready and not self._output.read_some():
                raise self._last_words()
        raise LinkError(_silent(quoted(self._output.text())))

    def _last_words(self) -> LinkError:
        assert self._output is not None, "create() opens it"
        if (found := _GAVE_UP.search(self._output.text())) and int(found[1]) in (
            ANOTHER_HOST,
            NO_UNIX_SOCKET,
        ):
            return SidecarError(_not_shared(found[2]))
        return self._ended(quoted(self._output.text()))

    def _ended(self, wrote: str) -> LinkError:
        """A program that was killed would be in another way too."""
        python = f"this process's Python, {_executable()}"
        if self._way.image is not None:
            python = f"python3 of the image {self._way.image!r}"
        code = self._exit_code()
        shown = "" if code is None else f" (exit code {code})"
        kind = SidecarError if code is None or code < KILLED else LinkError
        return kind(
            f"The sidecar ended before it sent its sockets{shown}. It runs {python}. {wrote}"
        )

    def _exit_code(self) -> int | None:
        """The exit code, unless the engine has removed the container already."""
        try:
            return int(self._api.wait(self.id, timeout=EXIT_SECONDS)["StatusCode"])
        except (DockerException, OSError):
            return None

    def _release(self) -> None:
        """What is needed only until the link is there."""
        for opened in (self._rendezvous, self._output, self._attachment):
            if opened is not None:
                opened.close()


class _Output:
    """What a container writes, attached before the start: auto-remove leaves no log for later."""

    def __init__(self, client: docker.DockerClient, container: str) -> None:
        # There is nothing yet that docker-py could read ahead with the headers, and lose.
        parameters = {"stdout": 1, "stderr": 1, "stream": 1}
        self._stream = client.api.attach_socket(container, parameters)
        self._data = bytearray()

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def read_some(self) -> bool:
        """Read what there is; False at the end."""
        chunk = self._stream.read(1 << 16) or b""
        self._data += chunk
        return bool(chunk)

    def text(self) -> str:
        """All of it, of both streams, without the frames' headers."""
        found, offset = bytearray(), 0
        while offset + _FRAME_HEADER <= len(self._data):
            start = offset + _FRAME_HEADER
            offset = start + int.from_bytes(self._data[start - 4 : start], "big")
            found += self._data[start:offset]
        return found.decode("utf-8", "replace").strip()

    def close(self) -> None:
        if response := getattr(self._stream, "_response", None):
            response.close()
        self._stream.close()


def quoted(text: str) -> str:
    """What a sidecar has written, as a sentence."""
    return f"It wrote:\n{text}" if text else "It wrote nothing."


def _silent(wrote: str) -> str:
    return f"The sidecar is running, but sent no sockets within {START_SECONDS:g} seconds. {wrote}"


def _attach(api: docker.APIClient, container: str) -> Attachment:
    """Its three standard streams, by a connection of our own to the client's engine."""
    sock = connection_of(api)
    query = urlencode({"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1})
    return attach(sock, f"/v{api.api_version}/containers/{container}/attach?{query}")


def connection_of(api: docker.APIClient) -> socket.socket:
    """A connection of our own to a client's engine."""
    return connect(socket_of(api), api.cert, api.verify)  # type: ignore[arg-type]  # of requests.Session


# -------------------------------------------------------------------- image, mounts, agent


def ensure_image(api: docker.APIClient) -> str:
    """The name of the sidecar's image, imported if the engine does not have it.

    Several processes may do so at once: each makes the same image, and the last one keeps the name.
    """
    content = build_tar({}, ["/proc", "/sys", "/dev", "/etc", "/tmp", "/run", "/usr"])
    tag = hashlib.sha256(content).hexdigest()[:12]
    name = f"{IMAGE_REPOSITORY}:{tag}"
    with _engine_errors(api):
        try:
            api.inspect_image(name)  # type: ignore[no-untyped-call]  # types-docker has none
        except ImageNotFound:
            api.import_image_from_data(content, repository=IMAGE_REPOSITORY, tag=tag)
    return name


@functools.cache  # compiling takes 4 milliseconds, and the result is always the same
def agent_archive(link: LinkKind = "descriptor") -> bytes:
    """The agent as an archive for `/`: its source and, as this very Python runs it, its bytecode.

    With bytecode it is running 4 milliseconds earlier.
    """
    unused = ("packets",) if link == "stream" else ("packets", *_ONLY_STREAM)
    folder = f"{AGENT_FOLDER}/agent"
    files: dict[str, File | bytes] = {}
    for entry in importlib.resources.files("pytest_egress.agent").iterdir():
        stem, dot, suffix = entry.name.partition(".")
        if suffix == "py" and stem not in unused:
            source = entry.read_bytes()
            path = f"{folder}/{stem}{dot}{suffix}"
            cached = f"{folder}/__pycache__/{stem}.{sys.implementation.cache_tag}.pyc"
            files[path], files[cached] = source, _bytecode(source, path)
    return build_tar(files, [AGENT_FOLDER, folder, f"{folder}/__pycache__"])


def _bytecode(source: bytes, path: str) -> bytes:
    """A .pyc file that is used without looking at its source (PEP 552, flags 0b01)."""
    code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    flags = (0b01).to_bytes(4, "little")
    checksum = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + flags + checksum + marshal.dumps(code)


def _executable() -> str:
    """The interpreter itself, not a virtual environment's link to it, nor its copy."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _python_mounts() -> list[Mount]:
    """What the interpreter needs, each at its own path, without what another one contains."""
    executable = os.path.dirname(_executable())
    folders = [*_SYSTEM_FOLDERS, os.path.realpath(sys.base_prefix), executable]
    kept: list[str] = []
    for folder in folders:
        inside = any(folder == other or folder.startswith(f"{other}/") for other in kept)
        if os.path.isdir(folder) and not inside:
            kept.append(folder)
    return [_mount(os.path.realpath(folder), folder) for folder in kept]


def _mount(source: str, target: str) -> Mount:
    return Mount(target, source, type="bind", read_only=True)


def _ipv6_settings() -> dict[str, str]:
    """Turn IPv6 on in the namespace, if the kernel, which the engine shares, has any."""
    return dict(_ENABLE_IPV6) if os.path.isdir(_IPV6_SETTINGS) else {}


# -------------------------------------------------------------------- errors


@contextlib.contextmanager
def _engine_errors(api: docker.APIClient) -> Iterator[None]:
    """Turn what the engine says about the sidecar into a LinkError; a SidecarError where another way may help."""
    try:
        yield
    except APIError as error:
        said = error.explanation or str(error)
        if _NOT_SHARED.search(said):
            raise SidecarError(_not_shared(said)) from error
        kind = SidecarError if _NO_PROGRAM.search(said) else LinkError
        raise kind(f"The engine refuses the sidecar: {said}") from error
    except requests.exceptions.RequestException as error:
        raise LinkError(f"The engine does not answer any more: {error}") from error


def _not_shared(reason: str) -> str:
    return f"The engine does not share this machine's files ({reason})."
