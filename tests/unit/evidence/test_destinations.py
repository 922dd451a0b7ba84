"""What entries say about the destinations of images, and the verdict on those that no lock lists."""

from __future__ import annotations

import pytest

from pytest_egress.errors import LockError
from pytest_egress.evidence.destinations import (
    destination,
    image_of,
    is_listable,
    offence,
    sightings,
)
from pytest_egress.evidence.lock import Lock, LockLine
from pytest_egress.traffic.dns.searchlist import APPENDED
from pytest_egress.traffic.entries import REJECTED, Entry
from tests.support.entries import dns_query, http_exchange, packet, tcp, tls

QUIC = bytes([0xC3, 0, 0, 0, 1, 8, *range(8), 0, 0, 0x44, 0x80]).ljust(64, b"\0")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (http_exchange(outcome="routed"), ("https", "api.test:443")),
        (http_exchange(outcome="passthrough", secure=False), ("http", "api.test:80")),
        (http_exchange(outcome="blocked"), ("blocked", "api.test:443")),
        (http_exchange(outcome="unrouted"), None),
        (http_exchange(outcome="routed", error=KeyError("x")), None),
        (tcp(outcome="routed"), ("tcp", "api.test:5432")),
        (tcp(outcome="routed", host="2001:db8::7"), ("tcp", "[2001:db8::7]:5432")),
        (tcp(outcome="passthrough", sni="api.test", port=443), ("https", "api.test:443")),
        (tcp(outcome="recorded"), None),  # opened ahead of need
        (tls(outcome="recorded", reason=REJECTED), ("https", "api.test:443")),
        (tls(outcome="recorded", reason="probe"), None),
        (packet(outcome="blocked", host="203.0.113.7"), ("blocked", "203.0.113.7:123")),
        (packet(outcome="blocked", host="203.0.113.7", port=None), ("blocked", "203.0.113.7")),
        (packet(outcome="blocked", host="*"), None),
        (packet(outcome="recorded", protocol="ICMPv6", port=None), None),
        (dns_query(), ("names", "api.test")),
        (dns_query(host="7.100.51.198.in-addr.arpa", type="PTR"), None),
        (dns_query(host="db.localhost"), None),
        (dns_query(note=APPENDED), None),
    ],
)
def test_a_destination_is_what_the_image_chose_and_no_test_fails_by(
    entry: Entry, told: tuple[str, str] | None
) -> None:
    assert destination(entry) == told


def test_a_container_of_the_same_network_is_no_destination() -> None:
    connection, lookup = tcp(outcome="routed"), dns_query()
    connection.between, lookup._is_of_peer = "db", True
    assert [destination(each) for each in (connection, lookup)] == [None, None]


def test_quic_beside_https_is_udp() -> None:
    entry = packet(outcome="recorded", port=443, size=1208, first_bytes=QUIC)
    assert entry.is_quic
    assert destination(entry) == ("udp", "api.test:443")


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("shop", "shop"),
        ("acme/shop:1.2", "acme/shop"),
        ("registry.test:5000/acme/shop:1.2@sha256:0f", "acme/shop"),
        ("registry.test/shop", "shop"),
        ("localhost/acme/shop", "acme/shop"),
        ("docker.io/library/postgres:16", "postgres"),
        ("library/postgres", "postgres"),
        ("sha256:0f1e2d", "sha256"),
    ],
)
def test_an_image_is_named_without_registry_tag_and_digest(image: str, name: str) -> None:
    assert image_of("any#2", {"any#2": image}) == name


def test_a_container_of_no_known_image_is_one_by_its_name() -> None:
    assert image_of("shop:latest#2", {}) == "shop"


def test_a_name_that_was_dialled_is_no_destination_of_its_own() -> None:
    entries = [
        dns_query(),
        dns_query(host="metrics.internal"),
        http_exchange(outcome="routed"),
        http_exchange(outcome="routed"),
        dns_query(host="x.test"),
        tcp(host="x.test"),  # which fails its test
    ]
    found = sightings(entries, {"shop": "acme/shop:1"})
    assert {line: each.count for line, each in found.items()} == {
        LockLine("acme/shop", "names", "metrics.internal"): 1,
        LockLine("acme/shop", "https", "api.test:443"): 2,
    }


def test_what_is_listed_is_no_offence() -> None:
    found = sightings([http_exchange(outcome="routed")], {})
    listed = Lock(lines=frozenset(found))
    assert offence(found, listed, file="egress.lock", exists=True, test="t") is None


def test_an_offence_says_what_and_how_to_accept_it() -> None:
    entries = [http_exchange(outcome="blocked", path=f"/{n}", host=f"h{n}.test") for n in range(40)]
    found = sightings([*entries, dns_query(host="m.internal")], {})
    told = offence(found, Lock(), file="egress.lock", exists=False, test="test_a")
    assert told is not None
    assert told.kind is LockError
    lines = told.text.splitlines()
    assert lines[:5] == [
        "shop reached what egress.lock does not list:",
        "",
        "  blocked h0.test:443   1 attempt, by test_a",
        "      GET https://h0.test/0",
        '      blocked by: unrouted="block"',
    ]
    assert lines[-3:] == [
        "  and 11 more",
        "",
        "egress.lock is not there yet. to accept it: pytest --egress-lock=update, and commit egress.lock",
    ]
    assert told.headline == (
        "shop reached blocked h0.test:443, which egress.lock does not list (and 40 more)"
    )


@pytest.mark.parametrize("host", ["a\x00b.test", "a\u2028b.test", "\x1b[31m.test"])
def test_a_name_that_is_no_text_of_a_line_is_not_written(host: str) -> None:
    (seen,) = sightings([dns_query(host=host)], {}).values()
    assert not is_listable(seen)


def test_what_has_leaked_a_secret_is_no_destination() -> None:
    entry = http_exchange(outcome="routed")
    entry.leak = "sent <API_KEY> to another address"
    assert destination(entry) is None
