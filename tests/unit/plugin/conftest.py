"""The runs of the plugin's tests: pytest in pytest, with a stand-in for the gateway."""

from __future__ import annotations

import pytest

from tests.support.stand_in import RunPytest, keep_quiet, runner_of


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    keep_quiet(monkeypatch, pytester)


@pytest.fixture
def run(pytester: pytest.Pytester) -> RunPytest:
    return runner_of(pytester)
