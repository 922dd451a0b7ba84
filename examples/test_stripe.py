"""Payments with stripe's own SDK: what it sends, that a retry charges once, and what a declined card does."""

from pytest_egress import Egress, Response, sequence

PAY = """
import stripe

client = stripe.StripeClient("sk_test_1", max_network_retries=2)
try:
    intent = client.v1.payment_intents.create({"amount": 4200, "currency": "eur"})
    print("paid", intent.id)
except stripe.CardError as error:
    print("declined:", error.code)
"""
PAID = {"id": "pi_1", "object": "payment_intent"}
DECLINED = {"error": {"type": "card_error", "code": "insufficient_funds", "message": "no money"}}


def test_a_payment(egress: Egress, sdks: str) -> None:
    intents = egress.intercept_https("api.stripe.com", PAID, path="/v1/payment_intents")

    result = egress.run(sdks, ["python3", "-c", PAY])

    assert result.stdout == "paid pi_1\n"
    request = intents.assert_called_once().request
    assert request.form == {"amount": "4200", "currency": "eur"}
    assert request.headers["Authorization"] == "Bearer sk_test_1"


def test_a_retry_is_the_same_payment(egress: Egress, sdks: str) -> None:
    intents = egress.intercept_https("api.stripe.com", sequence(503, PAID))

    egress.run(sdks, ["python3", "-c", PAY])

    first, second = [call.request.headers["Idempotency-Key"] for call in intents.calls]
    assert first == second


def test_a_declined_card_is_not_tried_again(egress: Egress, sdks: str) -> None:
    intents = egress.intercept_https("api.stripe.com", Response(402, json=DECLINED))

    result = egress.run(sdks, ["python3", "-c", PAY])

    assert result.stdout == "declined: insufficient_funds\n"
    assert intents.call_count == 1
