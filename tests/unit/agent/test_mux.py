"""The rules of the multiplexer: frames, credit, ends of streams, and what breaks the rules."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_egress.agent import mux
from pytest_egress.agent.mux import (
    AGENT,
    GRANT,
    HOST,
    MAX_DATAGRAMS,
    MAX_STREAMS,
    SLICE,
    WINDOW,
    Mux,
)
from pytest_egress.agent.mux_frames import (
    DNS,
    MAX_PAYLOAD,
    MAX_TEXT,
    MONITORS,
    PACKETS,
    Bye,
    ByeAcknowledged,
    Data,
    Failed,
    Fin,
    Hello,
    Lost,
    MuxDatagram,
    Open,
    Opened,
    Pong,
    ProtocolError,
    Refused,
    StreamReset,
)
from tests.support.mux_pairs import (
    CREDIT,
    DATA,
    FIN,
    GREETING,
    HEADER,
    HELLO,
    OPEN,
    OPENED,
    REFUSED,
    RST,
    carry,
    frame,
    joined,
    number,
    pair,
)

DATAGRAM, LOST, PING, PONG, ERROR, BYE, BYE_ACK = range(9, 16)


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """The type, id and payload of each frame; they must be whole."""
    found, start = [], 0
    while start < len(data):
        kind, stream, length = HEADER.unpack_from(data, start)
        start += HEADER.size + length
        found.append((kind, stream, data[start - length : start]))
    assert start == len(data)
    return found


def kinds(data: bytes) -> list[int]:
    return [kind for kind, _, _ in frames(data)]


def opened(agent: Mux, host: Mux) -> int:
    """A stream that the agent opened and the host accepted."""
    stream = agent.open(b"")
    assert carry(agent, host) == [Open(stream, b"")]
    host.accept(stream)
    assert carry(host, agent) == [Opened(stream)]
    return stream


def greeted(side: int = HOST) -> Mux:
    """One that has a peer of handmade frames."""
    end = Mux(side)
    end.hello()
    end.send()
    assert list(end.receive(frame(HELLO, 0, GREETING))) == [Hello(True, "Python")]
    return end


def test_a_frame_is_a_type_an_id_and_a_length_in_network_order() -> None:
    agent = Mux(AGENT)
    agent.hello(ipv6=True, text="Python")
    assert agent.send() == b"\x01\0\0\0\0\0\x09" + GREETING
    assert agent.open(b"for") == 1
    agent.write(1, b"data")
    agent.fin(1)
    assert agent.send().hex(" ", 1) == (
        "02 00 00 00 01 00 03 66 6f 72 05 00 00 00 01 00 04 64 61 74 61 07 00 00 00 01 00 00"
    )


def test_nothing_is_sent_before_hello() -> None:
    agent = Mux(AGENT)
    agent.open(b"")
    agent.ping()
    agent.datagram(DNS, b"query")
    assert agent.send() == b""
    agent.hello()
    assert kinds(agent.send()) == [HELLO, OPEN, PING, DATAGRAM]
    with pytest.raises(ValueError, match="once"):
        agent.hello()


def test_the_two_sides_choose_ids_of_different_parity() -> None:
    agent, host = pair()
    assert [agent.open(b"") for _ in range(3)] == [1, 3, 5]
    assert [host.open(b"") for _ in range(3)] == [2, 4, 6]
    assert carry(agent, host) == [Open(1, b""), Open(3, b""), Open(5, b"")]
    assert carry(host, agent) == [Open(2, b""), Open(4, b""), Open(6, b"")]


def test_data_follows_open_without_an_answer() -> None:
    agent, host = pair()
    stream = agent.open(b"192.0.2.1:443")
    agent.write(stream, b"GET /")
    agent.fin(stream)
    assert carry(agent, host) == [
        Open(stream, b"192.0.2.1:443"),
        Data(stream, b"GET /"),
        Fin(stream),
    ]


def test_each_direction_ends_by_its_own_fin() -> None:
    agent, host = pair()
    stream = opened(agent, host)
    agent.fin(stream)
    assert carry(agent, host) == [Fin(stream)]
    host.write(stream, b"still here")
    assert carry(host, agent) == [Data(stream, b"still here")]
    host.fin(stream)
    assert carry(host, agent) == [Fin(stream)]
    assert agent.openable == MAX_STREAMS


def test_a_fin_waits_for_the_data_before_it() -> None:
    agent, host = pair()
    stream = opened(agent, host)
    agent.write(stream, bytes(WINDOW))
    agent.send()
    agent.write(stream, b"rest")
    agent.fin(stream)
    assert agent.send() == b""
    list(agent.receive(frame(CREDIT, stream, number(GRANT))))
    assert frames(agent.send()) == [(DATA, stream, b"rest"), (FIN, stream, b"")]


def test_a_refusal_carries_an_errno_and_a_sentence() -> None:
    agent, host = pair()
    stream = host.open(b"80")
    host.write(stream, b"too early")
    carry(host, agent)
    agent.refuse(stream, errno.ECONNREFUSED, "Nothing listens on port 80.")
    assert carry(agent, host) == [
        Refused(stream, errno.ECONNREFUSED, "Nothing listens on port 80.")
    ]
    assert host.room(stream) == 0
    assert carry(host, agent) == []
    assert host.openable == agent.openable == MAX_STREAMS


def test_a_reset_drops_what_is_queued_and_is_told_once() -> None:
    agent, host = pair()
    stream = opened(agent, host)
    agent.write(stream, b"never sent")
    host.write(stream, b"never read")
    agent.reset(stream)
    agent.reset(stream)
    assert agent.pending(stream) == 0
    assert carry(host, agent) == []
    assert carry(agent, host) == [StreamReset(stream)]
    data = host.send()
    assert kinds(data) == [RST]
    assert list(agent.receive(data)) == []
    assert agent.send() == b""


def test_what_breaks_off_is_reset_after_what_is_queued() -> None:
    agent, host = pair()
    stream, empty = agent.open(b""), agent.open(b"")
    carry(agent, host)
    agent.write(stream, b"last words")
    agent.fin(stream)
    agent.break_off(stream)
    agent.break_off(empty)
    assert (agent.room(stream), agent.pending(stream)) == (0, 10)
    with pytest.raises(ValueError, match="cannot be written to"):
        agent.write(stream, b"more")
    assert carry(agent, host) == [
        StreamReset(empty),
        Data(stream, b"last words"),
        StreamReset(stream),
    ]
    agent.break_off(stream)
    assert carry(host, agent) == []
    assert agent.openable == MAX_STREAMS


@pytest.mark.parametrize("unheard", [False, True])
def test_an_end_may_say_that_nobody_got_what_the_peer_sent(unheard: bool) -> None:
    agent, host = pair()
    closed, broken, at_once = (opened(agent, host) for _ in range(3))
    agent.fin(closed, unheard)
    agent.write(broken, b"last words")
    agent.break_off(broken, unheard)
    agent.break_off(at_once, unheard)
    assert carry(agent, host) == [
        StreamReset(at_once, unheard),
        Fin(closed, unheard),
        Data(broken, b"last words"),
        StreamReset(broken, unheard),
    ]
    agent.reset(closed)  # which says nothing of that
    assert carry(agent, host) == [StreamReset(closed)]


def test_what_breaks_off_waits_for_credit_and_no_close_waits_for_it() -> None:
    agent, host = pair()
    stream, other = agent.open(b""), agent.open(b"")
    for each in (stream, other):
        agent.write(each, bytes(WINDOW))
    carry(agent, host)
    for each in (stream, other):
        host.accept(each)
        agent.write(each, b"last words")
        agent.break_off(each)
    assert carry(agent, host) == []
    host.consumed(stream, WINDOW)
    carry(host, agent)
    assert carry(agent, host) == [Data(stream, b"last words"), StreamReset(stream)]
    agent.close()
    assert carry(agent, host) == [StreamReset(other), Bye()]


def test_a_peer_that_resets_first_hears_no_last_words() -> None:
    agent, host = pair()
    stream = agent.open(b"")
    carry(agent, host)
    agent.write(stream, b"last words")
    agent.break_off(stream)
    host.reset(stream)
    assert carry(host, agent) == [StreamReset(stream)]
    assert carry(agent, host) == []
    assert agent.openable == MAX_STREAMS


def test_resets_that_cross_answer_each_other() -> None:
    agent, host = pair()
    stream = opened(agent, host)
    agent.reset(stream)
    host.reset(stream)
    there, back = agent.send(), host.send()
    assert list(host.receive(there)) == list(agent.receive(back)) == []
    assert agent.send() == host.send() == b""
    assert agent.openable == MAX_STREAMS


def test_a_reset_that_crosses_the_last_fin_is_over_too() -> None:
    agent, host = pair()
    stream = opened(agent, host)
    agent.fin(stream)
    assert carry(agent, host) == [Fin(stream)]
    agent.reset(stream)
    host.fin(stream)
    assert carry(host, agent) == []
    assert agent.openable == MAX_STREAMS
    assert carry(agent, host) == []
    assert host.send() == b""


def test_what_a_reset_stream_still_brings_is_dropped_until_its_rst_only() -> None:
    host = greeted()
    list(host.receive(frame(OPEN, 1)))
    host.reset(1)
    late = frame(DATA, 1, b"late") + frame(CREDIT, 1, number(5)) + frame(FIN, 1)
    assert list(host.receive(late + frame(RST, 1))) == []
    with pytest.raises(ProtocolError, match="stream 1, which is not open"):
        list(host.receive(frame(DATA, 1, b"x")))


def test_a_sender_stops_at_the_credit_and_goes_on_with_more() -> None:
    agent, host = pair()
    stream = agent.open(b"")
    agent.write(stream, bytes(WINDOW))
    assert len(joined(carry(agent, host), stream)) == WINDOW
    agent.write(stream, b"more")
    assert agent.send() == b""
    assert agent.pending(stream) == 4
    host.consumed(stream, GRANT)
    assert carry(host, agent) == []
    assert carry(agent, host) == [Data(stream, b"more")]
    assert agent.pending(stream) == 0


def test_credit_is_given_in_batches() -> None:
    agent, host = pair()
    stream = agent.open(b"")
    agent.write(stream, bytes(WINDOW))
    carry(agent, host)
    for _ in range(GRANT - 1):
        host.consumed(stream, 1)
    assert host.send() == b""
    host.consumed(stream, 1)
    assert frames(host.send()) == [(CREDIT, stream, number(GRANT))]


def test_a_direction_that_has_ended_is_given_no_credit() -> None:
    agent, host = pair()
    stream = agent.open(b"")
    agent.write(stream, bytes(WINDOW))
    agent.fin(stream)
    carry(agent, host)
    host.consumed(stream, WINDOW)
    assert host.send() == b""


def test_only_what_was_received_can_be_consumed() -> None:
    agent, host = pair()
    stream = agent.open(b"")
    agent.write(stream, b"four")
    carry(agent, host)
    host.consumed(stream, 3)
    with pytest.raises(ValueError, match="2 bytes that are unread"):
        host.consumed(stream, 2)
    host.reset(stream)
    host.consumed(stream, 1)  # it has ended meanwhile


def test_a_queue_has_room_for_one_window() -> None:
    agent, _ = pair()
    stream = agent.open(b"")
    agent.write(stream, bytes(WINDOW - 3))
    assert (agent.pending(stream), agent.room(stream)) == (WINDOW - 3, 3)
    with pytest.raises(ValueError, match="room for 3 bytes"):
        agent.write(stream, b"four")
    agent.write(stream, memoryview(b"abc"))
    assert agent.room(stream) == 0


def test_a_stream_that_was_crowded_is_told_once_when_it_has_room() -> None:
    agent, host = pair()
    full, light, dead = (agent.open(b"") for _ in range(3))
    agent.write(full, bytes(WINDOW))
    agent.write(light, b"little")
    agent.write(dead, bytes(WINDOW))
    assert agent.drained() == []
    carry(agent, host)
    agent.reset(dead)
    assert agent.drained() == [full]
    host.consumed(full, WINDOW)
    carry(host, agent)
    agent.write(full, b"little")
    carry(agent, host)
    assert agent.drained() == []


def test_streams_take_turns() -> None:
    agent, _ = pair()
    streams = [agent.open(b"") for _ in range(3)]
    for stream in streams:
        agent.write(stream, bytes(2 * SLICE))
    sent = [(kind, stream) for kind, stream, _ in frames(agent.send()) if kind == DATA]
    assert sent == [(DATA, stream) for stream in streams * 2]


def test_many_small_writes_are_no_more_turns() -> None:
    agent, _ = pair()
    small, large = agent.open(b""), agent.open(b"")
    for _ in range(4):
        agent.write(small, bytes(SLICE // 2))
    agent.write(large, bytes(2 * SLICE))
    sent = [stream for kind, stream, _ in frames(agent.send()) if kind == DATA]
    assert sent == [small, large, small, large]


def test_control_and_datagrams_overtake_bulk_data() -> None:
    agent, host = pair()
    stream, other = agent.open(b""), agent.open(b"")
    carry(agent, host)
    agent.write(stream, bytes(WINDOW))
    agent.take(1)
    agent.ping()
    agent.reset(other)
    agent.datagram(PACKETS, b"packet")
    agent.datagram(DNS, b"query")
    assert kinds(agent.send())[:5] == [RST, PING, DATAGRAM, DATAGRAM, DATA]


def test_a_flood_of_datagrams_leaves_streams_their_turn() -> None:
    agent, _ = pair()
    stream = agent.open(b"")
    agent.write(stream, bytes(WINDOW))
    for _ in range(1000):
        agent.datagram(PACKETS, bytes(1000))
    sent = frames(agent.take(4 * SLICE))
    assert sum(len(payload) for kind, _, payload in sent if kind == DATA) >= SLICE


def test_what_is_taken_goes_beyond_the_limit_by_less_than_a_frame() -> None:
    agent, _ = pair()
    for _ in range(50):
        stream = agent.open(bytes(20))
        agent.write(stream, bytes(100))
        agent.datagram(DNS, bytes(100))
    taken = [agent.take(1) for _ in range(150)]
    assert [len(kinds(data)) for data in taken] == [1] * 150
    assert agent.take(1) == b""


def test_the_least_precious_datagrams_are_dropped_and_their_number_is_told() -> None:
    agent, host = pair()
    agent.datagram(DNS, b"query")
    agent.datagram(MONITORS, b"tampered")
    for index in range(2 * MAX_DATAGRAMS // MAX_PAYLOAD):
        agent.datagram(PACKETS, bytes([index]) * MAX_PAYLOAD)
    first, second, lost, *packets = carry(agent, host)
    assert (first, second) == (MuxDatagram(DNS, b"query"), MuxDatagram(MONITORS, b"tampered"))
    assert isinstance(lost, Lost)
    assert lost.channel == PACKETS
    assert lost.count + len(packets) == 2 * MAX_DATAGRAMS // MAX_PAYLOAD
    assert isinstance(packets[0], MuxDatagram)
    assert packets[0].data[0] == lost.count  # the oldest are those that are lost
    assert carry(agent, host) == []


@pytest.mark.slow
def test_empty_datagrams_fill_the_queue_too() -> None:
    agent, host = pair()
    for _ in range(MAX_DATAGRAMS // 50):
        agent.datagram(PACKETS, b"")
    lost, *packets = carry(agent, host)
    assert lost == Lost(PACKETS, MAX_DATAGRAMS // 50 - len(packets))
    for _ in range(MAX_DATAGRAMS // 50):
        agent.datagram(PACKETS, b"")
    assert carry(agent, host) == [lost, *packets]


def test_a_datagram_that_no_frame_can_hold_is_lost() -> None:
    agent, host = pair()
    agent.datagram(MONITORS, bytes(MAX_PAYLOAD + 1))
    agent.datagram(MONITORS, bytes(MAX_PAYLOAD))
    assert carry(agent, host) == [Lost(MONITORS, 1), MuxDatagram(MONITORS, bytes(MAX_PAYLOAD))]


def test_what_was_lost_before_it_could_be_queued_is_told_with_what_was_dropped() -> None:
    agent, host = pair()
    agent.lose(PACKETS, 3)
    agent.lose(DNS, 0)
    agent.datagram(PACKETS, b"kept")
    agent.datagram(PACKETS, bytes(MAX_PAYLOAD + 1))
    assert agent.datagrams == 5
    assert carry(agent, host) == [Lost(PACKETS, 4), MuxDatagram(PACKETS, b"kept")]


def test_a_pong_carries_the_number_of_the_ping() -> None:
    agent, host = pair()
    assert host.ping() == 1
    assert carry(host, agent) == []
    assert carry(agent, host) == [Pong(1)]
    assert [host.ping(), host.ping()] == [2, 3]
    data = host.send()
    assert frames(data) == [(PING, 0, number(3))]
    list(agent.receive(data))
    assert carry(agent, host) == [Pong(3)]


def test_pings_that_are_not_answered_take_no_memory() -> None:
    host = greeted()
    list(host.receive(b"".join(frame(PING, 0, number(index)) for index in range(1, 1000))))
    assert host.send() == frame(PONG, 0, number(999))


def test_bye_follows_all_that_was_queued() -> None:
    agent, host = pair()
    stream = agent.open(b"")
    agent.write(stream, bytes(WINDOW))
    carry(agent, host)
    agent.write(stream, b"waits for credit")
    agent.datagram(PACKETS, b"packet")
    agent.close()
    assert carry(agent, host) == [MuxDatagram(PACKETS, b"packet")]
    host.consumed(stream, WINDOW)
    carry(host, agent)
    assert carry(agent, host) == [Data(stream, b"waits for credit"), Bye()]
    assert carry(host, agent) == [ByeAcknowledged()]
    assert agent.send() == host.send() == b""


def test_after_close_nothing_can_be_queued_but_the_rest_goes_on() -> None:
    agent, host = pair()
    stream = opened(agent, host)
    theirs = host.open(b"")
    carry(host, agent)
    agent.close()
    assert (agent.openable, agent.room(stream)) == (0, 0)
    for late in (
        lambda: agent.open(b""),
        lambda: agent.write(stream, b"x"),
        lambda: agent.fin(stream),
        lambda: agent.accept(theirs),
        lambda: agent.refuse(theirs, 111),
        lambda: agent.datagram(DNS, b"x"),
    ):
        with pytest.raises(ValueError):
            late()
    assert carry(agent, host) == [Bye()]
    host.write(stream, bytes(GRANT))
    assert len(joined(carry(host, agent), stream)) == GRANT
    agent.consumed(stream, GRANT)
    agent.ping()
    agent.reset(theirs)
    data = agent.send()
    assert kinds(data) == [CREDIT, RST, PING]
    assert list(host.receive(data)) == [StreamReset(theirs)]


def test_a_stream_that_is_opened_while_we_close_is_reset_unseen() -> None:
    agent, host = pair()
    agent.close()
    stream = host.open(b"80")
    assert carry(host, agent) == []
    assert carry(agent, host) == [StreamReset(stream), Bye()]


def test_who_gives_up_says_so_and_nothing_else() -> None:
    agent, host = pair()
    stream = agent.open(b"")
    agent.write(stream, b"dropped")
    agent.fail("The kernel refused the rules (ENOENT).")
    assert carry(agent, host) == [Failed("The kernel refused the rules (ENOENT).")]
    assert agent.send() == b""
    assert list(agent.receive(b"whatever")) == []
    assert host.openable == 0


def test_an_agent_may_give_up_before_it_greets() -> None:
    agent, host = Mux(AGENT), Mux(HOST)
    agent.fail("No IPv4.")
    assert carry(agent, host) == [Failed("No IPv4.")]


def test_a_text_that_is_too_long_is_cut() -> None:
    agent, host = pair()
    agent.fail("é" * MAX_TEXT)
    (event,) = carry(agent, host)
    assert isinstance(event, Failed)
    assert event.text.startswith("é" * (MAX_TEXT // 2 - 2))
    with pytest.raises(ValueError, match="purpose"):
        host.open(bytes(MAX_TEXT + 1))


def test_a_peer_that_is_no_agent_is_quoted() -> None:
    with pytest.raises(ProtocolError) as caught:
        list(Mux(HOST).receive(b"exec: python3: not found\n"))
    assert str(caught.value) == (
        "The peer does not begin with HELLO, but with b'exec: python3: not found\\n'."
    )


def test_another_version_is_refused() -> None:
    with pytest.raises(ProtocolError, match="The peer speaks version 3 of the link, not 2"):
        list(Mux(HOST).receive(frame(HELLO, 0, b"\0\3\0 and more")))


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (frame(0), "a frame of type 0"),
        (frame(16), "a frame of type 16"),
        (frame(HELLO, 0, GREETING), "HELLO twice"),
        (frame(OPEN, 5), "opened stream 5, not 3"),
        (frame(OPEN, 1), "opened stream 1, not 3"),
        (frame(OPEN, 2), "opened stream 2, not 3"),
        (frame(OPEN, 3, bytes(MAX_TEXT + 1)), "type 2 with 4097 bytes"),
        (frame(OPENED, 1), "accepted stream 1 out of turn"),
        (frame(OPENED, 2) * 2, "accepted stream 2 out of turn"),
        (frame(OPENED, 9), "stream 9, which is not open"),
        (frame(REFUSED, 1, b"\0\1"), "refused stream 1 out of turn"),
        (frame(OPENED, 2) + frame(REFUSED, 2, b"\0\1"), "refused stream 2 out of turn"),
        (frame(DATA, 0, b"x"), "stream 0, which is not open"),
        (frame(DATA, 1), "type 5 with 0 bytes"),
        (frame(DATA, 7, b"x"), "stream 7, which is not open"),
        (frame(DATA, 2, b"x"), "data on stream 2 out of turn"),
        (frame(FIN, 1) + frame(DATA, 1, b"x"), "data on stream 1 out of turn"),
        (frame(RST, 1) + frame(DATA, 1, b"x"), "stream 1, which is not open"),
        (frame(DATA, 1, bytes(SLICE)) * (WINDOW // SLICE) + frame(DATA, 1, b"x"), "its credit"),
        (frame(CREDIT, 1, number(1)), "granted more on stream 1 than its window"),
        (frame(CREDIT, 7, number(1)), "stream 7, which was never open"),
        (frame(FIN, 1) * 2, "FIN on stream 1 out of turn"),
        (frame(FIN, 2), "FIN on stream 2 out of turn"),
        (frame(RST, 4), "stream 4, which was never open"),
        (frame(DATAGRAM, 4), "a datagram on channel 4"),
        (frame(LOST, 4, number(1)), "a datagram on channel 4"),
        (frame(PING, 1, number(1)), "type 11 on stream 1"),
        (frame(PONG, 0, number(1)), "answered ping 1, which was not sent"),
        (frame(BYE_ACK), "acknowledged a BYE that was not sent"),
        (frame(BYE) * 2, "type 14 after BYE"),
        (frame(BYE) + frame(DATA, 1, b"x"), "type 5 after BYE"),
        (frame(BYE) + frame(OPEN, 3), "type 2 after BYE"),
    ],
)
def test_what_breaks_the_rules_is_named(sent: bytes, text: str) -> None:
    host = greeted()
    list(host.receive(frame(OPEN, 1)))
    host.accept(1)
    assert host.open(b"") == 2
    host.send()
    with pytest.raises(ProtocolError, match=f"^The peer .*{text}") as caught:
        list(host.receive(sent))
    with pytest.raises(ProtocolError, match=f"^{caught.value}$"):
        host.receive(b"")
    host.fail(str(caught.value))
    assert host.send() == frame(ERROR, 0, str(caught.value).encode())


def test_what_came_before_a_broken_rule_is_told_first() -> None:
    events = greeted().receive(frame(OPEN, 1) + frame(DATA, 1, b"x") + frame(PONG, 0, bytes(4)))
    assert [next(events), next(events)] == [Open(1, b""), Data(1, b"x")]
    with pytest.raises(ProtocolError):
        next(events)


def test_events_that_nobody_asked_for_come_with_the_next_bytes() -> None:
    host = greeted()
    host.receive(frame(OPEN, 1) + frame(DATA, 1, b"x")[:3])
    assert list(host.receive(frame(DATA, 1, b"x")[3:])) == [Open(1, b""), Data(1, b"x")]


def test_a_reset_takes_effect_on_what_is_already_here() -> None:
    host = greeted()
    events = host.receive(frame(OPEN, 1) + frame(DATA, 1, b"x") + frame(OPEN, 3))
    assert next(events) == Open(1, b"")
    host.reset(1)
    assert list(events) == [Open(3, b"")]


def test_streams_are_limited_on_both_sides() -> None:
    agent, host = pair()
    for _ in range(MAX_STREAMS):
        agent.open(b"")
    assert agent.openable == 0
    with pytest.raises(ValueError, match="too many"):
        agent.open(b"")
    assert len(carry(agent, host)) == MAX_STREAMS
    with pytest.raises(ProtocolError, match=f"more than {MAX_STREAMS} streams"):
        list(host.receive(frame(OPEN, 2 * MAX_STREAMS + 1)))


def test_a_peer_that_resets_and_never_reads_is_bounded() -> None:
    host = greeted()
    flood = b"".join(frame(OPEN, stream) + frame(RST, stream) for stream in range(1, 9999, 2))
    with pytest.raises(ProtocolError, match="streams"):
        list(host.receive(flood))


def test_a_stream_counts_until_its_reset_is_answered() -> None:
    agent, host = pair()
    stream = opened(agent, host)
    agent.reset(stream)
    assert agent.openable == MAX_STREAMS - 1
    carry(agent, host)
    carry(host, agent)
    assert agent.openable == MAX_STREAMS


def test_a_fin_is_no_answer_to_a_reset_of_a_stream_that_we_had_not_ended() -> None:
    agent, host = pair()
    stream = opened(agent, host)
    agent.reset(stream)
    host.fin(stream)
    carry(host, agent)
    assert agent.openable == MAX_STREAMS - 1
    carry(agent, host)
    carry(host, agent)
    assert agent.openable == MAX_STREAMS


def test_only_a_stream_that_is_accepted_can_be_written_to() -> None:
    agent, host = pair()
    stream = agent.open(b"")
    carry(agent, host)
    assert host.room(stream) == 0
    with pytest.raises(ValueError, match="cannot be written to"):
        host.write(stream, b"x")
    host.accept(stream)
    host.write(stream, b"x")
    with pytest.raises(ValueError, match="does not wait for an answer"):
        host.accept(stream)
    with pytest.raises(ValueError, match="does not wait for an answer"):
        agent.refuse(stream, 111)


def test_events_are_values() -> None:
    assert Data(1, b"x") == Data(1, b"x") != Data(1, b"y")
    assert Fin(1) != StreamReset(1)
    assert len({Fin(1), Fin(1), Bye()}) == 2
    assert repr(Refused(3, 111, "no")) == "Refused(stream=3, number=111, text='no')"
    match Refused(3, 111, "no"):
        case Refused(stream, code, text):
            assert (stream, code, text) == (3, 111, "no")


def test_the_import_brings_in_nothing_that_costs_time() -> None:
    program = (
        "import sys, struct; before = {*sys.modules}; import agent.mux; "
        "print(*{*sys.modules} - before)"
    )
    folder = Path(mux.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=folder, capture_output=True, text=True
    )
    ours = {"agent", "agent.mux", "agent.mux_frames"}
    assert ours <= {*done.stdout.split()} <= {*ours, "__future__", "_collections"}, done.stderr
