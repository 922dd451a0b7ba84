"""The block of code that declares all attempts of a test."""

from __future__ import annotations

import pytest

from pytest_egress.ledger.declaring import SHOWN_LINES, block_lines, declarations
from pytest_egress.traffic.entries import NO_QUIC, AskedProxy, Entry
from pytest_egress.traffic.http.request import TlsInfo
from tests.support.entries import dns_query, http_exchange, packet, tcp, tls

GRPC = {"content-type": "application/grpc"}
CHARGE = 'egress.intercept_https("api.test", method="POST", path="/v1")'


def test_a_block_has_each_line_once_and_imports_what_it_names() -> None:
    mail = tcp(host="mail.test", port=25, first_bytes=b"")
    post = http_exchange("POST", "/v1")
    assert block_lines([post, mail, http_exchange("POST", "/v1"), tcp()]) == [
        "to declare all of it:",
        "    from pytest_egress import smtp",
        f"    {CHARGE}",
        '    egress.intercept_tcp("mail.test:25", smtp())',
        '    egress.intercept_tcp("api.test:5432")',
        "",
    ]


def test_one_line_is_no_block_since_it_stands_beside_its_attempt() -> None:
    assert block_lines([http_exchange("POST", "/v1"), http_exchange("POST", "/v1")]) == []


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (dns_query(outcome="unrouted", host="db.test"), 'egress.dns("db.test", "NXDOMAIN")'),
        (
            dns_query(outcome="unrouted", host="db.test", type="TXT"),
            'egress.dns("db.test", TXT="v=spf1 -all")',
        ),
        (
            tcp(port=8883, tls=TlsInfo(version="TLSv1.3", cipher="", alpn=None)),
            'egress.intercept_tls("api.test:8883")',
        ),
        (tls(reason="alpn"), 'egress.block("api.test:443")'),
        (packet(), 'egress.intercept_udp("api.test:123")'),
        (
            http_exchange("POST", "/shop.Charges/Charge", headers=GRPC),
            '# egress.intercept_https("api.test", grpc_server((add_ChargesServicer_to_server, Charges())))',
        ),
    ],
)
def test_a_line_by_which_the_attempt_fails_no_test(entry: Entry, line: str) -> None:
    assert declarations([entry]) == [line]


def test_what_no_line_helps_is_left_out() -> None:
    asked = http_exchange("CONNECT", "real.test:443", secure=False, port=3128)
    asked._asked_proxy = AskedProxy("api.test:3128", ("HTTPS_PROXY",))
    refused = http_exchange(note="its :authority is 'other.test'")
    assert declarations([asked, refused, packet(note=NO_QUIC)]) == []


def test_a_block_has_an_end() -> None:
    many = [http_exchange(path=f"/{number}") for number in range(SHOWN_LINES + 1)]
    assert len(declarations(many)) == SHOWN_LINES
