"""Where an audit offers STARTTLS, and what answers there."""

from __future__ import annotations

import contextlib
from typing import Any

from pytest_egress import Egress
from pytest_egress.commands.findings import SSL_REQUEST
from pytest_egress.commands.upgrades import accept_ssl_request, offer, upgrading
from pytest_egress.egress import inner_of
from pytest_egress.session import Session
from pytest_egress.traffic.http.request import TlsInfo
from tests.support.entries import http_exchange, tcp


def test_it_is_offered_to_mail_and_to_postgresql_alone() -> None:
    in_tls = tcp(host="b.test", port=25, tls=TlsInfo(version="TLSv1.3", cipher=""))
    usual = [
        http_exchange(),
        tcp(host="a.test", port=587),
        in_tls,
        tcp(host="c.test", port=6543, first_bytes=SSL_REQUEST),
        tcp(host="d.test", port=5432, first_bytes=b"\x00\x00\x00\x08"),
        tcp(host="0x7f000001", port=25),
    ]
    answers = upgrading(usual)
    assert [*answers] == ["a.test:587", "c.test:6543"]
    with contextlib.closing(Session()) as session, Egress(session=session) as egress:
        offer(egress, answers, {"certificate": "expired"})
        declared = [(str(route), route.kind.method) for route in inner_of(egress).routes]
    assert declared == [
        (f"intercept_tcp(\"{address}\", certificate='expired')", "intercept_tcp")
        for address in answers
    ]


def test_a_client_that_asks_for_tls_gets_it_and_no_other() -> None:
    class Socket:
        def __init__(self, begins: bytes) -> None:
            self.begins, self.said = begins, b""

        def readexactly(self, size: int) -> bytes:
            return self.begins[:size]

        def sendall(self, data: bytes) -> None:
            self.said += data

        def starttls(self) -> Any:
            self.said += b"TLS"
            return self

        def recv(self, size: int) -> bytes:
            return b""

    asks, does_not = Socket(SSL_REQUEST), Socket(b"12345678")
    accept_ssl_request(asks)
    accept_ssl_request(does_not)
    assert (asks.said, does_not.said) == (b"STLS", b"")
