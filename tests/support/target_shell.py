"""A container in a sidecar's namespace that runs snippets of Python, for tests of what captures."""

from __future__ import annotations

import errno
import os
import select
import socket
import textwrap
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from pytest_egress.base.choices import LinkKind
from pytest_egress.engine.engine import run_command
from pytest_egress.link.attach import Output
from pytest_egress.targets.sidecars.provision import SidecarSetup
from pytest_egress.targets.sidecars.sidecar import AnyLink, Sidecar
from pytest_egress.traffic.packets import Packet, parse_packets

SECONDS = 10.0  # what is bound to happen, on however slow a machine
COMMAND_SECONDS = 60.0  # between two pieces of a command's output

_PREAMBLE = """
import errno, os, socket, struct, sys, time
OWN4, OWN6 = "10.213.0.2", "fd00:213::2"
def attempt(action):
    try:
        return action()
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
def tcp(source, destination, port, flags=2, wrong=0):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    segment = struct.pack("!HHIIBBHHH", 4000, port, 7, 0, 5 << 4, flags, 64240, 0, 0)
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    right = checksum(ends + struct.pack("!HH", 6, len(segment)) + segment)
    return segment[:16] + struct.pack("!H", right ^ wrong) + segment[18:]
def udp(port, data):
    return struct.pack("!HHHH", 4000, port, 8 + len(data), 0) + data
def ip(source, destination, protocol, content, fragment=0):
    if ":" in source:
        ends = socket.inet_pton(10, source) + socket.inet_pton(10, destination)
        if fragment:
            content = struct.pack("!BxHI", protocol, fragment, 7) + content
            protocol = 44
        return struct.pack("!IHBB", 6 << 28, len(content), protocol, 64) + ends + content
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    start = struct.pack("!BxHHHBBH", 69, 20 + len(content), 7, fragment, 64, protocol, 0)
    return start + ends + content
def raw(family, protocol, data, destination, device=b""):
    sender = socket.socket(family, socket.SOCK_RAW, protocol)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    return attempt(lambda: sender.sendto(data, (destination, 0)))
def frame(ethertype, content, device="eth0"):
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind((device, 0))
    return sender.send(b"\\2" * 6 + b"\\4" * 6 + struct.pack("!H", ethertype) + content)
"""


class Target:
    """A container that waits for snippets."""

    def __init__(self, container: Container) -> None:
        self.container = container

    def python(self, code: str) -> str:
        """What the snippet prints, stripped; a failure of it is one of the test."""
        assert self.container.client is not None
        command = ["python3", "-c", _PREAMBLE + textwrap.dedent(code)]
        api, output = self.container.client.api, Output()
        exit_code = run_command(
            api, str(self.container.id), command, output, lambda: COMMAND_SECONDS
        )
        written = (output.stdout + output.stderr).decode()
        assert exit_code == 0, written
        return written.strip()

    def start_python(self, code: str) -> None:
        """Start the snippet and leave it running."""
        command = ["python3", "-c", _PREAMBLE + textwrap.dedent(code)]
        self.container.exec_run(command, detach=True)


def readable(sockets: tuple[socket.socket, ...], seconds: float = SECONDS) -> socket.socket:
    """The first of the sockets that can be read."""
    ready, _, _ = select.select(sockets, [], [], seconds)
    assert ready, "nothing arrived"
    found = ready[0]
    assert isinstance(found, socket.socket)
    return found


def accepted(link: AnyLink) -> socket.socket:
    """The next connection of the target, on whichever listener."""
    return readable(link.tcp).accept()[0]


def wait_until_gone(client: docker.DockerClient, container: str) -> None:
    """Return when the engine knows the container no longer. While Podman removes one, it answers 500."""
    while True:
        try:
            client.api.inspect_container(container)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != HTTPStatus.INTERNAL_SERVER_ERROR:
                raise


def assert_a_child_keeps_nothing(link: AnyLink) -> None:
    """A forked child has no descriptor of a link, and can close it without harm."""
    assert link.datagrams is not None
    others = (link.datagrams, link.packets, link.channel)
    sockets = (*link.tcp, *link.dns, *link.monitors, *others)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: a fork beside threads
        child = os.fork()
    if child == 0:
        link.close()
        os._exit(0 if all(sock.fileno() == -1 for sock in sockets) else 1)
    assert os.waitpid(child, 0)[1] == 0


@contextmanager
def captured_namespace(
    client: docker.DockerClient, kind: LinkKind = "descriptor"
) -> Iterator[tuple[Sidecar, AnyLink]]:
    """A sidecar of its own and its link, both gone at the end."""
    sidecar = Sidecar.create(client, setup=SidecarSetup(kind))
    try:
        link = sidecar.start()
        try:
            yield sidecar, link
        finally:
            link.close()
    finally:
        sidecar.remove()


@contextmanager
def target_in(
    client: docker.DockerClient, sidecar: Sidecar, image: str, **options: Any
) -> Iterator[Target]:
    """A target in the sidecar's namespace."""
    raw = [*options.pop("cap_add", ()), "NET_RAW"]  # Docker's default, and not Podman's
    container = client.containers.create(
        image, ["sleep", "600"], network_mode=f"container:{sidecar.id}", cap_add=raw, **options
    )
    try:
        container.start()
        yield Target(container)
    finally:
        container.remove(force=True)


LINK: LinkKind = "stream" if os.environ.get("PYTEST_EGRESS_LINK") == "stream" else "descriptor"


def is_silent(sockets: tuple[socket.socket, ...]) -> bool:
    return not select.select(sockets, [], [], 0)[0]


def packets(link: AnyLink) -> list[Packet]:
    """Every packet recorded by now: NFLOG delivers before the client's call returns."""
    found: list[Packet] = []
    flushing = threading.Thread(target=link.flush, args=(SECONDS,))
    flushing.start()
    while True:
        flushed = not flushing.is_alive()
        try:
            found += parse_packets(link.packets.recv(1 << 16, socket.MSG_DONTWAIT))
        except BlockingIOError:
            if flushed:
                return found
            flushing.join(0.001)
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # the kernel lost some
                raise


# ------------------------------------------------------------------ DNS

QUERY = bytes.fromhex("12340100000100000000000003617069047465737400" + "00010001")
