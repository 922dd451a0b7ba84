"""Records are parsed where they are declared, and sent as they were."""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.dns.answers import (
    RECORD_EXAMPLES,
    NameAnswer,
    Resolution,
    check_name_answer,
)
from pytest_egress.traffic.dns.records import parse_records
from pytest_egress.traffic.dns.resolver import Answer, Resolver
from tests.support.dns_queries import ANY_QUERIES


def ask(
    resolution: Resolution, type: str, *, over_tcp: bool = False, **options: Any
) -> tuple[Answer, dns.message.Message]:
    """Our answer for `a.test`, and how dnspython reads it."""
    message = dns.message.make_query("a.test", type, **options)
    found = Resolver().answer(message.to_wire(), resolution, over_tcp=over_tcp)
    response = dns.message.from_wire(found.wire)
    assert message.is_response(response)
    return found, response


def with_records(**texts: Any) -> Resolution:
    return Resolution(answer=NameAnswer(is_synthetic=True, records=parse_records(texts)))


@pytest.mark.parametrize("type", RECORD_EXAMPLES)
def test_the_example_of_each_type_is_answered(type: str) -> None:
    found, response = ask(with_records(**{type: RECORD_EXAMPLES[type]}), type)
    assert (found.rcode, found.records, found.addresses) == (
        "NOERROR",
        (RECORD_EXAMPLES[type],),
        (),
    )
    (rrset,) = response.answer
    assert (str(rrset.name), rrset.ttl, len(rrset)) == ("a.test.", 10, 1)


def test_several_records_of_a_type_are_one_set_and_other_types_have_no_data() -> None:
    resolution = with_records(MX=["10 a.test", "20 b.test"], TXT="hello")
    found, response = ask(resolution, "MX")
    assert found.records == ("10 a.test", "20 b.test")
    assert [sorted(map(str, rrset)) for rrset in response.answer] == [["10 a.test.", "20 b.test."]]
    assert ask(resolution, "SRV")[1].answer == []
    assert ask(resolution, "A")[0].addresses == ("198.18.0.1",)


def test_all_is_answered_to_any() -> None:
    found, response = ask(with_records(MX="10 a.test", TXT="hello"), "ANY")
    assert found.records == ("10 a.test", "hello")
    assert found.addresses == ("198.18.0.1", "fd00:198:18::1")
    assert len(response.answer) == 4


@pytest.mark.parametrize(
    ("text", "strings"),
    [
        ("v=spf1 -all", [b"v=spf1 -all"]),
        ("v=DKIM1; k=rsa", [b"v=DKIM1; k=rsa"]),
        ("", [b""]),
        ("é", ["é".encode()]),
        ("x" * 600, [b"x" * 255, b"x" * 255, b"x" * 90]),
        ('"a b" "c"', [b"a b", b"c"]),
    ],
)
def test_a_text_is_the_value_itself_and_in_quotes_that_of_a_zone_file(
    text: str, strings: list[bytes]
) -> None:
    ((record,),) = parse_records({"TXT": text}).values()
    assert list(record.rdata.strings) == strings


@pytest.mark.parametrize(
    ("type", "text", "why"),
    [
        ("SRV", "27017 db0.test", "SRV='27017 db0.test' is no SRV record (*); one is SRV='0 0 27017 *'"),
        ("MX", "mail.test", "MX='mail.test' is no MX record (expecting an integer); one is MX='10 *'"),
        ("MX", "10 a.test\n20 b.test", "*(it has several lines: several records are a list)*"),
        ("MX", "10 192.0.2.7", "MX='10 192.0.2.7' leads to '192.0.2.7', and a MX record leads to a name, as *"),
        ("CNAME", "192.0.2.7", "CNAME='192.0.2.7' leads to '192.0.2.7', and *"),
        ("CNAME", ["a.test", "b.test"], "*: a name has one CNAME record, as CNAME='db.shop.test'"),
        ("TXT", "\ud800", "TXT='\\ud800' is no TXT record (*); one is TXT='v=spf1 -all'"),
        ("TXT", ["x" * 60000, "x" * 6000], "*: these are *, and an answer of DNS has room for 65,023"),
        ("PTR", "", "PTR='' is no PTR record *"),
    ],
)  # fmt: skip
def test_a_bad_text_is_refused_with_a_right_one(type: str, text: Any, why: str) -> None:
    from fnmatch import fnmatchcase

    with pytest.raises(ValueError) as refused:
        parse_records({type: text})
    assert fnmatchcase(str(refused.value), why.replace("[", "[[]")), str(refused.value)


def test_what_is_no_text_is_refused() -> None:
    for value in (1, [1], b"x", {"a": 1}):
        with pytest.raises(TypeError, match="it takes a str, or a list of them, as MX='10 mail"):
            parse_records({"MX": value})


def test_an_empty_list_says_that_there_is_none() -> None:
    records = parse_records({"MX": []})
    said = NameAnswer(is_synthetic=True, records=records)
    assert said.answers("MX")
    assert not said.answers("TXT")
    assert ask(Resolution(answer=said), "MX")[1].answer == []


# CNAMEs


def led(answer: NameAnswer | None, *names: str, **options: Any) -> Resolution:
    """What there is to say where CNAMEs lead to names, and the last of them has an answer."""
    records = [parse_records({"CNAME": name})["CNAME"][0] for name in names]
    return Resolution(answer=answer, cnames=tuple(records), **options)


def test_a_cname_comes_with_the_addresses_of_its_target() -> None:
    given_answer = NameAnswer(addresses=("192.0.2.7", "192.0.2.8"))
    found, response = ask(led(given_answer, "b.test", "C.test"), "A")
    assert found.addresses == ("192.0.2.7", "192.0.2.8")
    assert found.cnames == ("b.test", "c.test")
    assert [str(rrset) for rrset in response.answer[:2]] == [
        "a.test. 10 IN CNAME b.test.",
        "b.test. 10 IN CNAME C.test.",
    ]
    assert {str(rrset.name) for rrset in response.answer[2:]} == {"C.test."}


def test_the_synthetic_addresses_after_a_cname_are_those_of_the_name_that_was_asked_for() -> None:
    resolver = Resolver()
    found, asked = (
        resolver.answer(dns.message.make_query(name, "A").to_wire(), resolution)
        for name, resolution in (("a.test", led(None, "b.test")), ("b.test", Resolution()))
    )
    assert [resolver.name(each.addresses[0]) for each in (found, asked)] == ["a.test", "b.test"]
    assert resolver.alias(found.addresses[0]) is None
    assert ask(led(None, "localhost"), "A")[0].addresses == ("127.0.0.1",)


def test_a_target_that_does_not_exist_is_told_with_the_cname_and_another_error_without() -> None:
    gone, response = ask(led(NameAnswer(rcode="NXDOMAIN"), "b.test"), "A")
    assert (gone.rcode, gone.cnames, len(response.answer)) == ("NXDOMAIN", ("b.test",), 1)
    lame, response = ask(led(NameAnswer(rcode="SERVFAIL"), "b.test"), "A")
    assert (lame.rcode, lame.cnames, len(response.answer)) == ("SERVFAIL", (), 0)


# More than there is room for


@pytest.mark.parametrize(
    ("size", "options", "over_tcp", "fits"),
    [
        (300, {}, False, True),
        (600, {}, False, False),
        (600, {"use_edns": 0, "payload": 1232}, False, True),
        (2000, {"use_edns": 0, "payload": 1232}, False, False),
        (2000, {}, True, True),
        (60000, {}, True, True),
    ],
)
def test_records_that_do_not_fit_are_left_out_and_the_client_told_so(
    size: int, options: dict[str, Any], over_tcp: bool, fits: bool
) -> None:
    found, response = ask(with_records(TXT="x" * size), "TXT", over_tcp=over_tcp, **options)
    assert bool(response.flags & dns.flags.TC) is found.is_truncated is not fits
    assert (len(found.records), len(response.answer)) == ((1, 1) if fits else (0, 0))


def test_what_fits_no_message_is_cut_over_tcp_too() -> None:
    records = parse_records({"TXT": ["x" * 60000], "CAA": ['0 issue "' + "y" * 6000 + '"']})
    found, response = ask(Resolution(answer=NameAnswer(records=records)), "ANY", over_tcp=True)
    assert (found.is_truncated, response.answer) == (True, [])


def test_truncated_is_empty_over_udp_and_whole_over_tcp() -> None:
    resolution = Resolution(is_truncated=True)
    found, response = ask(resolution, "A")
    assert (found.rcode, found.addresses, found.is_truncated) == ("NOERROR", (), True)
    assert (response.answer, bool(response.flags & dns.flags.TC)) == ([], True)
    found, response = ask(resolution, "A", over_tcp=True)
    assert (found.addresses, found.is_truncated) == (("198.18.0.1",), False)
    assert not response.flags & dns.flags.TC


# What answers


@pytest.mark.parametrize(
    ("declared", "types", "shown"),
    [
        ("192.0.2.7", {"A", "AAAA", "ANY"}, "'192.0.2.7'"),
        (["192.0.2.7", "2001:db8::1"], {"A", "AAAA", "ANY"}, "['192.0.2.7', '2001:db8::1']"),
        ([], {"A", "AAAA", "ANY"}, "[]"),
        ("synthetic", set(), "'synthetic'"),
        ("truncated", set(), "'truncated'"),
        ("SERVFAIL", {"A", "AAAA", "ANY", "MX"}, "'SERVFAIL'"),
        ("silence", {"A", "AAAA", "ANY", "MX"}, "'silence'"),
    ],
)
def test_an_answer_says_which_types_it_answers_and_is_shown_as_declared(
    declared: object, types: set[str], shown: str
) -> None:
    said = check_name_answer(declared)
    assert {type for type in ("A", "AAAA", "ANY", "MX") if said.answers(type)} == types
    assert repr(said) == shown
    assert said.of_type("MX") == ()


# Garbage


PARTS = ["0", "10", "65536", "a.test", ".", "\\# 1 00", '"', ";", "alpn=h2", "key9="]
TEXTS = st.text() | st.lists(st.sampled_from(PARTS)).map(" ".join)


@given(st.sampled_from(sorted(RECORD_EXAMPLES)), TEXTS | st.lists(TEXTS, max_size=3))
def test_any_text_is_records_that_can_be_sent_or_is_refused(type: str, text: Any) -> None:
    try:
        resolution = with_records(**{type: text})
    except ValueError:
        return
    found, response = ask(resolution, type, over_tcp=True)
    assert not found.is_truncated
    assert sum(map(len, response.answer)) == len({record for record in resolved(resolution, type)})


def resolved(resolution: Resolution, type: str) -> list[object]:
    """The records of a type, as dnspython has them."""
    assert resolution.answer is not None
    return [record.rdata for record in resolution.answer.of_type(type)]


RICH = led(
    NameAnswer(
        addresses=("192.0.2.7", "2001:db8::7"),
        records=parse_records({**RECORD_EXAMPLES, "TXT": "x" * 3000} | {"CNAME": []}),
    ),
    "b.test",
)


@given(ANY_QUERIES, st.booleans())
def test_any_bytes_are_answered_or_dropped_where_a_name_has_records(
    wire: bytes, over_tcp: bool
) -> None:
    found = Resolver().answer(wire, RICH, over_tcp=over_tcp)
    if found.wire:
        assert found.wire[:2] == wire[:2]
        response = dns.message.from_wire(found.wire)
        assert response.flags & dns.flags.QR
        assert dns.rcode.to_text(response.rcode()) == found.rcode
        assert bool(response.flags & dns.flags.TC) is found.is_truncated
