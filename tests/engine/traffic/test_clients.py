"""Real clients in real containers: who trusts the CA untold, and what becomes of names, requests and packets."""

from __future__ import annotations

import json
import os
import textwrap
from typing import Any

import dns.message
import dns.rdatatype
import pytest
import trustme

import pytest_egress.targets.container as containers
from pytest_egress import CallError, Egress, Request, Response
from pytest_egress.targets.handle import Container
from pytest_egress.targets.results import CompletedContainer
from pytest_egress.targets.sidecars.provision import LINK_VARIABLE
from pytest_egress.targets.trust.runtimes import DIRECTORY, VARIABLES
from pytest_egress.traffic.entries import DnsQuery, Entry, PacketAttempt, TcpConnection

URL = "https://api.example.test/greeting"


@pytest.fixture(scope="module")
def client(module_egress: Egress, clients_image: str) -> Container:
    """A container that waits for commands; each test answers them with routes of its own."""
    return module_egress.start(clients_image, ["sleep", "infinity"], cap_add=["NET_RAW"])


def python(client: Container, code: str, *args: str) -> str:
    """What a snippet of Python prints inside, stripped; a failure of it is one of the test."""
    command = ["python3", "-c", textwrap.dedent(code), *args]
    return succeed(client.exec(command, timeout=1100))  # on however slow a machine


def succeed(result: CompletedContainer) -> str:
    """The output of a command that succeeded, stripped."""
    assert result.exit_code == 0, result.stdout + result.stderr
    return result.stdout.strip()


# HTTPS without a word to the client.

S_CLIENT = (
    "printf 'GET /greeting HTTP/1.1\\r\\nHost: api.example.test\\r\\nConnection: close\\r\\n\\r\\n'"
    " | openssl s_client -quiet -verify_return_error -verify_hostname api.example.test"
    " -servername api.example.test -connect api.example.test:443"
)
HTTPS_CLIENTS = {
    "curl": ["curl", "-fsS", URL],
    "python-urllib": [
        "python3",
        "-c",
        f"import urllib.request as u; print(u.urlopen({URL!r}).read().decode())",
    ],
    "python-requests": ["python3", "-c", f"import requests; print(requests.get({URL!r}).text)"],
    "python-httpx": ["python3", "-c", f"import httpx; print(httpx.get({URL!r}).text)"],
    "node-https": ["node", "-e", f"require('https').get({URL!r}, r => r.pipe(process.stdout))"],
    "node-fetch": [
        "node",
        "-e",
        f"fetch({URL!r}).then(r => r.text()).then(text => console.log(text))",
    ],
    "openssl-s_client": ["sh", "-c", S_CLIENT],
}


@pytest.mark.parametrize("command", HTTPS_CLIENTS.values(), ids=HTTPS_CLIENTS.keys())
def test_a_client_trusts_the_answer_untold(
    egress: Egress, client: Container, command: list[str]
) -> None:
    greeting = egress.intercept_https("api.example.test", {"hello": "world"})
    output = succeed(client.exec(command))
    assert json.loads(output[output.index("{") :]) == {"hello": "world"}
    request = greeting.assert_called_once().request
    assert (request.method, request.url, request.sni) == ("GET", URL, "api.example.test")
    assert request.tls is not None
    assert request.tls.version == "TLSv1.3"
    assert request.container == client.name


def test_git_reads_the_references_of_a_repository_that_is_not_there(
    egress: Egress, client: Container
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"

    def packet(text: str) -> str:
        return f"{len(text) + 4:04x}{text}"

    @egress.intercept_https("git.example.test", path="/repo.git/info/refs")
    def references(request: Request) -> Response:
        assert request.query == {"service": "git-upload-pack"}
        head = packet(f"{commit} HEAD\0agent=git\n") + packet(f"{commit} refs/heads/main\n")
        text = packet("# service=git-upload-pack\n") + "0000" + head + "0000"
        kind = "application/x-git-upload-pack-advertisement"
        return Response(content=text.encode(), headers={"Content-Type": kind})

    listed = succeed(client.exec(["git", "ls-remote", "https://git.example.test/repo.git"]))
    assert listed.split() == [commit, "HEAD", commit, "refs/heads/main"]
    references.assert_called_once()


def test_a_client_that_dials_an_address_gets_a_certificate_for_it(
    egress: Egress, client: Container
) -> None:
    four = egress.intercept_https("192.0.2.80", {"family": 4})
    six = egress.intercept_https("2001:db8::80", {"family": 6})
    assert succeed(client.exec(["curl", "-fsS", "https://192.0.2.80/"])) == '{"family": 4}'
    assert succeed(client.exec(["curl", "-fsSg", "https://[2001:db8::80]/"])) == '{"family": 6}'
    assert four.assert_called_once().request.sni is None
    assert six.assert_called_once().request.url == "https://[2001:db8::80]/"


def test_a_user_without_privileges_trusts_it_too(egress: Egress, clients_image: str) -> None:
    egress.intercept_https("api.example.test", {"hello": "nobody"})
    command = ["sh", "-c", f'id -u && curl -fsS {URL} && python3 -c "{FETCH}"']
    output = succeed(egress.run(clients_image, command, user="65534:65534"))
    assert output == '65534\n{"hello": "nobody"}{"hello": "nobody"}'


FETCH = f"import urllib.request as u; print(u.urlopen('{URL}').read().decode())"


# Where the CA is.

CA_PATHS = "/etc/pytest-egress/ca.pem /etc/pytest-egress/bundle.pem"


def cat(container: Container, path: str) -> str:
    return container.exec(["cat", path]).stdout


def test_an_image_without_a_bundle_gets_one(
    egress: Egress, bare_image: str, egress_ca: trustme.CA
) -> None:
    ca = egress_ca.cert_pem.bytes().decode()
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    target = egress.start(bare_image, ["sleep", "infinity"])
    described = target.exec(f"stat --format=%n:%F:%a:%u:%g {bundle} {CA_PATHS}").stdout
    assert described.splitlines() == [
        f"{path}:regular file:644:0:0" for path in (bundle, *CA_PATHS.split())
    ]
    assert [cat(target, path) for path in (bundle, *CA_PATHS.split())] == [ca, ca, ca]


def test_the_images_own_roots_stay_before_the_ca(
    egress: Egress, client: Container, clients_image: str, egress_ca: trustme.CA
) -> None:
    ca = egress_ca.cert_pem.bytes().decode()
    bundle = cat(client, "/etc/ssl/certs/ca-certificates.crt")
    assert bundle.endswith(ca)
    assert bundle.count("BEGIN CERTIFICATE") > 100
    assert cat(client, "/etc/pytest-egress/bundle.pem") == bundle
    assert cat(client, "/etc/pytest-egress/ca.pem") == ca
    described = client.exec("stat --format=%F:%a:%u:%g /etc/ssl/certs/ca-certificates.crt").stdout
    assert described == "regular file:644:0:0\n"


@pytest.mark.docker
def test_bundles_are_extended_behind_their_links_and_keep_owner_and_mode(
    egress: Egress, roots_image: str, egress_ca: trustme.CA
) -> None:
    ca = egress_ca.cert_pem.bytes().decode()
    target = egress.start(roots_image, ["sleep", "infinity"])
    assert cat(target, "/opt/roots/real.pem") == f"roots behind links\n{ca}"
    assert cat(target, "/opt/tls/ca-bundle.crt") == f"roots in a linked folder\n{ca}"
    assert cat(target, "/opt/roots/named.pem") == f"roots that a variable names\n{ca}"
    described = target.exec(
        "stat --format=%N:%a:%u:%g /etc/ssl/cert.pem /etc/ssl/certs/ca-certificates.crt "
        "/opt/roots/middle.pem /opt/roots/real.pem /opt/roots/named.pem /etc/pki/tls/certs"
    ).stdout
    assert described.splitlines() == [
        "'/etc/ssl/cert.pem' -> 'certs/ca-certificates.crt':777:0:0",
        "'/etc/ssl/certs/ca-certificates.crt' -> '../../../opt/roots/middle.pem':777:0:0",
        "'/opt/roots/middle.pem' -> 'real.pem':777:0:0",
        "'/opt/roots/real.pem':640:1234:4321",
        "'/opt/roots/named.pem':444:0:50",
        "'/etc/pki/tls/certs' -> '/opt/tls':777:0:0",
    ]


def test_variables_of_the_image_and_of_the_test_win(egress: Egress, roots_image: str) -> None:
    result = egress.run(roots_image, ["env"], env={"CURL_CA_BUNDLE": "/mine.pem", "RETRIES": "3"})
    found = dict(line.partition("=")[::2] for line in result.stdout.splitlines())
    ours = {variable.name: variable.value(DIRECTORY) for variable in VARIABLES}
    theirs = {"SSL_CERT_FILE": "/opt/roots/named.pem", "CURL_CA_BUNDLE": "/mine.pem"}
    expected = {**ours, **theirs, "RETRIES": "3"}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.docker
def test_a_bundle_in_a_volume_of_the_targets_own_is_extended_there(
    egress: Egress, clients_image: str
) -> None:
    egress.intercept_https("api.example.test", {"hello": "volume"})
    command = ["curl", "-fsS", "--cacert", "/etc/ssl/certs/ca-certificates.crt", URL]
    result = egress.run(clients_image, command, volumes=["/etc/ssl/certs"])
    assert succeed(result) == '{"hello": "volume"}'


# Plain HTTP.


def test_plain_http_is_matched_on_the_name_that_was_dialled(
    egress: Egress, client: Container
) -> None:
    route = egress.intercept_http("plain.example.test", {"scheme": "http"})
    assert succeed(client.exec("curl -fsS http://plain.example.test/x?y=1")) == '{"scheme": "http"}'
    request = route.assert_called_once().request
    assert (request.url, request.tls) == ("http://plain.example.test/x?y=1", None)
    assert request.query == {"y": "1"}


def test_plain_http_to_an_address_is_matched_on_it_and_else_on_host(
    egress: Egress, client: Container
) -> None:
    by_address = egress.intercept_http("192.0.2.10", {"by": "address"})
    by_name = egress.intercept_http("named.example.test", {"by": "name"})
    ask = ["curl", "-fsS", "-H", "Host: named.example.test"]
    assert succeed(client.exec([*ask, "http://192.0.2.10/"])) == '{"by": "address"}'
    assert succeed(client.exec([*ask, "http://192.0.2.11/"])) == '{"by": "name"}'
    by_address.assert_called_once()
    by_name.assert_called_once()


def test_a_post_and_its_answer_cross_whole(egress: Egress, client: Container) -> None:
    size = 3_000_000

    @egress.intercept_https("api.example.test", method="POST")
    def mirror(request: Request) -> bytes:
        return request.content[::-1]

    code = """
        import hashlib, sys, urllib.request
        body = bytes(range(256)) * (int(sys.argv[2]) // 256)
        answer = urllib.request.urlopen(sys.argv[1], data=body).read()
        print(answer == body[::-1], len(answer))
    """
    assert python(client, code, URL, str(size)) == f"True {size // 256 * 256}"
    assert len(mirror.assert_called_once().request.content) == size // 256 * 256


# Names.

ASK = """
import socket, struct, sys
transport, server, query = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
family = socket.AF_INET6 if ":" in server else socket.AF_INET
if transport == "udp":
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.connect((server, 53))  # so that an answer from another address would not be taken
    sock.send(query)
    print(sock.recv(4096).hex())
else:
    sock = socket.create_connection((server, 53), 5)
    sock.sendall(struct.pack("!H", len(query)) + query)
    stream = sock.makefile("rb")
    print(stream.read(*struct.unpack("!H", stream.read(2))).hex())
"""


def ask(
    client: Container, name: str, kind: str, *, server: str = "192.0.2.53", transport: str = "udp"
) -> dns.message.Message:
    """The answer to one query, from inside."""
    query = dns.message.make_query(name, kind)
    output = succeed(client.exec(["python3", "-c", ASK, transport, server, query.to_wire().hex()]))
    answer = dns.message.from_wire(bytes.fromhex(output))
    assert query.is_response(answer)
    return answer


def addresses(answer: dns.message.Message) -> list[str]:
    return [record.address for rrset in answer.answer for record in rrset]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    "server", ["192.0.2.53", "127.0.0.11", "127.0.0.53", "203.0.113.8", "2001:db8::53"]
)
def test_a_name_is_answered_whichever_server_is_asked(
    egress: Egress, client: Container, server: str, transport: str
) -> None:
    answer = ask(client, "db.example.test", "A", server=server, transport=transport)
    assert answer.rcode() == dns.rcode.NOERROR
    (address,) = addresses(answer)
    assert address.startswith("198.18.")
    (query,) = egress.ledger
    assert isinstance(query, DnsQuery)
    assert (query.host, query.type, query.answer) == ("db.example.test", "A", (address,))
    assert (query.rcode, query.outcome, query.container) == ("NOERROR", "recorded", client.name)


def test_a_name_has_an_address_of_each_family_and_nothing_else(
    egress: Egress, client: Container
) -> None:
    four = addresses(ask(client, "one.example.test", "A"))
    six = addresses(ask(client, "one.example.test", "AAAA"))
    assert addresses(ask(client, "two.example.test", "A")) not in ([], four)
    assert [len(four), len(six)] == [1, 1]
    for kind in ("MX", "TXT", "HTTPS", "SRV"):
        answer = ask(client, "one.example.test", kind)
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    asked = [entry.type for entry in egress.ledger if isinstance(entry, DnsQuery)]
    assert asked == ["A", "AAAA", "A", "MX", "TXT", "HTTPS", "SRV"]


def test_the_name_of_an_address_that_was_dialled_is_known(
    egress: Egress, client: Container
) -> None:
    route = egress.intercept_https("api.example.test")
    (address,) = addresses(ask(client, "api.example.test", "A"))
    succeed(client.exec(["curl", "-fsSk", "-H", "Host: api.example.test", f"https://{address}/"]))
    request = route.assert_called_once().request
    assert (request.host, request.sni) == ("api.example.test", None)


def test_a_dns_server_of_the_targets_own_on_loopback_keeps_its_queries(
    egress: Egress, client: Container
) -> None:
    code = """
        import socket
        server, asker = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        server.bind(("127.0.0.1", 53))
        asker.settimeout(5)
        asker.sendto(b"a question", ("127.0.0.1", 53))
        question, sender = server.recvfrom(99)
        server.sendto(b"of its own", sender)
        print(question, asker.recvfrom(99))
        listener = socket.create_server(("127.0.0.1", 53))
        over_tcp = socket.create_connection(("127.0.0.1", 53))
        listener.accept()[0].send(b"over TCP")
        print(over_tcp.recv(99))
    """
    assert python(client, code).splitlines() == [
        "b'a question' (b'of its own', ('127.0.0.1', 53))",
        "b'over TCP'",
    ]
    egress.assert_no_egress()
    assert egress.ledger == []


def test_a_name_without_dots_is_not_given_the_search_list_of_the_machine(
    egress: Egress, client: Container
) -> None:
    route = egress.intercept_http("db:8080", {"name": "db"})
    assert succeed(client.exec("curl -fsS http://db:8080/")) == '{"name": "db"}'
    assert route.assert_called_once().request.host == "db"
    assert {entry.host for entry in egress.ledger} == {"db"}


# What no route claims, with unrouted="block" so that the test itself may look at it.


def attempts(egress: Egress, kind: type[Entry]) -> list[Any]:
    return [entry for entry in egress.ledger if isinstance(entry, kind)]


@pytest.mark.egress(unrouted="block")
def test_a_datagram_is_refused_at_once_and_recorded(egress: Egress, client: Container) -> None:
    code = """
        import socket
        for family, address in ((socket.AF_INET, "203.0.113.9"), (socket.AF_INET6, "2001:db8::9")):
            try:
                socket.socket(family, socket.SOCK_DGRAM).sendto(b"metric:1|c", (address, 8125))
            except OSError as error:
                print(error.strerror)
    """
    assert set(python(client, code).splitlines()) <= {
        "Operation not permitted",
        "Permission denied",
    }
    four, six = attempts(egress, PacketAttempt)
    assert (four.protocol, four.host, four.address, four.port) == (
        "UDP",
        "203.0.113.9",
        "203.0.113.9",
        8125,
    )
    assert (six.protocol, six.host, six.port) == ("UDP", "2001:db8::9", 8125)
    for entry in (four, six):
        assert (entry.size, entry.first_bytes) == (8 + 10, b"metric:1|c")  # UDP's header counts
        assert (entry.outcome, entry.container) == ("blocked", client.name)


@pytest.mark.egress(unrouted="block")
def test_a_datagram_to_a_name_is_recorded_under_it(egress: Egress, client: Container) -> None:
    code = """
        import socket
        try:
            socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("statsd.example.test", 8125))
        except OSError as error:
            print(error.strerror)
    """
    assert python(client, code) == "Operation not permitted"
    (entry,) = attempts(egress, PacketAttempt)
    assert (entry.host, entry.port) == ("statsd.example.test", 8125)
    assert entry.address.startswith("198.18.")


@pytest.mark.egress(unrouted="block")
def test_a_ping_fails_and_is_recorded(egress: Egress, client: Container) -> None:
    for option in ("-4", "-6"):
        ping = ["ping", option, "-c1", "-W2", "-s24", "ping.example.test"]
        assert client.exec(ping, check=False).exit_code != 0
    four, six = attempts(egress, PacketAttempt)
    assert (four.protocol, four.host, four.port) == ("ICMP", "ping.example.test", None)
    assert (six.protocol, six.host, six.port) == ("ICMPv6", "ping.example.test", None)
    for entry in (four, six):
        assert (entry.size, entry.outcome) == (8 + 24, "blocked")


@pytest.mark.egress(unrouted="block")
def test_a_protocol_of_its_own_is_reset_with_its_first_bytes_recorded(
    egress: Egress, client: Container
) -> None:
    code = """
        import socket
        sock = socket.create_connection(("cache.example.test", 6379))
        sock.sendall(b"*1\\r\\n$4\\r\\nPING\\r\\n")
        try:
            print(sock.recv(99))
        except ConnectionResetError as error:
            print(error.strerror)
    """
    assert python(client, code) == "Connection reset by peer"
    (entry,) = attempts(egress, TcpConnection)
    assert (entry.host, entry.port, entry.note) == ("cache.example.test", 6379, "")
    assert entry.first_bytes == b"*1\r\n$4\r\nPING\r\n"
    assert (entry.outcome, entry.container) == ("blocked", client.name)
    assert entry.address.startswith(("198.18.", "fd00:198:18:"))


@pytest.mark.egress(unrouted="block")
def test_a_client_that_waits_for_the_server_to_speak_is_reset(
    egress: Egress, client: Container
) -> None:
    code = """
        import socket
        sock = socket.create_connection(("smtp.example.test", 25))
        try:
            print(sock.recv(99))
        except ConnectionResetError as error:
            print(error.strerror)
    """
    assert python(client, code) == "Connection reset by peer"
    (entry,) = attempts(egress, TcpConnection)
    assert (entry.host, entry.port, entry.first_bytes) == ("smtp.example.test", 25, b"")
    assert entry.note == "connected and sent nothing within 1 s"


def test_the_targets_own_services_are_no_egress(egress: Egress, client: Container) -> None:
    code = """
        import socket
        for address in ("127.0.0.1", "::1", socket.gethostbyname(socket.gethostname())):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = socket.create_server((address, 8080), family=family)
            sock = socket.create_connection((address, 8080))
            server.accept()[0].send(b"own")
            print(sock.recv(9).decode())
    """
    assert python(client, code).split() == ["own"] * 3
    egress.assert_no_egress()


SEND_RAW = """
    import socket, struct, time
    def checksum(data):
        total = sum(struct.unpack(f"!{len(data) // 2}H", data))
        return 0xFFFF ^ (total + (total >> 16)) & 0xFFFF
    source, to = socket.inet_aton("10.213.0.2"), socket.inet_aton("203.0.113.9")
    syn = struct.pack("!HHIIBBHHH", 5000, 81, 1, 0, 0x50, 2, 1000, 0, 0)
    pseudo = source + to + struct.pack("!HH", 6, len(syn))
    syn = syn[:16] + struct.pack("!H", checksum(pseudo + syn)) + syn[18:]
    try: socket.socket(socket.AF_INET, socket.SOCK_RAW, 6).sendto(syn, ("203.0.113.9", 0))
    except OSError as error: print(error)
    datagram = struct.pack("!HHHH", 5000, 82, 13, 0) + b"hello"
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 33, 0, 0, 64, 17, 0, source, to)
    frame = bytes(12) + struct.pack("!H", 0x0800) + head + datagram
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sniffer.bind(("eth0", 0))
    sniffer.send(frame)
"""


@pytest.mark.egress(unrouted="block")
def test_what_raw_and_packet_sockets_send_is_an_attempt_like_any_other(
    egress: Egress, client: Container
) -> None:
    python(client, SEND_RAW)
    assert isinstance(client, containers.Container)
    client.gateway.settle()
    segment, frame = attempts(egress, PacketAttempt)
    assert [(it.protocol, it.host, it.port) for it in (segment, frame)] == [
        ("TCP", "203.0.113.9", 81),
        ("UDP", "203.0.113.9", 82),
    ]
    assert frame.first_bytes == b"hello"
    with pytest.raises(CallError) as caught:
        egress.assert_no_egress()
    assert str(caught.value) == (
        "expected no egress; there was:\n"
        "  TCP 203.0.113.9:81, 20 bytes\n"
        "  UDP 203.0.113.9:82, 5 bytes, first b'hello'"
    )
    assert {segment.outcome, frame.outcome} == {"blocked"}


CONNECT = """
    import socket, sys
    connections, ports = map(int, sys.argv[1:])
    for number in range(connections):
        sock = socket.socket()
        if ports:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", 20_000 + number % ports))  # where no listener of ours is
        sock.connect((f"203.0.113.{number % 200}", 7000))
        sock.sendall(b"%d" % number)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(10) == b"x"
        assert sock.recv(10) == b""
        sock.close()
"""


@pytest.mark.timeout(1200)
def test_more_connections_than_there_are_ports_are_in_the_ledger_whole_and_in_order(
    egress: Egress, client: Container
) -> None:
    # The kernel has 28,000 ports to choose from. Over a stream that many connections take minutes: the client
    # chooses from 1999, and no two connections to one address have the same.
    number, ports = (4000, 1999) if os.environ.get(LINK_VARIABLE) == "stream" else (60_000, 0)
    route = egress.intercept_tcp("203.0.113.0/24:7000", b"x")
    python(client, CONNECT, str(number), str(ports))
    calls = route.calls
    assert [int(call.content) for call in calls] == list(range(number))
    assert egress.ledger == calls
    assert all(call.duration is not None for call in calls)
