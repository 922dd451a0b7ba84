"""A moment of fuzzing in each run of the suite, from the corpus that is kept."""

from __future__ import annotations

import random
from typing import Final

import pytest

from tests.hostile.fuzz import (
    CORPUS,
    LEAST,
    MAX_BYTES,
    TARGETS,
    FuzzTarget,
    changed,
    corpus,
    feed,
    run,
)

SECONDS: Final = 0.3  # for each target


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_takes_whatever_becomes_of_its_corpus(name: str) -> None:
    assert run(name, SECONDS) >= len(corpus(name)) + LEAST


def test_a_corpus_is_of_a_target_that_takes_bytes() -> None:
    kept = {path.name for path in CORPUS.iterdir()}
    assert kept >= {"dns", "head", "hello", "http1", "http2"}
    assert kept <= {name for name, target in TARGETS.items() if target.takes_bytes}
    assert not [
        path for path in CORPUS.rglob("*") if path.is_file() and path.stat().st_size > MAX_BYTES
    ]


def test_what_is_made_of_an_input_differs_and_has_a_limit() -> None:
    rng, seeds = random.Random(5), [b"GET / HTTP/1.1\r\n\r\n", bytes(MAX_BYTES)]
    made = {changed(seeds, rng) for _ in range(1000)}
    assert len(made) > 900
    assert max(map(len, made)) <= MAX_BYTES


def test_a_finding_is_told_with_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(data: bytes) -> None:
        assert b"\xff" not in data

    monkeypatch.setitem(TARGETS, "head", FuzzTarget(fails, takes_bytes=True))
    with pytest.raises(
        AssertionError, match=r"head fails for bytes.fromhex\('41ff'\): keep it .*corpus/head/"
    ):
        feed("head", b"A\xff")
