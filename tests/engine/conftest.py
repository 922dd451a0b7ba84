"""What tests against the real engine share."""

from __future__ import annotations

import textwrap

import pytest

from tests.support.inner_runs import CONFTEST, InnerRun, Inside


@pytest.fixture
def inside(pytester: pytest.Pytester, clients_image: str) -> Inside:
    """Runs a module of tests against the real engine."""
    pytester.makeconftest(CONFTEST.format(image=clients_image))
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")

    def run(code: str, *args: str) -> InnerRun:
        (pytester.path / "test_shop.py").write_text(textwrap.dedent(code))
        return InnerRun(pytester, *args)

    return run
