"""Adapters as handlers, asked by real clients in containers: other servers, other containers, applications."""

from __future__ import annotations

import json
import socket
import textwrap
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from pytest_egress import (
    Egress,
    Request,
    Response,
    asgi,
    forward,
    http_ok,
    port_open,
    sequence,
    wsgi,
)
from pytest_egress.targets.handle import Container
from pytest_egress.traffic.entries import DnsQuery, TcpConnection
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


@pytest.fixture(scope="module")
def client(module_egress: Egress, services_image: str) -> Container:
    """A container that waits for commands; each test answers them with routes of its own."""
    return module_egress.start(services_image, ["sleep", "infinity"])


@pytest.fixture(scope="module")
def plain() -> Iterator[Upstream]:
    """A server of plain HTTP on loopback."""
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def other_ca() -> trustme.CA:
    """The authority of the real servers."""
    return trustme.CA()


@pytest.fixture
def upstream(other_ca: trustme.CA, outside: Outside) -> Iterator[Upstream]:
    """A real server at real.test."""
    with Upstream(other_ca.issue_cert("real.test"), outside.listen(0)) as upstream:
        yield upstream


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, other_ca: trustme.CA, tmp_path: Path) -> None:
    """This machine's roots hold the authority of the real servers."""
    path = tmp_path / "roots.pem"
    other_ca.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


def python(client: Container, code: str, *args: str, **env: str) -> str:
    """What a snippet of Python prints inside, stripped; a failure of it is one of the test."""
    command = ["python3", "-c", textwrap.dedent(code), *args]
    return succeed(client.exec(command, env=env))


def redis_cli(client: Container, command: str) -> str:
    return succeed(client.exec(command))


def curl(client: Container, *args: str) -> str:
    return succeed(client.exec(["curl", "-sS", *args]))


# The real upstream.


def test_forward_reaches_the_real_upstream_and_records_what_it_says(
    egress: Egress, services_image: str, upstream: Upstream, outside: Outside, trusted: None
) -> None:
    route = egress.intercept_https(f"real.test:{upstream.port}", forward())
    url = f"https://real.test:{upstream.port}/it?a=1"
    result = outside.near(egress.run, services_image, ["curl", "-fsS", url])
    answer = {"real": "/it?a=1", "host": f"real.test:{upstream.port}"}
    assert json.loads(result.stdout) == answer
    call = route.assert_called_once()
    assert call.response is not None
    assert (call.outcome, call.response.json()) == ("routed", answer)
    assert upstream.asked == ["/it?a=1"]


def test_an_upstream_that_this_machine_does_not_trust_is_refused(
    egress: Egress, services_image: str, upstream: Upstream, outside: Outside
) -> None:
    route = egress.intercept_https(f"real.test:{upstream.port}", forward())
    command = ["curl", "-sS", "-w", "%{http_code}", f"https://real.test:{upstream.port}/"]
    result = outside.near(egress.run, services_image, command)
    assert result.stdout.endswith("502")
    assert "certificate verify failed" in result.stdout
    note = route.assert_called_once().note
    assert note.startswith("no TLS connection to real.test: ")
    assert "certificate verify failed" in note
    assert upstream.asked == []


def test_a_route_that_lets_pass_what_is_already_read_forwards_it(
    egress: Egress, services_image: str, upstream: Upstream, outside: Outside, trusted: None
) -> None:
    where = f"real.test:{upstream.port}"

    @egress.intercept_https(where, times=1)
    def first(request: Request) -> dict[str, str]:
        egress.passthrough(where)
        return {"real": "not yet"}

    code = """
        import http.client, json, sys
        connection = http.client.HTTPSConnection(sys.argv[1], timeout=30)
        for _ in range(2):
            connection.request("GET", "/it")
            print(json.loads(connection.getresponse().read())["real"])
    """
    command = ["python3", "-c", textwrap.dedent(code), where]
    result = outside.near(egress.run, services_image, command)
    assert result.stdout.split("\n") == ["not yet", "/it", ""]
    assert [exchange.outcome for exchange in egress.exchanges] == ["routed", "passthrough"]


# A server of the test's own.


def test_forward_reaches_a_server_of_the_test_under_a_path(
    egress: Egress, client: Container, plain: Upstream
) -> None:
    egress.intercept_https("api.test", forward(f"http://127.0.0.1:{plain.port}/v2"))
    answer = json.loads(curl(client, "https://api.test/orders?id=7"))
    assert answer == {"real": "/v2/orders?id=7", "host": "api.test"}


def test_a_handler_alters_what_the_real_server_says(
    egress: Egress, client: Container, plain: Upstream
) -> None:
    @egress.intercept_https("api.test")
    def altered(request: Request) -> dict[str, Any]:
        answer: dict[str, Any] = request.forward(f"http://127.0.0.1:{plain.port}").json()
        return answer | {"altered": True}

    answer = json.loads(curl(client, "https://api.test/orders"))
    assert answer == {"real": "/orders", "host": "api.test", "altered": True}
    call = altered.assert_called_once()
    assert call.response is not None
    assert call.response.json() == answer


def test_answers_come_in_sequence_to_a_client_that_retries(
    egress: Egress, client: Container, plain: Upstream
) -> None:
    real = forward(f"http://127.0.0.1:{plain.port}")
    route = egress.intercept_https(
        "api.test", sequence(503, Response(429, headers={"Retry-After": "0"}), real, {"id": 1})
    )
    code = """
        import urllib3
        retry = urllib3.Retry(total=5, status_forcelist=[429, 503], backoff_factor=0)
        pool = urllib3.PoolManager(retries=retry)
        for _ in range(2):
            print(pool.request("GET", "https://api.test/charge").data.decode())
    """
    first, second = map(json.loads, python(client, code).splitlines())
    assert (first["real"], second) == ("/charge", {"id": 1})
    statuses = [call.response.status_code for call in route.calls if call.response]
    assert statuses == [503, 429, 200, 200]


def test_what_a_real_server_streams_arrives_as_it_comes(egress: Egress, client: Container) -> None:
    first_seen = threading.Event()

    def stream(sock: socket.socket) -> None:
        sock.recv(9999)
        sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst\n")
        assert first_seen.wait(SECONDS)
        sock.sendall(b"second\n")

    @egress.intercept_https("api.test", path="/seen")
    def seen(request: Request) -> None:
        first_seen.set()

    code = """
        import urllib.request
        answer = urllib.request.urlopen("https://api.test/events", timeout=30)
        print(answer.readline().decode().strip())
        urllib.request.urlopen("https://api.test/seen", timeout=30)
        print(answer.readline().decode().strip())
    """
    with tcp_server(stream) as port:
        events = egress.intercept_https(
            "api.test", forward(f"http://127.0.0.1:{port}"), path="/events"
        )
        assert python(client, code).split() == ["first", "second"]
    call = events.assert_called_once()
    assert call.response is not None
    assert call.response.text == "first\nsecond\n"


def test_bytes_go_to_a_server_of_the_test(egress: Egress, client: Container) -> None:
    def cache(sock: socket.socket) -> None:
        speak_redis(sock, lambda *words: " ".join(words))

    with tcp_server(cache) as port:
        where = forward(f"tcp://127.0.0.1:{port}")
        plain = egress.intercept_tcp("cache.test:6379", where)
        secure = egress.intercept_tls("cache.test:6380", where)
        assert redis_cli(client, "redis-cli -h cache.test GET a") == "GET a"
        ask = "redis-cli -h cache.test -p 6380 --tls --sni cache.test GET b"
        assert redis_cli(client, ask) == "GET b"
    assert only_connection(plain).received == len("+GET a\r\n")
    assert only_connection(secure).sni == "cache.test"


# A container of the test's own.

APP = """
import http.server, redis
cache = redis.Redis(host="cache.internal")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        cache.ping()
        self.answer(b"ready")
    def do_POST(self):
        self.answer(b"%d" % cache.incr("orders"))
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def redis(module_egress: Egress, services_image: str) -> Container:
    """A database in a container of its own, that the module's containers reach by name."""
    redis = module_egress.start(
        services_image, ["redis-server", "--save", ""], wait=port_open(6379)
    )
    module_egress.intercept_tcp("cache.internal:6379", forward(redis, 6379))
    return redis


@pytest.fixture(scope="module")
def shop(module_egress: Egress, services_image: str, redis: Container) -> Container:
    """A service that needs the database to be ready."""
    return module_egress.start(
        services_image,
        ["python3", "/app.py"],
        files={"/app.py": APP},
        wait=http_ok(8080, "/health"),
    )


@pytest.mark.parametrize("orders", [1, 2])
def test_a_service_and_its_database_are_shared_by_the_tests_of_a_module(
    egress: Egress, shop: Container, redis: Container, orders: int
) -> None:
    succeed(redis.exec(f"redis-cli SET orders {orders * 10}"))
    with urllib.request.urlopen(shop.url(8080, "/orders"), data=b"{}", timeout=30) as answer:
        assert answer.read() == b"%d" % (orders * 10 + 1)
    assert not egress.ledger  # the connection of its pool is the module's, and still open
    assert succeed(redis.exec("redis-cli GET orders")) == str(orders * 10 + 1)
    egress.assert_only("cache.internal:6379")


def test_one_target_reaches_another_by_a_name(
    egress: Egress, client: Container, redis: Container
) -> None:
    succeed(client.exec("redis-cli -h cache.internal SET greeting hello"))
    code = """
        import redis
        cache = redis.Redis(host="cache.internal", socket_timeout=30)
        cache.set("big", bytes(range(256)) * 8192)
        print(cache.get("greeting"), cache.get("big") == bytes(range(256)) * 8192)
    """
    assert python(client, code) == "b'hello' True"
    assert succeed(redis.exec("redis-cli GET greeting")) == "hello"
    first, second = (e for e in egress.ledger if isinstance(e, TcpConnection))
    assert {entry.outcome for entry in (first, second)} == {"routed"}
    assert {entry.container for entry in (first, second)} == {client.name}
    assert eventually(lambda: second.duration is not None)
    assert second.sent > 2 * 1024 * 1024
    assert second.received > 2 * 1024 * 1024


def test_requests_go_to_a_target_too(egress: Egress, client: Container, shop: Container) -> None:
    route = egress.intercept_https("shop.internal", forward(shop, 8080))
    assert curl(client, "https://shop.internal/health") == "ready"
    request = route.assert_called_once().request
    assert (request.container, request.headers["host"]) == (client.name, "shop.internal")


@pytest.mark.egress(unrouted="block")
def test_neither_of_two_targets_has_a_way_out(
    egress: Egress, client: Container, redis: Container
) -> None:
    for target in (client, redis):
        assert "is blocked" in curl(target, "http://192.0.2.1/")
    refused = [e for e in egress.ledger if not isinstance(e, DnsQuery)]
    assert [(e.container, e.outcome) for e in refused] == [
        (client.name, "blocked"),
        (redis.name, "blocked"),
    ]


def test_a_target_that_is_forwarded_to_and_does_not_listen_is_a_note(
    egress: Egress, client: Container, redis: Container
) -> None:
    route = egress.intercept_tcp("closed.internal", forward(redis, 6380))
    code = """
        import socket
        sock = socket.socket()
        sock.settimeout(30)
        try:
            sock.connect(("closed.internal", 6379))
            sock.recv(99)
        except ConnectionResetError:
            print("reset")
    """
    assert python(client, code) == "reset"
    note = only_connection(route).note
    assert note.startswith(f"port 6380 of {redis.name} cannot be reached: ")


# Applications.


def test_a_flask_application_answers(egress: Egress, client: Container) -> None:
    import flask

    app = flask.Flask("shop")

    @app.post("/orders/<sku>")
    def order(sku: str) -> dict[str, Any]:
        return {"sku": sku, "json": flask.request.get_json(), "url": flask.request.url}

    route = egress.intercept_https("api.test", wsgi(app))
    send = ["-H", "Content-Type: application/json", "-d", '{"count": 2}']
    answer = json.loads(curl(client, *send, "https://api.test/orders/7?a=1"))
    assert answer == {"sku": "7", "json": {"count": 2}, "url": "https://api.test/orders/7?a=1"}
    assert curl(client, "-o/dev/null", "-w%{http_code}", "https://api.test/none") == "404"
    assert [call.request.path for call in route.calls] == ["/orders/7", "/none"]


def test_a_starlette_application_answers(egress: Egress, client: Container) -> None:
    from starlette.applications import Starlette
    from starlette.requests import Request as StarletteRequest
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route

    async def order(request: StarletteRequest) -> JSONResponse:
        answer = {"sku": request.path_params["sku"], "json": await request.json()}
        return JSONResponse(answer | {"url": str(request.url)}, status_code=201)

    async def lines(request: StarletteRequest) -> StreamingResponse:
        async def pieces() -> Any:
            for number in range(3):
                yield f"line {number}\n"

        return StreamingResponse(pieces())

    routes = [Route("/orders/{sku}", order, methods=["POST"]), Route("/lines", lines)]
    route = egress.intercept_https("api.test", asgi(Starlette(routes=routes)))
    send = ["-H", "Content-Type: application/json", "-d", '{"count": 2}']
    answer = json.loads(curl(client, *send, "https://api.test/orders/7?a=1"))
    assert answer == {"sku": "7", "json": {"count": 2}, "url": "https://api.test/orders/7?a=1"}
    assert curl(client, "https://api.test/lines").splitlines() == ["line 0", "line 1", "line 2"]
    statuses = [call.response.status_code for call in route.calls if call.response]
    assert statuses == [201, 200]


AWS = {
    "AWS_ACCESS_KEY_ID": "of-a-test",
    "AWS_SECRET_ACCESS_KEY": "of-a-test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
BUCKET = """
import boto3, sys
s3, bucket = boto3.client("s3"), sys.argv[1]
s3.create_bucket(Bucket=bucket)
s3.put_object(Bucket=bucket, Key="2026/7.txt", Body=b"paid" * 1000)
print(bucket in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]])
print([item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]])
print(s3.get_object(Bucket=bucket, Key="2026/7.txt")["Body"].read() == b"paid" * 1000)
try:
    s3.get_object(Bucket=bucket, Key="none")
except s3.exceptions.NoSuchKey as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [("legacy", "s3.amazonaws.com"), ("regional", "s3.us-east-1.amazonaws.com")],
)
def test_boto3_reaches_moto_at_the_names_of_aws(
    egress: Egress, client: Container, endpoint: str, host: str
) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    app = DomainDispatcherApplication(create_backend_app)
    aws = egress.intercept_https("*.amazonaws.com", wsgi(app))
    bucket = f"receipts-{endpoint}"
    output = python(client, BUCKET, bucket, **AWS, AWS_S3_US_EAST_1_REGIONAL_ENDPOINT=endpoint)
    assert output.splitlines() == ["True", "['2026/7.txt']", "True", "NoSuchKey"]
    assert {call.request.host for call in aws.calls} == {host, f"{bucket}.{host}"}
    put = aws.assert_any_call(method="PUT", path="/2026/7.txt")
    assert b"paid" * 1000 in put.request.content
    egress.assert_only("*.amazonaws.com")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_a_server_that_never_answers_holds_up_no_client_that_has_left(
    egress: Egress, services_image: str, version: str, scheme: str
) -> None:
    """Nor does one that never shakes hands."""
    ended = threading.Event()

    def serve(sock: socket.socket) -> None:
        while sock.recv(65536):
            pass
        ended.set()

    with tcp_server(serve) as port:
        route = egress.intercept_http("api.test", forward(f"{scheme}://127.0.0.1:{port}"))
        container = egress.start(services_image, f"curl {version} --max-time 3 http://api.test/")
        assert container.wait().exit_code == 28  # curl's own timeout
        assert ended.wait(SECONDS)
    call = route.assert_called_once()
    assert call.error is None
    ended_by = "pytest-egress ended the" if version == "--http1.1" else "the client closed before"
    assert call.note.startswith(ended_by)  # and not the server, by a time-out of ours
