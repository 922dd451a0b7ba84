"""A test for each kind of traffic, on a real Mac or in the process that looks like one, with images that anybody has.

It needs nothing of this repository: `pytest -c /dev/null --noconftest tests/support/mac/proof.py`.
"""

from __future__ import annotations

import os
import resource
import sys
import time

import pytest

import pytest_egress
from pytest_egress import Egress

CURL = os.environ.get("PROOF_CURL", "pytest-egress-test/clients")
PYTHON = os.environ.get("PROOF_PYTHON", "pytest-egress-test/clients")
DESCRIPTORS = 256
LOOKS = 400
PARKED = """
import socket, time
socks = [socket.create_connection(("shop.test", 80)) for _ in range(40)]
for pause in (0, 2.5):  # after the second they are parked
    time.sleep(pause)
    for sock in socks:
        sock.sendall(b"GET / HTTP/1.1\\r\\nHost: shop.test\\r\\n\\r\\n")
    print(sum(sock.recv(4096).startswith(b"HTTP/1.1 200") for sock in socks))
"""
HALF_CLOSED = """
import socket
sock = socket.create_connection(("db.test", 5432))
sock.sendall(b"x" * 3000000)
sock.shutdown(socket.SHUT_WR)
print(sock.recv(99).decode())
"""
REFUSED = """
import socket
try:
    socket.create_connection(("db.test", 5432))
except ConnectionRefusedError:
    print("refused")
"""


def said(egress: Egress, image: str, *command: str) -> str:
    return egress.run(image, list(command)).stdout.strip()


def python(egress: Egress, code: str) -> list[str]:
    return said(egress, PYTHON, "python3", "-c", code).split()


def test_this_process_has_what_macos_has() -> None:
    import pytest_egress.base.sockets as sockets

    for module, name in (("select", "epoll"), ("socket", "AF_NETLINK")):
        with pytest.raises(AttributeError):
            getattr(vars(sockets)[module], name)
    if sys.platform == "linux":
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == DESCRIPTORS


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_https(egress: Egress, version: str) -> None:
    egress.intercept_https("shop.test", {"left": 3})
    command = ("curl", "-fsS", f"--http{version}", "-w", "%{http_version}", "https://shop.test/")
    told = said(egress, CURL, *command)
    assert '"left"' in told
    assert told.endswith(version)


def test_a_large_body_both_ways(egress: Egress) -> None:
    egress.intercept_https("shop.test", lambda request: b"x" * len(request.content))
    command = "head -c 20000000 /dev/zero | curl -fsS --data-binary @- https://shop.test/ | wc -c"
    assert said(egress, CURL, "sh", "-c", command) == "20000000"


def test_bytes_with_a_half_close(egress: Egress) -> None:
    @egress.intercept_tcp("db.test:5432")
    def count(sock: pytest_egress.RawSocket) -> None:
        total = 0
        while data := sock.recv(65536):
            total += len(data)
        sock.sendall(b"%d" % total)

    assert python(egress, HALF_CLOSED) == ["3000000"]


def test_a_port_probe_is_no_call(egress: Egress) -> None:
    egress.intercept_tcp("db.test:5432", lambda sock: sock.sendall(b"hello"), optional=True)
    python(egress, "import socket; socket.create_connection(('db.test', 5432)).close()")
    notes = list[str]()
    for _ in range(LOOKS):  # it is told later
        if notes := [each.note for each in egress.ledger if each.note]:
            break
        time.sleep(0.05)
    assert [each for each in notes if "no byte either way" in each]


def test_a_name(egress: Egress) -> None:
    egress.dns("db.test", ["192.0.2.7"])
    assert python(egress, "import socket; print(socket.gethostbyname('db.test'))") == ["192.0.2.7"]


def test_a_refused_connection(egress: Egress) -> None:
    egress.intercept_tcp("db.test:5432", pytest_egress.refuse())
    assert python(egress, REFUSED) == ["refused"]


def test_a_reset(egress: Egress) -> None:
    egress.intercept_https("shop.test", pytest_egress.reset())
    done = egress.run(CURL, ["curl", "-sS", "https://shop.test/"], check=False)
    assert done.exit_code != 0
    assert "reset by peer" in done.stderr


def test_forty_connections_that_are_parked_meanwhile(egress: Egress) -> None:
    egress.intercept_http("shop.test", b"ok")
    assert python(egress, PARKED) == ["40", "40"]
