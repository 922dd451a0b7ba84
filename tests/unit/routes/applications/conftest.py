"""What tests of applications leave behind: nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest


@pytest.fixture
def nothing_is_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No thread outlives its application, those that frameworks start on its loop included, and no task."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)  # a worker of anyio is told to end and not waited for
    assert not left
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]
