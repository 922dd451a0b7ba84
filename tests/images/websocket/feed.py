"""Subscribes to prices, prints each of them, and confirms it, until the other side closes."""

import contextlib
import json
import os

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

with (
    connect(os.environ.get("PRICES", "wss://prices.test/v1"), subprotocols=["prices.v1"]) as ws,
    contextlib.suppress(ConnectionClosed),
):
    ws.send(json.dumps({"subscribe": "EUR"}))
    while True:
        print(json.loads(ws.recv())["price"], flush=True)
        ws.send("ok")
print("closed with", ws.close_code, ws.close_reason, flush=True)
