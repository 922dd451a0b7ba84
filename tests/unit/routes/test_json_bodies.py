"""A body of JSON equals what is expected, or says by path where it differs."""

from __future__ import annotations

import re
from unittest.mock import ANY

import pytest

from pytest_egress import partial
from pytest_egress.routes.json_bodies import json_differences


@pytest.mark.parametrize(
    ("wanted", "found", "differences"),
    [
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, []),
        ({"a": 1}, {"a": 2}, ["json.a: 2 is not 1"]),
        ({"a": 1}, {}, ["json.a: absent, expected 1"]),
        ({}, {"a-b": 1}, ["json['a-b']: 1 was not expected"]),
        (
            {"items": [{"price": 6}, {"price": 7}]},
            {"items": [{"price": 5}, {"price": 7, "x": 0}]},
            ["json.items[0].price: 5 is not 6", "json.items[1].x: 0 was not expected"],
        ),
        ([1, 2], [1], ["json: 1 items, expected 2"]),
        ({"a": [1]}, {"a": {"0": 1}}, ["json.a: {'0': 1} is not [1]"]),
        (1, 1.0, []),
        (1, True, ["json: True is not 1"]),
        ({"a": [True]}, {"a": [1]}, ["json.a[0]: 1 is not True"]),
        ({"a": ANY, "b": ANY, "c": ANY}, {"a": True, "b": [1], "c": None}, []),
        (ANY, {"a": 1}, []),
        (partial({"a": {"b": 1}}), {"a": {"b": 1, "c": 2}, "d": 3}, []),
        (partial({}), {"a": 1}, []),
        (partial([]), [1], ["json: 1 items, expected 0"]),
        (partial([{"a": 1}, {}]), [{"a": 1, "b": 2}, {"c": 3}], []),
        ({"a": partial({})}, {"a": {"b": 1}, "c": 2}, ["json.c: 2 was not expected"]),
        (
            partial({"items": [{"price": 6, "tax": ANY}], "b": None}),
            {"items": [{"price": 5, "name": "x"}]},
            [
                "json.items[0].price: 5 is not 6",
                "json.items[0].tax: absent, expected <ANY>",
                "json.b: absent, expected None",
            ],
        ),
        (partial({"a": 1}), [1], ["json: [1] is not {'a': 1}"]),
        (partial({"a": {"b": 1}}), {"a": 1}, ["json.a: 1 is not {'b': 1}"]),
        (partial({"a": True}), {"a": 1}, ["json.a: 1 is not True"]),
        ({"a": re.compile("ch_.*")}, {"a": "ch_1"}, []),
        (
            {"a": re.compile("[0-9]+"), "b": re.compile("x")},
            {"a": 5, "b": "xx"},
            [
                "json.a: 5 does not match re.compile('[0-9]+')",
                "json.b: 'xx' does not match re.compile('x'): a part of it does, and all of it has to",
            ],
        ),
        ({"cron": "* * *"}, {"cron": "1 2 3"}, ["json.cron: '1 2 3' is not '* * *'"]),
        ("x" * 90, "y", [f"json: 'y' is not '{'x' * 27}...{'x' * 27}'"]),
    ],
)
def test_json_differs_by_path(wanted: object, found: object, differences: list[str]) -> None:
    assert list(json_differences(wanted, found)) == differences
