"""A value is one line, by whoever splits the file."""

from __future__ import annotations

import json

from pytest_egress.evidence.lines import line_of


def test_no_character_of_a_text_splits_its_line() -> None:
    hostile = "".join(map(chr, [*range(0x20), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029, 0xD800]))
    value = {"a": [hostile, {hostile: 1.5}], "b": "ünïcode </script>"}
    line = line_of(value)
    assert line.splitlines() == [line]
    assert json.loads(line) == value
    assert "ünïcode" in line
    line.encode()
