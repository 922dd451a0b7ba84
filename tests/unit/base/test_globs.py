"""`*` in hosts and paths: what it matches, at whatever length."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.base.globs import Glob, Template
from pytest_egress.routes.matching import Match
from tests.support.traffic import request

SOME = st.text("ab/", max_size=12)


@given(st.text("ab/*", max_size=8), SOME)
def test_a_glob_matches_what_its_regular_expression_does(glob: str, text: str) -> None:
    expression = ".*".join(map(re.escape, glob.split("*")))
    assert Glob(glob).matches(text) is bool(re.fullmatch(expression, text, re.DOTALL))


@given(st.lists(SOME, min_size=1, max_size=6), SOME)
def test_a_glob_matches_its_own_parts_with_anything_between(parts: list[str], between: str) -> None:
    assert Glob("*".join(parts)).matches(between.join(parts))


def test_a_line_break_is_a_character_like_any_other() -> None:
    assert Glob("/a*z").matches("/a\n\nz")


@pytest.mark.parametrize("end", ["", "b"])
def test_many_stars_against_a_long_path_are_no_more_work_than_its_length(end: str) -> None:
    path = "/" + "a" * 60_000 + end  # by splits of the text, the universe ends first
    matcher = Match(path="/" + "*a" * 30 + "*b")
    assert (matcher.differences(request(f"https://api.test{path}")) == []) is bool(end)


@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "{x}", "{", "}"]), max_size=8).map("".join), SOME
)
def test_a_template_matches_what_its_regular_expression_does(template: str, text: str) -> None:
    parts = re.split(r"(\*|\{[abx]+\})", template)
    known = {part: "[^/]+" for part in parts[1::2]} | {"*": ".*"}
    expression = "".join(known.get(part) or re.escape(part) for part in parts)
    assert Template(template).matches(text) is bool(re.fullmatch(expression, text, re.DOTALL))


@pytest.mark.parametrize("end", ["", "c"])
def test_many_names_in_a_segment_are_no_more_work_than_its_length(end: str) -> None:
    text = "/" + "ab" * 30_000 + end  # by splits of the text, the universe ends first
    assert Template("/" + "{x}b" * 30 + "*c").matches(text) is bool(end)
