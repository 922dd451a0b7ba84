"""What pytest itself would show of a `secret()`: in the id of a test, and in the text of a comparison that fails."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from pytest_egress.traffic.redaction.values import KnownValues
    from pytest_egress.traffic.search.secrets import Secret

HOME = "pytest_egress.traffic.search.secrets"  # which is not imported before a test has made one


def is_secret(value: object) -> bool:
    return type(value).__module__ == HOME


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    if isinstance(val, bytes):
        val = val.decode("latin-1")
    return argname if isinstance(val, str) and without_secrets(val) != val else None


ID_SHOWS = (
    "its id has a secret() in it, and is shown in each report, each log and by each plugin: give another one "
    "by ids= or pytest.param(id=), or none, and its argument is named instead"
)


def id_problem(item: pytest.Item) -> str:
    """Why a test cannot have its id, which `ids=` may have given it; "" for none."""
    given = getattr(getattr(item, "callspec", None), "id", "")
    return ID_SHOWS if without_secrets(given) != given else ""


def any_made() -> bool:
    return HOME in sys.modules and bool(sys.modules[HOME].MADE)


def without_secrets(text: str) -> str:
    """Without what is made until now. In an id, what is beyond ASCII is escaped."""
    if not any_made():
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
