"""The stream link: its parts over pipes, and a whole namespace over one attach."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import docker
import pytest
import trustme

from pytest_egress.agent import stream as agent
from pytest_egress.agent.mux import AGENT, Mux
from pytest_egress.agent.mux_frames import ProtocolError
from pytest_egress.agent.netlink import NETFILTER, ROUTE
from pytest_egress.base.relay import unsent
from pytest_egress.engine.engine import Engine
from pytest_egress.errors import EngineError, LinkError
from pytest_egress.link import stream as module
from pytest_egress.link import stream_sockets
from pytest_egress.link.attach import (
    STDERR,
    STDOUT,
    StreamDemultiplexer,
    attach,
    connect,
    output_of,
)
from pytest_egress.link.stream import StreamLink, parse_purpose
from pytest_egress.link.stream_sockets import Listener, loopback_pair
from pytest_egress.link.tampering import tampering
from pytest_egress.targets.ingress import Ingress
from pytest_egress.targets.provision import Provisioner
from pytest_egress.traffic.packets import parse_packets
from tests.support.stage import eventually, reset
from tests.support.stream_scene import (
    MEGABYTE,
    Scene,
    Unframed,
    connect_while_served,
    echo,
    ended,
    failures,
    fill,
    open_descriptors,
    read_all,
    read_into,
    read_until,
    serve_echo,
)
from tests.support.target_shell import (
    SECONDS,
    Target,
    accepted,
    assert_a_child_keeps_nothing,
    captured_namespace,
    readable,
    target_in,
    wait_until_gone,
)

# ------------------------------------------------------------------ the attach


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack("!BxxxI", stream, len(data)) + data


def test_frames_are_taken_apart_wherever_they_are_cut() -> None:
    sent = frame(1, b"out") + frame(2, b"err") + frame(1, b"") + frame(1, b"more" * 40)
    for cut in range(1, len(sent)):
        frames = StreamDemultiplexer()
        pieces = [*frames.feed(sent[:cut]), *frames.feed(sent[cut:])]
        joined = {kind: b"".join(d for k, d in pieces if k == kind) for kind in (STDOUT, STDERR)}
        assert joined == {STDOUT: b"out" + b"more" * 40, STDERR: b"err"}


@pytest.fixture
def engine_end() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our connection to an engine, and the engine's own end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_bytes_behind_the_answer_are_kept(engine_end: tuple[socket.socket, socket.socket]) -> None:
    ours, engine = engine_end
    head = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    engine.sendall(head + frame(1, b"early") + frame(2, b"words")[:9])
    attachment = attach(ours, "/containers/c/attach?stream=1")
    request = engine.recv(4096)
    assert request.startswith(b"POST /containers/c/attach?stream=1 HTTP/1.1\r\n")
    assert b"upgrade: tcp" in request.lower()
    assert attachment.read() == b"early"
    engine.sendall(frame(2, b"words")[9:])
    assert (attachment.read(), attachment.text()) == (b"", "words")
    engine.close()
    assert attachment.read() is None


def test_what_a_command_has_written_before_it_is_looked_at_is_kept(
    engine_end: tuple[socket.socket, socket.socket],
) -> None:
    ours, engine = engine_end
    head = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    engine.sendall(head + frame(1, b"all ") + frame(2, b"words") + frame(1, b"of it"))
    engine.shutdown(socket.SHUT_WR)
    assert output_of(ours, "/exec/e/start") == (b"all of it", b"words")
    request = engine.recv(4096)
    assert request.startswith(b"POST /exec/e/start HTTP/1.1\r\n")
    assert request.endswith(b'\r\n\r\n{"Detach": false, "Tty": false}')


def test_an_engine_that_refuses_is_quoted(
    engine_end: tuple[socket.socket, socket.socket],
) -> None:
    ours, engine = engine_end
    engine.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\n\r\nno such container")
    with pytest.raises(LinkError, match="did not attach to the sidecar: 404 no such container"):
        attach(ours, "/")
    assert ours.fileno() == -1


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n"])
def test_an_engine_that_speaks_no_http_is_a_link_error(
    engine_end: tuple[socket.socket, socket.socket], answer: bytes
) -> None:
    ours, engine = engine_end
    engine.sendall(answer)
    engine.shutdown(socket.SHUT_WR)
    with pytest.raises(LinkError, match="did not attach"):
        attach(ours, "/")
    assert ours.fileno() == -1


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("unix:///no/such/socket", "No engine can be reached at unix:///no/such/socket: "),
        ("http+docker://ssh", "No stream link leads to an engine at 'http"),
        ("http://127.0.0.1:1", "No engine can be reached at http://127.0.0.1:1: "),
    ],
)
def test_an_engine_that_is_not_there_is_a_link_error(address: str, text: str) -> None:
    with pytest.raises(LinkError) as caught:
        connect(address)
    assert str(caught.value).startswith(text)


def test_an_engine_behind_tls_is_spoken_with_like_any_other(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    body = random.Random(1).randbytes(3 * MEGABYTE)

    def engine(listener: socket.socket) -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as sock:
            sock.recv(4096)
            sock.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            for start in range(0, len(body), 30_000):
                sock.sendall(frame(1, body[start : start + 30_000]))
            echoed = bytearray()
            while len(echoed) < len(body):
                echoed += sock.recv(MEGABYTE)
            sock.sendall(frame(1, b"same" if echoed == body else b"other"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=engine, args=(listener,))
        thread.start()
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        attachment = attach(connect(address, verify=str(tmp_path / "ca.pem")), "/")
        assert read_until(attachment, len(body)) == body
        unsent = body
        while unsent:
            select.select([], [attachment], [], SECONDS)
            unsent = unsent[attachment.write(unsent) :]
        assert read_until(attachment, 4) == b"same"
        attachment.close()
        thread.join(SECONDS)
        with pytest.raises(LinkError, match="CERTIFICATE_VERIFY_FAILED"):
            connect_while_served(listener, context, address)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def test_the_greeting_tells_what_the_namespace_has(scene: Scene) -> None:
    assert (scene.link.ipv6, scene.link.frames) == (False, True)
    assert [monitor.proto for monitor in scene.link.monitors] == [NETFILTER, ROUTE]


def test_bytes_pass_both_ways_and_each_way_ends_by_itself(scene: Scene) -> None:
    client, ours = scene.dial()
    with client, ours:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert (read_all(ours), ours.fileno() >= 0) == (b"question", True)
        ours.sendall(b"answer")
        ours.close()
        assert read_all(client) == b"answer"


def test_a_reset_of_the_gateway_resets_the_client(scene: Scene) -> None:
    client, ours = scene.dial()
    reset(ours)
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_reset_of_the_client_resets_the_gateway(scene: Scene) -> None:
    client, ours = scene.dial()
    reset(client)
    with ours, pytest.raises(ConnectionResetError):
        ours.recv(1)


def test_a_client_that_breaks_off_while_nothing_of_it_is_read_is_noticed(scene: Scene) -> None:
    client, ours = scene.dial()
    assert fill(client) > 0
    reset(client)
    with ours, pytest.raises(ConnectionResetError):
        read_all(ours)


def test_what_a_client_had_sent_is_read_before_its_reset(scene: Scene) -> None:
    client, ours = scene.dial()
    sent, got = fill(client), 0
    with ours:
        while unsent(client):  # what its kernel has not sent, a reset drops
            got += len(ours.recv(1 << 18))
        reset(client)
        rest = bytearray()
        with pytest.raises(ConnectionResetError):
            read_into(rest, ours)
    assert got + len(rest) == sent


def test_what_the_gateway_had_sent_is_read_before_its_reset(scene: Scene) -> None:
    client, ours = scene.dial()
    sent, got = fill(ours), 0
    with client:
        while unsent(ours):
            got += len(client.recv(1 << 18))
        reset(ours)
        rest = bytearray()
        with pytest.raises(ConnectionResetError):
            read_into(rest, client)
    assert got + len(rest) == sent


def test_a_client_that_writes_to_no_one_hears_what_the_gateway_had_to_say(scene: Scene) -> None:
    client, ours = scene.dial()
    with client:
        fill(client)
        ours.sendall(b"enough")
        assert eventually(lambda: not unsent(ours))
        reset(ours)
        client.settimeout(SECONDS)
        assert client.recv(100) == b"enough"


def test_a_reader_that_is_slow_holds_its_own_client_back_and_no_other(scene: Scene) -> None:
    client, ours = scene.dial()
    sent = fill(client)
    other, of_other = scene.dial()
    with other, of_other:
        other.sendall(b"x")
        assert of_other.recv(1) == b"x"
    client.shutdown(socket.SHUT_WR)
    with client, ours:
        assert len(read_all(ours)) == sent


@pytest.mark.parametrize("seed", range(3))
def test_many_streams_at_once_keep_their_bytes(scene: Scene, seed: int) -> None:
    chance = random.Random(seed)
    bodies = [chance.randbytes(chance.randrange(400_000)) for _ in range(30)]
    threads = [threading.Thread(target=echo, args=(scene, body)) for body in bodies]
    servers = [threading.Thread(target=serve_echo, args=(scene.link,)) for _ in bodies]
    failures.clear()
    for thread in (*threads, *servers):
        thread.start()
    for thread in (*threads, *servers):
        thread.join(60)
    assert failures == []


def test_queries_are_answered_each_to_its_own_client(scene: Scene) -> None:
    (names,) = scene.link.dns
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        for client, query in ((one, b"first"), (other, b"second")):
            client.settimeout(SECONDS)
            client.sendto(query, scene.namespace.dns[0].getsockname())
        asked = [names.recvfrom(65535) for _ in range(2)]
        for query, sender in asked:
            names.sendto(b"re: " + query, sender)
        assert (one.recv(99), other.recv(99)) == (b"re: first", b"re: second")


def test_packets_and_events_arrive_as_they_are(scene: Scene) -> None:
    scene.namespace.packet_source.send(b"a packet of the kernel's")
    for source, text in zip(scene.namespace.monitor_sources, (b"rules", b"routes"), strict=True):
        source.send(text)
    assert readable((scene.link.packets,)).recv(99) == b"a packet of the kernel's"
    assert [readable((it,)).recv(99) for it in scene.link.monitors] == [b"rules", b"routes"]


def test_a_flood_of_packets_loses_none_while_it_is_read(scene: Scene) -> None:
    count = 3000
    feeder = threading.Thread(
        target=lambda: [
            scene.namespace.packet_source.send(b"packet %d" % number) for number in range(count)
        ]
    )
    feeder.start()
    scene.link.packets.settimeout(SECONDS)
    arrived = [scene.link.packets.recv(99) for _ in range(count)]
    assert arrived == [b"packet %d" % number for number in range(count)]
    feeder.join()


def test_a_flush_tells_how_many_packets_the_sidecars_kernel_had_no_room_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.link.flush(SECONDS)
    assert scene.link.lost_packets == 0
    monkeypatch.setattr(agent, "dropped", lambda sock: 7)
    scene.link.flush(SECONDS)
    assert scene.link.lost_packets == 7
    assert select.select([scene.link.packets], [], [], 0)[0] == []  # it is no packet


def fate_of(ours: socket.socket) -> str:
    assert isinstance(ours, stream_sockets.Accepted)
    return ours.fate


def test_the_end_of_a_client_tells_whether_it_had_got_anything(scene: Scene) -> None:
    client, ours = scene.dial()
    with client, ours:
        assert fate_of(ours) == "heard"
        client.shutdown(socket.SHUT_WR)
        assert ours.recv(1) == b""
        assert fate_of(ours) == "doubtful"
        client.close()
        ours.sendall(b"220 mail.test")
        assert eventually(lambda: fate_of(ours) == "unheard")
    client, ours = scene.dial()
    with client, ours:
        ours.sendall(b"220 mail.test")
        assert client.recv(3) == b"220"
        client.close()  # with something unread: a reset
        with pytest.raises(ConnectionResetError):
            ours.recv(1)
        assert fate_of(ours) == "heard"
    client, ours = scene.dial()
    with client, ours:
        ours.sendall(b"220")
        assert client.recv(3) == b"220"
        client.shutdown(socket.SHUT_WR)
        assert ours.recv(1) == b""
        assert fate_of(ours) == "heard"


def test_after_a_flush_all_that_was_done_can_be_read(scene: Scene) -> None:
    for number in range(50):
        client, ours = scene.dial()
        with client, ours:
            client.sendall(b"%d" % number)
            scene.namespace.packet_source.send(b"packet %d" % number)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.sendto(b"query", scene.namespace.dns[0].getsockname())
            second = socket.create_connection(scene.namespace.tcp[0].getsockname(), SECONDS)
            scene.link.flush(SECONDS)
            waiting = (ours, *scene.link.tcp, *scene.link.dns, scene.link.packets)
            assert len(select.select(waiting, [], [], 0)[0]) == len(waiting)
            accepted(scene.link).close()
            second.close()
            scene.link.packets.recv(99)
            scene.link.dns[0].recvfrom(99)


def test_a_port_of_the_namespace_is_reached_or_refuses(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with scene.link.connect(port, SECONDS) as ours:
            inside, _ = server.accept()
            with inside:
                ours.sendall(b"in")
                assert inside.recv(9) == b"in"
                inside.sendall(b"out")
                inside.shutdown(socket.SHUT_WR)
                assert read_all(ours) == b"out"
                ours.close()
                assert inside.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        scene.link.connect(port, SECONDS)


def test_connections_wait_in_the_backlog_until_a_stream_is_to_be_had() -> None:
    scene = Scene(2)
    pairs = [scene.dial() for _ in range(2)]
    with socket.create_connection(scene.namespace.tcp[0].getsockname(), SECONDS) as third:
        third.sendall(b"third")
        assert select.select(scene.link.tcp, [], [], 0.2)[0] == []
        for sock in pairs.pop(0):
            sock.close()
        with accepted(scene.link) as ours:
            assert ours.recv(9) == b"third"
    for pair in pairs:
        for sock in pair:
            sock.close()
    scene.close()


@pytest.mark.parametrize("channel", ["dns", "packets"])
def test_what_is_not_read_is_bounded_by_bytes_and_its_loss_is_told(
    scene: Scene, channel: str
) -> None:
    mailbox = scene.link._names if channel == "dns" else scene.link._packets

    def fill() -> None:
        for _ in range(2 * stream_sockets._MAX_WAITING // 60_000):
            mailbox.put(bytes(60_000))
        done.set()

    done = threading.Event()
    scene.link._command(fill)
    assert done.wait(SECONDS)
    assert mailbox._waiting <= stream_sockets._MAX_WAITING
    scene.link.packets.settimeout(SECONDS)
    while scene.link.packets.recv(1 << 16):
        pass  # until one is empty


def test_clients_that_never_close_use_up_no_link() -> None:
    scene, clients = Scene(3), []
    for number in range(9):
        client = socket.create_connection(scene.namespace.tcp[0].getsockname(), SECONDS)
        client.sendall(b"%d" % number)
        clients.append(client)
        with accepted(scene.link) as ours:
            assert ours.recv(9) == b"%d" % number
    for client in clients:
        client.close()
    scene.close()


def test_accepting_goes_on_as_soon_as_a_stream_is_to_be_had() -> None:
    scene = Scene(4)
    pairs = [scene.dial() for _ in range(4)]
    for client, ours in pairs[2:]:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        ours.close()
    pairs[2:] = [scene.dial()]
    for pair in pairs:
        for sock in pair:
            sock.close()
    scene.close()


def test_a_connection_to_the_target_that_is_given_up_by_an_interrupt_leaves_the_link(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Future[None]):
        def result(self, timeout: float | None = None) -> None:
            super().result(timeout)
            raise KeyboardInterrupt

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with monkeypatch.context() as patch:
            patch.setattr("pytest_egress.link.stream.Future", Interrupted)
            with pytest.raises(KeyboardInterrupt):
                scene.link.connect(port, SECONDS)
        inside, _ = server.accept()
        with inside:
            inside.sendall(b"too late")
        with scene.link.connect(port, SECONDS) as ours, server.accept()[0] as again:
            again.sendall(b"in time")
            assert ours.recv(9) == b"in time"


def test_a_connection_that_cannot_be_taken_is_reset(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Listener, "dial", no_room)
    address = scene.namespace.tcp[0].getsockname()
    with (
        pytest.raises(
            ConnectionResetError
        ),  # it may come while the kernel still tells of the connection
        socket.create_connection(address, SECONDS) as client,
    ):
        client.recv(1)


def test_a_stranger_on_this_machine_is_no_connection_of_the_target(scene: Scene) -> None:
    listener = scene.link.tcp[0]
    with socket.create_connection(listener.getsockname(), SECONDS) as stranger:
        with pytest.raises(ConnectionAbortedError):
            listener.accept()
        assert stranger.recv(1) == b""


def test_the_client_and_what_it_dialled_are_those_of_the_purpose() -> None:
    assert parse_purpose(b"2001:db8::9 443 fd00:213::2 4000") == (
        ("2001:db8::9", 443),
        ("fd00:213::2", 4000),
    )
    assert parse_purpose(b"- 0 127.0.0.1 4000") == (None, ("127.0.0.1", 4000))
    assert parse_purpose(b"unknown [Errno 2] gone") == ("[Errno 2] gone", ("", 0))
    with pytest.raises(ProtocolError, match="opened a stream for 'what'"):
        parse_purpose(b"what")


def test_what_is_not_known_to_have_been_dialled_is_an_error(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgotten(_: object) -> None:
        raise OSError(errno.ENOENT, "no longer tracked")

    monkeypatch.setattr(agent, "original_destination", forgotten)
    client, ours = scene.dial()
    with client, ours, pytest.raises(FileNotFoundError, match="no longer tracked"):
        scene.link.destination(ours)


def test_an_accepted_connection_outlives_its_streams_end() -> None:
    with Listener() as listener:
        reset(listener.dial(("203.0.113.9", 443), ("10.213.0.2", 4000)))
        sock, client = listener.accept()
        with sock:
            assert client == ("10.213.0.2", 4000)
            assert sock.dialled == ("203.0.113.9", 443)


def test_a_sidecar_that_does_not_answer_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_SECONDS", 0.1)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.5)
    ours, theirs = socket.socketpair()
    with theirs:
        mux = Mux(AGENT)
        mux.hello()
        theirs.sendall(mux.send())
        link = StreamLink(Unframed(ours))
        link.start(SECONDS)
        assert readable((link.channel,)).recv(1) == b""
        with pytest.raises(OSError, match=r"it has not answered for 0\.5 s"):
            link.connect(80, SECONDS)
        link.close()


def test_one_that_answers_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_SECONDS", 0.05)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.5)
    scene = Scene()
    assert select.select([scene.link.channel], [], [], 1.5)[0] == []
    scene.close()


def test_who_was_stopped_past_its_time_sees_what_has_come_meanwhile() -> None:
    code = """
        from pytest_egress.agent.pump import Interests, READABLE
        interests = Interests()
        interests.want(0, READABLE)
        print("waiting", flush=True)
        print(interests.wait(0.5))
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as waiting:
        assert waiting.stdin is not None
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"waiting\n"
        waiting.send_signal(signal.SIGSTOP)
        os.waitpid(waiting.pid, os.WUNTRACED)
        waiting.stdin.write(b"!")
        waiting.stdin.flush()
        time.sleep(1)
        waiting.send_signal(signal.SIGCONT)
        assert waiting.stdout.readline() == b"[(0, 1)]\n"


@pytest.mark.parametrize(
    ("sent", "error", "text"),
    [
        (b"", EOFError, "it has ended"),
        (
            b"Traceback (most recent call last)",
            LinkError,
            "no agent of ours: The peer does not beg",
        ),
    ],
)
def test_an_agent_that_is_none_is_told(sent: bytes, error: type[Exception], text: str) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(sent)
    theirs.shutdown(socket.SHUT_WR)
    with theirs, pytest.raises(error, match=text):
        StreamLink(Unframed(ours)).start(SECONDS)


def test_an_agent_that_gives_up_says_why() -> None:
    ours, theirs = socket.socketpair()
    mux = Mux(AGENT)
    mux.fail("There is no veth.")
    theirs.sendall(mux.send())
    with theirs, pytest.raises(LinkError, match=r"^There is no veth\.$"):
        StreamLink(Unframed(ours)).start(SECONDS)


def test_a_silent_agent_is_waited_for_no_longer_than_the_limit() -> None:
    ours, theirs = socket.socketpair()
    before = threading.active_count()
    with theirs, pytest.raises(TimeoutError):
        StreamLink(Unframed(ours)).start(0.2)
    assert threading.active_count() == before


def test_a_peer_that_breaks_the_rules_is_lost(scene: Scene) -> None:
    scene.theirs.sendall(bytes(64))
    assert readable((scene.link.channel,)).recv(1) == b""
    with pytest.raises(OSError, match="sent a frame of type 0"):
        scene.link.connect(80, SECONDS)


def test_after_its_end_everything_is_refused_and_nothing_waits() -> None:
    before = open_descriptors(), threading.active_count()
    scene = Scene()
    client, ours = scene.dial()
    scene.close()
    scene.link.close()
    with client, ours:
        assert ended(client)
        assert ended(ours)
    with pytest.raises(OSError, match="the link to the sidecar is closed"):
        scene.link.connect(80, SECONDS)
    scene.link.flush(SECONDS)
    assert (open_descriptors(), threading.active_count()) == before


def test_loopback_pairs_are_connected_to_each_other() -> None:
    one, other = loopback_pair()
    with one, other:
        assert one.getpeername() == other.getsockname()


def test_a_monitor_that_lost_events_is_told_like_a_change() -> None:
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with reader, writer:
        writer.send(b"")
        assert tampering(reader) == (
            "something changed the network namespace so often that events were lost"
        )


# ------------------------------------------------------------------ with an engine


@pytest.fixture(scope="module")
def namespace(
    engine_client: docker.DockerClient, clients_image: str
) -> Iterator[tuple[StreamLink, Target]]:
    with (
        captured_namespace(engine_client, "stream") as (sidecar, link),
        target_in(engine_client, sidecar, clients_image) as target,
    ):
        assert isinstance(link, StreamLink)
        yield link, target


@pytest.fixture
def link(namespace: tuple[StreamLink, Target]) -> StreamLink:
    return namespace[0]


@pytest.fixture
def target(namespace: tuple[StreamLink, Target]) -> Target:
    return namespace[1]


@pytest.mark.parametrize("destination", [("203.0.113.9", 443), ("2001:db8::9", 25)])
def test_a_connection_of_the_target_arrives(
    link: StreamLink, target: Target, destination: tuple[str, int]
) -> None:
    target.start_python(f"""
        with socket.create_connection({destination!r}, 10) as sock:
            sock.sendall(b"question")
            assert sock.recv(6) == b"answer"
    """)
    readable(link.tcp)
    connection, client = link.tcp[0].accept()
    with connection:
        assert link.destination(connection) == destination
        assert client[0] in ("10.213.0.2", "fd00:213::2")
        assert connection.recv(8) == b"question"
        connection.sendall(b"answer")
        assert connection.recv(1) == b""


def test_the_listener_itself_is_no_attempt(link: StreamLink, target: Target) -> None:
    ports = target.python("""
        lines = [line.split() for line in open("/proc/net/tcp")][1:]
        print(*(int(it[1].split(":")[1], 16) for it in lines if it[3] == "0A"))
    """).split()
    target.python(f"socket.create_connection(('127.0.0.1', {ports[0]}), 10).close()")
    with accepted(link) as connection:
        assert link.destination(connection) is None


def test_100_megabytes_pass_intact_each_way(link: StreamLink, target: Target) -> None:
    target.start_python("""
        import hashlib
        sock = socket.create_connection(("203.0.113.9", 443), 10)
        for seed in range(100):
            sock.sendall(bytes([seed]) * (1 << 20))
        digest = hashlib.sha256()
        left = 100 << 20
        while left:
            data = sock.recv(min(left, 1 << 18))
            digest.update(data)
            left -= len(data)
        sock.sendall(digest.hexdigest().encode())
        sock.close()
    """)
    with accepted(link) as connection:
        connection.settimeout(60)
        whole = hashlib.sha256()
        for seed in range(100):
            whole.update(bytes([seed]) * MEGABYTE)
        arrived, left = hashlib.sha256(), 100 * MEGABYTE
        began = time.monotonic()
        while left:
            data = connection.recv(min(left, MEGABYTE))
            arrived.update(data)
            left -= len(data)
        up = time.monotonic()
        for seed in range(100):
            connection.sendall(bytes([seed]) * MEGABYTE)
        assert read_all(connection).decode() == arrived.hexdigest() == whole.hexdigest()
        down = time.monotonic()
    print(f"up {105 / (up - began):.0f} MB/s, down {105 / (down - up):.0f} MB/s")


def test_200_connections_at_once(link: StreamLink, target: Target) -> None:
    target.start_python("""
        socks = [socket.create_connection(("203.0.113.9", 443), 20) for _ in range(200)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%03d" % number)
        for number, sock in enumerate(socks):
            assert sock.recv(3) == b"%03d" % (999 - number)
        for sock in socks:
            sock.sendall(b"!")
            sock.close()
    """)
    connections = [accepted(link) for _ in range(200)]
    seen = set()
    for connection in connections:
        connection.settimeout(SECONDS)
        number = int(connection.recv(3))
        seen.add(number)
        connection.sendall(b"%03d" % (999 - number))
    for connection in connections:
        with connection:
            assert read_all(connection) == b"!"
    assert len(seen) == 200


def test_a_half_closed_connection_goes_on(link: StreamLink, target: Target) -> None:
    target.start_python("""
        sock = socket.create_connection(("203.0.113.9", 443), 10)
        sock.sendall(b"all")
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(99):
            answer += data
        with socket.create_connection(("203.0.113.10", 443), 10) as sock:
            sock.sendall(answer)
    """)
    with accepted(link) as connection:
        assert read_all(connection) == b"all"
        connection.sendall(b"and more")
    with accepted(link) as connection:
        assert read_all(connection) == b"and more"


def test_resets_pass_both_ways(link: StreamLink, target: Target) -> None:
    target.start_python("""
        # It may come while the kernel still tells of the connection.
        told = attempt(lambda: socket.create_connection(("203.0.113.9", 443), 10).recv(1))
        sock = socket.create_connection(("203.0.113.9", 443), 10)
        sock.sendall(str(told).encode())
        assert sock.recv(1) == b"r"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    """)
    reset(accepted(link))
    with accepted(link) as connection:
        assert connection.recv(99) == b"ECONNRESET"
        connection.sendall(b"r")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


QUERY = b"\x12\x34\1\0\0\1" + bytes(6) + b"\3api\4test\0\0\1\0\1"


@pytest.mark.parametrize("server", ["192.0.2.53", "127.0.0.11", "8.8.8.8", "2001:db8::53"])
def test_names_are_asked_for_over_udp(link: StreamLink, target: Target, server: str) -> None:
    (names,) = link.dns
    answering = threading.Thread(target=answer_once, args=(names,))
    answering.start()
    family = "socket.AF_INET6" if ":" in server else "socket.AF_INET"
    assert (
        target.python(f"""
        sock = socket.socket({family}, socket.SOCK_DGRAM)
        sock.connect(({server!r}, 53))
        sock.settimeout(10)
        sock.send({QUERY!r})
        print(sock.recv(99))
    """)
        == f"{b're: ' + QUERY!r}"
    )
    answering.join(SECONDS)


def answer_once(names: socket.socket) -> None:
    readable((names,))
    query, client = names.recvfrom(65535)
    names.sendto(b"re: " + query, client)


def test_names_are_asked_for_over_tcp(link: StreamLink, target: Target) -> None:
    target.start_python("socket.create_connection(('8.8.8.8', 53), 10).sendall(b'query')")
    with accepted(link) as connection:
        assert link.destination(connection) == ("8.8.8.8", 53)
        assert connection.recv(99) == b"query"


def test_packets_of_other_protocols_are_told(link: StreamLink, target: Target) -> None:
    target.python("""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        attempt(lambda: sock.sendto(b"ntp", ("203.0.113.9", 123)))
    """)
    (packet,) = parse_packets(readable((link.packets,)).recv(65536))
    assert (packet.protocol_name, packet.destination, packet.port, packet.payload) == (
        "UDP",
        "203.0.113.9",
        123,
        b"ntp",
    )


def test_a_port_of_the_target_is_reached_over_both_families(
    link: StreamLink, target: Target
) -> None:
    target.start_python("""
        for family, address in ((2, "127.0.0.1"), (10, "::1"), (2, OWN4), (10, OWN6)):
            server = socket.create_server((address, 8000), family=family)
            sock, _ = server.accept()
            sock.sendall(address.encode())
            sock.close()
            server.close()
    """)
    reached: set[str] = set()
    deadline = time.monotonic() + SECONDS
    while len(reached) < 4 and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionError), link.connect(8000, SECONDS) as connection:
            reached.add(read_all(connection).decode())
    assert reached == {"127.0.0.1", "::1", "10.213.0.2", "fd00:213::2"}


def test_tampering_is_told(engine_client: docker.DockerClient, clients_image: str) -> None:
    with (
        captured_namespace(engine_client, "stream") as (sidecar, link),
        target_in(engine_client, sidecar, clients_image, cap_add=["NET_ADMIN"]) as target,
    ):
        monitors = dict(zip(("rules", "network"), link.monitors, strict=True))
        target.python("""
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
            def message(kind, flags, family, body=b"", number=0):
                data = struct.pack("!BBH", family, 0, number) + body
                return struct.pack("=IHHII", 16 + len(data), kind, flags, 1, 0) + data
            sock.send(message(16, 1, 0, number=10) + message(10 << 8 | 2, 1, 0)
                      + message(17, 1, 0, number=10))
        """)
        assert tampering(readable((monitors["rules"],))) == (
            "something deleted a rule of nftables in the target's network namespace"
        )
        target.python("""
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex("eth0"), 0, 1)
            sock.send(struct.pack("=IHHII", 16 + len(body), 16, 1, 1, 0) + body)
        """)
        told: list[str | None] = []
        while not any(told):
            told.append(tampering(readable((monitors["network"],))))
        assert told[-1] is not None


def test_a_sidecar_that_is_killed_ends_the_channel(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with captured_namespace(engine_client, "stream") as (sidecar, link):
        assert select.select([link.channel], [], [], 0)[0] == []
        engine_client.api.kill(sidecar.id)
        assert readable((link.channel,)).recv(1) == b""
        with pytest.raises(OSError, match="no connection by the sidecar: it has ended"):
            link.connect(80, SECONDS)


def test_closing_leaves_no_thread_no_descriptor_and_no_container() -> None:
    before = open_descriptors(), threading.active_count()
    client = docker.from_env()
    with captured_namespace(client, "stream") as (sidecar, link):
        with pytest.raises(ConnectionRefusedError):
            link.connect(9, SECONDS)
        link.close()
        link.close()
        wait_until_gone(client, sidecar.id)
    client.close()
    assert (open_descriptors(), threading.active_count()) == before


def test_an_engine_that_is_reached_over_tcp_alone_will_do(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    path = engine_client.api._custom_adapter.socket_path  # type: ignore[attr-defined]  # docker-py hides it

    def engine() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(path)
        return sock

    ingress = Ingress(engine)
    client = docker.DockerClient(base_url="tcp://{}:{}".format(*ingress.address))
    try:
        with (
            captured_namespace(client, "stream") as (sidecar, link),
            target_in(client, sidecar, clients_image) as target,
        ):
            target.start_python("socket.create_connection(('203.0.113.9', 443), 10).send(b'x')")
            with accepted(link) as connection:
                assert link.destination(connection) == ("203.0.113.9", 443)
                assert connection.recv(1) == b"x"
    finally:
        client.close()
        ingress.close()


@pytest.mark.parametrize(
    ("given", "variable", "links"),
    [
        (None, None, ["descriptor", "stream"]),
        (None, "auto", ["descriptor", "stream"]),
        (None, "stream", ["stream", "stream"]),
        ("stream", "descriptor", ["stream", "stream"]),
        ("descriptor", None, ["descriptor", "descriptor"]),
    ],
)
def test_the_link_is_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, given: str | None, variable: str | None, links: list[str]
) -> None:
    monkeypatch.delenv("PYTEST_EGRESS_LINK", raising=False)
    if variable is not None:
        monkeypatch.setenv("PYTEST_EGRESS_LINK", variable)
    setups = Provisioner(Engine(docker.from_env, "session"), given).setups
    assert [setup.link for setup in setups] == links
    assert [setup.image for setup in setups] == [None, "python:3.13-slim"]


def test_another_value_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_EGRESS_LINK", "rope")
    with pytest.raises(EngineError) as caught:
        _ = Provisioner(Engine(docker.from_env, "session")).setups
    assert str(caught.value) == "PYTEST_EGRESS_LINK=rope: it takes auto, descriptor, stream"


def test_a_sidecar_of_a_stream_has_no_folder_of_this_machine_but_its_python(
    engine_client: docker.DockerClient,
) -> None:
    with captured_namespace(engine_client, "stream") as (sidecar, _):
        mounts = engine_client.api.inspect_container(sidecar.id)["Mounts"]
        assert not [mount for mount in mounts if mount["Destination"] == "/run/egress"]
        assert all(not mount["RW"] for mount in mounts)


def test_a_forked_child_keeps_nothing_and_ends_nothing(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with (
        captured_namespace(engine_client, "stream") as (sidecar, link),
        target_in(engine_client, sidecar, clients_image) as target,
    ):
        assert_a_child_keeps_nothing(link)
        target.start_python("socket.create_connection(('203.0.113.9', 443), 10)")
        with accepted(link) as connection:
            assert link.destination(connection) == ("203.0.113.9", 443)
        with pytest.raises(ConnectionRefusedError):
            link.connect(9, SECONDS)


def test_an_interpreter_that_fails_is_quoted(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = "raise SystemExit('libpython is missing')"
    monkeypatch.setattr("pytest_egress.targets.sidecar.BOOT", boot)
    text = failure(engine_client)
    assert text.startswith("The sidecar ended before it sent its sockets")
    assert text.endswith("It wrote:\nlibpython is missing")


def test_a_silent_sidecar_is_waited_for_no_longer_than_the_limit(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.targets.sidecar.START_SECONDS", 0.5)
    boot = "import sys, time; print('busy', file=sys.stderr, flush=True); time.sleep(60)"
    monkeypatch.setattr("pytest_egress.targets.sidecar.BOOT", boot)
    assert failure(engine_client) == (
        "The sidecar is running, but sent no sockets within 0.5 seconds. It wrote:\nbusy"
    )


def test_a_kernel_that_refuses_is_told_over_the_link(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine_client.api.create_host_config

    def powerless(**options: Any) -> Any:
        return real(**{**options, "cap_add": []})

    monkeypatch.setattr(engine_client.api, "create_host_config", powerless)
    assert "The sidecar has no CAP_NET_ADMIN" in failure(engine_client)


def failure(client: docker.DockerClient) -> str:
    """Why a sidecar of a stream does not start."""
    with pytest.raises(LinkError) as caught, captured_namespace(client, "stream"):
        pass
    return str(caught.value)
