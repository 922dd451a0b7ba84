"""Datagrams that another server answers count as egress wherever that is judged: assertions, the lock, secrets."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator

import pytest

from pytest_egress import CallError, DatagramFlow, Egress, LeakError, forward, log_line, secret
from pytest_egress.base.choices import LinkKind
from pytest_egress.routes.answers import Forward
from pytest_egress.session import Session
from tests.support.clients import attempts
from tests.support.secrets import forgotten  # noqa: F401
from tests.support.stage import SECONDS

ASK = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(20)
sock.sendto(sys.argv[2].encode(), (sys.argv[1], 389))
print(sock.recv(100).decode())
"""
WORD = "Kx7hQ2v9R9xLm4Zp8Wd3Ns6"
SUITE = """
import socket, threading
from pytest_egress import forward

def test_another_server_answers(egress):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=lambda: server.sendto(b"no", server.recvfrom(100)[1]))
        thread.start()
        egress.intercept_udp("*.test:389", forward(f"udp://127.0.0.1:{server.getsockname()[1]}"))
        egress.run("IMAGE", ["python3", "-c", PROGRAM, "HOST", "who"])
        thread.join()
"""


@pytest.fixture
def directory() -> Iterator[Forward]:
    """A server that sends a datagram back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(SECONDS)
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            content, client = server.recvfrom(100)
            server.sendto(content[::-1], client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield forward(f"udp://127.0.0.1:{server.getsockname()[1]}")
        thread.join()


def test_assertions_about_egress_see_what_was_forwarded(
    egress: Egress, clients_image: str, directory: Forward
) -> None:
    route = egress.intercept_udp("dir.test:389", directory)
    done = egress.run(clients_image, ["python3", "-c", ASK, "dir.test", "password"])
    assert done.stdout == "drowssap\n"
    with pytest.raises(CallError, match=r"UDP dir\.test:389"):
        egress.assert_no_egress()
    egress.assert_only("dir.test:389")
    with pytest.raises(CallError, match=r"UDP dir\.test:389(.|\n)*in the clear"):
        egress.assert_encrypted()
    egress.assert_encrypted(allow=["dir.test:389"])
    with pytest.raises(CallError, match=r"UDP dir\.test:389(.|\n)*datagram 1"):
        egress.assert_not_sent("password")
    egress.assert_not_sent("drowssap")  # it is an answer
    with pytest.raises(CallError, match="its bytes"):
        route.assert_not_sent("password")


@pytest.mark.usefixtures("forgotten")
def test_a_secret_that_was_forwarded_fails_the_test(clients_image: str, directory: Forward) -> None:
    def send() -> None:
        with Egress() as egress:
            egress.intercept_udp("dir.test:389", directory)
            egress.run(clients_image, ["python3", "-c", ASK, "dir.test", secret(WORD)])

    with pytest.raises(LeakError, match=r"UDP dir\.test:389 .*carries .* datagram 1") as caught:
        send()
    assert WORD not in str(caught.value)


SERVE = """
import select, socket
servers = []
for family, address in [(2, ("0.0.0.0", 514)), (2, ("10.213.0.2", 515)), (10, ("::1", 516))]:
    servers.append(socket.socket(family, socket.SOCK_DGRAM))
    servers[-1].bind(address)
print("up", flush=True)
while True:
    for server in select.select(servers, [], [])[0]:
        content, client = server.recvfrom(65535)
        server.sendto(content[::-1], client)
"""
ASK_PORTS = """
import socket, sys
for port in map(int, sys.argv[1:]):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(20)
    sock.connect(("log.test", port))
    try:
        for content in (b"one", b"x" * 65507):
            sock.send(content)
            answer = sock.recv(65535)
            print(port, len(answer), answer[:3].decode())
    except OSError as error:
        print(port, type(error).__name__)
"""


@pytest.mark.parametrize("link", ["descriptor", "stream"])
def test_a_port_of_another_container_answers_wherever_it_listens(
    link: LinkKind, clients_image: str
) -> None:
    ports = [514, 515, 516, 517]
    with Egress(session=Session(link=link)) as egress:
        server = egress.start(clients_image, ["python3", "-c", SERVE], wait=log_line("up"))
        for port in ports:
            egress.intercept_udp(f"log.test:{port}", forward(server, port))
        client = egress.start(clients_image, ["sleep", "600"])

        def ask() -> list[str]:
            command = ["python3", "-c", ASK_PORTS, *map(str, ports)]
            return client.exec(command).stdout.splitlines()

        answered = [[f"{port} 3 eno", f"{port} 65507 xxx"] for port in ports[:3]]
        assert ask() == [*itertools.chain(*answered), "517 ConnectionRefusedError"]
        assert attempts(egress, DatagramFlow)[-1].note == (
            f"port 517 of {server.name} cannot be reached: [Errno 111] Connection refused"
        )
        server.stop()
        assert ask() == [f"{port} ConnectionRefusedError" for port in ports]


def test_the_lock_lists_what_was_forwarded_and_refuses_another_host(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    def run(host: str, option: str) -> pytest.RunResult:
        suite = f"PROGRAM = {ASK!r}\n{SUITE}"
        pytester.makepyfile(suite.replace("IMAGE", clients_image).replace("HOST", host))
        return pytester.runpytest_subprocess(f"--egress-lock={option}")

    run("dir.test", "update").assert_outcomes(passed=1)
    assert 'udp = [\n    "dir.test:389",\n]\n' in (pytester.path / "egress.lock").read_text()
    run("dir.test", "check").assert_outcomes(passed=1)
    result = run("other.test", "check")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*other.test:389*"])
