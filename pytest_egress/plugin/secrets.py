"""What pytest itself would show of a `secret()`: in the id of a test, and in the text of a comparison that fails."""

from __future__ import annotations

from typing import Any

HOME = "pytest_egress.traffic.search.secrets"  # which is not imported before a test has made one


def is_secret(value: object) -> bool:
    return type(value).__module__ == HOME


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    return argname if is_secret(val) else None


def pytest_assertrepr_compare(op: str, left: Any, right: Any) -> list[str] | None:
    """Without it, pytest compares texts character by character."""
    if not (is_secret(left) or is_secret(right)):
        return None
    return [f"{shown(left)} {op} {shown(right)}"]


def shown(value: object) -> str:
    """The other side may be the same text."""
    return "<secret>" if is_secret(value) else f"a {type(value).__name__}"
