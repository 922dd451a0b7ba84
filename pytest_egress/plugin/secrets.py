"""What pytest itself would show of a `secret()`: in the id of a test, and in the text of a comparison that fails."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_egress.traffic.redaction.values import KnownValues
    from pytest_egress.traffic.search.secrets import Secret

HOME = "pytest_egress.traffic.search.secrets"  # which is not imported before a test has made one


def is_secret(value: object) -> bool:
    return type(value).__module__ == HOME


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    if isinstance(val, bytes):
        val = val.decode("latin-1")
    return argname if isinstance(val, str) and without_secrets(val) != val else None


def without_secrets(text: str) -> str:
    """Without what is made until now. In an id, what is beyond ASCII is escaped."""
    if HOME not in sys.modules:
        return text
    return known(tuple(sys.modules[HOME].MADE)).replaced(text, lambda name: f"<{name}>")


@lru_cache(maxsize=1)  # each parameter asks
def known(made: tuple[Secret, ...]) -> KnownValues:
    from pytest_egress.traffic.redaction.values import KnownValues

    return KnownValues((each.name, form) for each in made for form in each.written)


def pytest_assertrepr_compare(op: str, left: Any, right: Any) -> list[str] | None:
    """Without it, pytest compares texts character by character."""
    if not (is_secret(left) or is_secret(right)):
        return None
    return [f"{shown(left)} {op} {shown(right)}"]


def shown(value: object) -> str:
    """The other side may be the same text."""
    return "<secret>" if is_secret(value) else f"a {type(value).__name__}"
