"""dnspython is the client; then the table of names, TCP framing, and garbage."""

from __future__ import annotations

import ipaddress
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_egress.traffic.dns.answers import NameAnswer, Resolution
from pytest_egress.traffic.dns.resolver import (
    IPV4_NETWORK,
    IPV6_NETWORK,
    MAX_NAMES,
    TTL_SECONDS,
    Answer,
    Resolver,
    SyntheticNames,
    tcp_frame,
    tcp_frames,
    why_no_query,
)
from tests.support.dns_queries import ANY_QUERIES


def query(
    name: str | dns.name.Name, kind: str = "A", **options: object
) -> dns.message.QueryMessage:
    return dns.message.make_query(name, kind, **options)  # type: ignore[arg-type]


def ask(
    message: dns.message.Message, resolver: Resolver | None = None, *, ipv6: bool = True
) -> tuple[Answer, dns.message.Message]:
    """Our answer, and how dnspython reads it, which takes it for the answer to its query."""
    given_answer = (resolver or Resolver(ipv6=ipv6)).answer(message.to_wire())
    response = dns.message.from_wire(given_answer.wire)
    assert message.is_response(response)
    return given_answer, response


def records(response: dns.message.Message) -> list[str]:
    return [str(rrset) for rrset in response.answer]


def header(*, flags: int = 0, questions: int = 1) -> bytes:
    return b"\x12\x34" + flags.to_bytes(2, "big") + questions.to_bytes(2, "big") + bytes(6)


QUESTION = b"\x03api\x07example\x03com\x00\x00\x01\x00\x01"


# What is answered


@pytest.mark.parametrize(
    ("kind", "addresses"),
    [
        ("A", ("198.18.0.1",)),
        ("AAAA", ("fd00:198:18::1",)),
        ("ANY", ("198.18.0.1", "fd00:198:18::1")),
    ],
)
def test_every_name_has_an_address_of_each_family(kind: str, addresses: tuple[str, ...]) -> None:
    given_answer, response = ask(query("api.example.com", kind))
    assert given_answer == Answer(
        wire=given_answer.wire,
        question="api.example.com",
        type=kind,
        rcode="NOERROR",
        addresses=addresses,
    )
    assert records(response) == [
        f"api.example.com. {TTL_SECONDS} IN {'AAAA' if ':' in address else 'A'} {address}"
        for address in addresses
    ]


@pytest.mark.parametrize("kind", ["HTTPS", "SVCB", "MX", "TXT", "SRV", "PTR", "NS", "TYPE65000"])
def test_other_types_are_empty(kind: str) -> None:
    given_answer, response = ask(query("api.example.com", kind))
    assert (given_answer.type, given_answer.rcode, given_answer.addresses) == (kind, "NOERROR", ())
    assert records(response) == []


def test_a_client_without_ipv6_gets_no_aaaa() -> None:
    assert ask(query("api.example.com", "AAAA"), ipv6=False)[0].addresses == ()
    assert ask(query("api.example.com", "ANY"), ipv6=False)[0].addresses == ("198.18.0.1",)


@pytest.mark.parametrize("name", ["localhost", "db.LOCALHOST"])
def test_localhost_is_loopback_and_takes_no_address(name: str) -> None:
    resolver = Resolver()
    assert ask(query(name), resolver)[0].addresses == ("127.0.0.1",)
    assert ask(query(name, "AAAA"), resolver)[0].addresses == ("::1",)
    assert ask(query("next.test"), resolver)[0].addresses == ("198.18.0.1",)


@pytest.mark.parametrize("name", ["192.0.2.7", "1.2.3", "api.7"])
def test_a_name_that_ends_in_a_number_does_not_exist(name: str) -> None:
    given_answer, response = ask(query(name))
    assert (given_answer.question, given_answer.rcode) == (name, "NXDOMAIN")
    assert (response.rcode(), records(response)) == (dns.rcode.NXDOMAIN, [])


def test_the_root_has_no_address() -> None:
    given_answer, _ = ask(query("."))
    assert (given_answer.question, given_answer.rcode, given_answer.addresses) == (
        ".",
        "NOERROR",
        (),
    )


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("API.Example.COM", "api.example.com"),
        ("_sip._tcp.example.com", "_sip._tcp.example.com"),
        ("münchen.test", "xn--mnchen-3ya.test"),
        (dns.name.Name([b"A b", b"\xff*", b"test", b""]), r"a\032b.\255*.test"),
    ],
)
def test_a_question_is_told_in_normal_form(name: str | dns.name.Name, question: str) -> None:
    resolver = Resolver()
    given_answer, _ = ask(query(name), resolver)
    assert given_answer.question == question
    assert resolver.name(given_answer.addresses[0]) == question


def test_the_case_of_a_name_is_echoed_and_makes_no_difference() -> None:
    resolver = Resolver()
    mixed, response = ask(query("aPi.ExamPLE.com"), resolver)
    assert response.question[0].name.to_text() == "aPi.ExamPLE.com."
    assert response.answer[0].name.to_text() == "aPi.ExamPLE.com."
    assert mixed.addresses == ask(query("api.example.com"), resolver)[0].addresses


def test_an_answer_says_that_recursion_is_available() -> None:
    _, response = ask(query("api.example.com", "HTTPS"))
    assert response.flags == dns.flags.QR | dns.flags.RD | dns.flags.RA


# Classes, EDNS and size


def test_any_class_is_answered_and_chaos_is_refused() -> None:
    anything, _ = ask(query("api.example.com", rdclass="ANY"))
    assert anything.addresses == ("198.18.0.1",)
    chaos, response = ask(query("version.bind", "TXT", rdclass="CH"))
    assert (chaos.rcode, response.rcode()) == ("REFUSED", dns.rcode.REFUSED)


def test_edns_is_answered_by_edns_and_only_by_request() -> None:
    _, plain = ask(query("api.example.com", use_edns=False))
    _, extended = ask(query("api.example.com", use_edns=0, payload=4096))
    assert (plain.edns, extended.edns, extended.payload) == (-1, 0, 1232)
    assert not extended.ednsflags & dns.flags.DO


def test_the_dnssec_bit_is_copied() -> None:
    _, response = ask(query("api.example.com", want_dnssec=True))
    assert response.ednsflags & dns.flags.DO


def test_a_newer_version_of_edns_is_told_ours() -> None:
    given_answer, response = ask(query("api.example.com", use_edns=1))
    assert (given_answer.rcode, given_answer.addresses) == ("BADVERS", ())
    assert (response.rcode(), response.edns) == (dns.rcode.BADVERS, 0)


def test_the_longest_answer_fits_a_udp_client_without_edns() -> None:
    longest = dns.name.Name([b"x" * 63, b"y" * 63, b"z" * 63, b"w" * 61, b""])
    options = [dns.edns.GenericOption(dns.edns.OptionType.make(65001), bytes(300))]
    given_answer, response = ask(query(longest, "ANY", use_edns=0, options=options))
    assert len(given_answer.addresses) == 2
    assert len(given_answer.wire) <= 512
    assert not response.flags & dns.flags.TC


def padded(size: int) -> bytes:
    """A query of so many bytes."""
    padding = dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(size - 48))
    wire = query("api.example.com", use_edns=0, payload=8192, options=[padding]).to_wire()
    assert len(wire) == size
    return wire


def test_what_is_too_long_is_no_query_and_is_not_read() -> None:
    longest, longer = (Resolver().answer(padded(size)) for size in (4096, 4097))
    assert (longest.question, longest.no_query) == ("api.example.com", "")
    assert (longer.rcode, longer.no_query) == (
        "FORMERR",
        "it is no DNS query: it has 4097 bytes",
    )


def test_the_answer_to_a_long_query_is_not_kept() -> None:
    resolver = Resolver()
    for size in (512, 513):
        assert resolver.answer(padded(size)).rcode == "NOERROR"
    assert [len(known) for known in resolver._known] == [510]  # without its ID


# What is refused or dropped


RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\xcb\x00\x71\x07"
NOT_ONE = "it does not ask one question alone"


def counted(*counts: int) -> bytes:
    """A header with these numbers of records, behind its one question."""
    return header()[:6] + b"".join(number.to_bytes(2, "big") for number in counts)


@pytest.mark.parametrize(
    ("wire", "rcode", "why"),
    [
        (header(flags=0x0100) + b"\x03ap", "FORMERR", "it cannot be read"),
        (header(flags=0x0100), "FORMERR", "it cannot be read"),
        (header(questions=0), "FORMERR", NOT_ONE),
        (header(questions=2) + QUESTION + QUESTION, "FORMERR", NOT_ONE),
        (header() + QUESTION + b"trailing", "FORMERR", "it cannot be read"),
        (header() + b"\xc0\x0c\x00\x01\x00\x01", "FORMERR", "it cannot be read"),
        (counted(1, 0, 0) + QUESTION + RECORD, "FORMERR", NOT_ONE),
        (counted(0, 1, 0) + QUESTION + RECORD, "FORMERR", "it has records of its own"),
        (counted(0, 0, 1) + QUESTION + RECORD, "FORMERR", "it has records of its own"),
        (header(flags=0x2000) + QUESTION, "NOTIMP", "its opcode is NOTIFY"),
        (header(flags=0x2800) + QUESTION, "NOTIMP", "its opcode is UPDATE"),
        (header(flags=0x7900), "NOTIMP", "its opcode is 15"),
    ],
)
def test_what_is_no_query_is_refused_by_its_header(wire: bytes, rcode: str, why: str) -> None:
    given_answer = Resolver().answer(wire)
    sent = int.from_bytes(wire[2:4], "big")
    flags = 0x8000 | (sent & 0x7900) | dns.rcode.from_text(rcode)
    assert given_answer == Answer(
        wire=wire[:2] + flags.to_bytes(2, "big") + bytes(8),
        question="",
        type="",
        rcode=rcode,
        addresses=(),
        no_query=f"it is no DNS query: {why}",
    )
    assert why_no_query(wire) == given_answer.no_query


@pytest.mark.parametrize("wire", [b"", b"\x12\x34", header()[:11], header(flags=0x8000) + QUESTION])
def test_responses_and_less_than_a_header_get_no_answer(wire: bytes) -> None:
    given_answer = Resolver().answer(wire)
    assert (given_answer.wire, given_answer.rcode) == (b"", "")
    assert given_answer.no_query.startswith("it is no DNS query: it is ")


def test_a_query_that_is_signed_is_one_and_what_follows_its_signature_is_not() -> None:
    message = dns.message.make_query("api.test", "A", use_edns=0)
    message.use_tsig({dns.name.from_text("key.test"): b"secret"})
    wire = message.to_wire()
    assert Resolver().answer(wire).addresses == ("198.18.0.1",)
    assert why_no_query(wire + b"\0") == "it is no DNS query: it cannot be read"


def test_an_incremental_transfer_is_a_query_with_the_record_that_the_client_has() -> None:
    message = query("example.com", "IXFR")
    soa = dns.rrset.from_text("example.com.", 0, "IN", "SOA", "ns. root. 1 2 3 4 5")
    message.authority.append(soa)
    assert Resolver().answer(message.to_wire()).no_query == ""


# More than there is room for


def many(number: int) -> Resolution:
    """Every name has so many addresses of each family."""
    ipv4 = [f"192.0.2.{n}" for n in range(256)]
    ipv6 = [f"2001:db8::{n:x}" for n in range(number)]
    return Resolution(answer=NameAnswer(addresses=(*(ipv4 * 20)[:number], *ipv6)))


@pytest.mark.parametrize(
    ("number", "options", "over_tcp", "given_number"),
    [
        (29, {}, False, 29),  # 12 + 17 + 29 * 16 = 493 of 512 bytes
        (31, {}, False, 30),
        (31, {"use_edns": 0, "payload": 1232}, False, 31),
        (100, {"use_edns": 0, "payload": 1232}, False, 74),
        (100, {"use_edns": 0, "payload": 4096}, False, 100),
        (100, {"use_edns": 0, "payload": 1}, False, 29),  # RFC 6891, section 6.2.3: as 512
        (100, {}, True, 100),
        (4000, {}, True, 4000),
        (5000, {}, True, 4094),
        (5000, {"use_edns": 0, "payload": 65535}, False, 4091),
    ],
)
def test_what_does_not_fit_is_left_out_and_the_client_told_so(
    number: int, options: dict[str, Any], over_tcp: bool, given_number: int
) -> None:
    message = query("api.test", **options)
    found = Resolver().answer(message.to_wire(), many(number), over_tcp=over_tcp)
    response = dns.message.from_wire(found.wire, one_rr_per_rrset=True)
    assert message.is_response(response)
    assert len(response.answer) == len(found.addresses) == given_number
    assert bool(response.flags & dns.flags.TC) is (given_number < number)
    room = 65535 if over_tcp else max(512, int(options.get("payload", 512)))
    assert len(found.wire) <= room


# The table of names


def test_a_name_keeps_its_addresses_and_they_tell_it() -> None:
    names = SyntheticNames()
    first, second = names.addresses("a.test"), names.addresses("b.test")
    assert (first, second) == (("198.18.0.1", "fd00:198:18::1"), ("198.18.0.2", "fd00:198:18::2"))
    assert names.addresses("a.test") == first
    assert [names.name(address) for address in first + second] == [
        "a.test",
        "a.test",
        "b.test",
        "b.test",
    ]


def test_an_address_without_a_name_has_none() -> None:
    names = SyntheticNames()
    assert [names.name(address) for address in ("198.18.0.1", "192.0.2.7", "x")] == [None] * 3


def test_a_full_table_gives_the_addresses_of_the_name_unused_for_longest() -> None:
    names = SyntheticNames()
    given_addresses = [names.addresses(f"{number}.test") for number in range(MAX_NAMES)]
    assert len({address for both in given_addresses for address in both}) == 2 * MAX_NAMES
    names.addresses("0.test")
    names.name(given_addresses[1][1])
    assert names.addresses("one-more.test") == given_addresses[2]
    assert [names.name(given_addresses[number][0]) for number in range(4)] == [
        "0.test",
        "1.test",
        "one-more.test",
        "3.test",
    ]


def test_addresses_are_in_their_networks_and_end_in_neither_0_nor_255() -> None:
    names = SyntheticNames()
    for number in range(MAX_NAMES):
        ipv4, ipv6 = map(ipaddress.ip_address, names.addresses(f"{number}.test"))
        assert ipv4 in IPV4_NETWORK
        assert ipv6 in IPV6_NETWORK
        assert int(ipv4) % 256 not in (0, 255)
        assert int(ipv4) - int(IPV4_NETWORK[0]) == int(ipv6) - int(IPV6_NETWORK[0])


# TCP


def test_tcp_messages_are_told_apart_wherever_the_stream_is_cut() -> None:
    stream = tcp_frame(b"one") + tcp_frame(b"") + tcp_frame(b"three")
    for cut in range(len(stream) + 1):
        early, rest = tcp_frames(stream[:cut])
        late, nothing = tcp_frames(rest + stream[cut:])
        assert (early + late, nothing) == ((b"one", b"", b"three"), b"")


@given(st.lists(st.binary(max_size=300)), st.binary(max_size=300))
def test_tcp_framing_is_undone(messages: list[bytes], beginning: bytes) -> None:
    cut_short = (len(beginning) + 1).to_bytes(2, "big") + beginning
    stream = b"".join(map(tcp_frame, messages)) + cut_short
    assert tcp_frames(stream) == (tuple(messages), cut_short)


# Garbage


@given(ANY_QUERIES)
@example(header() + b"\x00\x00\x29\x00\x01")
@example(header() + b"\x00\x00\xfa\x00\xff")
def test_any_bytes_are_answered_or_dropped(wire: bytes) -> None:
    given_answer = Resolver().answer(wire)
    if given_answer.wire:
        assert given_answer.wire[:2] == wire[:2]
        response = dns.message.from_wire(given_answer.wire)
        assert response.flags & dns.flags.QR
        assert dns.rcode.to_text(response.rcode()) == given_answer.rcode


def test_the_same_question_gets_the_same_bytes_with_its_own_id() -> None:
    resolver = Resolver()
    for kind in ("A", "AAAA"):
        first, second = (dns.message.make_query("api.test", kind) for _ in range(2))
        for query in (first, second):
            found = resolver.answer(query.to_wire())
            assert found == Resolver().answer(query.to_wire())


def test_a_kept_answer_ends_with_its_names_addresses() -> None:
    resolver, query = Resolver(), dns.message.make_query("first.test", "A").to_wire()
    before = resolver.answer(query)
    for number in range(MAX_NAMES):
        resolver.names.addresses(f"{number}.test")
    after = resolver.answer(query)
    assert resolver.names.name(after.addresses[0]) == "first.test"
    assert before.addresses != after.addresses


@pytest.mark.parametrize("name", ["localhost", "192.0.2.1"])
def test_what_has_no_synthetic_address_is_answered_anew(name: str) -> None:
    resolver, query = Resolver(), dns.message.make_query(name, "A").to_wire()
    assert resolver.answer(query) == resolver.answer(query) == Resolver().answer(query)
