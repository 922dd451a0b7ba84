"""Tell a partner that an order was paid: a webhook that is signed with a secret of both."""

import hashlib
import hmac
import json
import os

import requests

HOOK = "https://partner.example.test/hooks"


def notify(order):
    body = json.dumps({"event": "order.paid", "order": order}).encode()
    secret = os.environ["WEBHOOK_SECRET"].encode()
    signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
    fields = {"Content-Type": "application/json", "X-Signature": f"sha256={signature}"}
    requests.post(HOOK, data=body, headers=fields, timeout=10).raise_for_status()


if __name__ == "__main__":
    notify(7)
