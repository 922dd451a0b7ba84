from __future__ import annotations

from typing import Any

import pytest

from pytest_egress.evidence.pages import destinations
from pytest_egress.evidence.pages.destinations import Destinations
from tests.support.ledger_lines import line_of, story


def cells_of(*entries: dict[str, Any]) -> dict[str, dict[str, Any]]:
    made = Destinations()
    for entry in entries:
        made.add(entry)
    return made.cells()


def test_a_cell_has_the_worst_that_happened_and_the_number_of_that_entry() -> None:
    cells = cells_of(*story())
    assert cells["https api.stripe.com:443"] == {
        "count": 3,
        "worst": "fails",
        "entry": 7,
        "reached": False,
    }
    assert cells["https index.test:443"] == {
        "count": 1,
        "worst": "passthrough",
        "entry": 6,
        "reached": True,
    }
    assert {name: cell["worst"] for name, cell in cells.items()} == {
        "https api.stripe.com:443": "fails",
        "https rates.test:443": "routed",
        "https cdn.test:443": "routed",
        "https index.test:443": "passthrough",
        "https metrics.test:443": "blocked",
        "https pay.test:443": "fails",
        "tcp redis.test:6379": "routed",
        "mail smtp.test:587": "routed",
        "udp statsd.test:8125": "blocked",
        "https feed.test:443": "routed",
        "https payments.test:50051": "routed",
        "kafka kafka.test:9092": "routed",
        "proxy proxy.test:3128": "recorded",
        "tls api.stripe.com:443": "fails",
    }


def test_a_container_of_the_same_network_is_no_destination() -> None:
    between = {"kind": "tcp", "host": "db", "port": 5432, "between": "postgres"}
    assert cells_of(between) == {}


def test_a_failure_does_not_hide_that_the_real_server_was_reached() -> None:
    passed = line_of(1, "tcp", "db.test", 1.0, outcome="passthrough")
    failed = line_of(2, "tcp", "db.test", 2.0, fails=True)
    (cell,) = cells_of(passed, failed).values()
    assert cell == {"count": 2, "worst": "fails", "entry": 2, "reached": True}


def test_a_lookup_is_a_destination_where_it_fails_and_nothing_followed() -> None:
    failed = line_of(1, "dns", "gone.test", 1.0, port=53, fails=True)
    led = line_of(2, "dns", "api.test", 2.0, port=53, fails=True)
    asked = line_of(3, "http", "api.test", 3.0, scheme="https")
    plain = line_of(4, "dns", "other.test", 4.0, port=53)
    assert [*cells_of(failed, led, asked, plain)] == ["https api.test:443", "dns gone.test:53"]


def test_destinations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "MOST", 2)
    made = Destinations()
    for n, host in enumerate(("a.test", "b.test", "c.test", "a.test"), 1):
        made.add(line_of(n, "tcp", host, float(n), port=1))
    assert {name: cell["count"] for name, cell in made.cells().items()} == {
        "tcp a.test:1": 2,
        "tcp b.test:1": 1,
    }
    assert made.left_out == 1
