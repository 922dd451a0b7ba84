"""Flows of datagrams over streams: cut anywhere, refused, held back, and ended."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pytest_egress.agent.flows import LENGTH, NOBODY, Flows
from pytest_egress.agent.mux import AGENT, HOST, Mux
from pytest_egress.agent.mux_frames import Data, Fin, MuxEvent, Open, Opened, Refused, StreamReset
from pytest_egress.agent.pump import Interests
from tests.support.stage import SECONDS

PURPOSE = b"port"


class FlowScene:
    """The agent's flows, and the other end of their mux."""

    def __init__(self) -> None:
        self.mux, self.host, self.interests = Mux(AGENT), Mux(HOST), Interests()
        self.flows = Flows(self.mux, self.interests)
        self.mux.hello()
        self.host.hello()
        self.settle()

    def settle(self) -> list[MuxEvent]:
        """Pass what waits for the wire; return the events of the host."""
        for event in self.mux.receive(self.host.send()):
            if isinstance(event, Open):
                self.flows.open(event.stream, self.port)
            else:
                self.flows.take_event(event)
        events = [*self.host.receive(self.mux.send())]
        self.flows.refresh()
        return events

    def open(self, port: int) -> int:
        self.port = port
        return self.host.open(PURPOSE)

    def wait(self) -> None:
        (ready,) = self.interests.wait(SECONDS)
        assert self.flows.ready(ready[0])

    def ready(self) -> list[MuxEvent]:
        self.wait()
        return self.settle()


def sized(content: bytes) -> bytes:
    return LENGTH.pack(len(content)) + content


@pytest.fixture
def scene() -> Iterator[FlowScene]:
    scene = FlowScene()
    yield scene
    assert not scene.flows._by_stream
    scene.interests.close()


def test_datagrams_that_are_cut_at_every_byte_arrive_whole(
    scene: FlowScene, datagram_server: socket.socket
) -> None:
    stream = scene.open(datagram_server.getsockname()[1])
    assert scene.settle() == [Opened(stream)]
    for byte in sized(b"one") + sized(b"") + sized(b"two"):
        scene.host.write(stream, bytes([byte]))
        scene.settle()
    received = [datagram_server.recvfrom(100) for _ in range(3)]
    assert [content for content, _ in received] == [b"one", b"", b"two"]
    datagram_server.sendto(b"answer", received[0][1])
    assert scene.ready() == [Data(stream, sized(b"answer"))]
    scene.host.fin(stream)
    assert scene.settle() == [Fin(stream)]


def test_a_port_where_nobody_listens_refuses_at_once_or_later(
    scene: FlowScene, datagram_server: socket.socket
) -> None:
    port = datagram_server.getsockname()[1]
    stream = scene.open(port)
    scene.settle()
    datagram_server.close()
    for _ in range(2):
        scene.host.write(stream, sized(b"?"))
        scene.settle()
        assert scene.ready() == [Data(stream, LENGTH.pack(NOBODY))]
    scene.host.write(stream, sized(b"a") + sized(b"b"))  # the second send is told of the first
    assert Data(stream, LENGTH.pack(NOBODY)) in scene.settle()
    scene.host.reset(stream)
    scene.settle()
    refused = scene.open(port)
    assert [type(event) for event in scene.settle()] == [Refused]
    assert refused not in scene.flows._by_stream


def test_what_a_stream_has_no_room_for_waits_in_the_kernel_and_is_read_later(
    scene: FlowScene, datagram_server: socket.socket
) -> None:
    stream = scene.open(datagram_server.getsockname()[1])
    scene.settle()
    scene.host.write(stream, sized(b"?"))
    scene.settle()
    _, client = datagram_server.recvfrom(100)
    scene.mux.write(stream, bytes(scene.mux.room(stream) - 1000))
    datagram_server.sendto(b"later", client)
    scene.wait()
    assert not scene.interests.wait(0)  # nobody is asked again and again
    filled = [event for event in scene.settle() if isinstance(event, Data)]
    assert not any(event.data.endswith(b"later") for event in filled)
    scene.host.consumed(stream, sum(len(event.data) for event in filled))
    assert scene.ready() == [Data(stream, sized(b"later"))]
    scene.host.reset(stream)
    scene.settle()


def test_what_is_of_no_flow_is_left_to_others(scene: FlowScene) -> None:
    for event in (Data(7, b"x"), Fin(7), StreamReset(7), Opened(7)):
        assert not scene.flows.take_event(event)
    assert not scene.flows.ready(99)


def test_a_datagram_that_the_kernel_does_not_take_is_dropped_and_the_next_one_sent(
    scene: FlowScene, datagram_server: socket.socket
) -> None:
    stream = scene.open(datagram_server.getsockname()[1])
    scene.settle()
    scene.host.write(stream, sized(bytes(65_530)) + sized(b"next"))
    scene.settle()
    assert datagram_server.recv(100) == b"next"
    scene.host.reset(stream)
    scene.settle()
