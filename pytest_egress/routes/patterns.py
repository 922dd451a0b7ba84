"""What a test may write in place of a text: a glob, a template of a path, a compiled pattern, an object that compares.

Whether a text fits, which of two paths is more specific, and how a text that does not fit is contrasted with what was
expected are decided here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import takewhile
from operator import eq
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote

from pytest_egress.base.globs import PLACEHOLDER, Glob, Template
from pytest_egress.traffic.shown import shown

TextPattern: TypeAlias = str | re.Pattern[str]
"""A glob, or a compiled pattern that has to match the whole text."""

QueryValue: TypeAlias = TextPattern | Sequence[TextPattern]
"""What `query=` wants of a key: its last value, or in a list all its values in order; an empty list is no value."""

NOT_IN_TARGET: Final = re.compile(r"[^!-~]")
"""What no request-target has: white space, controls, and what is not ASCII. Bytes of the last kind are encoded."""

BRACES: Final = re.compile(r"\{(?:[^/{}]*\w[^/{}]*)?\}")
"""Braces that are meant as a part of a template; other ones, such as `{|}`, are characters."""

BEGINS_WITHOUT_SLASH: Final = re.compile(r"\^?[A-Za-z0-9](?![*?{])[^|]*")
"""A pattern whose first character is a literal one that no path begins with."""


# Values of header fields and of the query.


def text_fits(wanted: Any, found: object) -> bool:
    """Whether a text is what a condition for one says; in a glob `*` is any run of characters."""
    if is_glob(wanted):
        return isinstance(found, str) and glob(wanted).matches(found)
    return value_fits(wanted, found)


def is_glob(wanted: object) -> bool:
    return isinstance(wanted, str) and "*" in wanted


glob: Final = lru_cache(maxsize=1024)(Glob)


def value_fits(wanted: Any, found: object) -> bool:
    """Whether a value equals another one, or is a text that a compiled pattern matches as a whole."""
    if isinstance(wanted, re.Pattern):
        return isinstance(found, str) and wanted.fullmatch(found) is not None
    return bool(wanted == found)


def check_text(what: str, value: object) -> None:
    """Refuse a value that can never equal a str; an object with its own `__eq__`, such as `mock.ANY`, may."""
    check_pattern(what, value)
    is_text = isinstance(value, (str, re.Pattern))
    if not is_text and type(value).__eq__(value, "") is NotImplemented:
        raise TypeError(
            f"{what} takes a str, which it is on the wire, or a compiled pattern, not {type(value).__name__}: {value!r}"
        )


def check_pattern(what: str, value: object) -> None:
    if isinstance(value, re.Pattern) and not isinstance(value.pattern, str):
        raise TypeError(f"{what} takes a pattern of str, not of bytes: {value!r}")


# Paths.


class PathMatcher(NamedTuple):
    """The compiled condition of `path=`.

    Attributes:
        rank: Sorts conditions that one path fits: the greatest is the most specific. An exact path, then templates
            with `{name}`, then globs with `*`, both by their number of literal characters, then a compiled pattern,
            then no condition, as which `*` alone counts.
    """

    matches: Callable[[str], object]
    rank: tuple[int, int]


def path_matcher(path: TextPattern | None) -> PathMatcher:
    if path is None or not (path.strip("*") if isinstance(path, str) else True):
        return ANY_PATH
    if isinstance(path, re.Pattern):
        return PathMatcher(path.fullmatch, (1, 0))
    bare = PLACEHOLDER.sub("", path)
    matcher = Glob(path) if bare == path else Template(path)
    if "*" in path:
        return PathMatcher(matcher.matches, (2, len(bare) - bare.count("*")))
    return PathMatcher(matcher.matches, (4, 0) if bare == path else (3, len(bare)))


ANY_PATH: Final = PathMatcher(lambda path: True, (0, 0))


def check_path(path: TextPattern) -> None:
    """Refuse a path that can never match, with what was meant."""
    if isinstance(path, re.Pattern):
        check_path_pattern(path)
    elif not path.startswith(("/", "*")) or {"?", "#"} & {*path}:
        raise ValueError(f"path={path!r} can never match: {WITHOUT} ({wrong_with(path)})")
    elif (sent := percent_encoded(path)) != path:
        raise ValueError(
            f"path={path!r} can never match: a path is compared as it is sent, percent-encoded: path={sent!r}"
        )
    elif strange := [each for each in BRACES.findall(path) if not PLACEHOLDER.fullmatch(each)]:
        raise ValueError(
            f"path={path!r}: {strange[0]} is no part of a template: {{name}} is one segment, or a part of one, and "
            "* any run of characters; for anything else give a compiled pattern, re.compile(...)"
        )


def check_path_pattern(path: re.Pattern[str]) -> None:
    check_pattern("path=", path)
    if BEGINS_WITHOUT_SLASH.fullmatch(path.pattern):
        raise ValueError(
            f"path={path!r} can never match: the pattern has to match the whole path, which begins with /; {WITHOUT}"
        )


WITHOUT: Final = "a path is without host and query"


def wrong_with(path: str) -> str:
    if "?" in path:
        return "the query goes into query="
    return "a fragment is never sent" if "#" in path else "it starts with / or *"


def percent_encoded(text: str) -> str:
    """Each character that no request-target may have is percent-encoded, as its UTF-8 (RFC 3986 section 2.1)."""
    if NOT_IN_TARGET.search(text) is None:
        return text
    return NOT_IN_TARGET.sub(lambda found: quote(found[0], errors="surrogatepass"), text)


def distance(wanted: TextPattern | None, path: str) -> float:
    """How far a path that does not fit is from one that was expected; 1 where the two have nothing in common."""
    return 1.0 - in_common(wanted, path) if isinstance(wanted, str) else 1.0


def in_common(one: str, other: str) -> float:
    """The part of two texts that their equal beginnings and ends make, at most 1."""
    begins = alike(one, other)
    ends = alike(one[begins:][::-1], other[begins:][::-1])
    return (begins + ends) / max(len(one), len(other), 1)


def alike(one: str | bytes, other: str | bytes) -> int:
    """How many characters the equal beginnings of two texts have."""
    return sum(1 for _ in takewhile(bool, map(eq, one, other)))


# Texts about what does not fit.


def contrast(found: Any, wanted: Any, masks: tuple[object, object], declared: object) -> str:
    """A text that says how a value is not as expected.

    Args:
        masks: Both values, in this order, with their secrets masked. Where they look alike, the text has the position
            from which on they differ.
        declared: The expected value as it is shown.
    """
    one, other = map(shown, masks)
    if isinstance(wanted, re.Pattern):
        in_part = isinstance(found, str) and wanted.search(found) is not None
        return f"{one} does not match {shown(declared)}" + (IN_PART if in_part else "")
    text = f"{one} is not {shown(declared)}"
    is_text = isinstance(found, (str, bytes)) and type(found) is type(wanted)
    if one != other or not is_text or is_glob(wanted):
        return text
    return f"{text}: they differ from character {alike(found, wanted) + 1} on"


IN_PART: Final = ": a part of it does, and all of it has to"
