"""The lines about attempts while they happen: which are due when, and what they say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_egress import Response
from pytest_egress.ledger.watched import LONG_SECONDS, SHOWN_ATTEMPTS, Watched, WatchedLine
from pytest_egress.traffic.entries import Accepted, Entry, KafkaRecord
from tests.support.entries import about, dns_query, http_exchange, packet, tcp, tls

AT = 100.0  # when the entries of `tests.support.entries` began
LATER = AT + LONG_SECONDS
PASTE = WatchedLine(
    text='          egress.intercept_https("api.test", method="GET", path="/")', colour="green"
)


def watching(*entries: Entry, width: int = 160, began: float = 90.0) -> Watched:
    watched = Watched(began, lambda: width)
    watched.add(entries)
    return watched


def answered(**fields: Any) -> Entry:
    common: dict[str, Any] = {"outcome": "routed", "duration": 0.0006, "response": Response(200)}
    return http_exchange(**(common | fields))


def only(entry: Entry) -> WatchedLine:
    return watching(entry).lines(AT, set(), last=True)[0]


def test_a_line_says_when_who_what_and_its_answer_and_what_to_paste() -> None:
    unrouted = http_exchange(duration=0.0006)
    assert watching(unrouted).lines(AT, set()) == [
        WatchedLine(text="  10.000  shop  GET https://api.test/  no route  0.6 ms", colour="red"),
        PASTE,
    ]


PRESENTED = SimpleNamespace(presented=SimpleNamespace(given="expired", to=lambda host: "it"))


@pytest.mark.parametrize(
    ("entry", "said", "colour"),
    [
        (answered(duration=2.06), "GET https://api.test/  200  2.1 s", "green"),
        (answered(outcome="passthrough"), "/  200 of the real server  0.6 ms", "purple"),
        (answered(fault="reset()", response=None), "/  reset()  0.6 ms", "yellow"),
        (answered(error=KeyError("id"), route=object()), "/  raised KeyError  0.6 ms", "red"),
        (answered(accepted=Accepted(PRESENTED, None)), "/  ACCEPTED expired  0.6 ms", "red"),
        (answered(duration=None, response=None), "/  no answer yet", "green"),
        (http_exchange(outcome="blocked", route="a block"), "/  blocked", "light"),
        (http_exchange(outcome="blocked"), "/  no route", "light"),
        (dns_query(rcode="NXDOMAIN", answer=()), "DNS api.test  NXDOMAIN", "light"),
        (tls(outcome="recorded", reason="rejected", note="said so. More"), "said so", "green"),
        (tls(outcome="recorded", reason="untrusted"), "does not trust the CA", "red"),
        (tls(outcome="recorded", reason="probe"), "probe", "light"),
        (tcp(outcome="routed", kept=bytearray(b"abc")), "open, 3 bytes read", "green"),
        (tcp(outcome="passthrough", sent=3, received=4), "3 bytes out, 4 back of the", "purple"),
        (packet(outcome="recorded"), ", 48 bytes  listed", "light"),
    ],
)
def test_an_answer_in_a_few_words_and_its_colour(entry: Entry, said: str, colour: str) -> None:
    line = only(entry)
    assert said in line.text
    assert line.colour == colour


def test_what_a_policy_refuses_has_its_line_to_paste_as_well() -> None:
    assert watching(http_exchange(outcome="blocked")).lines(AT, set(), last=True)[1:] == [PASTE]


def test_the_attempt_is_cut_in_its_middle_to_the_width() -> None:
    long = answered(path="/" + "a" * 90)
    (line,) = watching(long, width=80).lines(AT, set())
    assert len(line.text) == 80
    assert "aaa...aaa" in line.text
    assert line.text.endswith("  200  0.6 ms")


def test_a_lookup_that_led_to_an_attempt_has_no_line() -> None:
    watched = watching(dns_query(), dns_query(type="AAAA"))
    assert watched.lines(AT, set()) == []
    watched.add([answered()])
    assert [line.text for line in watched.lines(LATER, set())] == [
        "  10.000  shop  GET https://api.test/  200  0.6 ms"
    ]


def test_a_lookup_that_comes_alone_has_one_line_for_all_its_types() -> None:
    watched = watching(dns_query(), dns_query(type="AAAA"))
    assert [line.text for line in watched.lines(LATER, set())] == [
        "  10.000  shop  DNS api.test  198.18.0.1"
    ]
    assert watched.lines(LATER, set(), last=True) == []


def test_a_long_answer_has_a_second_line_when_it_ends() -> None:
    streamed = answered()
    watched = watching(streamed)
    assert len(watched.lines(AT, {id(streamed)})) == 1
    assert watched.lines(AT + 2, {id(streamed)}) == []
    assert [line.text for line in watched.lines(AT + 2.1, set())] == [
        "  12.100  shop  GET https://api.test/  … 200 after 2.1 s"
    ]
    assert watched.lines(AT + 9, set(), last=True) == []


def test_a_short_stream_has_one_line() -> None:
    streamed = answered()
    watched = watching(streamed)
    assert len(watched.lines(AT, {id(streamed)})) == 1
    assert watched.lines(AT + 0.1, set()) == []


def test_an_attempt_without_an_answer_waits_for_it_for_a_moment() -> None:
    waiting = http_exchange(outcome="routed")
    watched = watching(waiting)
    assert watched.lines(AT, {id(waiting)}) == []
    assert "no answer yet" in watched.lines(LATER, {id(waiting)})[0].text


def test_a_line_is_one_line_without_what_moves_a_cursor() -> None:
    (line,) = watching(answered(container="a\n\x1b[2Jb")).lines(AT, set())
    assert "a\\n\\x1b[2Jb" in line.text


def test_a_flood_is_told_of_by_a_number() -> None:
    watched = watching(*[answered() for _ in range(SHOWN_ATTEMPTS + 1)])
    lines = watched.lines(AT, set())
    assert lines[-1].text.strip() == "... the next ones are only counted"
    assert len(lines) == SHOWN_ATTEMPTS + 1
    watched.add([answered()])
    assert watched.lines(AT, set()) == []
    assert [line.text.strip() for line in watched.lines(AT, set(), last=True)] == [
        "... 2 more attempts"
    ]
    watched.add([answered()])  # of the next test
    assert len(watched.lines(AT, set(), last=True)) == 1


def test_a_record_is_taken() -> None:
    about_record = about(outcome="routed", port=9092, address="198.18.0.1", topic="orders")
    record = KafkaRecord(
        **about_record, key=None, value=b"", headers=(), partition=0, offset=0, timestamp=0,
        client_id="",
    )  # fmt: skip
    assert only(record).text.endswith("  taken")
