"""`Link`: the interface of a link for the gateway, which is the sockets of a target's network namespace.

A link is a `DescriptorLink` or a `StreamLink`. Values of the agent that the gateway needs are here too, so that the
gateway imports nothing of the agent.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final, Protocol

import pytest_egress.agent.addresses as addresses
import pytest_egress.agent.capture as capture

BACKLOG: Final = capture.BACKLOG
"""How many connections of a target may wait to be accepted at each listener."""

LISTENER: Final = capture.LISTENER
"""The name, in messages, of a listener that the target has closed."""

OWN_ADDRESSES: Final = (addresses.ADDRESS4, addresses.ADDRESS6)
"""The addresses of a target's network interface."""


class Link(Protocol):
    """The sockets of a target's network namespace; see `DescriptorLink`."""

    @property
    def tcp(self) -> Sequence[socket.socket]:
        """The listeners at which every TCP connection of the target arrives."""

    @property
    def dns(self) -> Sequence[socket.socket]:
        """The UDP sockets at which every DNS query of the target arrives."""

    @property
    def datagrams(self) -> socket.socket | None:
        """The socket for the datagrams that rules let out, as Ethernet frames, and for their answers.

        None where the sidecar could not open it, without CAP_NET_RAW.
        """

    @property
    def packets(self) -> socket.socket:
        """The socket for packets of other protocols, in the format of the kernel's log (NFLOG)."""

    @property
    def monitors(self) -> Sequence[socket.socket]:
        """The sockets for changes of the capture rules, for `tampering`; `proto` is their netlink family."""

    @property
    def channel(self) -> socket.socket:
        """A socket that is at end of file when the sidecar has ended."""

    @property
    def reason(self) -> str:
        """Why the sidecar has ended, as the end of a sentence: "it has ended"."""

    @property
    def ipv6(self) -> bool: ...

    @property
    def most(self) -> int:
        """How many connections of the target the link carries at once; further ones wait in the sidecar's kernel."""

    @property
    def lost_packets(self) -> int:
        """How many were lost before they could be read from `packets` or `datagrams`, as far as is known.

        Connections that could not be taken are among them.
        """

    def destination(self, sock: socket.socket, /) -> tuple[str, int] | None:
        """The address that the client of an accepted connection dialled; None where it dialled the listener itself."""

    def flush(self, timeout: float, /) -> None:
        """Wait until everything that the target has done so far can be read from the sockets."""

    @property
    def own_port(self) -> int:
        """The port id of the sidecar's netlink socket for `change_dials`, which `tampering` disregards."""

    def change_dials(self, message: bytes, /) -> None:
        """Have the target's kernel apply a message of `changes`, and wait until it has; any thread may call it.

        Raises:
            LinkError: The rules stay as they were; the text says why.
        """

    def connect(self, port: int, timeout: float, /) -> socket.socket:
        """Connect to a port of the target, on any of the addresses that it may listen on; any thread may call it.

        Args:
            timeout: Seconds for the whole attempt. The socket that is returned has none.

        Raises:
            OSError: As from any connection: refused, timed out; or the sidecar has ended.
        """

    def connect_datagrams(self, port: int, /) -> socket.socket:
        """A socket that exchanges datagrams with a port of the target alone; any thread may call it.

        It has `send`, `recv`, `fileno`, `setblocking(False)` and `close`, and raises ConnectionRefusedError in one of
        the first two where nobody listens any more, BrokenPipeError in `recv` where its link has ended.

        Raises:
            OSError: Nobody listens there, or the sidecar has ended.
        """

    def close(self) -> None: ...
