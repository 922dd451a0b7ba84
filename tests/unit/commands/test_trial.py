"""One run of an image: whether all of it was seen. What it does on an engine is in `tests/engine`."""

from __future__ import annotations

import pytest

from pytest_egress.commands.trial import Trial, is_whole, unseen_in
from pytest_egress.ledger.windows import Window


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (Window(), ""),
        (Window(unrecorded=5), "at least 5 attempts could not be recorded: there were too many"),
        (Window(complaints=["a: \x1b[2J\n  b"], repeated=2), "a: \\x1b[2J; b; and 2 more of this"),
    ],
)
def test_why_not_all_was_seen_is_one_line(window: Window, said: str) -> None:
    found = unseen_in(window)
    assert found.startswith(said)
    assert "\n" not in found
    assert bool(found) is bool(said)


def test_a_run_of_which_not_all_was_seen_is_not_whole() -> None:
    assert is_whole(Trial(entries=(), exit_code=0))
    assert not is_whole(Trial(entries=(), exit_code=0, unseen="5 were lost"))
