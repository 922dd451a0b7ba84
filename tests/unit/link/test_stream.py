"""The stream link: its parts over pipes, and a whole namespace over one attach."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import docker
import pytest

from pytest_egress.agent import mux as agent_mux
from pytest_egress.agent import stream as agent
from pytest_egress.agent.mux import AGENT, WINDOW, Mux
from pytest_egress.agent.mux_frames import ProtocolError
from pytest_egress.agent.netlink import NETFILTER, ROUTE
from pytest_egress.base.acknowledged import unsent
from pytest_egress.errors import LinkError
from pytest_egress.link import stream as module
from pytest_egress.link import stream_sockets
from pytest_egress.link.stream import StreamLink, parse_purpose
from pytest_egress.link.stream_sockets import loopback_pair
from tests.support.stage import eventually, reset
from tests.support.stream_scene import (
    RelayScene,
    StreamScene,
    Unframed,
    echo,
    ended,
    failures,
    fill,
    open_descriptors,
    read_all,
    read_into,
    serve_echo,
)
from tests.support.target_shell import (
    SECONDS,
    accepted,
    captured_namespace,
    readable,
    wait_until_gone,
)


@pytest.fixture(params=["stream", "relay"])
def scene(request: pytest.FixtureRequest) -> Iterator[StreamScene]:
    """By the engine's stream alone, and with connections that go by a relay."""
    relay = RelayScene() if request.param == "relay" else None
    made = StreamScene(relay=relay)
    yield made
    made.close()
    if relay is not None:
        relay.close()


def test_the_greeting_tells_what_the_namespace_has(scene: StreamScene) -> None:
    assert (scene.link.ipv6, scene.link.frames) == (False, True)
    assert [monitor.proto for monitor in scene.link.monitors] == [NETFILTER, ROUTE]


def test_bytes_pass_both_ways_and_each_way_ends_by_itself(scene: StreamScene) -> None:
    client, ours = scene.dial()
    with client, ours:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert (read_all(ours), ours.fileno() >= 0) == (b"question", True)
        ours.sendall(b"answer")
        ours.close()
        assert read_all(client) == b"answer"


def test_a_reset_of_the_gateway_resets_the_client(scene: StreamScene) -> None:
    client, ours = scene.dial()
    reset(ours)
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_reset_of_the_client_resets_the_gateway(scene: StreamScene) -> None:
    client, ours = scene.dial()
    reset(client)
    with ours, pytest.raises(ConnectionResetError):
        ours.recv(1)


def test_a_client_that_breaks_off_while_nothing_of_it_is_read_is_noticed(
    scene: StreamScene,
) -> None:
    client, ours = scene.dial()
    assert fill(client) > 0
    reset(client)
    with ours, pytest.raises(ConnectionResetError):
        read_all(ours)


def test_what_a_client_had_sent_is_read_before_its_reset(scene: StreamScene) -> None:
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


def test_what_the_gateway_had_sent_is_read_before_its_reset(scene: StreamScene) -> None:
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


def test_a_client_that_writes_to_no_one_hears_what_the_gateway_had_to_say(
    scene: StreamScene,
) -> None:
    client, ours = scene.dial()
    with client:
        fill(client)
        ours.sendall(b"enough")
        assert eventually(lambda: not unsent(ours))
        reset(ours)
        client.settimeout(SECONDS)
        assert client.recv(100) == b"enough"


def test_a_reader_that_is_slow_holds_its_own_client_back_and_no_other(scene: StreamScene) -> None:
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
def test_many_streams_at_once_keep_their_bytes(scene: StreamScene, seed: int) -> None:
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


def test_queries_are_answered_each_to_its_own_client(scene: StreamScene) -> None:
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


def test_packets_and_events_arrive_as_they_are(scene: StreamScene) -> None:
    scene.namespace.packet_source.send(b"a packet of the kernel's")
    for source, text in zip(scene.namespace.monitor_sources, (b"rules", b"routes"), strict=True):
        source.send(text)
    assert readable((scene.link.packets,)).recv(99) == b"a packet of the kernel's"
    assert [readable((it,)).recv(99) for it in scene.link.monitors] == [b"rules", b"routes"]


def test_a_flood_of_packets_loses_none_while_it_is_read(scene: StreamScene) -> None:
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
    scene: StreamScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.link.flush(SECONDS)
    assert scene.link.lost_packets == 0
    monkeypatch.setattr(agent, "dropped", lambda sock: 7)
    scene.link.flush(SECONDS)
    assert scene.link.lost_packets == 7
    assert scene.link.packets.recv(99) == b""  # which tells of it
    scene.link.flush(SECONDS)
    assert scene.link.lost_packets == 7
    assert select.select([scene.link.packets], [], [], 0)[0] == []


def test_a_flush_ends_whichever_datagrams_were_lost_before_it_could_be_answered(
    scene: StreamScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_mux, "MAX_DATAGRAMS", 100)  # one packet at most waits
    for number in range(50):
        scene.namespace.packet_source.send(b"packet %d" % number)
    scene.link.flush(SECONDS)
    found = []
    while select.select([scene.link.packets], [], [], 0)[0]:
        found.append(scene.link.packets.recv(99))
    found = [each for each in found if each]
    assert found[-1] == b"packet 49"
    assert len(found) + scene.link.lost_packets == 50


FRAME = b"at eth0" + bytes(5) + b"\x08\x00" + b"\x45 a packet"
REPLY = b"\0" * 12 + b"\x86\xdd" + b"\x60 an answer"


def test_a_datagram_passes_both_ways_without_its_ethernet_header(scene: StreamScene) -> None:
    datagrams = scene.link.datagrams
    assert datagrams is not None
    scene.namespace.datagram_source.send(FRAME[:12] + b"\x88\xb5" + FRAME[14:])  # is lost, and told
    scene.namespace.datagram_source.send(FRAME)
    assert readable((datagrams,)).recv(70_000) == bytes(12) + FRAME[12:]
    scene.link.flush(SECONDS)
    assert scene.link.lost_packets == 1
    assert datagrams.send(REPLY) == len(REPLY)
    answer = readable((scene.namespace.datagram_source,)).recv(70_000)
    assert answer == FRAME[6:12] + FRAME[:6] + REPLY[12:]


def test_the_longest_datagram_passes(scene: StreamScene) -> None:
    longest = FRAME[:14] + b"\x45" + bytes(65_534)
    scene.namespace.datagram_source.send(longest)
    assert scene.link.datagrams is not None
    assert readable((scene.link.datagrams,)).recv(70_000)[12:] == longest[12:]


def test_datagrams_wait_in_the_sidecars_kernel_while_many_wait_for_the_wire(
    scene: StreamScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent drops none."""
    monkeypatch.setattr(agent_mux, "MAX_DATAGRAMS", 400)
    source, count = scene.namespace.datagram_source, 2_000
    feeder = threading.Thread(
        target=lambda: [source.send(FRAME + b"%d" % number) for number in range(count)]
    )
    feeder.start()
    datagrams = scene.link.datagrams
    assert datagrams is not None
    datagrams.settimeout(SECONDS)
    arrived = [datagrams.recv(99)[len(FRAME) :] for _ in range(count)]
    feeder.join()
    scene.link.flush(SECONDS)
    assert arrived == [b"%d" % number for number in range(count)]
    assert scene.link.lost_packets == 0


def test_answers_to_datagrams_wait_for_the_wire_and_none_is_dropped(
    scene: StreamScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[bytes] = []
    monkeypatch.setattr(agent.Agent, "_send_datagram", lambda _, packet: got.append(packet))
    monkeypatch.setattr(agent_mux, "MAX_DATAGRAMS", 400)
    assert scene.link.datagrams is not None
    for number in range(2_000):
        scene.link.datagrams.send(REPLY + b"%d" % number)
    assert eventually(lambda: len(got) == 2_000)
    assert got == [REPLY[14:] + b"%d" % number for number in range(2_000)]


def test_a_flush_tells_how_many_datagrams_the_sidecars_kernel_had_no_room_for(
    scene: StreamScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = iter([5, 0, 2])
    monkeypatch.setattr(agent, "dropped_datagrams", lambda sock: next(lost, 0))
    for expected in (5, 5, 7):
        scene.link.flush(SECONDS)
        assert scene.link.lost_packets == expected


def test_a_flush_tells_how_many_packets_the_table_of_connections_had_no_room_for(
    scene: StreamScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = iter([5, 5, 7])
    monkeypatch.setattr(agent, "untracked", lambda statistics: next(lost))
    for expected in (5, 5, 7):
        scene.link.flush(SECONDS)
        assert scene.link.lost_packets == expected


def test_a_sidecar_without_the_socket_for_datagrams_has_a_link_without() -> None:
    scene = StreamScene(has_datagrams=False)
    assert scene.link.datagrams is None
    scene.link.flush(SECONDS)
    scene.close()


def fate_of(ours: socket.socket) -> str:
    assert isinstance(ours, stream_sockets.AcceptedSocket)
    return ours.fate


def test_the_end_of_a_client_tells_whether_it_had_got_anything(scene: StreamScene) -> None:
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


def test_after_a_flush_all_that_was_done_can_be_read(scene: StreamScene) -> None:
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


def test_a_port_of_the_namespace_is_reached_or_refuses(scene: StreamScene) -> None:
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


def test_datagrams_to_a_port_of_the_namespace_pass_both_ways_whole(
    scene: StreamScene, datagram_server: socket.socket
) -> None:
    port = datagram_server.getsockname()[1]
    with scene.link.connect_datagrams(port) as ours, scene.link.connect_datagrams(port) as other:
        clients = []
        for sock, content in ((ours, b""), (ours, b"x" * 65_507), (other, b"other")):
            sock.send(content)
            received, client = datagram_server.recvfrom(70_000)
            assert received == content
            clients.append(client)
            datagram_server.sendto(content[::-1], client)
            assert readable((sock,)).recv(70_000) == content[::-1]
        assert clients[0] == clients[1] != clients[2]
    datagram_server.close()
    with pytest.raises(ConnectionRefusedError):
        scene.link.connect_datagrams(port)


def test_a_port_of_datagrams_that_is_closed_refuses_and_the_end_of_the_link_is_told(
    scene: StreamScene, datagram_server: socket.socket
) -> None:
    with scene.link.connect_datagrams(datagram_server.getsockname()[1]) as sock:
        datagram_server.close()
        sock.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            readable((sock,)).recv(9)
        scene.link.close()
        with pytest.raises(BrokenPipeError):
            readable((sock,)).recv(9)


def test_a_change_of_dials_is_applied_or_an_error_with_the_agents_reason(
    scene: StreamScene,
) -> None:
    assert scene.link.own_port == 7
    long = b"=" + bytes(100_000)  # more than a frame, and more than is acknowledged at once
    for message in (b"=rules", long):
        scene.link.change_dials(message)
    assert scene.dials.changes == [b"=rules", long]
    scene.dials.refusal = "No such rule."
    with pytest.raises(LinkError) as caught:
        scene.link.change_dials(b"+more")
    assert str(caught.value) == (
        "The target's kernel does not refuse or drop connections as its routes say: No such rule."
    )
    with pytest.raises(LinkError, match="the link has no room for it"):
        scene.link.change_dials(bytes(WINDOW + 1))
    scene.link.close()
    with pytest.raises(LinkError, match="the link to the sidecar is closed"):
        scene.link.change_dials(b"=")


def test_connections_wait_in_the_backlog_until_a_stream_is_to_be_had() -> None:
    scene = StreamScene(2)
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
    scene: StreamScene, channel: str
) -> None:
    mailbox = scene.link._names if channel == "dns" else scene.link._packets

    def fill() -> None:
        for _ in range(2 * stream_sockets.MOST_WAITING // 60_000):
            mailbox.put(bytes(60_000))
        done.set()

    done = threading.Event()
    scene.link._command(fill)
    assert done.wait(SECONDS)
    assert mailbox._waiting <= stream_sockets.MOST_WAITING
    scene.link.packets.settimeout(SECONDS)
    while scene.link.packets.recv(1 << 16):
        pass  # until one is empty


def test_clients_that_never_close_use_up_no_link() -> None:
    scene, clients = StreamScene(3), []
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
    scene = StreamScene(4)
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
    scene: StreamScene, monkeypatch: pytest.MonkeyPatch
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


def test_a_connection_that_cannot_be_taken_is_reset_and_counted(scene: StreamScene) -> None:
    scene.link._listener._most = 0
    address = scene.namespace.tcp[0].getsockname()
    with (
        pytest.raises(
            ConnectionResetError
        ),  # it may come while the kernel still tells of the connection
        socket.create_connection(address, SECONDS) as client,
    ):
        client.recv(1)
    scene.link.flush(SECONDS)
    assert scene.link.lost_packets == 1


def test_no_port_of_this_machine_leads_to_the_link(scene: StreamScene) -> None:
    client, ours = scene.dial()
    with client, ours:
        assert not [sock for sock in scene.link._readers() if sock.family != socket.AF_UNIX]


def test_numbers_of_errors_are_those_of_linux_whatever_this_machine_has(
    scene: StreamScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.OF_LINUX, errno.ECONNREFUSED, 61)  # of macOS
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(OSError, match=os.strerror(61)) as caught:
        scene.link.connect(port, SECONDS)
    assert caught.value.errno == 61


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
    scene: StreamScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgotten(_: object) -> None:
        raise OSError(errno.ENOENT, "no longer tracked")

    monkeypatch.setattr(agent, "original_destination", forgotten)
    client, ours = scene.dial()
    with client, ours, pytest.raises(FileNotFoundError, match="no longer tracked"):
        scene.link.destination(ours)


@contextlib.contextmanager
def silent_agent() -> Iterator[StreamLink]:
    """A link that has started, and whose agent says no more."""
    ours, theirs = socket.socketpair()
    with theirs:
        mux = Mux(AGENT)
        mux.hello()
        theirs.sendall(mux.send())
        link = StreamLink(Unframed(ours))
        link.start(SECONDS)
        yield link


def test_a_sidecar_that_does_not_answer_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_SECONDS", 0.1)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.5)
    with silent_agent() as link:
        assert readable((link.channel,)).recv(1) == b""
        with pytest.raises(OSError, match=r"it has not answered for 0\.5 s"):
            link.connect(80, SECONDS)
        link.close()


@pytest.mark.parametrize(
    ("direction", "reason"),
    [
        (socket.SHUT_RD, "it has ended, or the engine's stream to it was closed on the way"),
        (socket.SHUT_WR, "it ended since its input was closed on the way, and not by"),
    ],
)
def test_a_wire_of_which_one_direction_is_closed_is_lost_and_says_which(
    scene: StreamScene, direction: int, reason: str
) -> None:
    client, ours = scene.dial()
    with client, ours:
        scene.link._wire.sock.shutdown(direction)
        assert readable((scene.link.channel,)).recv(1) == b""
        assert scene.link.reason.startswith(reason)
        scene.thread.join(SECONDS)
        assert not scene.thread.is_alive()  # the agent has ended too
        assert ended(client)
        assert ended(ours)


def test_while_the_machine_sleeps_no_answer_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + asleep[0])
    monkeypatch.setattr(module, "PING_SECONDS", 0.1)
    with silent_agent() as link:
        assert eventually(lambda: not link._answered)
        turn = link._last_turn
        asleep[0] = 3600.0
        assert eventually(lambda: link._last_turn >= turn + 3600)
        assert select.select([link.channel], [], [], 0.3)[0] == []
        link.close()


def test_one_that_answers_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_SECONDS", 0.05)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.5)
    scene = StreamScene()
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


def test_a_peer_that_breaks_the_rules_is_lost(scene: StreamScene) -> None:
    scene.theirs.sendall(bytes(64))
    assert readable((scene.link.channel,)).recv(1) == b""
    with pytest.raises(OSError, match="sent a frame of type 0"):
        scene.link.connect(80, SECONDS)


def test_after_its_end_everything_is_refused_and_nothing_waits() -> None:
    before = open_descriptors(), threading.active_count()
    scene = StreamScene()
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
