"""One run of an image: whether all of it was seen. What it does on an engine is in `tests/engine`."""

from __future__ import annotations

import pytest

from pytest_egress import Response
from pytest_egress.commands.trial import Trial, broken, is_whole, unseen_in
from pytest_egress.ledger.windows import Window
from tests.support.entries import http_exchange


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


def test_a_request_whose_client_did_not_wait_for_the_answer_is_broken() -> None:
    left = http_exchange(outcome="routed")
    answered = http_exchange(outcome="routed", response=Response(200))
    call = http_exchange("POST", outcome="routed", headers={"content-type": "application/grpc"})
    trial = Trial(entries=(http_exchange(outcome="blocked"), answered, call, left), exit_code=0)
    assert broken(trial) == [left]
    assert not is_whole(trial)
