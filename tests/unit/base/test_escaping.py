"""Texts from outside, as they may be shown."""

from __future__ import annotations

import pickle
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress import ContainerTimeoutError
from pytest_egress.base.escaping import escaped

SHOWN = {
    "\x1b[2J\x1b[1;1H1 passed": r"\x1b[2J\x1b[1;1H1 passed",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x9b2J": r"\x9b2J",
    "over\rwritten": r"over\rwritten",
    "a\x08b\x7f\x00": r"a\x08b\x7f\x00",
    "\u202egnp.exe\u2066": r"\u202egnp.exe\u2066",
    "a\u2028b\x85c\x0bd\x0ce": r"a\u2028b\x85c\x0bd\x0ce",
    "\ud800": r"\ud800",
    "\U000e0041": r"\U000e0041",
    "one\r\ntwo\tthree\r\r\n": "one\ntwo\tthree\n",
    "\r\n\x1b": "\n\\x1b",
    "one\ntwo\tthree": "one\ntwo\tthree",
    "caf\u00e9 \u20ac \U0001f600 \u05d0 \u00a0 \\x1b": "caf\u00e9 \u20ac \U0001f600 \u05d0 \u00a0 \\x1b",
}


@pytest.mark.parametrize(("text", "shown"), SHOWN.items(), ids=[ascii(text) for text in SHOWN])
def test_what_does_more_than_to_be_seen_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_no_control_and_nothing_that_reorders_text_is_left() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    left = escaped(every)
    assert {c for c in left if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} == {"\n", "\t"}
    assert not {c for c in left if unicodedata.bidirectional(c) in BIDIRECTIONAL}


BIDIRECTIONAL = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_an_exception_that_is_escaped_can_be_shown_and_crosses_processes() -> None:
    error = ContainerTimeoutError("\x1b[2J", logs="\x1b")
    assert (str(error), error.args, error.logs) == (r"\x1b[2J", ("\x1b[2J",), "\x1b")
    assert str(pickle.loads(pickle.dumps(error))) == r"\x1b[2J"


@given(st.text())
def test_it_can_be_escaped_again_and_encoded(text: str) -> None:
    assert escaped(escaped(text)) == escaped(text)
    escaped(text).encode()
