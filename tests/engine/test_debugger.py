"""Where pdb stands at an error of a real container."""

from __future__ import annotations

import pytest

from tests.support.debugger import Debug, Debugger
from tests.support.stand_in import keep_quiet


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    keep_quiet(monkeypatch, pytester)


@pytest.fixture
def debug(pytester: pytest.Pytester) -> Debug:
    """Start it on the source of a module."""
    return lambda source, *args: Debugger(pytester, source, *args)


def test_a_container_that_fails_leaves_pdb_at_the_line_that_ran_it(
    debug: Debug, bare_image: str
) -> None:
    line = f'egress.run("{bare_image}", ["sh", "-c", "exit 3"], check=True)'
    debugger = debug(f"def test_a(egress):\n    local = 41\n    {line}\n")
    assert debugger.stands_at == line
    assert debugger.tell("p local + 1") == "42"
