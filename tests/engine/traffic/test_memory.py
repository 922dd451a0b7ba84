"""What a test received is let go with it: by reference counts, since large bodies make few objects to collect."""

from __future__ import annotations

import textwrap

import pytest
import trustme  # noqa: F401

# Before pytester takes its snapshot of sys.modules: cryptography can be imported only once.

HEAD = """
import gc, http.server, threading, weakref
import pytest
from pytest_egress import Response, forward

IMAGE = {image!r}
POST = "head -c 3000000 /dev/zero | curl -sSk --data-binary @- "
received = []

@pytest.fixture(scope="module", autouse=True)
def by_reference_counts():
    gc.collect()
    gc.disable()
    yield
    gc.enable()

@pytest.fixture
def keep():
    def keep(*things): received.extend(map(weakref.ref, things))
    return keep

@pytest.fixture(scope="module")
def shop(module_egress): return module_egress.start(IMAGE, ["sleep", "infinity"])

@pytest.fixture(scope="module")
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "3000000")
            self.end_headers()
            self.wfile.write(bytes(3000000))
        def log_message(self, *args): pass
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{{server.server_port}}"
        server.shutdown()

def test_last():
    assert received
    left = [thing for thing in (reference() for reference in received) if thing is not None]
    assert not left, [gc.get_referrers(thing) for thing in left]
"""

TESTS = {
    "routed": """
def test_a(egress, keep):
    egress.intercept_https("api.test", lambda request: {"size": len(request.content)})
    egress.run(IMAGE, ["sh", "-c", POST + "https://api.test"])
    (exchange,) = egress.exchanges
    assert len(exchange.request.content) == 3000000
    keep(exchange, exchange.request, exchange.response)
""",
    "streamed": """
def test_a(egress, keep):
    egress.intercept_http("api.test", lambda request: iter([bytes(3000000), request.content]))
    egress.run(IMAGE, ["sh", "-c", POST + "http://api.test -o /dev/null"])
    (exchange,) = egress.exchanges
    keep(exchange, exchange.request, exchange.response)
""",
    "uploaded": """
def test_a(egress, keep):
    size = lambda request: {"size": sum(map(len, request.stream()))}
    egress.intercept_https("api.test", size, stream=True)
    egress.run(IMAGE, ["sh", "-c", POST + "https://api.test"])
    (exchange,) = egress.exchanges
    keep(exchange, exchange.request, exchange.response)
""",
    "refused": """
def test_a(egress, keep):
    egress.intercept_http("api.test", 413, stream=True)
    egress.run(IMAGE, ["sh", "-c", POST + "http://api.test"], check=False)
    (exchange,) = egress.exchanges
    keep(exchange, exchange.request)
""",
    "forwarded": """
def test_a(egress, keep, server):
    egress.intercept_http("api.test", forward(server))
    egress.run(IMAGE, ["sh", "-c", POST + "http://api.test -o /dev/null"])
    (exchange,) = egress.exchanges
    assert len(exchange.response.content) == 3000000
    keep(exchange, exchange.request, exchange.response)
""",
    "altered": """
def test_a(egress, keep, server):
    @egress.intercept_http("api.test")
    def handler(request): return request.forward(server)
    egress.run(IMAGE, ["sh", "-c", POST + "http://api.test -o /dev/null"])
    (exchange,) = egress.exchanges
    assert len(exchange.response.content) == 3000000
    keep(exchange, exchange.request, exchange.response)
    handler.respond(200)  # or it would keep itself: it is in its own closure
""",
    "unrouted": """
@pytest.mark.egress(unrouted="block")
def test_a(egress, keep):
    egress.run(IMAGE, ["sh", "-c", POST + "http://api.test"])
    (exchange,) = egress.exchanges
    keep(exchange, exchange.request)
""",
    "raw": """
def test_a(egress, keep):
    route = egress.intercept_tcp("db.test")
    egress.run(IMAGE, ["bash", "-c", "head -c 3000000 /dev/zero > /dev/tcp/db.test/5432"])
    (call,) = route.calls
    assert len(call.content) == 3000000
    keep(call)
""",
    "shared": """
SERVE = '''
import http.client, time
connection = http.client.HTTPConnection("api.test")
connection.request("POST", "/", bytes(3000000))
connection.getresponse().read()
print("sent", flush=True)
time.sleep(600)
'''

def test_a(egress, shop, keep):  # by a connection that lives on, idle
    egress.intercept_http("api.test")
    script = 'python3 -c "$0" >/tmp/out 2>&1 & until grep -q sent /tmp/out; do sleep 0.1; done'
    shop.exec(["timeout", "20", "bash", "-c", script, SERVE])
    (exchange,) = egress.exchanges
    keep(exchange, exchange.request)
""",
    "pooled": """
def test_a(egress, shop, module_egress, keep):  # the pool's connection is this test's
    module_egress.intercept_tcp("db.test", lambda sock: sock.recv(1))
    egress.intercept_http("api.test")
    shop.exec(["bash", "-c", "(exec 3<>/dev/tcp/db.test/5432; sleep 600) >/dev/null 2>&1 &"])
    shop.exec(["bash", "-c", POST + "http://api.test"])
    (exchange,) = egress.exchanges
    keep(exchange, exchange.request)
""",
    "after": """
@pytest.fixture
def client(egress, keep):
    yield
    egress.intercept_http("api.test", optional=True)
    egress.run(IMAGE, ["sh", "-c", POST + "http://api.test"])
    (exchange,) = egress.exchanges
    keep(exchange, exchange.request)
def test_a(client): pass
""",
    "failed": """
@pytest.mark.xfail
def test_a(egress, keep):
    egress.intercept_http("api.test")
    egress.run(IMAGE, ["sh", "-c", POST + "http://api.test"])
    keep(*egress.exchanges)
    pytest.fail("own", pytrace=False)
""",
    "wide": """
@pytest.fixture(scope="class")
def upload(class_egress): return class_egress.intercept_http("api.test")
class TestA:
    def test_a(self, egress, upload, keep):
        egress.run(IMAGE, ["sh", "-c", POST + "http://api.test"])
        keep(*egress.exchanges)
    def test_b(self, upload):
        assert upload.lifetime_count == 1 and not upload.called
        assert received[0]() is not None  # until its route's scope ends
""",
}


def test_what_a_test_received_is_let_go_with_it(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    (head, last) = HEAD.format(image=clients_image).split("def test_last")
    modules = {
        f"test_{kind}": "\n".join([head, textwrap.dedent(code), f"def test_last{last}"])
        for kind, code in TESTS.items()
    }
    pytester.makepyfile(**modules)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider")
    assert result.ret == 0
