"""What each side of a relayed connection has said reaches the other, however the first one ends."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trustme

from pytest_egress import forward
from pytest_egress.base import relay as relay_module
from pytest_egress.base.relay import Pipe, pipe_between, relay, unsent
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


@pytest.fixture
def pipes(monkeypatch: pytest.MonkeyPatch) -> list[Pipe | None]:
    """The pipes that relays have made, and None for each that they did without."""
    made: list[Pipe | None] = []

    def make(source: socket.socket, sink: socket.socket) -> Pipe | None:
        made.append(pipe_between(source, sink))
        return made[-1]

    monkeypatch.setattr(relay_module, "pipe_between", make)
    return made


def test_bulk_goes_through_a_pipe_each_way_and_leaves_no_descriptor(
    pipes: list[Pipe | None],
) -> None:
    before = descriptors()
    client, one, other, server = ends()
    with client, server, relayed(one, other) as raised:
        assert sent_both_ways(client, server) == (BULK, BULK)
    assert raised == []
    assert len(pipes) == 2
    assert None not in pipes
    assert descriptors() == before


def test_what_is_small_takes_no_pipe(pipes: list[Pipe | None]) -> None:
    client, one, other, server = ends()
    with client, server, relayed(one, other):
        for _ in range(5):
            client.sendall(b"ping")
            assert server.recv(9) == b"ping"
            server.sendall(b"pong")
            assert client.recv(9) == b"pong"
        client.shutdown(socket.SHUT_WR)
        server.shutdown(socket.SHUT_WR)
    assert pipes == []


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_where_the_kernel_moves_nothing_bulk_arrives_too(
    monkeypatch: pytest.MonkeyPatch, pipes: list[Pipe | None], error: int
) -> None:
    def splice(*_: object, **__: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "splice", splice)
    before = descriptors()
    client, one, other, server = ends()
    with client, server, relayed(one, other) as raised:
        assert sent_both_ways(client, server) == (BULK, BULK)
    assert raised == []
    assert len(pipes) == 2  # it was tried once each way
    assert descriptors() == before


def test_where_descriptors_are_short_no_pipe_is_kept(
    monkeypatch: pytest.MonkeyPatch, pipes: list[Pipe | None]
) -> None:
    monkeypatch.setattr(relay_module, "descriptor_limit", lambda: 8)
    before = descriptors()
    client, one, other, server = ends()
    with client, server, relayed(one, other):
        assert sent_both_ways(client, server) == (BULK, BULK)
    assert pipes == [None, None]
    assert descriptors() == before


def test_a_reset_in_the_middle_of_bulk_is_passed_on_and_leaves_no_descriptor(
    pipes: list[Pipe | None],
) -> None:
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
    assert len(pipes) == 1
    assert descriptors() == before


def test_bulk_is_counted_and_its_first_bytes_are_kept(pipes: list[Pipe | None]) -> None:
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
    assert len(pipes) == 2


@pytest.mark.parametrize("is_near", [True, False])
def test_the_buffers_of_bulk_are_bounded_where_both_ends_are_near(
    monkeypatch: pytest.MonkeyPatch, is_near: bool
) -> None:
    monkeypatch.setattr(relay_module, "PIPE_BYTES", 4096)  # which is soon full
    if not is_near:
        monkeypatch.setattr(relay_module, "NEAR_MICROSECONDS", 0)
    client, one, other, server = ends()
    with client, server, one.dup() as sink, other.dup() as source, relayed(one, other):
        assert sent_both_ways(client, server) == (BULK, BULK)
        clamp = source.getsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP)
        queue = sink.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert (clamp == relay_module.NEAR_WINDOW_BYTES) is is_near
    assert (queue == 2 * relay_module.NEAR_UNSENT_BYTES) is is_near


@pytest.mark.parametrize("option", [socket.TCP_INFO, socket.TCP_WINDOW_CLAMP, socket.SO_SNDBUF])
def test_bulk_arrives_where_the_kernel_has_no_such_option(
    monkeypatch: pytest.MonkeyPatch, option: int
) -> None:
    monkeypatch.setattr(relay_module, "PIPE_BYTES", 4096)

    class Older(socket.socket):
        def getsockopt(self, *arguments: Any) -> Any:
            return self.ask(super().getsockopt, *arguments)

        def setsockopt(self, *arguments: Any) -> Any:
            return self.ask(super().setsockopt, *arguments)

        def ask(self, call: Callable[..., Any], level: int, it: int, *more: Any) -> Any:
            if it == option:
                raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
            return call(level, it, *more)

    client, *between, server = ends()
    one, other = (Older(fileno=sock.detach()) for sock in between)
    with client, server, relayed(one, other) as raised:
        assert sent_both_ways(client, server) == (BULK, BULK)
    assert raised == []


def test_an_urgent_byte_in_the_middle_of_bulk_stops_nothing(pipes: list[Pipe | None]) -> None:
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
    assert pipes[0] is not None
