"""Faults of raw routes and of WebSockets, as clients in containers see them, over either link."""

from __future__ import annotations

import contextlib
import json
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_egress import (
    Egress,
    WebSocket,
    delayed,
    disconnect,
    forward,
    log_line,
    raw,
    reset,
    sequence,
    silence,
    throttled,
    truncated,
    websocket,
)
from pytest_egress.session import Session
from pytest_egress.targets.handle import Container
from tests.support.project import ROOT

LINKS = ["descriptor", "stream"]
Postgres = runpy.run_path(str(ROOT / "examples/test_postgres.py"))["Postgres"]
"""The server of the example, a handler of the socket."""


@dataclass
class ClientsOverLink:
    """An egress over one link, and containers that wait for commands. Each test has host names of its own.

    Attributes:
        services: Has clients of databases, and Redis.
    """

    egress: Egress
    services: Container

    def python(self, code: str, *arguments: str) -> str:
        result = self.services.exec(["python3", "-c", code, *arguments])
        assert result.exit_code == 0, result.stdout + result.stderr
        return result.stdout


@pytest.fixture(scope="module", params=LINKS)
def scene(request: pytest.FixtureRequest, services_image: str) -> Iterator[ClientsOverLink]:
    session = Session(link=request.param)
    with contextlib.closing(session), Egress(session=session) as egress:
        yield ClientsOverLink(egress, egress.start(services_image, ["sleep", "infinity"]))


# What a bare socket sees.

ASK = """
import json, socket, ssl, sys

def outcome(host):
    data, end = b"", None
    try:
        sock = socket.create_connection((host, 5432), timeout=60)
        if host.startswith("tls-"):
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        try:
            sock.sendall(b"startup")
        except OSError:  # the RST is here already: TLS has another error for it, and what came before can be read
            end = "ConnectionResetError"
        if host.endswith("silent.test"):
            sock.settimeout(1)
        while piece := sock.recv(100):
            data += piece
    except Exception as error:
        end = end or type(error).__name__
    return [end or "closed", data.decode()]

print(json.dumps({host: outcome(host) for host in sys.argv[1:]}))
"""


def refuse_greeting(sock: Any) -> object:
    """Greet, and reset."""
    sock.sendall(b"220 ready")
    return reset()


def greet(sock: Any) -> None:
    """Greet, and wait for the client's end."""
    sock.sendall(b"220 ready")
    while sock.recv(100):
        pass


SEEN: dict[str, tuple[Any, list[str]]] = {
    "reset": (reset(), ["ConnectionResetError", ""]),
    "disconnect": (disconnect(), ["closed", ""]),
    "last-words": (disconnect(b"FATAL"), ["closed", "FATAL"]),
    "raw": (raw(b"GARBAGE"), ["closed", "GARBAGE"]),
    "silent": (silence(), ["TimeoutError", ""]),
    "brief": (silence(0.1), ["closed", ""]),
    "short": (truncated(b"220 ready", 4), ["closed", "220 "]),
    "short-reset": (truncated(b"220 ready", 4, reset=True), ["ConnectionResetError", "220 "]),
    "short-handler": (truncated(greet, 4), ["closed", "220 "]),
    "short-handler-reset": (truncated(greet, 4, reset=True), ["ConnectionResetError", "220 "]),
    "slow": (disconnect(throttled(delayed(b"220 ready", 0.1), 100)), ["closed", "220 ready"]),
    "returned": (refuse_greeting, ["ConnectionResetError", "220 ready"]),
}


@pytest.mark.parametrize("layer", ["", "tls-"], ids=["tcp", "tls"])
def test_each_fault_is_seen_as_what_it_is(scene: ClientsOverLink, layer: str) -> None:
    declare = scene.egress.intercept_tls if layer else scene.egress.intercept_tcp
    hosts = {f"{layer}{name}.test": name for name in SEEN}
    routes = {host: declare(f"{host}:5432", SEEN[name][0]) for host, name in hosts.items()}
    seen = json.loads(scene.python(ASK, *hosts))
    assert seen == {host: SEEN[name][1] for host, name in hosts.items()}
    for host, route in routes.items():
        call = route.assert_called_once()
        fault = SEEN[hosts[host]][0]
        assert call.fault == (reset() if fault is refuse_greeting else fault)


WAIT = """
import socket
for seconds in (0, 2):
    sock = socket.create_connection(("mail-waits.test", 25))
    sock.settimeout(seconds or 60)
    try:
        print(sock.recv(100) if seconds else "probe")
    except TimeoutError:
        print("gave up")
    sock.close()
sock = socket.create_connection(("mail-waits.test", 25))
print(sock.recv(100))
"""


def test_a_client_that_waits_for_a_greeting_is_a_call_and_a_port_probe_is_none(
    scene: ClientsOverLink,
) -> None:
    route = scene.egress.intercept_tcp("mail-waits.test:25", sequence(silence(), b"220 ready"))
    assert scene.python(WAIT).splitlines() == ["probe", "gave up", "b'220 ready'"]
    assert [str(call.fault) for call in route.calls] == ["silence()", "None"]


# Databases.

CONNECT = """
import psycopg, sys
for attempt in range(1, 6):
    try:
        with psycopg.connect(f"host={sys.argv[1]} user=shop sslmode=verify-full sslrootcert=system") as db:
            print(attempt, db.execute("SELECT 1 AS one").fetchone())
        break
    except psycopg.OperationalError as error:
        print(attempt, "down")
"""
ROWS = {"SELECT 1 AS one": [{"one": 1}]}


def test_a_postgres_that_comes_up_at_the_third_try(scene: ClientsOverLink) -> None:
    # The name has an IPv4 and an IPv6 address, and psycopg tries both.
    answers = sequence(reset(), reset(), disconnect(), disconnect(), Postgres(ROWS))
    route = scene.egress.intercept_tcp("db-third.test:5432", answers)
    said = scene.python(CONNECT, "db-third.test").splitlines()
    assert said == ["1 down", "2 down", "3 (1,)"]
    *failed, answered = route.calls
    assert [str(call.fault) for call in failed] == ["reset()"] * 2 + ["disconnect()"] * 2
    assert len({call.address for call in failed}) == 2
    assert (answered.fault, answered.tls is not None) == (None, True)


def test_a_postgres_that_is_slow_speaks_tls_all_the_same(scene: ClientsOverLink) -> None:
    slow = throttled(delayed(Postgres(ROWS), 0.02), 100_000)
    route = scene.egress.intercept_tcp("db-slow.test:5432", slow)
    assert scene.python(CONNECT, "db-slow.test") == "1 (1,)\n"
    assert route.wait_for_call().tls is not None  # it is counted when the handler has ended


POOL = """
import redis, sys
from redis.backoff import NoBackoff
from redis.retry import Retry
cache = redis.Redis(host=sys.argv[1], retry=Retry(NoBackoff(), 3), retry_on_error=[redis.ConnectionError])
for number in range(20):
    cache.set(f"{sys.argv[1]}-{number}", number)
print(sum(int(cache.get(f"{sys.argv[1]}-{number}")) for number in range(20)))
"""


def test_a_pool_reconnects_to_a_server_whose_connections_break(
    scene: ClientsOverLink, services_image: str
) -> None:
    command = ["redis-server", "--protected-mode", "no", "--save", ""]
    server = scene.egress.start(services_image, command, wait=log_line("Ready to accept"))
    redis = forward(server, 6379)
    answers = sequence(
        truncated(redis, 33),
        truncated(redis, 60, reset=True),
        delayed(throttled(redis, 100_000), 0.005),
    )
    route = scene.egress.intercept_tcp("cache.test:6379", answers)
    assert scene.python(POOL, "cache.test") == "190\n"
    assert [call.received for call in route.calls[:2]] == [33, 60]
    assert route.calls[2].received > 100


# WebSockets.

PYTHON = """
import sys
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
for url in sys.argv[1:]:
    with connect(url, close_timeout=0.5) as ws:
        try:
            while True:
                print(ws.recv(0.5 if "hush" in url else 60))
        except TimeoutError:
            print("silence")
        except ConnectionClosed as error:
            print(1006 if error.rcvd is None else error.rcvd.code)
"""
NODE = """
const WebSocket = require("ws");
function next(urls) {
  if (!urls.length) return;
  const ws = new WebSocket(urls[0]);
  ws.on("message", data => console.log(`${data}`));
  ws.on("close", code => {
    console.log(code);
    next(urls.slice(1));
  });
  ws.on("error", () => {});
}
next(process.argv.slice(1));
"""
CLIENTS = {"python": ["python3", "-c", PYTHON], "node": ["node", "-e", NODE]}


def say_and_reset(ws: WebSocket) -> object:
    """Send a message, and reset."""
    ws.send("hello")
    return reset()


FAILING: dict[str, tuple[Any, list[str]]] = {
    "reset": (websocket(say_and_reset), ["hello", "1006"]),
    "disconnect": (websocket(disconnect()), ["1006"]),
    "cut": (truncated(websocket(lambda ws: ws.send("hello")), 3), ["1006"]),
    "late": (delayed(websocket(lambda ws: ws.close(4001)), 0.1), ["4001"]),
    "slow": (throttled(websocket(lambda ws: ws.send("x" * 20)), 100), ["x" * 20, "1000"]),
}


@pytest.fixture(scope="module")
def browser(scene: ClientsOverLink, websocket_image: str) -> Container:
    """A container with clients of WebSockets."""
    return scene.egress.start(websocket_image, ["sleep", "infinity"])


@pytest.mark.parametrize("scheme", ["wss", "ws"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_websocket_ends_without_a_close_frame(
    scene: ClientsOverLink, browser: Container, client: str, scheme: str
) -> None:
    declare = scene.egress.intercept_https if scheme == "wss" else scene.egress.intercept_http
    hosts = {f"{client}-{scheme}-{name}.test": name for name in FAILING}
    routes = [declare(host, FAILING[name][0]) for host, name in hosts.items()]
    result = browser.exec([*CLIENTS[client], *(f"{scheme}://{host}/" for host in hosts)])
    wanted = [line for name in hosts.values() for line in FAILING[name][1]]
    assert (result.stdout.splitlines(), result.exit_code) == (wanted, 0), result.stderr
    assert all(route.assert_called_once().fault is not None for route in routes)


def test_a_websocket_falls_silent(scene: ClientsOverLink, browser: Container) -> None:
    route = scene.egress.intercept_https("hush.test", websocket(silence()))
    result = browser.exec([*CLIENTS["python"], "wss://hush.test/"])
    assert result.stdout == "silence\n"
    assert route.assert_called_once().fault == silence()


def test_what_is_silent_keeps_no_test_waiting(services_image: str) -> None:
    with contextlib.closing(Session()) as session, Egress(session=session) as egress:
        route = egress.intercept_tcp("hush.test:5432", silence())
        code = "import socket; socket.create_connection(('hush.test', 5432)).recv(1)"
        container = egress.start(services_image, ["python3", "-c", code])
        route.wait_for_call(timeout=60)
        with pytest.raises(
            Exception, match=r"It still waited for:\n  TCP hush.test:5432 .*-> silence\(\)"
        ):
            container.wait(timeout=0.5)
