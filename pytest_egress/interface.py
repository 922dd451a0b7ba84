"""`Link`: the sockets of a target's network namespace, whichever way they come."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol


class Link(Protocol):
    """The sockets of a target's network namespace; see `DescriptorLink`."""

    @property
    def tcp(self) -> Sequence[socket.socket]:
        """Listeners: every TCP connection of the target."""

    @property
    def dns(self) -> Sequence[socket.socket]:
        """UDP sockets: every DNS query."""

    @property
    def packets(self) -> socket.socket:
        """Packets of other protocols, as the kernel's log gives them."""

    @property
    def monitors(self) -> Sequence[socket.socket]:
        """Events of what captures, for `tampering`; `proto` is the netlink family that they are of."""

    @property
    def channel(self) -> socket.socket:
        """At its end of file the sidecar has ended."""

    @property
    def reason(self) -> str:
        """Why it has ended: "it has ended"."""

    @property
    def ipv6(self) -> bool:
        """Whether the target has IPv6."""

    @property
    def most(self) -> int:
        """How many connections of the target it has room for at once: more wait where nobody sees them."""

    def destination(self, sock: socket.socket, /) -> tuple[str, int] | None:
        """What the client of an accepted connection dialled; None for the listener itself."""

    def flush(self, timeout: float, /) -> None:
        """Return when what the target has done so far can be read from the sockets."""

    def connect(self, port: int, timeout: float, /) -> socket.socket:
        """A connection to a port of the target."""

    def close(self) -> None:
        """Close every socket."""
