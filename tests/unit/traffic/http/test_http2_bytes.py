"""Any bytes of a client of HTTP/2 bring the same events however they are cut, or the one error there is."""

from __future__ import annotations

from collections.abc import Iterable

import h2.config
import h2.connection
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_egress.traffic.http.http2 import Http2
from pytest_egress.traffic.http.http2_frames import PREFACE
from pytest_egress.traffic.http.multiplexed import BrokenRuleError, Came

FIELDS = [(":method", "POST"), (":scheme", "https"), (":authority", "api.test"), (":path", "/")]


def conversation() -> bytes:
    """What a client sends that makes two requests, one with a body and trailers."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    client.send_headers(1, FIELDS)
    client.send_data(1, b"hello", pad_length=3)
    client.send_headers(1, [("digest", "x")], end_stream=True)
    client.send_headers(3, FIELDS, end_stream=True)
    client.reset_stream(3)
    client.ping(b"12345678")
    return client.data_to_send()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


FRAMES = st.builds(
    frame,
    st.integers(0, 12),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D, 0xFF]),
    st.sampled_from([0, 1, 2, 3, 5, 0x7FFFFFFF, 0x80000001]),
    st.sampled_from(
        [b"", bytes(4), bytes(8), b"\x82\x87\x84\x41\x05hello", b"\x00\x03\x00\x00\x00\x64"]
    )
    | st.binary(max_size=40),
)


def brought(pieces: Iterable[bytes]) -> tuple[list[Came], bool]:
    """The events of some bytes, and whether an error ends them."""
    http = Http2(lambda: 0.0)
    events: list[Came] = []
    try:
        for data in pieces:
            for event in http.receive(data):
                events.append(event)
            http.outgoing()
    except BrokenRuleError:
        assert http.outgoing()
        return events, True
    return events, False


@given(
    st.lists(FRAMES, max_size=12).map(
        lambda frames: PREFACE + frame(4, 0, 0, b"") + b"".join(frames)
    )
)
@example(conversation())
@example(PREFACE)
@example(b"GET / HTTP/1.1\r\n\r\n")
def test_any_bytes_bring_the_same_however_they_are_cut(data: bytes) -> None:
    whole = brought([data])
    for size in (1, 7, 64):
        assert brought(data[at : at + size] for at in range(0, len(data), size)) == whole
