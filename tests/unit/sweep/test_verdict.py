"""What a run under a fault means: the first line of the table that applies."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress.errors import HandlerError, LeakError, UnroutedError
from pytest_egress.sweep.verdict import Aftermath, ContainerEnd, crashed, letters_of, text_of

RIGHT: dict[str, Any] = {
    "met": 1,
    "error": None,
    "offence": None,
    "late": [],
    "waits": False,
    "ended": {"shop": ContainerEnd(0, has_spoken=True)},
    "running": [],
    "usual": {"shop": 0},
    "has_to_pass": False,
}
FAILS = {"error": AssertionError("no"), "ended": {"shop": ContainerEnd(1, has_spoken=True)}}
STRAY = UnroutedError("GET https://x.test/")


def outcome(**said: Any) -> Aftermath:
    return Aftermath(**{**RIGHT, **said})


@pytest.mark.parametrize(
    ("said", "letters"),
    [
        ({}, "ok"),
        (FAILS, "err"),
        # The fault met no call: nothing is known of it.
        ({"met": 0}, "-"),
        ({"met": 0, **FAILS}, "FAILS"),
        ({"met": 0, "offence": STRAY}, "FAILS"),
        # Whatever the test says.
        ({"late": ["shop"]}, "HUNG"),
        ({"waits": True}, "HUNG"),
        ({**FAILS, "waits": True, "offence": STRAY}, "HUNG"),
        ({"offence": STRAY}, "STRAY"),
        ({**FAILS, "offence": STRAY}, "STRAY"),
        ({**FAILS, "offence": LeakError("a secret")}, "FAILS"),
        ({**FAILS, "offence": HandlerError("raised")}, "FAILS"),
        ({"ended": {"shop": ContainerEnd(139, has_spoken=True)}}, "CRASH"),
        ({**FAILS, "ended": {"shop": ContainerEnd(139, has_spoken=True)}}, "CRASH"),
        ({"ended": {"shop": ContainerEnd(143, has_spoken=True)}, "usual": {"shop": 143}}, "ok"),
        ({"ended": {"shop": ContainerEnd(143, has_spoken=True)}, "usual": {"db": 143}}, "CRASH"),
        # A test that judges.
        ({**FAILS, "has_to_pass": True}, "FAILS"),
        ({"has_to_pass": True}, "ok"),
        # A shared container makes the call by itself.
        ({"is_unsure": True}, "ok?"),
        ({"is_unsure": True, "has_to_pass": True}, "ok?"),
        ({**FAILS, "is_unsure": True}, "err"),
        # A test that may fail.
        ({**FAILS, "ended": {"shop": ContainerEnd(0, has_spoken=True)}}, "LIES"),
        ({**FAILS, "ended": {"shop": ContainerEnd(1, has_spoken=False)}}, "MUTE"),
        (
            {
                **FAILS,
                "ended": {
                    "a": ContainerEnd(0, has_spoken=True),
                    "b": ContainerEnd(1, has_spoken=False),
                },
            },
            "MUTE",
        ),
        (
            {
                **FAILS,
                "ended": {
                    "a": ContainerEnd(0, has_spoken=False),
                    "b": ContainerEnd(1, has_spoken=True),
                },
            },
            "err",
        ),
        (
            {**FAILS, "ended": {"job": ContainerEnd(0, has_spoken=True)}, "running": ["shop"]},
            "LIES",
        ),
        # Another container fails as it does on the happy path: that says nothing of the fault.
        (
            {
                **FAILS,
                "ended": {
                    "shop": ContainerEnd(0, has_spoken=True),
                    "probe": ContainerEnd(1, has_spoken=True),
                },
                "usual": {"shop": 0, "probe": 1},
            },
            "LIES",
        ),
        ({**FAILS, "usual": {"shop": 1}}, "LIES"),
        ({**FAILS, "usual": {"shop": 2}}, "err"),
        ({**FAILS, "ended": {}, "running": ["shop"]}, "err?"),
        ({**FAILS, "ended": {}}, "FAILS"),
    ],
)
def test_the_first_line_that_applies_decides(said: dict[str, Any], letters: str) -> None:
    assert letters_of(outcome(**said)) == letters


def test_each_text_says_what_is_wrong_and_what_to_do() -> None:
    late = text_of("HUNG", outcome(late=["shop"]), 12.3)
    assert late.startswith("shop had not ended when the time was over: 12.3 s")
    assert "raise patience=" in late
    waits = text_of("HUNG", outcome(waits=True), 12.3)
    assert waits.startswith("its client still waited for an answer when the time was over")
    lies = text_of("LIES", outcome(**FAILS), 1)
    same = (
        "the exit code of shop is that of the happy path, and the test fails: AssertionError: no\n"
    )
    assert lies.startswith(same)
    assert "ask egress.fault" in lies
    assert "exit code of shop is 0, and" in text_of("LIES", outcome(error=AssertionError("no")), 1)
    assert "wrote nothing" in text_of("MUTE", outcome(**FAILS), 1)
    broken = outcome(ended={"shop": ContainerEnd(139, has_spoken=True)})
    assert crashed(broken) == ["shop"]
    assert text_of("CRASH", broken, 1) == "shop exited with 139, which is that of a signal"


def test_a_long_error_is_cut() -> None:
    failing = outcome(**{**FAILS, "error": AssertionError("x" * 5000)})
    assert len(text_of("LIES", failing, 1)) < 600
