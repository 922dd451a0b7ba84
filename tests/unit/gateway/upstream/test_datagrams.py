"""Flows of datagrams to servers: who may answer, what ends them, and what is left then."""

from __future__ import annotations

import os
import socket
import threading
import warnings
from collections.abc import Iterator
from queue import Queue

import pytest

from pytest_egress.base.clock import monotonic
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.upstream import datagrams
from pytest_egress.gateway.upstream.datagrams import DatagramRelays, Ports
from tests.support.stage import SECONDS, comes_not, eventually

NAME = "forwarded datagrams of a test"


@pytest.fixture
def relays() -> Iterator[DatagramRelays]:
    relays = DatagramRelays(NAME)
    yield relays
    relays.stop()
    relays.join(monotonic() + SECONDS)
    assert NAME not in [thread.name for thread in threading.enumerate()]


def test_each_flow_has_a_socket_and_its_own_answers(
    relays: DatagramRelays, datagram_server: socket.socket
) -> None:
    answers: dict[int, Queue[bytes | None]] = {0: Queue(), 1: Queue()}
    ports = {}
    for _ in range(2):
        for key in answers:
            relays.send(key, datagram_server.getsockname(), b"%d" % key, answers[key].put)
            content, ports[key] = datagram_server.recvfrom(100)
            datagram_server.sendto(content * 2, ports[key])
            assert answers[key].get(timeout=SECONDS) == b"%d%d" % (key, key)
    assert ports[0] != ports[1]
    assert len(relays) == 2


def test_an_answer_from_another_address_does_not_arrive(
    relays: DatagramRelays, datagram_server: socket.socket
) -> None:
    answers: Queue[bytes | None] = Queue()
    relays.send("a", datagram_server.getsockname(), b"?", answers.put)
    _, client = datagram_server.recvfrom(100)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.sendto(b"forged", client)
        datagram_server.sendto(b"real", client)
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
    datagram_server: socket.socket,
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
    relays: DatagramRelays, datagram_server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "MAX_RELAYS", 2)
    clients = {}
    for key in "abac":
        relays.send(key, datagram_server.getsockname(), b"?", lambda content: None)
        clients[key] = datagram_server.recvfrom(100)[1]
    assert len(relays) == 2
    relays.send("a", datagram_server.getsockname(), b"?", lambda content: None)
    assert datagram_server.recvfrom(100)[1] == clients["a"]
    relays.send("b", datagram_server.getsockname(), b"?", lambda content: None)
    assert datagram_server.recvfrom(100)[1] != clients["b"]


def test_a_datagram_is_sent_before_the_flows_of_others_can_end_its_own(
    relays: DatagramRelays, datagram_server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "MAX_RELAYS", 2)
    where = datagram_server.getsockname()

    class Contended:
        """A lock for which others wait: they have it as soon as the first flow lets it go."""

        lock, waiting = threading.Lock(), ["b", "c"]

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *error: object) -> None:
            self.lock.release()
            others, self.waiting = self.waiting, []
            for key in others:
                relays.send(key, where, key.encode(), lambda content: None)

    relays._lock = Contended()  # type: ignore[assignment]
    relays.send("a", where, b"a", lambda content: None)
    assert {datagram_server.recv(100) for _ in "abc"} == {b"a", b"b", b"c"}


class Ended(socket.socket):
    """A socket whose link has ended."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        raise BrokenPipeError


class Stopped:
    """A container that has ended meanwhile."""

    name = "syslog"

    def __init__(self, server: socket.socket) -> None:
        self._server = server

    def connect(self, port: int, timeout: float = 5) -> socket.socket:
        raise ConnectionRefusedError

    def connect_datagrams(self, port: int) -> socket.socket:
        sock = Ended(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(self._server.getsockname())
        return sock


def test_a_flow_to_a_container_ends_with_its_link(
    relays: DatagramRelays, datagram_server: socket.socket
) -> None:
    answers: Queue[bytes | None] = Queue()
    relays.send("a", Ports((Stopped(datagram_server),), 514), b"?", answers.put)
    content, client = datagram_server.recvfrom(100)
    datagram_server.sendto(content, client)
    assert eventually(lambda: not len(relays))
    assert answers.empty()


def test_a_flow_that_ends_as_its_client_sends_begins_again(
    relays: DatagramRelays, datagram_server: socket.socket
) -> None:
    where = datagram_server.getsockname()
    relays.send("a", where, b"1", lambda content: None)

    class Ended:
        """A lock that another thread has first, and ends the flow."""

        lock, is_first = threading.Lock(), True

        def __enter__(self) -> None:
            if self.is_first:
                self.is_first = False
                relays.end(lambda key: True)
            self.lock.acquire()

        def __exit__(self, *error: object) -> None:
            self.lock.release()

    relays._lock = Ended()  # type: ignore[assignment]
    relays.send("a", where, b"2", lambda content: None)
    assert [datagram_server.recv(100) for _ in range(2)] == [b"1", b"2"]


def test_flows_are_closed_before_the_thread_may_end(
    relays: DatagramRelays, datagram_server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    relays.send("a", datagram_server.getsockname(), b"1", lambda content: None)
    close = relays._close

    def close_slowly(relay: datagrams.DatagramRelay) -> None:
        assert relays._waker is not None
        assert relays._thread is not None
        relays._waker.send(b"f")  # as if an answer had come
        relays._thread.join(0.2)
        close(relay)

    monkeypatch.setattr(relays, "_close", close_slowly)
    relays.stop()
    assert not len(relays)


def test_a_forked_child_closes_its_copies(
    relays: DatagramRelays, datagram_server: socket.socket
) -> None:
    relays.send("a", datagram_server.getsockname(), b"1", lambda content: None)
    copies = [*relays._readable, *(each.fileno() for each in (relays._waker, relays._wake) if each)]
    assert len(copies) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: a fork beside threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            relays.abandon()
            code = sum(is_open(each) for each in copies)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all(map(is_open, copies))


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_an_idle_flow_ends(
    relays: DatagramRelays, datagram_server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "IDLE_SECONDS", 0.05)
    relays.send("a", datagram_server.getsockname(), b"?", lambda content: None)
    assert eventually(lambda: not len(relays))


def test_what_ends_by_its_key_gets_nothing_more(
    relays: DatagramRelays, datagram_server: socket.socket
) -> None:
    answers: Queue[bytes | None] = Queue()
    clients = {}
    for key in ("over", "stays"):
        relays.send(key, datagram_server.getsockname(), b"?", answers.put)
        clients[key] = datagram_server.recvfrom(100)[1]
    relays.end(lambda key: key == "over")
    datagram_server.sendto(b"late", clients["over"])
    datagram_server.sendto(b"in time", clients["stays"])
    assert answers.get(timeout=SECONDS) == b"in time"
    assert answers.empty()


def test_nothing_is_sent_after_the_end(
    relays: DatagramRelays, datagram_server: socket.socket
) -> None:
    relays.send("a", datagram_server.getsockname(), b"1", lambda content: None)
    assert datagram_server.recv(100) == b"1"
    relays.stop()
    relays.send("b", datagram_server.getsockname(), b"2", lambda content: None)
    assert not len(relays)
    assert comes_not(datagram_server)


def test_a_server_that_is_not_named_is_not_of_this_machine(
    relays: DatagramRelays, datagram_server: socket.socket
) -> None:
    with pytest.raises(
        UpstreamError, match=r"127\.0\.0\.1 is loopback\. Only what names .*: the line"
    ):
        relays.send("a", datagram_server.getsockname(), b"?", lambda content: None, "the line")
    assert not len(relays)


def test_a_name_without_an_address_is_said(relays: DatagramRelays) -> None:
    name = "x" * 64 + ".test"  # which this process refuses, so that no DNS is asked
    with pytest.raises(UpstreamError, match=r"xx\.test:9 cannot be reached"):
        relays.send("a", (name, 9), b"?", lambda content: None)
