"""A body is decoded while it passes, as far as a bound, and any bytes are taken."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.http.content_coding import PIECE_BYTES, encode
from pytest_egress.traffic.search.unpacking import MAX_UNPACKED, Unpacking

TEXT = bytes(range(256)) * 2000


def unpacked(coding: str, pieces: Iterable[bytes]) -> bytes:
    unpacking = Unpacking(coding)
    return b"".join(each for piece in pieces for each in unpacking.feed(piece))


def in_pieces(data: bytes, size: int = 997) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_each_coding_is_decoded(coding: str) -> None:
    assert unpacked(coding, in_pieces(encode(TEXT, coding))) == TEXT


def test_a_bare_deflate_and_several_members_are_decoded() -> None:
    bare = zlib.compressobj(wbits=-15)
    assert unpacked("deflate", in_pieces(bare.compress(TEXT) + bare.flush())) == TEXT
    assert unpacked("gzip", in_pieces(gzip.compress(b"one") + gzip.compress(b"two"))) == b"onetwo"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_bomb_is_decoded_as_far_as_the_bound(coding: str) -> None:
    bomb = encode(bytes(1 << 26), coding)
    assert MAX_UNPACKED <= len(unpacked(coding, [bomb])) < MAX_UNPACKED + PIECE_BYTES


@given(st.sampled_from(["gzip", "deflate", "br", "zstd", "identity", "gzip, br", "x"]), st.binary())
def test_any_bytes_are_taken(coding: str, data: bytes) -> None:
    unpacked(coding, in_pieces(data, 3))
    unpacked(coding, in_pieces(gzip.compress(data)[:-4] + data, 5))
