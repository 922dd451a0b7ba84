"""`Needle`: a text, bytes or a compiled pattern that is searched for in a piece of what a target has sent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from pytest_egress.traffic.search.pieces import Piece
from pytest_egress.traffic.shown import shown

TAKES: Final = "assert_not_sent() takes texts, bytes and compiled patterns"


class Find(NamedTuple):
    """`before` and `after` are the text around it, `is_cut` says whether more of it is before."""

    before: str
    match: str
    after: str
    is_cut: bool


class Needle:
    """One of what must not have been sent.

    A text is compared as it is, without regard to case in names of hosts alone; among bytes it is searched for in
    UTF-8. Bytes are searched for in the UTF-8 of a text.
    """

    def __init__(self, value: str | bytes | re.Pattern[Any]) -> None:
        self.value = value
        pattern: re.Pattern[Any] = value if isinstance(value, re.Pattern) else literal(value)
        self._pattern = pattern
        self._of_names = re.compile(pattern.pattern, pattern.flags | re.IGNORECASE)
        self.is_pattern = pattern is value
        self._in_bytes = isinstance(pattern.pattern, bytes)
        # A text as it is needs no decoding of the bytes that it is searched for in.
        self._encoded = None if isinstance(value, (re.Pattern, bytes)) else encoded(value)

    def __str__(self) -> str:
        return shown(self.value)

    def find(self, piece: Piece) -> Find | None:
        """The first find, with the text around it; None where there is none."""
        pattern = self._of_names if piece.is_name else self._pattern
        where: Any = piece.data if self._in_bytes else piece.value
        if self._encoded is not None and isinstance(where, bytes):
            start = where.find(self._encoded)
            span = (start, start + len(self._encoded)) if start >= 0 else None
        else:
            where = where if self._in_bytes else piece.text
            found = pattern.search(where)
            span = None if found is None else found.span()
        if span is None:
            return None
        start, end = span
        return Find(
            before=readable(where[max(start - AROUND, 0) : start]),
            match=readable(where[start:end]),
            after=readable(where[end : end + AROUND]),
            is_cut=start > AROUND,
        )


def literal(value: Any) -> re.Pattern[Any]:
    return re.compile(re.escape(value))


AROUND: Final = 1500  # characters, or bytes, before and after a find, by which secrets are told; fewer are shown


def readable(part: Any) -> str:
    return part if isinstance(part, str) else bytes(part).decode("utf-8", "backslashreplace")


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def checked(values: Sequence[object]) -> list[Needle]:
    """Raise TypeError or ValueError for what cannot be searched for, or is in every text."""
    if not values:
        raise TypeError(f"{TAKES}: at least one, such as 'ann@example.com'")
    return [checked_one(value) for value in values]


def checked_one(value: Any) -> Needle:
    if not isinstance(value, (str, bytes, re.Pattern)):
        raise TypeError(f"{TAKES}, not {shown(value)}")
    if isinstance(value, re.Pattern):
        empty = b"" if isinstance(value.pattern, bytes) else ""
        if value.search(empty) is not None:
            raise ValueError(f"{shown(value.pattern)} matches the empty text, which is everywhere")
    elif not value:
        raise ValueError(f"{value!r} is everywhere: {TAKES} that are not empty")
    return Needle(value)
