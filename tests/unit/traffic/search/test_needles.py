"""What can be searched for."""

from __future__ import annotations

import re

import pytest

from pytest_egress.traffic.search.needles import checked
from pytest_egress.traffic.search.pieces import Piece


@pytest.mark.parametrize("needles", [(), (None,), (5,), (["a"],), ("a", bytearray(b"a"))])
def test_what_is_no_text_is_refused(needles: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match=r"^assert_not_sent\(\) takes texts, bytes and compiled"):
        checked(needles)


@pytest.mark.parametrize(
    "needle", ["", b"", re.compile(""), re.compile("a*"), re.compile(b"^"), re.compile(r"|x")]
)
def test_what_is_in_every_text_is_refused(needle: object) -> None:
    with pytest.raises(ValueError, match="everywhere"):
        checked(["a", needle])


def test_a_needle_is_shown_as_the_test_wrote_it_and_cut() -> None:
    (secret, long) = checked(["sk_live_4242", "x" * 1000])
    assert str(secret) == "'sk_live_4242'"
    assert len(str(long)) < 100


@pytest.mark.parametrize("value", ["of ann, x", b"of ann, x"])
def test_a_needle_is_found_in_text_and_in_bytes(value: str | bytes) -> None:
    needles = checked(["ann", b"ann", re.compile("an+"), re.compile(b"an+")])
    piece = Piece(place="body", value=value)
    assert [needle.find(piece) for needle in needles] == [("of ", "ann", ", x", False)] * 4
    assert checked([re.compile("ANN", re.IGNORECASE)])[0].find(piece)
    assert checked(["ANN"])[0].find(piece) is None


def test_special_characters_of_patterns_are_themselves_in_a_text() -> None:
    (needle,) = checked(["a.b(c"])
    assert needle.find(Piece(place="host", value="A.B(C", is_name=True)) is not None
    assert needle.find(Piece(place="body", value="aXb(c")) is None
