"""Secrets that are looked for in no other test of this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_egress.traffic.search.secrets import MADE


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What is made in the test is forgotten after it."""
    count = len(MADE)
    yield
    del MADE[count:]
