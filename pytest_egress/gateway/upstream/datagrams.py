"""`DatagramRelays`: what `forward()` does with datagrams: each flow has a socket of its own to the server.

The socket is connected, so that the kernel drops what comes from any other address. One to a container is in its
namespace, or stands for such a socket. Every datagram that arrives answers
its flow. A flow ends when it has been idle, when too many others are younger, or when its owner says so; the next
datagram of its client begins another one, from another port.

Threads: any thread calls; one of its own, which the first flow starts, reads all sockets. The lock guards the flows,
and each use of their sockets. It is not held while a name is resolved, nor while an answer is given.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, NamedTuple

import pytest_egress.base.sockets as sockets
from pytest_egress.base.clock import monotonic
from pytest_egress.base.polling import poller
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.upstream.exchange import SocketAddress, unreserved
from pytest_egress.routes.answers import DatagramConnectable
from pytest_egress.traffic.shown import host_port

IDLE_SECONDS: Final = 30.0
"""How long a flow waits for the next datagram of either side."""

MAX_RELAYS: Final = 256
"""How many flows of a target are forwarded at once, each with a descriptor of this process: beyond, the oldest ends."""

BATCH: Final = 64  # answers to read of one flow before another one's turn
SEND_SECONDS: Final = 1.0  # for this machine's network to take a datagram
DATAGRAM_BYTES: Final = 65535

UNREACHABLE: Final = (OSError, ValueError)
"""The errors of a server that cannot be reached; ValueError: IDNA refuses the name."""


class Ports(NamedTuple):
    """A port of containers: the first one that listens there is the server."""

    containers: Sequence[DatagramConnectable]
    port: int


Server = tuple[str, int] | Ports
"""A host that this machine reaches, and its port; or a port of containers."""

AnswerTaker = Callable[["bytes | None"], None]
"""Is called with the content of each answer; with None where nobody listens at the server's port."""


class DatagramRelay:
    """A flow to a server. `used` is when a datagram last came of either side, by the monotonic clock."""

    def __init__(self, key: Hashable, sock: socket.socket, answered: AnswerTaker) -> None:
        self.key, self.sock, self.answered, self.used = key, sock, answered, 0.0


class DatagramRelays:
    """Those of one target.

    Args:
        name: The name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._relays: dict[Hashable, DatagramRelay] = {}  # the one that was used last is the last
        self._readable: dict[int, DatagramRelay] = {}
        self._thread: threading.Thread | None = None
        self._poller: Any = None
        self._waker: socket.socket | None = None
        self._wake: socket.socket | None = None
        self._is_stopped = False

    def __len__(self) -> int:
        return len(self._relays)

    def send(
        self,
        key: Hashable,
        server: Server,
        content: bytes,
        answered: AnswerTaker,
        remedy: str = "",
    ) -> None:
        """Send a datagram of a flow to its server.

        Args:
            key: What tells the flow from others.
            answered: What takes the answers from now on.
            remedy: The line of code that would name this very host; with it, reserved addresses are not reached.

        Raises:
            UpstreamError: The server cannot be reached, or its addresses are reserved.
        """
        was_refused: bool | None = None
        while was_refused is None:  # one whose flow has just ended begins another one
            sock = None if key in self._relays else connect(server, remedy)
            with self._lock:
                if (relay := self._flow(key, sock, answered)) is None:
                    if self._is_stopped:
                        return
                    continue
                try:
                    was_refused = self._send(relay.sock, content)
                except OSError as error:
                    raise UpstreamError(f"{named(server)} cannot be reached: {error}") from error
        if was_refused:
            answered(None)

    def end(self, is_over: Callable[[Any], bool]) -> None:
        """End the flows whose keys a function says are over."""
        with self._lock:
            for relay in [each for each in self._relays.values() if is_over(each.key)]:
                self._close(relay)

    def stop(self) -> None:
        """End all flows; calling it again does nothing."""
        with self._lock:
            for relay in [*self._relays.values()]:
                self._close(relay)
            self._is_stopped = True  # after the flows: the thread closes the poller then
            if self._waker is not None:
                self._waker.close()
                self._waker = None

    def join(self, deadline: float) -> None:
        """Wait for the thread to end, which closes what it has waited for."""
        if self._thread is not None:
            self._thread.join(max(deadline - monotonic(), 0))

    def abandon(self) -> None:
        """Close a forked child's copies of the sockets, by no lock; the child has no thread of these."""
        others = (each for each in (self._waker, self._wake) if each is not None)
        for sock in [*(relay.sock for relay in self._relays.values()), *others]:
            if sock.fileno() >= 0:
                os.close(sock.detach())
        if self._poller is not None:
            self._poller.close()

    # The caller holds the lock.

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._poller, (self._waker, self._wake) = poller(), sockets.pair()
        self._waker.setblocking(False)
        self._poller.register(self._wake.fileno(), select.POLLIN)
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _flow(
        self, key: Hashable, sock: socket.socket | None, answered: AnswerTaker
    ) -> DatagramRelay | None:
        """The flow of a key, by a new socket where there is none yet; None without either, and after the end."""
        relay = self._relays.get(key)
        if sock is not None and (relay is not None or self._is_stopped):
            sock.close()
        elif sock is not None:
            relay = DatagramRelay(key, sock, answered)
            self._add(relay)
        if relay is not None:
            relay.answered = answered
            self._use(relay)
        return relay

    def _add(self, relay: DatagramRelay) -> None:
        self._start()
        self._relays[relay.key] = self._readable[relay.sock.fileno()] = relay
        self._poller.register(relay.sock.fileno(), select.POLLIN)
        if len(self._relays) > MAX_RELAYS:
            self._close(next(iter(self._relays.values())))
        if self._waker is not None:
            with contextlib.suppress(BlockingIOError):  # it is awake
                self._waker.send(b"f")

    def _use(self, relay: DatagramRelay) -> None:
        relay.used = monotonic()
        self._relays[relay.key] = self._relays.pop(relay.key)

    def _close(self, relay: DatagramRelay) -> None:
        del self._relays[relay.key], self._readable[relay.sock.fileno()]
        self._poller.unregister(relay.sock.fileno())
        relay.sock.close()

    def _send(self, sock: socket.socket, content: bytes) -> bool:
        """Whether the server has refused an earlier datagram: the kernel says so in place of sending the next one."""
        was_refused = False
        try:
            sock.send(content)
        except ConnectionRefusedError:
            was_refused = True
            sock.send(content)
        except BlockingIOError:
            sockets.await_ready(sock, select.POLLOUT, SEND_SECONDS)
            sock.send(content)
        return was_refused

    # The thread that reads.

    def _run(self) -> None:
        assert self._wake is not None
        while not self._is_stopped:
            for descriptor, _ in self._poller.poll(self._end_idle()):
                if descriptor == self._wake.fileno():
                    self._wake.recv(64)
                else:
                    self._read(descriptor)
        self._wake.close()
        self._poller.close()

    def _end_idle(self) -> float | None:
        """Return in how many seconds the next flow may have been idle for too long; None where there is none."""
        with self._lock:
            for relay in [*self._relays.values()]:
                if (left := relay.used + IDLE_SECONDS - monotonic()) > 0:
                    return left
                self._close(relay)
        return None

    def _read(self, descriptor: int) -> None:
        for _ in range(BATCH):
            with self._lock:
                if (relay := self._readable.get(descriptor)) is None:
                    return
                content: bytes | None = None
                try:
                    content = relay.sock.recv(DATAGRAM_BYTES)
                except ConnectionRefusedError:
                    pass
                except BrokenPipeError:  # the link to the container has ended
                    self._close(relay)
                    return
                except OSError:  # nothing more has come, or a router knows no way to the server
                    return
                self._use(relay)
                answered = relay.answered
            answered(content)


def named(server: Server) -> str:
    """A server, for a text."""
    if not isinstance(server, Ports):
        return host_port(*server)
    return f"port {server.port} of {' and '.join(each.name for each in server.containers)}"


def connect(server: Server, remedy: str = "") -> socket.socket:
    """A socket that exchanges datagrams with a server alone. It does not block.

    Raises:
        UpstreamError: The server cannot be reached, or nobody listens at that port of a container.
    """
    if isinstance(server, Ports):
        return connect_container(server)
    return connect_host(*server, remedy)


def connect_container(server: Ports) -> socket.socket:
    last = Exception("no container has that name")
    for container in server.containers:
        try:
            sock: socket.socket = container.connect_datagrams(server.port)
        except OSError as error:
            last = error
        else:
            sock.setblocking(False)
            return sock
    raise UpstreamError(f"{named(server)} cannot be reached: {last}") from last


def connect_host(host: str, port: int, remedy: str = "") -> socket.socket:
    """Connect to a host that this machine reaches.

    A name's IPv4 addresses come first: nothing tells that a server of UDP does not listen at its IPv6 one.

    Raises:
        UpstreamError: The name has no address, or this machine no way there, or all addresses are reserved.
    """
    where, last = host_port(host, port), Exception("it has no address")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except UNREACHABLE as error:
        raise UpstreamError(f"{where} cannot be reached: {error}") from error
    addresses = [each[4] for each in sorted(found, key=lambda each: each[0] != socket.AF_INET)]
    for address in unreserved(where, addresses, remedy) if remedy else addresses:
        try:
            return connected(address)
        except UNREACHABLE as error:
            last = error
    raise UpstreamError(f"{where} cannot be reached: {last}") from last


def connected(address: SocketAddress) -> socket.socket:
    sock = sockets.Socket(
        socket.AF_INET6 if len(address) == 4 else socket.AF_INET, socket.SOCK_DGRAM
    )
    try:
        sock.connect(address)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
