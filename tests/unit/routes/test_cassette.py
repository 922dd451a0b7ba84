"""`cassette(...)`: what it takes, and where it is no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_egress import cassette, delayed, sequence
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_HTTPS, INTERCEPT_TCP


def test_it_shows_what_it_was_given() -> None:
    assert repr(cassette()) == "cassette()"
    shown = cassette(Path("a.yaml"), ignore=['query["t"]', "json.id"], repeat=True)
    assert str(shown) == "cassette('a.yaml', ignore=(\"query['t']\", 'json.id'), repeat=True)"


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        ([7], {}, "cassette(7): it takes the path of a file"),
        ([""], {}, "cassette(''): it takes the path of a file"),
        ([], {"ignore": "json.id"}, 'it takes a list: ignore=["json.id"]'),
        (
            [],
            {"ignore": ["id"]},
            "cassette(ignore=['id']): it takes places as a failure prints them",
        ),
        ([], {"ignore": [7]}, "cassette(ignore=[7])"),
        ([], {"repeat": 1}, "cassette(repeat=1): it takes True or False"),
    ],
)
def test_what_it_does_not_take_is_said_where_it_is_declared(
    args: list[Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        cassette(*args, **options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "answer", "options", "said"),
    [
        (INTERCEPT_TCP, cassette(), {}, "cassette() is for requests, and this route has none"),
        (
            INTERCEPT_HTTPS,
            cassette,
            {},
            "cassette without parentheses is no answer: write cassette()",
        ),
        (INTERCEPT_HTTPS, sequence(503, cassette()), {}, "a cassette() in a sequence()"),
        (INTERCEPT_HTTPS, cassette(), {"stream": True}, "stream=True with a cassette()"),
    ],
)
def test_where_it_is_no_answer_says_what_to_do(
    kind: Any, answer: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        declare(kind, "api.test", answer, **options)
    assert said in str(caught.value)


def test_faults_may_be_around_it() -> None:
    declare(INTERCEPT_HTTPS, "api.test", delayed(cassette(), 1))
