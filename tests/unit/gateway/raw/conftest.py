"""The servers that raw routes lead to, and a gateway that asks no client for its first byte."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from pytest_egress.gateway import dispatch
from tests.support.echo import Echo
from tests.support.outside import Outside


@pytest.fixture
def no_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited for the client's first byte here would fail the test."""
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 600.0)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with contextlib.closing(Echo()) as echo:
        yield echo


@pytest.fixture
def real(outside: Outside) -> Iterator[Echo]:
    """A server at port 5432 of every name and address outside of the machine."""
    with contextlib.closing(Echo(listener=outside.listen(5432))) as echo:
        yield echo
