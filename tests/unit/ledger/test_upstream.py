"""Whether a real server was reached, and what the first line of a verdict says of it."""

from __future__ import annotations

import pytest

from pytest_egress.ledger.report import unrouted_text
from pytest_egress.ledger.upstream import got_out, reached_hosts
from pytest_egress.traffic.entries import Entry
from tests.support.entries import datagrams, http_exchange, tcp

UNROUTED = http_exchange()


def passed(host: str) -> Entry:
    return tcp(outcome="passthrough", host=host)


def test_what_is_passed_through_has_reached_a_server_and_what_is_unrouted_has_not() -> None:
    entries = [UNROUTED, passed("b.test"), passed("a.test"), passed("b.test")]
    assert [got_out(entry) for entry in entries] == [False, True, True, True]
    assert reached_hosts(entries) == ["b.test", "a.test"]


def test_datagrams_have_reached_a_server_where_one_was_sent_on() -> None:
    recorded, forwarded = datagrams(b"a:1|c", outcome="routed"), datagrams(b"?", outcome="routed")
    forwarded._got_out = True
    assert [got_out(entry) for entry in (recorded, forwarded)] == [False, True]


@pytest.mark.parametrize(
    ("unrouted", "others", "said"),
    [
        (1, 0, "1 unrouted attempt of shop; nothing got out:"),
        (
            1,
            1,
            "1 unrouted attempt of shop; it did not get out, others reached the real 0.test:",
        ),
        (
            2,
            5,
            "2 unrouted attempts of shop; none of these got out, "
            "others reached the real 0.test, 1.test, 2.test and 2 more:",
        ),
    ],
)
def test_nothing_got_out_is_said_where_it_is_so_alone(
    unrouted: int, others: int, said: str
) -> None:
    entries = [UNROUTED] * unrouted
    window = [*entries, *(passed(f"{number}.test") for number in range(others))]
    assert unrouted_text(entries, window).partition("\n")[0] == said
