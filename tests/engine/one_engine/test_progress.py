"""What takes long with real containers says so while it does."""

from __future__ import annotations

from typing import Final

import pytest

from tests.support.stand_in import RunPytest, keep_quiet, runner_of

# In pytest.

SOON: Final = """
import pytest_egress.engine.progress, pytest_egress.plugin.screen
pytest_egress.engine.progress.TICK_SECONDS = 0.05
pytest_egress.plugin.screen.LINE_SECONDS = {seconds}
"""


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    keep_quiet(monkeypatch, pytester)
    pytester.makeconftest(SOON.format(seconds=0))


@pytest.fixture
def run(pytester: pytest.Pytester) -> RunPytest:
    return runner_of(pytester)


def test_whatever_waits_for_a_container_says_so(
    run: RunPytest, pytester: pytest.Pytester, bare_image: str
) -> None:
    pytester.makeconftest(SOON.format(seconds=0.2))
    result = run(
        f"""
from pytest_egress import log_line
def test_a(egress):
    egress.start({bare_image!r}, ["sh", "-c", "sleep 2; echo up; sleep 60"], wait=log_line("up"))
    egress.run({bare_image!r}, ["sleep", "2"])
    egress.start({bare_image!r}, ["sleep", "60"]).stop(2)
    egress.wait_until_quiet(2)
""",
        subprocess=True,
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "egress: waiting until bare:latest is ready: no line of the log matches 'up', * s",
            "egress: waiting for the end of bare*, * s",
            "egress: stopping bare*, * s",
            "egress: waiting for 2 s without an attempt, * s",
        ]
    )
