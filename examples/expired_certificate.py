"""Fails on purpose: `make demo` shows how. Its name keeps it out of an ordinary run."""

from pytest_egress import Egress


def test_checkout_rejects_an_expired_certificate(egress: Egress, clients: str) -> None:
    egress.intercept_https("api.stripe.com", {"id": "ch_1"}, certificate="expired")

    egress.run(clients, "curl --silent --insecure https://api.stripe.com/v1/charges")
