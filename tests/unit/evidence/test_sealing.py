"""Notes that the processes of one run alone can read."""

from __future__ import annotations

import pytest

from pytest_egress.evidence.sealing import KEY_BYTES, new_key, sealed, unsealed

TEXTS = ["", "a", "live_key_0123456789", "\u00e4\u20ac\udc80\n" * 1000]


@pytest.mark.parametrize("text", TEXTS, ids=len)
def test_who_has_the_key_reads_it(text: str) -> None:
    key = new_key()
    assert unsealed(sealed(text, key), key) == text


def test_who_has_another_key_reads_nothing_of_it() -> None:
    text = "live_key_0123456789"
    note = sealed(text, new_key())
    assert text.encode().hex() not in note
    try:
        shown = unsealed(note, bytes(KEY_BYTES))
    except UnicodeDecodeError:
        shown = ""
    assert text[:4] not in shown


def test_two_notes_of_a_text_have_nothing_in_common() -> None:
    key = new_key()
    notes = {sealed("live_key", key)[-16:] for _ in range(100)}
    assert len(notes) == 100


def test_what_is_no_note_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="fromhex"):
        unsealed("no note", new_key())
