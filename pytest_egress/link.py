"""The descriptor link: the sockets of a target's network namespace, held by the test process.

The sidecar makes them and passes their descriptors (SCM_RIGHTS) over a unix socket in a folder that
it has mounted; from then on the kernel serves the test process directly. No thread runs here. Any
one descriptor that stays open keeps the namespace alive, so `close` closes every one.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import secrets
import shutil
import socket
import struct
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType

from pytest_egress.agent import netlink
from pytest_egress.agent.addresses import ADDRESS4, ADDRESS6, INTERFACE, PEER
from pytest_egress.agent.capture import dropped
from pytest_egress.agent.dialled import original_destination as original_destination
from pytest_egress.agent.main import FAILED, NONCE_NAME, READY, SOCKET_NAME, SOCKETS
from pytest_egress.agent.nftables import LISTENERS
from pytest_egress.clock import monotonic
from pytest_egress.errors import LinkError
from pytest_egress.forks import in_children
from pytest_egress.sockets import Socket

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

REFILL_SECONDS = 5.0
"""How long the agent may take to hand out more sockets: it does nothing else."""

HAND_OVER_SECONDS = 10.0
"""How long the agent may take from connecting to handing over: two milliseconds, unless the kernel
first loads modules."""

_DESCRIPTORS = 64  # more than the agent ever passes at once
_TEXT_BYTES = 1 << 16
_EVENT_BYTES = 1 << 16


class Rendezvous:
    """A folder to mount, in which the agent finds a nonce and a socket; a context manager.

    Args:
        parent: Where the folder is made; the machine's folder for temporary files by default.

    The outer folder keeps other users of this machine out. The inner one, which is mounted, is open
    to whatever user the sidecar's root is mapped to: without capabilities root is like anyone.

    Attributes:
        folder: The absolute path of the inner folder.
        nonce: What the agent must find there: proof that it sees this machine's files.
        socket: Listens for the agent; readable when it has connected.
    """

    def __init__(self, parent: str | None = None) -> None:
        self._outer = tempfile.mkdtemp(prefix="pytest-egress-", dir=parent)
        self.folder = f"{self._outer}/link"
        self.nonce = secrets.token_hex(16)
        self.socket = Socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._fill()
        except BaseException:
            self.close()
            raise

    def _fill(self) -> None:
        # chmod, not a mode at creation: the process may have any umask
        os.mkdir(self.folder)
        os.chmod(self.folder, 0o755)
        nonce = Path(self.folder, NONCE_NAME)
        nonce.write_text(self.nonce, encoding="ascii")
        nonce.chmod(0o644)
        # Bound through a descriptor: a unix socket's own path has room for 107 bytes (unix(7)).
        folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
        try:
            self.socket.bind(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
        finally:
            os.close(folder)
        os.chmod(f"{self.folder}/{SOCKET_NAME}", 0o666)
        self.socket.listen(1)

    def accept(self) -> DescriptorLink:
        """Take the connection of the agent and what it hands over.

        Raises:
            LinkError: The agent gave up, with its own words; or it ended, or was silent.
        """
        channel, _ = self.socket.accept()
        return DescriptorLink.receive(channel)

    def close(self) -> None:
        """Remove the folder and stop listening; the link, once accepted, needs neither."""
        self.socket.close()
        shutil.rmtree(self._outer, ignore_errors=True)

    def __enter__(self) -> Rendezvous:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class DescriptorLink:
    """The sockets of one namespace.

    They are blocking, and belong to whoever reads them until `close`, which must come after that
    reader has ended. Capture goes on when the sidecar has died: end of file on `channel` tells it.
    A forked child keeps none of them, and never shuts its parent's.

    Attributes:
        tcp: Listeners, `LISTENERS` on 127.0.0.1 and, with IPv6, as many on ::1: every TCP connection
            of the target arrives on one of them.
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
        self, channel: socket.socket, sockets: list[socket.socket], ipv6: bool, frames: bool
    ) -> None:
        families = 2 if ipv6 else 1
        listeners = families * LISTENERS
        self.channel, self.ipv6, self.frames = channel, ipv6, frames
        self.tcp = tuple(sockets[:listeners])
        self.dns = tuple(sockets[listeners : listeners + families])
        self.packets, *monitors, self._control = sockets[listeners + families :]
        self.monitors = tuple(monitors)
        self._control.settimeout(REFILL_SECONDS)
        self._lock = threading.Lock()
        self._spare: dict[int, list[socket.socket]] = {socket.AF_INET: [], socket.AF_INET6: []}
        self._closed = False
        in_children(self, DescriptorLink._close_all)

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
        words = text.split()
        return cls(channel, sockets, b"ipv6" in words, b"frames" in words)

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
            _shut(sock)  # wakes a thread in accept, and one that waits for more sockets
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
            _shut(self._control)  # a late answer would be taken for that of the next request
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


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # ENOTCONN, and yet it wakes
        sock.shutdown(socket.SHUT_RDWR)


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


# ------------------------------------------------------------------ tampering

_NFTABLES_EVENTS = {
    0: "added a table",
    2: "deleted a table",
    3: "added a chain",
    5: "deleted a chain",
    6: "added a rule",
    8: "deleted a rule",
}
_LOST = "something changed the network namespace so often that events were lost"
_NFTABLES, _NEW_GENERATION = 10, 15  # NFNL_SUBSYS_NFTABLES; what follows every transaction
_NEWLINK, _DELLINK, _DELADDR = 16, 17, 21
_NEWROUTE, _DELROUTE, _NEWRULE, _DELRULE = 24, 25, 32, 33
_TRAFFIC_CONTROL = range(36, 47)  # RTM_NEWQDISC to RTM_GETTFILTER
_LOCAL = 2  # RTN_LOCAL
_NOWHERE = range(6, 10)  # RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW
_OURS = {name.encode() + b"\0" for name in ("lo", INTERFACE, PEER)}
_OUR_ADDRESSES = {
    socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    for address in (ADDRESS4, ADDRESS6, "127.0.0.1", "::1")
}
_LOOPBACK4 = b"\x7f"  # begins every address of 127.0.0.0/8, all of which are redirected to


def tampering(monitor: socket.socket) -> str | None:
    """Read one event of a monitor and say what it changes of what captures; None if harmless.

    Any change of nftables, policy rules and traffic control counts, since it may undo ours. Of
    interfaces, addresses and routes only what takes away ours or goes before it counts: a target may
    make some of its own. Never waits for an event.
    """
    try:
        data = monitor.recv(_EVENT_BYTES, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError as error:  # ENOBUFS: more events than there is room for
        return f"{_LOST} ({error})"
    if not data:  # what a link says that has lost some
        return _LOST
    read = _rules_event if monitor.proto == netlink.NETFILTER else _network_event
    for kind, _sequence, body in netlink.messages(data):
        if what := read(kind, body):
            return f"something {what} in the target's network namespace"
    return None


def _rules_event(kind: int, body: bytes) -> str | None:
    subsystem, event = kind >> 8, kind & 0xFF
    if subsystem != _NFTABLES or event == _NEW_GENERATION:
        return None
    return f"{_NFTABLES_EVENTS.get(event, 'changed a set or an object')} of nftables"


def _network_event(kind: int, body: bytes) -> str | None:
    if kind in (_NEWLINK, _DELLINK):
        return _link_event(kind, body)
    if kind == _DELADDR:
        found = netlink.attributes(body[8:])  # after ifaddrmsg; IFA_ADDRESS is 1, IFA_LOCAL 2
        ours = _OUR_ADDRESSES & {found.get(1), found.get(2)}
        return "deleted an address of ours" if ours else None
    if kind in (_NEWROUTE, _DELROUTE):
        return _route_event(kind, body)
    if kind in _TRAFFIC_CONTROL:
        return "changed traffic control"
    return {_NEWRULE: "added a policy rule", _DELRULE: "deleted a policy rule"}.get(kind)


def _route_event(kind: int, body: bytes) -> str | None:
    """After rtmsg; RTA_DST is 1. A route that is replaced is told as a new one."""
    if len(body) < 12:
        return None
    verb = "deleted" if kind == _DELROUTE else "added"
    destination = netlink.attributes(body[12:]).get(1, b"")
    if body[1] == 0:
        return f"{verb} a default route"
    if verb == "added" and body[7] in _NOWHERE:
        return "added a route that leads nowhere"
    ours = destination in _OUR_ADDRESSES or (
        len(destination) == 4 and destination.startswith(_LOOPBACK4)
    )
    if not ours or (verb == "added" and body[7] == _LOCAL):  # the kernel's, some come late
        return None
    return f"{verb} a route to an address of ours"


def _link_event(kind: int, body: bytes) -> str | None:
    name = netlink.attributes(body[16:]).get(3)  # after ifinfomsg; IFLA_IFNAME
    if len(body) < 16 or name not in _OURS or body[0] == socket.AF_BRIDGE:  # of a bridge's ports
        return None
    shown = name[:-1].decode()
    if kind == _DELLINK:
        return f"deleted the interface {shown}"
    up = struct.unpack_from("=I", body, 8)[0] & 1  # IFF_UP; the carrier comes and goes harmlessly
    return None if up else f"shut down the interface {shown}"
