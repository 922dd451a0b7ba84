"""What a stack reads of states and of the program's lines. All else needs an engine: `one_engine/test_compose.py`."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress.endpoint.stack import failure_of, without_progress


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"Status": "running", "ExitCode": 0}, ""),
        ({"Status": "exited", "ExitCode": 0}, ""),
        ({"Status": "exited", "ExitCode": 3}, "web exited with code 3"),
        ({"Status": "running", "ExitCode": 0, "Health": {"Status": "starting"}}, ""),
        (
            {"Status": "running", "ExitCode": 0, "Health": {"Status": "unhealthy"}},
            "web is unhealthy",
        ),
    ],
)
def test_a_container_fails_its_project_that_has_failed_or_is_unhealthy(
    state: dict[str, Any], text: str
) -> None:
    assert failure_of("web", state) == text


def test_lines_about_each_step_are_left_out_unless_there_are_no_others() -> None:
    steps = " Network back  Creating\n Container web-1  Started\n"
    assert (
        without_progress(f"{steps}dependency failed to start\n\n") == "dependency failed to start"
    )
    assert without_progress(steps) == steps
