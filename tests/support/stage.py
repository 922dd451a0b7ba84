"""A gateway on loopback, real clients for it, and what it was told to answer: the scene of its tests."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

import dns.message
import h11
import pytest
import trustme

from pytest_egress.agent import netlink
from pytest_egress.gateway.server import Gateway
from pytest_egress.gateway.tls.authority import Authority
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.windows import AttemptContext, Window
from pytest_egress.routes.answers import Connectable
from pytest_egress.routes.declarations import Declaration, declare
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import KINDS
from pytest_egress.routes.table import RouteTable
from pytest_egress.traffic.dns.answers import NameAnswer
from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange
from tests.support.locks import Locks
from tests.support.loopback import LoopbackLink

SECONDS = 10.0  # what is bound to happen, on however slow a machine
ADDRESS = "203.0.113.9"  # dialled as it is, without a name
FIRST, SECOND = "198.18.0.1", "198.18.0.2"  # of the first two names that a target looks up
PORTS = (443, 80, 53, 5432, 8443)
MEGABYTE = 1 << 20
GET = b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n"
KIND_OF = {kind.method: kind for kind in KINDS}

Kind_ = TypeVar("Kind_", bound=Entry)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)


class NoPort:
    """A container where nothing listens."""

    name = "postgres"

    def connect(self, port: int, timeout: float = 5) -> socket.socket:
        raise ConnectionRefusedError


class Stage:
    """A gateway, a client for it, and what it was told to answer: the target's site too."""

    name = "target"
    is_ending = False
    hints: tuple[str, ...] = ()
    proxies: tuple[tuple[str, str], ...] = ()
    hosts: Mapping[str, NameAnswer] = MappingProxyType({})
    search: Sequence[str] = ()
    containers: Mapping[str, Sequence[Connectable]] = MappingProxyType({})

    def __init__(self, ca: trustme.CA, link: LoopbackLink | None = None, **options: Any) -> None:
        destinations = [(a, p) for a in (ADDRESS, FIRST, SECOND) for p in PORTS]
        self.link = link or LoopbackLink([*destinations, None])
        self.ledger, self.window, self.table = Ledger(), Window(), RouteTable()
        self.ledger.window = self.window
        self.was_lost = threading.Event()
        self.trusting = client_context(ca)
        self.gateway = Gateway(self.link, self, Authority(ca), self.ledger, **options)
        self.locks = Locks()
        self.locks.watch(self.gateway, self.ledger)
        self.open = contextlib.ExitStack()
        self.open.callback(self.release_routes)
        self.open.callback(self.gateway.stop)

    def release_routes(self) -> None:
        """End the routes, and with them the threads of their applications."""
        for route in self.table.routes:
            route.release()

    def attempt_context(self) -> AttemptContext:
        with self.ledger.changed:
            return AttemptContext(window=self.window, tables=[self.table])

    def peers(self, name: str) -> Sequence[Connectable]:
        return self.containers.get(name, ())

    def lost(self, text: str) -> None:
        self.ledger.complain(self.window, f"{self.name}: {text}")
        self.was_lost.set()

    def route(self, kind: str, address: str, handler: object = None, **options: Any) -> InnerRoute:
        return self.add(declare(KIND_OF[kind], address, handler, **options))

    def add(self, declaration: Declaration) -> InnerRoute:
        route: InnerRoute = InnerRoute(
            declaration, scope="test", declared_at="test_it.py:7", log=self.ledger
        )
        with self.ledger.changed:
            self.table.add(route)
        self.gateway.revise()
        return route

    def https(self, address: str, handler: object = None, **options: Any) -> InnerRoute:
        return self.route("intercept_https", address, handler, **options)

    def http(self, address: str, handler: object = None, **options: Any) -> InnerRoute:
        return self.route("intercept_http", address, handler, **options)

    def tcp(self, address: str, handler: object = None, **options: Any) -> InnerRoute:
        return self.route("intercept_tcp", address, handler, **options)

    def tls_route(self, address: str, handler: object = None, **options: Any) -> InnerRoute:
        return self.route("intercept_tls", address, handler, **options)

    def next_window(self) -> Window:
        with self.ledger.changed:
            self.window = self.ledger.window = Window()
        return self.window

    def dial(self, address: str = ADDRESS, port: int = 443) -> socket.socket:
        return self.open.enter_context(self.link.dial(address, port))

    def tls(
        self,
        server_name: str | None = "api.test",
        address: str = ADDRESS,
        port: int = 443,
        context: ssl.SSLContext | None = None,
    ) -> ssl.SSLSocket:
        context = context or self.trusting
        sock = context.wrap_socket(self.link.dial(address, port), server_hostname=server_name)
        return self.open.enter_context(sock)

    def strict_tls(self) -> ssl.SSLSocket:
        """A client to which an end that TLS does not tell is an error."""
        sock = self.trusting.wrap_socket(
            self.link.dial(ADDRESS, 443), server_hostname="api.test", suppress_ragged_eofs=False
        )
        return self.open.enter_context(sock)

    def query(self, name: str, kind: str = "A") -> dns.message.Message:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(SECONDS)
            query = dns.message.make_query(name, kind)
            sock.sendto(query.to_wire(), self.link.dns[0].getsockname())
            return dns.message.from_wire(sock.recv(4096))

    def resolve(self, name: str) -> str:
        return str(self.query(name).answer[0][0])

    def settle(self) -> None:
        """Wait until all that was sent has been handled."""
        self.gateway.flush(SECONDS)
        # Nothing tells when bytes have been read that begin no attempt.
        assert eventually(lambda: not self.gateway.unread() and not self.window.activities)

    def entries(self, kind: type[Kind_]) -> list[Kind_]:
        self.settle()
        return [entry for entry in self.window.entries if isinstance(entry, kind)]

    def count(self, path: str) -> int:
        """How many requests to a path have been recorded so far."""
        with self.ledger.changed:
            exchanges = [e for e in self.window.entries if isinstance(e, Exchange)]
        return sum(exchange.request.path == path for exchange in exchanges)

    def only(self, kind: type[Kind_]) -> Kind_:
        """The only entry there is, DNS apart."""
        self.settle()
        (entry,) = (e for e in self.window.entries if not isinstance(e, DnsQuery))
        assert isinstance(entry, kind)
        return entry


@contextlib.contextmanager
def staged(ca: trustme.CA, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A stage that is open; its upstreams are those of `outside` where the test uses that."""
    stage = Stage(ca)
    with stage.open:
        if "outside" in request.fixturenames:
            request.getfixturevalue("outside").near(stage.gateway.start)
        else:
            stage.gateway.start()
        yield stage
    assert not stage.window.complaints
    assert not stage.locks.broken


def client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    ca.configure_trust(context)
    return context


def read_reply(sock: socket.socket, method: str = "GET") -> Reply:
    """Read the answer to one request, however it was sent."""
    sock.settimeout(SECONDS)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "api.test")]))
    client.send(h11.EndOfMessage())
    reply, interim, body = None, [], []
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(sock.recv(65536))
        elif isinstance(event, h11.InformationalResponse):
            interim.append(event.status_code)
        elif isinstance(event, h11.Response):
            headers = {name.decode(): value.decode() for name, value in event.headers}
            reply = Reply(event.status_code, headers, interim=interim)
        elif isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            assert reply is not None
            reply.body, reply.trailers = b"".join(body), list(event.headers)
            return reply
        else:
            raise AssertionError(f"no answer: {event!r}")


def ask(sock: socket.socket, request: bytes = GET, method: str = "GET") -> Reply:
    sock.sendall(request)
    return read_reply(sock, method)


def end_of(sock: socket.socket) -> str:
    """Read to the end, and say how TCP saw it come."""
    sock.settimeout(SECONDS)
    try:
        while socket.socket.recv(sock, 65536):
            pass
    except ConnectionResetError:
        return "reset"
    return "closed"


def comes_not(sock: socket.socket) -> bool:
    """Whether nothing comes for a moment."""
    sock.settimeout(0.2)
    try:
        sock.recv(1)
    except TimeoutError:
        sock.settimeout(SECONDS)
        return True
    return False


def drain(sock: socket.socket) -> None:
    sock.settimeout(SECONDS)
    while sock.recv(65536):
        pass


def hello_bytes(ca: trustme.CA, server_name: str = "api.test") -> bytes:
    outgoing = ssl.MemoryBIO()
    client = client_context(ca).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def leave_within_handshake(sock: socket.socket, ca: trustme.CA, server_name: str) -> None:
    """Read all that the server sends in a handshake, and close: as a client that says nothing by an alert."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(ca).wrap_bio(incoming, outgoing, server_hostname=server_name)
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            incoming.write(sock.recv(65536))
    sock.close()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def log_of(
    protocol: int, destination: str, transport: bytes, number: bytes = b"", prefix: bytes = b""
) -> bytes:
    """What the kernel's packet log says of an IPv4 packet (linux/netfilter/nfnetlink_log.h)."""
    header = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(transport), 0, 0, 64, protocol, 0),
        *map(socket.inet_aton, ("192.0.2.1", destination)),
    )
    sequence = netlink.attribute(12, number) if number else b""
    sequence += netlink.attribute(10, prefix + b"\0") if prefix else b""
    packet = netlink.attribute(9, header + transport)
    return netlink.message(4 << 8, 0, bytes(4) + packet + sequence)


def udp(port: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", 5000, port, 8 + len(payload), 0) + payload


def expects_a_message(sock: socket.socket) -> None:
    assert sock.recv(100) == b"hello"


def greets(sock: socket.socket) -> None:
    sock.sendall(b"220 mail.test\r\n")
    assert sock.recv(100) == b"hello"
