"""`partial`: a value of JSON of which a request's body must have a part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Partial:
    """The expected part of a value; `partial` makes it."""

    value: Mapping[str, Any] | list[Any]

    def __repr__(self) -> str:
        return f"partial({self.value!r})"


def partial(value: Mapping[str, Any] | list[Any]) -> Partial:
    """Let `json=` expect a part of a body: `json=partial({"customer": {"id": "cus_1"}})`.

    Objects may have more keys than these, at any depth. A list has as many items as this one, and each is compared in
    part. A string may also match a compiled pattern as a whole, and any value may equal an object that compares as it
    likes, such as `unittest.mock.ANY`. It may stand within a `json=` too: the rest is then compared in full.

    Args:
        value: The dict or list that the body has, or has at that place.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(value, (Mapping, list)):
        return Partial(value)
    raise TypeError(
        f"partial() takes the dict or list that a body of JSON has a part of, not {type(value).__name__}: {value!r}"
    )
