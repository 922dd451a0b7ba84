"""A value as one line of JSON, whoever splits the file.

JSON escapes the characters below U+0020. `str.splitlines` also splits at three others, which a body may have.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

SPLITS: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What else splits a line, or moves a terminal's cursor, or cannot be encoded."""

DELETE: Final = "\x7f"  # the only one of them that is ASCII

ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def line_of(value: Any) -> str:
    """A value as JSON without a line end in it."""
    text = ENCODER.encode(value)
    if (
        text.isascii() and DELETE not in text
    ):  # as a rule, and a hundred times faster than the search
        return text
    return text if SPLITS.search(text) is None else SPLITS.sub(escape, text)


def escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
