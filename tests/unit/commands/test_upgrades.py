"""Where an audit offers STARTTLS, and what answers there."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from pytest_egress import Egress
from pytest_egress.commands.findings import SSL_REQUEST
from pytest_egress.commands.upgrades import (
    MAX_COMMANDS,
    accept_ssl_request,
    offer,
    upgrading,
    withheld,
)
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
        tcp(host="e.test", port=143),
    ]
    answers = upgrading(usual)
    assert [*answers] == ["a.test:587", "c.test:6543", "e.test:143"]
    with contextlib.closing(Session()) as session, Egress(session=session) as egress:
        offer(egress, answers, {"certificate": "expired"})
        declared = [(str(route), route.kind.method) for route in inner_of(egress).routes]
    assert declared == [
        (f"intercept_tcp(\"{address}\", certificate='expired')", "intercept_tcp")
        for address in answers
    ]


class Socket:
    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.said = [*pieces], b""

    def readexactly(self, size: int) -> bytes:
        return self.recv(size)[:size]

    def sendall(self, data: bytes) -> None:
        self.said += data

    def starttls(self) -> Any:
        self.said += b"TLS"
        return self

    def recv(self, size: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


def test_a_client_that_asks_for_tls_gets_it_and_no_other() -> None:
    asks, does_not = Socket(SSL_REQUEST), Socket(b"12345678")
    accept_ssl_request(asks)
    accept_ssl_request(does_not)
    assert (asks.said, does_not.said) == (b"STLS", b"")


@pytest.mark.parametrize(
    ("port", "pieces", "seen"),
    [
        (587, [b"EHLO me\r\n", b"QUIT\r\n"], [False]),
        (587, [b"EHLO me\r\nST", b"ARTTLS\r\n"], [False]),
        (587, [b"EHLO me\r\n", b"mail from:<a@b.test>\r\n"], [True]),
        (587, [b"EHLO me\r\n", b"AUTH PLAIN AGEAYg==\r\n"], [True]),
        (587, [b"NOOP\r\n"] * (MAX_COMMANDS + 1) + [b"MAIL"], [False]),
        (587, [b"a" * 4000] * 9 + [b"\nMAIL\n"], [False]),
        (143, [b"a1 CAPABILITY\r\na2 STARTTLS\r\n", b"a3 LOGOUT\r\n"], [False]),
        (143, [b"a1 login ann secret\r\n"], [True]),
        (110, [b"STLS\r\nQUIT\r\n"], [False]),
        (110, [b"CAPA\r\n", b"USER ann\r\n"], [True]),
        (5432, [SSL_REQUEST], [False]),
        (5432, [SSL_REQUEST, b"\x00"], [True]),
        (5432, [b"12345678"], []),
    ],
)
def test_who_goes_on_where_tls_is_not_offered_is_noted(
    port: int, pieces: list[bytes], seen: list[bool]
) -> None:
    first = pieces[0] if port == 5432 else b""
    usual = [tcp(host="a.test", port=port, first_bytes=SSL_REQUEST if first else b"")]
    noted: dict[tuple[str, int | None], bool] = {}
    answers = withheld([*usual, tcp(host="b.test", port=25)], [("a.test", port)], noted)
    assert [*answers] == [f"a.test:{port}"]
    answers[f"a.test:{port}"](Socket(*pieces))
    answers[f"a.test:{port}"](Socket())
    assert [*noted.values()] == (seen or [])


def test_a_client_that_goes_on_once_does() -> None:
    noted: dict[tuple[str, int | None], bool] = {}
    answers = withheld([tcp(host="a.test", port=25)], [("a.test", 25)], noted)
    for piece in (b"MAIL\n", b"QUIT\n"):
        answers["a.test:25"](Socket(piece))
    assert noted == {("a.test", 25): True}


@pytest.mark.parametrize(
    ("port", "asked", "said"),
    [
        (143, b"a1 CAPABILITY\r\na2 STARTTLS\r\n", b" STARTTLS\r\na1 OK\r\na2 OK\r\nTLS"),
        (110, b"CAPA\r\nSTLS\r\n", b"STLS\r\nUSER\r\n.\r\n+OK\r\nTLS"),
    ],
)
def test_mail_that_is_read_is_offered_tls(port: int, asked: bytes, said: bytes) -> None:
    (answer,) = upgrading([tcp(port=port)]).values()
    sock = Socket(asked)
    answer(sock)
    assert sock.said.endswith(said)
