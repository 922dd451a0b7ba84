"""The timeline: its order, its length, and the line of each entry."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.timeline import (
    SHOWN_ENTRIES,
    SHOWN_MESSAGES,
    closed_port_lines,
    ledger_lines,
    outcome_text,
)
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.faults import delayed
from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange, TcpConnection
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.websocket import WebSocketMessage
from tests.support.entries import about, dns_query, http_exchange, tcp, tls


def test_the_timeline_is_in_order_of_time_and_names_containers_where_there_are_several() -> None:
    entries = [http_exchange(started=101.5), tcp(started=100.25, outcome="routed")]
    assert ledger_lines(entries) == [
        "   0.000 s  TCP api.test:5432 (198.18.0.1)",
        "   1.250 s  GET https://api.test/ -> no response yet  UNROUTED",
    ]
    assert ledger_lines([*entries, dns_query(container="cart", started=103.0)])[1:] == [
        "   1.250 s  shop  GET https://api.test/ -> no response yet  UNROUTED",
        "   2.750 s  cart  DNS api.test A -> 198.18.0.1",
    ]
    assert ledger_lines([]) == []


def test_ports_where_nothing_listened_are_told_with_what_waits_for_them() -> None:
    ledger, window = Ledger(), Window()
    for port in (8000, 8000, 9000):
        ledger.note_closed_port(window, "shop", port)
    assert [*closed_port_lines(window.closed_ports)] == [
        "shop: nothing listened on port 8000 when the test connected to it, 2 times",
        "  to wait until something does: start(..., wait=port_open(8000))",
        "shop: nothing listened on port 9000 when the test connected to it",
        "  to wait until something does: start(..., wait=port_open(9000))",
    ]


def test_times_count_from_the_beginning_of_the_test() -> None:
    assert ledger_lines([tcp(started=101.5), tcp(started=97.0)], began=100.0) == [
        "  -3.000 s  TCP api.test:5432 (198.18.0.1)  UNROUTED",
        "   1.500 s  TCP api.test:5432 (198.18.0.1)  UNROUTED",
    ]


def test_a_lookup_is_on_the_line_of_the_attempt_that_it_led_to() -> None:
    looked_up = [dns_query(started=100.0), dns_query(started=100.1, type="AAAA")]
    assert ledger_lines([*looked_up, tcp(started=101.5), tcp(started=102.0)]) == [
        "   1.500 s  TCP api.test:5432 (198.18.0.1)  UNROUTED  (looked up 1500.0 ms before)",
        "   2.000 s  TCP api.test:5432 (198.18.0.1)  UNROUTED",
    ]


@pytest.mark.parametrize(
    "query",
    [
        dns_query(outcome="unrouted"),
        dns_query(fault="truncated"),
        dns_query(route="a route of egress.dns"),
        dns_query(cnames=("b.test",)),
        dns_query(rcode="NXDOMAIN", answer=()),
        dns_query(note="not answered"),
        dns_query(error=KeyError("x")),
        dns_query(host="other.test"),
        dns_query(container="cart"),
    ],
)
def test_a_lookup_that_is_more_than_the_way_to_an_attempt_has_its_line(query: DnsQuery) -> None:
    assert len(ledger_lines([query, tcp(started=101.0)])) == 2


def test_a_lookup_that_led_to_nothing_has_its_line() -> None:
    assert len(ledger_lines([tcp(started=99.0), dns_query()])) == 2


def test_a_note_that_is_shown_above_is_not_repeated() -> None:
    entry = tls(outcome="recorded", note="it does not trust the CA. Name its file")
    told = "a verdict:\n      it does not  trust\n        the CA.\n      Name its file"
    (line,) = ledger_lines([entry], told=told)
    assert line.endswith("  [see above]")
    (line,) = ledger_lines([entry], told="another")
    assert line.endswith("  [it does not trust the CA]")


def test_in_full_it_has_what_was_sent_below_each_line() -> None:
    entry = tcp(first_bytes=b"hi")
    first, second = ledger_lines([entry], in_full=True)[0].splitlines()
    assert second == " " * first.index("TCP") + "> b'hi'"


class Looked(TcpConnection):
    """A connection that counts how often its bytes are asked for."""

    times = 0

    @property
    def content(self) -> bytes:
        Looked.times += 1
        return b"hi"


def test_details_are_made_of_the_entries_that_are_shown() -> None:
    fields = about(port=5432, address="198.18.0.1")
    lines = ledger_lines([Looked(**fields) for _ in range(SHOWN_ENTRIES + 5)], in_full=True)
    assert Looked.times == SHOWN_ENTRIES
    assert [line.count("> b'hi'") for line in lines].count(1) == SHOWN_ENTRIES


@dataclass
class Spoken:
    """A WebSocket that is over, as a report sees it."""

    close_code: int | None
    unkept: int = 0


def chat(count: int, close_code: int | None, unkept: int = 0) -> Exchange:
    """An exchange that has opened a WebSocket, and has so many messages, one a second."""
    entry = http_exchange(outcome="routed", path="/chat", started=100.0)
    entry.response = Response.received(101, Headers(), reason="Switching Protocols")
    entry.websocket = Spoken(close_code, unkept)
    entry.messages.extend(
        WebSocketMessage(content=str(number), from_client=not number % 2, at=101.0 + number)
        for number in range(count)
    )
    return entry


def test_the_timeline_shows_the_messages_of_a_websocket_and_how_it_ended() -> None:
    later = dns_query(started=101.5)
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
        (dns_query(answer=(), rcode="NXDOMAIN"), "DNS api.test A -> NXDOMAIN"),
        (
            dns_query(answer=(), rcode="", fault="silence", note="not answered"),
            "DNS api.test A -> silence",
        ),
        (dns_query(answer=(), fault="truncated"), "DNS api.test A -> NOERROR  [truncated]"),
        (
            dns_query(answer=("192.0.2.7",), cnames=("b.test",), fault=delayed("192.0.2.7", 2)),
            "DNS api.test A -> b.test -> 192.0.2.7  [delayed('192.0.2.7', 2)]",
        ),
        (
            dns_query(answer=("192.0.2.7",), note="not answered", error=KeyError("x")),
            "DNS api.test A -> 192.0.2.7  [not answered]  handler raised KeyError",
        ),
        (
            dns_query(answer=(), rcode="NXDOMAIN", outcome="unrouted", note="why"),
            "DNS api.test A -> NXDOMAIN  UNROUTED",
        ),
        (
            http_exchange(outcome="routed", response=Response(200), duration=0.0123),
            "GET https://api.test/ -> 200 OK in 12.3 ms",
        ),
        (
            http_exchange(
                outcome="routed", response=Response(500), error=KeyError("x"), route=object()
            ),
            "GET https://api.test/ -> 500 Internal Server Error, handler raised KeyError",
        ),
        (
            http_exchange(outcome="routed", response=Response(500), error=KeyError("x")),
            "GET https://api.test/ -> 500 Internal Server Error, match= predicate raised KeyError",
        ),
        (http_exchange(response=Response(299)), "GET https://api.test/ -> 299  UNROUTED"),
        (tcp(outcome="blocked"), "TCP api.test:5432 (198.18.0.1)  BLOCKED"),
        (tls(outcome="recorded", note="why"), "TLS api.test:443 (198.18.0.1)  [why]"),
        (tcp(note="why"), "TCP api.test:5432 (198.18.0.1)  UNROUTED  [why]"),
    ],
)
def test_a_line_of_the_timeline_says_what_became_of_it(entry: Entry, text: str) -> None:
    assert outcome_text(entry) == text
