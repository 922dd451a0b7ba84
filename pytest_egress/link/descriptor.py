"""The descriptor link: the test process itself holds the sockets of a target's network namespace.

The sidecar makes them and passes their descriptors (SCM_RIGHTS) over the unix socket of a `Rendezvous`.
From then on the kernel serves the test process directly, without a copy. This module starts no thread;
any thread may call `connect`. A single open descriptor keeps the namespace alive, so `close` closes all.
"""

from __future__ import annotations

import array
import errno
import itertools
import os
import socket
import stat
import sys
import threading
from collections.abc import Mapping, Sequence
from io import FileIO

import pytest_egress.agent.main as agent
from pytest_egress.agent.capture import (
    FRAMES,
    dropped,
    dropped_datagrams,
    target_addresses,
    untracked,
)
from pytest_egress.agent.original_destination import original_destination
from pytest_egress.base.clock import monotonic
from pytest_egress.base.forks import close_in_forked_children
from pytest_egress.base.sockets import Socket, shut
from pytest_egress.errors import LinkError
from pytest_egress.link.changes import not_changed, own_port

REFILL_SECONDS = 30.0
"""How long the agent may take to answer a request. It does nothing else, but may have to wait for a processor."""

HAND_OVER_SECONDS = 30.0
"""How long the agent may take from connecting to passing its sockets. It takes two milliseconds, unless
the kernel has to load modules first, or others have the processors."""

_DESCRIPTORS = 64  # more than the agent ever passes at once
_TEXT_BYTES = 1 << 16


class DescriptorLink:
    """The sockets of one network namespace, as descriptors of this process.

    They are blocking, and belong to the gateway that reads them; call `close` after that has ended.
    Capture continues when the sidecar has died, which end of file on `channel` shows. A forked child
    closes its copies, and never shuts down its parent's sockets.

    Attributes:
        tcp: Listeners on 127.0.0.1 and, with IPv6, on ::1.
        channel: The connection to the agent. Nothing is read from it but end of file: requests for more sockets have
            a connection of their own.
        datagrams: The packet socket for the datagrams that rules let out, and for their answers; or None.
        frames: Whether `packets` also has the frames that packet sockets send.
        keeps_sidecar: Whether `close` leaves the sidecar, so that `renew` can be called.
    """

    reason = "it has ended"
    most = sys.maxsize  # only the kernel limits them

    def __init__(
        self,
        channel: socket.socket,
        sockets: Mapping[str, Sequence[socket.socket]],
        features: Sequence[str],
        statistics: FileIO | None = None,
    ) -> None:
        self.channel, self.frames, self.own_port = channel, FRAMES in features, own_port(features)
        self.ipv6 = "tcp6" in sockets
        self.tcp = (*sockets["tcp4"], *sockets.get("tcp6", ()))
        self.dns = (*sockets["dns4"], *sockets.get("dns6", ()))
        self.datagrams = next(iter(sockets.get("datagrams", ())), None)
        (self.packets,), self.monitors = sockets["packets"], tuple(sockets["monitors"])
        (self._control,) = sockets[agent.CONTROL]
        self._control.settimeout(REFILL_SECONDS)
        self._statistics = statistics
        self._lock, self._dropped = threading.Lock(), 0  # datagrams, by the kernel
        self._spare: dict[int, list[socket.socket]] = {socket.AF_INET: [], socket.AF_INET6: []}
        self._closed = self.keeps_sidecar = False
        close_in_forked_children(self, DescriptorLink._close_all)

    @classmethod
    def receive(cls, channel: socket.socket) -> DescriptorLink:
        """Make a link of the agent's first message on a connection, which the link then owns.

        Raises:
            LinkError: The agent gave up, with its own text, ended, or sent nothing; or no descriptors are left.
        """
        try:
            channel.settimeout(HAND_OVER_SECONDS)
            data, sockets, statistics = receive_handed(channel)
            channel.settimeout(None)
        except OSError as error:
            channel.close()
            raise LinkError(f"The sidecar's sockets did not arrive: {error}.") from error
        word, _, text = data.partition(b" ")
        if word != agent.READY:
            channel.close()
            said = text.decode("utf-8", "replace") if word == agent.FAILED else ""
            raise LinkError(said or "The sidecar ended before it handed over its sockets.")
        names, _, features = text.decode("utf-8", "replace").partition(f" {agent.WITH.decode()} ")
        try:
            return cls(channel, by_name(names, sockets), features.split(), statistics)
        except (KeyError, ValueError):
            for handed in (channel, *sockets, *([statistics] if statistics else ())):
                handed.close()
            raise LinkError(
                f"The sidecar runs no agent of ours: it sent {len(sockets)} sockets as {names!r}."
            ) from None

    def destination(self, sock: socket.socket) -> tuple[str, int] | None:
        """None where the client dialled the listener itself; OSError with ENOENT where the kernel has forgotten it."""
        dialled = original_destination(sock)
        return None if dialled == sock.getsockname()[:2] else dialled

    @property
    def lost_packets(self) -> int:
        if self.datagrams is not None and not self._closed:
            self._dropped += dropped_datagrams(self.datagrams)
        lost = 0 if self._closed else untracked(self._statistics)
        return dropped(self.packets) + self._dropped + lost

    def flush(self, timeout: float) -> None:
        """Return at once: everything that the target has done is in these sockets already."""

    def change_dials(self, message: bytes) -> None:
        try:
            with self._lock:
                answer = self._ask(message)[0]
        except OSError as error:
            raise not_changed(message, error) from error
        if answer != agent.CHANGED:
            raise not_changed(message, reason_in(answer))

    def connect(self, port: int, timeout: float) -> socket.socket:
        deadline = monotonic() + timeout
        failures: list[OSError] = []
        for family, address in target_addresses(self.ipv6):
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

    def connect_datagrams(self, port: int) -> socket.socket:
        with self._lock:
            data, sockets = self._ask(agent.PORT + b"%d" % port)
        if data == agent.SOCKETS:
            return sockets[0]
        if data == agent.NOBODY:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        raise OSError(errno.ENOTCONN, f"no socket from the sidecar: {reason_in(data)}")

    def close(self) -> None:
        """Close every descriptor; the kernel removes the namespace with the last. Calling it again does nothing.

        Where `keeps_sidecar` is set, the two sockets to the sidecar stay open.
        """
        if not self._closed:
            self._closed = True
            for sock in (*self.tcp, *(() if self.keeps_sidecar else (self._control,))):
                shut(sock)  # wakes a thread in accept, and one that waits for more sockets
        with self._lock:
            if self.keeps_sidecar:
                self._close_own()
            else:
                self._close_all()

    def is_joined(self) -> bool:
        """Whether the engine has started a target here (`agent.main.JOINED`); OSError where the sidecar has ended."""
        with self._lock:
            return self._ask(agent.JOINED)[0] == agent.JOINED

    def put_back(self) -> bool:
        """Have the sidecar put back the files that a target shares with it; return whether they are as they were."""
        try:
            self._control.send(agent.PUT_BACK)
            return self._control.recv(_TEXT_BYTES) == agent.PUT_BACK
        except OSError:  # the sidecar has ended
            return False

    def renew(self) -> DescriptorLink:
        """Have the sidecar move to a new network namespace, and return its link; this one has been closed.

        Raises:
            LinkError: The sidecar could not; the text says why.
            OSError: It has ended.
        """
        self.channel.send(agent.MOVE)
        link = DescriptorLink.receive(self.channel)
        self._control.close()
        return link

    def _take(self, family: int) -> socket.socket:
        with self._lock:
            self._check_open()
            if not self._spare[family]:
                data, sockets = self._ask(b"6" if family == socket.AF_INET6 else b"4")
                if data != agent.SOCKETS:
                    raise OSError(errno.ENOTCONN, f"no socket from the sidecar: {reason_in(data)}")
                self._spare[family] = sockets
            return self._spare[family].pop()

    def _ask(self, request: bytes) -> tuple[bytes, list[socket.socket]]:
        """The caller holds the lock."""
        self._check_open()
        self._control.send(request)
        try:
            return receive_sockets(self._control)
        except TimeoutError:
            shut(self._control)  # a late answer would be taken for that of the next request
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.ENOTCONN, "the link to the sidecar is closed")

    def _close_all(self) -> None:
        self._closed = True
        self._close_own()
        for sock in (self.channel, self._control):
            sock.close()

    def _close_own(self) -> None:
        spare = [sock for sockets in self._spare.values() for sock in sockets]
        datagrams = () if self.datagrams is None else (self.datagrams,)
        for sock in (*self.tcp, *self.dns, *datagrams, self.packets, *self.monitors, *spare):
            sock.close()
        if self._statistics is not None:
            self._statistics.close()


def reason_in(answer: bytes) -> str:
    """An empty answer means that the agent has ended."""
    return answer.partition(b" ")[2].decode("utf-8", "replace") or "it has ended"


def by_name(names: str, sockets: Sequence[socket.socket]) -> dict[str, list[socket.socket]]:
    """Assign the sockets to the names, such as "tcp4*8 dns4 packets"; ValueError where their numbers differ."""
    words = (word.partition("*") for word in names.split())
    counts = {name: int(count or 1) for name, _, count in words}
    if sum(counts.values()) != len(sockets):
        raise ValueError(names)
    left = iter(sockets)
    return {name: [*itertools.islice(left, count)] for name, count in counts.items()}


def receive_sockets(sock: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """As `receive_handed`, where sockets alone are expected."""
    data, sockets, statistics = receive_handed(sock)
    if statistics is not None:
        statistics.close()
    return data, sockets


def receive_handed(sock: socket.socket) -> tuple[bytes, list[socket.socket], FileIO | None]:
    """A message, its sockets, and the file that is among them.

    They are not inheritable; OSError with EMFILE where the kernel dropped some (unix(7), MSG_CTRUNC).
    """
    # Not socket.recv_fds: it drops its flags argument, so the descriptors would be inheritable.
    room = socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)
    data, ancillary, flags, _ = sock.recvmsg(_TEXT_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    sockets: list[socket.socket] = []
    files: list[FileIO] = []
    for descriptor in descriptors:
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            sockets.append(Socket(fileno=descriptor))
        else:
            files.append(FileIO(descriptor))
    if flags & socket.MSG_CTRUNC:
        handed: list[socket.socket | FileIO] = [*sockets, *files]
        for each in handed:
            each.close()
        raise OSError(errno.EMFILE, "too few descriptors left (raise the limit, `ulimit -n`)")
    return data, sockets, next(iter(files), None)
