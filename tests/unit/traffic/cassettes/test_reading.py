"""Reading: which tool has written a file."""

from __future__ import annotations

import pytest

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.cassettes.reading import is_read_only, tape_in

VCR = """\
interactions:
- request: {{method: {method}, uri: {uri}, body: null, headers: {{}}}}
  response: {{status: {{code: {code}}}, body: {{string: ''}}, headers: {{}}}}
version: 1
"""
OURS = """\
egress_cassette: 1
interactions:
- request: {{method: GET, url: "{url}", {body}}}
  response: {{status: 200}}
"""


MAPPING = '{{"request": {{"url": "/", "bodyPatterns": [{}]}}, "response": {{}}}}'


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
        ("a.json", MAPPING.format('{"equalToJson": "%s"}' % ("[" * 9999)), "mapping 1 cannot be"),
        (
            "a.json",
            MAPPING.format('{"equalToJson": 1e999}'),
            "it has inf, which is no number of JSON",
        ),
        ("a.json", MAPPING.format('{"binaryEqualTo": 5}'), "binaryEqualTo, 5: it takes a text"),
        ("a.json", MAPPING.format('{"binaryEqualTo": "%"}'), "it takes base64"),
        ("a.json", MAPPING.format('{"equalTo": ["a"]}'), "equalTo, ['a']: it takes a text"),
        (
            "a.yaml",
            VCR.format(method="GET", uri="http://a.test", code="1e999"),
            "line 3: the number 1e999",
        ),
        (
            "a.yaml",
            OURS.format(url="http://a.test", body="json: [-1e999]"),
            "line 3: the number -1e999",
        ),
        ("a.yaml", VCR.format(method="GET", uri="7", code=200), "line 2: interaction 1"),
        ("a.yaml", VCR.format(method="null", uri="http://a.test", code=200), "method: None is no"),
        ("a.yaml", VCR.format(method="GET", uri="http://a.test", code=101), "status, 101, is no"),
        ("a.yaml", VCR.format(method="GET", uri="'http://a.test:x'", code=200), "line 2: the URL"),
        ("a.yaml", OURS.format(url="http://[", body="text: a"), "line 3: the URL 'http://['"),
        (
            "a.yaml",
            OURS.format(url="http://a.test", body="base64: \xe9"),
            "it takes base64: string argument should contain only ASCII",
        ),
        ("a.json", '{"mappings": [{"scenarioName": []}]}', "the scenarioName [] is no text"),
    ],
)
def test_what_is_none_of_them_says_what_it_is_not(name: str, text: str, said: str) -> None:
    with pytest.raises(CassetteError) as caught:
        tape_in(text, name, beside)
    assert said in str(caught.value)
