"""What `egress.dns` takes, and what it says of anything else."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest

from pytest_egress.errors import AddressError
from pytest_egress.routes.answers import forward, sequence
from pytest_egress.routes.declarations import declaring
from pytest_egress.routes.faults import (
    blackhole,
    delayed,
    disconnect,
    raw,
    reset,
    silence,
    throttled,
    truncated,
)
from pytest_egress.routes.kinds import DNS
from pytest_egress.routes.names import check_names
from pytest_egress.routes.sequences import AnswerSequence
from pytest_egress.traffic.dns.answers import NameAnswer
from tests.support.attempts import route_of

declared = declaring(DNS)


def refused(kind: type[Exception], *arguments: Any, **records: Any) -> str:
    with pytest.raises(kind) as error:
        declared(*arguments, **records)
    return str(error.value)


def test_an_answer_may_be_one_after_the_other_and_late() -> None:
    given = check_names(sequence("SERVFAIL", delayed(["192.0.2.7"], 2), delayed(delayed([], 1), 2)))
    assert isinstance(given, AnswerSequence)
    assert [str(each) for each in given.answers] == [
        "'SERVFAIL'",
        "delayed(['192.0.2.7'], 2)",
        "delayed(delayed([], 1), 2)",
    ]


@pytest.mark.parametrize(
    "fault",
    [
        reset(), disconnect(), silence(), raw(b"x"), blackhole(), throttled("192.0.2.7", 1),
        truncated("192.0.2.7", 1), delayed(throttled("192.0.2.7", 1), 1), forward("https://a.test"), 503,
    ],
    ids=str,
)  # fmt: skip
def test_other_answers_are_refused_with_what_it_takes(fault: Any) -> None:
    for answer in (fault, sequence("SERVFAIL", fault)):
        text = refused(TypeError, "a.test", answer)
        assert "is no answer of DNS" in text
        assert text.endswith(
            "it takes an IP address, a list of them ([] is no address), 'NXDOMAIN', 'SERVFAIL', 'REFUSED', "
            "'silence' (no answer at all), 'truncated' (the whole over TCP alone), "
            "'synthetic' (what the name has without the route), delayed(answer, seconds), or sequence(...) of these"
        )


def test_the_faults_of_connections_that_dns_has_a_word_for_are_told_it() -> None:
    assert "silence() is no answer of DNS; DNS has 'silence': it" in refused(
        TypeError, "a.test", silence()
    )
    assert "; DNS has 'truncated': it" in refused(TypeError, "a.test", truncated("192.0.2.7", 1))
    assert "'servfail' is no answer of DNS: it" in refused(ValueError, "a.test", "servfail")


def test_what_sends_nothing_cannot_be_late_and_a_sequence_has_no_other_in_it() -> None:
    text = "delayed('silence', 1): 'silence' sends nothing that could be late; leave delayed() out"
    assert refused(TypeError, "a.test", delayed("silence", 1)) == text
    nested = AnswerSequence((AnswerSequence(("SERVFAIL",)),))
    assert "write its answers in place" in refused(TypeError, "a.test", nested)


def test_records_make_the_answer_what_the_name_has_without_them() -> None:
    given = declared("a.test", MX="10 mail.test").answer
    assert isinstance(given, NameAnswer)
    assert (given.is_synthetic, [*given.records]) == (True, ["MX"])


def test_an_address_that_is_given_later_is_refused_beside_a_cname_too() -> None:
    route = route_of(declared("a.test", CNAME="b.test"))
    with pytest.raises(ValueError, match=r"^CNAME='b\.test' beside an address: "):
        route.respond(sequence("SERVFAIL", "192.0.2.7"))
    route.respond(sequence("SERVFAIL", "synthetic"))


def test_each_answer_of_a_route_has_its_records_and_another_keeps_them() -> None:
    declaration = declared("a.test", sequence("SERVFAIL", delayed("192.0.2.7", 1)), TXT="hello")
    route = route_of(declaration)
    route.respond(["192.0.2.8"])
    answer = route.turns.answer()[0]
    assert (answer.addresses, [*answer.records]) == (("192.0.2.8",), ["TXT"])
    assert route.respond("NXDOMAIN") is route
    assert route.turns.answer()[0].rcode == "NXDOMAIN"


@pytest.mark.parametrize(
    ("arguments", "records", "why"),
    [
        (["a.test"], {}, "dns('a.test') has no answer: it takes *; or records, as MX='10 mail.shop.test'"),
        (["a.test"], {"srv": "x"}, "dns() does not take srv=; it takes SRV, TXT, MX, CNAME, *, SOA, optional"),
        (["a.test", "NXDOMAIN"], {"MX": "10 a.test"}, "dns('a.test', 'NXDOMAIN', MX=...): by 'NXDOMAIN' *"),
        (["a.test"], {"MX": "a.test"}, "MX='a.test' is no MX record (*); one is MX='10 mail.shop.test'"),
        (["a.test", "192.0.2.7"], {"CNAME": "b.test"}, "CNAME='b.test' beside an address: * egress.dns('b.test', ...)"),
        (["a.test", sequence(delayed("192.0.2.7", 1))], {"CNAME": "b.test"}, "CNAME='b.test' beside an address: *"),
        (["a.test"], {"CNAME": "b.test", "TXT": "x"}, "CNAME='b.test' beside TXT=: a name with a CNAME *"),
        (["a.test"], {"CNAME": "A.test."}, "CNAME='A.test.': 'a.test' leads to itself"),
        (["192.0.2.7"], {"MX": "10 a.test"}, "'192.0.2.7': DNS is *: egress.dns('192.0.2.7', PTR='db.shop.test')"),
        (["192.0.2.0/24"], {"PTR": "a.test"}, "'192.0.2.0/24': DNS is asked for names, and this is no name"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_value(
    arguments: list[Any], records: dict[str, Any], why: str
) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        declared(*arguments, **records)
    assert fnmatchcase(str(error.value), why), str(error.value)


def test_a_cname_may_be_late_and_fail_first() -> None:
    declared("a.test", sequence("SERVFAIL", delayed("synthetic", 1)), CNAME="b.test")
    declared("*.test", CNAME="a.test")
    declared("a.test", CNAME=[], TXT="x")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.7", "7.2.0.192.in-addr.arpa"),
        ("[2001:db8::7]", "7" + ".0" * 23 + ".8.b.d.0.1.0.0.2.ip6.arpa"),
    ],
)
def test_an_address_has_a_name_by_its_reverse_name(address: str, name: str) -> None:
    route = route_of(declared(address, PTR="db.test"))
    assert route.names(name)
    assert route.address == address
    with pytest.raises(AddressError, match="names have no port"):
        declared("a.test:53", "192.0.2.7")
