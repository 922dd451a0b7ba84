"""A stream link whose agent is a thread, and clients of it in place of a target's."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from typing import cast

from pytest_egress.agent.capture import Capture
from pytest_egress.agent.dials import Dials
from pytest_egress.agent.direct import NUMBER
from pytest_egress.agent.mux import AGENT, MAX_STREAMS, Mux
from pytest_egress.agent.relay import KEY_BYTES, READY, SECRET_BYTES, SocketPasser
from pytest_egress.agent.stream import Agent, StandardStreams
from pytest_egress.link.attach import Attachment, connect
from pytest_egress.link.direct import DirectWay
from pytest_egress.link.stream import StreamLink
from tests.support.stage import eventually
from tests.support.target_shell import SECONDS, accepted

MEGABYTE = 1 << 20


def read_until(attachment: Attachment, size: int) -> bytes:
    """So many bytes of its standard output."""
    found = b""
    while len(found) < size:
        select.select([attachment], [], [], SECONDS)
        data = attachment.read()
        assert data is not None
        found += data
    return found


def connect_while_served(
    listener: socket.socket, context: ssl.SSLContext, address: str
) -> socket.socket:
    """Connect without the CA to a server that tries its part of the handshake."""

    def shake() -> None:
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(listener.accept()[0], server_side=True),
        ):
            pass

    thread = threading.Thread(target=shake)
    thread.start()
    try:
        return connect(address)
    finally:
        thread.join(SECONDS)


# ------------------------------------------------------------------ both ends, without an engine


class PacketSocket(socket.socket):
    """What stands for the packet socket for datagrams, which has dropped none."""

    def getsockopt(self, *_: object) -> bytes:  # type: ignore[override]  # of PACKET_STATISTICS alone
        return bytes(8)


class Namespace:
    """What stands for a namespace: listeners and sockets of this machine, and the agent on a thread."""

    ipv6, frames, statistics = False, True, None

    def __init__(self, *, has_datagrams: bool = True) -> None:
        self.tcp = [socket.create_server(("127.0.0.1", 0), backlog=512)]
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        names.bind(("127.0.0.1", 0))
        self.dns = [names]
        frames, self.datagram_source = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._frames = PacketSocket(fileno=frames.detach())
        self.datagrams = self._frames if has_datagrams else None  # None as without CAP_NET_RAW
        self.packets, self.packet_source = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
        self.monitors = [pair[0] for pair in pairs]
        self.monitor_sources = [pair[1] for pair in pairs]

    def sockets(self) -> list[socket.socket]:
        return [*self.tcp, *self.dns, self._frames, self.packets, *self.monitors]

    def close(self) -> None:
        sources = (self.datagram_source, self.packet_source, *self.monitor_sources)
        for sock in (*self.sockets(), *sources):
            sock.close()


class ScriptedDials:
    """What stands for the namespace's rules: it notes each change, or refuses it with a text."""

    feature = "dials=7"

    def __init__(self) -> None:
        self.changes: list[bytes] = []
        self.refusal = ""

    def change(self, data: bytes) -> str:
        self.changes.append(data)
        return self.refusal


class Unframed(Attachment):
    """A wire without an engine's frames."""

    def _take(self, data: bytes) -> bytes:
        return data


class RelayScene:
    """A relay on a thread, whose port is one of this machine's."""

    secret, key = b"s" * SECRET_BYTES, b"k" * KEY_BYTES

    def __init__(self) -> None:
        self._port, self._door = (
            socket.create_server(("127.0.0.1", 0), backlog=512),
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET),
        )
        self._door.bind("")  # an abstract address, of the kernel's choice
        self._door.listen(8)
        self.ours, self._theirs = socket.socketpair()
        for listener in (self._port, self._door):
            listener.setblocking(False)
        descriptor = self._theirs.fileno()
        self.served = SocketPasser(self._port, self._door, self.secret, descriptor, descriptor)
        self._thread = threading.Thread(target=self.served.run)
        self._thread.start()
        assert self.ours.recv(64) == READY

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._port.getsockname()
        return host, port

    def way(self, key: bytes = key) -> DirectWay:
        return DirectWay(self.address, self.secret + key, self.ours)

    def words(self, key: bytes = key, number: int = 1) -> bytes:
        """What a connection to a sidecar begins with."""
        return self.secret + key + NUMBER.pack(number)

    def enter(self, key: bytes = key) -> socket.socket:
        """What the agent of a sidecar has of it."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(self._door.getsockname())
        sock.send(key)
        return sock

    def end(self) -> None:
        self.ours.shutdown(socket.SHUT_WR)
        self._thread.join(SECONDS)
        self._theirs.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.ours.close()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        self.served.close()
        for sock in (self._theirs, self._port, self._door):
            sock.close()


class StreamScene:
    """A link, and the namespace that it leads to.

    Args:
        relay: The relay by which connections go; the scene does not close it.
    """

    def __init__(
        self,
        most: int = MAX_STREAMS,
        *,
        has_datagrams: bool = True,
        relay: RelayScene | None = None,
    ) -> None:
        self._relay = relay.enter() if relay is not None else None
        self.namespace = Namespace(has_datagrams=has_datagrams)
        self.dials = ScriptedDials()
        ours, theirs = socket.socketpair()
        self.theirs, self.mux = theirs, Mux(AGENT, most)
        self.output = theirs.dup()  # standard input and output are two descriptors
        self.wire = StandardStreams(self.mux, theirs.fileno(), self.output.fileno())
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()
        self.link = StreamLink(Unframed(ours), None if relay is None else relay.way())
        self.link.start(SECONDS)
        if relay is not None:
            assert eventually(self.has_stock)

    def has_stock(self) -> bool:
        direct = self.served._direct
        return direct is not None and bool(direct._stock)

    def _serve(self) -> None:
        capture, dials = cast("Capture", self.namespace), cast("Dials", self.dials)
        served = Agent(self.mux, self.wire, capture, dials, SECONDS, self._relay)
        self.served = served
        with contextlib.suppress(OSError):  # the link is gone
            served.run()
            self.wire.finish()
        served._pump.close()
        if served._direct is not None:
            served._direct.close()
        served._interests.close()

    def dial(self) -> tuple[socket.socket, socket.socket]:
        """A client inside, and what the gateway has of it."""
        client = socket.create_connection(self.namespace.tcp[0].getsockname(), SECONDS)
        return client, accepted(self.link)

    def close(self) -> None:
        self.link.close()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        self.theirs.close()
        self.output.close()
        self.namespace.close()


failures: list[str] = []
accepting = threading.Lock()


def echo(scene: StreamScene, body: bytes) -> None:
    with socket.create_connection(scene.namespace.tcp[0].getsockname(), 30) as client:
        feeder = threading.Thread(target=feed, args=(client, body))
        feeder.start()
        if read_all(client) != body:
            failures.append(f"{len(body)} bytes came back otherwise")
        feeder.join(30)


def feed(sock: socket.socket, body: bytes) -> None:
    sock.sendall(body)
    sock.shutdown(socket.SHUT_WR)


def serve_echo(link: StreamLink) -> None:
    with accepting:
        sock = accepted(link)
    with sock:
        while data := sock.recv(65536):
            sock.sendall(data)


# ------------------------------------------------------------------ helpers


def read_all(sock: socket.socket) -> bytes:
    found = bytearray()
    read_into(found, sock)
    return bytes(found)


def read_into(found: bytearray, sock: socket.socket) -> None:
    while data := sock.recv(1 << 18):
        found += data


def fill(sock: socket.socket) -> int:
    """Send until the last buffer on the way is full; how many bytes that took."""
    sock.setblocking(False)
    sent = 0
    while select.select([], [sock], [], 0.5)[1]:
        sent += sock.send(bytes(MEGABYTE))
    return sent


def ended(sock: socket.socket) -> bool:
    sock.settimeout(SECONDS)
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))
