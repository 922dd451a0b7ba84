"""Patterns are those of ECMAScript, and take no more than their time."""

from __future__ import annotations

import pytest

from pytest_egress.routes.openapi.patterns import (
    PatternTime,
    UncheckableError,
    as_python,
    problem_of,
)


def test_a_pattern_that_is_none_is_told() -> None:
    with pytest.raises(UncheckableError, match=r"the pattern '\(' cannot be read: "):
        PatternTime().search("(", "a")
    assert problem_of("(").startswith("the pattern '(' cannot be read: ")
    assert problem_of("^a$") == ""


def test_what_is_left_of_the_time_is_of_all_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_egress.routes.openapi.patterns.PATTERN_SECONDS", 0.0)
    with pytest.raises(UncheckableError, match="the pattern 'a' takes more than 0 s"):
        PatternTime().search("a", "a")


@pytest.mark.parametrize(
    ("pattern", "python"),
    [
        (r"^\d+$", r"^[0-9]+\Z"),
        (r"[\d$\w]", "[0-9$A-Za-z0-9_]"),
        (r"\$\\$", r"\$\\\Z"),
        (r"^[^\]]$", r"^[^\]]\Z"),
        ("\\", "\\"),
        (r"[[a]", r"[\[a]"),
        ("[]a[^]", r"(?!)a[\s\S]"),
        (r"(?<n>a)\k<n>", "(?<n>a)(?P=n)"),
        (r"\u{1F600}", r"\U0001f600"),
        (r"\e\/", r"e\/"),
    ],
)
def test_a_pattern_is_of_ecmascript(pattern: str, python: str) -> None:
    assert as_python(pattern) == python
    assert problem_of(pattern) == "" or pattern == "\\"
