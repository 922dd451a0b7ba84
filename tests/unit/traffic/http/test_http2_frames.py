"""Bytes of HTTP/2 are cut into frames wherever reads end."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame
from hypothesis import given

from pytest_egress.traffic.http.http2_frames import (
    DATA,
    PADDED,
    FrameCutter,
    FrameTooLongError,
    data_of,
    goaway_frame,
    stream_of,
)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


frames = st.builds(
    frame,
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, (1 << 32) - 1),
    st.binary(max_size=60),
)


def cut(cutter: FrameCutter, *pieces: bytes) -> list[bytes]:
    found = []
    for piece in pieces:
        cutter.receive(piece)
        while (each := cutter.next_frame()) is not None:
            found.append(each)
    return found


@given(st.lists(frames), st.lists(st.integers(0, 400)))
def test_frames_come_out_whole_wherever_reads_end(sent: list[bytes], ends: list[int]) -> None:
    data = b"".join(sent)
    places = [0, *sorted(min(end, len(data)) for end in ends), len(data)]
    pieces = [data[one:other] for one, other in itertools.pairwise(places)]
    assert cut(FrameCutter(60), *pieces) == sent


@given(st.lists(st.binary()))
def test_any_bytes_are_frames_or_ask_for_more_or_are_a_frame_too_long_error(
    pieces: list[bytes],
) -> None:
    cutter = FrameCutter(60)
    try:
        found = cut(cutter, *pieces)
    except FrameTooLongError:
        return
    joined = b"".join(found)
    assert b"".join(pieces).startswith(joined)
    rest = b"".join(pieces)[len(joined) :]
    assert len(rest) < 9 or len(rest) < 9 + int.from_bytes(rest[:3], "big")
    for each in found:
        parsed, length = Frame.parse_frame_header(memoryview(each[:9]), strict=False)
        assert (length, parsed.stream_id) == (len(each) - 9, stream_of(each))


def test_a_frame_that_is_announced_to_be_too_long_is_not_waited_for() -> None:
    cutter = FrameCutter(60)
    cutter.receive(frame(0, 0, 1, bytes(61))[:9])
    with pytest.raises(FrameTooLongError, match="a frame of 61 bytes was announced, and 60"):
        cutter.next_frame()


@pytest.mark.parametrize(
    ("data", "is_within"),
    [
        (b"", False),
        (b"\0\0", True),
        (frame(1, 4, 1, b"abc")[:9], True),
        (frame(1, 4, 1, b"abc"), False),
        (frame(1, 0, 1, b"abc"), True),
        (frame(1, 0, 1, b"abc") + frame(9, 0, 1, b""), True),
        (frame(1, 0, 1, b"abc") + frame(9, 4, 1, b""), False),
        (frame(6, 0, 0, bytes(8))[:12], False),
        (frame(0, 0, 1, bytes(8))[:12], False),
    ],
)
def test_it_tells_whether_a_head_has_begun_to_come(data: bytes, is_within: bool) -> None:
    cutter = FrameCutter(60)
    cut(cutter, data)
    assert cutter.is_within_head == is_within


def test_goaway_is_what_hyperframe_reads_as_one() -> None:
    data = goaway_frame(7)
    parsed, length = Frame.parse_frame_header(memoryview(data[:9]))
    parsed.parse_body(memoryview(data[9:]))
    assert length == len(data) - 9
    assert isinstance(parsed, GoAwayFrame)
    assert (parsed.stream_id, parsed.last_stream_id, parsed.error_code) == (0, 7, 0)


@given(content=st.binary(max_size=40), padding=st.integers(0, 255))
def test_the_bytes_of_a_body_come_without_their_padding(content: bytes, padding: int) -> None:
    padded = DataFrame(1, content, pad_length=padding, flags=["PADDED"])
    assert data_of(padded.serialize()) == content
    assert data_of(DataFrame(1, content).serialize()) == content


@given(st.binary(max_size=4))
def test_padding_that_is_longer_than_its_frame_is_no_error(content: bytes) -> None:
    assert len(data_of(frame(DATA, PADDED, 1, content))) <= len(content)
