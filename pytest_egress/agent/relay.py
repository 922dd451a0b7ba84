"""The relay's program: it passes connections of the test process to sidecars, which have no network themselves.

The test process connects to the relay's port. The relay passes that socket, as a descriptor, to the sidecar whose key
it names, and keeps no copy: no byte of a target goes through this program. Sidecars connect by a unix socket in a
folder that they share with it; a target does not. It dials nothing, and ends with its standard input.
"""

from __future__ import annotations

import _socket
import posix
import select
import sys
from _operator import _compare_digest as compare_digest  # that of hmac, which imports OpenSSL
from struct import pack
from time import monotonic

from .pump import reset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Socket: TypeAlias = _socket.socket

PORT = 7000
"""The port of TCP at which the test process connects."""

SOCKET_PATH = "/dev/shm/egress-relay"
"""The socket in the folder that goes with the IPC namespace, which sidecars share with the relay (`ipc_mode`)."""

SECRET_PATH = "/egress/secret"
SECRET_BYTES, KEY_BYTES, NUMBER_BYTES = 32, 16, 4
"""What a connection begins with: the secret, the key of a sidecar, and a number by which the sidecar knows it."""

WORDS_BYTES = SECRET_BYTES + KEY_BYTES + NUMBER_BYTES

IS_RESET, IS_HELD = bytes(KEY_BYTES), b"\xff" * KEY_BYTES
"""The keys of two connections by which the test process tries the way: the relay resets the first. It answers the
second by a byte, and reports on its standard output how that ends: with `RESET` or with `ENDED`."""

READY, RESET, ENDED = b"ready\n", b"reset\n", b"ended\n"

PROVE_SECONDS = 1.0
"""How long a connection may take to name the secret."""

MOST_UNPROVED = 64
"""How many connections may be open without it; the oldest is closed for a further one."""

_BACKLOG = 512


class Unproved:
    """A connection that has not named the secret, a key and its number yet."""

    def __init__(self, sock: Socket) -> None:
        self.sock, self.said = sock, b""
        self.deadline = monotonic() + PROVE_SECONDS


class SocketPasser:
    """Serves until `input` is at its end.

    Args:
        port: The listener of TCP.
        door: The listener of the unix socket.
    """

    def __init__(self, port: Socket, door: Socket, secret: bytes, input: int, output: int) -> None:
        self._port, self._door, self._secret = port, door, secret
        self._input, self._output = input, output
        self._poller = select.poll()
        self._sidecars: dict[int, tuple[bytes, Socket]] = {}
        self._by_key: dict[bytes, Socket] = {}
        self._unproved: dict[int, Unproved] = {}
        self._held: dict[int, Socket] = {}

    def run(self) -> None:
        for descriptor in (self._input, self._port.fileno(), self._door.fileno()):
            self._poller.register(descriptor, select.POLLIN)
        posix.write(self._output, READY)
        while True:
            ready = {each for each, _ in self._poller.poll(250 if self._unproved else None)}
            if self._input in ready and not posix.read(self._input, 64):
                return
            # Sidecars first: the test process connects for one as soon as that has connected.
            if self._door.fileno() in ready:
                self._welcome()
            if self._port.fileno() in ready:
                self._accept()
            for descriptor in ready:
                self._ready(descriptor)
            self._close_late()

    def close(self) -> None:
        unproved = [found.sock for found in self._unproved.values()]
        sidecars = [sock for _, sock in self._sidecars.values()]
        for sock in (*unproved, *sidecars, *self._held.values()):
            sock.close()

    def _ready(self, descriptor: int) -> None:
        if descriptor in self._sidecars:
            self._forget(descriptor)  # a sidecar sends nothing more: it has ended
        elif descriptor in self._unproved:
            self._read(descriptor)
        elif descriptor in self._held:
            self._report(descriptor)

    def _welcome(self) -> None:
        sock = accept(self._door)
        if sock is None:
            return
        sock.settimeout(PROVE_SECONDS)
        try:
            key = sock.recv(KEY_BYTES)
        except OSError:
            key = b""
        if len(key) != KEY_BYTES:
            sock.close()
            return
        sock.setblocking(False)
        self._sidecars[sock.fileno()] = key, sock
        self._by_key[key] = sock
        self._poller.register(sock.fileno(), select.POLLIN)

    def _accept(self) -> None:
        sock = accept(self._port)
        if sock is None:
            return
        if len(self._unproved) >= MOST_UNPROVED:
            self._close_unproved(next(iter(self._unproved)))
        sock.setblocking(False)
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        self._unproved[sock.fileno()] = Unproved(sock)
        self._poller.register(sock.fileno(), select.POLLIN)

    def _read(self, descriptor: int) -> None:
        """Read no byte behind the number: the sidecar does."""
        found = self._unproved[descriptor]
        try:
            said = found.sock.recv(WORDS_BYTES - len(found.said))
        except BlockingIOError:
            return
        except OSError:
            said = b""
        found.said += said
        if not said:
            self._close_unproved(descriptor)
        elif len(found.said) == WORDS_BYTES:
            self._judge(descriptor, found)

    def _judge(self, descriptor: int, found: Unproved) -> None:
        key, number = found.said[SECRET_BYTES:-NUMBER_BYTES], found.said[-NUMBER_BYTES:]
        if not compare_digest(found.said[:SECRET_BYTES], self._secret):
            self._close_unproved(descriptor)
        elif key == IS_RESET:
            self._poller.unregister(descriptor)
            reset(self._unproved.pop(descriptor).sock)
        elif key == IS_HELD:
            self._held[descriptor] = self._unproved.pop(descriptor).sock
            found.sock.send(b"!")
        else:
            self._pass(key, number, found.sock)
            self._close_unproved(descriptor)

    def _pass(self, key: bytes, number: bytes, sock: Socket) -> None:
        """The connection is closed where there is no such sidecar, or it takes no more."""
        if (sidecar := self._by_key.get(key)) is None:
            return
        try:  # noqa: SIM105 - contextlib takes long to import
            sidecar.sendmsg(
                [number], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("=i", sock.fileno()))]
            )
        except OSError:
            pass  # that it has ended is read from its socket

    def _report(self, descriptor: int) -> None:
        sock = self._held.pop(descriptor)
        self._poller.unregister(descriptor)
        try:
            sock.recv(1)
            ended = ENDED
        except OSError:
            ended = RESET
        sock.close()
        posix.write(self._output, ended)

    def _forget(self, descriptor: int) -> None:
        key, sock = self._sidecars.pop(descriptor)
        if self._by_key.get(key) is sock:
            del self._by_key[key]
        self._poller.unregister(descriptor)
        sock.close()

    def _close_late(self) -> None:
        now = monotonic()
        for descriptor, found in list(self._unproved.items()):
            if now < found.deadline:
                return  # the others came later
            self._close_unproved(descriptor)

    def _close_unproved(self, descriptor: int) -> None:
        self._poller.unregister(descriptor)
        self._unproved.pop(descriptor).sock.close()


def accept(listener: Socket) -> Socket | None:
    """None where the connection has ended meanwhile, or no descriptor is free."""
    try:
        descriptor, _ = listener._accept()  # type: ignore[attr-defined]  # typeshed has none
    except OSError:
        return None
    return _socket.socket(fileno=descriptor)


def main() -> None:
    with open(SECRET_PATH, "rb") as file:
        secret = file.read()
    if len(secret) != SECRET_BYTES:
        sys.exit(f"{SECRET_PATH} has {len(secret)} bytes, not {SECRET_BYTES}")
    door = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    door.bind(SOCKET_PATH)
    port = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    port.bind(("0.0.0.0", PORT))
    for listener in (door, port):
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    SocketPasser(port, door, secret, 0, 1).run()
