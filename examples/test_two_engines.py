"""A suite that outgrows a machine: each worker of pytest-xdist takes an engine of its own.

pytest -n 2 --egress-engines=unix:///run/docker.sock,unix:///run/second.sock test_two_engines.py

The tests say nothing of it: they run as well on one engine, and without workers.
"""

import pytest

from pytest_egress import Container, Egress, http_ok


@pytest.fixture(scope="session")
def shop(session_egress: Egress, shop_image: str) -> Container:
    """One for each worker, on the worker's engine."""
    return session_egress.start(shop_image, wait=http_ok(8080, "/health"))


@pytest.mark.parametrize("number", range(4))
def test_a_charge(egress: Egress, shop: Container, number: int) -> None:
    egress.intercept_https("api.stripe.com", {"id": f"ch_{number}"})

    result = shop.exec(["python", "-m", "shop.charge"])

    assert result.stdout == f"charged ch_{number}\n"
    assert len(egress.exchanges) == 1  # and none of the other workers'
