"""Containers that something else creates, where there is none."""

from __future__ import annotations

import pytest

from pytest_egress import Egress, EngineError


def test_a_container_that_is_not_there_is_named(egress: Egress) -> None:
    with pytest.raises(EngineError, match="find the container 'nobody'"):
        egress.trust("nobody")
