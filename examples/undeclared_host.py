"""Fails on purpose: `make demo` shows how. Its name keeps it out of an ordinary run."""

from pytest_egress import Egress


def test_checkout_talks_to_stripe_alone(egress: Egress, clients: str) -> None:
    egress.intercept_https("api.stripe.com", {"id": "ch_1"}, method="POST", path="/v1/charges")

    egress.run(
        clients,
        """sh -c '
            curl --silent --json "{}" https://api.stripe.com/v1/charges
            curl --silent --json "{}" https://api.stripe.com/v1/refunds
            curl --silent https://telemetry.vendor.test/v1/events?host=$(hostname)
        '""",
    )
