"""Reading: which tool has written a file."""

from __future__ import annotations

import pytest

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.cassettes.reading import is_read_only, tape_in


def beside(name: str) -> bytes:
    raise FileNotFoundError(name)


def test_the_end_of_the_name_and_the_content_say_what_a_file_is() -> None:
    texts = {
        "a.yaml": "egress_cassette: 1\ninteractions: []\n",
        "b.yml": "interactions: []\nversion: 1\n",
        "c.har": '{"log": {"entries": []}}',
        "d.json": '{"mappings": []}',
    }
    for name, text in texts.items():
        assert tape_in(text, name, beside).recordings == ()
    assert [is_read_only(name) for name in texts] == [False, False, True, True]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "", "a cassette's name ends in one of .yaml, .yml, .har, .json"),
        ("a.yaml", " \n", "the file is empty"),
        ("a.yaml", "interactions: []\n", "this is no cassette"),
        ("a.har", "{", "this is no JSON"),
        ("a.json", "[]", "neither a HAR nor mappings"),
        ("a.json", "[" * 100_000, "this is no JSON"),
    ],
)
def test_what_is_none_of_them_says_what_it_is_not(name: str, text: str, said: str) -> None:
    with pytest.raises(CassetteError) as caught:
        tape_in(text, name, beside)
    assert said in str(caught.value)
