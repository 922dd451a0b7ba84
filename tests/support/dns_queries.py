"""Bytes in place of a DNS query: any, and such as are nearly one."""

from __future__ import annotations

from hypothesis import strategies as st

HEADERS = st.builds(
    lambda flags, counts: b"\x12\x34" + flags + b"".join(n.to_bytes(2, "big") for n in counts),
    st.sampled_from([b"\x00\x00", b"\x01\x00", b"\x01\x10"]),
    st.tuples(st.just(1), st.integers(0, 1), st.integers(0, 1), st.integers(0, 2)),
)
LABELS = st.binary(min_size=1, max_size=63).map(lambda label: bytes([len(label)]) + label)
NAMES = st.lists(LABELS, max_size=3).map(lambda labels: b"".join(labels) + b"\x00")
TYPES = st.sampled_from([1, 28, 65, 41, 250, 251, 252, 255, 6, 46]) | st.integers(0, 65535)
FIELDS = st.builds(lambda a, b: a.to_bytes(2, "big") + b.to_bytes(2, "big"), TYPES, TYPES)
RECORD_ENDS = st.binary(max_size=40).map(
    lambda data: bytes(4) + len(data).to_bytes(2, "big") + data
)
LIKELY_RECORDS = st.builds(lambda *parts: b"".join(parts), NAMES, FIELDS, RECORD_ENDS)
LIKELY_QUERIES = st.builds(
    lambda head, name, fields, more: head + name + fields + b"".join(more),
    HEADERS,
    NAMES,
    FIELDS,
    st.lists(LIKELY_RECORDS, max_size=3),
)

ANY_QUERIES = st.binary() | st.builds(lambda a, b: a + b, HEADERS, st.binary()) | LIKELY_QUERIES
"""What a client may send to the port of names."""
