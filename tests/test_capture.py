from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest

from pytest_egress.agent.packets import Packet, parse_packets
from pytest_egress.link import DescriptorLink, original_destination, tampering
from pytest_egress.sidecar import agent_archive
from tests.targets import Target, captured_namespace, target_in

SECONDS = 10.0  # what is bound to happen, on however slow a machine


@pytest.fixture(scope="module")
def namespace(
    engine_client: docker.DockerClient, clients_image: str
) -> Iterator[tuple[DescriptorLink, Target]]:
    with (
        captured_namespace(engine_client) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image) as target,
    ):
        yield link, target


@pytest.fixture(scope="module")
def link(namespace: tuple[DescriptorLink, Target]) -> DescriptorLink:
    return namespace[0]


@pytest.fixture
def target(namespace: tuple[DescriptorLink, Target]) -> Target:
    link, target = namespace
    while packets(link):  # what an earlier test left
        pass
    return target


def readable(sockets: tuple[socket.socket, ...], seconds: float = SECONDS) -> socket.socket:
    """The first of the sockets that can be read."""
    ready, _, _ = select.select(sockets, [], [], seconds)
    assert ready, "nothing arrived"
    found = ready[0]
    assert isinstance(found, socket.socket)
    return found


def is_silent(sockets: tuple[socket.socket, ...]) -> bool:
    return not select.select(sockets, [], [], 0)[0]


def accepted(link: DescriptorLink) -> socket.socket:
    return readable(link.tcp).accept()[0]


def packets(link: DescriptorLink) -> list[Packet]:
    """Every packet recorded by now: NFLOG delivers before the client's call returns."""
    found: list[Packet] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found += parse_packets(link.packets.recv(1 << 16, socket.MSG_DONTWAIT))
    return found


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
    link: DescriptorLink, target: Target, destination: tuple[str, int]
) -> None:
    target.python(f"socket.create_connection({destination}, 10).sendall(b'hello')")
    with accepted(link) as connection:
        assert link.destination(connection) == destination
        assert connection.recv(5) == b"hello"


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_a_socket_that_is_bound_to_the_interface_is_captured(
    link: DescriptorLink, target: Target, family: str
) -> None:
    address = "203.0.113.9" if family == "AF_INET" else "2001:db8::9"
    target.python(f"""
        bound = socket.socket(socket.{family})
        bound.settimeout(10)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        bound.connect(({address!r}, 4444))
    """)
    with accepted(link) as connection:
        assert original_destination(connection) == (address, 4444)


def test_a_target_that_dials_the_listener_is_local(link: DescriptorLink, target: Target) -> None:
    for listener in link.tcp:
        target.python(f"socket.create_connection({listener.getsockname()[:2]}, 10)")
        with accepted(link) as connection:
            assert link.destination(connection) is None


def test_loopback_and_own_addresses_stay_with_the_target(
    link: DescriptorLink, target: Target
) -> None:
    reached = target.python("""
        for address in ("127.0.0.1", "127.1.2.3", "::1", "10.213.0.2", "fd00:213::2"):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = socket.create_server((address, 0), family=family)
            client = socket.create_connection(server.getsockname()[:2], 10)
            print(server.accept()[1][0] != "", end=" ")
    """)
    assert reached == "True True True True True"
    assert is_silent(link.tcp)


# ------------------------------------------------------------------ DNS


@pytest.mark.parametrize(
    "server", ["203.0.113.53", "2001:db8::53", "127.0.0.11", "127.0.0.53", "192.0.2.53"]
)
def test_a_query_to_any_server_arrives_and_its_answer_returns(
    link: DescriptorLink, target: Target, server: str
) -> None:
    snippet = f"""
        family = socket.AF_INET6 if ":" in {server!r} else socket.AF_INET
        query = socket.socket(family, socket.SOCK_DGRAM)
        query.settimeout(10)
        query.connect(({server!r}, 53))
        query.send(b"query")
        print(query.recv(100).decode())
    """
    with ThreadPoolExecutor() as pool:
        printed = pool.submit(target.python, snippet)
        sock = readable(link.dns)
        query, client = sock.recvfrom(100)
        sock.sendto(b"answer to " + query, client)
        assert printed.result() == "answer to query"


def test_the_configured_resolver_is_captured(link: DescriptorLink, target: Target) -> None:
    target.start_python("socket.getaddrinfo('api.example.test', 443)")
    query, _ = readable(link.dns).recvfrom(512)
    assert b"\3api\7example\4test\0" in query


def test_a_resolver_of_the_targets_own_keeps_its_queries(
    link: DescriptorLink, target: Target
) -> None:
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


# ------------------------------------------------------------------ what is neither

NEITHER = {
    "udp": (
        "socket.socket(2, 2).sendto(b'hello', ('203.0.113.9', 443))",
        ("UDP", "203.0.113.9", 443, 13, b"hello"),
    ),
    "udp6": (
        "socket.socket(10, 2).sendto(b'hello', ('2001:db8::9', 443))",
        ("UDP", "2001:db8::9", 443, 13, b"hello"),
    ),
    "metadata": (
        "socket.socket(2, 2).sendto(b'hello', ('169.254.169.254', 80))",
        ("UDP", "169.254.169.254", 80, 13, b"hello"),
    ),
    "multicast": (
        "socket.socket(2, 2).sendto(b'hello', ('239.1.1.1', 8125))",
        ("UDP", "239.1.1.1", 8125, 13, b"hello"),
    ),
    "udp-lite": (
        "socket.socket(2, 2, 136).sendto(b'hello', ('203.0.113.9', 99))",
        ("UDP-Lite", "203.0.113.9", 99, 13, b"hello"),
    ),
    "icmp": (
        "socket.socket(2, 2, 1).sendto(b'\\x08' + bytes(7) + b'ping', ('203.0.113.9', 0))",
        ("ICMP", "203.0.113.9", None, 12, b"ping"),
    ),
    "raw": (
        "socket.socket(2, 3, 253).sendto(b'zz', ('203.0.113.9', 0))",
        ("protocol 253", "203.0.113.9", None, 2, b"zz"),
    ),
    "sctp": (
        "socket.socket(2, 3, 132).sendto(struct.pack('!HHII', 5, 36412, 0, 0), ('203.0.113.9', 0))",
        ("SCTP", "203.0.113.9", 36412, 12, b""),
    ),
}


@pytest.mark.parametrize("kind", NEITHER)
def test_what_is_neither_tcp_nor_dns_fails_at_once_and_is_recorded(
    link: DescriptorLink, target: Target, kind: str
) -> None:
    snippet, expected = NEITHER[kind]
    assert target.python(f"print(attempt(lambda: {snippet}))") == "EPERM"
    (packet,) = packets(link)
    seen = packet.protocol_name, packet.destination, packet.port, packet.size, packet.payload
    assert seen == expected


def test_a_connected_udp_socket_is_refused(link: DescriptorLink, target: Target) -> None:
    seen = target.python("""
        for family, address in ((socket.AF_INET, "203.0.113.9"), (socket.AF_INET6, "2001:db8::9")):
            client = socket.socket(family, socket.SOCK_DGRAM)
            client.settimeout(10)
            client.connect((address, 443))
            print(attempt(lambda: client.send(b"hello")), attempt(lambda: client.recv(1)), end=" ")
    """)
    assert seen == "EPERM ECONNREFUSED EPERM ECONNREFUSED"
    assert [it.destination for it in packets(link)] == ["203.0.113.9", "2001:db8::9"]


def test_an_icmpv6_echo_is_refused_and_recorded(link: DescriptorLink, target: Target) -> None:
    assert "ECONNREFUSED" in target.python("""
        echo = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6)
        echo.settimeout(10)
        echo.connect(("2001:db8::9", 0))
        print(attempt(lambda: echo.send(bytes([128, 0, 0, 0, 0, 1, 0, 1]) + b"ping")))
        print(attempt(lambda: echo.recv(100)))
    """)
    (packet,) = packets(link)
    assert (packet.protocol_name, packet.type, packet.payload) == ("ICMPv6", 128, b"ping")


def test_every_packet_has_the_next_number(link: DescriptorLink, target: Target) -> None:
    target.python("""
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for _ in range(500):
            attempt(lambda: client.sendto(b"x" * 500, ("203.0.113.9", 9999)))
    """)
    numbers = [it.sequence for it in packets(link)]
    assert len(numbers) == 500
    assert numbers[0] is not None
    assert numbers == list(range(numbers[0], numbers[0] + 500))


def test_joining_a_multicast_group_is_not_an_attempt(link: DescriptorLink, target: Target) -> None:
    target.python("""
        group = socket.inet_aton("239.1.1.1") + socket.inet_aton("10.213.0.2")
        socket.socket(2, 2).setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        group = socket.inet_pton(10, "ff0e::1") + struct.pack("=I", socket.if_nametoindex("eth0"))
        socket.socket(10, 2).setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    """)
    assert packets(link) == []


# ------------------------------------------------------------------ the namespace


def test_the_namespace_has_no_way_out(target: Target) -> None:
    assert target.python("print(sorted(os.listdir('/sys/class/net')))") == (
        "['egress0', 'eth0', 'lo']"
    )


def test_addresses_are_usable_at_once(target: Target) -> None:
    assert target.python("""
        for family, address in ((socket.AF_INET, "10.213.0.2"), (socket.AF_INET6, "fd00:213::2")):
            socket.socket(family).bind((address, 0))
        print([line.split()[0] for line in open("/proc/net/if_inet6") if "eth0" in line])
    """) == ("['fd000213000000000000000000000002']")


def test_the_host_name_resolves_without_asking(link: DescriptorLink, target: Target) -> None:
    assert target.python("print(socket.gethostbyname(socket.gethostname()))") == "10.213.0.2"


def test_nothing_that_the_tests_did_is_taken_for_tampering(
    link: DescriptorLink, target: Target
) -> None:
    for monitor in link.monitors:
        while not is_silent((monitor,)):
            assert tampering(monitor) is None


# ------------------------------------------------------------------ into the namespace


def greeting(link: DescriptorLink, port: int) -> str:
    """What the server says, as soon as it listens."""
    for _ in range(1000):
        try:
            with link.connect(port, SECONDS) as client:
                client.settimeout(SECONDS)
                return client.recv(100).decode()
        except ConnectionRefusedError:
            select.select([], [], [], 0.01)
    raise AssertionError(f"nothing listens on {port}")


def test_a_port_of_the_target_is_reached_on_whichever_address_it_listens(
    link: DescriptorLink, target: Target
) -> None:
    target.start_python("""
        import threading
        places = ("127.0.0.1", 8001), ("::1", 8002), ("10.213.0.2", 8003), ("fd00:213::2", 8004)
        def serve(place):
            family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
            server = socket.create_server(place, family=family, backlog=200)
            while True:
                with server.accept()[0] as client:
                    client.sendall(place[0].encode())
        for place in places:
            threading.Thread(target=serve, args=(place,)).start()
    """)
    greetings = [greeting(link, port) for port in (8001, 8002, 8003, 8004)]
    assert greetings == ["127.0.0.1", "::1", "10.213.0.2", "fd00:213::2"]
    with ThreadPoolExecutor(8) as pool:  # more than one batch of sockets, from many threads
        many = set(pool.map(lambda _: greeting(link, 8001), range(100)))
    assert many == {"127.0.0.1"}


def test_a_port_where_nothing_listens_refuses(link: DescriptorLink) -> None:
    with pytest.raises(ConnectionRefusedError):
        link.connect(9, SECONDS)


# ------------------------------------------------------------------ the agent and its namespace


def test_capture_refuses_a_namespace_that_is_in_use(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    snippet = """
import os, sys
sys.path.insert(0, "/egress")
from agent.capture import Capture, CaptureError
try:
    Capture()
except CaptureError as error:
    print(error, sorted(os.listdir("/sys/class/net")))
"""
    container = engine_client.containers.create(
        clients_image, ["python3", "-I", "-S", "-c", snippet], cap_add=["NET_ADMIN"]
    )
    try:
        container.put_archive("/", agent_archive())
        container.start()
        container.wait()
        assert container.logs().decode().strip() == (
            "This network namespace is in use: eth0 is up. Capture needs an empty one, a container "
            "with network \"none\"; nothing was changed. ['eth0', 'lo']"
        )
    finally:
        container.remove(force=True)


def test_capture_refuses_a_namespace_that_captures_already(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with (
        captured_namespace(engine_client) as (sidecar, _),
        target_in(engine_client, sidecar, clients_image, cap_add=["NET_ADMIN"]) as target,
    ):
        target.container.put_archive("/", agent_archive())
        text = target.python("""
            sys.path.insert(0, "/egress")
            from agent.capture import Capture, CaptureError
            try:
                Capture()
            except CaptureError as error:
                print(error)
        """)
    assert "egress0, eth0 is up" in text or "eth0, egress0 is up" in text


def test_the_kernels_own_refusal_of_an_expression_is_told(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    snippet = """
import sys
sys.path.insert(0, "/egress")
from agent import nftables
from agent.capture import Capture, CaptureError
real = nftables._expression
nftables._expression = lambda name, *parts: real("redxx" if name == "redir" else name, *parts)
try:
    Capture()
except CaptureError as error:
    print(error)
"""
    container = engine_client.containers.create(
        clients_image,
        ["python3", "-I", "-S", "-c", snippet],
        network_mode="none",
        cap_drop=["ALL"],
        cap_add=["NET_ADMIN"],
    )
    try:
        container.put_archive("/", agent_archive())
        container.start()
        container.wait()
        said = container.logs().decode()
        assert "(redirect of resolver DNS over UDP) (ENOENT). It lacks nf_tables NAT" in said
    finally:
        container.remove(force=True)


# ------------------------------------------------------------------ tampering

TAMPERING = {
    "an address": (
        "netlink.Request('', '', 21, 0, capture._address(socket.AF_INET6, eth0).body)",
        "something deleted an address of ours in the target's network namespace",
    ),
    "a policy rule": (
        "netlink.Request('', '', 33, 0, capture._routes(socket.AF_INET, eth0)[2].body)",
        "something deleted a policy rule in the target's network namespace",
    ),
    "a default route": (
        "netlink.Request('', '', 25, 0, capture._routes(socket.AF_INET, eth0)[0].body)",
        "something deleted a default route in the target's network namespace",
    ),
    "the interface": (
        "capture._link('', eth0, 0, 1)",
        "something shut down the interface eth0 in the target's network namespace",
    ),
    "the rules": (
        "nftables._request('', '', 2, 0, netlink.attribute(1, netlink.text('egress')))",
        "something deleted a rule of nftables in the target's network namespace",
    ),
}

TAMPER = """
sys.path.insert(0, "/egress")
from agent import capture, netlink, nftables
eth0 = socket.if_nametoindex("eth0")
request = {request}
nft = request.kind >> 8
family = netlink.NETFILTER if nft else netlink.ROUTE
capture.ask(capture.open_netlink(family), [request], wrap=bool(nft))
"""


@pytest.fixture(scope="module")
def hostile(
    engine_client: docker.DockerClient, clients_image: str
) -> Iterator[tuple[DescriptorLink, Target]]:
    with (
        captured_namespace(engine_client) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image, cap_add=["NET_ADMIN"]) as target,
    ):
        target.container.put_archive("/", agent_archive())
        yield link, target


def events(link: DescriptorLink) -> list[str]:
    """What the monitors tell by now: the kernel delivers before the change's call returns."""
    told: list[str | None] = []
    for monitor in link.monitors:
        while not is_silent((monitor,)):
            told.append(tampering(monitor))
    return [text for text in told if text]


@pytest.mark.parametrize("change", TAMPERING)
def test_a_target_that_changes_what_captures_is_told_of(
    hostile: tuple[DescriptorLink, Target], change: str
) -> None:
    link, target = hostile
    request, expected = TAMPERING[change]
    events(link)
    target.python(TAMPER.replace("{request}", request))
    assert expected in events(link)


def test_a_target_may_make_an_interface_of_its_own(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with (
        captured_namespace(engine_client) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image, cap_add=["NET_ADMIN"]) as target,
    ):
        target.container.put_archive("/", agent_archive())
        for name in ("tun7", "tun8"):
            attributes = f"netlink.attribute(3, b'{name}\\0')"
            kind = "netlink.nest(18, netlink.attribute(1, b'veth\\0'))"
            body = f"capture._interface() + {attributes} + {kind}"
            target.python(
                TAMPER.replace("{request}", f"netlink.Request('', '', 16, netlink.NEW, {body})")
            )
        assert not all(is_silent((monitor,)) for monitor in link.monitors)
        assert events(link) == []
        assert tampering(link.monitors[0]) is None  # with nothing to read it does not wait
