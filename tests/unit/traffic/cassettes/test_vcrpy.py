"""Cassettes of VCR.py: read as they are, with bodies that can be compared."""

from __future__ import annotations

import base64
import gzip

import pytest

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.cassettes.reading import tape_in

VCR = f"""\
interactions:
- request:
    body: '{{"amount": 4200}}'
    headers:
      Content-Type: [application/json]
      User-Agent:
      - python-requests/2.32.3
    method: POST
    uri: https://api.test/v1/charges
  response:
    body:
      string: !!binary |
        {base64.b64encode(gzip.compress(b'{"id": "ch_1"}', mtime=0)).decode()}
    headers:
      Content-Encoding: &g [gzip]
      Content-Type: [application/json]
      X-Same: *g
    status: {{code: 200, message: OK}}
- request:
    body: null
    headers: {{}}
    method: GET
    uri: https://api.test/plain
  response:
    body: {{string: plain}}
    headers: {{Set-Cookie: [a=1, b=2]}}
    status: {{code: 404, message: Not Found}}
version: 1
"""


def read(text: str) -> object:
    return tape_in(text, "a.yaml", lambda name: b"")


def test_a_cassette_of_vcrpy_is_read() -> None:
    first, second = tape_in(VCR, "a.yaml", lambda name: b"").recordings
    assert (first.request.method, first.request.url) == ("POST", "https://api.test/v1/charges")
    assert first.request.body == ("json", {"amount": 4200})
    assert first.request.headers == (("content-type", "application/json"),)
    assert first.response.body == ("json", {"id": "ch_1"})
    assert first.response.headers == (("content-type", "application/json"), ("x-same", "gzip"))
    assert (second.response.status, second.response.body, second.line) == (
        404,
        ("text", "plain"),
        19,
    )
    assert second.response.headers == (("set-cookie", "a=1"), ("set-cookie", "b=2"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    uri: https://api.test/plain\n", "", "line 19: interaction 2 is none of VCR.py's"),
        ("body: {string: plain}", "body: {string: !!python/object:os.system x}", "the tag"),
        ("status: {code: 404,", "status: {code: x,", "interaction 2"),
    ],
)
def test_what_is_none_of_vcrpys_has_its_line(old: str, new: str, said: str) -> None:
    with pytest.raises(CassetteError) as caught:
        read(VCR.replace(old, new))
    assert said in str(caught.value)
