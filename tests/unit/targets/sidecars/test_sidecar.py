"""What a sidecar is called."""

from __future__ import annotations

import secrets

import pytest

from pytest_egress.targets.sidecars import sidecar as module


def test_a_host_name_that_is_made_up_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["123456789012", "000000000000", "12345678901a"])
    monkeypatch.setattr(secrets, "token_hex", lambda size: next(names))
    assert module.made_up_hostname() == "12345678901a"
