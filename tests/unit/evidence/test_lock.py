"""The file `egress.lock`: its form, its errors, what it covers, and what an update changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.errors import LockFileError
from pytest_egress.evidence.lock import Lock, LockLine, differences, loaded

TEXT = """\
# Written by pytest --egress-lock=update. A new line is a new dependency: review it.

["acme/billing"]
https = [
    "payments.test:50051",
]

# The storefront: owned by @acme/web.
["acme/shop"]
blocked = [
    "telemetry.vendor.test:443",
]
https = [
    # One bucket for each tenant.
    "*.s3.amazonaws.com:443",
    "api.stripe.com:443",  # charges
]
names = [
    "metrics.internal",
]
tcp = [
    "redis.internal:6379",
]
"""


def lock_of(*lines: tuple[str, str, str]) -> Lock:
    return Lock(lines=frozenset(LockLine(*line) for line in lines))


def refusal(text: str) -> str:
    with pytest.raises(LockFileError) as raised:
        Lock.read(text)
    return str(raised.value)


def test_a_file_is_read_and_written_as_it_is_with_what_people_have_written_in_it() -> None:
    assert Lock.read(TEXT).text() == TEXT
    below = f"{TEXT}\n# the end\n"
    assert Lock.read(below).text() == below


def test_an_empty_lock_is_its_first_line() -> None:
    assert Lock().text() == TEXT.splitlines(keepends=True)[0]
    assert Lock.read("").lines == frozenset()


def test_any_form_of_toml_is_read() -> None:
    lock = Lock.read("[shop]\nhttps = ['b.test:443', \"a.test:443\"] # two\ntcp=[]\n")
    assert lock.lines == {("shop", "https", "a.test:443"), ("shop", "https", "b.test:443")}


HOSTS = st.from_regex(r"[a-z][a-z0-9-]{0,8}\.test:[1-9][0-9]{0,3}", fullmatch=True)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
IMAGES = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters=":@"), min_size=1, max_size=20
)


@given(
    st.frozensets(st.tuples(IMAGES, st.sampled_from(["https", "tcp", "blocked"]), HOSTS)),
    st.frozensets(st.tuples(IMAGES, st.just("names"), NAMES)),
)
def test_what_is_written_is_toml_and_is_read_back(dialled: Any, names: Any) -> None:
    lock = lock_of(*dialled, *names)
    text = lock.text()
    assert Lock.read(text).lines == lock.lines
    tables = loaded(text)
    assert {(i, k, w) for i, kinds in tables.items() for k, ws in kinds.items() for w in ws} == {
        *lock.lines
    }


def test_additions_of_two_branches_to_different_images_touch_different_lines() -> None:
    lock = Lock.read(TEXT)
    one = lock.updated([LockLine("acme/billing", "https", "x.test:443")], is_whole=False).text()
    two = lock.updated([LockLine("acme/shop", "tcp", "x.test:1")], is_whole=False).text()
    assert len({*one.splitlines()} - {*TEXT.splitlines()}) == 1
    assert {*one.splitlines()} & {*two.splitlines()} == {*TEXT.splitlines()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '["shop"]\nhttps = [\n<<<<<<< HEAD\n    "a.test:443",\n=======\n',
            "line 3 has a merge conflict: '<<<<<<< HEAD'",
        ),
        ("[shop\n", "it is no TOML: "),
        (
            'https = ["a.test:443"]\n',
            "line 1: 'https' is no table; an image is one, as [\"acme/shop\"]",
        ),
        (
            '[shop]\nhttp2 = ["a.test:443"]\n',
            "line 2: 'http2' of 'shop': an image has lists named https, http, tcp, udp, blocked, names",
        ),
        (
            "[shop]\nhttps = [443]\n",
            "line 2: 443 in https of 'shop' is no text, as \"api.test:443\"",
        ),
        (
            '[shop]\nhttps = [\n"https://a.test/",\n]\n',
            "line 3: 'https://a.test/' in https of 'shop': 'https://a.test/' is no address",
        ),
        (
            '[shop]\nhttps = ["a.test"]\n',
            "line 2: 'a.test' in https of 'shop' has to be \"a.test:*\", as the wire has it",
        ),
        ('[shop]\ntcp = ["DB.test:5432"]\n', 'has to be "db.test:5432"'),
        ('[shop]\nblocked = ["DB.test"]\n', 'has to be "db.test"'),
        (
            '["r.test:5000/acme/shop:1@sha256:0"]\n',
            'line 1: ["r.test:5000/acme/shop:1@sha256:0"] has to be ["acme/shop"]: an image is listed without',
        ),
        (f"[shop]\ntcp = {'[' * 5000}", "its lists are nested too deeply"),
    ],
)
def test_what_is_no_lock_is_refused_with_its_line(text: str, said: str) -> None:
    assert said in refusal(text)


def test_a_byte_order_mark_at_the_begin_is_read_over() -> None:
    assert Lock.read(f"\ufeff{TEXT}") == Lock.read(TEXT)


def covers(*lines: tuple[str, str, str]) -> list[bool]:
    lock = Lock.read(TEXT)
    return [lock.covers(LockLine(*line)) for line in lines]


def test_a_destination_is_covered_by_its_line_or_by_a_pattern_of_its_image_and_kind() -> None:
    assert (
        covers(
            ("acme/shop", "https", "api.stripe.com:443"),
            ("acme/shop", "https", "tenant-7.s3.amazonaws.com:443"),
            ("acme/shop", "names", "metrics.internal"),
            ("acme/shop", "names", "api.stripe.com"),  # it is dialled by another test
            ("acme/shop", "names", "tenant-7.s3.amazonaws.com"),
        )
        == [True] * 5
    )
    assert (
        covers(
            ("acme/shop", "https", "api.stripe.com:8443"),
            ("acme/shop", "http", "api.stripe.com:443"),
            ("acme/billing", "https", "api.stripe.com:443"),
            ("acme/shop", "tcp", "tenant-7.s3.amazonaws.com:443"),
            ("acme/shop", "names", "secret-data.evil.test"),
            ("acme/shop", "names", "not a host"),
        )
        == [False] * 6
    )


def test_networks_and_any_port_are_patterns() -> None:
    lock = lock_of(("a", "tcp", "203.0.113.0/24:25"), ("a", "tcp", "[2001:db8::7]:*"))
    assert lock.covers(LockLine("a", "tcp", "203.0.113.9:25"))
    assert lock.covers(LockLine("a", "tcp", "[2001:db8::7]:9"))
    assert not lock.covers(LockLine("a", "tcp", "203.0.113.9:26"))
    assert all(map(lock.is_by_hand, lock.lines))


NEW = LockLine("acme/shop", "https", "docs.test:443")
PATTERN = LockLine("acme/shop", "https", "*.s3.amazonaws.com:443")


def test_a_partial_run_adds_and_takes_nothing_out() -> None:
    lock = Lock.read(TEXT)
    assert lock.updated([NEW], is_whole=False).lines == lock.lines | {NEW}


def test_a_whole_run_takes_out_what_nothing_reached_but_no_pattern() -> None:
    lock = Lock.read(TEXT)
    assert lock.updated([NEW], is_whole=True).lines == {NEW, PATTERN}
    assert PATTERN not in lock.stale([])


def test_what_a_pattern_covers_is_not_added() -> None:
    lock = Lock.read(TEXT)
    found = LockLine("acme/shop", "https", "tenant-7.s3.amazonaws.com:443")
    assert lock.updated([found], is_whole=False).lines == lock.lines


def test_a_name_that_is_dialled_now_is_no_name_any_more() -> None:
    lock = Lock.read(TEXT)
    new = lock.updated([LockLine("acme/shop", "tcp", "metrics.internal:9090")], is_whole=False)
    assert LockLine("acme/shop", "names", "metrics.internal") not in new.lines


def test_the_difference_of_two_locks_is_by_image() -> None:
    old = lock_of(("a", "https", "x.test:443"), ("b", "tcp", "y.test:1"))
    new = lock_of(
        ("a", "https", "x.test:443"), ("a", "https", "z.test:443"), ("b", "tcp", "y.test:2")
    )
    assert differences(old, new) == [
        *("a", "+ https z.test:443"),
        *("", "b", "- tcp y.test:1", "+ tcp y.test:2"),
    ]
    assert differences(old, old) == []


def test_a_name_of_an_image_with_a_line_end_is_refused() -> None:
    """It would be a rule of its own in an export: `http_access allow all`."""
    said = refusal('["x\\nhttp_access allow all"]\nhttps = ["a.test:443"]\n')
    assert said.endswith("is no name of an image")
