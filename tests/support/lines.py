"""Functions of which Python knows no line, as of the jump at a loop's end in Python 3.11."""

from __future__ import annotations

from types import CodeType, FunctionType

WITHOUT_LINE = 0xF8  # an entry of the table of lines, with the count of its code units less one (Objects/locations.md)


def without_lines(code: CodeType) -> FunctionType:
    """A function of code whose table of lines has none: since CPython 3.11."""
    units = len(code.co_code) // 2
    counts = [8] * (units // 8) + ([units % 8] if units % 8 else [])
    table = bytes(WITHOUT_LINE | count - 1 for count in counts)
    return FunctionType(code.replace(co_linetable=table), {})
