"""The sidecar container: holds a target's network namespace and runs the agent in it.

If the engine sees this machine's files, the sidecar runs this process's own Python, and can use the descriptor link,
which needs a shared folder. On any other engine it runs an image with a Python of its own, and uses the stream link.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import os
import re
import secrets
import select
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import docker
from docker.errors import APIError, DockerException
from docker.types import LogConfig

import pytest_egress.link.stream as stream
from pytest_egress.agent.addresses import ADDRESS4
from pytest_egress.agent.main import (
    ANOTHER_HOST,
    JOINED_SETTING,
    NO_UNIX_SOCKET,
    SIGNATURE,
    STREAM_MODE,
)
from pytest_egress.base.clock import monotonic
from pytest_egress.engine.archive import File, build_tar
from pytest_egress.engine.copier import again
from pytest_egress.engine.endpoint import connection_of
from pytest_egress.engine.leftovers import NAME_LABEL, SIDECAR, is_gone, remove_container
from pytest_egress.errors import LinkError
from pytest_egress.link.attach import Attachment, attach
from pytest_egress.link.descriptor import DescriptorLink
from pytest_egress.link.relay import KEY_BYTES, KEY_PATH
from pytest_egress.link.rendezvous import Rendezvous
from pytest_egress.link.stream import StreamLink
from pytest_egress.targets.sidecars.program import (
    BOOT,
    KEEPER_BOOT,
    LINK_FOLDER,
    agent_archive,
    bind_mount,
    ensure_image,
    library_path,
    python_mounts,
)
from pytest_egress.targets.sidecars.provision import (
    DESCRIPTOR,
    SidecarError,
    SidecarSetup,
    executable,
    not_shared,
    sidecar_errors,
)
from pytest_egress.targets.sidecars.relay import RelayContainer
from pytest_egress.traffic.dns.answers import NO_ADDRESS, NameAnswer

AnyLink: TypeAlias = DescriptorLink | StreamLink

SYSCTLS: Final = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    JOINED_SETTING: "0 2147483647",
}
"""What Docker sets in a namespace that it makes, and so not in one to which a sidecar has moved: a target brings it."""

ELSEWHERE: Final = (
    "The engine has started {} in another network namespace than that to which its sidecar has moved. Nothing of it "
    "would be captured there.\n--egress-sidecar-reuse=off gives each container a sidecar of its own."
)

START_SECONDS = 30.0
"""How long a started sidecar may take until its sockets are here: far more than it needs."""

KILLED = 128
"""The lowest exit code of a program that a signal ended."""

EXIT_SECONDS = 5
"""How long the engine may take to tell the exit code of a sidecar that has ended its output."""

NAMESERVER = "192.0.2.53"
"""The DNS server in the target's resolv.conf: a documentation address (RFC 5737), since all queries come to us."""

HAS_CTYPES = importlib.util.find_spec("_ctypes") is not None
"""Whether this process's Python can call the C library, which a sidecar needs that serves several targets."""

CAPABILITIES: tuple[str, ...] = ("NET_ADMIN", "NET_RAW")
"""Those of an agent, which keeps the first alone. Where the engine refuses the other, UDP cannot be answered."""

KEEPER_CAPABILITIES = ("SYS_ADMIN", "SETPCAP")
"""The capabilities of the first process of such a sidecar, and of nothing else: see `agent.keeper`."""

_ENABLE_IPV6 = {f"net.ipv6.conf.{scope}.disable_ipv6": "0" for scope in ("all", "default")}
_IPV6_SETTINGS = "/proc/sys/net/ipv6/conf/all"
_GAVE_UP = re.compile(rf"^{SIGNATURE} (\d+): (.*)$", re.MULTILINE)


def made_up_hostname() -> str:
    """A random host name, like the engine's own, but never one that inet(3) reads as an IPv4 address (1 in 280 is)."""
    while (name := secrets.token_hex(6)).isdecimal():
        pass
    return name


def hosts_of(options: Mapping[str, Any]) -> dict[str, NameAnswer]:
    """The names that a container's options give addresses to: its own, and `extra_hosts`."""
    host, domain = options["hostname"], options.get("domainname")
    lines = {host: ADDRESS4, **(options.get("extra_hosts") or {})}
    if domain:
        lines[f"{host}.{domain}"] = ADDRESS4
    return {
        name.lower(): host_answer(address)
        for line, address in lines.items()
        for name in line.split()
    }


def host_answer(address: str) -> NameAnswer:
    """The answer has no address where only the engine knows it ("host-gateway")."""
    with contextlib.suppress(ValueError):
        return NameAnswer(addresses=(str(ipaddress.ip_address(address)),))
    return NO_ADDRESS


class Sidecar:
    """One sidecar, from created to removed.

    Attributes:
        id: The container's id; targets join its namespace with network mode `container:<id>`.
        hostname: The host name, which is the target's too.
        is_reusable: Whether it can serve another target when its own has been removed.
        has_served: Whether it has served a target, so that it moves for the next one.
        link: The link that `start` returned; None before.
    """

    def __init__(
        self, client: docker.DockerClient, hostname: str, folder: str | None, setup: SidecarSetup
    ) -> None:
        self.id = ""
        self.name = f"{SIDECAR}{secrets.token_hex(6)}"
        self.is_reusable = self.has_served = False
        self._capabilities = CAPABILITIES
        self._removes_itself = True
        self.link: AnyLink | None = None
        self._api = client.api
        self.hostname, self.setup = hostname, setup
        self._rendezvous = Rendezvous(folder) if setup.link == "descriptor" else None
        self._attachment: Attachment | None = None
        self._relay: RelayContainer | None = None
        self._key = secrets.token_bytes(KEY_BYTES)

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
        setup: SidecarSetup = DESCRIPTOR,
        reusable: bool = False,
        removes_itself: bool = True,
        relay: RelayContainer | None = None,
    ) -> Sidecar:
        """Create the container, ready to start. A target can be created as soon as this returns.

        Args:
            client: The engine; a start uses it from two threads, here and in `start`.
            hostname: The target's host name, which resolves to its own address; random by default.
            after_create: Called with the container's id as soon as it exists.
            setup: The engine must have the image that it names.
            reusable: Whether it is to serve several targets, which needs capabilities and this process's own Python.
            removes_itself: Whether the engine removes it when it has ended (`AutoRemove`).
            relay: What passes connections to it; of use to the stream link alone.

        Raises:
            SidecarError: The engine does not share this machine's files, or refuses the container.
        """
        sidecar = cls(client, hostname or made_up_hostname(), folder, setup)
        sidecar._removes_itself, sidecar._relay = removes_itself, relay
        sidecar.is_reusable = reusable and setup == DESCRIPTOR and HAS_CTYPES
        try:
            sidecar._create(domainname, extra_hosts or {}, labels or {})
            if after_create is not None:
                after_create(sidecar.id)
            sidecar._put(agent_archive(setup.link))
            if relay is not None:
                sidecar._put(build_tar({KEY_PATH: File(content=sidecar._key, mode=0o400)}))
            with sidecar_errors():  # Podman prepares the program at attach, and may fail at it
                sidecar._attachment = sidecar._attach()
        except BaseException:
            sidecar.remove()
            raise
        return sidecar

    def start(self) -> AnyLink:
        """Start the container and wait for the namespace's sockets; the caller closes the link.

        Raises:
            LinkError: The sidecar gave up or was silent; the text says why. It has been removed.
            SidecarError: The sidecar ended before it captured anything, and another setup may work.
        """
        try:
            with sidecar_errors():
                self._api.start(self.id)
            assert self._attachment is not None, "create() opens it"
            if self._rendezvous is None:
                attachment, self._attachment = self._attachment, None  # the link's from here on
                self.link = self._open_stream(attachment)
            else:
                self.link = self._receive(self._rendezvous, self._attachment)
        except BaseException:
            self.remove()
            raise
        self._release()
        if isinstance(self.link, DescriptorLink):
            self.link.keeps_sidecar = self.is_reusable
        return self.link

    def retire(self) -> bool:
        """Prepare for another target, when the last one has been removed; return whether `renew` may be called."""
        link = self.link
        if not self.is_reusable or not isinstance(link, DescriptorLink):
            return False
        link.close()  # no gateway has, where the target was never started
        self.has_served = link.put_back()
        return self.has_served

    def renew(self) -> AnyLink:
        """Move to a new namespace after `retire`; the caller closes the link.

        Raises:
            LinkError, OSError: The sidecar could not, or has ended.
        """
        assert isinstance(self.link, DescriptorLink), "retire() has said so"
        had_ipv6 = self.link.ipv6
        self.link = self.link.renew()
        if self.link.ipv6 != had_ipv6:  # sysctl net.core.devconf_inherit_init_net
            raise LinkError("the engine's namespaces have another setting of IPv6 than new ones.")
        self.link.keeps_sidecar = True
        return self.link

    def check_joined(self, target: str) -> None:
        """Raise LinkError where the engine has not started a target in the namespace of `renew`."""
        assert isinstance(self.link, DescriptorLink), "renew() has made it"
        try:
            joined = self.link.is_joined()
        except OSError as error:
            raise LinkError(f"The sidecar of {target} has ended: {error}.") from error
        if not joined:
            raise LinkError(ELSEWHERE.format(target))

    def end(self) -> None:
        """The sidecar ends with its link."""
        if isinstance(self.link, DescriptorLink):
            self.link.keeps_sidecar = False
        if self.link is not None:
            self.link.close()

    def remove(self) -> None:
        """Remove the container by force, in any state; calling it again does nothing. The link stays open."""
        self._release()
        if not self.id:
            return
        try:
            remove_container(self._api, self.id)
        except APIError as error:
            # Podman refuses while a target exists that somebody else removes.
            if not is_gone(error) and "dependent containers" not in str(error):
                raise

    # ---------------------------------------------------------------- creating

    def _put(self, archive: bytes) -> None:
        again(lambda: self._api.put_archive(self.id, "/", archive))

    def _create(
        self, domainname: str | None, extra_hosts: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        # One line, the qualified name first: `hostname --fqdn` prints what is first.
        names = f"{self.hostname}.{domainname} {self.hostname}" if domainname else self.hostname
        hosts = {names: ADDRESS4, **extra_hosts}
        config: dict[str, Any] = {
            "stdin_open": self._rendezvous is None,
            "name": self.name,
            "hostname": self.hostname,
            "domainname": domainname,
            "labels": {**labels, NAME_LABEL: self.name},
        }
        with sidecar_errors():
            try:
                container = self._create_container(config, hosts, _ipv6_settings())
            except APIError as error:
                if "NET_RAW" in str(error) and "NET_RAW" in self._capabilities:
                    self._capabilities = ("NET_ADMIN",)
                    self._create(domainname, extra_hosts, labels)
                    return
                if self.is_reusable:  # the engine may refuse the capabilities
                    self.is_reusable = False
                    self._create(domainname, extra_hosts, labels)
                    return
                if "sysctl" not in str(error).lower():
                    raise
                container = self._create_container(config, hosts, {})
        self.id = container["Id"]

    def _create_container(
        self, config: dict[str, Any], hosts: dict[str, str], sysctls: dict[str, str]
    ) -> dict[str, Any]:
        mounts = [] if self.setup.image is not None else python_mounts()
        if self._rendezvous is not None:
            mounts.append(bind_mount(self._rendezvous.folder, LINK_FOLDER))
        host_config = self._api.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            cap_add=[*self._capabilities, *(KEEPER_CAPABILITIES if self.is_reusable else ())],
            security_opt=["label=disable"],  # SELinux would refuse both the mounts and the socket
            auto_remove=self._removes_itself,
            log_config=LogConfig(type="none"),
            dns=[NAMESERVER],
            dns_search=["."],  # else the host's list makes `db` into `db.corp`
            dns_opt=["ndots:1"],
            extra_hosts=hosts,
            sysctls=sysctls,
            mounts=mounts,
            ipc_mode=None if self._relay is None else f"container:{self._relay.id}",
        )
        created: dict[str, Any] = self._api.create_container(
            host_config=host_config, **self._program(), **config
        )
        return created

    def _program(self) -> dict[str, Any]:
        boot = KEEPER_BOOT if self.is_reusable else BOOT
        program = [*self.setup.python(), "-c", boot, *self._arguments()]
        if self.setup.image is not None:
            # Whatever the image says of user and entry point: the agent needs its capability.
            own = {"image": self.setup.image, "user": "0:0", "working_dir": "/"}
            return {**own, "entrypoint": program}
        return {
            "image": ensure_image(self._api),
            "command": program,
            "environment": library_path(),
        }

    def _arguments(self) -> list[str]:
        if self._rendezvous is None:
            return [STREAM_MODE, f"{stream.GONE_SECONDS:g}", str(stream.most_streams())]
        return [LINK_FOLDER, self._rendezvous.nonce]

    def _attach(self) -> Attachment:
        """The standard streams are attached to, since auto-remove leaves no log to read later."""
        stdin = int(self._rendezvous is None)
        query = f"attach?stream=1&stdin={stdin}&stdout=1&stderr=1"
        path = f"/v{self._api.api_version}/containers/{self.id}/{query}"
        return attach(connection_of(self._api), path)

    # ---------------------------------------------------------------- starting

    def _open_stream(self, attachment: Attachment) -> StreamLink:
        link = StreamLink(attachment, None if self._relay is None else self._relay.way(self._key))
        try:
            link.start(START_SECONDS)
        except EOFError:
            raise self._ended(what_it_wrote(link.words())) from None
        except TimeoutError:
            raise LinkError(_silent(what_it_wrote(link.words()))) from None
        return link

    def _receive(self, rendezvous: Rendezvous, attachment: Attachment) -> DescriptorLink:
        deadline = monotonic() + START_SECONDS
        poller = select.poll()
        poller.register(rendezvous.socket, select.POLLIN)
        poller.register(attachment, select.POLLIN)
        output, wrote = b"", what_it_wrote("")
        while (left := deadline - monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poller.poll(left * 1000)}
            if rendezvous.socket.fileno() in ready:
                return rendezvous.accept()
            if attachment.fileno() in ready:
                said = attachment.read()
                output += said or b""
                wrote = what_it_wrote(
                    f"{output.decode('utf-8', 'replace')}{attachment.text()}".strip()
                )
                if said is None:
                    found = _GAVE_UP.search(wrote)
                    if found and int(found[1]) in (ANOTHER_HOST, NO_UNIX_SOCKET):
                        raise SidecarError(not_shared(found[2]))
                    raise self._ended(wrote)
        raise LinkError(_silent(wrote))

    def _ended(self, wrote: str) -> LinkError:
        """A sidecar that was killed would be killed with another setup too."""
        python = f"this process's Python, {executable()}"
        if self.setup.image is not None:
            python = f"python3 of the image {self.setup.image!r}"
        code = self._exit_code()
        shown = "" if code is None else f" (exit code {code})"
        kind = SidecarError if code is None or code < KILLED else LinkError
        return kind(
            f"The sidecar ended before it sent its sockets{shown}. It runs {python}. {wrote}"
        )

    def _exit_code(self) -> int | None:
        """None where the engine has removed the container already."""
        try:
            return int(self._api.wait(self.id, timeout=EXIT_SECONDS)["StatusCode"])
        except (DockerException, OSError):
            return None

    def _release(self) -> None:
        """Rendezvous and attachment are needed only until the link is there."""
        for opened in (self._rendezvous, self._attachment):
            if opened is not None:
                opened.close()


def tells_of_joining(options: Mapping[str, Any]) -> bool:
    """Whether it can be seen that a target with these options of docker-py has joined a namespace: see `JOINED`."""
    return JOINED_SETTING not in (options.get("sysctls") or {})


def what_it_wrote(text: str) -> str:
    return f"It wrote:\n{text}" if text else "It wrote nothing."


def _silent(wrote: str) -> str:
    return f"The sidecar is running, but sent no sockets within {START_SECONDS:g} seconds. {wrote}"


def _ipv6_settings() -> dict[str, str]:
    """Where this machine runs Linux, the engine shares its kernel, which may lack IPv6."""
    lacks = sys.platform == "linux" and not os.path.isdir(_IPV6_SETTINGS)
    return {} if lacks else dict(_ENABLE_IPV6)
