"""Cassettes with real containers: what is recorded of a real upstream, and is replayed without it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler
from typing import Any

import grpc
import pytest
import yaml  # noqa: F401
from websockets.sync.server import ServerConnection, serve

import pytest_egress.cassettes
import pytest_egress.routes.recordings.turns
import pytest_egress.routes.recordings.websockets  # noqa: F401
from tests.support.greeter import pb, pb_grpc
from tests.support.inner_runs import CONFTEST, InnerRun
from tests.support.upstreams import Server

# Before pytester takes its snapshot of sys.modules: a second run inside would have other classes of the same names.

EVENTS = 'event: start\ndata: {"id": "m_1"}\n\ndata: {"delta": "Hel"}\n\ndata: {"delta": "lo"}\n\ndata: [DONE]\n\n'


class Api:
    """A real server at api.test, whose answers count up.

    Attributes:
        asked: Methods and paths, in order.
        is_up: Whether it answers at all.
    """

    def __init__(self) -> None:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer(b"")

            def do_POST(self) -> None:
                self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def answer(self, sent: bytes) -> None:
                asked.append(f"{self.command} {self.path}")
                kind, status, body = "application/json", 200, b""
                if self.path == "/chat":
                    kind, body = "text/event-stream", EVENTS.encode()
                elif self.path == "/moved":
                    status = 302
                else:
                    body = json.dumps({"n": len(asked), "got": sent.decode()}).encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if status == 302:
                    self.send_header("Location", "/done?token=tok_9f8e7d6c5b4a&page=2")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.asked = asked
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.socket.getsockname()[1])
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """The server, which this machine finds by the name api.test."""
    resolve = socket.getaddrinfo

    def found(host: Any, *args: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host == "api.test" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    api = Api()
    yield api
    api.close()


Records = Callable[..., InnerRun]


@pytest.fixture
def inside(pytester: pytest.Pytester, clients_image: str, api: Api) -> Records:
    """Run a module inside, with the image and the port of the real server."""
    pytester.makeconftest(CONFTEST.format(image=clients_image))

    def run(source: str, *args: str) -> InnerRun:
        if source:
            head = (
                f"import pytest\nfrom pytest_egress import *\nURL = 'http://api.test:{api.port}'\n"
            )
            pytester.makepyfile(test_shop=head + source)
        return InnerRun(pytester, *args)

    return run


CHARGE = """
KEY = "sk_test_0123456789abcdef"

def test_charge(egress, image):
    egress.intercept_http(URL.removeprefix("http://"), cassette())
    script = f'''
        curl -sS -H "Authorization: Bearer $STRIPE_KEY" -H "Content-Type: application/json" \\
            -d '{{"amount": 4200}}' {URL}/v1/charges?k=$STRIPE_KEY
        curl -sS {URL}/v1/balance
        curl -sS {URL}/v1/balance
    '''
    print(egress.run(image, ["sh", "-c", script], env={"STRIPE_KEY": KEY}).stdout)
"""


def written(pytester: pytest.Pytester, name: str = "cassettes/test_shop/test_charge.yaml") -> str:
    return pytester.path.joinpath(name).read_text()


def test_what_a_container_asked_is_recorded_without_its_secrets_and_replayed_without_the_server(
    inside: Records, pytester: pytest.Pytester, api: Api
) -> None:
    """Credentials in committed cassettes; and a colleague's key, or "-" in CI, matches."""
    first = inside(CHARGE, "-s", "--egress-record-mode=once")
    first.result.assert_outcomes(passed=1)
    asked, text = [*api.asked], written(pytester)
    assert "0123456789abcdef" not in text
    assert "authorization: Bearer <STRIPE_KEY>" in text
    assert "/v1/charges?k=<STRIPE_KEY>" in text
    assert len(asked) == 3
    again = inside(CHARGE.replace("sk_test_0123456789abcdef", "-"), "-s")
    again.result.assert_outcomes(passed=1)
    assert api.asked == asked
    for answer in ('"n":1', '"n":2', '"n":3'):
        assert answer in again.output.replace(" ", "")


BESIDE = """
@pytest.fixture(scope="module", autouse=True)
def recorded(module_egress):
    module_egress.intercept_http(URL.removeprefix("http://"), cassette())

def test_a(egress, sh):
    own = egress.intercept_http(URL.removeprefix("http://"), {"own": True}, path="/own")
    other = egress.intercept_http("other.test", forward(URL.replace("api.test", "127.0.0.1")))
    print(sh(f"curl -sS {URL}/chat; curl -sS {URL}/own; curl -sS http://other.test/o; curl -sSi {URL}/moved"))
    own.assert_called_once()
    other.assert_called_once()

def test_b(egress, sh):
    assert '"n"' in sh(f"curl -sS {URL}/b")
    (exchange,) = egress.exchanges
    assert exchange.note.endswith("cassettes/test_shop.yaml")
"""


def test_a_shared_container_has_a_cassette_beside_a_handler_and_a_forward(
    inside: Records, pytester: pytest.Pytester, api: Api
) -> None:
    """Streams are recorded event by event; a token in Location is hidden, and what comes by forward() is not there."""
    fixture = BESIDE.replace("sh)", "shop, sh)")
    inside(fixture, "--egress-record-mode=rewrite").result.assert_outcomes(passed=2)
    text = written(pytester, "cassettes/test_shop.yaml")
    assert "    - {event: start, json: {id: m_1}}\n    - json: {delta: Hel}\n" in text
    assert 'location: "/done?token=<token>&page=2"' in text
    assert "tok_9f8e7d6c5b4a" not in text
    assert "/own" not in text
    assert "/o\n" not in text
    asked = [*api.asked]
    again = inside("", "-s")
    again.result.assert_outcomes(passed=2)
    assert api.asked == [*asked, "GET /o"]
    assert 'data: {"delta":"lo"}' in again.output
    assert "location: /done?token=<token>&page=2" in again.output.lower()


HAR = """
def test_har(egress, image):
    egress.intercept_https("web.test", cassette("session.har"))
    result = egress.run(image, ["curl", "-sSi", "https://web.test/page?b=2&a=1"])
    assert result.stdout.endswith("<p>hi</p>"), result.stdout
    assert "HTTP/1.1 203" in result.stdout or "HTTP/2 203" in result.stdout
"""


def test_a_har_of_a_browser_is_replayed_over_tls(
    inside: Records, pytester: pytest.Pytester
) -> None:
    entry = {
        "request": {"method": "GET", "url": "https://web.test/page?a=1&b=2", "headers": []},
        "response": {
            "status": 203,
            "headers": [{"name": "content-type", "value": "text/html"}],
            "content": {"mimeType": "text/html", "text": "<p>hi</p>"},
        },
    }
    har = {"log": {"version": "1.2", "entries": [entry]}}
    pytester.path.joinpath("session.har").write_text(json.dumps(har))
    inside(HAR).result.assert_outcomes(passed=1)


class CountedGreeter(pb_grpc.GreeterServicer):  # type: ignore[misc]  # made by protoc, without types
    """A real server, whose calls are counted."""

    def __init__(self) -> None:
        self.count = 0

    def Unary(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.count += 1
        if not request.name:
            context.set_trailing_metadata((("x-why", "no name"),))
            context.abort(grpc.StatusCode.NOT_FOUND, "nobody")
        return pb.Reply(text=f"hello {request.name}")

    def Down(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.count += 1
        yield from (pb.Reply(text=str(n)) for n in range(request.count))

    def Up(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Any:
        self.count += 1
        return pb.Reply(text=" ".join(each.name for each in request_iterator))

    def Both(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self.count += 1
        yield from (pb.Reply(text=each.name.upper()) for each in request_iterator)


@pytest.fixture
def greeter() -> Iterator[tuple[CountedGreeter, int]]:
    servicer = CountedGreeter()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    pb_grpc.add_GreeterServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, port
    server.stop(None).wait()


GRPC = """
CLIENT = '''
import grpc, greeter_pb2 as pb, greeter_pb2_grpc as pb_grpc
stub = pb_grpc.GreeterStub(grpc.insecure_channel("api.test:PORT"))
print(stub.Unary(pb.Hello(name="WHO"), timeout=30, metadata=[("authorization", "tok-123456789")]).text)
print([each.text for each in stub.Down(pb.Hello(count=3), timeout=30)])
two = lambda: iter([pb.Hello(name="one"), pb.Hello(name="two")])
print(stub.Up(two(), timeout=30).text)
print([each.text for each in stub.Both(two(), timeout=30)])
try:
    stub.Unary(pb.Hello(), timeout=30)
except grpc.RpcError as error:
    print(error.code().name, error.details(), error.trailing_metadata()[0].value)
'''

def test_a(egress):
    egress.intercept_http("api.test:PORT", cassette())
    print(egress.run("IMAGE", ["python", "-c", CLIENT]).stdout)
"""
GREETED = """hello you
['0', '1', '2']
one two
['ONE', 'TWO']
NOT_FOUND nobody no name
"""


def test_calls_of_grpc_of_every_kind_are_recorded_in_words_and_replayed_without_the_server(
    inside: Records, pytester: pytest.Pytester, grpc_image: str, greeter: tuple[CountedGreeter, int]
) -> None:
    servicer, port = greeter
    source = GRPC.replace("PORT", str(port)).replace("IMAGE", grpc_image)
    first = inside(source.replace("WHO", "you"), "-s", "--egress-record-mode=once")
    first.result.assert_outcomes(passed=1)
    assert GREETED in first.output
    text = written(pytester, "cassettes/test_shop/test_a.yaml")
    assert "    messages:\n    - name: one\n    - name: two\n" in text
    assert "    status: NOT_FOUND\n    details: nobody\n" in text
    assert "tok-123456789" not in text
    again = inside("", "-s")
    again.result.assert_outcomes(passed=1)
    assert GREETED in again.output
    assert servicer.count == 5
    changed = inside(source.replace("WHO", "me"))
    changed.result.assert_outcomes(failed=1)
    assert "messages[0].name: 'me' is not 'you'" in changed.output
    assert servicer.count == 5


TALK = """
CLIENT = '''
import queue
import grpc, greeter_pb2 as pb, greeter_pb2_grpc as pb_grpc
stub = pb_grpc.GreeterStub(grpc.insecure_channel("api.test:PORT"))
said = queue.SimpleQueue()
answers = stub.Both(iter(said.get, None), timeout=30)
for word in "FIRST", "two", "tok-123456789":
    said.put(pb.Hello(name=word))
    print(next(answers).text)
said.put(None)
print([*answers], answers.code().name)
watched = stub.Both(iter(queue.SimpleQueue().get, None), timeout=30)
watched.cancel()
'''

def test_a(egress):
    egress.intercept_http("api.test:PORT", cassette())
    result = egress.run("IMAGE", ["python", "-c", CLIENT], env={"API_TOKEN": "tok-123456789"})
    print(result.stdout)
"""


def test_a_client_of_grpc_that_waits_for_each_answer_is_recorded_and_replayed_in_turns(
    inside: Records, pytester: pytest.Pytester, grpc_image: str, greeter: tuple[CountedGreeter, int]
) -> None:
    servicer, port = greeter
    source = TALK.replace("PORT", str(port)).replace("IMAGE", grpc_image)
    first = inside(source.replace("FIRST", "one"), "-s", "--egress-record-mode=once")
    first.result.assert_outcomes(passed=1)
    assert "ONE\nTWO\nTOK-123456789\n[] OK\n" in first.output
    count, text = servicer.count, written(pytester, "cassettes/test_shop/test_a.yaml")
    assert (
        """\
  messages:
  - send: {name: one}
  - receive: {text: ONE}
  - send: {name: two}
  - receive: {text: TWO}
  - send: {name: <API_TOKEN>}
"""
        in text
    )
    assert "  - half-close\n  response:\n    status: OK\n" in text
    again = inside("", "-s")
    again.result.assert_outcomes(passed=1)
    assert "ONE\nTWO\n" in again.output
    assert "[] OK\n" in again.output
    changed = inside(source.replace("FIRST", "1"))
    changed.result.assert_outcomes(failed=1)
    assert "messages[0].name: '1' is not 'one'" in changed.output
    assert servicer.count == count


FEED = """
CLIENT = '''
from websockets.sync.client import connect
try:
    connect("ws://api.test:PORT/denied")
except Exception as error:
    print(error, error.response.body.decode())
with connect("ws://api.test:PORT/feed", subprotocols=["prices"]) as ws:
    print(ws.recv(), ws.subprotocol)
    ws.send('{"subscribe": "WHAT", "token": "tok-1234567890ab"}')
    print(ws.recv())
    ws.send(bytes(3))
    print(ws.recv())
    try:
        ws.recv()
    except Exception as error:
        print(error)
'''

def test_a(egress):
    egress.intercept_http("api.test:PORT", cassette())
    print(egress.run("IMAGE", ["python3", "-c", CLIENT]).stdout)
"""
FED = """server rejected WebSocket connection: HTTP 403 not you
welcome prices
{"price":1,"of":"eur"}
b'\\x00\\x00\\x00'
received 4001 (private use) enough"""


@pytest.fixture
def feed() -> Iterator[tuple[list[str], int]]:
    """A real server of WebSockets: the paths that it was asked, and its port."""
    asked: list[str] = []

    def answer(ws: ServerConnection) -> None:
        assert ws.request is not None
        asked.append(ws.request.path)
        ws.send("welcome")
        of = json.loads(ws.recv())["subscribe"]
        ws.send(json.dumps({"price": asked.count("/feed"), "of": of}, separators=(",", ":")))
        ws.send(ws.recv())
        ws.close(4001, "enough")

    def deny(ws: ServerConnection, request: Any) -> Any:
        if request.path != "/denied":
            return None
        asked.append(request.path)
        return ws.respond(403, "not you")

    with serve(answer, "127.0.0.1", 0, process_request=deny, subprotocols=["prices"]) as server:  # type: ignore[list-item]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield asked, server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


def test_a_websocket_is_recorded_in_words_and_replayed_without_the_server(
    inside: Records,
    pytester: pytest.Pytester,
    websocket_image: str,
    feed: tuple[list[str], int],
) -> None:
    asked, port = feed
    source = FEED.replace("PORT", str(port)).replace("IMAGE", websocket_image)
    first = inside(source.replace("WHAT", "eur"), "-s", "--egress-record-mode=once")
    first.result.assert_outcomes(passed=1)
    assert FED in first.output
    text = written(pytester, "cassettes/test_shop/test_a.yaml")
    assert text.endswith(
        """\
  messages:
  - receive: welcome
  - send: {json: {subscribe: eur, token: <token>}}
  - receive: {json: {price: 1, of: eur}}
  - send: {base64: AAAA}
  - receive: {base64: AAAA}
  close: 4001
  reason: enough
"""
    )
    assert "tok-1234567890ab" not in text
    again = inside("", "-s")
    again.result.assert_outcomes(passed=1)
    assert FED in again.output
    changed = inside(source.replace("WHAT", "usd"))
    changed.result.assert_outcomes(failed=1)
    assert "messages[1].json.subscribe: 'usd' is not 'eur'" in changed.output
    assert (
        "record it again: pytest --egress-record-mode=rewrite test_shop.py::test_a"
        in changed.output
    )
    assert "  response:\n    status: 403\n" in text
    assert asked == ["/denied", "/feed"]


CHECKED = """
CHARGE = {"type": "object", "properties": {"amount": {"type": "integer"}}}
ANSWER = {"type": "object", "required": ["n", "got"], "properties": {"n": {"type": "integer"}}}
SPEC = {
    "openapi": "3.1.0",
    "info": {"title": "charges", "version": "1"},
    "paths": {"/charges": {"post": {
        "requestBody": {"content": {"application/json": {"schema": CHARGE}}},
        "responses": {"200": {"description": "ok", "content": {"application/json": {"schema": ANSWER}}}},
    }}},
}

@pytest.mark.parametrize("amount", ["4200", '"42"'], ids=["fits", "is no number"])
@pytest.mark.parametrize("answer", ["cassette", "forward"])
def test_charge(egress, sh, answer, amount):
    given = cassette() if answer == "cassette" else forward(URL.replace("api.test", "127.0.0.1"))
    egress.intercept_http(URL.removeprefix("http://"), openapi(SPEC, given))
    print(sh(f"curl -sS {URL}/charges -H Content-Type:application/json -d '{{\\"amount\\": {amount}}}'"))
"""


def test_openapi_checks_what_a_cassette_or_a_real_server_answers(inside: Records, api: Api) -> None:
    first = inside(CHECKED, "-s", "--egress-record-mode=once")
    again = inside(CHECKED, "-s", "-k", "fits or forward")  # what fails is not recorded
    for run, failed in ((first, 2), (again, 1)):
        run.result.assert_outcomes(passed=2, failed=failed, deselected=2 - failed)
        assert "body.amount: '42' is no integer" in run.output
        assert run.output.replace(" ", "").count('{"n":') == 2 + failed
    assert len(api.asked) == 4 + 2


WAITING = r"""
CLIENT = '''
import requests
events = requests.get("http://api.test:PORT/events", stream=True, timeout=20)
lines = events.iter_lines(chunk_size=1, decode_unicode=True)
print(next(lines))
print(requests.post("http://api.test:PORT/go").text)
print([line for line in (next(lines), next(lines)) if line][0])
'''

def test_a(egress, image):
    egress.intercept_http("api.test:PORT", cassette())
    print(egress.run(image, ["python3", "-c", CLIENT]).stdout)
"""


@pytest.fixture
def endless(api: Api) -> Iterator[int]:
    """The port of a real server whose second event waits for a request, and whose stream has no end."""
    may_go, is_over = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"b\r\ndata: one\n\n\r\n")
            if may_go.wait(20):
                self.wfile.write(b"b\r\ndata: two\n\n\r\n")
                is_over.wait()
            self.close_connection = True

        def do_POST(self) -> None:
            may_go.set()
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"gone")

        def log_message(self, *args: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    thread.start()
    yield int(server.socket.getsockname()[1])
    is_over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_client_that_waits_for_the_first_event_is_recorded_and_replayed(
    inside: Records, pytester: pytest.Pytester, endless: int
) -> None:
    seen = "data: one\ngone\ndata: two"
    first = inside(WAITING.replace("PORT", str(endless)), "-s", "--egress-record-mode=once")
    first.result.assert_outcomes(passed=1)
    assert seen in first.output
    text = written(pytester, "cassettes/test_shop/test_a.yaml")
    assert text.count("    - data: ") == 2
    again = inside("", "-s")
    again.result.assert_outcomes(passed=1)
    assert seen in again.output
