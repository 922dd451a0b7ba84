"""What the kernel tells of sockets that are waited for, where kernels differ: an end, and many sockets at once.

Linux tells the end of what comes by POLLRDHUP, and by POLLHUP that both directions are over. macOS has one flag for
both, POLLHUP. It tells that only where POLLIN or POLLHUP is asked for, or of the other direction POLLOUT (xnu,
bsd/kern/sys_generic.c); where nothing is asked for, it tells nothing.
"""

from __future__ import annotations

import select
import socket
import sys
from typing import Any, Final

from pytest_egress.base.sockets import await_ready

HAS_EPOLL: Final = sys.platform == "linux"
"""Whether a poller sees a socket that another thread registers while it waits."""

ENDED: Final = int(getattr(select, "POLLRDHUP", select.POLLHUP))
"""The event of poll(2) that the other side has ended a connection, whatever is unread."""

BYTE_OR_END: Final = select.POLLIN | ENDED
GONE: Final = select.POLLERR | (select.POLLHUP if ENDED != select.POLLHUP else 0)
"""The events that nothing can be sent any more, where poll(2) tells: macOS does not, and the next write fails."""


class Poller:
    """The methods of `select.epoll` over poll(2), which looks at each socket: for hundreds, not for thousands.

    Any thread may register a socket; the one that waits sees it at its next wait.
    """

    def __init__(self) -> None:
        poll = self._poll = select.poll()
        self.register, self.modify, self.unregister = poll.register, poll.modify, poll.unregister

    def poll(self, seconds: float | None = None) -> list[tuple[int, int]]:
        return self._poll.poll(None if seconds is None else seconds * 1000)

    def close(self) -> None:
        """Nothing is open."""


def poller() -> Any:
    """A poller for many sockets, with the methods of `select.epoll` and the events of poll(2), which have its numbers.

    Its type is not that of `select.epoll`, which no type checker finds on macOS.
    """
    return getattr(select, "epoll", Poller)()


def has_ended(sock: socket.socket) -> bool:
    """Whether the other side has closed or reset a connection, or this side has closed it. Bytes may be unread."""
    return bool(await_ready(sock, ENDED, 0))
