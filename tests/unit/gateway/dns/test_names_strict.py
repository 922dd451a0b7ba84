"""Names that nobody declared are attempts by dns="strict"; what a resolver's search list makes of a name is none."""

from __future__ import annotations

import pytest

from pytest_egress.base.choices import Policy
from pytest_egress.errors import UnroutedError
from pytest_egress.ledger.verdict import judge
from pytest_egress.traffic.entries import DnsQuery
from tests.support.stage import ADDRESS, Stage


@pytest.fixture
def stage(stage: Stage) -> Stage:
    stage.window.dns = "strict"
    stage.https("api.test", optional=True)
    stage.search = ["a.example", "b.example"]
    return stage


def unrouted(stage: Stage, *names: str, kinds: tuple[str, ...] = ("A", "AAAA")) -> list[str]:
    """The names that were attempts of their own, when these were asked for in order."""
    for name in names:
        for kind in kinds:
            stage.query(name, kind)
    found = [query.host for query in stage.entries(DnsQuery) if query.outcome == "unrouted"]
    return list(dict.fromkeys(found))


def test_a_name_that_nobody_declared_fails_the_test_and_says_what_would_declare_it(
    stage: Stage,
) -> None:
    assert unrouted(stage, "api.test", "apj.test") == ["apj.test"]
    found = judge(stage.window, [])
    assert isinstance(found, UnroutedError)
    assert str(found) == (
        "1 unrouted attempt of target; nothing got out:\n"
        "\n"
        "  DNS apj.test\n"
        '      no route names it, so by dns="strict" it does not exist\n'
        '      nearest route: intercept_https("api.test")\n'
        "          declared at test_it.py:7\n"
        "          name: 'apj.test' is not 'api.test'\n"
        '      to answer it: egress.intercept_https("apj.test")\n'
        '      to expect that it does not exist: egress.dns("apj.test", "NXDOMAIN")'
    )


def test_a_name_is_an_attempt_as_often_as_it_is_looked_up(stage: Stage) -> None:
    unrouted(stage, "one.test", "two.test", "one.test")
    text = str(judge(stage.window, []))
    assert text.startswith("3 unrouted attempts of target")
    assert "  DNS one.test  (2 times)\n" in text


@pytest.mark.parametrize(("policy", "outcome"), [("block", "blocked"), ("passthrough", "blocked")])
def test_another_policy_holds_for_names_too(stage: Stage, policy: Policy, outcome: str) -> None:
    stage.window.policy = policy
    assert stage.query("typo.test").rcode().name == "NXDOMAIN"
    assert [query.outcome for query in stage.entries(DnsQuery)] == [outcome]
    assert judge(stage.window, []) is None


def test_a_block_and_an_answer_of_dns_declare_a_name(stage: Stage) -> None:
    stage.route("block", "ads.test")
    stage.route("dns", "gone.test", "NXDOMAIN")
    assert unrouted(stage, "ads.test", "gone.test") == []


def test_a_block_of_every_dns_server_declares_no_name(stage: Stage) -> None:
    stage.route("block", "*:53")
    assert unrouted(stage, "typo.test") == ["typo.test"]


def test_where_every_name_exists_none_is_an_attempt(stage: Stage) -> None:
    stage.window.dns = "synthetic"
    assert unrouted(stage, "typo.test", "typo.test.corp.test") == []


def test_what_exists_for_no_one_or_for_the_target_alone_is_no_attempt(stage: Stage) -> None:
    assert unrouted(stage, "localhost", "1.2.3", ".") == []


def test_a_service_of_a_declared_name_is_no_name_of_its_own(stage: Stage) -> None:
    services = ("_https._tcp.api.test", "_8443._https.api.test", "_https._tcp.typo.test")
    assert unrouted(stage, *services, kinds=("SRV",)) == ["_https._tcp.typo.test"]


def test_the_name_of_an_address_is_declared_with_it(stage: Stage) -> None:
    stage.tcp(f"{ADDRESS}:5432", optional=True)
    stage.resolve("api.test")
    own, claimed, given, other, ipv6 = (
        "2.0.213.10.in-addr.arpa",
        "9.113.0.203.in-addr.arpa",
        "1.0.18.198.in-addr.arpa",
        "7.2.0.192.in-addr.arpa",
        f"2.{'0.' * 23}3.1.2.0.0.0.d.f.ip6.arpa",
    )
    asked = (own, claimed, given, other, ipv6, "x.in-addr.arpa")
    assert unrouted(stage, *asked, kinds=("PTR",)) == [other, "x.in-addr.arpa"]


class Pasted:
    """What the lines of a verdict call `egress`."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def dns(self, name: str, answer: object = None, **records: str) -> None:
        self.stage.route("dns", name, answer, **records)

    def intercept_https(self, address: str) -> None:
        self.stage.https(address, optional=True)


@pytest.mark.parametrize(
    ("name", "type", "line"),
    [
        ("7.2.0.192.in-addr.arpa", "PTR", 'egress.dns("192.0.2.7", PTR="db.shop.test")'),
        (
            f"7.{'0.' * 23}8.b.d.0.1.0.0.2.ip6.arpa",
            "PTR",
            'egress.dns("2001:db8::7", PTR="db.shop.test")',
        ),
        ("x.in-addr.arpa", "PTR", 'egress.dns("x.in-addr.arpa", PTR="db.shop.test")'),
        (
            "_db._tcp.shop.test",
            "SRV",
            'egress.dns("_db._tcp.shop.test", SRV="0 0 27017 db0.cluster.test")',
        ),
        ("shop.test", "MX", 'egress.dns("shop.test", MX="10 mail.shop.test")'),
        ("shop.test", "TXT", 'egress.dns("shop.test", TXT="v=spf1 -all")'),
        ("shop.test", "HTTPS", 'egress.intercept_https("shop.test")'),
        ("shop.test", "ANY", 'egress.intercept_https("shop.test")'),
    ],
)
@pytest.mark.parametrize("verb", ["answer it", "expect that it does not exist"])
def test_each_line_that_a_verdict_offers_works(
    stage: Stage, name: str, type: str, line: str, verb: str
) -> None:
    assert unrouted(stage, name, kinds=(type,)) == [name]
    offered = str(judge(stage.window, [])).partition(f"to {verb}: ")[2].partition("\n")[0]
    if verb == "answer it":
        assert offered == line
    eval(offered, {"egress": Pasted(stage)})
    stage.next_window().dns = "strict"
    assert unrouted(stage, name, kinds=(type,)) == []
    (query,) = stage.entries(DnsQuery)
    if 'dns("' in offered:
        assert query.answer or query.rcode == "NXDOMAIN"


def test_no_line_is_offered_for_what_no_route_can_be_declared_for(stage: Stage) -> None:
    name = "a\\032b.test"  # with a space, as a zone file has it
    assert unrouted(stage, name) == [name]
    assert "egress." not in str(judge(stage.window, []))


# Search lists.


def test_suffixes_after_a_name_that_is_not_found_are_no_attempts(stage: Stage) -> None:
    asked = ("typo.test", "typo.test.a.example", "typo.test.b.example")
    assert unrouted(stage, *asked) == ["typo.test"]
    assert [(q.host, q.note) for q in stage.entries(DnsQuery)][2:] == [
        (name, "made by a resolver's search list, so no attempt of its own")
        for name in asked[1:]
        for _ in range(2)
    ]


def test_suffixes_before_the_name_itself_are_no_attempts(stage: Stage) -> None:
    assert unrouted(stage, "api.test.a.example", "api.test.b.example", "api.test") == []
    assert unrouted(stage, "db.a.example", "db.b.example", "db") == ["db"]


def test_a_suffix_that_leads_to_a_name_that_exists_ends_the_search(stage: Stage) -> None:
    stage.tcp("db.b.example", optional=True)
    assert unrouted(stage, "db.a.example", "db.b.example") == ["db.a.example"]


@pytest.mark.parametrize("search", [[], ["b.example"], ["example"]])
def test_what_no_list_of_the_target_has_made_is_an_attempt(stage: Stage, search: list[str]) -> None:
    stage.search = search
    asked = ("db", "db.a.example", "db", "api.test.a.example", "api.test")
    assert unrouted(stage, *asked) == ["db", "db.a.example", "api.test.a.example"]


def test_a_longer_name_than_one_that_was_found_is_an_attempt(stage: Stage) -> None:
    assert unrouted(stage, "api.test", "api.test.evil.example") == ["api.test.evil.example"]


def test_a_longer_name_is_an_attempt_where_another_comes_between(stage: Stage) -> None:
    stage.https("other.test", optional=True)
    asked = ("api.test.evil.example", "other.test", "api.test")
    assert unrouted(stage, *asked) == ["api.test.evil.example"]


def test_searches_at_the_same_time_by_the_same_suffixes_are_no_attempts(stage: Stage) -> None:
    stage.https("other.test", optional=True)
    asked = [
        *("api.test.a.example", "other.test.a.example", "other.test.b.example"),
        *("other.test", "api.test.b.example", "api.test"),
    ]
    assert unrouted(stage, *asked) == []


def test_another_suffix_at_the_same_time_is_an_attempt(stage: Stage) -> None:
    stage.https("other.test", optional=True)
    asked = ("api.test.a.example", "other.test.b.example", "other.test", "api.test")
    assert unrouted(stage, *asked) == ["api.test.a.example"]


def test_a_suffix_of_another_containers_name_is_an_attempt(stage: Stage) -> None:
    stage.query("typo.test")
    stage.gateway.flush()
    stage.name = "other"
    assert unrouted(stage, "typo.test.a.example") == ["typo.test", "typo.test.a.example"]


def test_a_name_without_data_of_a_type_is_searched_for_too(stage: Stage) -> None:
    assert unrouted(stage, "api.test", "api.test.a.example", kinds=("MX",)) == []
