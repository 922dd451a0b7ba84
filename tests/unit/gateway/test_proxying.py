"""What comes through a declared proxy is answered as if its host had been dialled."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterator

import dns.message
import pytest
import trustme

from pytest_egress import blackhole, forward, refuse, sequence
from pytest_egress.ledger.report import attempt_lines
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import PROXY as PROXY_KIND
from pytest_egress.traffic.dns.resolver import tcp_frame
from pytest_egress.traffic.entries import DnsQuery, Exchange, ProxyCall, TcpConnection
from tests.support.http2_client import Http2Answer, Http2Client
from tests.support.stage import (
    SECONDS,
    Reply,
    Stage,
    ask,
    comes_not,
    drain,
    end_of,
    eventually,
    expects_a_message,
    read_reply,
    reset,
    staged,
)
from tests.support.upstreams import Upstream

PROXY = "proxy.test:8443"


@pytest.fixture
def stage(ca: trustme.CA, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with staged(ca, request) as stage:
        yield stage


@pytest.fixture
def proxy(stage: Stage) -> InnerRoute:
    return stage.route("proxy", PROXY)


@pytest.fixture
def server() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


def dial(stage: Stage) -> socket.socket:
    sock = stage.dial(stage.resolve("proxy.test"), 8443)
    sock.settimeout(SECONDS)
    return sock


def connect(target: str, *lines: str, version: str = "1.1") -> bytes:
    host = [f"Host: {target}"] if version == "1.1" else []
    return "\r\n".join([f"CONNECT {target} HTTP/{version}", *host, *lines, "", ""]).encode()


def read_head(sock: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, head
        head += byte
    return head


def tunnel(stage: Stage, target: str, *lines: str) -> socket.socket:
    sock = dial(stage)
    sock.sendall(connect(target, *lines))
    assert read_head(sock).startswith(b"HTTP/1.1 200 "), target
    return sock


def secured(stage: Stage, sock: socket.socket, name: str = "api.test") -> ssl.SSLSocket:
    return stage.open.enter_context(stage.trusting.wrap_socket(sock, server_hostname=name))


def get(url: str) -> bytes:
    return f"GET {url} HTTP/1.1\r\nHost: whatever.test\r\n\r\n".encode()


def test_a_request_within_a_tunnel_is_answered_by_the_route_of_its_host(
    stage: Stage, proxy: InnerRoute
) -> None:
    route = stage.https("api.test", {"id": 1})
    client = secured(stage, tunnel(stage, "api.test:443"))
    for _ in range(2):
        assert ask(client, b"GET /v1 HTTP/1.1\r\nHost: api.test\r\n\r\n").body == b'{"id": 1}'
    assert route.call_count == 2
    first, _ = stage.entries(Exchange)
    assert (str(first), first.through) == ("GET https://api.test/v1", PROXY)
    (call,) = proxy.calls
    assert isinstance(call, ProxyCall)
    assert (call.method, call.target, call.host, call.port) == (
        "CONNECT",
        "api.test:443",
        "proxy.test",
        8443,
    )
    assert call.outcome == "recorded"


def test_what_comes_right_behind_the_request_for_a_tunnel_is_within_it(
    stage: Stage, proxy: InnerRoute
) -> None:
    route = stage.tcp("db.test:5432")
    sock = dial(stage)
    sock.sendall(connect("db.test:5432") + b"hello\r\n\r\nagain")
    read_head(sock)
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""
    call = route.wait_for_call()
    assert call.content == b"hello\r\n\r\nagain"
    assert call.through == PROXY


def test_a_handler_that_fails_on_what_came_in_one_segment_with_its_request_is_called(
    stage: Stage, proxy: InnerRoute
) -> None:
    @stage.tcp("db.test:5432")
    def fails(sock: socket.socket) -> None:
        raise AssertionError("not this")

    address = stage.resolve("proxy.test")
    with stage.ledger.changed:  # the client has left when its handler begins
        sock = stage.dial(address, 8443)
        sock.sendall(connect("db.test:5432") + b"hello")
        sock.shutdown(socket.SHUT_WR)
    (entry,) = stage.entries(TcpConnection)
    assert eventually(lambda: entry.error is not None)
    assert (entry.outcome, str(entry.error)) == ("routed", "not this")
    assert (entry.content, fails.call_count) == (b"hello", 0)


def test_a_request_for_a_tunnel_may_be_cut_anywhere(stage: Stage, proxy: InnerRoute) -> None:
    route = stage.tcp("db.test:5432", b"welcome")
    data = connect("db.test:5432", "User-Agent: x") + b"hello"
    head = len(data) - len(b"hello")
    for number, at in enumerate([1, 9, 40, *range(head - 4, head + 2)], 1):
        sock = dial(stage)
        sock.sendall(data[:at])
        stage.gateway.flush(SECONDS)
        sock.sendall(data[at:])
        read_head(sock)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b"welcome", at
        drain(sock)
        assert route.wait_for_call(number).content == b"hello"


def test_a_server_may_speak_first_within_a_tunnel(stage: Stage, proxy: InnerRoute) -> None:
    @stage.tcp("mail.test:25")
    def greets(sock: socket.socket) -> None:
        sock.sendall(b"220 mail.test\r\n")
        assert sock.recv(100) == b"QUIT"

    sock = tunnel(stage, "mail.test:25")
    assert sock.recv(100) == b"220 mail.test\r\n"
    sock.sendall(b"QUIT")
    assert greets.wait_for_call().through == PROXY


def test_a_port_probe_through_a_tunnel_is_no_call(stage: Stage, proxy: InnerRoute) -> None:
    route = stage.tcp("db.test:5432", expects_a_message, times=1)
    tunnel(stage, "db.test:5432").close()
    stage.settle()
    assert (route.call_count, proxy.call_count) == (0, 1)
    sock = tunnel(stage, "db.test:5432")
    sock.sendall(b"hello")
    route.wait_for_call()


def test_tunnels_are_closed_when_their_clients_have_left(stage: Stage, proxy: InnerRoute) -> None:
    stage.https("api.test", 204)
    tunnel(stage, "api.test:443").close()
    entry = stage.entries(TcpConnection)[0]
    assert (entry.outcome, entry.note) == (
        "recorded",
        "connected and closed without sending a byte",
    )


REFUSED = {
    "no-port": ("api.test", 400),
    "port-0": ("api.test:0", 400),
    "port-too-great": ("api.test:65536", 400),
    "user": ("bob:secret@api.test:443", 400),
    "no-name": ("a..b:443", 400),
    "brackets": ("[api.test]:443", 400),
    "zone": ("[fe80::1%25eth0]:443", 400),
    "octal": ("0177.0.0.1:443", 400),
    "short": ("127.1:443", 400),
    "hexadecimal": ("0x7f000001:443", 400),
    "number": ("2130706433:443", 400),
    "localhost": ("localhost:443", 403),
    "below-localhost": ("a.localhost:443", 403),
    "loopback": ("127.0.0.1:443", 403),
    "loopback-6": ("[::1]:443", 403),
    "loopback-mapped": ("[::ffff:127.0.0.1]:443", 403),
    "any": ("0.0.0.0:443", 403),
    "any-6": ("[::]:443", 403),
    "itself": (PROXY, 403),
    "itself-by-another-spelling": ("PROXY.test.:8443", 403),
}


@pytest.mark.parametrize(("target", "status"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("policy", ["fail", "passthrough"])
def test_a_tunnel_that_leads_nowhere_is_refused(
    stage: Stage, proxy: InnerRoute, target: str, status: int, policy: str
) -> None:
    stage.window.policy = policy  # type: ignore[assignment]
    route = stage.route("intercept_tcp", "*:443")
    sock = dial(stage)
    sock.sendall(connect(target))
    if ":" not in target:  # it begins no request
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert stage.entries(TcpConnection)[0].outcome == "unrouted"
        return
    reply = read_reply(sock, "CONNECT")
    assert (reply.status, route.call_count, proxy.call_count) == (status, 0, 0)
    (entry,) = stage.entries(ProxyCall)
    assert (entry.outcome, bool(entry.note)) == ("unrouted", True)
    assert "secret" not in f"{entry}{entry.note}{reply.body!r}"


@pytest.mark.parametrize(
    ("target", "host"),
    [("192.0.2.7:443", "192.0.2.7"), ("[2001:db8::7]:443", "2001:db8::7")],
    ids=["4", "6"],
)
def test_a_tunnel_may_be_to_an_address(
    stage: Stage, proxy: InnerRoute, target: str, host: str
) -> None:
    route = stage.https(target, 204)
    address = stage.https("api.test", 205)
    assert ask(secured(stage, tunnel(stage, target), "api.test")).status == 205
    sock = tunnel(stage, target)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    assert ask(stage.open.enter_context(context.wrap_socket(sock))).status == 204
    assert (route.calls[0].host, address.call_count) == (host, 1)


def test_the_address_of_a_name_leads_to_its_routes(stage: Stage, proxy: InnerRoute) -> None:
    route = stage.tcp("db.test:5432", b"welcome")
    assert tunnel(stage, f"{stage.resolve('db.test')}:5432").recv(100) == b"welcome"
    assert route.wait_for_call().host == "db.test"


def test_the_proxys_own_address_leads_to_no_second_tunnel(stage: Stage, proxy: InnerRoute) -> None:
    sock = dial(stage)
    sock.sendall(connect(f"{stage.resolve('proxy.test')}:8443"))
    assert read_reply(sock, "CONNECT").status == 403


def test_a_tunnel_may_lead_through_another_proxy(stage: Stage, proxy: InnerRoute) -> None:
    other = stage.route("proxy", "other.test:3128")
    stage.https("api.test", 204)
    sock = tunnel(stage, "other.test:3128")
    for back in (PROXY, "other.test:3128"):
        inner = tunnel(stage, "other.test:3128")
        inner.sendall(connect(back))
        assert read_reply(inner, "CONNECT").status == 403
    sock.sendall(connect("api.test:443"))
    read_head(sock)
    assert ask(secured(stage, sock)).status == 204
    assert stage.entries(Exchange)[0].through == "proxy.test:8443 and other.test:3128"
    assert other.calls[0].through == PROXY


def test_a_proxy_for_every_name_nests_no_tunnels(stage: Stage) -> None:
    stage.route("proxy", "*:8443")
    sock = tunnel(stage, "one.test:443")
    sock = dial(stage)
    sock.sendall(connect("two.test:8443"))
    assert read_reply(sock, "CONNECT").status == 403


# Names.


def test_the_name_of_a_tunnel_is_looked_up_by_the_tests_rules(
    stage: Stage, proxy: InnerRoute
) -> None:
    stage.route("dns", "gone.test", "NXDOMAIN")
    stage.route("dns", "mute.test", "silence")
    stage.route("dns", "empty.test", [])
    stage.route("dns", "six.test", "2001:db8::7")
    stage.route("dns", "alias.test", CNAME="api.test")
    stage.https("api.test", 204)
    stage.https("six.test", 205)
    for name, status in (("gone", 502), ("mute", 504), ("empty", 502)):
        sock = dial(stage)
        sock.sendall(connect(f"{name}.test:443"))
        reply = read_reply(sock, "CONNECT")
        assert (reply.status, f"{name}.test cannot be looked up".encode() in reply.body) == (
            status,
            True,
        )
    for name, status in (("alias.test", 204), ("six.test", 205)):
        client = secured(stage, tunnel(stage, f"{name}:443"), name)
        assert ask(client, get("/").replace(b"whatever.test", name.encode())).status == status
    assert proxy.call_count == 5
    assert not [e for e in stage.window.entries if e.outcome == "unrouted"]


def test_each_tunnel_takes_a_turn_of_a_sequence_of_answers(stage: Stage, proxy: InnerRoute) -> None:
    stage.route("dns", "api.test", sequence("SERVFAIL", "192.0.2.7"))
    stage.https("api.test", 204)
    sock = dial(stage)
    sock.sendall(connect("api.test:443"))
    assert read_reply(sock, "CONNECT").status == 502
    assert ask(secured(stage, tunnel(stage, "api.test:443"))).status == 204


def test_an_undeclared_name_does_not_exist_where_dns_is_strict(
    stage: Stage, proxy: InnerRoute
) -> None:
    stage.window.dns = "strict"
    stage.https("api.test", 204)
    sock = dial(stage)
    sock.sendall(connect("apj.test:443"))
    assert read_reply(sock, "CONNECT").status == 502
    (query,) = [e for e in stage.window.entries if e.outcome == "unrouted"]
    assert (query.host, query.through) == ("apj.test", PROXY)
    assert ask(secured(stage, tunnel(stage, "api.test:443"))).status == 204


def test_a_query_over_tcp_within_a_tunnel_names_its_proxy(stage: Stage, proxy: InnerRoute) -> None:
    sock = tunnel(stage, "192.0.2.53:53")
    sock.sendall(tcp_frame(dns.message.make_query("api.test", "A").to_wire()))
    assert sock.recv(4096)
    (query,) = [entry for entry in stage.entries(DnsQuery) if entry.host == "api.test"]
    assert query.through == PROXY


# Whole URLs.


def test_a_whole_url_is_matched_as_if_its_host_had_been_dialled(
    stage: Stage, proxy: InnerRoute
) -> None:
    one = stage.http("one.test", {"n": 1}, path="/v1", query={"x": "1"})
    two = stage.http("two.test:8080", lambda request: request.content)
    client = dial(stage)
    fields = b"Proxy-Authorization: Basic Ym9iOnNlY3JldA==\r\nProxy-Connection: keep-alive\r\n"
    first = get("http://one.test/v1?x=1").replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n")
    assert ask(client, first).body == b'{"n": 1}'
    post = b"POST http://two.test:8080/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    assert ask(client, post).body == b"hello"
    assert ask(client, first).status == 200
    exchange = one.calls[0]
    assert (exchange.request.url, exchange.through) == ("http://one.test/v1?x=1", PROXY)
    assert exchange.request.headers["host"] == "one.test"
    assert not [name for name in exchange.request.headers if name.lower().startswith("proxy")]
    assert two.calls[0].request.host == "two.test"
    asked = [(call.method, call.target, call.user, call.password) for call in proxy.calls]
    assert asked[:2] == [
        ("GET", "http://one.test/v1?x=1", "bob", "secret"),
        ("POST", "http://two.test:8080/", None, None),
    ]


def test_a_tunnel_may_follow_a_whole_url_on_a_connection(stage: Stage, proxy: InnerRoute) -> None:
    stage.http("one.test", 204)
    stage.https("api.test", 205)
    client = dial(stage)
    assert ask(client, get("http://one.test/")).status == 204
    client.sendall(connect("api.test:443"))
    read_head(client)
    assert ask(secured(stage, client)).status == 205


def test_a_request_that_is_for_the_proxy_itself_is_answered_by_other_routes(
    stage: Stage, proxy: InnerRoute
) -> None:
    stage.http("proxy.test:8443", b"function FindProxyForURL", path="/proxy.pac")
    assert ask(dial(stage), get("/proxy.pac").replace(b"whatever", b"proxy")).status == 200
    assert ask(dial(stage), get(f"http://{PROXY}/proxy.pac")).status == 200
    reply = ask(dial(stage), get(f"http://{PROXY}/other"))
    assert (reply.status, proxy.call_count) == (502, 0)


@pytest.mark.parametrize("asked", [connect("api.test:443"), get("http://api.test/")])
def test_a_block_at_the_proxys_own_address_stops_a_wider_proxy(stage: Stage, asked: bytes) -> None:
    wide = stage.route("proxy", "*:8443", optional=True)
    pac = stage.http(PROXY, b"function FindProxyForURL", path="/proxy.pac")
    block = stage.route("block", PROXY)
    method = asked.split()[0].decode()
    assert ask(dial(stage), asked, method).status in (421, 502)
    assert (stage.only(Exchange).outcome, wide.call_count) == ("blocked", 0)
    assert block.call_count == 1
    assert ask(dial(stage), get("/proxy.pac").replace(b"whatever", b"proxy")).status == 200
    assert pac.call_count == 1


def test_an_unrouted_url_names_its_proxy(stage: Stage, proxy: InnerRoute) -> None:
    assert ask(dial(stage), get("http://one.test/v1")).status == 502
    (entry,) = stage.entries(Exchange)
    assert (entry.outcome, entry.host, entry.port, entry.through) == (
        "unrouted",
        "one.test",
        80,
        PROXY,
    )


# Where a tunnel is not refused, and what is within is.


@pytest.mark.parametrize("kind", ["block", None])
def test_what_is_within_a_tunnel_is_refused_as_if_it_had_been_dialled(
    stage: Stage, proxy: InnerRoute, kind: str | None
) -> None:
    block = kind and stage.route(kind, "api.test")
    client = secured(stage, tunnel(stage, "api.test:443"))
    assert ask(client, b"GET /v1 HTTP/1.1\r\nHost: api.test\r\n\r\n").status == 502
    (entry,) = stage.entries(Exchange)
    assert (entry.outcome, entry.route) == ("blocked" if block else "unrouted", block)
    assert entry.through == PROXY


def test_what_is_within_a_tunnel_reaches_no_more_than_a_dial_would(
    stage: Stage, proxy: InnerRoute
) -> None:
    stage.window.policy = "passthrough"
    stage.route("dns", "rebound.test", "127.0.0.2")
    stage.route("dns", "local.test", "169.254.169.254")
    sock = dial(stage)
    sock.sendall(connect("rebound.test:443"))
    assert read_reply(sock, "CONNECT").status == 403
    sock = tunnel(stage, "169.254.169.254:80")
    sock.sendall(b"hello")
    with pytest.raises(ConnectionResetError):
        sock.recv(1)
    assert "link-local" in stage.entries(TcpConnection)[-1].note


def test_a_refused_connection_is_the_proxys_to_tell(stage: Stage, proxy: InnerRoute) -> None:
    route = stage.tcp("db.test:5432", sequence(refuse(), blackhole(), b"welcome"))
    replies: list[Reply] = []
    for _ in range(2):
        sock = dial(stage)
        sock.sendall(connect("db.test:5432"))
        replies.append(read_reply(sock, "CONNECT"))
    assert [reply.status for reply in replies] == [502, 504]
    assert tunnel(stage, "db.test:5432").recv(100) == b"welcome"
    route.wait_for_call(3)
    assert [f"{call.fault} {call.through}" for call in route.calls] == [
        f"refuse() {PROXY}",
        f"blackhole() {PROXY}",
        f"None {PROXY}",
    ]


@pytest.mark.parametrize(
    ("kind", "early", "outcome", "calls"),
    [
        (None, b"", "unrouted", 0),
        (None, b"hello", "unrouted", 0),
        ("block", b"", "blocked", 1),
        ("intercept_https", b"", "recorded", 0),
        ("intercept_https", b"hello", "unrouted", 0),
        ("intercept_tcp", b"", "recorded", 0),
        ("intercept_tcp", b"hello", "routed", 1),
    ],
)
@pytest.mark.parametrize("is_through", [True, False], ids=["tunnel", "direct"])
def test_a_client_that_resets_before_its_tunnel_is_open_is_one_that_resets_what_it_dials(
    stage: Stage, is_through: bool, kind: str | None, early: bytes, outcome: str, calls: int
) -> None:
    proxy = stage.route("proxy", PROXY)
    route = kind and stage.route(kind, "api.test:5432")
    address = stage.resolve("proxy.test" if is_through else "api.test")
    with stage.ledger.changed:  # so that the gateway reads nothing before the reset has come
        sock = stage.dial(address, 8443 if is_through else 5432)
        sock.sendall((connect("api.test:5432") if is_through else b"") + early)
        reset(sock)
    (entry,) = stage.entries(TcpConnection)
    assert (entry.host, entry.port, entry.outcome) == ("api.test", 5432, outcome)
    assert entry.through == (PROXY if is_through else "")
    assert proxy.call_count == is_through
    assert not isinstance(route, InnerRoute) or route.call_count == calls


# Odd clients.


def test_a_client_of_http_1_0_gets_its_tunnel(stage: Stage, proxy: InnerRoute) -> None:
    stage.tcp("db.test:5432", b"welcome")
    sock = dial(stage)
    sock.sendall(connect("db.test:5432", version="1.0"))
    assert read_head(sock).startswith(b"HTTP/1.1 200 ")
    assert sock.recv(100) == b"welcome"


def test_a_request_for_a_tunnel_has_no_body(stage: Stage, proxy: InnerRoute) -> None:
    sock = dial(stage)
    sock.sendall(connect("api.test:443", "Content-Length: 5"))
    assert read_reply(sock, "CONNECT").status == 400


def test_a_client_may_be_silent_within_its_tunnel(stage: Stage, proxy: InnerRoute) -> None:
    stage.https("api.test", 204)
    sock = tunnel(stage, "api.test:443")
    assert comes_not(sock)
    stage.settle()  # it has been parked
    assert ask(secured(stage, sock)).status == 204


def test_credentials_are_kept_and_shown_without_their_password(
    stage: Stage, proxy: InnerRoute
) -> None:
    login = base64.b64encode(b"ann\x1b:s3cret:x").decode()
    tunnel(stage, "api.test:443", f"Proxy-Authorization: basic {login}").close()
    (call,) = proxy.calls
    assert (call.user, call.password) == ("ann\x1b", "s3cret:x")
    assert call.headers["proxy-authorization"] == f"basic {login}"
    assert str(call) == (
        "CONNECT api.test:443 through proxy.test:8443 (198.18.0.1), as ann\\x1b:***"
    )
    assert "s3cret" not in repr(call)


def test_the_url_that_a_proxy_was_asked_for_is_shown_without_its_secrets(
    stage: Stage, proxy: InnerRoute
) -> None:
    stage.http("one.test", 204)
    ask(dial(stage), get("http://one.test/?api_key=s3cret"))
    (call,) = proxy.calls
    assert call.target == "http://one.test/?api_key=s3cret"
    assert "s3cret" not in f"{call!r} {call}"


@pytest.mark.parametrize("value", ["Bearer x", "Basic ?", "Basic YQ==", "Basic"])
def test_other_credentials_have_no_user(stage: Stage, proxy: InnerRoute, value: str) -> None:
    tunnel(stage, "api.test:443", f"Proxy-Authorization: {value}").close()
    assert (proxy.calls[0].user, proxy.calls[0].password) == (None, None)


@pytest.mark.parametrize("request_bytes", [connect("api.test:443"), get("http://api.test/")])
def test_a_proxy_that_is_asked_within_tls_says_how_it_is_asked(
    stage: Stage, proxy: InnerRoute, request_bytes: bytes
) -> None:
    client = stage.tls("proxy.test", stage.resolve("proxy.test"), 8443)
    method = request_bytes.split()[0].decode()
    assert ask(client, request_bytes, method).status in (421, 502)
    entry = stage.only(Exchange)
    assert entry.outcome == "unrouted"
    assert "by HTTP/1.1 without TLS" in entry.note
    assert "egress.proxy" not in "\n".join(attempt_lines(entry, 1))


def test_a_tunnel_over_http2_is_refused_with_the_same_sentence(
    stage: Stage, proxy: InnerRoute
) -> None:
    client = Http2Client(dial(stage))
    fields = [(":method", "CONNECT"), (":authority", "api.test:443")]
    client.h2.send_headers(1, fields, end_stream=True)
    client.answers[1] = Http2Answer()
    client.flush()
    assert client.answer(1).status == 502
    entry = stage.only(Exchange)
    assert str(entry) == f"CONNECT api.test:443 through {PROXY}"
    assert "by HTTP/1.1 without TLS" in entry.note


def test_http2_is_spoken_within_a_tunnel(stage: Stage, proxy: InnerRoute) -> None:
    stage.http("api.test:50051", 204)
    client = Http2Client(tunnel(stage, "api.test:50051"), "http")
    number = client.begin(host="api.test:50051")
    client.flush()
    assert client.answer(number).status == 204
    assert stage.entries(Exchange)[0].through == PROXY


def test_a_kept_tunnel_belongs_to_the_test_that_uses_it(stage: Stage, proxy: InnerRoute) -> None:
    route = stage.https("api.test", 204)
    client = secured(stage, tunnel(stage, "api.test:443"))
    assert ask(client).status == 204
    stage.settle()
    window = stage.next_window()
    assert ask(client).status == 204
    stage.settle()
    assert [type(entry) for entry in window.entries] == [Exchange]
    assert route.lifetime_count == 2


def test_a_proxy_that_is_declared_later_takes_the_tunnels_of_open_connections(
    stage: Stage,
) -> None:
    stage.http(PROXY, 204, optional=True)
    stage.http("one.test", 205)
    client = dial(stage)
    assert ask(client, get("/").replace(b"whatever", b"proxy")).status == 204
    stage.route("proxy", PROXY)
    assert ask(client, get("http://one.test/")).status == 205


def test_a_proxy_that_is_removed_takes_no_more(stage: Stage, proxy: InnerRoute) -> None:
    stage.http("one.test", 205)
    client = dial(stage)
    assert ask(client, get("http://one.test/")).status == 205
    proxy.remove()
    assert ask(client, get("http://one.test/")).status == 421


@pytest.mark.parametrize("within", ["tls", "plain", "silence"])
@pytest.mark.parametrize("end", ["removed", "ended", "test over"])
def test_an_idle_tunnel_is_closed_when_its_proxy_is_gone(
    stage: Stage, proxy: InnerRoute, within: str, end: str
) -> None:
    stage.https("api.test", 204, optional=True)
    stage.http("api.test:80", 204, optional=True)
    client = tunnel(stage, "api.test:443" if within == "tls" else "api.test:80")
    if within == "tls":
        client = secured(stage, client)
    if within == "silence":
        assert comes_not(client)
    else:
        assert ask(client).status == 204
    stage.settle()
    stage.gateway.revise()
    before = len(stage.window.entries)
    assert comes_not(client)
    if end == "removed":
        proxy.remove()
    elif end == "ended":
        proxy.release()
    stage.gateway.revise(test_over=end == "test over")
    assert client.recv(1) == b""
    assert eventually(lambda: not list(stage.gateway.connections))
    assert len(stage.window.entries) == before


def test_a_kept_connection_to_a_proxy_that_is_gone_is_no_tunnel(
    stage: Stage, proxy: InnerRoute
) -> None:
    stage.http("one.test", 204)
    client = dial(stage)
    assert ask(client, get("http://one.test/")).status == 204
    stage.settle()
    proxy.remove()
    stage.gateway.revise()
    assert comes_not(client)


def test_an_idle_tunnel_through_a_proxy_of_a_wider_scope_outlives_the_test(stage: Stage) -> None:
    declaration = declare(PROXY_KIND, PROXY)
    proxy: InnerRoute = InnerRoute(declaration, scope="module", declared_at="", log=stage.ledger)
    with stage.ledger.changed:
        stage.table.add(proxy)
    stage.https("api.test", 204)
    client = secured(stage, tunnel(stage, "api.test:443"))
    assert ask(client).status == 204
    stage.settle()
    stage.gateway.revise(test_over=True)
    assert ask(client).status == 204
    assert proxy.call_count == 1


def test_http2_within_a_tunnel_is_closed_when_its_proxy_is_gone(
    stage: Stage, proxy: InnerRoute
) -> None:
    stage.http("api.test:50051", 204)
    sock = tunnel(stage, "api.test:50051")
    client = Http2Client(sock, "http")
    number = client.begin(host="api.test:50051")
    client.flush()
    assert client.answer(number).status == 204
    stage.settle()
    stage.gateway.revise(test_over=True)
    assert end_of(sock) == "closed"


def test_a_tunnel_through_two_proxies_is_closed_when_either_is_gone(
    stage: Stage, proxy: InnerRoute
) -> None:
    other = stage.route("proxy", "other.test:3128")
    stage.https("api.test", 204)
    sock = tunnel(stage, "other.test:3128")
    sock.sendall(connect("api.test:443"))
    read_head(sock)
    client = secured(stage, sock)
    assert ask(client).status == 204
    stage.settle()
    other.remove()
    stage.gateway.revise()
    assert client.recv(1) == b""


def test_a_body_passes_on_to_another_server_through_a_proxy(
    stage: Stage, proxy: InnerRoute, server: Upstream
) -> None:
    stage.http("one.test", forward(f"http://127.0.0.1:{server.port}"))
    client = dial(stage)
    for _ in range(2):
        body = ask(client, get("http://one.test/it")).body
        assert body == b'{"real": "/it", "host": "one.test"}'
    tunnelled = tunnel(stage, "one.test:80")
    assert b"/it" in ask(tunnelled, b"GET /it HTTP/1.1\r\nHost: one.test\r\n\r\n").body
