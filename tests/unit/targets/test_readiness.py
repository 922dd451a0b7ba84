"""What a container may be waited for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_egress import log_line


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        (b"ready", "log_line() takes a regular expression that is a str, not b'ready'"),
        (re.compile(b"x"), "log_line() takes a regular expression that is a str, not re.compile("),
        ("*ready", "log_line('*ready'): it is no regular expression (nothing to repeat at"),
    ],
    ids=["bytes", "pattern-of-bytes", "malformed"],
)
def test_a_line_to_wait_for_is_checked_where_it_is_declared(pattern: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(error)):
        log_line(pattern)
