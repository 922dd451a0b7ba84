"""Which of two paths is more specific, and how far a path is from one that was expected."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from pytest_egress.routes.matching import Match
from pytest_egress.routes.patterns import TextPattern, path_matcher
from tests.support.traffic import request

BY_SPECIFICITY: list[TextPattern | None] = [
    "/v1/customers/me",
    "/v1/customers/{id}",
    "/v1/{kind}/{id}",
    "/v1/customers/*",
    "/v1/{kind}/*",
    "/*",
    re.compile("/v1/customers/me"),
    None,
]


def test_paths_are_ranked_by_their_form_and_then_by_their_literal_characters() -> None:
    ranks = [path_matcher(path).rank for path in BY_SPECIFICITY]
    assert all(one > other for one, other in pairwise(ranks))
    assert all(path_matcher(path).matches("/v1/customers/me") for path in BY_SPECIFICITY)


def test_a_star_alone_is_as_general_as_no_path() -> None:
    assert path_matcher("*").rank == path_matcher("**").rank == path_matcher(None).rank


@pytest.mark.parametrize("braces", ["{", "{|}", "}{", "{ }"])
def test_braces_that_name_nothing_are_characters(braces: str) -> None:
    matcher = path_matcher(f"/{braces}/{{id}}")
    assert matcher.matches(f"/{braces}/1")
    assert not matcher.matches("/x/1")


def test_a_path_is_nearer_the_more_it_has_in_common_with_what_was_expected() -> None:
    asked = request("https://api.test/v1/charge")
    expected: list[TextPattern | None] = [
        None,
        "/v1/charge",
        "/v1/charges",
        "/v2/charge",
        "/v1/x",
        "*x",
    ]
    distances = [Match(path=path).remoteness(asked)[0] for path in expected]
    assert distances == sorted(distances)
    assert (distances[0], distances[-1]) == (0, 1)
    assert Match(path=re.compile("/v1/charges")).remoteness(asked)[0] == 1
