"""What `Redaction` takes, and how it refuses anything else."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_egress import Redaction


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        (
            {"headers": "X-Tenant"},
            TypeError,
            "takes a list of names; write headers=['X-Tenant']",
        ),
        ({"query": [5]}, TypeError, "Redaction(query=[...5...]): a name is a str"),
        ({"json": [""]}, ValueError, "Redaction(json=['']): nothing is called so"),
        ({"keep": {"a": "b"}}, TypeError, "Redaction(keep={'a': 'b'}): it takes a list of names"),
        (
            {"values": "swordfish"},
            TypeError,
            "Redaction(values=...) takes a list of secrets, not str",
        ),
        ({"values": ["swordfish", 5]}, TypeError, "number 2 is of type int, and a secret is a str"),
        (
            {"values": ["hunter2"]},
            ValueError,
            "number 1 has 7 characters, and one of less than 8 would be found",
        ),
        (
            {"match": "cus_.*"},
            TypeError,
            "Redaction(match='cus_.*'): it takes a function of a text",
        ),
        ({"match": int}, TypeError, "of an empty text it raised ValueError"),
        ({"match": lambda text: "abc"}, TypeError, "it returned a str, and no list of them"),
        ({"match": lambda text: [(1, 2)]}, TypeError, "it returned a tuple in its list"),
        ({"match": lambda text: None}, TypeError, "it raised TypeError"),
        ({"headers": ["X-Id"], "keep": ["x-id"]}, ValueError, "'x-id' is in headers= and in keep="),
    ],
)
def test_what_it_does_not_take_is_refused_when_it_is_declared(
    given: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=re.escape(text)) as caught:
        Redaction(**given)
    assert not {"hunter2", "swordfish"} & {*str(caught.value).split("'")}


def test_it_takes_collections_of_names() -> None:
    declared = Redaction(headers=("a",), query={"b"}, json=frozenset({"c"}), keep=["d"])
    assert declared.query == {"b"}
