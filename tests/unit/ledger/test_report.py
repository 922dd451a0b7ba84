"""What is said of an attempt: its subject, the line that would route it, folding, and the timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pytest_egress.ledger.report import (
    SHOWN_ENTRIES,
    SHOWN_MESSAGES,
    attempt_lines,
    awaited_text,
    fold,
    ledger_lines,
    outcome_text,
    remedy,
)
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.faults import delayed
from pytest_egress.routes.kinds import INTERCEPT_HTTP, INTERCEPT_HTTPS, INTERCEPT_TCP
from pytest_egress.traffic.address import parse_address
from pytest_egress.traffic.entries import (
    UNREADABLE,
    DnsQuery,
    Entry,
    Exchange,
    PacketAttempt,
    TcpConnection,
    TlsFailure,
)
from pytest_egress.traffic.messages import Headers, Request, Response, host_port
from pytest_egress.traffic.websocket import WebSocketMessage
from tests.support.traffic import quic_initial


def about(**fields: Any) -> dict[str, Any]:
    """The fields of an entry that a case does not name."""
    common = {"container": "shop", "started": 100.0, "outcome": "unrouted", "host": "api.test"}
    return {**common, **fields}


def exchange(method: str = "GET", path: str = "/", **fields: Any) -> Exchange:
    secure = fields.pop("secure", True)
    headers = Headers(fields.pop("headers", {}))
    fields = about(port=443 if secure else 80) | fields
    request = Request(
        method=method,
        scheme="https" if secure else "http",
        host=fields["host"],
        port=fields["port"],
        path=path,
        headers=headers,
    )
    return Exchange(**fields, request=request)


def tcp(**fields: Any) -> TcpConnection:
    return TcpConnection(**about(port=5432, address="198.18.0.1") | fields)


def tls(**fields: Any) -> TlsFailure:
    return TlsFailure(**about(port=443, address="198.18.0.1") | fields)


def packet(**fields: Any) -> PacketAttempt:
    return PacketAttempt(**about(port=123, protocol="UDP", address="198.18.0.1", size=56) | fields)


def query(**fields: Any) -> DnsQuery:
    return DnsQuery(**about(outcome="recorded", type="A", answer=("198.18.0.1",)) | fields)


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [
        ("api.test", 443, "api.test:443"),
        ("api.test", None, "api.test"),
        ("2001:db8::7", 443, "[2001:db8::7]:443"),
        ("2001:db8::7", None, "[2001:db8::7]"),
    ],
)
def test_host_and_port_are_written_as_an_address(host: str, port: int | None, text: str) -> None:
    assert host_port(host, port) == text


SUBJECTS = [
    (exchange(), "GET https://api.test/"),
    (exchange("PUT", "/x", port=8443), "PUT https://api.test:8443/x"),
    (query(), "api.test A"),
    (tcp(), "TCP api.test:5432 (198.18.0.1)"),
    (tcp(host="203.0.113.9", address="203.0.113.9"), "TCP 203.0.113.9:5432"),
    (tcp(first_bytes=b"\0\1"), "TCP api.test:5432 (198.18.0.1), first bytes b'\\x00\\x01'"),
    (tls(), "TLS api.test:443 (198.18.0.1)"),
    (packet(), "UDP api.test:123 (198.18.0.1), 56 bytes"),
    (packet(port=443), "UDP api.test:443 (198.18.0.1), 56 bytes"),
    (
        packet(port=443, size=1208, first_bytes=quic_initial()[:64]),
        "UDP api.test:443 (198.18.0.1), 1208 bytes, probably QUIC",
    ),
    (packet(protocol="ICMP", port=None), "ICMP api.test (198.18.0.1), 56 bytes"),
]


@pytest.mark.parametrize(("entry", "text"), SUBJECTS, ids=[text for _, text in SUBJECTS])
def test_an_attempt_is_named_in_a_line(entry: Entry, text: str) -> None:
    assert str(entry) == text


REMEDIES = [
    (exchange(), 'egress.intercept_https("api.test", method="GET", path="/")'),
    (
        exchange("POST", "/v1", port=8443),
        'egress.intercept_https("api.test:8443", method="POST", path="/v1")',
    ),
    (
        exchange(secure=False, port=443),
        'egress.intercept_http("api.test:443", method="GET", path="/")',
    ),
    (
        exchange(path='/a"b\\'),
        'egress.intercept_https("api.test", method="GET", path=\'/a"b\\\\\')',
    ),
    (
        exchange("CONNECT", "real.test:443", secure=False, port=3128),
        'egress.intercept_http("api.test:3128", method="CONNECT")',
    ),
    (
        exchange("POST", "/Charge", headers={"content-type": "application/grpc"}),  # no service
        'egress.intercept_https("api.test", method="POST", path="/Charge")',
    ),
    (
        exchange(host="2001:db8::7"),
        'egress.intercept_https("[2001:db8::7]", method="GET", path="/")',
    ),
    (tls(), 'egress.intercept_https("api.test")'),
    (tls(port=8443), 'egress.intercept_https("api.test:8443")'),
    (tcp(), 'egress.intercept_tcp("api.test:5432")'),
    (packet(protocol="ICMP", port=None), 'egress.block("api.test")'),
]


class Egress:
    """Takes a line that a report suggests."""

    @staticmethod
    def intercept_https(address: str, **match: Any) -> Any:
        return declare(INTERCEPT_HTTPS, address, **match)

    @staticmethod
    def intercept_http(address: str, **match: Any) -> Any:
        return declare(INTERCEPT_HTTP, address, **match)

    @staticmethod
    def intercept_tcp(address: str) -> Any:
        return declare(INTERCEPT_TCP, address)

    @staticmethod
    def block(address: str) -> Any:
        return parse_address(address, default_port=None)


@pytest.mark.parametrize(("entry", "line"), REMEDIES, ids=[line for _, line in REMEDIES])
def test_the_line_that_would_route_an_attempt_can_be_pasted_and_does(
    entry: Entry, line: str
) -> None:
    assert remedy(entry) == line
    declared = eval(line, {"egress": Egress})
    address = getattr(declared, "address", declared)
    assert address.matches(entry.host, entry.port or 0)
    if isinstance(entry, Exchange):
        assert declared.match.differences(entry.request) == []


def test_identical_attempts_are_folded_in_the_order_of_the_first() -> None:
    first, other, elsewhere, noted = tcp(), tls(), tcp(container="cart"), tcp(note="silent")
    entries = [first, other, tcp(), elsewhere, noted, tcp()]
    assert fold(entries) == [(first, 3), (other, 1), (elsewhere, 1), (noted, 1)]


def test_the_timeline_is_in_order_of_time_and_names_containers_where_there_are_several() -> None:
    entries = [exchange(started=101.5), query(started=100.25)]
    assert ledger_lines(entries) == [
        "   0.000 s  DNS api.test A -> 198.18.0.1",
        "   1.250 s  GET https://api.test/ -> no response yet  UNROUTED",
    ]
    assert ledger_lines([*entries, query(container="cart", started=103.0)])[1:] == [
        "   1.250 s  shop  GET https://api.test/ -> no response yet  UNROUTED",
        "   2.750 s  cart  DNS api.test A -> 198.18.0.1",
    ]
    assert ledger_lines([]) == []


@dataclass
class Spoken:
    """A WebSocket that is over, as a report sees it."""

    close_code: int | None
    unkept: int = 0


def chat(count: int, close_code: int | None, unkept: int = 0) -> Exchange:
    """An exchange that has opened a WebSocket, and has so many messages, one a second."""
    entry = exchange(outcome="routed", path="/chat", started=100.0)
    entry.response = Response.received(101, Headers(), reason="Switching Protocols")
    entry.websocket = Spoken(close_code, unkept)
    entry.messages.extend(
        WebSocketMessage(content=str(number), from_client=not number % 2, at=101.0 + number)
        for number in range(count)
    )
    return entry


def test_the_timeline_shows_the_messages_of_a_websocket_and_how_it_ended() -> None:
    later = query(started=101.5)
    assert ledger_lines([chat(2, 4001), later]) == [
        "   0.000 s  GET https://api.test/chat -> 101 Switching Protocols, 2 messages, closed with 4001",
        "   1.000 s    -> '0'",
        "   2.000 s    <- '1'",
        "   1.500 s  DNS api.test A -> 198.18.0.1",
    ]
    assert outcome_text(chat(1, None)).endswith(", 1 message, open")
    assert outcome_text(chat(1, 1006, unkept=2)).endswith(", 3 messages, closed with 1006")


def test_the_timeline_leaves_the_messages_in_the_middle_out() -> None:
    lines = ledger_lines([chat(SHOWN_MESSAGES + 3, 1000)])
    assert len(lines) == 1 + SHOWN_MESSAGES + 1
    assert lines[1 + SHOWN_MESSAGES // 2].endswith("... 3 more messages ...")
    assert lines[-1].endswith("-> '12'")


def test_a_long_timeline_keeps_its_beginning_and_its_end() -> None:
    lines = ledger_lines([tcp(started=float(second)) for second in range(SHOWN_ENTRIES + 5)])
    assert len(lines) == SHOWN_ENTRIES + 1
    assert lines[SHOWN_ENTRIES // 2] == "  ... 5 more ..."
    assert lines[0].startswith("   0.000 s")
    assert lines[-1].startswith(" 204.000 s")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (query(answer=(), rcode="NXDOMAIN"), "DNS api.test A -> NXDOMAIN"),
        (
            query(answer=(), rcode="", fault="silence", note="not answered"),
            "DNS api.test A -> silence",
        ),
        (query(answer=(), fault="truncated"), "DNS api.test A -> NOERROR  [truncated]"),
        (
            query(answer=("192.0.2.7",), cnames=("b.test",), fault=delayed("192.0.2.7", 2)),
            "DNS api.test A -> b.test -> 192.0.2.7  [delayed('192.0.2.7', 2)]",
        ),
        (
            query(answer=("192.0.2.7",), note="not answered", error=KeyError("x")),
            "DNS api.test A -> 192.0.2.7  [not answered]  handler raised KeyError",
        ),
        (
            query(answer=(), rcode="NXDOMAIN", outcome="unrouted", note="why"),
            "DNS api.test A -> NXDOMAIN  UNROUTED",
        ),
        (
            exchange(outcome="routed", response=Response(200), duration=0.0123),
            "GET https://api.test/ -> 200 OK in 12.3 ms",
        ),
        (
            exchange(outcome="routed", response=Response(500), error=KeyError("x")),
            "GET https://api.test/ -> 500 Internal Server Error, handler raised KeyError",
        ),
        (exchange(response=Response(299)), "GET https://api.test/ -> 299  UNROUTED"),
        (tcp(outcome="blocked"), "TCP api.test:5432 (198.18.0.1)  BLOCKED"),
        (tls(outcome="recorded", note="why"), "TLS api.test:443 (198.18.0.1)  [why]"),
        (tcp(note="why"), "TCP api.test:5432 (198.18.0.1)  UNROUTED  [why]"),
    ],
)
def test_a_line_of_the_timeline_says_what_became_of_it(entry: Entry, text: str) -> None:
    assert outcome_text(entry) == text


def test_what_cannot_be_read_as_http_gets_no_advice() -> None:
    assert "to answer it" in "".join(attempt_lines(tcp(), 1))
    assert "to answer it" not in "".join(attempt_lines(tcp(note=f"{UNREADABLE}: a line"), 1))


def test_a_container_that_takes_too_long_is_told_with_the_faults_that_it_waits_for() -> None:
    assert awaited_text([]) == ""
    waits = ["GET https://api.test/ -> silence()"] * 2
    assert awaited_text(waits).splitlines() == [
        "",
        "It still waited for:",
        "  GET https://api.test/ -> silence()  (2 times)",
    ]
    assert awaited_text(range(7)).splitlines()[-2:] == ["  4", "  and 2 more"]
