"""A container's probes of a port are no calls, over either link."""

from __future__ import annotations

import contextlib
import socket

import pytest

import pytest_egress.gateway.raw.server as raw_server
from pytest_egress import Egress
from pytest_egress.gateway.raw.server import NO_CALL
from pytest_egress.routes.answers import RawAnswer
from pytest_egress.session import Session
from pytest_egress.traffic.entries import TcpConnection
from tests.support.stage import expects_a_message, greets

LINKS = ["descriptor", "stream"]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, a probe is there until it has closed."""
    monkeypatch.setattr(raw_server, "PROBE_SECONDS", 10.0)


# In real containers.


def run(image: str, link: str, command: list[str], handler: RawAnswer) -> list[TcpConnection]:
    """The connections of a container to a raw route that is to be called once."""
    session = Session(link=link)
    with contextlib.closing(session), Egress(session=session) as egress:
        route = egress.intercept_tcp("db.test:5432", handler, times=1)
        egress.run(image, command)
        route.wait_for_call(timeout=60)
        return [entry for entry in egress.ledger if isinstance(entry, TcpConnection)]


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("handler", [expects_a_message, greets])
def test_what_a_container_asks_after_its_probes_is_the_only_call(
    clients_image: str, link: str, handler: RawAnswer
) -> None:
    script = "for i in 1 2 3; do nc -z db.test 5432 || exit 1; done; printf hello | nc -N db.test 5432 || true"
    connections = run(clients_image, link, ["sh", "-c", script], handler)
    assert [entry.outcome for entry in connections] == ["recorded"] * 3 + ["routed"]
    assert all(entry.note.startswith(NO_CALL) for entry in connections[:3])


def feeds(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(b"noon\n" * 1000)


def tells(sock: socket.socket) -> None:
    sock.sendall(b"noon\n")


def tells_and_closes_for_writing(sock: socket.socket) -> None:
    sock.sendall(b"noon\n")
    sock.shutdown(socket.SHUT_WR)


ONLY_READS = """
import socket
sock = socket.create_connection(("db.test", 5432))
sock.shutdown(socket.SHUT_WR)
assert sock.recv(5) == b"noon\\n"
sock.close()
"""


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("handler", [feeds, tells, tells_and_closes_for_writing])
def test_a_client_that_closes_for_writing_and_reads_is_a_call(
    clients_image: str, link: str, handler: RawAnswer
) -> None:
    (entry,) = run(clients_image, link, ["python3", "-c", ONLY_READS], handler)
    assert entry.outcome == "routed"


BYTE_AND_RESET = """
import socket, struct
sock = socket.create_connection(("db.test", 5432))
sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
sock.sendall(b"x")
sock.close()
"""


@pytest.mark.parametrize("link", LINKS)
def test_a_byte_before_a_reset_makes_it_a_call_by_either_link(
    clients_image: str, link: str
) -> None:
    def handler(sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError):
            sock.recv(100)

    (entry,) = run(clients_image, link, ["python3", "-c", BYTE_AND_RESET], handler)
    assert entry.outcome == "routed"
