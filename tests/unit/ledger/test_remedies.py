"""The line that would route an attempt."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress import smtp
from pytest_egress.ledger.remedies import remedy
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import (
    INTERCEPT_HTTP,
    INTERCEPT_HTTPS,
    INTERCEPT_TCP,
    INTERCEPT_UDP,
)
from pytest_egress.traffic.address import parse_address
from pytest_egress.traffic.entries import (
    ASIDE_DATAGRAM,
    EXTENDED_DATAGRAM,
    LONG_DATAGRAM,
    Entry,
    Exchange,
)
from tests.support.entries import http_exchange, packet, tcp, tls
from tests.support.traffic import quic_initial

REMEDIES = [
    (http_exchange(), 'egress.intercept_https("api.test", method="GET", path="/")'),
    (
        http_exchange("POST", "/v1", port=8443),
        'egress.intercept_https("api.test:8443", method="POST", path="/v1")',
    ),
    (
        http_exchange(secure=False, port=443),
        'egress.intercept_http("api.test:443", method="GET", path="/")',
    ),
    (
        http_exchange(path='/a"b\\'),
        'egress.intercept_https("api.test", method="GET", path=\'/a"b\\\\\')',
    ),
    (
        http_exchange("CONNECT", "real.test:443", secure=False, port=3128),
        'egress.intercept_http("api.test:3128", method="CONNECT")',
    ),
    (
        http_exchange(
            "POST", "/Charge", headers={"content-type": "application/grpc"}
        ),  # no service
        'egress.intercept_https("api.test", method="POST", path="/Charge")',
    ),
    (
        http_exchange(host="2001:db8::7"),
        'egress.intercept_https("[2001:db8::7]", method="GET", path="/")',
    ),
    (tls(), 'egress.intercept_https("api.test")'),
    (tls(port=8443), 'egress.intercept_https("api.test:8443")'),
    (tcp(), 'egress.intercept_tcp("api.test:5432")'),
    (tcp(port=25, first_bytes=b""), 'egress.intercept_tcp("api.test:25", smtp())'),
    (tcp(port=25, first_bytes=b"GET"), 'egress.intercept_tcp("api.test:25")'),
    (packet(protocol="ICMP", port=None), 'egress.block("api.test")'),
    (packet(), 'egress.intercept_udp("api.test:123")'),
    (packet(port=65535), 'egress.block("api.test:65535")'),
    (packet(note=ASIDE_DATAGRAM), 'egress.block("api.test:123")'),
    (packet(note=LONG_DATAGRAM), 'egress.block("api.test:123")'),
    (packet(note=EXTENDED_DATAGRAM), 'egress.block("api.test:123")'),
    (packet(address="", host="*", port=53), 'egress.block("*:53")'),
    (packet(port=443, first_bytes=quic_initial()[:64], size=1208), 'egress.block("api.test:443")'),
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
    def intercept_tcp(address: str, answer: Any = None) -> Any:
        return declare(INTERCEPT_TCP, address, answer)

    @staticmethod
    def intercept_udp(address: str) -> Any:
        return declare(INTERCEPT_UDP, address)

    @staticmethod
    def block(address: str) -> Any:
        return parse_address(address, default_port=None)


@pytest.mark.parametrize(("entry", "line"), REMEDIES, ids=[line for _, line in REMEDIES])
def test_the_line_that_would_route_an_attempt_can_be_pasted_and_does(
    entry: Entry, line: str
) -> None:
    assert remedy(entry) == line
    declared = eval(line, {"egress": Egress, "smtp": smtp})
    address = getattr(declared, "address", declared)
    assert address.matches(entry.host, entry.port or 0)
    if isinstance(entry, Exchange):
        assert declared.match.differences(entry.request) == []
