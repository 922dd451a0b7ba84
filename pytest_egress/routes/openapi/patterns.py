"""Patterns of a document: read as ECMAScript has them, and searched for within a time.

regex is imported with the first of them.
"""

from __future__ import annotations

import re
from typing import Final

from pytest_egress.base.clock import monotonic
from pytest_egress.traffic.shown import cut

PATTERN_SECONDS: Final = 1.0  # of all patterns, for a value that is checked
SHOWN_PATTERN: Final = 80
CLASSES: Final = {"d": "0-9", "w": "A-Za-z0-9_"}
OF_ECMASCRIPT: Final = re.compile(r"\\k<(\w{1,64})>|\\u\{([0-9A-Fa-f]{1,5})\}")
THEMSELVES: Final = frozenset("aeghijlmoqyzACEFGHIJKLMNOQRTUVXYZ")
"""Letters that mean nothing after a backslash, and something in Python."""

EMPTY_CLASSES: Final = {"[]": "(?!)", "[^]": r"[\s\S]"}


class UncheckableError(Exception):
    """A value cannot be checked; the text says why."""


class PatternTime:
    """The time that is left of `PATTERN_SECONDS`."""

    def __init__(self) -> None:
        self._left = PATTERN_SECONDS

    def search(self, pattern: str, text: str) -> bool:
        """Raise UncheckableError where the pattern is none, or all of them take too long."""
        import regex

        begun = monotonic()
        try:
            if self._left <= 0:
                raise TimeoutError
            found = regex.search(as_python(pattern), text, timeout=self._left, concurrent=True)
        except regex.error as error:
            raise UncheckableError(unreadable(pattern, error)) from None
        except TimeoutError:
            raise UncheckableError(
                f"the pattern {shown_pattern(pattern)} takes more than {PATTERN_SECONDS:g} s"
            ) from None
        self._left -= monotonic() - begun
        return found is not None


def problem_of(pattern: str) -> str:
    """Why a pattern cannot be read; "" where it can."""
    import regex

    try:
        regex.compile(as_python(pattern))
    except (regex.error, RecursionError, OverflowError) as error:
        return unreadable(pattern, error)
    return ""


def is_of_python(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def unreadable(pattern: str, error: Exception) -> str:
    return f"the pattern {shown_pattern(pattern)} cannot be read: {error}"


def shown_pattern(pattern: str) -> str:
    return cut(repr(pattern), SHOWN_PATTERN)


def as_python(pattern: str) -> str:
    """A pattern of ECMAScript: `$` is the very end, a digit is one of ASCII, a bracket in a class is itself."""
    found: list[str] = []
    at, in_class = 0, False
    while at < len(pattern):
        empty = next((each for each in EMPTY_CLASSES if pattern.startswith(each, at)), "")
        if empty and not in_class:
            found.append(EMPTY_CLASSES[empty])
            at += len(empty)
            continue
        piece, size = piece_at(pattern, at, in_class=in_class)
        if size == 1 and pattern[at] in "[]":
            in_class = pattern[at] == "[" or (in_class and pattern[at] != "]")
        found.append(piece)
        at += size
    return "".join(found)


def piece_at(pattern: str, at: int, *, in_class: bool) -> tuple[str, int]:
    """What is written there, as Python writes it, and how many characters it has in the pattern."""
    one, two = pattern[at], pattern[at : at + 2]
    if one == "\\" and len(two) == 2:
        if (found := OF_ECMASCRIPT.match(pattern, at)) is not None:
            name, code = found.groups()
            return (f"(?P={name})" if name else f"\\U{int(code, 16):08x}"), len(found[0])
        named = CLASSES.get(two[1])
        if named is not None:
            return (named if in_class else f"[{named}]"), 2
        return (two[1] if two[1] in THEMSELVES else two), 2
    if one == "[" and in_class:
        return r"\[", 1
    return (r"\Z" if one == "$" and not in_class else one), 1
