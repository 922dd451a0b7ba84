"""The agent's program: it makes its namespace capture, passes the sockets, and passes more on request.

When it gives up it sends the reason over the link, or before that is connected, gives it by an exit
code and a line of text. It ends at end of file, when the test process has ended.
"""

from __future__ import annotations

import _socket
import errno
import sys
from struct import pack

from .capabilities import give_up_raw
from .capture import FRAMES, Capture, CaptureError
from .dials import MAX_BYTES, Dials
from .ports import connect_datagrams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import FileIO
    from typing import NoReturn, TypeAlias

    from .shared_files import SharedFiles

    Socket: TypeAlias = _socket.socket

ANOTHER_HOST, NO_UNIX_SOCKET = 76, 77
"""Exit codes. `ANOTHER_HOST`: the mounted folder is not the one that the test process made.
`NO_UNIX_SOCKET`: its socket cannot be connected, because the folder is a copy or a network file system."""

SIGNATURE = "pytest-egress agent"
"""Begins the line that the agent writes when it gives up; the exit code follows."""

STREAM_MODE = "stream"
"""The first argument of an agent whose link is its standard streams, and which has no folder."""

SOCKET_NAME, NONCE_NAME = "socket", "nonce"
"""The names of the two files in the mounted folder."""

BATCH = 32
"""How many unconnected sockets are passed at once: one round trip for 32 connections to the target."""

READY, SOCKETS, CHANGED, FAILED = b"ready", b"sockets", b"changed", b"failed"
"""The first word of each message to the test process.

After `READY` come the names of the sockets, in the order of their descriptors; then `WITH` and the features. The one
descriptor that is no socket is that of `Capture.statistics`:
"ready tcp4*8 tcp6*8 dns4 dns6 packets monitors*2 control with dials=1234 frames".
"""

PUT_BACK = b"back"
"""A request, and its answer: the files that a target shares with the sidecar are as they were before it."""

JOINED = b"joined"
"""A request, and its answer: the engine has started a target in the agent's network namespace.

It shows by `JOINED_SETTING`, which the engine sets for a target, to another value than a new namespace has."""

JOINED_SETTING = "net.ipv4.ping_group_range"

PORT = b"port "
"""Begins a request for a socket that sends datagrams to a port of the target's, whose number follows. The answer is
`SOCKETS`, `NOBODY` where nobody listens there, or `FAILED`."""

NOBODY = b"nobody"

MOVE = b"m"
"""The order to the first process of a sidecar to move to a new network namespace; see `keeper`."""

WITH = b"with"
"""Ends the names in the first message; the features of the agent and the kernel follow."""

CONTROL = "control"
"""The name of the socket for requests; `Capture.named` has the names of the others."""


def main() -> None:
    """Run the agent.

    `sys.argv` has the mounted folder and the nonce that it must contain; or `STREAM_MODE` and the arguments of
    `stream.run`.
    """
    if sys.argv[1] == STREAM_MODE:
        from .stream import run

        run(float(sys.argv[2]), int(sys.argv[3]))
        return
    folder, nonce = sys.argv[1:3]
    check_nonce(folder, nonce)
    serve(connect(folder))


def serve(link: Socket, files: SharedFiles | None = None) -> None:
    """Make the namespace capture, pass its sockets over the link, and serve requests until the test process ends.

    Args:
        files: The files that `PUT_BACK` asks for; None where the sidecar serves one target alone.
    """
    try:
        dials = Dials()
        before = joined_setting()  # not later: with the sockets the test process may start a target
        control = hand_over(link, dials)
        give_up_raw()  # not before, since the test process waits
        hand_out(control, dials, before, files)
    except CaptureError as error:
        fail(link, str(error))
    except Exception as error:  # the test process has to learn of any error
        fail(link, f"The agent failed: {type(error).__name__}: {error}")


def check_nonce(folder: str, nonce: str) -> None:
    """Exit with `ANOTHER_HOST` unless the folder is the one that the test process made."""
    try:
        with open(f"{folder}/{NONCE_NAME}", encoding="ascii") as file:
            found = file.read()
    except (OSError, UnicodeDecodeError) as error:
        give_up(ANOTHER_HOST, f"the nonce of the test process cannot be read: {error}")
    if found != nonce:
        give_up(ANOTHER_HOST, f"the nonce is {found[:40]!r}, not that of the test process")


def connect(folder: str) -> Socket:
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        link.connect(f"{folder}/{SOCKET_NAME}")
    except OSError as error:
        give_up(NO_UNIX_SOCKET, f"the unix socket of the test process cannot be connected: {error}")
    return link


def hand_over(link: Socket, dials: Dials) -> Socket:
    """Capture, pass every socket to the test process, and keep none; return our end of the pair for requests.

    Requests have a connection of their own, so that nothing but end of file ever follows on `link`.
    """
    capture = Capture()
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    named = {**capture.named(), CONTROL: [theirs]}
    words = [READY, *names({name: len(sockets) for name, sockets in named.items()})]
    words += [WITH, dials.feature.encode()]
    if capture.frames:
        words.append(FRAMES.encode())
    handed = [sock for sockets in named.values() for sock in sockets]
    send(link, b" ".join(words), [*handed, *([capture.statistics] if capture.statistics else ())])
    return ours


def names(counts: dict[str, int]) -> list[bytes]:
    """The words that name sockets in the first message: `tcp4*8` for eight of one name, `packets` for one."""
    return [
        f"{name}*{count}".encode() if count > 1 else name.encode() for name, count in counts.items()
    ]


def hand_out(control: Socket, dials: Dials, before: str, files: SharedFiles | None = None) -> None:
    """Answer each request until the test process has ended.

    `PUT_BACK` asks for the shared files to be put back, `JOINED` whether a target is here, the digit of an address
    family for unconnected sockets of that family, `PORT` for one that sends datagrams. Anything else is a message of
    `dials`.

    Args:
        before: The value of `JOINED_SETTING` before a target could be here.
    """
    while request := control.recv(MAX_BYTES):
        if request == JOINED:
            control.send(JOINED if joined_setting() != before else FAILED)
            continue
        if request == PUT_BACK:
            control.send(PUT_BACK if files is not None and files.put_back() else FAILED)
            continue
        if request.startswith(PORT):
            hand_out_port(control, int(request[len(PORT) :]))
            continue
        if request not in (b"4", b"6"):
            refusal = dials.change(request)
            control.send(FAILED + b" " + refusal.encode() if refusal else CHANGED)
            continue
        family = _socket.AF_INET6 if request == b"6" else _socket.AF_INET
        try:
            batch = [_socket.socket(family, _socket.SOCK_STREAM) for _ in range(BATCH)]
        except OSError as error:
            control.send(FAILED + b" " + str(error).encode())
        else:
            send(control, SOCKETS, batch)


def hand_out_port(control: Socket, port: int) -> None:
    try:
        sock = connect_datagrams(port)
    except OSError as error:
        refused = error.errno == errno.ECONNREFUSED
        control.send(NOBODY if refused else FAILED + b" " + str(error).encode())
    else:
        send(control, SOCKETS, [sock])


def joined_setting() -> str:
    with open(f"/proc/sys/{JOINED_SETTING.replace('.', '/')}", encoding="ascii") as file:
        return file.read()


def send(link: Socket, data: bytes, sockets: Iterable[Socket | FileIO]) -> None:
    """Sockets are closed here once they are sent: a copy would keep the port in use."""
    sockets = list(sockets)
    descriptors = pack(f"={len(sockets)}i", *(sock.fileno() for sock in sockets))
    link.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
    for sock in sockets:
        sock.close()


def fail(link: Socket, text: str) -> NoReturn:
    try:
        link.send(FAILED + b" " + text.encode())
    except OSError as error:
        give_up(1, f"the test process is gone ({error}); not told: {text}")
    sys.exit(1)


def give_up(code: int, reason: str) -> NoReturn:
    """The code is written with the reason too, since an engine may lose exit codes."""
    print(f"{SIGNATURE} {code}: {reason}", file=sys.stderr, flush=True)
    sys.exit(code)
