"""The descriptor link: the sockets of a target's network namespace, held by the test process.

The sidecar makes them and passes their descriptors (SCM_RIGHTS) over the unix socket of a `Rendezvous`;
from then on the kernel serves the test process directly. No thread runs here. Any one descriptor that
stays open keeps the namespace alive, so `close` closes every one.
"""

from __future__ import annotations

import array
import errno
import itertools
import socket
import sys
import threading
from collections.abc import Mapping, Sequence

from pytest_egress.agent.addresses import ADDRESS4, ADDRESS6
from pytest_egress.agent.capture import FRAMES, dropped
from pytest_egress.agent.main import CONTROL, FAILED, READY, SOCKETS, WITH
from pytest_egress.agent.original_destination import original_destination
from pytest_egress.base.clock import monotonic
from pytest_egress.base.forks import close_in_forked_children
from pytest_egress.base.sockets import Socket, shut
from pytest_egress.errors import LinkError

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

REFILL_SECONDS = 5.0
"""How long the agent may take to hand out more sockets: it does nothing else."""

HAND_OVER_SECONDS = 10.0
"""How long the agent may take from connecting to handing over: two milliseconds, unless the kernel
first loads modules."""

_DESCRIPTORS = 64  # more than the agent ever passes at once
_TEXT_BYTES = 1 << 16


class DescriptorLink:
    """The sockets of one namespace.

    They are blocking, and belong to whoever reads them until `close`, which must come after that
    reader has ended. Capture goes on when the sidecar has died: end of file on `channel` tells it.
    A forked child keeps none of them, and never shuts its parent's.

    Attributes:
        tcp: Listeners on 127.0.0.1 and, with IPv6, on ::1: every TCP connection of the target
            arrives on one of them.
        dns: UDP sockets on the same addresses: every DNS query. A plain `sendto` answers.
        packets: The NFLOG socket: what else was attempted, for `agent.packets.parse_packets`.
        monitors: Sockets that tell of changes to what captures, for `tampering`.
        channel: The connection to the agent. Nothing is ever read from it but end of file, when the
            sidecar has ended; requests for more sockets have a connection of their own.
        reason: What that end of file means.
        ipv6: Whether the namespace has IPv6.
        frames: Whether `packets` tells of frames that a packet socket sends, too.
        most: How many connections of the target it has room for: the kernel's own bounds alone count.
    """

    tcp: tuple[socket.socket, ...]
    dns: tuple[socket.socket, ...]
    packets: socket.socket
    monitors: tuple[socket.socket, ...]
    channel: socket.socket
    reason = "it has ended"
    most = sys.maxsize
    ipv6: bool
    frames: bool

    def __init__(
        self, channel: socket.socket, sockets: Mapping[str, Sequence[socket.socket]], frames: bool
    ) -> None:
        self.channel, self.frames = channel, frames
        self.ipv6 = "tcp6" in sockets
        self.tcp = (*sockets["tcp4"], *sockets.get("tcp6", ()))
        self.dns = (*sockets["dns4"], *sockets.get("dns6", ()))
        (self.packets,), self.monitors = sockets["packets"], tuple(sockets["monitors"])
        (self._control,) = sockets[CONTROL]
        self._control.settimeout(REFILL_SECONDS)
        self._lock = threading.Lock()
        self._spare: dict[int, list[socket.socket]] = {socket.AF_INET: [], socket.AF_INET6: []}
        self._closed = False
        close_in_forked_children(self, DescriptorLink._close_all)

    @classmethod
    def receive(cls, channel: socket.socket) -> DescriptorLink:
        """Make the link of what the agent sends first over a connection, which it then owns.

        Raises:
            LinkError: The agent says why it gives up, ended, or is silent; or this process has too
                few descriptors left.
        """
        try:
            channel.settimeout(HAND_OVER_SECONDS)
            data, sockets = receive_sockets(channel)
            channel.settimeout(None)
        except OSError as error:
            channel.close()
            raise LinkError(f"The sidecar's sockets did not arrive: {error}.") from error
        word, _, text = data.partition(b" ")
        if word != READY:
            channel.close()
            said = text.decode("utf-8", "replace") if word == FAILED else ""
            raise LinkError(said or "The sidecar ended before it handed over its sockets.")
        names, _, features = text.decode("utf-8", "replace").partition(f" {WITH.decode()} ")
        try:
            return cls(channel, by_name(names, sockets), FRAMES in features.split())
        except (KeyError, ValueError):
            for sock in (channel, *sockets):
                sock.close()
            raise LinkError(
                f"The sidecar runs no agent of ours: it sent {len(sockets)} sockets as {names!r}."
            ) from None

    def destination(self, sock: socket.socket) -> tuple[str, int] | None:
        """What the client of an accepted connection dialled; None for the listener itself: no egress.

        Raises:
            OSError: ENOENT where the kernel no longer tracks the connection.
        """
        dialled = original_destination(sock)
        return None if dialled == sock.getsockname()[:2] else dialled

    @property
    def lost_packets(self) -> int:
        """How many packets have not come to be read from `packets`."""
        return dropped(self.packets)

    def flush(self, timeout: float) -> None:
        """Nothing is under way: what the target has done is in these sockets."""

    def connect(self, port: int, timeout: float) -> socket.socket:
        """Connect to a port of the target, whichever of its own addresses it listens on.

        Safe to call from any thread.

        Args:
            port: The port inside the namespace.
            timeout: Seconds for the whole attempt. The socket that is returned has none.

        Raises:
            OSError: As from any connection: refused, timed out; or the sidecar has ended.
        """
        deadline = monotonic() + timeout
        failures: list[OSError] = []
        for family, address in self._addresses():
            sock = self._take(family)
            try:
                sock.settimeout(max(deadline - monotonic(), 0.001))
                sock.connect((address, port))
            except OSError as error:
                sock.close()
                failures.append(error)
            else:
                sock.settimeout(None)
                return sock
        raise failures[0]

    def close(self) -> None:
        """Close every descriptor, and with the last of them the namespace; again is harmless."""
        if self._closed:
            return
        self._closed = True
        for sock in (*self.tcp, self._control):
            shut(sock)  # wakes a thread in accept, and one that waits for more sockets
        with self._lock:
            self._close_all()

    def _addresses(self) -> list[tuple[int, str]]:
        families: list[tuple[int, str, str]] = [
            (socket.AF_INET, "127.0.0.1", ADDRESS4),
            (socket.AF_INET6, "::1", ADDRESS6),
        ]
        usable = families if self.ipv6 else families[:1]
        loopback = [(family, address) for family, address, _ in usable]
        return [*loopback, *((family, address) for family, _, address in usable)]

    def _take(self, family: int) -> socket.socket:
        """An unconnected socket of the namespace."""
        with self._lock:
            if self._closed:
                raise OSError(errno.ENOTCONN, "the link to the sidecar is closed")
            if not self._spare[family]:
                self._refill(family)
            return self._spare[family].pop()

    def _refill(self, family: int) -> None:
        self._control.send(b"6" if family == socket.AF_INET6 else b"4")
        try:
            data, sockets = receive_sockets(self._control)
        except TimeoutError:
            shut(self._control)  # a late answer would be taken for that of the next request
            raise
        if data != SOCKETS:
            reason = data.partition(b" ")[2].decode("utf-8", "replace") or "it has ended"
            raise OSError(errno.ENOTCONN, f"no socket from the sidecar: {reason}")
        self._spare[family] = sockets

    def _close_all(self) -> None:
        self._closed = True
        spare = [sock for sockets in self._spare.values() for sock in sockets]
        fixed = (*self.tcp, *self.dns, self.packets, *self.monitors, self.channel, self._control)
        for sock in (*fixed, *spare):
            sock.close()


def by_name(names: str, sockets: Sequence[socket.socket]) -> dict[str, list[socket.socket]]:
    """The sockets of the agent's first message, by the names in it: "tcp4*8 dns4 packets".

    Raises:
        ValueError: There are more or fewer of them than names.
    """
    words = (word.partition("*") for word in names.split())
    counts = {name: int(count or 1) for name, _, count in words}
    if sum(counts.values()) != len(sockets):
        raise ValueError(names)
    left = iter(sockets)
    return {name: [*itertools.islice(left, count)] for name, count in counts.items()}


def receive_sockets(sock: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """Receive one message and the sockets that came with it, not inheritable.

    Raises:
        OSError: EMFILE where the kernel dropped descriptors for want of room (unix(7), MSG_CTRUNC).
    """
    # Not socket.recv_fds: it drops its flags argument, so the descriptors would be inheritable.
    room = socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)
    data, ancillary, flags, _ = sock.recvmsg(_TEXT_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    sockets: list[socket.socket] = [Socket(fileno=descriptor) for descriptor in descriptors]
    if flags & socket.MSG_CTRUNC:
        for received in sockets:
            received.close()
        raise OSError(errno.EMFILE, "too few descriptors left (raise the limit, `ulimit -n`)")
    return data, sockets
