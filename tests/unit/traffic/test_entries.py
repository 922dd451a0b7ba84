"""Entries as values of JSON: their kind, and what `to_dict` says of each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_egress.base.account import Accounts
from pytest_egress.traffic.entries import Entry, Exchange, KafkaRecord, Mail, ProxyCall
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.redaction.redactor import BY_NAMES
from tests.support.entries import about, dns_query, http_exchange, packet, tcp, tls

KEY = "live_key_0123456789"


def mail() -> Mail:
    fields = about(
        port=25, address="198.18.0.1", sender=f"{KEY}@shop.test", recipients=("a@b.test",)
    )
    return Mail(**fields, content=f"Subject: {KEY}\r\n\r\n".encode())


def record() -> KafkaRecord:
    return KafkaRecord(**about(port=9092, address="198.18.0.1", topic=f"orders-{KEY}", value=b"x"))


def proxied() -> ProxyCall:
    target = f"http://api.test/{KEY}"
    fields = about(port=3128, address="198.18.0.1", method="GET", target=target)
    return ProxyCall(**fields, headers=Headers(), user=KEY)


def opened() -> Entry:
    entry = http_exchange()
    entry.websocket = object()
    return entry


KINDS: list[tuple[Entry, str]] = [
    (http_exchange(path=f"/{KEY}"), "http"),
    (
        http_exchange("POST", "/shop.Orders/Get", headers={"Content-Type": "application/grpc"}),
        "grpc",
    ),
    (opened(), "websocket"),
    (tcp(sni=f"{KEY}.test"), "tcp"),
    (mail(), "mail"),
    (record(), "kafka"),
    (proxied(), "proxy"),
    (tls(sni=f"{KEY}.test", reason="untrusted"), "tls"),
    (dns_query(answer=(KEY,), cnames=(f"{KEY}.test",)), "dns"),
    (packet(), "udp"),
    (packet(protocol="ICMPv6"), "icmp"),
    (packet(protocol="SCTP"), "packet"),
]


@pytest.mark.parametrize(("entry", "kind"), KINDS, ids=[kind for _, kind in KINDS])
def test_an_entry_is_a_dict_of_json_that_begins_with_its_kind(entry: Entry, kind: str) -> None:
    accounts = Accounts()
    accounts.redactor = BY_NAMES.knowing({"API_KEY": KEY})
    entry._account = accounts.open()
    if isinstance(entry, Exchange):
        object.__setattr__(entry.request, "_account", entry._account)
    entry.note = f"it said {KEY}"
    made: dict[str, Any] = entry.to_dict()
    assert next(iter(made)) == "kind"
    assert made["kind"] == kind
    assert made["host"] == "api.test"
    text = json.dumps(made)
    assert KEY not in text
    assert "<API_KEY>" in text


def test_a_request_that_has_no_response_yet_has_no_status() -> None:
    made = http_exchange("POST", "/v1/charges").to_dict()
    assert (made["method"], made["url"], made["status"]) == (
        "POST",
        "https://api.test/v1/charges",
        None,
    )
    assert made["duration"] is None
