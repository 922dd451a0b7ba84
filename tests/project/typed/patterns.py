"""What the documentation shows, with types: test_typing.py has type checkers accept every line. It is not run."""

from __future__ import annotations

import asyncio
import re
import socket
import socketserver
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timezone
from functools import partial
from typing import Any
from unittest.mock import ANY

import grpc
import pytest
import trustme

from pytest_egress import (
    BAD_CERTIFICATES,
    AsyncWebSocket,
    BadCertificate,
    CallError,
    CommandError,
    Container,
    DnsQuery,
    Egress,
    Entry,
    Exchange,
    GrpcCall,
    KafkaRecord,
    Mail,
    Metric,
    ProxyCall,
    Request,
    Response,
    Route,
    SyslogMessage,
    TcpConnection,
    WebSocket,
    WebSocketMessage,
    asgi,
    delayed,
    forward,
    grpc_server,
    http_ok,
    kafka,
    log_line,
    ntp,
    port_open,
    refuse,
    reset_stream,
    sequence,
    smtp,
    statsd,
    syslog,
    websocket,
    wsgi,
)


# A route as a decorator: its calls are counted in the handler itself.
def test_decorator(egress: Egress) -> None:
    @egress.intercept_https("api.stripe.com", method="POST", path="/v1/charges")
    def charges(request: Request) -> int | dict[str, str]:
        return 503 if charges.call_count == 0 else {"id": "ch_1"}

    egress.run("curlimages/curl", "curl https://api.stripe.com/v1/charges")
    assert charges.call_count == 2


# A handler is a function of the request, sync or async, and returns what can be sent.
def test_handlers(egress: Egress) -> None:
    @egress.intercept_https("a.test")
    def response(request: Request) -> Response:
        return Response(429, headers={"Retry-After": "1"}, json={"at": request.url})

    @egress.intercept_https("a.test")
    def text(request: Request) -> str:
        return request.text + str(request.json()["amount"]) + request.query["a"]

    @egress.intercept_https("a.test")
    def upload(request: Request) -> Response:
        names = [file.filename for file in request.files.get_all("doc")]
        texts = [*request.form.values(), *request.cookies, *request.query.get_all("a"), *names]
        size = len(request.raw_content) + len(request.files["doc"].content)
        return Response(json={"texts": texts, "size": size}, compress="gzip")

    @egress.intercept_https("a.test")
    def raw(request: Request) -> bytes:
        return request.content

    @egress.intercept_https("a.test")
    def listed(request: Request) -> list[dict[str, int]]:
        return [{"a": 1}]

    @egress.intercept_https("a.test")
    def status(request: Request) -> int:
        return 204

    @egress.intercept_https("a.test")
    def pair(request: Request) -> tuple[int, dict[str, str]]:
        return 404, {"error": "none"}

    @egress.intercept_https("a.test")
    def nothing(request: Request) -> None:
        assert request.headers["accept"] == "*/*"

    @egress.intercept_https("a.test")
    def raising(request: Request) -> Response:
        raise LookupError(request.path)

    @egress.intercept_https("a.test")
    def pieces(request: Request) -> Iterator[bytes]:
        yield b"first"

    @egress.intercept_https("a.test")
    def text_pieces(request: Request) -> Iterator[str]:
        yield "first"

    @egress.intercept_https("a.test")
    async def charged(request: Request) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"id": f"ch_{request.json()['amount']}"}

    @egress.intercept_https("a.test")
    async def events(request: Request) -> AsyncIterator[str]:
        yield "data: 1\n\n"

    @egress.intercept_https("a.test")
    async def typed_events(request: Request) -> Response:
        async def stream() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"

        return Response(stream=stream(), headers={"Content-Type": "text/event-stream"})

    egress.intercept_https("a.test", lambda request: 503 if request.path == "/" else "fine")


class Payments:
    """A servicer, as far as this file goes."""


def add_to_server(servicer: Payments, server: grpc.Server) -> None:
    """What protoc-gen-mypy says of the function that protoc generates."""


# gRPC: what stands for a server of grpc, and what a test reads of its calls.
def test_grpc(egress: Egress) -> None:
    server = grpc_server((add_to_server, Payments()))
    add_to_server(Payments(), server)
    route = egress.intercept_https("a.test:50051", server)
    egress.intercept_http("a.test:50051", sequence(503, server)).respond(server)
    call: GrpcCall = route.calls[0].grpc
    assert call.request.amount == 4200
    assert (call.service, call.method, call.status, call.details) == ("a", "b", "OK", "")
    assert dict(call.metadata)["x-shop"] == "berlin"


# Static answers, and what stands for more.
def test_answers(egress: Egress, orders: Container, app: Any) -> None:
    egress.intercept_https("a.test")
    egress.intercept_https("a.test", {"id": 1})
    egress.intercept_https("a.test", [1, 2])
    egress.intercept_https("a.test", b"bytes")
    egress.intercept_https("*.amazonaws.com", 503)
    egress.intercept_https("a.test", (503, "busy"), times=1)
    egress.intercept_https("a.test", Response(text="busy", reason="Later"))
    egress.intercept_https("a.test", Response(stream=[b"a", "b"], trailers={"x": "y"}))
    egress.intercept_https("a.test", sequence(503, {"id": "ch_1"}, lambda request: 204, forward()))
    egress.intercept_https("a.test", wsgi(app))
    egress.intercept_https("a.test", asgi(app))
    egress.intercept_https("a.test", forward())
    egress.intercept_https("a.test", forward("http://127.0.0.1:8000/base"))
    egress.intercept_http("orders.internal:8080", forward(orders, 8080))
    egress.intercept_https(
        "a.test",
        {"id": 1},
        method="POST",
        path="/v1/*",
        query={"a": "1", "b": ["1", "2"]},
        headers={"x-key": "k"},
        json={"amount": ANY},
        match=lambda request: request.sni == "a.test",
        optional=True,
        name="charges",
        client_certificate="require",
    )
    rejected = egress.intercept_https("a.test", certificate="expired").assert_rejected(timeout=1)
    print(rejected.note, egress.intercept_tls("a.test", tls_version="TLSv1.1").rejections[0].sni)
    egress.passthrough("pypi.org")
    egress.block("telemetry.vendor.test")
    egress.dns("db.internal", "NXDOMAIN")
    egress.dns("db.internal", ["192.0.2.1", "2001:db8::1"])
    egress.dns("db.internal", sequence("SERVFAIL", "silence", ["192.0.2.1"], "synthetic"))
    egress.dns("db.internal", delayed("192.0.2.1", 0.5)).respond(sequence("NXDOMAIN"))
    egress.dns("db.internal", delayed("synthetic", lambda: 0.5), SRV=["0 0 5432 db0.test"])
    egress.dns("shop.test", MX="10 mail.shop.test", TXT=("v=spf1 -all",))


@pytest.mark.parametrize("certificate", [None, *BAD_CERTIFICATES])
def test_verifies(egress: Egress, certificate: BadCertificate | None) -> None:
    egress.intercept_https("a.test", certificate=certificate)


# WebSockets: a handler, an async one, and the test itself.
def test_websockets(egress: Egress) -> None:
    def chat(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message if ws.subprotocol else {"said": str(message)})
        ws.close(4001, "enough")

    async def prices(ws: AsyncWebSocket) -> None:
        async for message in ws:
            await ws.send([str(message)])

    egress.intercept_https("a.test", websocket(chat, subprotocols=["chat.v2", "chat.v1"]))
    egress.intercept_https("a.test", websocket(prices), path="/v1")
    egress.intercept_https("a.test", sequence(503, websocket(lambda ws: ws.send("hello"))))
    route = egress.intercept_http("a.test", websocket())
    call = route.wait_for_call()
    call.send({"price": 1})
    call.close(1001, "closing time")
    assert [message.content for message in call.messages] == ['{"price": 1}']
    first: WebSocketMessage = call.messages[0]
    assert first.from_client


def test_a_real_answer_is_altered(egress: Egress, orders: Container) -> None:
    @egress.intercept_http("orders.internal:8080")
    def degraded(request: Request) -> Response:
        answer = request.forward(orders, 8080)
        return Response(answer.status_code, headers=answer.headers, json={"status": "degraded"})

    assert degraded.called


# Bytes.
def test_raw(egress: Egress, orders: Container) -> None:
    @egress.intercept_tcp("mail.internal:25")
    def smtp(sock: socket.socket) -> None:
        sock.sendall(b"220 mail.internal\r\n")

    @egress.intercept_tls("mqtt.test", client_certificate="request")
    def mqtt(sock: ssl.SSLSocket) -> None:
        assert sock.getpeercert()

    @egress.intercept_tcp("redis.test:6379")
    async def redis(sock: socket.socket) -> None:
        await asyncio.sleep(0)

    egress.intercept_tcp("graphite.internal:2003", b"welcome")
    egress.intercept_tcp("db:5432", forward(orders, 5432))
    egress.intercept_tcp("db:5432", lambda sock: sock.sendall(b"welcome"))
    egress.intercept_tcp("db:5432", sequence(b"busy", lambda sock: sock.sendall(b"welcome")))
    graphite = egress.intercept_tcp("graphite.internal:2003")
    assert graphite.assert_called_once().content == b"orders 1"
    assert smtp.wait_for_call().first_bytes == b"QUIT\r\n"


# Servers of libraries, as they are.
class Shout(asyncio.Protocol):
    def __init__(self, sign: str = "!") -> None:
        self.sign = sign


def test_servers(egress: Egress, server: socketserver.TCPServer) -> None:
    egress.intercept_tcp("redis.test:6379", server)
    egress.intercept_tcp("a.test:1", Shout)
    egress.intercept_tcp("a.test:1", partial(Shout, "?"))

    @egress.intercept_tcp("a.test:1")
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())

    egress.intercept_tls("a.test:1", sequence(Shout, b"bye"), alpn=("imap",))
    assert upper.wait_for_call().tls is None


# Mails.
def test_mails(egress: Egress) -> None:
    mailbox = egress.intercept_tcp("mail.internal:587", smtp())
    assert mailbox.assert_called_once().message["subject"] == "Welcome"
    secure: Route[Mail] = egress.intercept_tls("mail.internal:465", smtp())
    assert secure.calls[0].recipients == ("ann@example.com",)
    mailbox.respond(sequence(b"421 busy\r\n", smtp()))

    # Records of Kafka.

    broker = egress.intercept_tcp("kafka.internal:9092", kafka({"orders": [{"id": 7}]}))
    assert broker.wait_for_call().topic == "charges"
    within: Route[KafkaRecord] = egress.intercept_tls("kafka.internal:9093", kafka())
    within.respond(kafka(partitions=2))


# Datagrams.
def test_datagrams(egress: Egress) -> None:
    metrics = egress.intercept_udp("statsd.internal:8125")
    assert metrics.wait_for_call().text == "shop.orders:1|c"
    egress.intercept_udp("ntp.internal:123", ntp(at=datetime(2030, 1, 1, tzinfo=timezone.utc)))
    counted: Route[Metric] = egress.intercept_udp("statsd.internal:8125", statsd())
    assert counted.wait_for_call().tags == ("country:de",)
    said: Route[SyslogMessage] = egress.intercept_udp("syslog.internal:514", syslog())
    assert said.assert_called_once().severity == "err"
    counted.respond(refuse())
    counted.respond(statsd())
    egress.intercept_udp("ntp.internal:123", sequence(None, ntp(at=1893456000), [b"x", b"x"]))


# A proxy.
def test_proxy(egress: Egress) -> None:
    proxy: Route[ProxyCall] = egress.proxy("proxy.corp.test:3128", optional=True, name="proxy")
    assert proxy.assert_called_once().user == "ann"
    assert [call.target for call in proxy.calls] == ["api.stripe.com:443"]


# What a test asks.
def test_calls(egress: Egress) -> None:
    charges = egress.intercept_https("api.stripe.com", {"id": "ch_1"})
    call = charges.wait_for_call(count=1, timeout=5)
    assert call.response.status_code == 200
    assert call.response.json()["id"] == "ch_1"
    assert call.request.form == {"amount": "4200"}
    assert call.duration < 1
    assert [each.response.status_code for each in charges.calls] == [503, 200]
    assert charges.assert_called_once().response.text == "{}"
    assert charges.assert_called_with(json={"amount": 1}).response.headers["x"] == "y"
    assert charges.assert_any_call(method="POST").request.json() == {"amount": 1}
    charges.respond(503).respond(lambda request: {"id": 1}).respond(sequence(503, 200))
    charges.remove()
    with pytest.raises(CallError):
        charges.assert_not_called()
    lookup = egress.dns("db.internal", "NXDOMAIN")
    lookup.respond(["192.0.2.1"])
    assert lookup.wait_for_call().type == "A"
    assert egress["api.stripe.com"].assert_called_once().request.json()["amount"] == 4200
    egress["api.stripe.com"].respond(503)
    egress.assert_order(charges, lookup, charges)
    egress.assert_before(lookup, charges)
    egress.assert_only("api.stripe.com")
    egress.assert_no_egress()
    egress.assert_not_sent("ann@example.com", b"ann", re.compile("ann"), re.compile(b"ann"))
    charges.assert_not_sent("ann@example.com")
    assert [str(entry) for entry in egress.ledger] == []
    entries: list[Entry] = egress.ledger
    assert [entry.outcome for entry in entries] == ["routed"]
    charges.respond(answer=503)
    egress.intercept_https("api.stripe.com", answer=sequence(reset_stream(), {"id": "ch_1"}))
    for exchange in egress.exchanges:
        if exchange.response is None:
            continue
        assert exchange.response.status_code == 200


# Helpers of a suite.
def check(route: Route) -> Exchange:
    assert route.calls[0].response.status_code == 200
    return route.assert_called_once()


def check_bytes(route: Route[TcpConnection]) -> bytes:
    return route.assert_called_once().content


def check_names(route: Route[DnsQuery]) -> str:
    return route.calls[0].rcode


def check_any(route: Route[Any]) -> int:
    return route.call_count


def check_call(call: Exchange) -> int:
    return call.response.status_code


def test_helpers(egress: Egress) -> None:
    route = egress.intercept_https("a.test")
    check(route)
    check_call(route.wait_for_call())
    check_any(route)
    check_bytes(egress.intercept_tcp("db:5432"))
    check_names(egress.dns("a.test", "silence"))
    check(egress["a.test"])


@pytest.fixture
def charges(egress: Egress) -> Route:
    return egress.intercept_https("api.stripe.com", {"id": "ch_1"})


# Containers.
@pytest.fixture(scope="module")
def shop(module_egress: Egress) -> Container:
    db = module_egress.start("postgres:17", env={"POSTGRES_PASSWORD": "x"}, wait=port_open(5432))
    module_egress.intercept_tcp("db:5432", forward(db, 5432))
    ready = [http_ok(8080, "/health"), log_line("ready")]
    return module_egress.start("shop:latest", ["serve"], files={"/a": "b"}, wait=ready)


@pytest.mark.intercept_https("api.stripe.com", {"id": "ch_1"})
def test_containers(egress: Egress, shop: Container, egress_ca: trustme.CA) -> None:
    own = egress_ca.issue_cert("shop@clients.test").private_key_and_cert_chain_pem.bytes()
    result = egress.run("shop:latest", "charge", files={"/own.pem": own}, timeout=9, mem_limit="1g")
    assert (result.exit_code, result.stdout, result.stderr_bytes) == (0, "", b"")
    host, port = shop.address(8080)
    assert shop.url(8080, "/orders") == f"http://{host}:{port}/orders"
    assert shop.exec(["ls"]).stdout
    assert "ready" in shop.logs()
    assert shop.wait().duration > 0
    shop.stop()
    with pytest.raises(CommandError) as caught:
        egress.run("shop:latest")
    assert caught.value.exit_code == 1
    with egress.start("shop:latest") as other:
        assert other.id
    with Egress() as alone:
        alone.run("shop:latest", **alone.docker_options("shop:latest"))
