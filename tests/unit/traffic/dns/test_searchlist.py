"""What a resolv.conf and a variable say of a search list."""

from __future__ import annotations

import pytest

from pytest_egress.traffic.dns.searchlist import normal_suffixes, suffixes_in


@pytest.mark.parametrize(
    ("text", "suffixes"),
    [
        ("nameserver 192.0.2.53\nsearch .\noptions ndots:1\n", []),
        ("search A.example b.example.\n", ["a.example", "b.example"]),
        ("domain a.example\nsearch b.example", ["b.example"]),
        ("\tsearch  a.example\t b.example \n", ["a.example", "b.example"]),
        ("# search a.example\nnameserver 192.0.2.53\n", None),
        ("search", []),
        ("", None),
    ],
)
def test_the_last_line_with_a_list_counts(text: str, suffixes: list[str] | None) -> None:
    assert suffixes_in(text) == suffixes


def test_what_is_no_name_is_no_suffix() -> None:
    assert normal_suffixes(["", ".", "a..b", "a.example", "a b"]) == ["a.example"]
