"""A service that follows prices by a WebSocket: it resumes where it was interrupted, and shows what the test pushes."""

import json

from pytest_egress import Egress, WebSocket, sequence, websocket

FOLLOWER = """
import json
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

last, is_over = 0, False
while not is_over:
    with connect("wss://prices.test/v1", subprotocols=["prices.v1"]) as ws:
        ws.send(json.dumps({"after": last}))
        try:
            while True:
                price = json.loads(ws.recv())
                last = price["id"]
                print(last, price["value"], flush=True)
        except ConnectionClosed:
            is_over = ws.close_code == 1000
"""


def test_the_service_resumes_where_it_was_interrupted(
    egress: Egress, websocket_clients: str
) -> None:
    def interrupted(ws: WebSocket) -> None:
        assert json.loads(ws.recv()) == {"after": 0}
        ws.send({"id": 1, "value": 1.1})
        ws.close(1012, "the service restarts")

    def resumed(ws: WebSocket) -> None:
        assert json.loads(ws.recv()) == {"after": 1}
        ws.send({"id": 2, "value": 1.2})

    prices = egress.intercept_https(
        "prices.test", sequence(websocket(interrupted), websocket(resumed)), path="/v1"
    )

    result = egress.run(websocket_clients, ["python3", "-c", FOLLOWER])

    assert result.stdout == "1 1.1\n2 1.2\n"
    assert [call.websocket.close_code for call in prices.calls] == [1012, 1000]


def test_the_service_shows_what_the_test_pushes(egress: Egress, websocket_clients: str) -> None:
    prices = egress.intercept_https("prices.test", websocket(subprotocols=["prices.v1"]))
    service = egress.start(websocket_clients, ["python3", "-c", FOLLOWER])

    call = prices.wait_for_call()
    assert json.loads(call.websocket.recv(timeout=5)) == {"after": 0}
    call.send({"id": 7, "value": 42})
    call.close()

    assert service.wait().stdout == "7 42\n"
    assert call.websocket.subprotocol == "prices.v1"
    assert [message.from_client for message in call.messages] == [True, False]
