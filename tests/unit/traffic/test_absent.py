"""A name that a message does not have is told with those that it has."""

from __future__ import annotations

import pickle

import pytest

from pytest_egress.errors import AbsentError
from pytest_egress.traffic.absent import absent
from pytest_egress.traffic.http.forms import parse_query
from pytest_egress.traffic.http.headers import Headers

SENT = Headers({"Host": "api.test", "X-Api-Key": "sk_live_4242", "Accept": "*/*"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Nothing", "no header field is called 'Nothing'; there are 'Host', 'X-Api-Key', 'Accept'"),
        ("x_api_key", "no header field is called 'x_api_key'; there are 'X-Api-Key', 'Host', 'Accept'"),
        ("Acept", "no header field is called 'Acept'; there are 'Accept', 'Host', 'X-Api-Key'"),
    ],
)  # fmt: skip
def test_a_field_that_is_not_there_is_told_with_those_that_are_the_most_similar_one_first(
    name: str, text: str
) -> None:
    with pytest.raises(KeyError) as caught:
        SENT[name]
    assert str(caught.value) == text
    assert name not in SENT
    assert SENT.get(name) is None


def test_a_key_that_differs_by_its_case_comes_first() -> None:
    with pytest.raises(KeyError) as caught:
        parse_query("page=1&userId=7&userId=8")["userid"]
    assert str(caught.value) == "no key is called 'userid'; there are 'userId', 'page'"


def test_a_message_without_any_says_so() -> None:
    with pytest.raises(KeyError, match=r"^no key is called 'a'; there is none$"):
        parse_query("")["a"]
    with pytest.raises(KeyError, match=r"there is 'b'$"):
        parse_query("b=1")["a"]
    assert parse_query("").get("a") is None
    assert parse_query("").setdefault("a", "1") == "1"


def test_the_error_is_the_same_in_another_process() -> None:
    error = absent("key", "a", ["b"])
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (AbsentError, str(error))


def test_names_that_a_target_has_chosen_are_shown_escaped_and_cut() -> None:
    text = str(absent("key", "a", ["\x1b[2J\u202e", "n" * 10_000, *map(str, range(5000))]))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.endswith(" and 4982 more")
    assert len(text) < 400


@pytest.mark.parametrize("name", [None, 5, b"host", ("a", "b")])
def test_what_is_no_name_is_told_too(name: object) -> None:
    assert str(absent("key", name, ["a", "b"])).endswith("; there are 'a', 'b'")
