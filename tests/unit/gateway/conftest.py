"""The stage of the gateway's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trustme

from tests.support.stage import Stage, staged


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def stage(ca: trustme.CA, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A gateway on loopback; its upstreams are outside of the machine where the test uses `outside`."""
    with staged(ca, request) as stage:
        yield stage
