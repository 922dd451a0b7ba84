"""The way into a target: a loopback port whose connections go on to another, here one of loopback too."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pytest_egress.targets.ingress import Ingress

SECONDS = 10.0
MEGABYTE = 1 << 20


@pytest.fixture
def inside() -> Iterator[socket.socket]:
    """A listener of the target."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        yield listener


@pytest.fixture
def ingress(inside: socket.socket) -> Iterator[Ingress]:
    with contextlib.closing(Ingress(lambda: dial(inside.getsockname()))) as ingress:
        yield ingress


def dial(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, SECONDS)


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_bytes_and_the_end_of_each_direction_pass(ingress: Ingress, inside: socket.socket) -> None:
    with dial(ingress.address) as client:
        served, _ = inside.accept()
        with served:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert read_all(served) == b"question"
            served.sendall(b"answer, after the client has ended its own side")
        assert read_all(client) == b"answer, after the client has ended its own side"


def test_much_passes_both_ways_at_once(ingress: Ingress, inside: socket.socket) -> None:
    def echo() -> None:
        served, _ = inside.accept()
        with served:
            while data := served.recv(65536):
                served.sendall(data)

    target = threading.Thread(target=echo)
    target.start()
    with dial(ingress.address) as client:
        sender = threading.Thread(target=client.sendall, args=[bytes(5 * MEGABYTE)])
        sender.start()
        received = 0
        while received < 5 * MEGABYTE:
            received += len(client.recv(65536))
        sender.join()
    target.join(SECONDS)
    assert not target.is_alive()


def test_a_port_that_is_closed_looks_closed() -> None:
    def refused() -> socket.socket:
        raise ConnectionRefusedError

    with contextlib.closing(Ingress(refused)) as ingress, dial(ingress.address) as client:
        assert client.recv(1) == b""


@pytest.mark.parametrize(("error", "count"), [(ConnectionRefusedError, 1), (TimeoutError, 0)])
def test_a_port_where_nothing_listens_is_noted(error: type[OSError], count: int) -> None:
    def fail() -> socket.socket:
        raise error

    noted: list[int] = []
    ingress = Ingress(fail, lambda: noted.append(1))
    with contextlib.closing(ingress), dial(ingress.address) as client:
        assert client.recv(1) == b""
        assert len(noted) == count


def test_closing_it_ends_connections_and_threads(ingress: Ingress, inside: socket.socket) -> None:
    before = threading.active_count()
    with dial(ingress.address) as client:
        served, _ = inside.accept()
        with served:
            client.sendall(b"x")
            assert served.recv(1) == b"x"
            assert threading.active_count() == before + 1
            ingress.close()
            assert client.recv(1) == b""
            assert read_all(served) == b""
    deadline = time.monotonic() + SECONDS
    while threading.active_count() >= before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert threading.active_count() == before - 1  # the one that accepts has ended too
    with pytest.raises(ConnectionRefusedError):
        dial(ingress.address)
