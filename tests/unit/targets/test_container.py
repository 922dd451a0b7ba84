"""What a container says of its signals, and of the times of its log."""

from __future__ import annotations

import pytest

from pytest_egress import Egress, log_line
from pytest_egress.ledger.windows import Window
from pytest_egress.targets.container import seconds_of, signal_name
from tests.support.attempts import SECONDS


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


def test_a_clock_of_the_engine_that_is_another_is_allowed_for(
    egress: Egress, bare_image: str
) -> None:
    script = "mkfifo /tmp/pipe; echo first; read x </tmp/pipe; echo second; exec sleep 600"
    egress.start(bare_image, ["sh", "-c", script], wait=log_line("first"))
    (container,) = egress.containers
    between = Window().opened
    container.exec(["sh", "-c", "echo go >/tmp/pipe"])
    assert egress.session.ledger.wait_for(lambda: "second" in container.logs(), SECONDS)
    assert container.log_since(between) == "second"
    before, after = container._starting
    container._starting = before - 3600, after - 3600  # as if ours were an hour late
    assert container.log_since(between - 3600) == "second"
