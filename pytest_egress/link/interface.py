"""What the gateway knows of a link: the sockets of a target's network namespace, whichever way they come.

A link is a `DescriptorLink` or a `StreamLink`. What the agent in the sidecar decides and the gateway has to know is
named here too, so that the gateway imports nothing of what runs in the sidecar.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final, Protocol

import pytest_egress.agent.addresses as addresses
import pytest_egress.agent.capture as capture

BACKLOG: Final = capture.BACKLOG
"""How many connections of a target may wait to be accepted, at each listener."""

LISTENER: Final = capture.LISTENER
"""How a message calls a listener that the target has closed."""

OWN_ADDRESSES: Final = (addresses.ADDRESS4, addresses.ADDRESS6)
"""The addresses of the interface that a target has."""


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

    @property
    def lost_packets(self) -> int:
        """How many packets have not come to be read from `packets`, as far as is known."""

    def destination(self, sock: socket.socket, /) -> tuple[str, int] | None:
        """What the client of an accepted connection dialled; None for the listener itself."""

    def flush(self, timeout: float, /) -> None:
        """Return when what the target has done so far can be read from the sockets."""

    def connect(self, port: int, timeout: float, /) -> socket.socket:
        """A connection to a port of the target."""

    def close(self) -> None:
        """Close every socket."""
