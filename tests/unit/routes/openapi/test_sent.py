"""What was sent is split as it was sent, and named by what is in brackets."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress.routes.openapi.sent import Node, in_a_path, keys_of, pairs_of, plain, tree_of


def test_a_separator_counts_where_it_was_sent_as_itself() -> None:
    [(name, sent)] = pairs_of("a%5Bb%5D=1%2C2,x+y")
    assert (name, sent.text) == ("a[b]", "1,2,x y")
    assert sent.split(",") == ["1,2", "x y"]
    assert in_a_path("x+y%2Cz").split(",") == ["x+y,z"]
    assert plain("a%2Cb,c").split(",") == ["a%2Cb", "c"]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("a", ["a"]),
        ("a[b]", ["a", "b"]),
        ("a[b][c]", ["a", "b", "c"]),
        ("a[]", ["a", ""]),
        ("a[b", ["a[b"]),
        ("a[b]c", ["a[b]c"]),
        ("[a]", ["[a]"]),
        ("a[[b]]", ["a[[b]]"]),
    ],
)
def test_brackets_are_keys(name: str, keys: list[str]) -> None:
    assert keys_of(name) == keys


def test_too_many_brackets_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 16 brackets"):
        keys_of("a" + "[b]" * 10_000)


def test_a_name_that_is_declared_stands_as_it_is() -> None:
    def shown(node: Node) -> Any:
        return [each.text for each in node.sent] or {
            name: shown(each) for name, each in node.fields.items()
        }

    fields = tree_of(pairs_of("ids[]=1&f[x]=2&f[x]=3"), ["ids[]"])
    assert {name: shown(each) for name, each in fields.items()} == {
        "ids[]": ["1"],
        "f": {"x": ["2", "3"]},
    }
