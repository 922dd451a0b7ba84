"""Subscribes to prices, prints each of them, and confirms it."""

import json
import os

from websockets.sync.client import connect

with connect(os.environ.get("PRICES", "wss://prices.test/v1"), subprotocols=["prices.v1"]) as ws:
    ws.send(json.dumps({"subscribe": "EUR"}))
    for message in ws:
        print(json.loads(message)["price"], flush=True)
        ws.send("ok")
print("closed with", ws.close_code, ws.close_reason, flush=True)
