"""`pytest-egress audit`: what it shows to clients, and its text. Its runs are in `tests/engine`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pytest_egress import BAD_CERTIFICATES
from pytest_egress.commands.audit import (
    SHOWN_TO_CLIENTS,
    raw_addresses,
    refusal,
    shows,
    text_lines,
)
from pytest_egress.commands.findings import SHOWN, Audit
from pytest_egress.commands.order import Order
from pytest_egress.traffic.http.request import TlsInfo
from tests.support.entries import http_exchange, tcp

MQTTS = tcp(port=8883, tls=TlsInfo(version="TLSv1.3", cipher=""))


class Declared:
    """Takes what an audit declares."""

    def __init__(self) -> None:
        self.routes: list[tuple[str, str, dict[str, Any]]] = []

    def intercept_tls(self, address: str, **options: Any) -> None:
        self.routes.append(("tls", address, options))

    def intercept_https(self, address: str, **options: Any) -> None:
        self.routes.append(("https", address, options))


def test_everything_that_a_client_has_to_reject_is_shown() -> None:
    assert [*SHOWN_TO_CLIENTS] == [*BAD_CERTIFICATES, "TLSv1", "TLSv1.1"]


def test_it_is_shown_at_all_hosts_and_where_tls_carries_no_http() -> None:
    declared: Any = Declared()
    odd = tcp(host="0x7f000001", port=8883, tls=MQTTS.tls)  # no route takes it
    raw = raw_addresses([http_exchange(), MQTTS, MQTTS, tcp(), odd])
    shows({"certificate": "expired"}, raw, {})(declared)
    options = {"certificate": "expired", "optional": True}
    assert declared.routes == [("tls", "api.test:8883", options), ("https", "*:*", options)]


def test_four_parts_and_a_count() -> None:
    found = Audit(usual=[http_exchange(secure=False)], ended=1)
    lines = [*text_lines(Order(image="shop"), found)]
    assert [line for line in lines if line and line[0] != " "] == [
        "The audit of shop; nothing got out.",
        "Whom it asks",
        "Where its secrets go",
        "What it accepts",
        "Findings",
        "1 finding, of 1 run.",
        "1 run ended after 60 s by --timeout: the image may have more to ask.",
    ]


def test_a_run_of_which_not_all_was_seen_is_a_finding() -> None:
    found = Audit(usual=[], unseen={"expired": "5 were lost"})
    lines = [*text_lines(Order(image="shop"), found)]
    assert "  not all of the run 'expired' could be seen: 5 were lost" in lines
    assert "1 finding, of 1 run." in lines


def test_very_many_findings_are_told_of_by_a_number() -> None:
    usual = [http_exchange(host=f"a{number}.test", secure=False) for number in range(SHOWN + 7)]
    lines = [*text_lines(Order(image="shop"), Audit(usual=usual))]
    assert lines.count("  ... 7 more") == 2  # whom it asks, and the findings


def test_what_this_openssl_cannot_speak_is_not_tried() -> None:
    def refuse(version: str) -> None:
        raise ValueError(f"no {version} here")

    session: Any = SimpleNamespace(check_tls_version=refuse)
    assert refusal(session, {"tls_version": "TLSv1"}) == "no TLSv1 here"
    assert refusal(session, {"certificate": "expired"}) == ""
