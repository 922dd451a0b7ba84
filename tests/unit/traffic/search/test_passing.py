"""What passes is searched across its pieces, and nothing of it is kept."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Callable

import pytest

from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.search.passing import SEARCHED, Passing

KEY = "sk/test+42?Zx9&q%"


def passing(coding: str = "") -> Passing:
    return Passing.encoded(KnownValues([("KEY", KEY)]), coding)


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_a_secret_may_span_pieces(size: int) -> None:
    data = bytes(SEARCHED - 5) + KEY.encode() + bytes(SEARCHED)
    search = passing()
    for at in range(0, len(data), size):
        search.feed(data[at : at + size])
    assert search.found == {("KEY", "")}


def test_a_secret_is_found_before_the_end_has_come() -> None:
    search = passing()
    search.feed(b"AUTH " + base64.b64encode(b"\0joe\0" + KEY.encode()))
    assert search.found == {("KEY", "in base64")}
    search.feed(b"more")
    assert search.found == {("KEY", "in base64")}


def test_a_compressed_body_is_decoded_as_it_passes() -> None:
    data = gzip.compress(bytes(200_000) + KEY.encode())
    search = passing("gzip")
    for at in range(0, len(data), 100):
        search.feed(data[at : at + 100])
    assert search.found == {("KEY", "")}


def test_several_codings_are_decoded_one_after_the_other() -> None:
    data = gzip.compress(zlib.compress(gzip.compress(bytes(200_000) + KEY.encode())))
    search = passing("gzip, deflate, x-gzip")
    for at in range(0, len(data), 100):
        search.feed(data[at : at + 100])
    assert search.found == {("KEY", "")}


def test_a_body_of_many_codings_is_decoded_a_few_times() -> None:
    data = KEY.encode()
    for _ in range(9):
        data = gzip.compress(data)
    for coding in ("", ",".join(["gzip"] * 5000)):
        search = passing(coding)
        search.feed(data)
        assert search.found == set()


@pytest.mark.parametrize("size", [1, 3, 100, 1 << 20])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_body_may_be_compressed_though_no_field_says_so(
    pack: Callable[[bytes], bytes], size: int
) -> None:
    data = pack(gzip.compress(bytes(200_000) + KEY.encode()))
    search = passing()
    for at in range(0, len(data), size):
        search.feed(data[at : at + size])
    assert search.found == {("KEY", "")}


def test_what_has_passed_is_not_kept() -> None:
    search = passing()
    for _ in range(100):
        search.feed(b"x" * SEARCHED)
    held = len(search._tail) + len(search._waiting)
    assert held < 2 * SEARCHED
    assert search.found == set()
