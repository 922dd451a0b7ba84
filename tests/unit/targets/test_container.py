"""What a container says of its signals, and of the times of its log."""

from __future__ import annotations

import pytest

from pytest_egress.targets.container import seconds_of, signal_name


@pytest.mark.parametrize(
    ("value", "name"), [("SIGINT", "SIGINT"), ("15", "SIGTERM"), (3, "SIGQUIT"), ("37", "37")]
)
def test_a_signal_is_called_by_its_name_where_it_has_one(value: object, name: str) -> None:
    assert signal_name(value) == name


# The part of a log.


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
