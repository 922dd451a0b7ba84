"""`from_json`: a text of JSON that every reader reads alike; what some read otherwise is refused."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from pytest_egress.traffic.shown import cut, shown


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{cut(text, 40)} is more than a number can be")
    return value


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {shown(name)} is there twice")
            seen.add(name)
    return found


def from_json(text: str | bytes) -> Any:
    """Raise ValueError for what is not JSON as everybody reads it (RFC 8259, RFC 7493).

    It is UTF-8 without a mark of its order, no number is NaN or infinite, and no key is there twice.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8, at byte {error.start}") from None
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark, which is not JSON")
    try:
        return json.loads(
            text,
            parse_constant=refuse_constant,
            parse_float=finite,
            object_pairs_hook=without_repeats,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
