"""What is said of an attempt: its subject, folding, and advice."""

from __future__ import annotations

import pytest

from pytest_egress.errors import OpenApiError
from pytest_egress.ledger.report import (
    attempt_lines,
    awaited_text,
    fold,
    handler_error_text,
    problem,
)
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_HTTPS
from pytest_egress.routes.table import NearMiss
from pytest_egress.traffic.entries import UNREADABLE, Accepted, Entry
from pytest_egress.traffic.shown import host_port
from tests.support.attempts import route, route_of
from tests.support.entries import dns_query, http_exchange, packet, tcp, tls
from tests.support.traffic import quic_initial


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
    (http_exchange(), "GET https://api.test/"),
    (http_exchange("PUT", "/x", port=8443), "PUT https://api.test:8443/x"),
    (dns_query(), "api.test A"),
    (tcp(), "TCP api.test:5432 (198.18.0.1)"),
    (tcp(host="203.0.113.9", address="203.0.113.9"), "TCP 203.0.113.9:5432"),
    (tcp(first_bytes=b"\0\1"), "TCP api.test:5432 (198.18.0.1), first bytes b'\\x00\\x01'"),
    (tls(), "TLS api.test:443 (198.18.0.1)"),
    (packet(), "UDP api.test:123 (198.18.0.1), 48 bytes"),
    (packet(port=443), "UDP api.test:443 (198.18.0.1), 48 bytes"),
    (
        packet(port=443, size=1208, first_bytes=quic_initial()[:64]),
        "UDP api.test:443 (198.18.0.1), 1200 bytes, probably QUIC",
    ),
    (packet(protocol="ICMP", port=None), "ICMP api.test (198.18.0.1), 56 bytes"),
]


@pytest.mark.parametrize(("entry", "text"), SUBJECTS, ids=[text for _, text in SUBJECTS])
def test_an_attempt_is_named_in_a_line(entry: Entry, text: str) -> None:
    assert str(entry) == text


def test_identical_attempts_are_folded_in_the_order_of_the_first() -> None:
    first, other, elsewhere, noted = tcp(), tls(), tcp(container="cart"), tcp(note="silent")
    entries = [first, other, tcp(), elsewhere, noted, tcp()]
    assert fold(entries) == [(first, 3), (other, 1), (elsewhere, 1), (noted, 1)]


def test_datagrams_to_one_server_are_folded_whatever_they_carry() -> None:
    first, other = packet(first_bytes=b"a:1|c", size=13), packet(port=124)
    quic = packet(first_bytes=quic_initial()[:64], size=1208)
    entries = [first, packet(first_bytes=b"b:42|g", size=14), other, quic]
    assert fold(entries) == [(first, 2), (other, 1), (quic, 1)]
    assert str(first) == "UDP api.test:123 (198.18.0.1), 5 bytes, first b'a:1|c'"


def test_an_error_of_ours_that_no_traceback_shows_is_told_as_a_whole() -> None:
    """That of a handler has a traceback below it, and its first line tells which one."""
    ours, theirs = http_exchange(), http_exchange()
    ours.error = OpenApiError("GET / does not fit spec.yaml:\n  path.id: 'a' is no integer")
    theirs.error = ValueError("first\nsecond")
    assert "does not fit spec.yaml:\n  path.id: 'a' is no integer\n  for GET" in (
        handler_error_text(ours)
    )
    assert "second" not in handler_error_text(theirs)


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


def raising(entry: Entry, error: Exception) -> Entry:
    entry.error = error  # type: ignore[attr-defined]
    return entry


def accepting() -> Entry:
    entry = http_exchange(outcome="routed")
    declared = declare(INTERCEPT_HTTPS, "api.test", certificate="expired")
    entry.accepted = Accepted(route_of(declared), None)
    return entry


MISS = NearMiss(route=route(), differences=("path: '/v1/refunds' is not '/v1/charges'",))
PROBLEMS = [
    (http_exchange(), "no route claims it"),
    (http_exchange(near=(MISS,)), "path: '/v1/refunds' is not '/v1/charges'"),
    (http_exchange(note="it is cut. Mend it"), "it is cut"),
    (
        raising(http_exchange(outcome="routed", route=route()), KeyError("a\x1b\nb")),
        r"its handler raised KeyError: 'a\x1b\nb'",
    ),
    (raising(http_exchange(), ValueError()), "a match= predicate raised ValueError"),
    (accepting(), "accepted an expired certificate of api.test"),
    (tls(reason="untrusted", note="an alert"), "its client does not trust the CA"),
    (tls(reason="timeout", note="it stopped. Mend"), "its TLS handshake failed: it stopped"),
    (tcp(outcome="routed"), ""),
]


@pytest.mark.parametrize(("entry", "text"), PROBLEMS, ids=[text for _, text in PROBLEMS])
def test_why_an_entry_fails_its_test_is_said_in_a_line(entry: Entry, text: str) -> None:
    assert problem(entry) == text


def test_the_line_that_says_why_is_never_long() -> None:
    text = problem(raising(http_exchange(route=route()), ValueError("x\u2028y\n" * 9999)))
    assert len(text) <= 200
    assert text.splitlines() == [text]
