"""What stands in the source of a test is told from what came from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_egress import partial
from pytest_egress.routes.literals import Own, own_literals


def made_at_run_time(text: str) -> str:
    return "".join(reversed(text))


@pytest.mark.parametrize(
    ("conditions", "own"),
    [
        ({"headers": {"Authorization": "Bearer 1"}}, {"Bearer 1"}),
        ({"headers": {"Authorization": made_at_run_time("yek-terces")}}, set()),
        ({"headers": {"Authorization": re.compile("Bearer .+")}}, {"Bearer .+"}),
        ({"query": {"key": ["k1", made_at_run_time("yek-terces")]}}, {"k1"}),
        ({"json": {"items": [partial({"token": "t1"})]}}, {"t1"}),
        ({"content": b"password=p1"}, {"password=p1"}),
        ({"headers": {"Accept": "text/html"}}, set()),
        ({"path": "/token=t1"}, set()),
    ],
    ids=["field", "made", "pattern", "list", "json", "content", "no secret", "path"],
)
def test_a_literal_of_the_calling_file_is_the_tests_own(
    conditions: dict[str, Any], own: set[str]
) -> None:
    assert own_literals(conditions) == own


def test_a_literal_of_the_file_of_a_fixture_is_the_tests_own_too(tmp_path: Path) -> None:
    value = made_at_run_time("yek-rehto")
    file = tmp_path / "conftest.py"
    file.write_text(
        f"def declare(own_literals, value):\n    '{value}'\n    return own_literals(value)\n"
    )
    names: dict[str, Callable[[Callable[[str], Own], str], Own]] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    found = names["declare"](lambda text: own_literals({"headers": {"X-Key": text}}), value)
    assert found == {value}


def test_a_part_of_a_literal_is_not_one() -> None:
    assert "Bearer sk_live_1"
    key = made_at_run_time("1_evil_ks")
    assert own_literals({"headers": {"X-Key": key}}) == set()
