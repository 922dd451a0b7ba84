"""The first process of a sidecar that serves several targets, one after the other.

It alone holds CAP_SYS_ADMIN, which unshare(2) needs to make a network namespace, and CAP_SETPCAP, which its children
need to give up both. Before its first target it notes what the shared files are; from then on it reads nothing but
one-byte orders of the test process: at each it ends its agent, moves to a new network namespace, and starts an agent
there. An agent, which reads what targets send, has CAP_NET_ADMIN alone; CAP_NET_RAW only until its sockets are open.
"""

from __future__ import annotations

import posix
import select
import sys

from .capabilities import (
    NET_RAW,
    SETPCAP,
    SYS_ADMIN,
    c_library,
    check,
    forbid,
    keep_for_network,
)
from .capture import start_loopback
from .main import MOVE, check_nonce, connect, fail, serve
from .shared_files import SharedFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import NoReturn, TypeAlias

    Socket: TypeAlias = _socket.socket

_CLONE_NEWNET = 0x40000000
_SIGKILL = 9
_EVERY_UID = ["0", "0", "4294967295"]  # of the first user namespace, user_namespaces(7)


def main() -> None:
    """Run the sidecar's first process; `sys.argv` has the mounted folder and the nonce that it must contain."""
    folder, nonce = sys.argv[1:3]
    check_nonce(folder, nonce)
    link = connect(folder)
    files = shared_files()  # once: somebody else's container may change them after a target
    while True:
        agent, alive = start_agent(link, files)
        if not is_ordered(link, alive):
            sys.exit(1)  # which ends the agent too
        posix.kill(agent, _SIGKILL)
        posix.waitpid(agent, 0)
        posix.close(alive)
        try:
            check(c_library().unshare(_CLONE_NEWNET))
        except OSError as error:
            fail(link, f"The kernel refused a new network namespace: {error}.")


def start_agent(link: Socket, files: SharedFiles | None) -> tuple[int, int]:
    """The descriptor is at end of file when the agent has ended."""
    alive, held = posix.pipe()
    agent = posix.fork()
    if agent == 0:
        posix.close(alive)
        be_agent(link, files)
    posix.close(held)
    return agent, alive


def be_agent(link: Socket, files: SharedFiles | None) -> NoReturn:
    try:
        forbid(SYS_ADMIN, NET_RAW, SETPCAP)
        keep_for_network()
        start_loopback()
        serve(link, files)
    except OSError as error:
        fail(link, f"The agent failed: {error}")
    finally:
        posix._exit(1)


def shared_files() -> SharedFiles | None:
    """The files to be put back for another target; None where there can be none.

    In a user namespace the engine makes other network settings than the test process gives a target.
    """
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            if file.read().split() != _EVERY_UID:
                return None
        return SharedFiles()
    except OSError:
        return None


def is_ordered(link: Socket, alive: int) -> bool:
    """False where the test process or the agent has ended."""
    poller = select.poll()
    poller.register(link, select.POLLIN)
    poller.register(alive, select.POLLIN)
    ready = {descriptor for descriptor, _ in poller.poll()}
    return alive not in ready and link.recv(1) == MOVE
