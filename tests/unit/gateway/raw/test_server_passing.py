"""What a raw route or a policy leads to another server, and when it is cut."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import pytest
import trustme

from pytest_egress.gateway import dispatch
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward
from pytest_egress.traffic.entries import Exchange, PacketAttempt, TcpConnection
from tests.support.echo import Echo, end_of_dial, opened, read_line, read_to_end
from tests.support.outside import REAL, Outside
from tests.support.stage import ADDRESS, SECONDS, Stage, ask, end_of, eventually

pytestmark = pytest.mark.usefixtures("no_first_byte")


# Another server.


def test_a_raw_route_leads_to_another_server(stage: Stage, echo: Echo) -> None:
    route = stage.tcp("db.test:5432", forward(f"tcp://127.0.0.1:{echo.port}"))
    client = stage.dial(stage.resolve("db.test"), 5432)
    client.sendall(b"x" * 1_000_000)
    client.shutdown(socket.SHUT_WR)
    assert len(read_to_end(client)) == 1_000_000
    call = route.assert_called_once()
    assert eventually(lambda: call.duration is not None)
    assert (call.outcome, call.sent, call.received) == ("routed", 1_000_000, 1_000_000)


def test_a_server_that_speaks_first_is_heard_through_a_forward(stage: Stage) -> None:
    with contextlib.closing(Echo(greeting=b"hello\n")) as server:
        stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{server.port}"))
        assert read_line(stage.dial(port=5432)) == b"hello\n"


def test_a_server_that_cannot_be_reached_resets_the_client_and_is_noted(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{port}"))
    assert end_of_dial(stage) == "reset"
    entry = stage.only(TcpConnection)
    assert (entry.outcome, entry.error) == ("routed", None)
    assert entry.note == f"127.0.0.1:{port} cannot be reached: [Errno 111] Connection refused"


class Database:
    name = "postgres"

    def __init__(self, port: int) -> None:
        self.own_port = port

    def connect(self, port: int, timeout: float = 5) -> socket.socket:
        assert port == 5432
        return socket.create_connection(("127.0.0.1", self.own_port), timeout)


def test_a_raw_route_leads_to_a_port_of_another_container(stage: Stage, echo: Echo) -> None:
    stage.tcp("db.test:5432", forward(Database(echo.port), 5432))
    client = stage.dial(stage.resolve("db.test"), 5432)
    client.sendall(b"select 1\n")
    assert read_line(client) == b"select 1\n"


def test_what_was_in_tls_goes_to_the_upstream_in_tls(stage: Stage, outside: Outside) -> None:
    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("real.test").configure_cert(context)
    other.configure_trust(stage.gateway.upstreams.tls())
    with contextlib.closing(Echo(context, listener=outside.listen(8443))):
        stage.tls_route("real.test:8443", forward())
        client = stage.tls("real.test", stage.resolve("real.test"), 8443)
        client.sendall(b"hello\n")
        assert read_line(client) == b"hello\n"


def test_the_threads_of_a_forward_end_with_the_gateway(stage: Stage, echo: Echo) -> None:
    stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{echo.port}"))
    client = stage.dial(port=5432)
    client.sendall(b"x\n")
    assert read_line(client) == b"x\n"
    (connection,) = stage.gateway.connections
    assert stage.gateway.stop() == []
    assert connection.ended


# Passing through.


def test_what_passes_through_reaches_the_real_server_of_its_name(stage: Stage, real: Echo) -> None:
    route = stage.route("passthrough", "real.test")
    address = stage.resolve("real.test")
    client = stage.dial(address, 5432)
    client.sendall(b"hello\n")
    assert read_line(client) == b"hello\n"
    client.close()
    call = route.wait_for_call(timeout=SECONDS)
    assert real.asked == [(REAL, 5432)]
    assert (call.outcome, call.address) == ("passthrough", address)
    assert eventually(lambda: (call.sent, call.received) == (6, 6))


def contexts_of_another_ca() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's for real.test, and that of a client which trusts it."""
    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("real.test").configure_cert(context)
    trusting = ssl.create_default_context()
    other.configure_trust(trusting)
    return context, trusting


def test_what_passes_through_keeps_its_own_tls(stage: Stage, outside: Outside) -> None:
    context, trusting = contexts_of_another_ca()
    with contextlib.closing(Echo(context, listener=outside.listen(443))):
        stage.route("passthrough", "real.test")
        client = stage.tls("real.test", stage.resolve("real.test"), context=trusting)
        client.sendall(b"hello\n")
        assert read_line(client) == b"hello\n"


def test_an_address_that_was_dialled_passes_by_its_server_name(
    stage: Stage, outside: Outside
) -> None:
    context, trusting = contexts_of_another_ca()
    with contextlib.closing(Echo(context, listener=outside.listen(443))) as server:
        stage.route("passthrough", "real.test")
        client = stage.tls("real.test", ADDRESS, context=trusting)
        client.sendall(b"hello\n")
        assert read_line(client) == b"hello\n"
        assert server.asked == [(REAL, 443)]  # the name opens no address
    assert stage.entries(TcpConnection)[0].sni == "real.test"


def test_the_policy_lets_through_what_no_route_claims(stage: Stage, real: Echo) -> None:
    stage.window.policy = "passthrough"
    stage.https("api.test", {"id": 1})
    client = stage.dial(stage.resolve("real.test"), 5432)
    client.sendall(b"hello\n")
    assert read_line(client) == b"hello\n"
    reply = ask(stage.tls("api.test", stage.resolve("api.test")))
    assert reply.body == b'{"id": 1}'
    assert real.asked == [(REAL, 5432)]
    assert judge(stage.window, []) is None


def test_the_policy_is_no_way_around_a_route_that_does_not_match(stage: Stage, real: Echo) -> None:
    stage.window.policy = "passthrough"
    stage.https("api.test", {"id": 1}, path="/v1")
    assert ask(stage.tls("api.test", stage.resolve("api.test"))).status == 502
    assert stage.only(Exchange).outcome == "unrouted"
    assert real.asked == []


def test_under_the_policy_a_server_name_still_finds_its_route(stage: Stage, real: Echo) -> None:
    stage.window.policy = "passthrough"
    stage.https("api.test", {"id": 1})
    assert ask(stage.tls("api.test", ADDRESS)).body == b'{"id": 1}'
    client = stage.dial(ADDRESS, 5432)
    client.sendall(b"\x00\x01\n")
    assert read_line(client) == b"\x00\x01\n"
    assert real.asked == [(ADDRESS, 5432)]


def test_under_the_policy_a_silent_client_of_an_address_hears_the_real_server(
    stage: Stage, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 0.1)
    stage.window.policy = "passthrough"
    with contextlib.closing(Echo(greeting=b"220\n", listener=outside.listen(5432))):
        assert read_line(stage.dial(ADDRESS, 5432)) == b"220\n"
    assert [entry.outcome for entry in stage.entries(TcpConnection)] == ["passthrough"]


def test_without_its_route_an_open_connection_is_cut(stage: Stage, real: Echo) -> None:
    route = stage.route("passthrough", "real.test")

    def revise() -> None:
        stage.gateway.revise()

    stage.ledger.routes_changed = revise
    client = opened(stage, stage.resolve("real.test"))
    stage.https("elsewhere.test")
    client.sendall(b"y\n")
    assert read_line(client) == b"y\n"
    route.remove()
    assert end_of(client) == "closed"


def test_a_route_that_comes_first_takes_over_from_an_open_connection(
    stage: Stage, echo: Echo
) -> None:
    stage.tcp("*", forward(f"tcp://127.0.0.1:{echo.port}"))
    address = stage.resolve("db.test")
    client = opened(stage, address)
    stage.tcp("db.test:5432", b"fake\n")
    assert end_of(client) == "closed"
    assert read_line(stage.dial(address, 5432)) == b"fake\n"


def test_a_connection_outlives_the_times_of_its_route(stage: Stage, echo: Echo) -> None:
    stage.tcp("db.test", forward(f"tcp://127.0.0.1:{echo.port}"), times=1)
    client = opened(stage, stage.resolve("db.test"))
    stage.gateway.revise()
    client.sendall(b"y\n")
    assert read_line(client) == b"y\n"


def test_at_the_end_of_a_test_its_handlers_see_the_end(stage: Stage) -> None:
    ended = threading.Event()

    @stage.tcp(ADDRESS)
    def handler(sock: socket.socket) -> None:
        assert sock.recv(1) == b"x"
        assert sock.recv(1) == b""
        ended.set()

    client = stage.dial(port=5432)
    client.sendall(b"x")
    assert eventually(lambda: stage.window.entries)
    (connection,) = stage.gateway.revise(test_over=True)
    assert ended.wait(SECONDS)
    assert stage.ledger.wait_for(lambda: connection.ended, SECONDS)
    assert end_of(client) == "closed"
    handler.assert_called_once()


def test_what_a_policy_let_through_ends_with_it(stage: Stage, real: Echo) -> None:
    stage.window.policy = "passthrough"
    client = opened(stage, stage.resolve("real.test"))
    stage.gateway.revise()
    client.sendall(b"y\n")
    assert read_line(client) == b"y\n"
    stage.window.policy = "fail"
    stage.gateway.revise()
    assert end_of(client) == "closed"


def test_a_server_name_that_is_claimed_does_not_pass_by_another_name(
    stage: Stage, real: Echo
) -> None:
    stage.window.policy = "passthrough"
    api = stage.https("api.test", {"id": 1})
    edge = stage.resolve("edge.cdn.test")
    assert ask(stage.tls("api.test", edge)).body == b'{"id": 1}'
    assert (api.call_count, real.asked) == (1, [])


def test_a_packet_that_is_refused_is_no_call_of_what_passes(stage: Stage) -> None:
    route = stage.route("passthrough", ADDRESS)
    claim = stage.gateway.recorder.outcome(stage.attempt_context(), ADDRESS, 443)
    about = stage.gateway.recorder.about(claim, ADDRESS, 443)
    entry = PacketAttempt(**about, protocol="UDP", address=ADDRESS, size=9)
    stage.gateway.recorder.record(stage.attempt_context(), entry)
    assert (entry.outcome, entry.route, route.call_count) == ("blocked", route, 0)
