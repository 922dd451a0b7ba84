"""Datagrams of UDP, answered and recorded: what senders in a container see."""

from __future__ import annotations

import pytest

from pytest_egress import (
    Datagram,
    DatagramFlow,
    Egress,
    PacketAttempt,
    UnroutedError,
    delayed,
    refuse,
    sequence,
    silence,
)
from pytest_egress.targets.handle import Container
from pytest_egress.traffic.entries import EXTENDED_DATAGRAM
from tests.support.clients import attempts
from tests.support.upstreams import succeed

CLIENT = """
import socket, struct, sys
def sender(family=socket.AF_INET):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(SECONDS)
    return sock
def attempt(action):
    try:
        return action()
    except OSError as error:
        return type(error).__name__
def ask(data, to, sock=None):
    sock = sock or sender()
    def there_and_back():
        sock.sendto(data, to)
        return sock.recvfrom(65535)[0]
    return attempt(there_and_back)
""".replace("SECONDS", "20")


@pytest.fixture(scope="module")
def client(module_egress: Egress, clients_image: str) -> Container:
    """A container with Python that waits for commands; each test answers them with routes of its own."""
    return module_egress.start(clients_image, ["sleep", "infinity"])


def python(client: Container, code: str) -> str:
    return succeed(client.exec(["python3", "-c", CLIENT + code])).strip()


def test_a_recording_route_has_each_datagram_whole(egress: Egress, client: Container) -> None:
    metrics = egress.intercept_udp("statsd.test:8125")
    python(
        client,
        """
sock = sender()
sock.connect(("statsd.test", 8125))
for number in range(200):
    sock.send(b"shop.orders:%d|c" % number)
""",
    )
    metrics.wait_for_call(200)
    assert [call.text for call in metrics.calls] == [f"shop.orders:{n}|c" for n in range(200)]
    (flow,) = attempts(egress, DatagramFlow)
    assert str(flow) == (
        f"UDP statsd.test:8125 ({flow.address}), 200 datagrams of 3290 bytes, first b'shop.orders:0|c'"
    )
    assert flow.client == metrics.calls[0].client


def test_a_handler_answers_from_the_address_that_was_dialled(
    egress: Egress, client: Container
) -> None:
    @egress.intercept_udp("*.clock.test:123")
    def clock(datagram: Datagram) -> bytes:
        return datagram.content[::-1]

    found = python(
        client,
        """
one = sender()
for name in ("a.clock.test", "b.clock.test"):
    one.sendto(name.encode(), (name, 123))
    data, server = one.recvfrom(100)
    print(data.decode(), server == (socket.gethostbyname(name), 123))
six = sender(socket.AF_INET6)
address = socket.getaddrinfo("a.clock.test", 123, socket.AF_INET6)[0][4]
six.sendto(b"six", address)
print(six.recvfrom(100)[0].decode(), sep="")
""",
    )
    assert found.splitlines() == ["tset.kcolc.a True", "tset.kcolc.b True", "xis"]
    assert [call.host for call in clock.calls] == ["a.clock.test", "b.clock.test", "a.clock.test"]


def test_faults_are_loss_delay_duplicates_order_and_refusal(
    egress: Egress, client: Container
) -> None:
    answers = [b"x", b"x"], [delayed(b"1", 0.2), b"2"], silence(), refuse(), None
    route = egress.intercept_udp("a.test:9", sequence(b"one", *answers))
    found = python(
        client,
        """
sock = sender()
sock.connect(("a.test", 9))
def next_of(count):
    return [sock.recv(10) for _ in range(count)]
for count in (1, 2, 2):
    sock.send(b"?")
    print(*next_of(count))
sock.send(b"lost")
sock.send(b"refused")
print(attempt(lambda: sock.recv(10)))
sock.send(b"recorded")
""",
    )
    assert found.splitlines() == ["b'one'", "b'x' b'x'", "b'2' b'1'", "ConnectionRefusedError"]
    assert str(route.wait_for_call(6).content) == "b'recorded'"
    assert [str(call.fault) for call in route.calls[2:5]] == [
        "delayed(b'1', 0.2)",
        "silence()",
        "refuse()",
    ]


def test_the_test_replies_when_it_likes(egress: Egress, client: Container) -> None:
    route = egress.intercept_udp("a.test:9", match=lambda datagram: datagram.content == b"?")
    asking = client.exec(["true"])
    assert asking.exit_code == 0
    import threading

    said: list[str] = []
    thread = threading.Thread(
        target=lambda: said.append(python(client, "print(ask(b'?', ('a.test', 9)))"))
    )
    thread.start()
    route.wait_for_call().reply(b"from the test")
    thread.join()
    assert said == ["b'from the test'"]
    assert route.calls[0].replies == [b"from the test"]


def test_what_no_route_claims_fails_in_its_very_call(clients_image: str) -> None:
    def send() -> None:
        with Egress() as egress:
            egress.intercept_udp("statsd.test:8125", optional=True)
            container = egress.start(clients_image, ["sleep", "infinity"])
            code = "print(*(ask(b'a:1|c', to) for to in (('stats.test', 8125), ('statsd.test', 8126))))"
            assert python(container, code) == "PermissionError PermissionError"

    with pytest.raises(UnroutedError) as caught:
        send()
    text = str(caught.value)
    assert 'to answer it: egress.intercept_udp("stats.test:8125")' in text
    assert "host: 'stats.test' is not 'statsd.test'" in text
    assert "port: 8126 is not 8125" in text


def test_routes_come_and_go_and_the_first_that_fits_decides(
    egress: Egress, client: Container
) -> None:
    def asked(*servers: str) -> list[str]:
        tos = ", ".join(f"({each!r}, 9)" for each in servers)
        return python(client, f"print(*(ask(b'?', to) for to in [{tos}]))").split()

    for each in ("a.test", "b.test", "198.51.100.0/24"):
        egress.block(each)
    assert asked("a.test", "198.51.100.9") == ["PermissionError"] * 2
    route = egress.intercept_udp("a.test:9", b"yes")
    assert asked("a.test", "b.test") == ["b'yes'", "PermissionError"]
    route.remove()
    assert asked("a.test") == ["PermissionError"]
    egress.intercept_udp("*.test", b"any", optional=True)
    egress.intercept_udp("198.51.100.9:9", b"ip")
    found = asked("c.test", "b.test", "198.51.100.9", "198.51.100.8")
    assert found == ["b'any'", "PermissionError", "b'ip'", "PermissionError"]


def test_a_route_of_datagrams_leaves_dns_https_and_connections_alone(
    egress: Egress, client: Container
) -> None:
    egress.intercept_https("api.test", {"is": "http"})
    egress.intercept_udp("api.test", b"udp", optional=True)
    dns = egress.intercept_udp("198.51.100.53:53", b"not a name server")
    curl = ["curl", "--http3", "-sS", "https://api.test/"]
    assert succeed(client.exec(curl)) == '{"is": "http"}'
    code = "print(ask(b'x', ('api.test', 9)), ask(b'?' * 40, ('198.51.100.53', 53)))"
    assert python(client, code) == "b'udp' b'not a name server'"
    dns.assert_called_once()


def test_what_each_kind_of_sender_sees(egress: Egress, client: Container) -> None:
    """Sizes from nothing to the longest, a server of the target's own on the same port, and copies of multicast."""
    route = egress.intercept_udp("*:7", lambda datagram: datagram.content)
    found = python(
        client,
        """
own = sender()
own.bind(("0.0.0.0", 7))
to = ("192.0.2.7", 7)
for size in (0, 1, 1472, 1473, 65507):
    print(len(ask(b"x" * size, to)), end=" ")
print(len(ask(b"x" * 65487, ("2001:db8::7", 7), sender(socket.AF_INET6))))
print(ask(b"x" * 65488, ("2001:db8::7", 7), sender(socket.AF_INET6)))
print(ask(b"own", ("127.0.0.1", 9), own) if False else ask(b"bound", to, own))
wide = sender()
wide.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
print(ask(b"all", ("255.255.255.255", 7), wide), ask(b"group", ("239.1.2.3", 7)))
print(own.recv(10))
segments = sender()
segments.setsockopt(socket.IPPROTO_UDP, 103, 1000)
segments.sendto(b"x" * 2500, to)
print(*sorted(len(segments.recv(2000)) for _ in range(3)))
low = sender()
low.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 3)
print(ask(b"low", to, low))
""",
    )
    assert found.splitlines() == [
        "0 1 1472 1473 65507 65487",
        "PermissionError",
        "b'bound'",
        "b'all' b'group'",
        "b'all'",
        "500 1000 1000",
        "b'low'",
    ]
    assert [call.hops for call in route.calls][-1] == 3
    (long,) = attempts(egress, PacketAttempt)
    long.outcome = "recorded"


def test_what_is_routed_by_its_source_is_an_attempt_and_no_call_of_the_route_on_its_way(
    egress: Egress, client: Container
) -> None:
    """Its address is that of the first router, and the server is among its options (RFC 791, RFC 8754)."""
    route = egress.intercept_udp("*:7", b"answer", optional=True)
    sent = python(
        client,
        r"""
four, six, HOP = sender(), sender(socket.AF_INET6), socket.inet_aton("198.51.100.1")
four.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x83\x07\x04" + HOP + b"\0")
hops = socket.inet_pton(10, "2001:db8::7") + socket.inet_pton(10, "2001:db8::1")
six.setsockopt(socket.IPPROTO_IPV6, 57, struct.pack("!BBBBBBH", 0, 4, 4, 1, 1, 0, 0) + hops)
print(four.sendto(b"four", ("203.0.113.7", 7)), six.sendto(b"six", ("2001:db8::7", 7)))
""",
    )
    assert sent == "4 3"
    found = attempts(egress, PacketAttempt)
    assert {(it.host, it.note) for it in found} == {
        ("198.51.100.1", EXTENDED_DATAGRAM),
        ("2001:db8::1", EXTENDED_DATAGRAM),
    }
    assert not route.calls
    for each in found:
        each.outcome = "recorded"
