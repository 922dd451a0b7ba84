"""What a monitor tells of changes to what captures."""

from __future__ import annotations

import socket

from pytest_egress.link.tampering import tampering


def test_a_monitor_that_lost_events_is_told_like_a_change() -> None:
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with reader, writer:
        writer.send(b"")
        assert tampering(reader) == (
            "something changed the network namespace so often that events were lost"
        )
