"""`pytest-egress record`, with a real upstream: the test that it writes passes without it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler
from typing import Any

import grpc
import pytest
import yaml  # noqa: F401
from websockets.sync.server import serve

import pytest_egress.routes.recordings.turns
import pytest_egress.routes.recordings.websockets  # noqa: F401
from pytest_egress import cli
from tests.support.greeter import pb, pb_grpc
from tests.support.upstreams import Server

# Before pytester takes its snapshot of sys.modules: a second run inside would have other classes of the same names.

KEY = "Zx81-ab-cdef-0123"
ASKS = """
curl -sSf -H "Authorization: Bearer $API_KEY" -d '{"amount": 1}' URL/v1/charges?k=$API_KEY || exit 1
curl -sSf URL/v1/balance || exit 1
python3 -c '
import socket
with socket.create_connection(("db.test", 5432)) as sock:
    sock.sendall(b"hello")
'
exit 3
"""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a real server, which this machine finds by the name api.test."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind = "text/event-stream" if "events" in self.path else "application/json"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            if "/v1/" in self.path:
                self.wfile.write(b'{"from": "upstream"}')
                return
            for number in range(3 if self.path == "/events" else 300):
                try:
                    self.wfile.write(b"id: %d\ndata: {}\n\n" % number)
                except OSError:
                    return
                time.sleep(0.1)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    resolve = socket.getaddrinfo

    def found(host: Any, *args: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host == "api.test" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    # The command reaches no loopback address, and a test no other.
    monkeypatch.setattr("pytest_egress.gateway.upstream.exchange.reserved", lambda address: "")
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield f"http://api.test:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def record(image: str, url: str, pytester: pytest.Pytester, asks: str = ASKS) -> int:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return cli.main(["record", "-e", "API_KEY", image, "sh", "-c", asks.replace("URL", url)])


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", KEY)


def test_what_it_writes_is_a_test_that_passes_without_the_upstream_and_is_never_overwritten(
    clients_image: str, url: str, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record(clients_image, url, pytester) == 0
    said = capsys.readouterr().out
    tape = pytester.path / "cassettes/test_clients/test_clients.yaml"
    test = pytester.path / "test_clients.py"
    written = test.read_text() + tape.read_text()
    assert KEY not in said + written
    assert "from: upstream" in tape.read_text()
    assert "wrote test_clients.py" in said
    assert "wrote cassettes/test_clients/test_clients.yaml: 2 requests" in said
    assert "  without the secret API_KEY, 2 times" in said
    assert "1 attempt not recorded, and refused" in said
    for line in ("assert result.exit_code == 3", 'egress.block("db.test:5432")', "assert_only("):
        assert line in written
    assert record(clients_image, "http://down.test", pytester) == 2
    assert "test_clients.py is there already" in capsys.readouterr().err
    assert test.read_text() + tape.read_text() == written
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_an_upstream_that_is_not_reached_leaves_no_file(
    clients_image: str, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["record", clients_image, "curl", "-sS", "http://127.0.0.1.test:9/"]) == 2
    assert "so nothing is written" in capsys.readouterr().err
    assert not [*pytester.path.rglob("*.yaml"), *pytester.path.rglob("test_*.py")]


def test_one_that_does_not_end_leaves_no_file(
    clients_image: str, url: str, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    asks = f"curl -sS {url}/v1/balance; sleep 600"
    assert cli.main(["record", "--timeout", "3", clients_image, "sh", "-c", asks]) == 2
    assert "still ran after 3 s, so nothing is written" in capsys.readouterr().err
    assert not [*pytester.path.rglob("*.yaml"), *pytester.path.rglob("test_*.py")]


def test_a_body_that_is_left_before_its_end_is_no_recording(
    clients_image: str, url: str, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record(clients_image, url, pytester, "curl -sN -m 1 URL/without-end; exit 0") == 2
    assert "so nothing is written" in capsys.readouterr().err
    assert not [*pytester.path.rglob("*.yaml"), *pytester.path.rglob("test_*.py")]


def test_a_stream_of_events_is_recorded_until_its_client_leaves(
    clients_image: str, url: str, pytester: pytest.Pytester
) -> None:
    asks = "curl -sN -m 1 URL/events-without-end | grep -q '^id: 2'"
    assert record(clients_image, url, pytester, asks) == 0
    text = (pytester.path / "cassettes/test_clients/test_clients.yaml").read_text()
    assert '- {id: "2", json: {}}' in text
    assert '- {id: "200", json: {}}' not in text
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_a_stream_of_events_is_recorded_to_its_end(
    clients_image: str, url: str, pytester: pytest.Pytester
) -> None:
    asks = "curl -sSfN URL/events | grep -c '^id: '; exit $(curl -sSfN URL/events | wc -l)"
    assert record(clients_image, url, pytester, asks) == 0
    text = (pytester.path / "cassettes/test_clients/test_clients.yaml").read_text()
    assert '- {id: "2", json: {}}' in text
    assert "exit_code == 9" in (pytester.path / "test_clients.py").read_text()
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


SPEAKS = """
from websockets.sync.client import connect
with connect("ws://api.test:PORT/prices") as ws:
    ws.send("eur")
    print(ws.recv())
"""
CALLS = """
import grpc, greeter_pb2 as pb, greeter_pb2_grpc as pb_grpc
stub = pb_grpc.GreeterStub(grpc.insecure_channel("api.test:PORT"))
print(stub.Unary(pb.Hello(name="you"), timeout=30).text)
"""


class RealGreeter(pb_grpc.GreeterServicer):  # type: ignore[misc]  # made by protoc, without types
    def Unary(self, request: Any, context: Any) -> Any:
        return pb.Reply(text="hello " + request.name)


def speaking() -> tuple[int, Callable[[], object]]:
    """A real server of WebSockets: its port, and what ends it."""
    server = serve(lambda ws: ws.send(ws.recv().upper()), "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.socket.getsockname()[1], server.shutdown


def calling() -> tuple[int, Callable[[], object]]:
    """The same of gRPC."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    pb_grpc.add_GreeterServicer_to_server(RealGreeter(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return port, lambda: server.stop(0)


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("image", "server", "client", "recorded"),
    [
        ("websocket_image", speaking, SPEAKS, "  messages:\n  - send: eur\n  - receive: EUR\n"),
        ("grpc_image", calling, CALLS, "    grpc: http://api.test:"),
    ],
    ids=["websocket", "grpc"],
)
def test_websockets_and_calls_of_grpc_are_recorded_too(
    request: pytest.FixtureRequest,
    pytester: pytest.Pytester,
    image: str,
    server: Callable[[], tuple[int, Callable[[], object]]],
    client: str,
    recorded: str,
) -> None:
    port, end = server()
    command = ["python3", "-c", client.replace("PORT", str(port))]
    assert cli.main(["record", request.getfixturevalue(image), *command]) == 0
    end()
    (tape,) = pytester.path.rglob("*.yaml")
    assert recorded in tape.read_text()
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
