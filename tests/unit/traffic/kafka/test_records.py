"""Records that a test declares."""

from __future__ import annotations

import pytest

from pytest_egress.traffic.kafka.records import StoredRecord, declared


@pytest.mark.parametrize(
    ("given", "key", "value", "headers"),
    [
        (b"bytes", None, b"bytes", ()),
        ("text é", None, "text é".encode(), ()),
        ({"id": 1}, None, b'{"id": 1}', ()),
        ([1], None, b"[1]", ()),
        (None, None, None, ()),
        (("key", None), b"key", None, ()),
        ((b"key", "v", {"a": "b", "c": None}), b"key", b"v", (("a", b"b"), ("c", None))),
    ],
)
def test_a_record_is_a_value_or_has_a_key_and_headers(
    given: object, key: bytes | None, value: bytes | None, headers: tuple[object, ...]
) -> None:
    assert declared(given, 7) == StoredRecord(key=key, value=value, headers=headers, timestamp=7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (7, "7 is no bytes, str, dict, list or None"),
        (("k", 7), "7 is no bytes, str, dict, list or None"),
        ({"a": {1}}, "Object of type set is not JSON serializable"),
        (("k", "v", "h", "more"), "('k', 'v', 'h', 'more') is no record"),
        (("k", "v", [("a", b"b")]), "is no record"),
        (("k", "v", {1: b"b"}), "is no record"),
        ("\ud800", "surrogates not allowed"),
    ],
)
def test_what_is_no_record_is_refused_with_what_is_one(given: object, said: str) -> None:
    with pytest.raises(TypeError) as raised:
        declared(given, 7)
    assert said in str(raised.value)
    assert "a value, (key, value) or (key, value, headers)" in str(raised.value)
