"""`pytest-egress watch`: how its lines look. What it prints of a real image is in `tests/engine`."""

from __future__ import annotations

import sys

import pytest

from pytest_egress.commands.order import Order
from pytest_egress.commands.trial import Trial
from pytest_egress.commands.watch import LOG_COLUMNS, columns, ending, write
from pytest_egress.ledger.watched import WatchedLine

LINES = [WatchedLine(text="refused", colour="red"), WatchedLine(text="plain")]


def test_in_a_file_there_is_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    write(LINES)
    assert capsys.readouterr().out == "refused\nplain\n"
    assert columns() == LOG_COLUMNS


def test_on_a_terminal_there_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "77")
    write(LINES)
    assert capsys.readouterr().out == "\x1b[31mrefused\x1b[0m\nplain\n"
    assert columns() == 77


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        (Trial(entries=(), exit_code=3), "It exited with code 3; nothing got out."),
        (Trial(entries=()), "It still ran after 60 s, and was ended; nothing got out."),
        (Trial(entries=(), stopped=True), "It was stopped; nothing got out."),
        (
            Trial(entries=(), exit_code=0, unseen="5 were lost"),
            "Not all that it attempted could be seen: 5 were lost\nIt exited with code 0;",
        ),
    ],
)
def test_the_end_says_how_it_came(trial: Trial, said: str) -> None:
    assert ending(Order(image="shop"), trial).startswith(said)
