"""Routes of every kind, dialled by real clients in real containers: raw bytes, TLS, what passes, names, crowds."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import trustme

from pytest_egress import Egress, HandlerError, Request, Route, UnroutedError, sequence
from pytest_egress.routes.answers import HttpHandler
from pytest_egress.targets.handle import Container
from tests.support.clients import OTHER_CA, Background, python
from tests.support.outside import Outside
from tests.support.upstreams import SECONDS, only_connection, speak_redis, succeed


@pytest.fixture(scope="module")
def other_ca() -> trustme.CA:
    """The authority of the real servers, which nobody but the container has heard of."""
    return trustme.CA()


@pytest.fixture(scope="module")
def client(
    module_egress: Egress, services_image: str, other_ca: trustme.CA, outside: Outside
) -> Container:
    """A container that waits for commands; each test answers them with routes of its own."""
    files = {OTHER_CA: other_ca.cert_pem.bytes()}
    start = partial(module_egress.start, services_image, ["sleep", "infinity"], files=files)
    return outside.near(start)


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the client to speak first waits for longer than a test may take."""
    monkeypatch.setattr("pytest_egress.gateway.dispatch.FIRST_BYTE_SECONDS", 600.0)


@pytest.fixture
def background(client: Container) -> Iterator[Background]:
    """Runs a snippet in the container while the test goes on."""
    with ThreadPoolExecutor() as pool:
        yield lambda code, *args: pool.submit(python, client, code, *args)


def shout(sock: socket.socket) -> None:
    """A raw handler: each line comes back in capitals."""
    with sock.makefile("rwb") as stream:
        for line in stream:
            stream.write(line.upper())
            stream.flush()


# The server speaks first.


def test_a_mail_is_delivered_to_a_handler_that_greets_first(
    egress: Egress, client: Container, no_wait: None
) -> None:
    mails: list[list[str]] = []
    replies = {"EHLO": "250 mail.test", "MAIL": "250 sender", "RCPT": "250 recipient"}

    @egress.intercept_tcp("mail.test:25")
    def smtp(sock: socket.socket) -> None:
        with sock.makefile("rw", newline="") as stream:

            def say(line: str) -> None:
                stream.write(f"{line}\r\n")
                stream.flush()

            say("220 mail.test is ready")
            for line in stream:
                verb = line.split()[0].upper()
                if verb == "DATA":
                    say("354 go on")
                    mails.append(list(iter(lambda: stream.readline().rstrip(), ".")))
                    say("250 taken")
                elif verb == "QUIT":
                    say("221 bye")
                    return
                else:
                    say(replies[verb])

    code = """
        import smtplib
        from email.message import EmailMessage
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "shop@shop.test", "you@home.test", "Order 7"
        mail.set_content("It is on its way.")
        with smtplib.SMTP("mail.test", timeout=30) as server:
            print(server.send_message(mail))
    """
    assert python(client, code) == "{}"
    (mail,) = mails
    assert "Subject: Order 7" in mail
    assert mail[-1] == "It is on its way."
    call = only_connection(smtp)
    assert (call.host, call.port, call.outcome) == ("mail.test", 25, "routed")
    assert call.duration is not None


def mysql_packet(number: int, content: bytes) -> bytes:
    return struct.pack("<I", len(content))[:3] + bytes([number]) + content


def mysql_hello() -> bytes:
    """Its protocol 10: capabilities are 4.1, a default database, secure connections and plug-ins."""
    capabilities = 0x0008_8209
    plugin = b"mysql_native_password\0"
    parts = [
        b"\x0a8.0.0-of-the-test\0",
        struct.pack("<I", 7) + b"saltsalt\0",
        struct.pack("<HBHH", capabilities & 0xFFFF, 33, 2, capabilities >> 16),
        bytes([21]) + bytes(10) + b"saltsaltsalt\0" + plugin,
    ]
    return mysql_packet(0, b"".join(parts))


MYSQL_CLIENTS = {
    "mariadb": "mariadb --skip-ssl -h db.test -u shop -psecret orders",
    "pymysql": ["python3", "-c", "import pymysql; pymysql.connect(host='db.test', user='shop')"],
}


@pytest.mark.parametrize("command", MYSQL_CLIENTS.values(), ids=MYSQL_CLIENTS.keys())
def test_a_database_client_waits_for_no_one_and_shows_the_error_of_the_handler(
    egress: Egress, client: Container, no_wait: None, command: str | list[str]
) -> None:
    @egress.intercept_tcp("db.test:3306")
    def mysql(sock: socket.socket) -> None:
        sock.sendall(mysql_hello())
        login = sock.recv(4096)
        assert b"shop\0" in login
        error = b"\xff" + struct.pack("<H", 1045) + b"#28000The test says no"
        sock.sendall(mysql_packet(2, error))

    result = client.exec(command, check=False)
    assert result.exit_code == 1
    assert "1045" in result.stderr
    assert "The test says no" in result.stderr
    only_connection(mysql)


def test_a_static_greeting_is_sent_at_once_and_what_comes_back_is_kept(
    egress: Egress, client: Container, no_wait: None
) -> None:
    route = egress.intercept_tcp("greeter.test", b"hello\n")
    code = """
        import socket
        sock = socket.create_connection(("greeter.test", 4321), 30)
        print(sock.recv(99))
        sock.sendall(b"and goodbye")
    """
    assert python(client, code) == "b'hello\\n'"
    assert only_connection(route).content == b"and goodbye"


# Names for plain TCP.


def test_two_names_at_one_port_have_a_handler_each(egress: Egress, client: Container) -> None:
    @egress.intercept_tcp("orders.cache.test:6379")
    def orders(sock: socket.socket) -> None:
        speak_redis(sock, lambda *words: f"orders {' '.join(words)}")

    @egress.intercept_tcp("users.cache.test:6379")
    def users(sock: socket.socket) -> None:
        speak_redis(sock, lambda *words: f"users {' '.join(words)}")

    ask = "redis-cli -h {}.cache.test GET key"
    assert succeed(client.exec(ask.format("orders"))) == "orders GET key"
    assert succeed(client.exec(ask.format("users"))) == "users GET key"
    assert [only_connection(orders).host, only_connection(users).host] == [
        "orders.cache.test",
        "users.cache.test",
    ]


def test_a_name_without_a_port_is_routed_at_every_port(egress: Egress, client: Container) -> None:
    route = egress.intercept_tcp("any.test", shout)
    code = """
        import socket
        for family in (socket.AF_INET, socket.AF_INET6):
            for port in (1, 22, 80, 443, 65535):
                address = socket.getaddrinfo("any.test", port, family)[0][4]
                sock = socket.socket(family)
                sock.settimeout(30)
                sock.connect(address)
                sock.sendall(b"port %d\\n" % port)
                print(sock.recv(99).decode(), end="")
    """
    assert (
        python(client, code).split("\n") == [f"PORT {port}" for port in (1, 22, 80, 443, 65535)] * 2
    )
    route.wait_for_call(10, timeout=SECONDS)
    assert {call.host for call in route.calls} == {"any.test"}
    assert sorted(call.port or 0 for call in route.calls) == sorted([1, 22, 80, 443, 65535] * 2)


def test_an_async_handler_gets_the_socket_too(egress: Egress, client: Container) -> None:
    @egress.intercept_tcp("slow.cache.test:6379")
    async def cache(sock: socket.socket) -> None:
        speak_redis(sock, lambda *words: "async")

    assert succeed(client.exec("redis-cli -h slow.cache.test PING")) == "async"
    only_connection(cache)


@pytest.mark.intercept_tcp("marked.test:7000", b"by a marker\n")
@pytest.mark.intercept_tls("marked.test:7001", b"by a marker, in TLS\n")
def test_raw_routes_are_markers_too(egress: Egress, client: Container) -> None:
    code = """
        import socket, ssl
        print(socket.create_connection(("marked.test", 7000), 30).recv(99))
        sock = socket.create_connection(("marked.test", 7001), 30)
        print(ssl.create_default_context().wrap_socket(sock, server_hostname="marked.test").recv(99))
    """
    assert python(client, code).splitlines() == [
        "b'by a marker\\n'",
        "b'by a marker, in TLS\\n'",
    ]
    assert egress["marked.test:7001"].wait_for_call().sni == "marked.test"


def test_a_raw_route_takes_as_many_connections_as_it_says_and_the_verdict_tells(
    services_image: str,
) -> None:
    ask = "for turn in 1 2 3; do redis-cli -h cache.test PING; done"

    def run() -> None:
        with Egress() as egress:
            answers = sequence(b"+first\r\n", b"+second\r\n")
            route = egress.intercept_tcp("cache.test:6379", answers)
            result = egress.run(services_image, ["sh", "-c", ask], check=False)
            assert result.stdout.split()[:2] == ["first", "second"]
            assert route.call_count == 2

    with pytest.raises(UnroutedError, match=r"sequence\(\.\.\.\): it has ended, after 2 answers"):
        run()


@pytest.mark.parametrize("kind", [LookupError, ConnectionRefusedError])
def test_what_a_raw_handler_raises_fails_the_test(
    services_image: str, kind: type[Exception]
) -> None:
    def run() -> None:
        with Egress() as egress:

            @egress.intercept_tcp("cache.test:6379")
            def cache(sock: socket.socket) -> None:
                raise kind("of the handler's own")

            assert (
                egress.run(services_image, "redis-cli -h cache.test PING", check=False).exit_code
                != 0
            )

    with pytest.raises(HandlerError, match=r"cache\.test:6379") as failure:
        run()
    assert isinstance(failure.value.__cause__, kind)


# TLS with bytes in it.

S_CLIENT = "echo hello | openssl s_client -quiet -verify_return_error {}"


def test_bytes_in_tls_come_from_a_handler_under_a_verified_leaf(
    egress: Egress, client: Container
) -> None:
    @egress.intercept_tls("raw.test:7000")
    def handler(sock: ssl.SSLSocket) -> None:
        sock.sendall(sock.recv(99).upper())

    where = "-connect raw.test:7000 -servername raw.test -verify_hostname raw.test"
    result = client.exec(["sh", "-c", S_CLIENT.format(where)])
    assert succeed(result) == "HELLO"
    call = only_connection(handler)
    assert (call.host, call.port, call.sni) == ("raw.test", 7000, "raw.test")


@pytest.mark.parametrize(
    ("literal", "address"), [("192.0.2.7", "192.0.2.7"), ("[2001:db8::7]", "2001:db8::7")]
)
def test_bytes_in_tls_come_to_an_address_without_a_server_name(
    egress: Egress, client: Container, literal: str, address: str
) -> None:
    @egress.intercept_tls(f"{literal}:7000")
    def handler(sock: ssl.SSLSocket) -> None:
        sock.sendall(sock.recv(99).upper())

    where = f"-noservername -connect {literal}:7000 -verify_ip {address}"
    assert succeed(client.exec(["sh", "-c", S_CLIENT.format(where)])) == "HELLO"
    call = only_connection(handler)
    assert (call.host, call.sni) == (address, None)


# HTTP and HTTPS wherever they are.


@pytest.mark.parametrize("literal", ["192.0.2.7", "[2001:db8::7]"])
@pytest.mark.parametrize("port", [443, 8443])
def test_https_by_an_address_is_verified_on_any_port(
    egress: Egress, client: Container, literal: str, port: int
) -> None:
    route = egress.intercept_https(f"{literal}:{port}", {"at": port})
    answer = succeed(client.exec(["curl", "-fsSg", f"https://{literal}:{port}/"]))
    assert json.loads(answer) == {"at": port}
    request = route.assert_called_once().request
    assert (request.sni, request.host) == (None, literal.strip("[]"))


def test_https_and_http_are_found_on_any_port(egress: Egress, client: Container) -> None:
    egress.intercept_https("api.test:8443", {"scheme": "https"})
    egress.intercept_http("api.test:8080", {"scheme": "http"})
    egress.intercept_http("api.test:25", {"scheme": "http, 25"})
    urls = ("https://api.test:8443/", "http://api.test:8080/", "http://api.test:25/")
    answers = [json.loads(succeed(client.exec(["curl", "-fsS", url]))) for url in urls]
    assert [answer["scheme"] for answer in answers] == ["https", "http", "http, 25"]
    assert [exchange.request.url for exchange in egress.exchanges] == list(urls)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_host_that_is_another_is_refused_and_fails_the_test(
    services_image: str, scheme: str
) -> None:
    command = f"curl -sS -w %{{http_code}} -H 'Host: other.test' {scheme}://api.test/"

    def run() -> None:
        with Egress() as egress:
            for host in ("api.test", "other.test"):
                egress.intercept_https(host, optional=True)
                egress.intercept_http(host, optional=True)
            answer = succeed(egress.run(services_image, command))
            assert answer.endswith("421")
            named = ":authority" if scheme == "https" else "Host"
            assert f"its {named} is 'other.test', which is not 'api.test'" in answer
            (exchange,) = egress.exchanges
            assert (exchange.host, exchange.outcome) == ("api.test", "unrouted")
            assert exchange.request.headers["host"] == "other.test"

    with pytest.raises(UnroutedError, match=r"its (Host|:authority) is 'other\.test'"):
        run()


# Changes while a connection is open.


@pytest.mark.egress(unrouted="block")
def test_a_changed_answer_and_a_removal_take_effect_on_a_connection_that_is_open(
    egress: Egress, client: Container
) -> None:
    route = egress.intercept_https("api.test")

    def first(request: Request) -> dict[str, int]:
        route.respond(second)
        return {"turn": 1}

    def second(request: Request) -> dict[str, int]:
        route.respond(third)
        return {"turn": 2}

    async def third(request: Request) -> dict[str, int]:
        route.remove()
        return {"turn": 3}

    route.respond(first)
    code = """
        import http.client
        connection = http.client.HTTPSConnection("api.test", timeout=30)
        for _ in range(4):
            connection.request("GET", "/")
            response = connection.getresponse()
            print(response.status, response.read().decode().partition("\\n")[0])
    """
    assert python(client, code).splitlines() == [
        '200 {"turn": 1}',
        '200 {"turn": 2}',
        '200 {"turn": 3}',
        '502 pytest-egress: GET https://api.test/ is blocked by unrouted="block"',
    ]
    assert len({exchange.request.client for exchange in egress.exchanges}) == 1
    assert [exchange.outcome for exchange in egress.exchanges] == [*["routed"] * 3, "blocked"]
    assert route.call_count == 3


# Scopes.


@pytest.fixture(scope="module")
def shared_routes(module_egress: Egress) -> None:
    """Routes that every test of this module has."""
    module_egress.intercept_https("shared.test", {"by": "the module"})
    module_egress.intercept_tcp("shared.test:7000", b"by the module\n")


def test_a_route_of_the_test_shadows_that_of_the_module(
    egress: Egress, client: Container, shared_routes: None
) -> None:
    code = """
        import json, socket, urllib.request
        print(json.load(urllib.request.urlopen("https://shared.test/"))["by"])
        print(socket.create_connection(("shared.test", 7000), 30).recv(99).decode().strip())
    """
    assert python(client, code).splitlines() == ["the module", "by the module"]
    of_test: list[Route[Any]] = [
        egress.intercept_https("*.test", {"by": "the test"}),
        egress.intercept_tcp("*.test:7000", b"by the test\n"),
    ]
    assert python(client, code).splitlines() == ["the test", "by the test"]
    for route in of_test:
        route.assert_called_once()
        route.remove()
    assert python(client, code).splitlines() == ["the module", "by the module"]


POOL = """
import http.server, redis
cache = redis.Redis(host="cache.test", socket_timeout=30)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = cache.execute_command("WHO")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


def test_what_a_test_let_live_ends_with_it_and_a_pool_reconnects(
    pytester: pytest.Pytester, services_image: str
) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(f"""
        import urllib.request
        import pytest
        from pytest_egress import port_open
        from tests.support.upstreams import speak_redis

        ended = []

        @pytest.fixture(scope="module")
        def shop(module_egress):
            return module_egress.start(
                "{services_image}", ["python3", "/pool.py"], files={{"/pool.py": {POOL!r}}},
                wait=port_open(8080),
            )

        def ask(shop):
            return urllib.request.urlopen(shop.url(8080), timeout=30).read().decode()

        @pytest.mark.parametrize("turn", [1, 2, 3])
        def test_turn(egress, shop, turn):
            assert ended == list(range(1, turn))

            @egress.intercept_tcp("cache.test:6379")
            def cache(sock):
                try:
                    speak_redis(sock, lambda *words: "OK" if words[0] == "CLIENT" else f"turn {{turn}}")
                finally:
                    ended.append(turn)

            assert [ask(shop), ask(shop)] == [f"turn {{turn}}"] * 2
            assert len([entry for entry in egress.ledger if entry.port == 6379]) == 1
    """)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=3)


# Many at once.

CROWD = """
import asyncio, ssl
KINDS = "quick", "slow", "quick-async", "slow-async"
context = ssl.create_default_context()
async def connect(number):
    host = KINDS[number % 4] + ".test"
    return await asyncio.open_connection(host, 443, ssl=context, ssl_handshake_timeout=60)
async def ask(number, reader, writer):
    host = KINDS[number % 4] + ".test"
    head = f"GET /{number} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    return answer.rpartition(b"\\r\\n\\r\\n")[2].decode()
async def main():
    open_ones = await asyncio.gather(*(connect(number) for number in range(200)))
    asked = (ask(number, *streams) for number, streams in enumerate(open_ones))
    print(*await asyncio.gather(*asked))
asyncio.run(main())
"""


def test_of_200_connections_at_once_each_is_answered_and_slow_handlers_delay_no_one(
    egress: Egress, client: Container, background: Background
) -> None:
    quick_ones_answered = threading.Event()

    def quick(request: Request) -> str:
        return request.path[1:]

    async def quick_async(request: Request) -> str:
        return request.path[1:]

    def slow(request: Request) -> str:
        assert quick_ones_answered.wait(60)
        return request.path[1:]

    async def slow_async(request: Request) -> str:
        while not quick_ones_answered.is_set():
            await asyncio.sleep(0.05)
        return request.path[1:]

    handlers: dict[str, HttpHandler] = {
        "quick": quick,
        "slow": slow,
        "quick-async": quick_async,
        "slow-async": slow_async,
    }
    routes = {
        name: egress.intercept_https(f"{name}.test", handler) for name, handler in handlers.items()
    }
    answers = background(CROWD)
    routes["quick"].wait_for_call(50, timeout=60)
    routes["quick-async"].wait_for_call(50, timeout=60)
    assert not any(routes[name].called for name in ("slow", "slow-async"))
    quick_ones_answered.set()
    assert answers.result(60).split() == [str(number) for number in range(200)]
    exchanges = egress.exchanges
    assert len(exchanges) == 200
    assert all(e.response is not None and e.duration is not None for e in exchanges)
    assert {e.outcome for e in exchanges} == {"routed"}
    assert [e.started for e in exchanges] == sorted(e.started for e in exchanges)
    for e in exchanges:
        assert e.response is not None
        assert e.response.text == e.request.path[1:]
    assert [route.call_count for route in routes.values()] == [50] * 4
