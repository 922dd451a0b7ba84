"""What an audit says, in a form in which two can be compared."""

from __future__ import annotations

import pytest

from pytest_egress.commands.findings import Audit
from pytest_egress.commands.order import Order
from pytest_egress.commands.sides import check_seen, lines_of, parts_of
from pytest_egress.errors import EgressError
from pytest_egress.evidence.lock import LockLine
from tests.support.entries import dns_query, http_exchange, tcp, tls

KEY = "Zx81-ab-cdef-0123"


def test_the_parts_of_an_audit_without_how_often_it_was() -> None:
    usual = [http_exchange(), http_exchange(), tcp(), http_exchange(path=f"/{KEY}")]
    rejected = [tls(reason="rejected")]
    audit = Audit(
        usual=usual,
        presented={"expired": rejected, "self-signed": rejected, "TLSv1": []},
        secrets=[("API_KEY", KEY)],
    )
    parts = parts_of(audit)
    assert parts["Whom it asks"] == {
        "https api.test:443": "TLS",
        "tcp api.test:5432": "in the clear",
    }
    assert [*parts["Where its secrets go"]] == ["API_KEY to api.test:443 in url path"]
    assert parts["What it accepts"] == {
        "api.test": "not asked TLSv1; rejected expired, self-signed"
    }
    alike = Audit(usual=usual, presented={"expired": rejected, "self-signed": rejected})
    assert parts_of(alike)["What it accepts"] == {"api.test": "rejected all"}


def test_what_an_image_reaches_as_lines_of_a_lock() -> None:
    entries = [
        dns_query(),
        dns_query(host="alone.test"),
        dns_query(host="1.0.0.10.in-addr.arpa"),
        http_exchange(outcome="blocked"),
        tcp(outcome="blocked"),
    ]
    assert lines_of(entries, "shop") == [
        LockLine("shop", "names", "alone.test"),
        LockLine("shop", "https", "api.test:443"),
        LockLine("shop", "tcp", "api.test:5432"),
    ]


def test_an_image_of_which_not_all_was_seen_is_not_compared() -> None:
    check_seen(Order(image="shop"), "", "")
    with pytest.raises(EgressError, match=r"shop cannot be compared, since .*: 5 were lost"):
        check_seen(Order(image="shop"), "", "5 were lost")
