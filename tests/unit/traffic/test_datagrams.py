"""Datagrams of UDP as frames: what is parsed, and what answers it."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.datagrams import SentDatagram, answer, checksum, parse, refusal

CLIENTS = {4: ("10.213.0.2", 40000), 6: ("fd00:213::2", 40000)}
SERVERS = {4: ("198.51.100.7", 9), 6: ("2001:db8::7", 9)}
TYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}


def sent_to(version: int, server: str = "") -> SentDatagram:
    """A datagram as `parse` returns it, with no more of a frame than an answer needs."""
    start = b"\x45" if version == 4 else b"\x60"
    return SentDatagram(
        version=version,
        client=CLIENTS[version],
        server=(server or SERVERS[version][0], 9),
        content=b"?",
        hops=64,
        frame=b"\2" * 6 + b"\4" * 6 + TYPES[version] + start + bytes(47),
    )


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("content", [b"", b"x", b"odd", b"x" * 65487])
def test_an_answer_is_a_datagram_the_other_way(version: int, content: bytes) -> None:
    frame = answer(sent_to(version), content)
    assert frame[:14] == b"\4" * 6 + b"\2" * 6 + TYPES[version]
    found = parse(frame)
    assert found is not None
    assert (found.client, found.server) == (SERVERS[version], CLIENTS[version])
    assert (found.content, found.hops) == (content, 64)


@pytest.mark.parametrize("version", [4, 6])
def test_the_checksums_of_an_answer_are_right(version: int) -> None:
    packet = answer(sent_to(version), b"odd")[14:]
    header = 20 if version == 4 else 40
    ends = packet[12:20] if version == 4 else packet[8:40]
    body = packet[header:]
    assert checksum(ends + struct.pack("!II", len(body), 17) + body) == 0
    assert version == 6 or checksum(packet[:20]) == 0


@pytest.mark.parametrize(("version", "most"), [(4, 65507), (6, 65487)])
def test_a_longer_answer_than_any_datagram_is_refused(version: int, most: int) -> None:
    said = f"{most + 1} bytes do not fit into a datagram of IPv{version}, which has {most} at most"
    with pytest.raises(ValueError, match=said):
        answer(sent_to(version), bytes(most + 1))


@pytest.mark.parametrize(
    ("version", "server", "source"),
    [
        (4, "239.1.2.3", "10.213.0.1"),
        (4, "255.255.255.255", "10.213.0.1"),
        (4, "10.213.0.255", "10.213.0.1"),
        (6, "ff02::fb", "fd00:213::1"),
    ],
)
def test_no_answer_comes_from_many(version: int, server: str, source: str) -> None:
    found = parse(answer(sent_to(version, server), b"x"))
    assert found is not None
    assert found.client[0] == source


@pytest.mark.parametrize(("version", "start"), [(4, b"\3\3"), (6, b"\1\4")])
def test_a_refusal_quotes_the_datagram(version: int, start: bytes) -> None:
    sent = sent_to(version)
    message = refusal(sent)[14 + (20 if version == 4 else 40) :]
    assert message[:2] == start
    assert message[8:] == sent.packet


def changed(frame: bytes, place: int, value: bytes) -> bytes:
    return frame[:place] + value + frame[place + len(value) :]


FRAME = answer(sent_to(4), b"content")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        FRAME[:-1],
        changed(FRAME, 14, b"\x4f"),  # options that are not there
        changed(FRAME[:34] + bytes([1, 1, 1, 0]) + FRAME[34:], 14, b"\x46\0\0\x27"),  # options
        changed(FRAME, 12, b"\x88\xb5"),  # another ethertype
        changed(FRAME, 14, b"\x44"),  # a header that is too short
        changed(FRAME, 20, b"\x20\0"),  # a fragment
        changed(FRAME, 23, b"\x01"),  # ICMP
        changed(FRAME, 38, b"\0\7"),  # shorter than its header
        changed(FRAME, 38, b"\xff\xff"),
    ],
)
def test_what_is_no_whole_datagram_is_none(frame: bytes) -> None:
    assert parse(frame) is None


def test_what_follows_a_datagram_is_not_of_it() -> None:
    found = parse(FRAME + b"padding")
    assert found is not None
    assert found.content == b"content"


@given(st.data())
def test_a_damaged_frame_is_a_datagram_or_none(data: Any) -> None:
    frame = bytearray(answer(sent_to(data.draw(st.sampled_from([4, 6]))), b"x" * 30))
    for _ in range(data.draw(st.integers(0, 6))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    found = parse(bytes(frame[: data.draw(st.integers(0, len(frame)))]))
    assert found is None or isinstance(found.content, bytes)
