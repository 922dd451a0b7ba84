"""What was sent in the clear, or by an old version of TLS, is told with its host and how."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_egress.errors import AddressError
from pytest_egress.ledger.encryption import (
    checked_addresses,
    checked_minimum,
    weak,
    weak_error,
)
from pytest_egress.traffic.entries import Entry, Exchange, Mail, Offers, ProxyCall
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import TlsInfo
from tests.support.entries import about, datagrams, dns_query, http_exchange, packet, tcp, tls
from tests.support.traffic import dtls_hello, quic_initial


def spoken(version: str) -> TlsInfo:
    return TlsInfo(version=version, cipher="TLS_AES_256_GCM_SHA384")


def secured(version: str) -> Exchange:
    entry = http_exchange()
    entry.request = replace(entry.request, tls=spoken(version))
    return entry


def mail(secure: TlsInfo | None) -> Mail:
    common = {"address": "198.18.0.1", "sender": "a@x.test", "recipients": ("b@x.test",)}
    return Mail(**about(port=25, outcome="routed") | common, content=b"", tls=secure)


def offering(version: str, library: str | None) -> Entry:
    entry = tcp(first_bytes=b"\x16\x03\x01", outcome="passthrough")
    entry.offers = Offers(version, library)
    return entry


def heard() -> Entry:
    """A connection of `smtp()` or `kafka()`, whose bytes are not kept."""
    entry = tcp()
    entry._is_heard = True
    return entry


def proxied(method: str, *fields: tuple[str, str]) -> ProxyCall:
    common = about(port=3128, outcome="recorded") | {"address": "198.18.0.1"}
    return ProxyCall(**common, method=method, target="api.test:443", headers=Headers(fields))


def found(entry: Entry, *allow: str, minimum: str = "TLSv1.2") -> list[str]:
    return [each.how for each in weak([entry], checked_minimum(minimum), checked_addresses(allow))]


@pytest.mark.parametrize(
    ("entry", "how"),
    [
        (http_exchange(secure=False), "in the clear"),
        (secured("TLSv1.1"), "TLSv1.1"),
        (tcp(first_bytes=b"SELECT"), "in the clear"),
        (tcp(received=7), "in the clear"),
        (mail(None), "in the clear"),
        (packet(), "in the clear"),
        (datagrams(b"shop.orders:1|c", outcome="routed"), "in the clear"),
        (datagrams(dtls_hello(0xFEFF)), "TLSv1.1 at most is offered"),
        (datagrams(dtls_hello(), b"but then"), "in the clear"),
        (heard(), "in the clear"),
        (proxied("GET"), "in the clear"),
        (proxied("CONNECT", ("Proxy-Authorization", "Basic am9lOg==")), "in the clear"),
        (proxied("CONNECT", ("X-Proxy-Token", "t0ken")), "in the clear"),
        (offering("TLSv1.1", "OpenSSL"), "TLSv1.1 at most is offered by OpenSSL"),
        (offering("SSLv3", None), "SSLv3 at most is offered"),
    ],
)
def test_an_attempt_that_is_not_encrypted_well_is_told(entry: Entry, how: str) -> None:
    assert found(entry) == [how]
    assert found(entry, "api.test") == []
    assert found(entry, "other.test") == [how]


@pytest.mark.parametrize(
    "entry",
    [
        secured("TLSv1.2"),
        tcp(first_bytes=b"SELECT", tls=spoken("TLSv1.3")),
        tcp(),
        mail(spoken("TLSv1.3")),
        offering("TLSv1.3", None),
        packet(outcome="recorded"),
        packet(first_bytes=quic_initial()[:64], size=1208),
        datagrams(quic_initial(), b"\x40short"),
        datagrams(dtls_hello()),
        dns_query(),
        tls(reason="rejected"),
        proxied("CONNECT"),
    ],
)
def test_what_is_encrypted_or_carried_nothing_is_not_told(entry: Entry) -> None:
    assert found(entry) == []


def test_a_connection_is_told_by_its_mails_if_there_are_any() -> None:
    session, sent = heard(), mail(None)
    sent.host, sent.port, sent.container = session.host, session.port, session.container
    assert [each.entry for each in weak([session, sent], 2, [])] == [sent]
    sent.port = 587
    assert [each.entry for each in weak([session, sent], 2, [])] == [session, sent]


def test_a_session_in_the_clear_is_told_beside_a_mail_in_tls() -> None:
    session, sent = heard(), mail(spoken("TLSv1.3"))
    sent.host, sent.port, sent.container = session.host, session.port, session.container
    assert [each.entry for each in weak([session, sent], 2, [])] == [session]


def test_the_minimum_is_a_version() -> None:
    assert found(secured("TLSv1.2"), minimum="TLSv1.3") == ["TLSv1.2"]
    assert found(secured("TLSv1"), minimum="TLSv1") == []


def test_the_text_lists_each_once_and_what_to_type() -> None:
    entries = [http_exchange(secure=False), http_exchange(secure=False), secured("TLSv1.1")]
    error = weak_error(weak(entries, 2, []), "TLSv1.2")
    assert str(error) == (
        "expected all in TLSv1.2 or newer; there was:\n"
        "  GET http://api.test/  in the clear  (2 times)\n"
        "  GET https://api.test/  TLSv1.1\n"
        "Where that is meant: assert_encrypted(allow=['api.test:80'])"
    )
    assert error.headline == "GET http://api.test/: in the clear"


@pytest.mark.parametrize(
    ("check", "argument", "error"),
    [
        (checked_minimum, "TLS1.2", ValueError),
        (checked_minimum, ["TLSv1.2"], ValueError),
        (checked_addresses, "db.test", TypeError),
        (checked_addresses, 4, TypeError),
        (checked_addresses, ["http://db.test"], AddressError),
    ],
)
def test_a_bad_argument_is_refused(check: Any, argument: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        check(argument)
