"""What is compressed is decoded wherever it is among other bytes, and each compressed message of gRPC."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable

import pytest

from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.search.embedded import MOST_FAILED, CompressedMessages, Embedded
from pytest_egress.traffic.search.passing import Passing
from pytest_egress.traffic.search.unpacking import MAX_UNPACKED

KEY = "sk/test+42?Zx9&q%"
SIZES = [1, 7, 1000, 1 << 20]


def fed(search: Passing, data: bytes, size: int) -> set[tuple[str, str]]:
    for at in range(0, len(data), size):
        search.feed(data[at : at + size])
    return {*search.found}


def zstd(data: bytes) -> bytes:
    import cramjam

    return bytes(cramjam.zstd.compress(data))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_compressed_parts_of_a_stream_are_decoded(
    pack: Callable[[bytes], bytes], size: int
) -> None:
    parts = [b"head" + pack(os.urandom(2000)) for _ in range(2 * MOST_FAILED)]
    data = b"".join([*parts, b"\x1f\x8b\x08 and none, ", pack(KEY.encode()), b"more"])
    assert fed(Passing(KnownValues([("KEY", KEY)])), data, size) == {("KEY", "")}


def test_requests_that_end_with_what_is_compressed_are_decoded_each() -> None:
    search = Passing(KnownValues([("KEY", KEY)]))
    for _ in range(2 * MOST_FAILED):
        search.feed(b"request" + gzip.compress(b"nothing"))
    search.feed(b"request" + gzip.compress(KEY.encode()))
    assert search.found == {("KEY", "")}


def test_what_only_begins_as_gzip_takes_no_long_time() -> None:
    begun = b"\x1f\x8b\x08" + bytes(7) + b"\x00\x10\x00\xef\xff" + bytes(16)  # 16 bytes as they are
    decoding = Embedded()
    assert sum(map(len, decoding.feed(begun * 20_000))) <= 100 * MOST_FAILED
    assert [*decoding.feed(gzip.compress(b"x"))] == []  # it has given up


def test_a_bomb_is_decoded_in_part() -> None:
    bomb = gzip.compress(bytes(MAX_UNPACKED))
    assert sum(map(len, Embedded().feed(b"." + bomb + b"." + bomb))) < MAX_UNPACKED + (1 << 20)
    messages = framed(bomb) * 3
    assert sum(map(len, CompressedMessages("gzip").feed(messages))) < MAX_UNPACKED + (1 << 20)


def framed(message: bytes, flag: int = 1) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_messages_are_decoded_each(
    encoding: str, pack: Callable[[bytes], bytes], size: int
) -> None:
    data = framed(b"plain", 0) + framed(b"") + framed(pack(b"first")) + framed(b"no such coding")
    data += framed(pack(gzip.compress(b"." + KEY.encode())))
    known = KnownValues([("KEY", KEY)])
    assert fed(Passing.of_grpc(known, encoding), data, size) == {("KEY", "")}
    assert fed(Passing.of_grpc(known, "identity"), data, size) == set()
