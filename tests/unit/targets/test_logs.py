"""What the times of a log say."""

from __future__ import annotations

import pytest

from pytest_egress.targets.logs import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-01T00:00:00.123456789Z", 0.123456789),
        ("1970-01-01T02:00:01.25+02:00", 1.25),
        ("1970-01-01 00:00:01 +0000 UTC", None),
    ],
)
def test_the_engines_times_are_read_whatever_their_decimals_and_zone(
    text: str, seconds: float | None
) -> None:
    assert seconds_of(text) == seconds
