"""What a container says of its signals."""

from __future__ import annotations

import pytest

from pytest_egress.targets.ending import signal_name


@pytest.mark.parametrize(
    ("value", "name"), [("SIGINT", "SIGINT"), ("15", "SIGTERM"), (3, "SIGQUIT"), ("37", "37")]
)
def test_a_signal_is_called_by_its_name_where_it_has_one(value: object, name: str) -> None:
    assert signal_name(value) == name
