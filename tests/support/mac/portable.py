"""Makes this Linux look like a Mac to the modules of `pytest_egress` that run in the test process.

An import hook rewrites the package's source while it is imported: `import os`, `select`, `socket`, `fcntl` and
`resource` become modules of this file, which lack what macOS lacks, and `sys.platform` reads "darwin". Third-party
packages, the tests and the agent in the sidecar see Linux as it is. Where xnu does otherwise, its sources are imitated:

* `select.poll` (bsd/kern/sys_generic.c): nothing is told of a descriptor for which neither POLLIN, POLLHUP nor POLLOUT
  is asked; the end of what comes is POLLHUP, whatever is unread; POLLOUT is not told beside POLLHUP; no POLLERR.
* TCP_CONNECTION_INFO in place of TCP_INFO, SO_NWRITE in place of SIOCOUTQ; the former fails after a reset.
* A socket has no address but 127.0.0.1 of 127.0.0.0/8.
* A datagram through a unix socket has 2048 bytes at most (net.local.dgram.maxdgram); where there is no room, ENOBUFS.
* `ulimit -n` is 256 for the process, and the path of a unix socket has 103 bytes.

`make mac` loads it: PYTHONPATH has this folder, whose `sitecustomize.py` imports it where EGRESS_PORTABLE=1.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import importlib.machinery
import os
import re
import resource
import select
import socket
import struct
import sys
import termios
import types
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from typing import Any, Final, SupportsIndex

PACKAGE: Final = "pytest_egress"
SOCKETS: Final = {
    *("TCP_WINDOW_CLAMP", "TCP_INFO", "TCP_USER_TIMEOUT", "MSG_CMSG_CLOEXEC"),
    *("SOCK_CLOEXEC", "SOCK_NONBLOCK"),
}
MISSING: Final = {
    "os": {
        *("splice", "pipe2", "O_PATH", "memfd_create", "pidfd_open", "sched_getaffinity"),
        *("eventfd", "setns", "unshare", "getxattr", "setxattr", "listxattr", "removexattr"),
    },
    "select": {"epoll"},
    "socket": SOCKETS,
    "_socket": SOCKETS,
    "fcntl": {"F_SETPIPE_SZ", "F_GETPIPE_SZ"},
    "resource": {"prlimit"},
}
OF_SOCKETS: Final = (
    *("AF_NETLINK", "NETLINK_", "AF_PACKET", "PF_PACKET", "PACKET_"),
    *("SO_PEER", "AF_VSOCK", "AF_BRIDGE"),
)
PREFIXES: Final[dict[str, tuple[str, ...]]] = {
    "os": ("SPLICE_", "EFD_", "CLONE_", "sched_"),
    "select": ("EPOLL", "POLLRDHUP", "POLLMSG"),
    "socket": OF_SOCKETS,
    "_socket": OF_SOCKETS,
    "fcntl": ("F_SEAL", "F_ADD_SEALS", "F_OFD"),
    "resource": (),
}
TCP_CONNECTION_INFO: Final = 0x106
SO_NWRITE: Final = 0x1024
MAX_DATAGRAM: Final = 2048
DESCRIPTORS: Final = 256


class Mac(types.ModuleType):
    """A module without some of its names."""

    def __init__(self, real: types.ModuleType, **other: object) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(other)
        self.__dict__["_real"] = real

    def __getattr__(self, name: str) -> Any:
        real = self.__dict__["_real"]
        if name in MISSING[real.__name__] or name.startswith(PREFIXES[real.__name__]):
            raise AttributeError(f"macOS has no {real.__name__}.{name}")
        return getattr(real, name)

    def __setattr__(self, name: str, value: object) -> None:
        """What pytest's monkeypatch sets, all see."""
        setattr(self.__dict__["_real"], name, value)


# poll(2)

real_poll = select.poll
IN, OUT, HUP = select.POLLIN, select.POLLOUT, select.POLLHUP


class Poll:
    """poll(2) as xnu has it, over that of Linux."""

    def __init__(self) -> None:
        self._wanted: dict[int, int] = {}

    def register(self, fd: Any, events: int = IN | OUT | select.POLLPRI) -> None:
        if (descriptor := number(fd)) < 0:
            raise ValueError("file descriptor cannot be a negative integer (-1)")
        self._wanted[descriptor] = events

    def modify(self, fd: Any, events: int) -> None:
        if number(fd) not in self._wanted:
            raise FileNotFoundError(errno.ENOENT, "not registered")
        self._wanted[number(fd)] = events

    def unregister(self, fd: Any) -> None:
        del self._wanted[number(fd)]

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        wanted, poller = dict(self._wanted), real_poll()
        for descriptor, events in wanted.items():
            ends = select.POLLRDHUP if events & (IN | HUP) else 0
            if asked := events & (IN | OUT) | ends:
                poller.register(descriptor, asked)
        found = ((each, told(wanted[each], came)) for each, came in poller.poll(timeout))
        return [(descriptor, events) for descriptor, events in found if events]


def number(fd: Any) -> int:
    found: int = fd if isinstance(fd, int) else fd.fileno()
    return found


def told(events: int, came: int) -> int:
    """What xnu tells where Linux tells `came`."""
    if came & select.POLLNVAL:
        return select.POLLNVAL
    over = came & (HUP | select.POLLERR)
    if events & (IN | HUP) and (over or came & select.POLLRDHUP):
        return HUP | events & IN
    if events & OUT and over:
        return HUP | came & events & IN
    return came & events & (IN | OUT)


# Sockets

CLOSED: Final = 7
STATES: Final = {1: 4, 2: 2, 3: 3, 4: 6, 5: 9, 6: 10, 7: 0, 8: 5, 9: 8, 10: 1, 11: 7}
"""The states of TCP: Linux's numbers, and xnu's."""

real_getsockopt = socket.socket.getsockopt


def getsockopt(self: socket.socket, level: int, option: int, *rest: int) -> Any:
    if (level, option) == (socket.IPPROTO_TCP, TCP_CONNECTION_INFO):
        return connection_info(self)[: rest[0]]
    if (level, option) == (socket.SOL_SOCKET, SO_NWRITE):
        return unsent(self)
    return real_getsockopt(self, level, option, *rest)


def connection_info(sock: socket.socket) -> bytes:
    """`struct tcp_connection_info` (netinet/tcp.h)."""
    info = real_getsockopt(sock, socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if info[0] == CLOSED:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # the control block is gone
    waiting = unsent(sock)
    (received,) = struct.unpack_from("@Q", info, 128)
    (written,) = struct.unpack_from("@Q", info, 200)
    came, sent = struct.unpack_from("@II", info, 152)
    rest = (sent, max(written, waiting), 0, came, received if came else 0, 0, 0)
    return struct.pack("@4B13I6QQ", STATES[info[0]], *[0] * 10, waiting, *[0] * 5, *rest)


def unsent(sock: socket.socket) -> int:
    found: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    return found


def ioctl(fd: Any, request: int, *rest: Any) -> Any:
    if request == termios.TIOCOUTQ:  # sockets of macOS do not know it
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
    return fcntl.ioctl(fd, request, *rest)


OF_BASE: Final = f"""
def _mac():
    import errno, os
    def bind(self, address):
        if self.family == socket.AF_INET and address[0].startswith("127.") and address[0] != "127.0.0.1":
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        if self.family == socket.AF_UNIX and len(os.fsencode(address)) > 103:
            raise OSError("AF_UNIX path too long")
        return Real.bind(self, address)
    def send(self, data, *flags):
        if self.family == socket.AF_UNIX and self.type == socket.SOCK_DGRAM:
            if len(data) > {MAX_DATAGRAM}:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            try:
                return Real.send(self, data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)) from None
        return Real.send(self, data, *flags)
    Socket.bind, Socket.send = bind, send
_mac()
"""
"""Goes to the end of `base/sockets.py`."""


# Imports

IMPORT: Final = re.compile(r"^( *)import (os|select|_?socket|fcntl|resource)$", re.MULTILINE)


class Loader(importlib.machinery.SourceFileLoader):
    """Compiles a module of the package as a Mac would see it."""

    def get_data(self, path: str) -> bytes:
        data = super().get_data(path)
        if not path.endswith(".py"):
            return data
        text = IMPORT.sub(r"\1from portable import mac_\2 as \2", data.decode())
        text = text.replace("sys.platform", "'darwin'")
        return (text + OF_BASE if path.endswith("/base/sockets.py") else text).encode()

    def path_stats(self, path: str) -> Any:
        """No bytecode is read or written."""
        raise OSError(path)


class Finder(MetaPathFinder):
    """Finds the package's modules."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != PACKAGE and not name.startswith(f"{PACKAGE}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


class First(list[Any]):
    """A list whose first item stays the first: pytest's own hook would compile the modules of a plugin."""

    def insert(self, place: SupportsIndex, item: Any) -> None:
        super().insert(max(1, place.__index__()), item)


mac_os = Mac(os)
mac_socket = Mac(socket)
mac__socket = Mac(_socket)
mac_resource = Mac(resource)
mac_fcntl = Mac(fcntl, ioctl=ioctl)
mac_select = Mac(select, poll=Poll)


def install() -> None:
    """From now on, for this process and those that it starts."""
    socket.socket.getsockopt = getsockopt  # type: ignore[assignment, method-assign]
    sys.meta_path = First([Finder(), *sys.meta_path])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
