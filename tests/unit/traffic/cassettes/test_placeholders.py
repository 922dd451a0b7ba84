"""Placeholders: what they stand for in a request, and what a client is given for them."""

from __future__ import annotations

import base64

import pytest

from pytest_egress.traffic.cassettes.placeholders import Stands, in_order

KEY = "sk_test_0123456789abcdef"
STANDS = Stands({"STRIPE_KEY", "STRIPE_KEY#2", "token"}, {"STRIPE_KEY": KEY})


@pytest.mark.parametrize(
    ("wanted", "found", "fits"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("k=<STRIPE_KEY>", f"k={KEY}", True),
        ("k=<STRIPE_KEY>", "k=sk_test_of_another", False),
        ("k=<STRIPE_KEY#2>", f"k={KEY}", True),
        ("<token>", "anything", True),
        ("a<token>c", "abbbc", True),
        ("a<token>c", "ab", False),
        ("a<token>b<token>c", "a1b2c", True),
        ("a<token>a", "a", False),
        ("<p>x</p>", "<p>x</p>", True),
        ("<p>x</p>", "<b>x</b>", False),
    ],
)
def test_a_placeholder_stands_for_the_value_of_env_or_for_any_text(
    wanted: str, found: str, fits: bool
) -> None:
    assert STANDS.fits(wanted, found) is fits


def test_within_base64_it_stands_for_any_text() -> None:
    sent = base64.b64encode(f"user:{KEY}".encode()).decode()
    assert STANDS.fits("dXNlcj<STRIPE_KEY>", sent)
    assert not STANDS.fits("dXNlcj<STRIPE_KEY>", base64.b64encode(b"user:another").decode())


def test_a_dash_in_ci_matches_and_is_replaced_nowhere() -> None:
    """A colleague's key, or "-" in CI."""
    stands = Stands({"STRIPE_KEY"}, {"STRIPE_KEY": "-"})
    assert stands.fits("Bearer <STRIPE_KEY>", "Bearer -")
    assert stands.fits("a-b", "a-b")


def test_a_client_gets_the_value_that_it_has_and_else_the_placeholder() -> None:
    assert STANDS.filled("a <STRIPE_KEY> <token> <other>") == f"a {KEY} <token> <other>"
    assert STANDS.filling({"<STRIPE_KEY>": ["<STRIPE_KEY>", 1, None]}) == {KEY: [KEY, 1, None]}


def test_a_value_of_json_equals_what_it_stands_for() -> None:
    expected = STANDS.expecting({"a": ["<STRIPE_KEY>", "x"], "b": "<token>", "c": 1})
    assert expected == {"a": [KEY, "x"], "b": "any", "c": 1}
    assert expected != {"a": ["other", "x"], "b": "any", "c": 1}


def test_many_placeholders_take_linear_time() -> None:
    stands = Stands({"token"}, {})
    assert not stands.fits("a<token>" * 2000 + "!", "a" * 20_000)
    assert in_order(["a"] * 2000, "a" * 2000)
