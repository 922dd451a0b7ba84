"""What an audit says of the runs of an image."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_egress.commands.findings import (
    SHOWN,
    SSL_REQUEST,
    Audit,
    asked_lines,
    findings,
    secret_lines,
    table_lines,
)
from pytest_egress.traffic.address import parse_address
from pytest_egress.traffic.entries import Accepted, Entry, Mail, TcpConnection
from pytest_egress.traffic.http.request import TlsInfo
from pytest_egress.traffic.notes import ConnectionNote
from tests.support.entries import about, dns_query, http_exchange, packet, tcp, tls

TLS_1_3 = TlsInfo(version="TLSv1.3", cipher="")
KEY = "Zx81-ab-cdef-0123"


def over_tls(**fields: Any) -> TcpConnection:
    entry = tcp(tls=TLS_1_3, **{"port": 8883, **fields})
    entry.connection = ConnectionNote(1, 0)
    entry.connection.library = "OpenSSL"
    return entry


def mail(**fields: Any) -> Mail:
    parts = {"address": "198.18.0.1", "sender": "a@b.test", "recipients": (), "content": b""}
    return Mail(**about(port=5432) | parts | fields)


def accepted(entry: Entry) -> Entry:
    entry.accepted = Accepted(SimpleNamespace(), None)
    return entry


def test_whom_it_asks_and_how_that_is_protected() -> None:
    usual = [
        dns_query(),
        dns_query(host="metrics.test"),
        http_exchange(),
        http_exchange(secure=False),
        http_exchange(secure=False),
        over_tls(),
        tls(),
        tcp(),
        packet(),
    ]
    assert [re.split("  +", line) for line in asked_lines(Audit(usual=usual))] == [
        ["dns", "metrics.test", "looked up, never dialled"],
        ["https", "api.test:443", "TLS", "1 attempt"],
        ["http", "api.test:80", "in the clear", "2 attempts"],
        ["tls", "api.test:8883", "TLSv1.3, OpenSSL", "1 attempt"],
        [
            "tls",
            "api.test:443",
            "TLS, its requests unseen: it does not trust the CA, or broke off",
            "1 attempt",
        ],
        ["tcp", "api.test:5432", "in the clear", "1 attempt"],
        ["udp", "api.test:123", "not intercepted", "1 attempt"],
    ]


def test_an_image_that_asks_nobody_has_nothing_wrong() -> None:
    nothing = Audit(usual=[])
    assert asked_lines(Audit(usual=[])) == ["nobody"]
    assert table_lines(nothing) == ["it asked nobody by TLS"]
    assert findings(nothing) == []


@pytest.mark.parametrize(
    ("entries", "did"),
    [
        ([tls(reason="rejected")], "rejected"),
        ([tls(reason="rejected"), accepted(http_exchange())], "ACCEPTED"),
        ([accepted(over_tls())], "ACCEPTED"),
        ([tls(reason="rejected"), http_exchange(secure=False)], "in the clear"),
        ([tls(reason="unused")], "broke off"),
        ([], "not asked"),
    ],
)
def test_what_it_did_with_a_bad_certificate(entries: list[Entry], did: str) -> None:
    audit = Audit(usual=[http_exchange()], presented={"expired": entries})
    assert table_lines(audit)[1] == f"expired  {did}"
    assert bool(findings(audit)) is (did in ("ACCEPTED", "in the clear"))


def test_one_that_asks_in_the_clear_anyway_has_not_fallen_back_to_it() -> None:
    clear = http_exchange(secure=False)
    shown = [tls(reason="rejected"), clear]
    audit = Audit(usual=[http_exchange(), clear], presented={"expired": shown})
    assert table_lines(audit)[1] == "expired  rejected"
    assert findings(audit) == ["it asks http api.test:80 in the clear"]


def test_many_hosts_have_several_tables() -> None:
    usual = [http_exchange(host=f"{n}.test") for n in range(5)]
    lines = table_lines(Audit(usual=usual, presented={"expired": []}, skipped={"TLSv1": "no"}))
    assert lines[0].split() == ["0.test", "1.test", "2.test", "3.test"]
    assert lines[3].split() == ["4.test"]
    assert lines[-1] == "TLSv1: not tried, no"


def test_a_secret_is_told_of_by_its_name_where_it_went() -> None:
    secrets = [("API_KEY", KEY), ("OTHER_KEY", "Qq99-ab-cdef-0123")]
    usual = [
        http_exchange(headers={"authorization": f"Bearer {KEY}"}),
        http_exchange(path=f"/{KEY}"),
        http_exchange(secure=False, headers={"x-key": KEY}),
    ]
    audit = Audit(usual=usual, secrets=secrets)
    assert secret_lines(audit) == [
        "API_KEY    api.test:443  in header authorization",
        "API_KEY    api.test:443  in url path",
        "API_KEY    api.test:80   in header x-key",
        "OTHER_KEY  not seen",
    ]
    wrong = findings(audit)
    assert [each.partition(": ")[0] for each in wrong] == [
        "API_KEY went to api.test:443 in url path",
        "API_KEY went to api.test:80 in header x-key",
        "it asks http api.test:80 in the clear",
    ]
    assert KEY not in " ".join([*secret_lines(audit), *wrong])


def test_without_a_secret_it_says_how_to_give_one() -> None:
    assert secret_lines(Audit(usual=[])) == [
        "no variable that it was given is a secret: give it those that it has, by -e NAME"
    ]


def test_an_image_that_floods_is_told_of_by_a_number() -> None:
    many = [http_exchange(host=f"{n}.test") for n in range(SHOWN + 3)]
    assert asked_lines(Audit(usual=many))[-1] == "... 3 more"


def test_a_name_cannot_move_the_cursor() -> None:
    assert "\x1b" not in "\n".join(asked_lines(Audit(usual=[tcp(host="a\x1b[2J")])))


def test_a_connection_that_begins_tls_by_itself_is_not_in_the_clear() -> None:
    usual = [tcp(port=587), tcp(port=25), tcp(port=2525), tcp(host="db.test")]
    early = over_tls(port=2525)
    early._is_in_clear_first = True
    offered = [over_tls(port=587), tls(host="db.test", port=5432, reason="rejected")]
    offered += [over_tls(port=25), tcp(port=25, first_bytes=b"MAIL"), early]
    audit = Audit(usual=usual, offered=offered)
    assert [re.split("  +", line)[1:3] for line in asked_lines(audit)] == [
        ["api.test:587", "STARTTLS, TLSv1.3, OpenSSL"],
        ["api.test:25", "in the clear"],
        ["api.test:2525", "in the clear"],
        ["db.test:5432", "STARTTLS, of which it rejects the certificate"],
    ]
    assert findings(audit) == [f"it asks tcp api.test:{port} in the clear" for port in (25, 2525)]


REQUEST = bytearray(SSL_REQUEST)


@pytest.mark.parametrize(
    ("entries", "did"),
    [
        ([tcp(kept=REQUEST), tls(port=5432, reason="rejected")], "rejected"),
        ([tcp(kept=REQUEST), tls(port=5432, reason="rejected"), tcp(kept=b"user")], "in the clear"),
        ([tcp(), tls(port=5432, reason="rejected"), mail()], "in the clear"),
        ([tcp(), tls(port=5432, reason="rejected"), mail(tls=TLS_1_3)], "rejected"),
        ([accepted(over_tls(port=5432))], "ACCEPTED"),
    ],
)
def test_what_it_did_with_a_bad_certificate_after_starttls(entries: list[Entry], did: str) -> None:
    usual = [tcp(first_bytes=SSL_REQUEST)]
    audit = Audit(usual=usual, offered=[over_tls(port=5432)], presented={"expired": entries})
    assert table_lines(audit)[1] == f"expired  {did}"
    assert bool(findings(audit)) is (did != "rejected")


def test_who_goes_on_without_starttls_where_it_is_not_offered_is_a_finding() -> None:
    usual = [tcp(port=587), tcp(host="db.test"), http_exchange(host="web.test")]
    offered = [over_tls(port=587), tls(host="db.test", port=5432, reason="rejected")]
    stripped: dict[tuple[str, int | None], bool] = {
        ("api.test", 587): True,
        ("api.test", 25): False,
        ("db.test", 5432): False,
    }
    audit = Audit(usual=usual, offered=offered, stripped=stripped)
    assert [re.split("  +", line) for line in table_lines(audit)] == [
        ["", "web.test", "api.test", "db.test"],
        ["no STARTTLS", "in the clear", "rejected"],
    ]
    (found,) = findings(audit)
    assert found.startswith("it goes on in the clear with api.test where STARTTLS is not offered")


def test_what_is_asked_only_after_an_answer_is_told_of_too() -> None:
    late = http_exchange(host="late.test", secure=False)
    refused = tls(host="careful.test", reason="rejected")
    expired = [http_exchange(), refused, dns_query(host="late.test"), late, late]
    presented = {"expired": expired, "weak-key": expired}
    audit = Audit(usual=[http_exchange()], presented=presented)
    assert [*map(str.split, asked_lines(audit))] == [
        ["https", "api.test:443", "TLS", "1", "attempt"],
        ["http", "late.test:80", "in", "the", "clear", "2", "attempts"],
    ]
    assert findings(audit) == ["it asks http late.test:80 in the clear"]


def test_one_that_rejects_our_own_certificate_after_its_request_is_not_in_the_clear() -> None:
    offered = [tcp(kept=REQUEST), tls(port=5432, reason="untrusted")]
    audit = Audit(usual=[tcp(first_bytes=SSL_REQUEST)], offered=offered)
    assert "STARTTLS, of which it rejects the certificate" in asked_lines(audit)[0]
    assert findings(audit) == []


def test_what_may_be_in_the_clear_is_no_finding_and_a_secret_in_its_url_is() -> None:
    usual = [
        http_exchange(secure=False, headers={"x-key": KEY}),
        http_exchange(secure=False, path=f"/{KEY}"),
        http_exchange(secure=False, host="other.test"),
    ]
    clear = [parse_address("api.test", default_port=None)]
    wrong = findings(Audit(usual=usual, secrets=[("API_KEY", KEY)], clear=clear))
    assert [each.partition(": ")[0] for each in wrong] == [
        "API_KEY went to api.test:80 in url path",
        "it asks http other.test:80 in the clear",
    ]


def test_names_that_are_no_choice_of_the_image_are_not_listed() -> None:
    own = dns_query(host="1.2.0.192.in-addr.arpa", type="PTR")
    assert asked_lines(Audit(usual=[own, dns_query(host="localhost")])) == ["nobody"]


def test_a_secret_is_found_without_the_line_that_a_file_ends_with() -> None:
    usual = [http_exchange(headers={"x-key": KEY})]
    assert "x-key" in secret_lines(Audit(usual=usual, secrets=[("API_KEY", f"{KEY}\n")]))[0]
