"""Routes of every kind, dialled by real clients in real containers: raw bytes, TLS, what passes, names, crowds."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import trustme

from pytest_egress import (
    Egress,
    HandlerError,
    Request,
    Route,
    UnroutedError,
    forward,
    sequence,
)
from pytest_egress.routes.answers import HttpHandler
from pytest_egress.targets.handle import Container
from pytest_egress.traffic.dns_answers import NamesAnswer
from pytest_egress.traffic.entries import DnsQuery, Entry, TcpConnection
from tests.support.outside import Outside
from tests.support.stage import eventually
from tests.support.upstreams import (
    SECONDS,
    Upstream,
    only_connection,
    speak_redis,
    succeed,
    tcp_server,
)

OTHER_CA = "/other-ca.pem"


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
def upstream(other_ca: trustme.CA, outside: Outside) -> Iterator[Upstream]:
    """A real server at real.test."""
    with Upstream(other_ca.issue_cert("real.test"), outside.listen(0)) as upstream:
        yield upstream


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the client to speak first waits for longer than a test may take."""
    monkeypatch.setattr("pytest_egress.gateway.dispatch.FIRST_BYTE_SECONDS", 600.0)


Background = Callable[..., Future[str]]


@pytest.fixture
def background(client: Container) -> Iterator[Background]:
    """Runs a snippet in the container while the test goes on."""
    with ThreadPoolExecutor() as pool:
        yield lambda code, *args: pool.submit(python, client, code, *args)


def python(client: Container, code: str, *args: str) -> str:
    """What a snippet of Python prints inside, stripped; a failure of it is one of the test."""
    return succeed(client.exec(["python3", "-c", textwrap.dedent(code), *args]))


def attempts(egress: Egress, kind: type[Entry]) -> list[Any]:
    return [entry for entry in egress.ledger if isinstance(entry, kind)]


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

    result = client.exec(command)
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
            result = egress.run(services_image, ["sh", "-c", ask])
            assert result.stdout.split()[:2] == ["first", "second"]
            assert route.call_count == 2

    with pytest.raises(UnroutedError, match="times: it has answered 2 of 2"):
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

            assert egress.run(services_image, "redis-cli -h cache.test PING").exit_code != 0

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
            assert "its Host is 'other.test', which is not 'api.test'" in answer
            (exchange,) = egress.exchanges
            assert (exchange.host, exchange.outcome) == ("api.test", "unrouted")
            assert exchange.request.headers["host"] == "other.test"

    with pytest.raises(UnroutedError, match=r"its Host is 'other\.test'"):
        run()


# What passes.

SHOWN_CERTIFICATE = """
import socket, ssl, sys
port, ca = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=ca)
sock = socket.create_connection(("real.test", port), 30)
with context.wrap_socket(sock, server_hostname="real.test") as sock:
    print(ssl.DER_cert_to_PEM_cert(sock.getpeercert(True)))
    sock.sendall(b"GET /it HTTP/1.1\\r\\nHost: real.test\\r\\nConnection: close\\r\\n\\r\\n")
    print(b"".join(iter(lambda: sock.recv(999), b"")).decode())
"""


def test_what_passes_shows_the_certificate_of_the_real_server(
    egress: Egress, client: Container, upstream: Upstream, outside: Outside
) -> None:
    route = egress.passthrough(f"real.test:{upstream.port}")
    output = python(client, SHOWN_CERTIFICATE, str(upstream.port), OTHER_CA)
    shown = output.partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
    real = outside.near(ssl.get_server_certificate, ("real.test", upstream.port))
    assert shown.split() == real.strip().split()
    assert '{"real": "/it"' in output
    entry = only_connection(route)
    assert (entry.host, entry.port, entry.outcome) == ("real.test", upstream.port, "passthrough")
    (only,) = attempts(egress, TcpConnection)
    assert only is entry
    assert entry.sent > 300  # a ClientHello and a request
    assert entry.received > len(real) // 2


@pytest.mark.egress_passthrough("*.test")
def test_a_marker_lets_pass(egress: Egress, client: Container, upstream: Upstream) -> None:
    url = f"https://real.test:{upstream.port}/marked"
    answer = json.loads(succeed(client.exec(["curl", "-fsS", "--cacert", OTHER_CA, url])))
    assert answer == {"real": "/marked", "host": f"real.test:{upstream.port}"}
    egress["*.test"].assert_called_once()


@pytest.mark.egress(unrouted="passthrough")
def test_what_no_route_claims_passes_where_a_marker_says_so(
    egress: Egress, client: Container, upstream: Upstream
) -> None:
    claimed = egress.intercept_https("api.test", {"by": "route"})
    url = f"https://real.test:{upstream.port}/unclaimed"
    assert "/unclaimed" in succeed(client.exec(["curl", "-fsS", "--cacert", OTHER_CA, url]))
    assert "route" in succeed(client.exec("curl -fsS https://api.test/"))
    claimed.assert_called_once()
    (entry,) = attempts(egress, TcpConnection)
    assert (entry.host, entry.outcome, entry.route) == ("real.test", "passthrough", None)


@pytest.mark.parametrize("source", ["option", "environment", "ini"])
def test_what_no_route_claims_passes_where_the_run_says_so(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    services_image: str,
    upstream: Upstream,
    other_ca: trustme.CA,
    outside: Outside,
    source: str,
) -> None:
    ini, args = "[pytest]\nasyncio_default_fixture_loop_scope = function\n", []
    if source == "ini":
        ini += "egress_unrouted = passthrough\n"
    elif source == "environment":
        monkeypatch.setenv("PYTEST_EGRESS_UNROUTED", "passthrough")
    else:
        args = ["--egress-unrouted=passthrough"]
    pytester.makeini(ini)
    pytester.makefile(".pem", other=other_ca.cert_pem.bytes().decode())
    pytester.makepyfile(f"""
        from pathlib import Path
        def test_a(egress):
            command = "curl -fsS --cacert {OTHER_CA} https://real.test:{upstream.port}/inner"
            files = {{"{OTHER_CA}": Path("other.pem")}}
            egress.run("{services_image}", command, files=files, check=True)
            assert [entry.outcome for entry in egress.ledger[-1:]] == ["passthrough"]
    """)
    result = outside.near(pytester.runpytest_subprocess, "-p", "no:cacheprovider", *args)
    result.assert_outcomes(passed=1)
    assert upstream.asked == ["/inner"]


@pytest.mark.egress(unrouted="block")
def test_after_its_removal_a_route_lets_nothing_pass_and_cuts_what_is_open(
    egress: Egress, client: Container, background: Background, outside: Outside
) -> None:
    def answer(sock: socket.socket) -> None:
        while data := sock.recv(99):
            sock.sendall(data.upper())

    with tcp_server(answer, outside.listen(0)) as port:
        route = egress.passthrough(f"real.test:{port}")
        open_one = background(CUT, "real.test", str(port))
        route.wait_for_call(timeout=SECONDS)
        (entry,) = attempts(egress, TcpConnection)
        assert eventually(lambda: entry.received == 5)
        route.remove()
        assert open_one.result(SECONDS).split() == ["FIRST", "cut", "cut"]
    passed, refused = attempts(egress, TcpConnection)
    assert (passed.outcome, passed.sent, passed.received) == ("passthrough", 5, 5)
    assert (refused.outcome, refused.first_bytes) == ("blocked", b"\0\1\2")


CUT = """
import socket, sys
where = sys.argv[1], int(sys.argv[2])
sock = socket.create_connection(where, 30)
sock.sendall(b"first")
print(sock.recv(99).decode())
try:
    print(sock.recv(99).decode() or "cut")
except ConnectionResetError:
    print("cut")
sock = socket.create_connection(where, 30)
sock.sendall(bytes([0, 1, 2]))
try:
    print(sock.recv(99).decode() or "ended")
except ConnectionResetError:
    print("cut")
"""


def test_a_server_that_speaks_first_passes_and_half_closing_does_too(
    egress: Egress, client: Container, outside: Outside, no_wait: None
) -> None:
    def answer(sock: socket.socket) -> None:
        sock.sendall(b"ready ")
        received = b"".join(iter(lambda: sock.recv(999), b""))
        sock.sendall(b"got %d" % len(received))

    code = """
        import socket, sys
        sock = socket.create_connection(("real.test", int(sys.argv[1])), 30)
        print(sock.recv(99).decode())
        sock.sendall(bytes(500_000))
        sock.shutdown(socket.SHUT_WR)
        print(b"".join(iter(lambda: sock.recv(99), b"")).decode())
    """
    with tcp_server(answer, outside.listen(0)) as port:
        route = egress.passthrough("real.test")
        assert python(client, code, str(port)).split() == ["ready", "got", "500000"]
    entry = only_connection(route)
    assert (entry.sent, entry.received) == (500_000, len("ready got 500000"))


@pytest.mark.egress(unrouted="passthrough")
def test_what_is_blocked_does_not_pass(
    egress: Egress, client: Container, upstream: Upstream
) -> None:
    egress.block("real.test")
    url = f"https://real.test:{upstream.port}/"
    assert "is blocked by block" in succeed(client.exec(["curl", "-sS", url]))
    assert upstream.asked == []
    (exchange,) = egress.exchanges
    assert exchange.outcome == "blocked"


@pytest.mark.parametrize("name", ["own.test", "near.test"])
@pytest.mark.parametrize("how", ["passthrough", "forward"])
def test_what_lets_any_host_through_reaches_no_service_of_this_machine(
    egress: Egress, client: Container, outside: Outside, name: str, how: str
) -> None:
    with outside.near(socket.create_server, ("0.0.0.0", 0)) as service:
        port = service.getsockname()[1]
        url = f"http://{name}:{port}/"
        if how == "passthrough":
            egress.passthrough("*")
        else:
            egress.intercept_http(f"*:{port}", forward())
        answer = client.exec(["curl", "-4", "-sS", url])
        service.settimeout(0)
        with pytest.raises(BlockingIOError):
            service.accept()
    (entry,) = (entry for entry in egress.ledger if not isinstance(entry, DnsQuery))
    assert entry.note.startswith(f"{name}:{port} is not reached: ")
    assert answer.exit_code != 0 or entry.note in answer.stdout


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


# What no route claims.

BOTH = """
curl -sS https://other.test/it
python3 -c 'import socket; s = socket.create_connection(("other.test", 7000)); s.sendall(bytes(3)); s.recv(9)'
"""


def test_what_no_route_claims_fails_by_default(services_image: str) -> None:
    def run() -> None:
        with Egress() as egress:
            result = egress.run(services_image, ["sh", "-c", BOTH])
            assert 'intercept_https("other.test", method="GET", path="/it")' in result.stdout
            assert "Connection reset by peer" in result.stderr
            outcomes = [e.outcome for e in egress.ledger if not isinstance(e, DnsQuery)]
            assert outcomes == ["unrouted", "unrouted"]

    with pytest.raises(UnroutedError) as failure:
        run()
    assert "GET https://other.test/it" in str(failure.value)
    assert "TCP other.test:7000" in str(failure.value)


@pytest.mark.egress(unrouted="block")
def test_what_no_route_claims_may_be_refused_without_failing(
    egress: Egress, client: Container
) -> None:
    result = client.exec(["sh", "-c", BOTH])
    assert 'is blocked by unrouted="block"' in result.stdout
    assert "Connection reset by peer" in result.stderr
    outcomes = [e.outcome for e in egress.ledger if not isinstance(e, DnsQuery)]
    assert outcomes == ["blocked", "blocked"]


@pytest.mark.egress(unrouted="passthrough")
def test_an_upstream_that_cannot_be_reached_is_a_note_in_the_ledger(
    egress: Egress, client: Container, outside: Outside
) -> None:
    with outside.listen(0) as unused:
        port = unused.getsockname()[1]
    assert client.exec(f"curl -4 -sS https://real.test:{port}/").exit_code != 0
    (entry,) = attempts(egress, TcpConnection)
    assert entry.outcome == "passthrough"
    assert entry.note.startswith(f"real.test:{port} cannot be reached: ")


# Names, as the container's own libc sees them.

LOOK_UP = """
import socket, sys
for name in sys.argv[1:]:
    try:
        found = socket.getaddrinfo(name, 5432, type=socket.SOCK_STREAM)
        print(*sorted(where[0] for *_, where in found))
    except socket.gaierror as error:
        names = "EAI_AGAIN", "EAI_NONAME", "EAI_NODATA", "EAI_FAIL"
        print(*(name for name in names if getattr(socket, name) == error.errno))
"""


def look_up(client: Container, *names: str, **env: str) -> list[str]:
    """What getaddrinfo says of each name: its addresses, or the name of the error."""
    command = ["python3", "-c", LOOK_UP, *names]
    return succeed(client.exec(command, environment=env)).splitlines()


def synthetic(found: str) -> bool:
    return bool(re.fullmatch(r"198\.18\.\d+\.\d+ fd00:198:18::[0-9a-f]+", found))


def test_every_name_resolves_by_default(egress: Egress, client: Container) -> None:
    found = look_up(client, "a.test", "b.test", "a.test")
    assert all(synthetic(each) for each in found)
    assert found[0] == found[2] != found[1]


@pytest.mark.egress(dns="strict", unrouted="block")
def test_strict_names_resolve_only_where_a_route_names_them(
    egress: Egress, client: Container
) -> None:
    egress.intercept_https("api.test:8443", optional=True)
    egress.intercept_tcp("*.cache.test:6379", optional=True)
    egress.block("telemetry.test")
    given = egress.dns("given.test", "192.0.2.20")
    names = ("api.test", "one.cache.test", "telemetry.test", "given.test", "typo.test")
    *declared, given_one, undeclared = look_up(client, *names)
    assert all(synthetic(each) for each in declared)
    assert (given_one, undeclared) == ("192.0.2.20", "EAI_NONAME")
    assert {query.host for query in given.calls} == {"given.test"}
    found = {(query.host, query.rcode, query.outcome) for query in attempts(egress, DnsQuery)}
    assert ("typo.test", "NXDOMAIN", "blocked") in found
    assert ("api.test", "NOERROR", "recorded") in found


ALL = ["192.0.2.20", "192.0.2.21", "2001:db8::20"]


@pytest.mark.parametrize(
    ("answer", "seen", "rcode"),
    [
        ("192.0.2.20", "192.0.2.20", "NOERROR"),
        ("2001:db8::20", "2001:db8::20", "NOERROR"),
        (ALL, " ".join(ALL), "NOERROR"),
        ([], "EAI_NODATA", "NOERROR"),
        ("NXDOMAIN", "EAI_NONAME", "NXDOMAIN"),
        ("SERVFAIL", "EAI_AGAIN", "SERVFAIL"),
        ("REFUSED", "EAI_AGAIN", "REFUSED"),
        ("silence", "EAI_AGAIN", ""),
    ],
    ids=["A", "AAAA", "both", "none", "NXDOMAIN", "SERVFAIL", "REFUSED", "silence"],
)
def test_a_name_is_answered_as_its_route_says(
    egress: Egress, client: Container, answer: NamesAnswer, seen: str, rcode: str
) -> None:
    route = egress.dns("db.test", answer)
    found, beside = look_up(client, "db.test", "beside.test", RES_OPTIONS="timeout:1 attempts:1")
    assert found == seen
    assert synthetic(beside)
    assert {(call.type, call.rcode) for call in route.calls} == {("A", rcode), ("AAAA", rcode)}


def test_what_dials_an_address_of_a_name_is_matched_by_the_name(
    egress: Egress, client: Container
) -> None:
    egress.dns("db.test", ["192.0.2.20", "2001:db8::20"])
    route = egress.intercept_tcp("db.test:5432", b"by name\n")
    code = """
        import socket
        socket.getaddrinfo("db.test", 5432)
        for address in ("192.0.2.20", "2001:db8::20"):
            print(socket.create_connection((address, 5432), 30).recv(99).decode().strip())
    """
    assert python(client, code).splitlines() == ["by name", "by name"]
    assert [(call.host, call.address) for call in route.calls] == [
        ("db.test", "192.0.2.20"),
        ("db.test", "2001:db8::20"),
    ]


def test_names_that_share_an_address_are_told_apart_by_sni_and_host(
    egress: Egress, client: Container
) -> None:
    egress.dns("*.shared.test", "192.0.2.30")
    for name in ("one", "two"):
        egress.intercept_http(f"{name}.shared.test", {"name": name})
        egress.intercept_https(f"{name}.shared.test", {"name": name})
    code = """
        import http.client, json, socket, ssl
        names = "one.shared.test", "two.shared.test"
        found = {name: socket.gethostbyname(name) for name in names}
        for name in names:
            https = http.client.HTTPSConnection(name, timeout=30)
            sock = socket.create_connection((found[name], 443), 30)
            https.sock = ssl.create_default_context().wrap_socket(sock, server_hostname=name)
            http_ = http.client.HTTPConnection(found[name], timeout=30)
            for connection in (https, http_):
                connection.request("GET", "/", headers={"Host": name})
                print(json.loads(connection.getresponse().read())["name"])
    """
    assert python(client, code).split() == ["one", "one", "two", "two"]


DIAL = """
import socket, sys
print(socket.create_connection((sys.argv[1], 5432), 30).recv(99).decode())
"""


def test_an_address_means_itself_again_after_the_removal_of_the_name_it_was_given_to(
    egress: Egress, client: Container
) -> None:
    names, by_name = egress.dns("db.test", "192.0.2.40"), egress.intercept_tcp("db.test", b"name")
    egress.intercept_tcp("192.0.2.40:5432", b"address")
    assert python(client, DIAL, "db.test") == "name"
    names.remove()
    assert python(client, DIAL, "192.0.2.40") == "address"
    by_name.assert_called_once()


def test_an_address_means_itself_again_in_the_next_test(
    pytester: pytest.Pytester, services_image: str
) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(f"""
        import pytest

        @pytest.fixture(scope="module")
        def dial(module_egress):
            client = module_egress.start("{services_image}", ["sleep", "infinity"])
            return lambda host: client.exec(["python3", "-c", {DIAL!r}, host]).stdout.strip()

        @pytest.mark.egress_dns("db.test", "192.0.2.40")
        @pytest.mark.intercept_tcp("db.test:5432", b"name")
        def test_name(dial):
            assert dial("db.test") == "name"

        @pytest.mark.intercept_tcp("192.0.2.40:5432", b"address")
        def test_address(dial):
            assert dial("192.0.2.40") == "address"
    """)
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


@pytest.mark.egress_dns("*.gone.test", "NXDOMAIN")
@pytest.mark.egress_dns("here.gone.test", "192.0.2.21")
def test_markers_name_too_and_the_exact_name_wins(egress: Egress, client: Container) -> None:
    found = look_up(client, "a.gone.test", "b.c.gone.test", "here.gone.test", "gone.test")
    assert found[:3] == ["EAI_NONAME", "EAI_NONAME", "192.0.2.21"]
    assert synthetic(found[3])


def test_a_name_whose_route_is_removed_resolves_as_others_do(
    egress: Egress, client: Container
) -> None:
    route = egress.dns("db.test", "NXDOMAIN")
    assert look_up(client, "db.test") == ["EAI_NONAME"]
    route.respond("192.0.2.22")
    assert look_up(client, "db.test") == ["192.0.2.22"]
    route.remove()
    (found,) = look_up(client, "db.test")
    assert synthetic(found)


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
