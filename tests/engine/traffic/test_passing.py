"""What passes to real servers, and what does not, with real clients."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import docker
import pytest
import trustme

from pytest_egress import Egress, UnroutedError, forward
from pytest_egress.targets.handle import Container
from pytest_egress.traffic.entries import DnsQuery, TcpConnection
from tests.support.clients import OTHER_CA, Background, attempts, python
from tests.support.outside import Outside
from tests.support.stage import eventually
from tests.support.upstreams import SECONDS, Upstream, only_connection, succeed, tcp_server


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


@pytest.fixture
def background(client: Container) -> Iterator[Background]:
    """Runs a snippet in the container while the test goes on."""
    with ThreadPoolExecutor() as pool:
        yield lambda code, *args: pool.submit(python, client, code, *args)


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
            egress.run("{services_image}", command, files=files)
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
        answer = client.exec(["curl", "-4", "-sS", url], check=False)
        service.settimeout(0)
        with pytest.raises(BlockingIOError):
            service.accept()
    (entry,) = (entry for entry in egress.ledger if not isinstance(entry, DnsQuery))
    assert entry.note.startswith(f"{name}:{port} is not reached: ")
    assert answer.exit_code != 0 or entry.note in answer.stdout


# What no route claims.

BOTH = """
curl -sS https://other.test/it
python3 -c 'import socket; s = socket.create_connection(("other.test", 7000)); s.sendall(bytes(3)); s.recv(9)'
"""


def test_what_no_route_claims_fails_by_default(services_image: str) -> None:
    def run() -> None:
        with Egress() as egress:
            result = egress.run(services_image, ["sh", "-c", BOTH], check=False)
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
    result = client.exec(["sh", "-c", BOTH], check=False)
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
    assert client.exec(f"curl -4 -sS https://real.test:{port}/", check=False).exit_code != 0
    (entry,) = attempts(egress, TcpConnection)
    assert entry.outcome == "passthrough"
    assert entry.note.startswith(f"real.test:{port} cannot be reached: ")


def test_what_lets_any_host_through_reaches_containers_on_the_engines_bridge(
    egress: Egress, engine_client: docker.DockerClient, clients_image: str
) -> None:
    serve = ["python3", "-c", ECHO]
    other = engine_client.containers.run(clients_image, serve, detach=True, network="bridge")
    try:
        assert eventually(lambda: b"up" in other.logs())
        other.reload()
        (network,) = other.attrs["NetworkSettings"]["Networks"].values()
        route = egress.passthrough("*")
        dial = "import socket; print(socket.create_connection((sys.argv[1], 7000), 30).recv(99))"
        command = ["python3", "-c", f"import sys; {dial}", network["IPAddress"]]
        assert egress.run(clients_image, command).stdout == "b'on the bridge'\n"
        route.assert_called_once()
    finally:
        other.remove(force=True)


ECHO = """
import socket
listener = socket.create_server(("", 7000))
print("up", flush=True)
listener.accept()[0].sendall(b"on the bridge")
"""
