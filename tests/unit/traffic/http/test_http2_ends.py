"""Which frames a client may not send any more, and what is told of them."""

from __future__ import annotations

import hpack
import pytest

from pytest_egress.traffic.http import http2_ends as module
from pytest_egress.traffic.http.http2_ends import ClientEnds, Fields, KeepingDecoder, fields_text
from pytest_egress.traffic.http.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    SETTINGS,
)

POST: Fields = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"api.test"),
    (b":path", b"/evil"),
]
TRAILERS: Fields = [(b"digest", b"x"), (b"age", b"1")]


def frame(kind: int, stream: int = 1, flags: int = 0, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


@pytest.fixture
def ends() -> ClientEnds:
    return ClientEnds()


def head(ends: ClientEnds, stream: int = 1, flags: int = 0, fields: Fields = POST) -> str:
    return ends.take_frame(frame(HEADERS, stream, END_HEADERS | flags), fields)


def data(ends: ClientEnds, stream: int = 1, flags: int = 0, payload: bytes = b"x") -> str:
    return ends.take_frame(frame(DATA, stream, flags, payload), ())


def test_a_request_with_a_body_and_trailers_is_no_offence(ends: ClientEnds) -> None:
    assert [head(ends), data(ends), data(ends), head(ends, 1, END_STREAM, TRAILERS)] == [""] * 4
    assert head(ends, 3, END_STREAM) == ""


def test_another_head_is_told_once_and_what_follows_belongs_to_it(ends: ClientEnds) -> None:
    head(ends, 1, END_STREAM)
    assert head(ends) == (
        "HEADERS came for stream 1, whose request had come whole or was reset (RFC 9113 section 5.1): "
        "POST https://api.test/evil"
    )
    assert data(ends) == ""
    assert head(ends) != ""


def test_so_is_one_that_comes_in_parts_at_its_end(ends: ClientEnds) -> None:
    head(ends, 1, END_STREAM)
    assert ends.take_frame(frame(HEADERS), ()) == ""
    assert ends.take_frame(frame(CONTINUATION), ()) == ""
    assert "/evil" in ends.take_frame(frame(CONTINUATION, flags=END_HEADERS), POST)


def test_after_a_reset_by_its_client_nothing_may_come(ends: ClientEnds) -> None:
    head(ends)
    ends.take_frame(frame(RST_STREAM, payload=bytes(4)), ())
    assert "DATA of 1 byte came for stream 1" in data(ends)
    assert "digest: x, age: 1" in head(ends, 1, END_STREAM, TRAILERS)
    assert "no fields" in head(ends, 1, END_STREAM, ())


def test_a_body_that_has_ended_does_not_go_on_but_by_frames_without_a_byte(
    ends: ClientEnds,
) -> None:
    head(ends)
    data(ends, 1, END_STREAM)
    assert data(ends, payload=b"") == ""
    assert data(ends) != ""


def test_a_second_head_is_none_of_trailers_though_the_stream_is_open(ends: ClientEnds) -> None:
    head(ends)
    assert head(ends, 1, END_STREAM, POST) != ""
    head(ends, 3)
    assert head(ends, 3, 0, TRAILERS) != ""


def test_of_other_frames_and_streams_nothing_is_told(ends: ClientEnds) -> None:
    head(ends, 5, END_STREAM)
    assert ends.take_frame(frame(SETTINGS, 0), ()) == ""
    assert data(ends, 7) == ""  # h2 refuses it: that stream is idle
    assert "stream 3," in data(ends, 3)


def test_the_oldest_of_too_many_is_forgotten(
    ends: ClientEnds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNENDED", 2)
    for stream in (1, 3, 5):
        head(ends, stream)
    assert [bool(data(ends, stream)) for stream in (1, 3, 5)] == [True, False, False]


def test_what_a_client_has_sent_does_no_more_than_to_be_seen() -> None:
    assert fields_text([(b":method", b"\x1bX"), (b":path", b"/\x00\xe4")]) == "\\x1bX :///\\x00\xe4"


def test_a_decoder_keeps_what_it_has_read() -> None:
    decoder = KeepingDecoder()
    block = hpack.Encoder().encode([("a", "b")])
    assert list(decoder.decode(block, raw=True)) == decoder.fields == [(b"a", b"b")]
