"""Frames of the multiplexer, and two ends that are joined."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from pytest_egress.agent.mux import AGENT, HOST, Mux
from pytest_egress.agent.mux_frames import Data, Hello, MuxEvent

# As on the wire.
HELLO, OPEN, OPENED, REFUSED, DATA, CREDIT, FIN, RST = range(1, 9)
HEADER = struct.Struct("!BIH")
GREETING = b"\0\2\1Python"


def frame(kind: int, number: int = 0, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, number, len(payload)) + payload


def number(value: int) -> bytes:
    return struct.pack("!I", value)


def pair() -> tuple[Mux, Mux]:
    """An agent and a host that have greeted each other."""
    agent, host = Mux(AGENT), Mux(HOST)
    agent.hello()
    host.hello()
    assert carry(agent, host) == carry(host, agent) == [Hello(False, "")]
    return agent, host


def carry(sender: Mux, receiver: Mux) -> list[MuxEvent]:
    return list(receiver.receive(sender.send()))


def joined(events: Iterable[MuxEvent], stream: int) -> bytes:
    return b"".join(
        event.data for event in events if isinstance(event, Data) and event.stream == stream
    )
