"""Fails on purpose: `make demo` shows how. Its name keeps it out of an ordinary run."""

import pytest

from pytest_egress import Egress

CHECKOUT = """
import requests

requests.post("https://api.stripe.com/v1/charges", json={"amount": 4200}, timeout=2)
print("paid")
"""


@pytest.mark.egress_sweep(faults=["503", "reset", "lost", "silence"])
def test_checkout_charges_what_it_says(egress: Egress, clients: str) -> None:
    charges = egress.intercept_https("api.stripe.com", {"id": "ch_1"})

    result = egress.run(clients, ["python3", "-c", CHECKOUT])

    assert result.stdout == "paid\n"
    charges.assert_called_once()
