"""What a container reaches by a route, a pattern or a policy that lets traffic through, and what it never does."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

import pytest_egress.gateway.upstream.exchange as upstream
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.upstream.reach import reserved
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward
from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.http.request import Request
from tests.support.loopback import LoopbackLink
from tests.support.outside import EDGE, FAR, NEAR, NEAR6, REAL, Outside, ip
from tests.support.stage import SECONDS, Stage, ask, end_of

OWN = "own.test"  # 127.0.0.1


pytestmark = pytest.mark.usefixtures("outside")


class HostServer:
    """A server of HTTP that tells at which of its addresses it was asked, and for which Host."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self.hosts: list[str] = []
        self._listener, self._context = listener, context
        self.ca: trustme.CA
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.asked.append(sock.getsockname()[0])
                with contextlib.suppress(OSError), sock:
                    self._answer(sock)

    def _answer(self, sock: socket.socket) -> None:
        sock.settimeout(SECONDS)
        if self._context is not None:
            sock = self._context.wrap_socket(sock, server_side=True)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (piece := sock.recv(1000)):
                return
            head += piece
        fields = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
        self.hosts += [value for name, _, value in fields if name.lower() == "host"]
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal")
        sock.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(SECONDS)
        self._listener.close()


@pytest.fixture
def own(outside: Outside) -> Iterator[HostServer]:
    """A service of the machine's own, at port 80 of all of its addresses."""
    listener = outside.near(
        lambda: socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
    )
    with contextlib.closing(HostServer(listener)) as server:
        yield server


@pytest.fixture
def real(outside: Outside) -> Iterator[HostServer]:
    """A server at port 80 of every address that is not the machine's."""
    with contextlib.closing(HostServer(outside.listen(80))) as server:
        yield server


def get(stage: Stage, name: str, host: str | None = None) -> tuple[int, str]:
    """Status and body of what a client is answered that asks for a name, by plain HTTP."""
    client = stage.dial(stage.resolve(name), 80)
    reply = ask(client, f"GET / HTTP/1.1\r\nHost: {host or name}\r\n\r\n".encode())
    return reply.status, reply.body.decode()


# Addresses.


@pytest.mark.parametrize(
    ("address", "what"),
    [
        *[(address, "loopback") for address in ("127.0.0.1", "127.9.9.9", "::1")],
        *[(f"{prefix}127.0.0.1", "loopback") for prefix in ("::ffff:", "::ffff:0:", "::")],
        *[(f"{prefix}:7f00:1", "loopback") for prefix in ("64:ff9b:", "::ffff")],
        ("2002:7f00:1::7", "loopback"),
        *[
            (f"64:ff9b:1:{rest}", "loopback")  # of prefixes of 48, 56, 64 and 96 bits
            for rest in ("7f00:0:100::", "ab7f:0:1::", "abcd:7f:0:100:0", "abcd:0:ef01:7f00:1")
        ],
        ("64:ff9b:1::169.254.169.254", "link-local"),
        *[(address, "unspecified, which means loopback") for address in ("0.0.0.0", "::")],
        *[(address, "unspecified, which means loopback") for address in ("0.1.2.3", "::ffff:0:0")],
        *[(address, "link-local") for address in ("169.254.169.254", "fe80::1", "fe80::1%lo")],
        *[(address, "multicast") for address in ("224.0.0.1", "ff02::1")],
        *[(each, "an address of the machine that runs the tests") for each in (NEAR, NEAR6)],
        (f"::ffff:{NEAR}", "an address of the machine that runs the tests"),
        ("198.51.100.9", "an address of the machine that runs the tests"),  # a second one
        ("192.0.2.77", "an address of the machine that runs the tests"),  # of a local network
        *[(address, "") for address in (REAL, FAR, "198.51.100.10", "192.0.3.1", "2001:db8::9")],
        *[(address, "") for address in ("::ffff:203.0.113.9", "2002:cb00:7109::1")],
        *[(f"64:ff9b:1:{rest}", "") for rest in (":203.0.113.9", "cb00:71:900::")],
    ],
)
def test_an_address_is_told_by_what_the_kernel_does_with_it(
    address: str, what: str, second_addresses: Outside
) -> None:
    assert second_addresses.near(reserved, address) == what


@pytest.fixture(scope="module")
def second_addresses(outside: Outside) -> Outside:
    outside.near(ip, "address add 198.51.100.9/24 dev near0")
    outside.near(ip, "route add local 192.0.2.0/24 dev lo")
    return outside


# This machine's own services.

RESERVED = {
    OWN: "127.0.0.1 is loopback",
    "own6.test": "::1 is loopback",
    "mapped.test": "::ffff:127.0.0.1 is loopback",
    "near.test": f"{NEAR} is an address of the machine that runs the tests",
    "near6.test": f"{NEAR6} is an address of the machine that runs the tests",
    "metadata.test": "169.254.169.254 is link-local",
    "many.test": "224.0.0.7 is multicast",
    "none.test": "0.0.0.0 is unspecified, which means loopback",
    "0x7f000001": "127.0.0.1 is loopback",
    "0x7f.0x1": "127.0.0.1 is loopback",
}


@pytest.mark.parametrize("name", RESERVED)
def test_what_lets_any_host_through_reaches_nothing_of_this_machine(
    stage: Stage, own: HostServer, name: str
) -> None:
    stage.route("passthrough", "*")
    with contextlib.suppress(ConnectionResetError):
        assert end_of(stage.dial(stage.resolve(name), 80)) == "reset"
    (entry,) = stage.entries(TcpConnection)
    assert entry.note.startswith(f"{name}:80 is not reached: {RESERVED[name]}. ")
    assert own.asked == []


@pytest.mark.parametrize("name", RESERVED)
def test_the_policy_reaches_nothing_of_this_machine(
    stage: Stage, own: HostServer, name: str
) -> None:
    stage.window.policy = "passthrough"
    with contextlib.suppress(ConnectionResetError):
        assert end_of(stage.dial(stage.resolve(name), 80)) == "reset"
    (entry,) = stage.entries(TcpConnection)
    assert entry.note.startswith(f"{name}:80 is not reached: {RESERVED[name]}. ")
    assert own.asked == []


@pytest.mark.parametrize("name", RESERVED)
def test_a_pattern_with_a_forward_reaches_nothing_of_this_machine(
    stage: Stage, own: HostServer, name: str
) -> None:
    stage.http("*", forward())
    status, body = get(stage, name)
    assert (status, own.asked) == (502, [])
    assert body.startswith(f"pytest-egress: {name}:80 is not reached: {RESERVED[name]}. ")


@pytest.mark.parametrize("address", [NEAR, "127.0.0.1", "169.254.169.254"])
def test_a_network_of_addresses_reaches_none_of_this_machines_own(
    ca: trustme.CA, outside: Outside, own: HostServer, address: str
) -> None:
    stage = Stage(ca, LoopbackLink([(address, 80)]))
    with stage.open:
        outside.near(stage.gateway.start)
        stage.http("0.0.0.0/0", forward())
        reply = ask(stage.dial(address, 80))
        assert (reply.status, own.asked) == (502, [])
        assert f"{address}:80 is not reached: {address} is " in reply.body.decode()


@pytest.mark.parametrize("host", ["2130706433", "017700000001", "127.1", "0", "localhost"])
def test_a_number_that_the_resolver_takes_for_an_address_is_one(
    outside: Outside, own: HostServer, host: str
) -> None:
    with pytest.raises(UpstreamError, match=f"^{host}:80 is not reached: .* it: the line$"):
        outside.near(upstream.connect, host, 80, "the line")
    assert own.asked == []


def test_of_several_addresses_the_others_are_reached(
    stage: Stage, own: HostServer, real: HostServer
) -> None:
    stage.http("*", forward())
    assert get(stage, "both.test") == (200, "real")
    assert (own.asked, real.asked) == ([], [EDGE])


def test_a_host_is_reached_that_a_route_names(stage: Stage, own: HostServer) -> None:
    stage.http(OWN, forward())
    stage.route("passthrough", "near.test")
    assert get(stage, OWN) == (200, "real")
    assert get(stage, "near.test") == (200, "real")
    assert own.asked == ["::ffff:127.0.0.1", f"::ffff:{NEAR}"]


def test_a_host_is_reached_that_a_forward_names(stage: Stage, own: HostServer) -> None:
    stage.http("*.test", forward("http://127.0.0.1:80"))
    stage.http("by-name.test", forward(f"http://{OWN}:80"))
    assert get(stage, "a.test") == (200, "real")
    assert get(stage, "by-name.test") == (200, "real")


def test_a_handler_reaches_the_host_that_its_route_or_itself_names(
    stage: Stage, own: HostServer
) -> None:
    stage.http(OWN, lambda request: request.forward())
    stage.http("*.test", lambda request: request.forward("http://127.0.0.1:80"))
    assert get(stage, OWN) == (200, "real")
    assert get(stage, "a.test") == (200, "real")


def test_a_handler_of_a_pattern_reaches_nothing_of_this_machine(
    stage: Stage, own: HostServer
) -> None:
    stage.http("*.test", lambda request: request.forward())
    assert get(stage, OWN)[0] == 500
    error = stage.only(Exchange).error
    assert isinstance(error, UpstreamError)
    assert str(error) == (
        "own.test:80 is not reached: 127.0.0.1 is loopback. "
        'Only what names this very host reaches it: request.forward("http://own.test:80")'
    )
    assert own.asked == []


@pytest.mark.parametrize("name", [OWN, "near.test", "0x7f000001"])
@pytest.mark.parametrize("how", ["passthrough", "policy", "forward", "tcp"])
def test_the_line_that_an_error_shows_reaches_the_host(
    stage: Stage, own: HostServer, name: str, how: str
) -> None:
    if how == "passthrough":
        stage.route("passthrough", "*")
    elif how == "policy":
        stage.window.policy = "passthrough"
    elif how == "tcp":
        stage.tcp("*", forward())
    else:
        stage.http("*", forward())
    with contextlib.suppress(ConnectionError, AssertionError):
        get(stage, name)
    stage.settle()
    (note,) = {entry.note for entry in stage.window.entries if entry.note}
    line = note.partition("reaches it: ")[2]
    assert line.startswith("egress.")
    eval(line, {"egress": Declaring(stage), "forward": forward})
    assert get(stage, name) == (200, "real")


class Declaring:
    """Declares routes as the object of a test does."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        return lambda address, answer=None: self.stage.route(kind, address, answer)


def test_a_host_that_a_handler_puts_in_its_place_is_named_by_nobody(
    stage: Stage, own: HostServer
) -> None:
    stage.http("api.test", lambda request: dataclasses.replace(request, host=OWN).forward())
    assert get(stage, "api.test")[0] == 500
    error = stage.only(Exchange).error
    assert 'reaches it: request.forward("http://own.test:80")' in str(error)
    assert own.asked == []


def test_a_host_that_a_handler_puts_in_its_place_is_that_of_the_request(
    stage: Stage, real: HostServer
) -> None:
    @stage.http("api.test")
    def handler(request: Request) -> Any:
        return dataclasses.replace(request, host="real.test").forward()

    assert get(stage, "api.test") == (200, "real")
    assert (real.asked, real.hosts) == ([REAL], ["real.test"])


# What no route claims.


@pytest.fixture
def secure(stage: Stage, outside: Outside) -> Iterator[HostServer]:
    """A server at port 443 of every address that is not the machine's, which this machine trusts."""
    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("api.test", "edge.test", "real.test").configure_cert(context)
    other.configure_trust(stage.gateway.upstreams.tls())
    with contextlib.closing(HostServer(outside.listen(443), context)) as server:
        server.ca = other
        yield server


def test_under_the_policy_a_claimed_host_is_not_reached_by_the_server_name_of_another(
    stage: Stage, secure: HostServer
) -> None:
    stage.window.policy = "passthrough"
    route = stage.https("api.test", {"id": 1})
    client = stage.tls("real.test", stage.resolve("api.test"))
    reply = ask(client, b"GET / HTTP/1.1\r\nHost: real.test\r\n\r\n")
    assert (reply.status, secure.asked, route.call_count) == (502, [], 0)
    assert judge(stage.window, []) is not None


def test_a_pattern_leads_to_no_host_that_another_route_claims(
    stage: Stage, secure: HostServer, ca: trustme.CA
) -> None:
    stage.route("passthrough", "*.test")
    stage.https("api.test", {"id": 1}, optional=True)
    trusting = ssl.create_default_context()
    secure.ca.configure_trust(trusting)
    client = stage.tls("real.test", stage.resolve("api.test"), context=trusting)
    assert ask(client, b"GET / HTTP/1.1\r\nHost: real.test\r\n\r\n").body == b"real"
    assert secure.asked == [REAL]  # by its name, and not where it dialled


@pytest.mark.parametrize("kind", ["intercept_http", "passthrough", "block", "intercept_tcp"])
def test_under_the_policy_a_claimed_host_is_not_reached_by_another_name(
    stage: Stage, real: HostServer, kind: Any
) -> None:
    stage.window.policy = "passthrough"
    stage.route(kind, "api.test")
    assert get(stage, "edge.test", host="api.test")[0] == 421
    assert real.asked == []
    assert (judge(stage.window, []) is not None) == kind.startswith("intercept")
    assert get(stage, "edge.test") == (200, "real")
    assert real.asked == [EDGE]


def test_under_the_policy_what_is_unclaimed_goes_where_it_was_dialled(
    stage: Stage, secure: HostServer
) -> None:
    stage.window.policy = "passthrough"
    stage.https("api.test", {"id": 1})
    trusting = ssl.create_default_context()
    secure.ca.configure_trust(trusting)
    client = stage.tls("real.test", stage.resolve("edge.test"), context=trusting)
    assert ask(client, b"GET / HTTP/1.1\r\nHost: real.test\r\n\r\n").body == b"real"
    assert secure.asked == [EDGE]
    assert judge(stage.window, []) is None
