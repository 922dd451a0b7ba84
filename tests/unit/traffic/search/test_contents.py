"""Any bytes become pieces, or are said to be unreadable, and raise nothing."""

from __future__ import annotations

import base64
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pytest_egress.traffic.search.contents import (
    ENVELOPE,
    content_pieces,
    mail_pieces,
    query_pieces,
    readings,
)
from pytest_egress.traffic.search.pieces import MAX_DEPTH, Piece, Room, Unread

TYPES = [
    "",
    "text/plain; charset=utf-16",
    "text/html; charset=no-such",
    "application/json",
    "application/x-ndjson",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=B",
    "multipart/form-data",
    "multipart/mixed; boundary=B",
    "multipart/mixed",
    ENVELOPE,
]
BEGINNINGS = [
    b"", b"{", b'{"a": "', b"[", b"<", b"\x1f\x8b", b"x\x9c", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"--B\r\n", b"%41",
    b"\xff\xfe{\x00", b"\xef\xbb\xbf{", b"eyJ.eyJ.",
    b'{}\n{"length": -1}\n', b'{}\n{"length": 9}\n', b'{}\n{"length": 1e9}\n',
]  # fmt: skip


@given(some.sampled_from(BEGINNINGS), some.binary(max_size=200), some.sampled_from(TYPES))
def test_any_body_is_read_without_an_error_and_its_bytes_are_a_piece(
    begin: bytes, rest: bytes, content_type: str
) -> None:
    data = begin + rest
    pieces = [*content_pieces("body", data, content_type, Room())]
    assert all(isinstance(piece, (Piece, Unread)) for piece in pieces)
    assert not data or data in [piece.value for piece in pieces if isinstance(piece, Piece)]
    for piece in pieces:
        if isinstance(piece, Piece):
            assert isinstance(piece.text, str)
            assert isinstance(piece.data, bytes)


@given(some.text(some.characters(codec=None), max_size=100), some.text(max_size=10))
def test_any_text_is_read_without_an_error_and_is_a_piece(text: str, name: str) -> None:
    pieces = [*readings("field", text, Room(), name), *query_pieces("query", text, Room())]
    assert text in [piece.value for piece in pieces if isinstance(piece, Piece)]
    assert all(isinstance(piece.data, bytes) for piece in pieces if isinstance(piece, Piece))


@given(
    some.sampled_from([b"", b"Subject: =?utf-8?b?", b"Content-Type: ", b"To: "]),
    some.binary(max_size=200),
)
def test_any_mail_is_read_without_an_error(begin: bytes, rest: bytes) -> None:
    assert all(
        isinstance(each, (Piece, Unread)) for each in mail_pieces("mail", begin + rest, Room())
    )


def wrapped(data: bytes, times: int) -> bytes:
    for _ in range(times):
        data = json.dumps({"a": base64.b64encode(data).decode()}).encode()
    return data


@pytest.mark.parametrize("times", [1, MAX_DEPTH, 40])
def test_what_is_encoded_too_often_is_said_and_never_passed_over(times: int) -> None:
    pieces = [
        *content_pieces("body", wrapped(b"ann@example.com", times), "application/json", Room())
    ]
    is_found = any(b"ann@" in piece.data for piece in pieces if isinstance(piece, Piece))
    is_said = any("times over" in piece.why for piece in pieces if isinstance(piece, Unread))
    assert is_found is not is_said


def test_a_body_that_is_compressed_over_and_over_ends() -> None:
    data = b"ann"
    for _ in range(20):
        data = gzip.compress(data)
    assert any(isinstance(piece, Unread) for piece in content_pieces("body", data, "", Room()))
