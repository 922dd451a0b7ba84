"""What each side of a relayed connection has said reaches the other, however the first one ends."""

from __future__ import annotations

import contextlib
import math
import os
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trustme

import pytest_egress.base.relay
from pytest_egress import forward
from pytest_egress.base.acknowledged import unsent
from pytest_egress.base.clock import monotonic
from pytest_egress.base.pacing import PLAIN, Pacer, Shape
from pytest_egress.base.relay import play, poll, relay
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.link.stream_sockets import loopback_pair
from pytest_egress.targets.ingress import Ingress
from tests.support.last_words import LAST_WORDS, TIMES, LastWords, assert_all_heard, hear_out
from tests.support.outside import Outside
from tests.support.stage import ADDRESS, SECONDS, Stage, end_of, eventually, reset, staged
from tests.support.stream_scene import StreamScene


@pytest.fixture
def server() -> Iterator[LastWords]:
    with contextlib.closing(LastWords()) as server:
        yield server


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def stage(ca: trustme.CA, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with staged(ca, request) as stage:
        yield stage


@contextlib.contextmanager
def relayed(one: socket.socket, other: socket.socket) -> Iterator[list[OSError]]:
    """Relay between two sockets, which are closed then; what it raised."""
    raised: list[OSError] = []

    def run() -> None:
        with one, other:
            try:
                relay(one, other)
            except OSError as error:
                raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield raised
    thread.join(SECONDS)
    assert not thread.is_alive()


def ends() -> tuple[socket.socket, socket.socket, socket.socket, socket.socket]:
    """A client, the two ends of a relay, and a server."""
    client, one = loopback_pair()
    other, server = loopback_pair()
    for sock in (client, server):
        sock.settimeout(SECONDS)
    return client, one, other, server


# A server that answers and closes while its client still sends.


def test_without_a_relay_all_last_words_arrive(server: LastWords) -> None:
    assert_all_heard(lambda: socket.create_connection(("127.0.0.1", server.port)))


@pytest.mark.slow
def test_all_last_words_arrive_through_a_forward(stage: Stage, server: LastWords) -> None:
    stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{server.port}"))
    assert_all_heard(lambda: stage.link.dial(ADDRESS, 5432))


@pytest.mark.slow
def test_all_last_words_arrive_through_a_forward_of_what_is_in_tls(
    stage: Stage, server: LastWords
) -> None:
    stage.tls_route("api.test", forward(f"tcp://127.0.0.1:{server.port}"))
    assert_all_heard(stage.tls)


@pytest.mark.slow
def test_all_last_words_arrive_of_a_server_that_speaks_tls(stage: Stage, outside: Outside) -> None:
    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # those that a client has not read take the last words with them
    other.issue_cert("real.test").configure_cert(context)
    other.configure_trust(stage.gateway.upstreams.tls())
    with contextlib.closing(LastWords(context, listener=outside.listen(8443))):
        stage.tls_route("real.test:8443", forward())
        address = stage.resolve("real.test")
        assert_all_heard(lambda: stage.tls("real.test", address, 8443))


def test_all_last_words_arrive_through_an_ingress(server: LastWords) -> None:
    ingress = Ingress(lambda: socket.create_connection(("127.0.0.1", server.port)))
    with contextlib.closing(ingress):
        assert_all_heard(lambda: socket.create_connection(ingress.address))


def test_all_last_words_arrive_over_a_stream_link(server: LastWords) -> None:
    scene = StreamScene()
    heard = []
    with contextlib.closing(scene):
        for _ in range(TIMES):
            client, ours = scene.dial()
            upstream = socket.create_connection(("127.0.0.1", server.port))
            with client, relayed(ours, upstream):
                heard.append(hear_out(client))
    assert heard.count(LAST_WORDS) == TIMES


def test_last_words_may_be_more_than_buffers_hold(stage: Stage) -> None:
    words = bytes(range(256)) * 40_000
    with contextlib.closing(LastWords(words=words)) as server:
        stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{server.port}"))
        with stage.link.dial(ADDRESS, 5432) as sock:
            assert hear_out(sock) == words


# How each end is passed on.


def test_a_server_that_resets_resets_its_client_after_what_it_said() -> None:
    client, one, other, server = ends()
    with client, server, relayed(one, other) as raised:
        server.sendall(b"that is")
        assert client.recv(7) == b"that is"
        server.sendall(b" all")
        reset(server)
        assert client.recv(100) == b" all"
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert len(raised) == 1


def test_a_client_that_resets_resets_its_server_after_what_it_said() -> None:
    client, one, other, server = ends()
    with client, server, relayed(one, other) as raised:
        client.sendall(b"that is all")
        reset(client)
        assert server.recv(100) == b"that is all"
        with pytest.raises(ConnectionResetError):
            server.recv(1)
    assert len(raised) == 1


def test_a_reset_without_a_word_is_a_reset(stage: Stage) -> None:
    with contextlib.closing(LastWords(words=b"")) as server:
        stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{server.port}"))
        client = stage.dial(port=5432)
        client.sendall(b"four and more")
        assert end_of(client) == "reset"


def test_an_end_without_a_reset_is_none(stage: Stage, server: LastWords) -> None:
    stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{server.port}"))
    client = stage.dial(port=5432)
    client.sendall(b"four")
    assert client.recv(100) == LAST_WORDS
    assert end_of(client) == "closed"


def test_what_a_client_sends_after_the_servers_end_is_still_passed_on() -> None:
    client, one, other, server = ends()
    with client, server, relayed(one, other) as raised:
        server.sendall(b"bye")
        server.shutdown(socket.SHUT_WR)
        assert client.recv(3) == b"bye"
        assert client.recv(1) == b""
        client.sendall(b"one more")
        client.close()
        assert server.recv(100) == b"one more"
        assert server.recv(1) == b""
    assert raised == []


def test_a_client_that_reads_nothing_holds_a_relay_no_longer_than_a_while() -> None:
    client, one, other, server = ends()
    with client, relayed(one, other) as raised:
        server.sendall(
            bytes(1 << 20)
        )  # less than the relay's socket holds, and more than the client's
        assert eventually(lambda: not unsent(server) and unsent(one))
        client.shutdown(socket.SHUT_WR)
        reset(server)
        assert eventually(lambda: raised)
    assert len(raised) == 1


# What comes in bulk, which the kernel moves.

BULK = random.Random(1).randbytes(5_000_000)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def sent_both_ways(client: socket.socket, server: socket.socket) -> tuple[bytes, bytes]:
    """Send a lot both ways at once; return what each side got."""
    with ThreadPoolExecutor() as pool:
        got = [pool.submit(received_by, sock) for sock in (client, server)]
        for sock in (client, server):
            pool.submit(send_all, sock)
        down, up = (each.result(SECONDS * 3) for each in got)
    return down, up


def send_all(sock: socket.socket) -> None:
    sock.sendall(BULK)
    sock.shutdown(socket.SHUT_WR)


def send_what_goes(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        send_all(sock)


def received_by(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def test_bulk_goes_each_way_and_leaves_no_descriptor() -> None:
    before = descriptors()
    client, one, other, server = ends()
    with client, server, relayed(one, other) as raised:
        assert sent_both_ways(client, server) == (BULK, BULK)
    assert raised == []
    assert descriptors() == before


def test_a_reset_in_the_middle_of_bulk_is_passed_on_and_leaves_no_descriptor() -> None:
    before = descriptors()
    client, one, other, server = ends()
    with client, server, relayed(one, other) as raised:
        sender = threading.Thread(target=send_what_goes, args=(client,))
        sender.start()
        assert server.recv(300_000, socket.MSG_WAITALL)
        reset(server)
        sender.join(SECONDS)
        assert not sender.is_alive()
    assert len(raised) == 1
    assert descriptors() == before


def test_bulk_is_counted_and_its_first_bytes_are_kept() -> None:
    client, one, other, server = ends()
    seen: list[tuple[int, int, bytes]] = []

    def run() -> None:
        with one, other:
            relay(one, other, lambda out, back: seen.append((out.count, back.count, out.first)))

    thread = threading.Thread(target=run)
    thread.start()
    with client, server:
        assert sent_both_ways(client, server) == (BULK, BULK)
    thread.join(SECONDS)
    assert seen[-1] == (len(BULK), len(BULK), BULK[:64])


def test_an_urgent_byte_in_the_middle_of_bulk_stops_nothing() -> None:
    client, one, other, server = ends()
    with client, server, relayed(one, other) as raised, ThreadPoolExecutor() as pool:
        got = pool.submit(received_by, server)
        client.sendall(BULK)
        client.send(b"!", socket.MSG_OOB)
        client.sendall(BULK)
        client.shutdown(socket.SHUT_WR)
        server.shutdown(socket.SHUT_WR)
        assert got.result(SECONDS * 3) == BULK * 2  # the urgent byte is in no stream
    assert raised == []


def test_a_unix_socket_that_has_ended_is_no_reset_and_keeps_no_thread_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[object] = []

    def counted(*wanted: Any) -> dict[int, int]:
        waits.append(wanted)
        return poll(*wanted)

    monkeypatch.setattr(pytest_egress.base.relay, "poll", counted)
    client, one = loopback_pair()
    other, server = socket.socketpair()
    with client, relayed(one, other) as raised:
        server.sendall(b"bye")
        server.close()
        assert received_by(client) == b"bye"
        time.sleep(0.3)
        assert len(waits) < 20  # one that comes back at once comes back thousands of times
        client.close()
    assert raised == []


# A shape.


def test_a_delay_may_be_longer_than_poll_can_wait() -> None:
    one, other = loopback_pair()
    with one, other:
        other.sendall(b"now")
        for seconds in (1e9, math.inf):
            assert poll([(one, select.POLLIN)], seconds) == {one.fileno(): select.POLLIN}


@contextlib.contextmanager
def running(run: Callable[[], Any], *socks: socket.socket) -> Iterator[list[Any]]:
    """Run a loop on a thread of its own; what it returned or raised."""
    results: list[Any] = []

    def body() -> None:
        try:
            results.append(run())
        except OSError as error:
            results.append(error)
        finally:
            for sock in socks:
                sock.close()

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield results
    finally:
        thread.join(SECONDS)
        assert not thread.is_alive()


class Line:
    """A client and a server, with a shaped relay between them."""

    def __init__(self, shape: Shape, clock: Callable[[], float] = monotonic) -> None:
        self.client, one = loopback_pair()
        other, self.server = loopback_pair()
        self.client.settimeout(SECONDS)
        self.server.settimeout(SECONDS)
        self.counts = (0, 0)

        def watch(out: Any, back: Any) -> None:
            self.counts = (out.count, back.count)

        self.run = running(lambda: relay(one, other, watch, shape=shape, clock=clock), one, other)

    def __enter__(self) -> Line:
        self.results = self.run.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for sock in (self.client, self.server):
            sock.close()
        self.run.__exit__(*error)


def read(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def test_only_one_direction_has_the_shape() -> None:
    ledger = Ledger()
    ledger.enter_prompt()
    with Line(Shape(delay=0.05), ledger.clock) as line:
        line.client.sendall(b"hello")
        assert line.server.recv(100) == b"hello"
        line.server.sendall(b"answer")
        line.client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            line.client.recv(100)
        ledger.leave_prompt()
        line.client.settimeout(SECONDS)
        assert line.client.recv(100) == b"answer"
        assert eventually(lambda: line.counts == (5, 6))


def test_a_half_close_is_passed_on_and_the_answer_still_comes() -> None:
    with Line(Shape(delay=0.05)) as line:
        line.client.sendall(b"question")
        line.client.shutdown(socket.SHUT_WR)
        assert read(line.server) == b"question"
        line.server.sendall(b"x" * 300_000)
        line.server.shutdown(socket.SHUT_WR)
        assert len(read(line.client)) == 300_000
        assert eventually(lambda: line.results == [False])


def test_a_limit_ends_the_relay_after_its_last_byte() -> None:
    with Line(Shape(limit=4)) as line:
        line.server.sendall(b"answer")
        assert line.client.recv(100) == b"answ"
        assert eventually(lambda: line.results == [True])


def test_a_client_that_breaks_off_ends_what_is_on_its_way_to_it() -> None:
    with Line(Shape(delay=1000)) as line:
        line.server.sendall(b"never comes")
        reset(line.client)
        assert end_of(line.server) == "reset"
        assert isinstance(line.results[0], OSError)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_late_end_is_not_waited_for_where_both_sides_have_gone(is_first: bool) -> None:
    client, one = loopback_pair()
    other, server = loopback_pair()
    run = running(lambda: relay(one, other, shape=Shape(delay=1000)), one, other)
    with client, server, run as results:
        for sock in (one, other) if is_first else (other, one):
            sock.shutdown(socket.SHUT_RDWR)
            time.sleep(0.05)
        assert eventually(lambda: results)


def test_a_server_that_breaks_off_resets_the_client_after_its_last_words() -> None:
    with Line(Shape(delay=0.05)) as line:
        line.server.sendall(b"last words")
        assert eventually(lambda: not unsent(line.server))
        reset(line.server)
        assert line.client.recv(100) == b"last words"
        assert end_of(line.client) == "reset"


def test_a_relay_ends_when_it_is_told() -> None:
    client, one = loopback_pair()
    other, server = loopback_pair()
    run = running(lambda: relay(one, other, lambda out, back: True), one, other)
    with client, server, run as results:
        assert end_of(client) == "closed"
    assert results == [False]


@contextlib.contextmanager
def playing(data: bytes, shape: Shape, seconds: float | None) -> Iterator[tuple[Any, Any, Any]]:
    """A client of `play`, what was heard of it, and the result."""
    client, one = loopback_pair()
    one.settimeout(0)
    client.settimeout(SECONDS)
    pacer, heard = Pacer(shape, monotonic), bytearray()
    pacer.put(data)
    with (
        running(lambda: play(one, pacer, heard.extend, seconds, monotonic), one) as results,
        client,
    ):
        yield client, heard, results


def test_what_is_held_is_sent_and_what_comes_is_heard() -> None:
    with playing(b"greeting", Shape(delay=0.05), None) as (client, heard, results):
        client.sendall(b"hello")
        assert client.recv(100) == b"greeting"
        client.close()
        assert eventually(lambda: results == [True])
        assert heard == b"hello"


def test_a_client_that_only_listens_any_more_still_gets_what_is_late() -> None:
    with playing(b"greeting", Shape(delay=0.05), None) as (client, _, results):
        client.shutdown(socket.SHUT_WR)
        assert read(client) == b"greeting"
        assert results == [True]


def test_a_client_that_has_gone_keeps_nothing_waiting() -> None:
    with playing(b"greeting", Shape(delay=1000), None) as (client, _, results):
        reset(client)
        assert eventually(lambda: results == [True])


@pytest.mark.parametrize(
    ("shape", "got"),
    [(PLAIN, b"greeting"), (Shape(limit=5), b"greet"), (Shape(rate=100), b"greeting")],
)
def test_it_ends_after_its_time_or_at_its_limit(shape: Shape, got: bytes) -> None:
    with playing(b"greeting", shape, 0.0) as (client, _, results):
        assert read(client) == got
        assert results == [False]
