"""Whatever comes, and in whatever order, two ends of a multiplexer agree."""

from __future__ import annotations

import contextlib
import errno
from itertools import accumulate
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_egress.agent.mux import AGENT, HOST, MAX_STREAMS, WINDOW, Mux
from pytest_egress.agent.mux_frames import (
    CHANNELS,
    DNS,
    Bye,
    ByeAcknowledged,
    Data,
    Fin,
    Hello,
    MuxDatagram,
    MuxEvent,
    Open,
    Opened,
    Pong,
    ProtocolError,
    Refused,
    StreamReset,
)
from tests.support.mux_pairs import GREETING, HELLO, carry, frame, joined, number, pair

BLOB = bytes(range(251)) * 1100


T = TypeVar("T")


def few_or_many(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[list[T]]:
    """Lists that shrink to short ones; left to itself hypothesis makes few long ones."""
    return st.one_of(st.lists(strategy, max_size=20), st.lists(strategy, min_size=60, max_size=200))


pieces = st.one_of(
    st.binary(max_size=40),
    st.builds(
        frame,
        st.integers(0, 17),
        st.integers(0, 6),
        st.one_of(st.binary(max_size=8), st.integers(0, 9).map(number)),
    ),
)


@pytest.mark.slow
@given(few_or_many(pieces), st.booleans(), st.booleans())
def test_any_bytes_give_events_or_our_error(
    received: list[bytes], polite: bool, closing: bool
) -> None:
    host = Mux(HOST)
    host.hello()
    if polite:
        list(host.receive(frame(HELLO, 0, GREETING)))
        host.open(b"")
        host.ping()
    if closing:
        host.close()
    with contextlib.suppress(ProtocolError):
        for data in received:
            for event in host.receive(data):
                assert isinstance(event, MuxEvent)
                if isinstance(event, Open) and event.stream % 4 == 1:
                    host.reset(event.stream)
            host.send()


@given(st.lists(st.integers(1, 60), max_size=20), st.binary(max_size=50))
def test_a_cut_anywhere_changes_nothing(cuts: list[int], content: bytes) -> None:
    agent = Mux(AGENT)
    agent.hello(text="é")
    stream = agent.open(content)
    agent.write(stream, content)
    agent.datagram(DNS, content)
    agent.fin(stream)
    agent.close()
    data = agent.send()
    starts = [0, *accumulate(cuts)]
    host = Mux(HOST)
    parts = [data[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    events = [event for part in parts for event in host.receive(part)]
    assert events == list(Mux(HOST).receive(data))
    assert events[-1] == Bye()


class Story:
    """What one end has written to and read from one stream."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.read = bytearray()
        self.unread = 0
        self.accepted = self.finished = self.fin_seen = self.over = False


class End:
    """One end of a simulated link, and the bytes on their way to the other."""

    def __init__(self, side: int) -> None:
        self.mux = Mux(side)
        self.mux.hello()
        self.wire = bytearray()
        self.stories: dict[int, Story] = {}
        self.sent: dict[int, list[bytes]] = {channel: [] for channel in CHANNELS}
        self.arrived: dict[int, list[bytes]] = {channel: [] for channel in CHANNELS}
        self.pongs: list[int] = []
        self.last_ping = 0
        self.ends: list[MuxEvent] = []

    def live(self) -> list[int]:
        return [stream for stream, story in self.stories.items() if not story.over]

    def writable(self) -> list[int]:
        return [
            stream
            for stream in self.live()
            if self.stories[stream].accepted and not self.stories[stream].finished
        ]

    def unanswered(self) -> list[int]:
        return [stream for stream in self.live() if not self.stories[stream].accepted]

    def open(self) -> None:
        story = self.stories[self.mux.open(b"purpose")] = Story()
        story.accepted = True  # as far as writing goes

    def write(self, stream: int, size: int) -> None:
        story = self.stories[stream]
        start = len(story.written) % 257
        data = BLOB[start : start + min(size, self.mux.room(stream))]
        self.mux.write(stream, data)
        story.written += data

    def read(self, stream: int, size: int) -> None:
        story = self.stories[stream]
        size = min(size, story.unread)
        story.unread -= size
        self.mux.consumed(stream, size)

    def accept(self, stream: int) -> None:
        self.mux.accept(stream)
        self.stories[stream].accepted = True

    def fin(self, stream: int) -> None:
        self.mux.fin(stream)
        self.stories[stream].finished = True

    def end(self, stream: int, refuse: bool) -> None:
        if refuse:
            self.mux.refuse(stream, errno.ECONNREFUSED)
        else:
            self.mux.reset(stream)
        self.stories[stream].over = True

    def datagram(self, channel: int, size: int) -> None:
        data = len(self.sent[channel]).to_bytes(4, "big") + bytes(size % 3000)
        self.mux.datagram(channel, data)
        self.sent[channel].append(data)

    def take(self, limit: int) -> None:
        self.wire += self.mux.take(limit)

    def deliver(self, data: bytes) -> None:
        for event in self.mux.receive(data):
            self.take_in(event)
            self.check()

    def take_in(self, event: MuxEvent) -> None:
        match event:
            case Open(stream, purpose):
                assert purpose == b"purpose"
                self.stories[stream] = Story()
            case Data(stream, data):
                story = self.stories[stream]
                assert not story.over
                assert not story.fin_seen
                story.read += data
                story.unread += len(data)
            case Fin(stream):
                self.stories[stream].fin_seen = True
            case StreamReset(stream) | Refused(stream):
                assert not self.stories[stream].over
                self.stories[stream].over = True
            case MuxDatagram(channel, data):
                self.arrived[channel].append(data)
            case Pong(number):
                self.pongs.append(number)
            case Bye() | ByeAcknowledged():
                self.ends.append(event)
            case _:
                assert isinstance(event, Hello | Opened)

    def check(self) -> None:
        for stream, story in self.stories.items():
            assert 0 <= self.mux.pending(stream) <= WINDOW
            assert story.unread <= WINDOW

    def act(self, what: str, which: int, size: int) -> None:
        """Do one thing, to one of the streams that it can be done to, if there is any."""
        of = {
            "write": self.writable,
            "fin": self.writable,
            "read": self.live,
            "reset": self.live,
            "accept": self.unanswered,
            "refuse": self.unanswered,
        }
        if what in of:
            if not (streams := of[what]()):
                return
            stream = streams[which % len(streams)]
        match what:
            case "open":
                self.open()
            case "write":
                self.write(stream, size)
            case "read":
                self.read(stream, size)
            case "accept":
                self.accept(stream)
            case "fin":
                self.fin(stream)
            case "reset" | "refuse":
                self.end(stream, what == "refuse")
            case "datagram":
                self.datagram(which % 3, size)
            case "ping":
                self.last_ping = self.mux.ping()
            case "take":
                self.take(size)
        self.check()

    def conclude(self) -> None:
        """Accept, read and finish whatever is left."""
        for stream in self.unanswered():
            self.accept(stream)
        for stream in self.writable():
            self.fin(stream)
        for stream in self.live():
            self.read(stream, WINDOW)


def move(source: End, target: End, size: int) -> None:
    data = bytes(source.wire[:size])
    del source.wire[:size]
    target.deliver(data)


def settle(ends: list[End]) -> None:
    """Go on until nothing moves any more; two ends that never come to rest fail."""
    for _ in range(1000):
        moved = 0
        for end, other in (ends, ends[::-1]):
            end.conclude()
            end.take(100_000)
            moved += len(end.wire)
            move(end, other, 70_000)
        if not moved:
            return
    raise AssertionError("They never came to rest.")


sizes = st.one_of(st.integers(1, 300), st.integers(1, 300_000))
ACTS = [
    *("open", "write", "write", "write", "read", "fin", "reset", "refuse", "accept", "accept"),
    *("datagram", "ping", "take", "take", "move", "move"),
]
acts = st.tuples(st.integers(0, 1), st.sampled_from(ACTS), st.integers(0, 7), sizes)


@pytest.mark.slow
@given(few_or_many(acts))
@settings(max_examples=80)
def test_whatever_the_schedule_all_that_was_written_arrives_once_and_in_order(
    schedule: list[tuple[int, str, int, int]],
) -> None:
    ends = [End(AGENT), End(HOST)]
    for side, what, which, size in schedule:
        if what == "move":
            move(ends[side], ends[1 - side], size)
        else:
            ends[side].act(what, which, size)
    settle(ends)
    for end, other in (ends, ends[::-1]):
        for stream, story in end.stories.items():
            peer = other.stories[stream]
            if story.over or peer.over:
                assert peer.written.startswith(story.read)
            else:
                assert story.read == peer.written
                assert story.fin_seen
        assert other.arrived == end.sent
        assert end.pongs[-1:] == ([end.last_ping] if end.last_ping else [])
        assert end.mux.openable == MAX_STREAMS  # nothing is remembered
    for end in ends:
        end.mux.close()
    settle(ends)
    for end in ends:
        assert sorted(map(repr, end.ends)) == ["Bye()", "ByeAcknowledged()"]


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=30))
@settings(max_examples=30)
def test_a_stream_that_nobody_reads_starves_no_other(writes: list[int]) -> None:
    agent, host = pair()
    stuck, busy = agent.open(b""), agent.open(b"")
    agent.write(stuck, bytes(WINDOW))
    carry(agent, host)
    agent.write(stuck, bytes(WINDOW))
    for size in writes:
        agent.write(busy, BLOB[:size])
        events = carry(agent, host)
        assert joined(events, busy) == BLOB[:size]
        assert joined(events, stuck) == b""
        host.consumed(busy, size)
        carry(host, agent)
    assert agent.pending(stuck) == WINDOW
