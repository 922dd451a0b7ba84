"""Globs of hosts, paths and values, in which `*` is any run of characters, and templates of paths with `{name}`.

They are matched without backtracking, because a target chooses the text: a regular expression with `.*` tries every
split of it, and three stars against 2 KB took seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

PLACEHOLDER: Final = re.compile(r"\{[A-Za-z_][A-Za-z0-9_-]*\}")
"""The place of one segment, or of a part of one, in a template of a path: `{id}`."""

PARTS: Final = re.compile(rf"(\*|{PLACEHOLDER.pattern})")


class Glob:
    """A text in which each `*` is any run of characters, and nothing else is special."""

    def __init__(self, text: str) -> None:
        self._first, *self._middle = text.split("*")
        self._last = self._middle.pop() if self._middle else None

    def matches(self, text: str) -> bool:
        """Each part is looked for from the left: if any place of it leads to a match, so does its first."""
        if self._last is None:
            return text == self._first
        position, end = len(self._first), len(text) - len(self._last)
        if position > end or not text.startswith(self._first) or not text.endswith(self._last):
            return False
        for part in self._middle:
            position = text.find(part, position, end)
            if position < 0:
                return False
            position += len(part)
        return True


class Template:
    """A path in which each `{name}` is one character or more without a `/`, and each `*` any run of characters.

    Sets of positions are integers, of which bit n is the position before character n: all ways to read a text are
    followed at once.
    """

    def __init__(self, text: str) -> None:
        parts = [part for part in PARTS.split(text) if part]
        self._begins = parts[0] if parts and not PARTS.fullmatch(parts[0]) else ""
        self._parts = [None if PLACEHOLDER.fullmatch(part) else part for part in parts]

    def matches(self, text: str) -> bool:
        if not text.startswith(self._begins):
            return False
        within, reached = marks(index for index, each in enumerate(text) if each != "/"), 1
        for part in self._parts:
            if part is None:
                reached = after_segments(reached, within)
            elif part == "*":  # every position from the first on
                reached = (2 << len(text)) - (reached & -reached)
            else:
                reached = (reached & marks(places_of(part, text))) << len(part)
            if not reached:
                return False
        return bool(reached >> len(text) & 1)


def after_segments(reached: int, within: int) -> int:
    """The positions after one character or more of those `within`, from any position reached.

    Adding a bit to a run of ones carries to the end of the run: what has changed by that is what can be passed.
    """
    begins = reached & within
    passed = ((within + begins) ^ within | begins) & within
    return passed << 1


def marks(positions: Iterable[int]) -> int:
    """The integer with these bits, read from its digits: to set bit after bit would take the square of the time."""
    listed = [*positions]
    digits = bytearray(b"0" * (max(listed, default=0) + 1))
    for position in listed:
        digits[-1 - position] = ord("1")
    return int(digits, 2)


def places_of(part: str, text: str) -> Iterator[int]:
    """Occurrences may overlap."""
    position = text.find(part)
    while position >= 0:
        yield position
        position = text.find(part, position + 1)
