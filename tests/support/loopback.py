"""A link without a container: the gateway's sockets on loopback, and what a client of each has dialled.

The kernel tells the gateway what the client of a redirected connection dialled; nothing is redirected here, so each
listener stands for one destination.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable

from pytest_egress.errors import LinkError

Destination = tuple[str, int]


class LoopbackLink:
    """What a gateway needs of a link; the gateway closes it.

    Args:
        destinations: Addresses and ports that `dial` can reach. None is a dial of the listener itself.
        ipv6: What the link says of IPv6; the sockets themselves are IPv4.

    Attributes:
        packet_source: What is sent here arrives as if the kernel had logged a packet.
        datagrams: The gateway's end of the socket for datagrams; None stands for an engine without CAP_NET_RAW.
        datagram_source: Its other end: what is sent here arrives as a frame that was let out.
        monitor_source: Likewise, as an event of a monitor.
        agent: The other end of the channel; closed, it is a sidecar that has ended.
        lost_packets: As of any link.
        changes: The messages by which it was asked to refuse or drop dials, none of which it carries out.
        refusal: Where not "", why it refuses each.
    """

    lost_packets = own_port = 0
    refusal = ""

    def __init__(
        self,
        destinations: Iterable[Destination | None] = (("203.0.113.9", 443),),
        *,
        ipv6: bool = True,
    ) -> None:
        self.ipv6, self.reason, self.most = ipv6, "it has ended", sys.maxsize
        self.changes: list[bytes] = []
        listeners = {d: socket.create_server(("127.0.0.1", 0), backlog=1024) for d in destinations}
        self.ports = {destination: sock.getsockname()[1] for destination, sock in listeners.items()}
        self._destinations = {port: destination for destination, port in self.ports.items()}
        self.tcp = tuple(listeners.values())
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        names.bind(("127.0.0.1", 0))
        self.dns = (names,)
        self.packets, self.packet_source = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        kind = socket.AF_UNIX, socket.SOCK_DGRAM
        self.datagrams, self.datagram_source = socket.socketpair(*kind)
        monitor, self.monitor_source = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.monitors = (monitor,)
        self.channel, self.agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def stand_for(self, address: str, port: int) -> None:
        """Have the listener at a port of loopback stand for another destination."""
        self._destinations[port] = (address, port)

    def dial(self, address: str, port: int) -> socket.socket:
        """Connect as a target does that dials this address and port."""
        return self.connect(self.ports[address, port], 10)

    def dial_listener(self) -> socket.socket:
        """Connect as a target does that dials the gateway's own listener."""
        return self.connect(self.ports[None], 10)

    def destination(self, sock: socket.socket) -> Destination | None:
        """What the client of an accepted connection dialled; None for the listener itself."""
        return self._destinations[sock.getsockname()[1]]

    def flush(self, timeout: float) -> None:
        """Nothing is under way."""

    def change_dials(self, message: bytes) -> None:
        """Note a change, or refuse it."""
        if self.refusal:
            raise LinkError(self.refusal)
        self.changes.append(message)

    def connect(self, port: int, timeout: float) -> socket.socket:
        """Connect to a port of loopback, without delays between small writes, as most clients do."""
        sock = socket.create_connection(("127.0.0.1", port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def connect_datagrams(self, port: int) -> socket.socket:
        """No target is there whose port could be meant."""
        raise ConnectionRefusedError

    def close(self) -> None:
        """Close all that this end holds, and what stands for the sidecar."""
        ours = (*self.tcp, *self.dns, *self.monitors, self.datagrams, self.packets, self.channel)
        for sock in (
            *ours,
            self.datagram_source,
            self.packet_source,
            self.monitor_source,
            self.agent,
        ):
            sock.close()
