"""`assert_not_sent` over what real clients in containers send."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_egress import CallError, Egress, WebSocket, forward, grpc_server, smtp, websocket
from tests.support.greeter import pb, pb_grpc
from tests.support.upstreams import tcp_server

ANN = "ann@example.com"


def places(egress: Egress, *needles: Any) -> list[str]:
    """The lines about finds, in the order of the attempts."""
    with pytest.raises(CallError) as caught:
        egress.assert_not_sent(*(needles or (ANN,)))
    return [line.strip() for line in str(caught.value).splitlines() if line.startswith("      ")]


REQUESTS = f"""
curl -sS https://api.test/of/ann%40example.com
curl -sS --user {ANN}:hunter2 -H 'X-User: {ANN}' https://api.test/
curl -sS --json '{{"user": {{"email": "ann\\u0040example.com"}}}}' https://api.test/
curl -sS --http2 --data-urlencode to={ANN} https://api.test/
printf '[{{"email": "{ANN}"}}]' | gzip | curl -sS --data-binary @- -H 'Content-Encoding: gzip' https://api.test/
curl -sS -F to={ANN} https://api.test/
true
"""


def test_requests_of_curl_are_searched(egress: Egress, clients_image: str) -> None:
    api = egress.intercept_https("api.test")
    egress.run(clients_image, ["sh", "-c", REQUESTS])
    found = [
        f"'{ANN}' in url path, percent-decoded: '/of/ann@example.com'",
        f"'{ANN}' in header authorization, base64-decoded",
        f"'{ANN}' in header x-user",
        f"'{ANN}' in body json: user.email",
        f"'{ANN}' in body form 'to'",
        f"'{ANN}' in body json: [0].email",
        f"'{ANN}' in body form 'to'",
    ]
    assert places(egress) == found
    assert api.call_count == 6
    egress.assert_not_sent("bob@example.com", re.compile(rb"\d{16}"))
    with pytest.raises(CallError, match="hunter2"):
        api.assert_not_sent("hunter2")


CRASH = f"""
import sentry_sdk
sentry_sdk.init("https://key@o1.ingest.sentry.io/1")
email = "{ANN}"
raise ValueError("no such order")
"""


@pytest.mark.runtimes
def test_what_sentry_is_sent_has_its_place_in_the_envelope(egress: Egress, sdks_image: str) -> None:
    egress.intercept_https("*.ingest.sentry.io")
    egress.run(sdks_image, ["python3", "-c", CRASH], check=False)
    at = "exception.values[0].stacktrace.frames[0]"
    assert f"'{ANN}' in body envelope item 0: {at}.vars.email: {chr(34)}'{ANN}'{chr(34)}" in places(
        egress
    )


SMTPLIB = f"""
import smtplib, ssl
from email.message import EmailMessage

mail = EmailMessage()
mail["From"], mail["To"], mail["Subject"] = "a@x.test", "b@x.test", "Grüße an {ANN}"
mail.set_content("Grüße an {ANN}", cte="base64")
with smtplib.SMTP("mail.test", 587) as client:
    client.starttls(context=ssl.create_default_context())
    client.send_message(mail)
"""


def test_mails_are_searched_as_they_are_read(egress: Egress, services_image: str) -> None:
    egress.intercept_tcp("mail.test:587", smtp())
    egress.run(services_image, ["python3", "-c", SMTPLIB])
    assert [line.partition(":")[0] for line in places(egress)] == [
        f"'{ANN}' in mail header Subject",
        f"'{ANN}' in mail body",
    ]


class Greeting(pb_grpc.GreeterServicer):  # type: ignore[misc]  # made by protoc, without types
    """Answers every call."""

    def Unary(self, request: Any, context: Any) -> Any:
        return pb.Reply(text="hello")


UNARY = """
import grpc, greeter_pb2 as pb, greeter_pb2_grpc as pb_grpc
with grpc.secure_channel("greet.test:443", grpc.ssl_channel_credentials()) as channel:
    pb_grpc.GreeterStub(channel).Unary(pb.Hello(name="of ann@example.com"))
"""


def test_messages_of_grpc_have_the_names_of_their_fields(egress: Egress, grpc_image: str) -> None:
    servicer = (pb_grpc.add_GreeterServicer_to_server, Greeting())
    egress.intercept_https("greet.test", grpc_server(servicer))
    egress.run(grpc_image, ["python", "-c", UNARY])
    assert places(egress) == [f"'{ANN}' in message 0: name: 'of {ANN}'"]


CHAT = f"""
import websockets.sync.client as client
with client.connect("ws://chat.test/") as ws:
    ws.send("hello")
    ws.recv()
    ws.send('{{"to": "{ANN}"}}')
    ws.recv()
"""
DIAL = f"""
import socket
with socket.create_connection(("db.test", 5432)) as db:
    db.sendall(b"of {ANN}")
    db.recv(1)
"""


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


def test_websockets_raw_connections_and_names_are_searched(
    egress: Egress, websocket_image: str
) -> None:
    egress.intercept_http("chat.test", websocket(echo))

    @egress.intercept_tcp("db.test:5432")
    def database(sock: Any) -> None:
        sock.recv(100)
        sock.sendall(b"!")

    for script in (CHAT, DIAL):
        egress.run(websocket_image, ["python3", "-c", script])
    assert places(egress) == [
        f"'{ANN}' in message 2 json: to",
        f"'{ANN}' in its bytes: 'of {ANN}'",
    ]
    assert places(egress, "DB.Test")[0] == "'DB.Test' in the name of its host"


def test_what_was_passed_on_proves_nothing_and_a_route_alone_can_be_asked(
    egress: Egress, websocket_image: str
) -> None:
    with tcp_server(lambda sock: sock.sendall(sock.recv(1))) as port:
        egress.intercept_tcp("db.test:5432", forward(f"tcp://127.0.0.1:{port}"))
        api = egress.intercept_http("api.test")
        ask = "import urllib.request; urllib.request.urlopen('http://api.test/')"
        egress.run(websocket_image, ["python3", "-c", DIAL + ask])
    with pytest.raises(CallError) as caught:
        egress.assert_not_sent(ANN)
    assert "its bytes were passed on to a server, and are not kept" in str(caught.value)
    assert str(caught.value).endswith("route.assert_not_sent(...)")
    api.assert_not_sent(ANN)
