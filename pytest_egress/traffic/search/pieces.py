"""What a search looks through: `Piece`, `Unread`, and `Room`, which bounds what is decoded on the way to them.

The rule: an entry has one `Room`, whatever it is made of, and what does not fit in is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

MAX_PARSED_BYTES: Final = (
    64 << 20
)  # of a body; the bytes themselves are searched whatever their number
MAX_DECODED_BYTES: Final = 4 * MAX_PARSED_BYTES  # of all that is decoded of an entry
MAX_DEPTH: Final = 6  # JSON in base64 in a form in a gzip is 4


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of what a target has sent.

    Attributes:
        place: Where it is, such as `body json: user.email`.
        value: Its text, or its bytes.
        name: The name of the field, parameter or key whose value it is; "" for none.
        is_raw: Whether other pieces have the same decoded: what is found in one of those is not told of this one.
        is_name: Whether it is the name of a host, which has no case.
    """

    place: str
    value: str | bytes
    name: str = ""
    is_raw: bool = False
    is_name: bool = False

    @cached_property
    def text(self) -> str:
        value = self.value
        return value if isinstance(value, str) else value.decode("utf-8", "replace")

    @cached_property
    def data(self) -> bytes:
        value = self.value
        return value if isinstance(value, bytes) else wire_bytes(value)


@dataclass(frozen=True, kw_only=True)
class Unread:
    """A part of what a target has sent that cannot be searched; `why` is a sentence without its subject's article."""

    place: str
    why: str


def wire_bytes(text: str) -> bytes:
    """Bytes that were no UTF-8 are surrogates in a text that was decoded, as half of a pair in JSON is."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


PieceStream = Iterator["Piece | Unread"]


# What is decoded.


class Budget:
    """The bytes that may still be decoded of an entry."""

    def __init__(self, left: int = MAX_DECODED_BYTES) -> None:
        self.left = left


@dataclass(frozen=True)
class Room:
    """What may still be decoded: bytes of the entry in all, and formats one within the other."""

    budget: Budget = field(default_factory=Budget)
    depth: int = 0

    @property
    def is_deepest(self) -> bool:
        return self.depth >= MAX_DEPTH

    def within(self) -> Room:
        """The room of what is within a format that was decoded."""
        return Room(self.budget, self.depth + 1)

    def take(self, size: int) -> bool:
        """Whether there is room for as many decoded bytes. Once there is not, there is none for anything."""
        self.budget.left -= size
        return self.budget.left >= 0


def spent(place: str) -> Unread:
    return Unread(place=place, why="is more, decoded, than is searched")


def too_deep(place: str) -> Unread:
    return Unread(place=place, why=f"is encoded more than {MAX_DEPTH} times over")
