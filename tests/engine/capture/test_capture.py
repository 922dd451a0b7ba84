"""What a captured namespace brings to the link: connections and queries."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_egress.targets.sidecars.sidecar import AnyLink
from tests.support.target_shell import (
    LINK,
    QUERY,
    Target,
    accepted,
    is_silent,
    packets,
    readable,
)

# ------------------------------------------------------------------ TCP


@pytest.mark.parametrize(
    "destination",
    [
        ("203.0.113.9", 443),
        ("2001:db8::9", 8443),
        ("169.254.169.254", 80),
        ("10.213.0.9", 22),
        ("203.0.113.53", 53),
        ("127.0.0.11", 53),
    ],
)
def test_a_connection_arrives_with_the_destination_that_was_dialled(
    link: AnyLink, target: Target, destination: tuple[str, int]
) -> None:
    target.python(f"socket.create_connection({destination}, 10).sendall(b'hello')")
    with accepted(link) as connection:
        assert link.destination(connection) == destination
        assert connection.recv(5) == b"hello"


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_a_socket_that_is_bound_to_the_interface_is_captured(
    link: AnyLink, target: Target, family: str
) -> None:
    address = "203.0.113.9" if family == "AF_INET" else "2001:db8::9"
    target.python(f"""
        bound = socket.socket(socket.{family})
        bound.settimeout(10)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        bound.connect(({address!r}, 4444))
    """)
    with accepted(link) as connection:
        assert link.destination(connection) == (address, 4444)


CONNECTIONS: dict[str, tuple[str, tuple[str, int] | tuple[str, int, int, int], str]] = {
    "IPv4-mapped": ("socket.AF_INET6", ("::ffff:203.0.113.9", 443), "pass"),
    "link-local": ("socket.AF_INET6", ("fe80::9", 443, 0, 2), "pass"),
    "the last port": ("socket.AF_INET", ("203.0.113.9", 65535), "pass"),
    "the last port of IPv6": ("socket.AF_INET6", ("2001:db8::9", 65535), "pass"),
    "multipath": ("socket.AF_INET, socket.SOCK_STREAM, 262", ("203.0.113.9", 443), "pass"),
    "multipath of IPv6": ("socket.AF_INET6, socket.SOCK_STREAM, 262", ("2001:db8::9", 443), "pass"),
    "fast open": (
        "socket.AF_INET",
        ("203.0.113.9", 443),
        "sender.setsockopt(socket.IPPROTO_TCP, 30, 1)",  # TCP_FASTOPEN_CONNECT
    ),
    "the last port from the interface": (
        "socket.AF_INET",
        ("203.0.113.9", 65535),
        "sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0')",
    ),
    "an own source": ("socket.AF_INET", ("203.0.113.9", 443), "sender.bind(('10.213.0.2', 0))"),
}


@pytest.mark.parametrize("kind", CONNECTIONS)
def test_a_connection_of_any_kind_of_socket_arrives(
    link: AnyLink, target: Target, kind: str
) -> None:
    arguments, destination, prepare = CONNECTIONS[kind]
    scope = "socket.if_nametoindex('eth0')"
    dialled = str(destination).replace(" 2)", f" {scope})")
    target.python(f"""
        sender = socket.socket({arguments})
        sender.settimeout(10)
        {prepare}
        sender.connect({dialled})
        sender.sendall(b"hello")
    """)
    with accepted(link) as connection:
        address, port = destination[0], destination[1]
        assert link.destination(connection) == (address.removeprefix("::ffff:"), port)
        assert connection.recv(5) == b"hello"
    assert packets(link) == []


@pytest.mark.skipif(LINK == "stream", reason="its listener is not in the namespace")
def test_a_target_that_dials_the_listener_is_local(link: AnyLink, target: Target) -> None:
    for listener in link.tcp:
        target.python(f"socket.create_connection({listener.getsockname()[:2]}, 10)")
        with accepted(link) as connection:
            assert link.destination(connection) is None


def test_loopback_and_own_addresses_stay_with_the_target(link: AnyLink, target: Target) -> None:
    reached = target.python("""
        for address in ("127.0.0.1", "127.1.2.3", "::1", "10.213.0.2", "fd00:213::2"):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = socket.create_server((address, 0), family=family)
            client = socket.create_connection(server.getsockname()[:2], 10)
            print(server.accept()[1][0] != "", end=" ")
    """)
    assert reached == "True True True True True"
    assert is_silent(link.tcp)


@pytest.mark.parametrize(
    "server", ["203.0.113.53", "2001:db8::53", "127.0.0.11", "127.0.0.53", "192.0.2.53"]
)
def test_a_query_to_any_server_arrives_and_its_answer_returns(
    link: AnyLink, target: Target, server: str
) -> None:
    snippet = f"""
        family = socket.AF_INET6 if ":" in {server!r} else socket.AF_INET
        query = socket.socket(family, socket.SOCK_DGRAM)
        query.settimeout(10)
        query.connect(({server!r}, 53))
        query.send({QUERY!r})
        print(query.recv(100).decode())
    """
    with ThreadPoolExecutor() as pool:
        printed = pool.submit(target.python, snippet)
        sock = readable(link.dns)
        query, client = sock.recvfrom(100)
        assert query == QUERY
        sock.sendto(b"answer", client)
        assert printed.result() == "answer"


def test_the_configured_resolver_is_captured(link: AnyLink, target: Target) -> None:
    target.start_python("socket.getaddrinfo('api.example.test', 443)")
    query, _ = readable(link.dns).recvfrom(512)
    assert b"\3api\7example\4test\0" in query


def test_a_resolver_of_the_targets_own_keeps_its_queries(link: AnyLink, target: Target) -> None:
    printed = target.python("""
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            server, client = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
            server.bind((address, 53))
            client.settimeout(10)
            client.connect((address, 53))
            client.send(b"query")
            server.sendto(b"own answer", server.recvfrom(100)[1])
            print(client.recv(100).decode(), end=";")
    """)
    assert printed == "own answer;own answer;"
    while not is_silent(link.dns):  # a name that an earlier test's client asks for again
        assert readable(link.dns).recv(512) != b"query"
