"""`SentText`: a text as it was sent, before it is decoded; and `Node`: all that was sent by one name, as `a[b][c]=x`.

A separator counts where it was sent as itself: in `a%2Cb,c` there are two values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, unquote_plus

from pytest_egress.traffic.http.forms import media_type

MAX_BRACKETS: Final = 16
TOO_DEEP: Final = f"it has more than {MAX_BRACKETS} brackets"


@dataclass(frozen=True, kw_only=True)
class SentText:
    """One value.

    Attributes:
        text: Decoded.
        raw: As sent; None where it has no encoding.
        has_plus: Whether a plus in it is a space.
        media: The media type of a part that has one, without its parameters.
    """

    text: str
    raw: str | None = None
    has_plus: bool = False
    media: str = ""

    def split(self, separator: str) -> list[str]:
        """The pieces between separators that were sent as themselves, decoded."""
        if self.raw is None:
            return self.text.split(separator)
        decoded = unquote_plus if self.has_plus else unquote
        return [decoded(each) for each in self.raw.split(separator)]


def plain(text: str, content_type: str = "") -> SentText:
    return SentText(text=text, media=media_type(content_type))


def in_a_path(raw: str) -> SentText:
    return SentText(text=unquote(raw), raw=raw)


def pairs_of(query_string: str) -> list[tuple[str, SentText]]:
    """The pairs of a query, or of a urlencoded body."""
    found = []
    for pair in query_string.split("&"):
        if pair:
            name, _, raw = pair.partition("=")
            sent = SentText(text=unquote_plus(raw), raw=raw, has_plus=True)
            found.append((unquote_plus(name), sent))
    return found


@dataclass(frozen=True, eq=False)
class Node:
    """What was sent by a name, and by names in brackets after it."""

    sent: list[SentText] = field(default_factory=list)
    fields: dict[str, Node] = field(default_factory=dict)


def node_of(*sent: SentText) -> Node:
    return Node([*sent])


def tree_of(pairs: Iterable[tuple[str, SentText]], names: Iterable[str] = ()) -> dict[str, Node]:
    """All pairs by their names, and by what is in brackets. `names` stand as they are.

    Raises:
        ValueError: One has more than `MAX_BRACKETS` brackets.
    """
    whole = frozenset(names)
    top = Node()
    for name, sent in pairs:
        node = top
        for key in [name] if name in whole else keys_of(name):
            node = node.fields.setdefault(key, Node())
        node.sent.append(sent)
    return top.fields


def keys_of(name: str) -> list[str]:
    """`a[b][c]` as its keys; a name that is none such is a key."""
    first, bracket, rest = name.partition("[")
    if not (first and bracket and rest.endswith("]")):
        return [name]
    if rest.count("][") >= MAX_BRACKETS:
        raise ValueError(TOO_DEEP)
    keys = rest[:-1].split("][")
    if any("[" in each or "]" in each for each in keys):
        return [name]
    return [first, *keys]
