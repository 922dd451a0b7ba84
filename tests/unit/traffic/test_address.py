"""Every form and every refusal as a row, then properties against independent oracles."""

from __future__ import annotations

import ast
import dataclasses
import ipaddress
import itertools
import pickle
import re
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_egress.errors import AddressError
from pytest_egress.traffic.address import FORMS, Address, normalise_host, parse_address
from tests.support.project import ROOT

PAGE = (ROOT / "docs" / "addresses.md").read_text()

HITS_AND_MISSES = {
    "api.example.com": (
        [("api.example.com", 443)],
        [("api.example.com", 80), ("example.com", 443), ("an.api.example.com", 443)],
    ),
    "*.example.com": (
        [("api.example.com", 443), ("a.b.example.com", 443)],
        [("example.com", 443), ("api.example.com.test", 443), ("api.example.com", 80)],
    ),
    "*example.com": (
        [("example.com", 443), ("api.example.com", 443), ("myexample.com", 443)],
        [("example.com.test", 443)],
    ),
    "192.0.2.7": ([("192.0.2.7", 443)], [("192.0.2.8", 443), ("192.0.2.7", 80)]),
    "2001:db8::7": ([("2001:db8::7", 443)], [("2001:db8::8", 443)]),
    "192.0.2.0/24": (
        [("192.0.2.0", 443), ("192.0.2.255", 443)],
        [("192.0.3.0", 443), ("2001:db8::7", 443), ("api.example.com", 443), ("a\\ b.7", 443)],
    ),
    "2001:db8::/32": (
        [("2001:db8::", 443), ("2001:db8:ffff::1", 443)],
        [("2001:db9::", 443), ("192.0.2.7", 443), ("api.example.com", 443)],
    ),
    "*": ([("api.example.com", 443), ("192.0.2.7", 443), ("2001:db8::7", 443)], [("x.test", 80)]),
    "api.example.com:8443": ([("api.example.com", 8443)], [("api.example.com", 443)]),
    "[2001:db8::7]:8443": ([("2001:db8::7", 8443)], [("2001:db8::7", 443)]),
    "[2001:db8::/32]:8443": ([("2001:db8::7", 8443)], [("2001:db8::7", 443)]),
    "api.example.com:*": ([("api.example.com", 1), ("api.example.com", 65535)], [("x.test", 1)]),
}

OWN = "stays in the container and is never captured; have the container connect to a name, as 'service.test'"
LOOPBACK = f"it is loopback, which {OWN}"
LOCALHOST = f"it is loopback (RFC 6761, section 6.3), which {OWN}"
UNSPECIFIED = f"it is the unspecified address, which connects to loopback and {OWN}"
NO_REGEX = "; a * is any run of characters, and nothing else is special"
NO_NETWORK = "a glob matches names and never addresses; write a network"
COLONS = (
    "it has colons and is no IPv6 address; a port comes after brackets, as in '[2001:db8::7]:443'"
)
BRACKETS = "brackets hold an IPv6 address or network, and a port follows them"
LONG = "it is longer than the 253 characters of a name"

REFUSALS = [
    (None, "it is of type NoneType, and an address is a str"),
    (b"api.example.com", "it is of type bytes, and an address is a str"),
    (("api.example.com", 443), "it is of type tuple, and an address is a str"),
    ("", "it is empty"),
    (" api.example.com", "it contains ' ', white space or a control character"),
    ("api.example.com\n", r"it contains '\n', white space or a control character"),
    ("api\x00.example.com", r"it contains '\x00', white space or a control character"),
    ("api\x85.example.com", r"it contains '\x85', white space or a control character"),
    ("https://api.example.com", "it is a URL; write 'api.example.com'"),
    ("http://bob:x@[2001:db8::7]:80/v1?a#b", "it is a URL; write '[2001:db8::7]:80'"),
    ("//api.example.com/v1", "it is a URL; write 'api.example.com'"),
    ("http://localhost:8000", "it is a URL"),
    ("https://", "it is a URL"),
    ("api.example.com/v1/charges", "it has a path, '/v1/charges'; write 'api.example.com'"),
    ("api.example.com?a=/b", "it has a query, '?a=/b'; write 'api.example.com'"),
    ("api.example.com#top", "it has a fragment, '#top'; write 'api.example.com'"),
    ("/v1", "it has a path, '/v1'"),
    ("bob@api.example.com/v1", "it names a user; write 'api.example.com'"),
    ("bob@localhost", "it names a user"),
    ("^api.example.com$", f"it contains '^', which is in no name{NO_REGEX}"),
    (r"api\.example\.com", f"it contains '\\\\', which is in no name{NO_REGEX}"),
    ("(a|b).example.com", f"it contains '(', which is in no name{NO_REGEX}"),
    ("api.example.com,b.test", "it contains ',', which is in no name"),
    ("*.example.com$", f"it contains '$', which is in no name{NO_REGEX}"),
    ("[a-z].example.com", BRACKETS),
    ("[192.0.2.7]:80", BRACKETS),
    ("[2001:db8::7", BRACKETS),
    ("[2001:db8::7]80", BRACKETS),
    ("api.example.com:", "its port, '', is neither a number from 1 to 65535 nor *"),
    ("api.example.com:0", "its port, '0', is neither a number from 1 to 65535 nor *"),
    ("api.example.com:99999", "its port, '99999', is neither a number from 1 to 65535 nor *"),
    ("api.example.com:0443", "its port, '0443', is neither a number from 1 to 65535 nor *"),
    ("api.example.com:https", "its port, 'https', is neither a number from 1 to 65535 nor *"),
    ("api.example.com:-1", "its port, '-1', is neither a number from 1 to 65535 nor *"),
    ("[2001:db8::7]:", "its port, '', is neither a number from 1 to 65535 nor *"),
    (":443", "it has no host; for any host write '*:443'"),
    ("a:b:c", COLONS),
    ("2001:db8::*", COLONS),
    ("2001:db8::/32:443", "a port comes after brackets, as in '[2001:db8::/32]:443'"),
    ("fe80::1%eth0", "an IPv6 zone means nothing outside of its own machine"),
    ("10.0.0.0/99", "its prefix length, '99', is not a number from 0 to 32"),
    ("10.0.0.0/255.0.0.0", "its prefix length, '255.0.0.0', is not a number from 0 to 32"),
    ("10.0.0.0/", "its prefix length, '', is not a number from 0 to 32"),
    ("2001:db8::/129", "its prefix length, '129', is not a number from 0 to 128"),
    ("10.0.0.1/8", "it has bits set behind its prefix; write '10.0.0.0/8'"),
    ("[2001:db8::1/32]:443", "it has bits set behind its prefix; write '2001:db8::/32'"),
    ("10.0/8", "'10.0' ends in a number and is no IPv4 address"),
    ("10.0.0.300", "'10.0.0.300' ends in a number and is no IPv4 address"),
    ("010.0.0.1", "'010.0.0.1' ends in a number and is no IPv4 address"),
    ("0x7f.1", "'0x7f.1' ends in a number and is no IPv4 address"),
    ("0x7f", "'0x7f' ends in a number and is no IPv4 address"),
    ("10.*", f"{NO_NETWORK}: '10.0.0.0/8'"),
    ("192.0.2.*:443", f"{NO_NETWORK}: '192.0.2.0/24'"),
    ("172.16.*.*", f"{NO_NETWORK}: '172.16.0.0/16'"),
    ("*.2.7", NO_NETWORK),
    ("999.*", NO_NETWORK),
    ("1.2.3.4.*", NO_NETWORK),
    ("api*.7", "it can never match: no name ends in a number"),
    ("localhost", LOCALHOST),
    ("LocalHost.:8000", LOCALHOST),
    ("db.localhost", LOCALHOST),
    ("*.localhost", LOCALHOST),
    ("127.0.0.1:8000", LOOPBACK),
    ("127.0.0.0/8", LOOPBACK),
    ("127.1.0.0/16", LOOPBACK),
    ("[::1]:8000", LOOPBACK),
    ("::ffff:127.0.0.1", LOOPBACK),
    ("::ffff:127.0.0.0/104", LOOPBACK),
    ("\uff11\uff12\uff17.0.0.1", LOOPBACK),
    ("0.0.0.0", UNSPECIFIED),
    ("[::]:80", UNSPECIFIED),
    ("0.0.0.0/32", UNSPECIFIED),
    (".example.com", "it has an empty label: a dot first, or two in a row"),
    ("api..example.com", "it has an empty label: a dot first, or two in a row"),
    (".", "it has an empty label: a dot first, or two in a row"),
    ("*..example.com", "it has an empty label: a dot first, or two in a row"),
    (f"{'x' * 64}.test", f"its label '{'x' * 64}' is longer than 63 characters"),
    (f"*{'x' * 64}", f"its label '*{'x' * 64}' is longer than 63 characters"),
    ("x." * 126 + "xx", LONG),
    ("x." * 127 + "x", LONG),
    ("mün*.example", "a label with * must be ASCII, and 'mün*' is not"),
    (
        "☃.example",
        "its label '☃' is no internationalised name: "
        "Codepoint U+2603 at position 1 of '☃' not allowed",
    ),
]

NORMAL_FORMS = [
    ("API.Example.COM.", "api.example.com:443"),
    ("my_db", "my_db:443"),
    ("_dmarc.münchen.test", "_dmarc.xn--mnchen-3ya.test:443"),
    ("*.MÜNCHEN。test:80", "*.xn--mnchen-3ya.test:80"),
    ("\uff21\uff30\uff29.test", "api.test:443"),
    ("faß.test", "xn--fa-hia.test:443"),
    ("xn--MNCHEN-3ya.test", "xn--mnchen-3ya.test:443"),
    ("a**b***", "a*b*:443"),
    ("***:*", "*:*"),
    ("1*", "1*:443"),
    ("10*.test", "10*.test:443"),
    ("local*", "local*:443"),
    ("::ffff:192.0.2.7", "192.0.2.7:443"),
    ("[::FFFF:192.0.2.0/120]:80", "192.0.2.0/24:80"),
    ("2001:DB8:0:0::0:7", "[2001:db8::7]:443"),
    ("[2001:db8::7]", "[2001:db8::7]:443"),
    ("2001:db8::7:443", "[2001:db8::7:443]:443"),
    ("0.0.0.0/0:80", "0.0.0.0/0:80"),
    ("::/0", "[::/0]:443"),
    ("[::/0]:*", "[::/0]:*"),
    ("x" * 63, f"{'x' * 63}:443"),
    ("x." * 126 + "x", "x." * 126 + "x:443"),
]


def parse(text: str) -> Address:
    return parse_address(text, default_port=443)


def reason_of(error: pytest.ExceptionInfo[AddressError], text: object) -> str:
    first, *forms = str(error.value).splitlines()
    assert forms[0] == "An address is host[:port]:"
    assert [line.split()[0] for line in forms[1:]] == [form.example for form in FORMS]
    return first.removeprefix(f"{text!r} is no address: ")


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of the documentation page."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


# The forms


@pytest.mark.parametrize("text", HITS_AND_MISSES)
def test_an_address_matches_what_it_says_and_nothing_else(text: str) -> None:
    hits, misses = HITS_AND_MISSES[text]
    address = parse(text)
    assert [hit for hit in hits if not address.matches(*hit)] == []
    assert [miss for miss in misses if address.matches(*miss)] == []


def test_every_form_is_tried() -> None:
    assert list(HITS_AND_MISSES) == [form.example for form in FORMS]


@pytest.mark.parametrize(("text", "normal"), NORMAL_FORMS)
def test_an_address_has_one_normal_form(text: str, normal: str) -> None:
    assert str(parse(text)) == normal
    assert parse(text).text == text


def test_the_default_port_is_used_only_where_none_is_written() -> None:
    assert parse_address("api.example.com", default_port=80).port == 80
    assert parse_address("api.example.com", default_port=None).port is None
    assert parse_address("api.example.com:8443", default_port=80).port == 8443
    assert parse_address("api.example.com:*", default_port=80).port is None


def test_a_glob_needs_room_for_what_stands_on_both_sides_of_its_star() -> None:
    assert parse("ab*ba").matches("abba", 443)
    assert not parse("ab*ba").matches("aba", 443)


def test_a_glob_matches_no_address() -> None:
    assert not parse("*.*").matches("192.0.2.7", 443)
    assert not parse("1*").matches("192.0.2.7", 443)
    assert not parse("2*").matches("2001:db8::7", 443)


# Refusals


@pytest.mark.parametrize(("text", "reason"), REFUSALS)
def test_what_is_no_address_is_refused_with_the_reason(text: object, reason: str) -> None:
    with pytest.raises(AddressError) as error:
        parse_address(text, default_port=443)
    assert reason_of(error, text) == reason


def test_a_refusal_quotes_the_value_and_lists_every_accepted_form() -> None:
    with pytest.raises(AddressError) as error:
        parse("https://api.example.com/v1")
    assert str(error.value) == (
        "'https://api.example.com/v1' is no address: it is a URL; write 'api.example.com'\n"
        "An address is host[:port]:\n"
        "  api.example.com       exact name\n"
        "  *.example.com         glob\n"
        "  *example.com          glob, * anywhere\n"
        "  192.0.2.7             IPv4\n"
        "  2001:db8::7           IPv6\n"
        "  192.0.2.0/24          IPv4 CIDR\n"
        "  2001:db8::/32         IPv6 CIDR\n"
        "  *                     any host\n"
        "  api.example.com:8443  with a port\n"
        "  [2001:db8::7]:8443    IPv6 with a port\n"
        "  [2001:db8::/32]:8443  IPv6 CIDR with a port\n"
        "  api.example.com:*     any port"
    )


# Specificity


def test_the_most_specific_address_sorts_last() -> None:
    ascending = [
        "*:*",
        "*:443",
        "*m:*",
        "*.com:*",
        "*.com:443",
        "a*.example.com:*",
        "0.0.0.0/0",
        "192.0.2.0/24:*",
        "192.0.2.0/24:443",
        "192.0.2.7/32:443",
        "192.0.2.7:*",
        "192.0.2.7:443",
    ]
    found = sorted(map(parse, reversed(ascending)), key=lambda address: address.specificity)
    assert [address.text for address in found] == ascending


def test_a_name_and_an_address_are_equally_specific() -> None:
    assert parse("api.example.com").specificity == parse("192.0.2.7").specificity


# Values


def test_addresses_that_match_the_same_are_equal_however_they_were_written() -> None:
    assert parse("API.example.com.") == parse("api.example.com:443")
    assert hash(parse("API.example.com.")) == hash(parse("api.example.com:443"))
    assert parse("api.example.com") != parse("api.example.com:80")


@pytest.mark.parametrize("text", HITS_AND_MISSES)
def test_an_address_survives_pickling(text: str) -> None:
    address = parse(text)
    copy = pickle.loads(pickle.dumps(address))
    assert (copy, copy.text, copy.specificity) == (address, address.text, address.specificity)
    hits, _ = HITS_AND_MISSES[text]
    assert all(copy.matches(*hit) for hit in hits)


def test_an_address_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse("api.example.com").port = 80  # type: ignore[misc]


# Host names


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("API.Example.com.", "api.example.com"),
        ("_sip._tcp.example.com", "_sip._tcp.example.com"),
        ("r3---sn-a.example.com", "r3---sn-a.example.com"),
        ("münchen.test", "xn--mnchen-3ya.test"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7.", "192.0.2.7"),
        ("[2001:DB8::7]", "2001:db8::7"),
        ("2001:db8:0::7", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_a_host_has_one_normal_form(name: str, normal: str) -> None:
    assert normalise_host(name) == normal


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it is empty"),
        ("..", "it has an empty label: a dot first, or two in a row"),
        ("api example.com", "it contains ' ', which is in no name"),
        ("api.example.com\n", r"it contains '\n', which is in no name"),
        ("*.example.com", "it contains '*', which is in no name"),
        (r"\xff.test", f"it contains '\\\\', which is in no name{NO_REGEX}"),
        ("x" * 64, f"its label '{'x' * 64}' is longer than 63 characters"),
        ("1.2.3", "'1.2.3' ends in a number and is no IPv4 address"),
        ("[192.0.2.7]", f"it contains '[', which is in no name{NO_REGEX}"),
        ("[2001:db8::7]:443", COLONS),
        ("api.example.com:443", COLONS),
        ("fe80::1%eth0", "an IPv6 zone means nothing outside of its own machine"),
    ],
)
def test_what_is_no_host_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(AddressError) as error:
        normalise_host(name)
    assert str(error.value) == f"{name!r} is no host: {reason}"


# Properties

NAME_PARTS = st.sampled_from(
    ["a", "b", "z9", "-", "_", ".", "..", "1", "x" * 63, "localhost", "0x"]
)
HOSTS = st.lists(NAME_PARTS, max_size=8).map("".join)
GLOBS = st.lists(NAME_PARTS | st.just("*"), max_size=8).map("".join)
ADDRESS_LIKE = st.lists(
    st.sampled_from(
        ["10", ".", ":", "::", "/", "[", "]", "*", "a", "ff", "@", "//", "%", "é", "。"]
    )
).map("".join)
IP_ADDRESSES = st.ip_addresses().map(str)
NETWORKS = st.builds(
    lambda address, cut: ipaddress.ip_network(
        (address, max(0, address.max_prefixlen - cut)), strict=False
    ),
    st.ip_addresses(),
    st.integers(0, 128),
)


def accepted(text: str) -> Address | None:
    try:
        return parse_address(text, default_port=None)
    except AddressError:
        return None


def normalised(name: str) -> str | None:
    try:
        return normalise_host(name)
    except AddressError:
        return None


@given(st.text() | ADDRESS_LIKE | HOSTS | GLOBS | IP_ADDRESSES | NETWORKS.map(str))
@example("\ud800.test")
@example("\u200b.test")
@example("a。:1")
def test_any_text_is_an_address_with_a_normal_form_or_an_address_error(text: str) -> None:
    address = accepted(text)
    if address is not None:
        assert parse_address(str(address), default_port=7) == address


@given(st.text() | HOSTS | IP_ADDRESSES)
@example("[")
@example("ª。")
def test_any_text_has_a_normal_form_that_is_its_own_or_is_an_address_error(text: str) -> None:
    normal = normalised(text)
    if normal is not None:
        assert normalise_host(normal) == normal
        assert normal.isascii()


@given(HOSTS | IP_ADDRESSES)
def test_an_exact_address_matches_itself_alone(text: str) -> None:
    address = accepted(f"[{text}]" if ":" in text else text)
    if address is not None:
        assert address.matches(normalise_host(text), 1)
        assert not address.matches("x" + normalise_host(text), 1)


@given(GLOBS, HOSTS)
def test_a_glob_matches_like_a_regular_expression(glob: str, name: str) -> None:
    address, host = accepted(glob), normalised(name)
    if address is None or host is None or "*" not in glob or address.host == "*":
        return
    is_ip = host.rpartition(".")[2].isdigit()
    pattern = re.escape(address.host).replace(r"\*", ".*")
    assert address.matches(host, 1) == (re.fullmatch(pattern, host) is not None and not is_ip)


@given(GLOBS)
@example(f"{'x' * 63}*{'y' * 63}")
@example(f"{'x' * 63}*0x")
@example(f"*.{'x.' * 125}x")
def test_a_glob_that_is_accepted_matches_some_name(glob: str) -> None:
    address = accepted(glob)
    if address is None or glob.count("*") > 5:
        return
    first, *rest = address.host.split("*")
    names = (
        first + "".join(filler + part for filler, part in zip(fillers, rest, strict=True))
        for fillers in itertools.product(("", "z", ".", ".z"), repeat=len(rest))
    )
    assert any(normalised(name) == name and address.matches(name, 1) for name in names)


@given(NETWORKS, st.ip_addresses())
@example(ipaddress.ip_network("::ffff:127.0.0.0/104"), ipaddress.ip_address("::"))
@example(ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_address("::ffff:192.0.2.7"))
@example(ipaddress.ip_network("::/80"), ipaddress.ip_address("::1"))
@example(ipaddress.ip_network("::/0"), ipaddress.ip_address("::ffff:192.0.2.7"))
def test_a_network_matches_what_ipaddress_says_is_in_it(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    declared = accepted(f"[{network}]" if network.version == 6 else str(network))
    first, last = network[0], network[-1]
    if unmapped(first).version == unmapped(last).version:
        first, last = unmapped(first), unmapped(last)
    if declared is None:
        assert (first.is_loopback and last.is_loopback) or (first.is_unspecified and first == last)
        return
    for host in (address, network[0], network[-1]):
        same_family = first.version == last.version == unmapped(host).version
        inside = same_family and int(first) <= int(unmapped(host)) <= int(last)
        assert declared.matches(normalise_host(str(host)), 1) == inside


def unmapped(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return (address.version == 6 and address.ipv4_mapped) or address


# Cost, and the page


def test_only_names_beyond_ascii_import_idna(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "idna" not in vars(sys.modules[parse_address.__module__])
    monkeypatch.setitem(sys.modules, "idna", None)  # whoever imports it now gets an ImportError
    assert parse("*.example.com:8443").port == 8443
    with pytest.raises(ImportError):
        parse("münchen.test")


def test_the_page_declares_addresses_that_are_accepted() -> None:
    declared = re.findall(r'egress\.(?!run)\w+\("(.+?)"', PAGE)
    assert len(declared) >= 4
    assert [text for text in declared if accepted(text) is None] == []


def test_the_page_shows_the_table_of_forms() -> None:
    expected = [[form.form, f"`{form.example}`", form.matches] for form in FORMS]
    assert table("Forms") == expected


def test_the_page_shows_the_order_of_precedence() -> None:
    examples = [parse(row[1].strip("`")) for row in table("Which one answers")]
    descending = sorted(examples, key=lambda address: address.specificity, reverse=True)
    assert len({address.specificity for address in examples}) == len(examples) > 5
    assert examples == descending


def test_the_page_shows_refusals_as_they_are() -> None:
    rows = table("What is refused")
    assert len(rows) > 10
    for literal, reason in rows:
        text = ast.literal_eval(literal.strip("`"))
        with pytest.raises(AddressError) as error:
            parse_address(text, default_port=443)
        assert reason_of(error, text) == reason


def test_the_page_shows_normal_forms_as_they_are() -> None:
    for written, normal in table("Names and addresses in normal form"):
        assert str(parse(written.strip("`"))) == normal.strip("`") + ":443"


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("192.0.2.7:443", ["192.0.2.7/32"]),
        ("2001:db8::7", ["2001:db8::7/128"]),
        ("192.0.2.0/24", ["192.0.2.0/24"]),
        ("*", ["0.0.0.0/0", "::/0"]),
        ("*.test", []),
        ("api.test", []),
    ],
)
def test_an_address_has_the_networks_that_it_matches(text: str, networks: list[str]) -> None:
    assert [str(network) for network in parse(text).networks] == networks


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("fa\u00df.test:8443", "fass.test"),
        ("Stra\u00dfe.fa\u00df.test", "strasse.fass.test"),
        ("m\u00fcnchen.example", ""),
        ("fass.test", ""),
        ("*.fa\u00df.test", ""),
        ("xn--fa-hia.test", ""),
    ],
)
def test_a_name_has_another_form_by_idna_2003(text: str, other: str) -> None:
    try:
        address = parse_address(text, default_port=None)
    except AddressError:
        assert "*" in text
        return
    assert address.by_idna2003 == other
