"""Charge a card, and try once more when the payment service is busy."""

import requests

CHARGES = "https://api.stripe.com/v1/charges"


def charge(amount):
    for _ in range(2):
        answer = requests.post(CHARGES, json={"amount": amount, "currency": "eur"}, timeout=10)
        if answer.status_code != 503:
            break
    answer.raise_for_status()
    return answer.json()["id"]


if __name__ == "__main__":
    print("charged", charge(4200))
