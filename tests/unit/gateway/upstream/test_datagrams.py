"""Flows of datagrams to servers: who may answer, what ends them, and what is left then."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from queue import Queue

import pytest

from pytest_egress.base.clock import monotonic
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.upstream import datagrams
from pytest_egress.gateway.upstream.datagrams import DatagramRelays
from tests.support.stage import SECONDS, comes_not, eventually

NAME = "forwarded datagrams of a test"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture
def relays() -> Iterator[DatagramRelays]:
    relays = DatagramRelays(NAME)
    yield relays
    relays.stop()
    relays.join(monotonic() + SECONDS)
    assert NAME not in [thread.name for thread in threading.enumerate()]


def test_each_flow_has_a_socket_and_its_own_answers(
    relays: DatagramRelays, server: socket.socket
) -> None:
    answers: dict[int, Queue[bytes | None]] = {0: Queue(), 1: Queue()}
    ports = {}
    for _ in range(2):
        for key in answers:
            relays.send(key, server.getsockname(), b"%d" % key, answers[key].put)
            content, ports[key] = server.recvfrom(100)
            server.sendto(content * 2, ports[key])
            assert answers[key].get(timeout=SECONDS) == b"%d%d" % (key, key)
    assert ports[0] != ports[1]
    assert len(relays) == 2


def test_an_answer_from_another_address_does_not_arrive(
    relays: DatagramRelays, server: socket.socket
) -> None:
    answers: Queue[bytes | None] = Queue()
    relays.send("a", server.getsockname(), b"?", answers.put)
    _, client = server.recvfrom(100)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.sendto(b"forged", client)
        server.sendto(b"real", client)
        assert answers.get(timeout=SECONDS) == b"real"
    assert answers.empty()


def test_a_port_where_nobody_listens_refuses_and_the_next_datagram_is_sent_all_the_same(
    relays: DatagramRelays,
) -> None:
    answers: Queue[bytes | None] = Queue()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        where = gone.getsockname()
    for _ in range(2):
        relays.send("a", where, b"?", answers.put)
        assert answers.get(timeout=SECONDS) is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
        back.settimeout(SECONDS)
        back.bind(where)
        relays.send("a", where, b"again", answers.put)
        assert back.recv(100) == b"again"


def test_a_refusal_that_a_send_is_told_of_is_passed_on_and_the_datagram_sent(
    server: socket.socket,
) -> None:
    class Refused:
        calls = 0

        def send(self, content: bytes) -> None:
            self.calls += 1
            if self.calls == 1:
                raise ConnectionRefusedError

    sock = Refused()
    assert DatagramRelays(NAME)._send(sock, b"x")  # type: ignore[arg-type]
    assert sock.calls == 2


def test_the_flow_that_was_used_longest_ago_ends_beyond_the_limit(
    relays: DatagramRelays, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "MAX_RELAYS", 2)
    clients = {}
    for key in "abac":
        relays.send(key, server.getsockname(), b"?", lambda content: None)
        clients[key] = server.recvfrom(100)[1]
    assert len(relays) == 2
    relays.send("a", server.getsockname(), b"?", lambda content: None)
    assert server.recvfrom(100)[1] == clients["a"]
    relays.send("b", server.getsockname(), b"?", lambda content: None)
    assert server.recvfrom(100)[1] != clients["b"]


def test_an_idle_flow_ends(
    relays: DatagramRelays, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "IDLE_SECONDS", 0.05)
    relays.send("a", server.getsockname(), b"?", lambda content: None)
    assert eventually(lambda: not len(relays))


def test_what_ends_by_its_key_gets_nothing_more(
    relays: DatagramRelays, server: socket.socket
) -> None:
    answers: Queue[bytes | None] = Queue()
    clients = {}
    for key in ("over", "stays"):
        relays.send(key, server.getsockname(), b"?", answers.put)
        clients[key] = server.recvfrom(100)[1]
    relays.end(lambda key: key == "over")
    server.sendto(b"late", clients["over"])
    server.sendto(b"in time", clients["stays"])
    assert answers.get(timeout=SECONDS) == b"in time"
    assert answers.empty()


def test_nothing_is_sent_after_the_end(relays: DatagramRelays, server: socket.socket) -> None:
    relays.send("a", server.getsockname(), b"1", lambda content: None)
    assert server.recv(100) == b"1"
    relays.stop()
    relays.send("b", server.getsockname(), b"2", lambda content: None)
    assert not len(relays)
    assert comes_not(server)


def test_a_server_that_is_not_named_is_not_of_this_machine(
    relays: DatagramRelays, server: socket.socket
) -> None:
    with pytest.raises(
        UpstreamError, match=r"127\.0\.0\.1 is loopback\. Only what names .*: the line"
    ):
        relays.send("a", server.getsockname(), b"?", lambda content: None, "the line")
    assert not len(relays)


def test_a_name_without_an_address_is_said(relays: DatagramRelays) -> None:
    name = "x" * 64 + ".test"  # which this process refuses, so that no DNS is asked
    with pytest.raises(UpstreamError, match=r"xx\.test:9 cannot be reached"):
        relays.send("a", (name, 9), b"?", lambda content: None)
