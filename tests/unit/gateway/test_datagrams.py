"""Datagrams that were let out: which route takes them, what answers them, and what is kept and counted."""

from __future__ import annotations

import contextlib
import re
import socket
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from pytest_egress import CallError, delayed, forward, refuse, sequence, statsd
from pytest_egress.errors import HandlerError, UnroutedError
from pytest_egress.ledger import ledger
from pytest_egress.ledger.upstream import got_out
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import Forward
from pytest_egress.traffic.datagrams import SentDatagram, answer, parse
from pytest_egress.traffic.entries import Datagram, DatagramFlow, PacketAttempt
from tests.support.stage import ADDRESS, SECONDS, Stage, staged

OWN = "10.213.0.2"
NO_NAME = "x" * 64 + ".test"  # which this process refuses, so that no DNS is asked


def frame(content: bytes, *, source: int = 40000, port: int = 9, server: str = ADDRESS) -> bytes:
    """A frame as the kernel lets it out; it is made as the answer to one the other way."""
    ethernet = bytes(12) + b"\x08\x00"
    other = SentDatagram(
        version=4,
        client=(server, port),
        server=(OWN, source),
        content=b"",
        hops=64,
        frame=ethernet + bytes(28),
    )
    return answer(other, content)


def send(stage: Stage, *contents: bytes, source: int = 40000) -> None:
    for content in contents:
        stage.link.datagram_source.send(frame(content, source=source))
    stage.settle()


def replies(stage: Stage, count: int) -> list[bytes]:
    """The contents of the next answers."""
    stage.link.datagram_source.settimeout(SECONDS)
    found = [parse(stage.link.datagram_source.recv(70000)) for _ in range(count)]
    assert all(each is not None and each.server == (OWN, 40000) for each in found)
    return [each.content for each in found if each is not None]


def test_a_flow_is_one_entry_and_each_datagram_a_call(stage: Stage) -> None:
    route = stage.route("intercept_udp", f"{ADDRESS}:9")
    send(stage, b"shop.orders:1|c", b"shop.ms:3|ms")
    send(stage, b"other", source=40001)
    assert [call.text for call in route.calls] == ["shop.orders:1|c", "shop.ms:3|ms", "other"]
    flows = stage.entries(DatagramFlow)
    assert [str(flow) for flow in flows] == [
        f"UDP {ADDRESS}:9, 2 datagrams of 27 bytes, first b'shop.orders:1|c'",
        f"UDP {ADDRESS}:9, 5 bytes, first b'other'",
    ]
    assert flows[0].client == (OWN, 40000)
    assert judge(stage.window, [route]) is None


def test_each_datagram_of_a_flow_ends_a_quiet_time(stage: Stage) -> None:
    stage.route("intercept_udp", f"{ADDRESS}:9")
    send(stage, b"first")
    before = stage.ledger.begun
    send(stage, b"second", b"third")
    assert stage.ledger.begun == before + 2


def test_answers_of_a_flow_keep_their_order(stage: Stage) -> None:
    def echo(datagram: Datagram) -> list[bytes]:
        return [datagram.content, b"again"]

    route = stage.route("intercept_udp", f"{ADDRESS}:9", echo)
    send(stage, b"1", b"2", b"3")
    assert replies(stage, 6) == [b"1", b"again", b"2", b"again", b"3", b"again"]
    assert route.wait_for_call(3).replies == [b"3", b"again"]


def test_a_sequence_ends_and_then_nobody_listens(stage: Stage) -> None:
    stage.route("intercept_udp", f"{ADDRESS}:9", sequence(b"one", [delayed(b"2", 0.1), b"3"]))
    send(stage, b"?", b"?", b"?")
    (left,) = stage.entries(PacketAttempt)
    (difference,) = left.near[0].differences
    assert difference.startswith("sequence(...): it has ended, after 2 answers")
    error = judge(stage.window, [])
    assert isinstance(error, UnroutedError)
    assert f'declared at test_it.py:7: egress.intercept_udp("{ADDRESS}:9")' in str(error)
    stage.link.datagram_source.settimeout(SECONDS)
    frames = [stage.link.datagram_source.recv(70000) for _ in range(4)]
    contents = [found.content if (found := parse(each)) else each[23] for each in frames]
    assert contents == [b"one", b"3", 1, b"2"]  # 1 is ICMP


def test_refuse_is_an_answer_and_no_connection_is_refused(stage: Stage) -> None:
    route = stage.route("intercept_udp", f"{ADDRESS}:9", refuse())
    send(stage, b"?")
    assert stage.link.datagram_source.recv(70000)[23] == 1
    assert route.calls[0].fault == refuse()
    assert not stage.table.refusing


@pytest.mark.parametrize(
    ("address", "options", "sent"),
    [
        (
            f"{ADDRESS}:9",
            {"match": lambda datagram: datagram.content == b"mine"},
            (b"mine", b"not"),
        ),
        ("*:9", {"match": lambda datagram: datagram.content == b"mine"}, (b"not", b"mine")),
        (f"{ADDRESS}:9", {"times": 1}, (b"mine", b"again")),
    ],
    ids=["match", "pattern", "times"],
)
def test_the_line_of_a_datagram_that_a_route_has_left_works_where_it_says(
    ca: trustme.CA,
    request: pytest.FixtureRequest,
    address: str,
    options: dict[str, Any],
    sent: tuple[bytes, ...],
) -> None:
    lines = [""]
    for is_pasted in (False, True):
        with staged(ca, request) as stage:
            paste = SimpleNamespace(intercept_udp=partial(stage.route, "intercept_udp"))
            routes = [eval(lines[-1], {"egress": paste})] if is_pasted else []
            routes.append(stage.route("intercept_udp", address, **options))
            send(stage, *sent)
            error = judge(stage.window, routes)
            assert (error is None) is is_pasted
            text = str(error)
            if not is_pasted:
                (where,) = re.findall(
                    r"to answer it, above the route declared at (.*): egress", text
                )
                assert where == routes[-1].declared_at
                lines = re.findall(r"above .*: (egress.*)", text)


def test_a_predicate_decides_and_the_next_route_gets_the_rest(stage: Stage) -> None:
    other = stage.route("intercept_udp", f"{ADDRESS}:9")
    route = stage.route(
        "intercept_udp", f"{ADDRESS}:9", b"yes", match=lambda datagram: datagram.content == b"mine"
    )
    send(stage, b"mine", b"not")
    assert replies(stage, 1) == [b"yes"]
    assert other.wait_for_call().content == b"not"
    assert [call.content for call in route.calls] == [b"mine"]


def test_a_predicate_that_raises_fails_the_test(stage: Stage) -> None:
    stage.route("intercept_udp", f"{ADDRESS}:9", match=lambda datagram: 1 / 0)
    send(stage, b"?")
    assert stage.ledger.wait_for(lambda: bool(stage.window.entries), SECONDS)
    error = judge(stage.window, [])
    assert isinstance(error, HandlerError)
    assert str(error).startswith("the match= predicate of intercept_udp(")
    assert "raised ZeroDivisionError: division by zero" in str(error)


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (lambda datagram: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda datagram: "text", "raised TypeError: 'text' is no datagram"),
        (lambda datagram: bytes(65508), "raised ValueError: 65508 bytes do not fit"),
    ],
)
def test_an_error_of_a_handler_fails_the_test(stage: Stage, handler: object, said: str) -> None:
    stage.route("intercept_udp", f"{ADDRESS}:9", handler)
    send(stage, b"?")
    flows = stage.window.entries
    assert stage.ledger.wait_for(lambda: bool(flows and flows[0].error), SECONDS)  # type: ignore[attr-defined]
    error = judge(stage.window, [])
    assert isinstance(error, HandlerError)
    assert said in str(error)


def test_a_window_waits_for_a_handler(stage: Stage) -> None:
    import threading

    go = threading.Event()
    stage.route("intercept_udp", f"{ADDRESS}:9", lambda datagram: go.wait(SECONDS) and b"late")
    stage.link.datagram_source.send(frame(b"?"))
    assert stage.ledger.wait_for(lambda: bool(stage.window.activities), SECONDS)
    go.set()
    assert replies(stage, 1) == [b"late"]
    assert stage.ledger.wait_for(lambda: not stage.window.activities, SECONDS)


def test_a_reply_comes_at_any_time_until_the_container_ends(stage: Stage) -> None:
    route = stage.route("intercept_udp", f"{ADDRESS}:9")
    send(stage, b"?")
    (call,) = route.calls
    with pytest.raises(TypeError, match=r"reply\('text'\) takes bytes"):
        call.reply("text")
    call.reply(b"now")
    assert replies(stage, 1) == [b"now"]
    stage.gateway.stop()
    with pytest.raises(CallError, match=r"reply\(\) comes too late: its container has ended"):
        call.reply(b"late")


def test_a_datagram_that_is_over_the_limit_is_counted_and_fails_the_test(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_ENTRIES", 2)
    route = stage.route("intercept_udp", f"{ADDRESS}:9", b"yes")
    send(stage, b"1", b"2", b"3")
    assert (route.call_count, stage.window.unrecorded) == (2, 1)
    assert replies(stage, 2) == [b"yes", b"yes"]
    assert judge(stage.window, []) is not None


def test_what_is_no_whole_datagram_is_an_attempt(stage: Stage) -> None:
    stage.route("intercept_udp", f"{ADDRESS}:9")
    fragment = bytearray(frame(b"content"))
    fragment[20] = 0x20
    stage.link.datagram_source.send(bytes(fragment))
    stage.link.datagram_source.send(b"x")
    stage.settle()
    (packet,) = stage.entries(PacketAttempt)
    assert (packet.outcome, packet.protocol, packet.port) == ("unrouted", "UDP", 9)
    assert stage.window.unrecorded == 1


def test_a_datagram_that_had_left_before_its_route_went_is_unrouted(stage: Stage) -> None:
    send(stage, b"?")
    (packet,) = stage.entries(PacketAttempt)
    assert (packet.outcome, packet.host) == ("unrouted", ADDRESS)
    assert stage.link.datagram_source.recv(70000)[23] == 1


def to(server: socket.socket) -> Forward:
    return forward(f"udp://127.0.0.1:{server.getsockname()[1]}")


def test_a_server_answers_and_that_counts_as_let_out(
    stage: Stage, datagram_server: socket.socket
) -> None:
    route = stage.route("intercept_udp", f"{ADDRESS}:9", to(datagram_server))
    send(stage, b"one")
    content, client = datagram_server.recvfrom(100)
    datagram_server.sendto(content + b"!", client)
    datagram_server.sendto(b"more", client)
    assert replies(stage, 2) == [b"one!", b"more"]
    send(stage, b"two")
    assert datagram_server.recvfrom(100) == (b"two", client)
    assert [call.replies for call in route.calls] == [[b"one!", b"more"], []]
    (flow,) = stage.entries(DatagramFlow)
    assert got_out(flow)


class SyslogPort:
    """A container, one of whose ports of datagrams is a server of this machine."""

    name = "syslog"

    def __init__(self, server: socket.socket | None) -> None:
        self._server = server

    def connect(self, port: int, timeout: float = 5) -> socket.socket:
        raise ConnectionRefusedError

    def connect_datagrams(self, port: int) -> socket.socket:
        if self._server is None:
            raise ConnectionRefusedError("nobody")
        assert port == 514
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(self._server.getsockname())
        return sock


@pytest.mark.parametrize("way", ["declared", "of that name"])
def test_a_port_of_a_container_answers(
    stage: Stage, datagram_server: socket.socket, way: str
) -> None:
    container = SyslogPort(datagram_server)
    stage.route(
        "intercept_udp",
        f"{ADDRESS}:514",
        forward(container, 514) if way == "declared" else forward(),
    )
    peers = {} if way == "declared" else {ADDRESS: (SyslogPort(None), container)}
    stage.containers = peers
    stage.link.datagram_source.send(frame(b"one", port=514))
    content, client = datagram_server.recvfrom(100)
    datagram_server.sendto(content + b"!", client)
    assert replies(stage, 1) == [b"one!"]
    (flow,) = stage.entries(DatagramFlow)
    assert got_out(flow)


def test_a_port_of_a_container_where_nobody_listens_refuses_and_says_so(stage: Stage) -> None:
    stage.route("intercept_udp", f"{ADDRESS}:514", forward(SyslogPort(None), 514))
    stage.link.datagram_source.send(frame(b"?", port=514))
    assert stage.link.datagram_source.recv(70000)[23] == 1  # ICMP
    (flow,) = stage.entries(DatagramFlow)
    assert flow.note == "port 514 of syslog cannot be reached: nobody"
    assert not got_out(flow)


def test_a_server_that_does_not_listen_refuses(
    stage: Stage, datagram_server: socket.socket
) -> None:
    stage.route("intercept_udp", f"{ADDRESS}:9", to(datagram_server))
    datagram_server.close()
    send(stage, b"?")
    stage.link.datagram_source.settimeout(SECONDS)
    assert stage.link.datagram_source.recv(70000)[23] == 1  # ICMP


def test_a_server_that_cannot_be_reached_is_a_note(stage: Stage) -> None:
    stage.route("intercept_udp", f"{ADDRESS}:9", forward(f"udp://{NO_NAME}:9"))
    send(stage, b"?")
    (flow,) = stage.entries(DatagramFlow)
    assert flow.note.startswith(f"{NO_NAME}:9 cannot be reached: ")
    assert not got_out(flow)
    assert stage.link.datagram_source.recv(70000)[23] == 1


def test_the_real_server_of_a_pattern_is_not_of_this_machine(stage: Stage) -> None:
    route = stage.route("intercept_udp", "169.254.0.0/16:9", forward())
    stage.link.datagram_source.send(frame(b"?", server="169.254.0.7"))
    (flow,) = stage.entries(DatagramFlow)
    assert "169.254.0.7 is link-local" in flow.note
    assert 'egress.intercept_udp("169.254.0.7:9", forward())' in flow.note
    assert not got_out(flow)
    assert route.call_count == 1


@pytest.mark.parametrize("way", ["removed", "blocked", "its test is over"])
def test_a_server_answers_no_longer_than_its_route(
    stage: Stage, datagram_server: socket.socket, way: str
) -> None:
    route = stage.route("intercept_udp", f"{ADDRESS}:9", to(datagram_server))
    send(stage, b"?")
    _, client = datagram_server.recvfrom(100)
    if way == "removed":
        route.remove()
        stage.gateway.revise()
    elif way == "blocked":
        stage.route("block", f"{ADDRESS}:9")
    else:
        stage.gateway.revise(test_over=True)
    assert not len(stage.gateway.datagrams.relays)
    with contextlib.suppress(ConnectionRefusedError):
        datagram_server.sendto(b"late", client)
    stage.link.datagram_source.settimeout(0.1)
    with pytest.raises(TimeoutError):
        stage.link.datagram_source.recv(70000)


def test_each_metric_of_a_datagram_is_a_call_and_takes_a_turn(stage: Stage) -> None:
    route = stage.route("intercept_udp", f"{ADDRESS}:9", statsd(), times=3)
    send(stage, b"a:1|c\nb:2|g", b"c:3:4|d\ne:5|c")
    assert [(call.name, call.value) for call in route.calls] == [("a", 1), ("b", 2), ("c", 3)]
    (flow,) = stage.entries(DatagramFlow)
    assert [each.content for each in flow.datagrams] == [b"a:1|c\nb:2|g", b"c:3:4|d\ne:5|c"]
    (left,) = stage.entries(PacketAttempt)
    assert (left.outcome, left.first_bytes) == ("unrouted", b"c:3:4|d")
    assert left.near[0].differences[0].startswith("times: it has answered 3 of 3")
    assert stage.link.datagram_source.recv(70000)[23] == 1  # ICMP


def test_a_call_of_a_service_can_be_replied_to(stage: Stage) -> None:
    route = stage.route("intercept_udp", f"{ADDRESS}:9", statsd())
    send(stage, b"a:1|c\nb:2|c")
    route.calls[1].reply(b"seen")
    assert replies(stage, 1) == [b"seen"]
    assert route.calls[0].replies == [b"seen"]  # of their datagram


def test_a_line_that_is_no_metric_fails_the_test_and_the_others_count(stage: Stage) -> None:
    route = stage.route("intercept_udp", f"{ADDRESS}:9", statsd(), times=1)
    send(stage, b"shop.total:x|g\nbad\nworse", b"a:1|c")
    assert [call.name for call in route.calls] == ["a"]
    (left,) = stage.entries(PacketAttempt)
    assert left.note == (
        "its route cannot read it: the value 'x' is no number, nor 2 more lines of its datagram"
    )
    text = str(judge(stage.window, [route]))
    assert (
        f"UDP {ADDRESS}:9, 14 bytes, first b'shop.total:x|g'\n      its route cannot read" in text
    )
    assert "to answer it" not in text
    stage.link.datagram_source.settimeout(0.1)
    with pytest.raises(TimeoutError):  # it is no refusal
        stage.link.datagram_source.recv(70000)


def test_a_line_that_is_no_metric_fails_the_test_where_others_are_blocked(stage: Stage) -> None:
    stage.window.policy = "block"
    stage.route("intercept_udp", f"{ADDRESS}:9", statsd())
    send(stage, b"bad")
    assert [each.outcome for each in stage.entries(PacketAttempt)] == ["unrouted"]


def test_metrics_that_are_over_the_limit_are_counted_and_fail_the_test(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_ENTRIES", 2)
    route = stage.route("intercept_udp", f"{ADDRESS}:9", statsd())
    send(stage, b"a:1:2:3:4|d")
    assert (route.call_count, stage.window.unrecorded) == (2, 2)
    send(stage, b"b:1|c")
    text = str(judge(stage.window, []))
    assert text.endswith(f"\nmost datagrams came to {route}  declared at test_it.py:7: 2")
