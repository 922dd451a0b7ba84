"""Globs of hosts and paths, in which `*` is any run of characters.

They are matched without backtracking, because a target chooses the text: a regular expression with `.*` tries every
split of it, and three stars against 2 KB took seconds.
"""

from __future__ import annotations


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
