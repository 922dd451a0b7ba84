"""What a monitor tells of changes to what captures."""

from __future__ import annotations

import socket
import sys

from pytest_egress.agent import netlink
from pytest_egress.link.tampering import tampering


def test_a_monitor_that_lost_events_is_told_like_a_change() -> None:
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with reader, writer:
        writer.send(b"")
        assert tampering(reader) == (
            "something changed the network namespace so often that events were lost"
        )


def test_changes_from_the_agents_own_port_are_none_and_those_of_others_are() -> None:
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    monitor = socket.socket(
        socket.AF_UNIX, socket.SOCK_DGRAM, netlink.NETFILTER, fileno=reader.detach()
    )
    ours = netlink.message(10 << 8 | 6, 0, b"rule")
    ours = ours[:12] + (77).to_bytes(4, sys.byteorder) + ours[16:]
    with monitor, writer:
        for data, port in ((ours, 77), (ours, 78), (ours, 0)):
            writer.send(data)
            expected = None if port == 77 else "something added a rule of nftables"
            found = tampering(monitor, port)
            assert (found and found.partition(" in ")[0]) == expected
