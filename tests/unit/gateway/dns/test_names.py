"""Names are resolved, and what is no query is an attempt."""

from __future__ import annotations

import contextlib
import socket

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from pytest_egress.ledger import ledger as ledger_module
from pytest_egress.ledger.report import unrouted_text
from pytest_egress.traffic.dns.resolver import tcp_frame, tcp_frames
from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange, PacketAttempt, TcpConnection
from tests.support.stage import (
    ADDRESS,
    FIRST,
    GET,
    SECOND,
    SECONDS,
    Stage,
    ask,
    end_of,
    log_of,
    udp,
)

# Names, packets and what happens to the namespace.


def test_every_name_resolves_and_its_address_tells_it(stage: Stage) -> None:
    assert stage.resolve("api.test") == FIRST
    assert stage.resolve("other.test") == SECOND
    assert stage.resolve("API.test") == FIRST
    stage.https("other.test", lambda request: request.host)
    assert ask(stage.tls("other.test", SECOND), GET.replace(b"api", b"other")).body == b"other.test"
    queries = [(q.host, q.type, q.answer, q.outcome) for q in stage.entries(DnsQuery)]
    assert queries == [
        ("api.test", "A", (FIRST,), "recorded"),
        ("other.test", "A", (SECOND,), "recorded"),
        ("api.test", "A", (FIRST,), "recorded"),
    ]


def test_names_resolve_over_tcp_too(stage: Stage) -> None:
    sock = stage.dial("198.18.0.1", 53)
    sock.settimeout(SECONDS)
    wires = [dns.message.make_query(name, "A").to_wire() for name in ("a.test", "b.test", "c.test")]
    sock.sendall(b"".join(map(tcp_frame, wires))[:-3])
    sock.sendall(wires[-1][-3:])
    data = b""
    answers: list[dns.message.Message] = []
    while len(answers) < 3:
        frames, data = tcp_frames(data + sock.recv(4096))
        answers += [dns.message.from_wire(frame) for frame in frames]
    assert [str(answer.answer[0][0]) for answer in answers] == [FIRST, SECOND, "198.18.0.3"]
    assert [query.host for query in stage.entries(DnsQuery)] == ["a.test", "b.test", "c.test"]
    sock.close()
    assert len(stage.entries(Entry)) == 3


def test_on_the_port_of_names_nothing_else_hides(stage: Stage) -> None:
    attempts = {
        b"\xff\x00garbage": b"\xff\x00garbage",
        b"\x00\x03abc": b"abc",  # shorter than a header
        b"\x00\xffcut": b"\x00\xffcut",
    }
    for sent in attempts:
        sock = stage.dial(ADDRESS, 53)
        sock.sendall(sent)
        with contextlib.suppress(OSError):  # it may have been reset already
            sock.shutdown(socket.SHUT_WR)
        end_of(sock)
    stage.settle()
    found = [attempt.first_bytes for attempt in stage.entries(TcpConnection)]
    assert sorted(found) == sorted(attempts.values())
    ask(stage.dial(ADDRESS, 53))
    assert stage.entries(Exchange)[0].outcome == "unrouted"


def send_datagrams(stage: Stage, *datagrams: bytes) -> None:
    """Send them to the port of names, as a target does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for datagram in datagrams:
            sock.sendto(datagram, stage.link.dns[0].getsockname())


def test_garbage_instead_of_a_query_is_an_attempt_and_gets_no_answer_or_an_error(
    stage: Stage,
) -> None:
    garbage = b"\x12\x34" + b"\x00\x00" + b"\xff" * 60
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.sendto(b"short", stage.link.dns[0].getsockname())
        sock.sendto(garbage, stage.link.dns[0].getsockname())
        answer = sock.recv(4096)
    assert answer[:2] == b"\x12\x34"
    assert answer[3] & 15 == dns.rcode.FORMERR
    assert stage.entries(DnsQuery) == []
    short, long = stage.entries(PacketAttempt)
    assert (short.outcome, str(short), short.first_bytes) == (
        "unrouted",
        "UDP *:53, 5 bytes, first b'short'",
        b"short",
    )
    assert (long.size, long.first_bytes) == (72, garbage)
    assert unrouted_text([short, long]) == (
        "2 unrouted attempts of target; nothing got out:\n"
        "\n"
        "  UDP *:53, 5 bytes, first b'short'\n"
        "      it is no DNS query: it is shorter than the header of one;\n"
        "      for which server it was is not known\n"
        '      to expect it: egress.block("*:53")\n'
        "\n"
        "  UDP *:53, 64 bytes, first b'\\x124\\x00\\x00\\xff\\xff\\xff\\...xff\\xff\\xff\\xff\\xff\\xff\\xff'\n"
        "      it is no DNS query: it does not ask one question alone;\n"
        "      for which server it was is not known\n"
        '      to expect it: egress.block("*:53")'
    )


def test_a_block_of_every_server_expects_what_is_no_query_and_one_of_another_port_does_not(
    stage: Stage,
) -> None:
    stage.route("block", "*:443")
    send_datagrams(stage, b"one")
    assert stage.only(PacketAttempt).outcome == "unrouted"
    block = stage.route("block", "*:53")
    send_datagrams(stage, b"two")
    assert [p.outcome for p in stage.entries(PacketAttempt)] == ["unrouted", "blocked"]
    assert block.call_count == 1


def test_a_packet_to_the_port_of_names_says_why_it_is_no_query(stage: Stage) -> None:
    query = dns.message.make_query("api.test", "A").to_wire()
    for payload in (b"hello", query):  # of a raw socket: a query is no redirected one either
        stage.link.packet_source.send(log_of(17, ADDRESS, udp(53, payload)))
    notes = [(p.outcome, p.host, p.note) for p in stage.entries(PacketAttempt)]
    assert notes == [
        ("unrouted", ADDRESS, "it is no DNS query: it is shorter than the header of one"),
        ("unrouted", ADDRESS, ""),
    ]


def test_a_flood_of_what_is_no_query_keeps_no_more_than_a_ledger_may(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_ENTRIES", 10)
    send_datagrams(stage, *(b"x" for _ in range(100)))
    stage.settle()
    assert (len(stage.window.entries), stage.window.unrecorded) == (10, 90)


@pytest.mark.parametrize("wire", [b"\x12\x34\x28\0" + bytes(12), b"\x12\x34\x80\0" + bytes(12)])
def test_what_is_no_query_over_tcp_is_a_connection_that_no_route_claims(
    stage: Stage, wire: bytes
) -> None:
    sock = stage.dial(ADDRESS, 53)
    sock.sendall(tcp_frame(dns.message.make_query("api.test", "A").to_wire()) + tcp_frame(wire))
    assert end_of(sock) == "reset"
    (attempt,) = stage.entries(TcpConnection)
    assert (attempt.outcome, attempt.host, attempt.first_bytes) == ("unrouted", ADDRESS, wire)
    assert attempt.note.startswith("it is no DNS query: it")
    assert [query.host for query in stage.entries(DnsQuery)] == ["api.test"]


def test_more_addresses_than_fit_a_datagram_come_whole_over_tcp(stage: Stage) -> None:
    addresses = [f"203.0.{n // 256}.{n % 256}" for n in range(2000)]
    stage.route("dns", "many.test", addresses)
    assert stage.query("many.test").flags & dns.flags.TC
    sock = stage.dial(FIRST, 53)
    sock.settimeout(SECONDS)
    query = dns.message.make_query("many.test", "A")
    dns.query.send_tcp(sock, query)
    reply, _ = dns.query.receive_tcp(sock)
    assert sorted(str(record) for record in reply.answer[0]) == sorted(addresses)
    short, whole = (len(query.answer) for query in stage.entries(DnsQuery))
    assert (short, whole) == (30, 2000)


def test_more_addresses_than_any_answer_holds_leave_the_next_name_to_be_answered(
    stage: Stage,
) -> None:
    stage.route("dns", "many.test", [f"2001:db8::{n:x}" for n in range(9000)])
    assert stage.query("many.test", "AAAA").flags & dns.flags.TC
    assert stage.resolve("api.test") == FIRST


def test_a_defect_in_an_answer_of_dns_fails_the_test_and_ends_no_reader(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rule(*args: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as broken:
        broken.setattr(stage.gateway.names, "_rule", rule)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            query = dns.message.make_query("api.test", "A").to_wire()
            sock.sendto(query, stage.link.dns[0].getsockname())
            stage.gateway.flush(SECONDS)
    (complaint,) = stage.window.complaints
    assert complaint.startswith("target: a DNS query was not answered: Traceback")
    stage.window.complaints.clear()
    assert stage.resolve("api.test") == FIRST
