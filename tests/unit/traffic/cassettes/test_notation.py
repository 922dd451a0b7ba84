"""The notation: what is written is read as what it was, by both parsers of PyYAML; and what is wrong has its line."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.cassettes import notation
from pytest_egress.traffic.cassettes.notation import Builder, dump, load

ODD = [
    *("no", "on", "2026-12-01", "12:30:45", "1_000", "=", "~", "null", "true", "-1", "1e5", "0x1f"),
    *(
        "",
        " ",
        "a: b",
        "a #b",
        "- x",
        "*x",
        "&y",
        "!t",
        "?",
        "a:",
        "<<",
        "a,b",
        "[x]",
        "%a",
        "|",
        "'",
        '"',
    ),
    *(
        "\n",
        "x\n",
        "x\n\n",
        "\nx",
        " lead\nx",
        "\ta\nb",
        "a\r\nb",
        " \n x\n",
        "---\nx",
        "...\ny",
        "# c\nd",
    ),
    *(
        "a\u0085b\nc",
        "a\u2028b\nc",
        "\u202eabc",
        "\ufeffx\ny",
        "\x00",
        "\U0001f600 \xfc\n\xe9",
        "k" * 2000,
    ),
    *('{"a": 1}', "it's", "a\\b", "x\n \ny", "<<<<<<< ours", "=======\n>>>>>>> theirs"),
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(ODD)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda each: st.lists(each, max_size=4) | st.dictionaries(TEXTS, each, max_size=4),
    max_leaves=12,
)


def by_python(text: str) -> Any:
    """As `load` reads it where there is no libyaml."""
    return Builder("x", of_others=False).build(yaml.parse(text, Loader=yaml.SafeLoader))


@settings(max_examples=150)
@given(VALUES)
def test_a_value_is_read_as_what_was_written(value: Any) -> None:
    text = dump(value)
    assert load(text, "x") == value
    assert by_python(text) == value


@pytest.mark.parametrize("text", ODD)
def test_a_text_stays_a_text(text: str) -> None:
    for read in (lambda written: load(written, "x"), by_python):
        assert read(dump({"a": text, text: "b", "c": [text, {"d": text}]})) == {
            "a": text,
            text: "b",
            "c": [text, {"d": text}],
        }


def test_what_looks_like_something_else_is_a_text_without_quotes_too() -> None:
    text = "a: no\nb: 2026-12-01\nc: 12:30:45\nd: 1_000\ne: =\nf: 0x1f\ng: .5\nh: Null\n"
    assert [*load(text, "x").values()] == [
        *("no", "2026-12-01", "12:30:45", "1_000", "=", "0x1f", ".5", "Null")
    ]
    assert load("[null, true, false, 1, -0.5, 1e3]", "x") == [None, True, False, 1, -0.5, 1000.0]


def test_a_small_value_stands_on_one_line_and_a_text_of_lines_in_a_block() -> None:
    value = {
        "small": {"a": 1, "b": [True, None]},
        "text": "one\ntwo\n",
        "big": ["x" * 50, "y" * 50],
    }
    assert dump(value) == (
        "small: {a: 1, b: [true, null]}\n"
        "text: |\n  one\n  two\n"
        f"big:\n- {'x' * 50}\n- {'y' * 50}\n"
    )


def test_text_that_turns_its_direction_or_is_not_seen_is_escaped() -> None:
    assert dump("\u202eabc\u200b\ud7ff\x7f") == '"\\u202eabc\\u200b\ud7ff\\x7f"\n'


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "\ud800"])
def test_what_json_has_not_is_not_written(value: Any) -> None:
    with pytest.raises(ValueError, match=r"JSON|surrogate"):
        dump({"a": value})


def test_merge_conflicts_are_named_with_their_line() -> None:
    """A file with conflict markers: "did not find expected key" says nothing (vcr)."""
    text = "egress_cassette: 1\ninteractions:\n<<<<<<< HEAD\n- a\n=======\n- b\n>>>>>>> theirs\n"
    with pytest.raises(CassetteError, match=r"^a\.yaml: line 3 has a merge conflict"):
        load(text, "a.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1\nb: *x\n", "line 1: an anchor, &x"),
        ("a: 1\nb: *x\n", "line 2: an alias, *x"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "line 1: the tag tag:yaml.org,2002:python/object",
        ),
        ("a: !!int 1\n", "line 1: the tag"),
        ("a: 1\n---\nb: 2\n", "line 2: a second document"),
        ("a: 1\na: 2\n", "line 2: the key 'a' is there twice"),
        ("? [a]\n: 1\n", "line 1: a key is a text"),
        ("a: [1\nb: 2\n", "line 2: this is no YAML"),
        ("[" * 200, "this is nested more than 64 deep"),
    ],
)
def test_code_aliases_and_other_surprises_of_yaml_are_errors_with_their_line(
    text: str, said: str
) -> None:
    """YAML that ran code when it was loaded (GHSA-rpj2-4hq8-938g)."""
    with pytest.raises(CassetteError) as caught:
        load(text, "a.yaml")
    assert said in str(caught.value)


def test_files_of_others_may_have_aliases_and_bytes() -> None:
    text = "a: &x [1]\nb: *x\nc: !!binary aGk=\nd: !!python/unicode 'u'\n"
    assert load(text, "x", of_others=True) == {"a": [1], "b": [1], "c": b"hi", "d": "u"}


@pytest.mark.parametrize("text", ["a: *x\n", "a: !!binary 'no base64!'\n", "a: !!set {b}\n"])
def test_what_others_do_not_write_is_an_error(text: str) -> None:
    with pytest.raises(CassetteError, match=r"^x: line 1: "):
        load(text, "x", of_others=True)


def test_aliases_that_stand_for_very_much_are_an_error() -> None:
    bomb = "a: &l0 [x, x]\n" + "".join(
        f"b{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    with pytest.raises(
        CassetteError, match=r"^x: line 7: its aliases stand for more than 1,000,000"
    ):
        load(bomb, "x", of_others=True)
    with pytest.raises(CassetteError, match=r"^x: line 1: \*a is used within &a"):
        load("a: &a [*a]\n", "x", of_others=True)


def test_a_library_that_is_not_installed_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(CassetteError, match=r"pip install 'pytest-egress\[cassettes\]'"):
        load("a: 1", "x")


def test_mappings_know_their_lines() -> None:
    value = load("a: 1\nb:\n  c: 2\n", "x")
    assert (value.line, value.lines, value["b"].line) == (1, {"a": 1, "b": 2}, 3)


def test_numbers_of_any_length_cost_no_time() -> None:
    assert notation.resolved("1" * 5000) == "1" * 5000
    assert notation.resolved("1" * 900) == int("1" * 900)
