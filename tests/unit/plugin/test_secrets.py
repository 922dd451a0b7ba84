"""pytest shows no secret in the ids of tests, nor in the text of a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.secrets import forgotten  # noqa: F401

pytestmark = pytest.mark.usefixtures("forgotten")  # what runs inside makes some, too

SOURCE = """
import pytest
from pytest_egress import secret

KEY = secret("sk_test_4242x")

@pytest.mark.parametrize(("number", "word"), [(1, KEY), (2, secret("other_4242x"))])
def test_a(number, word):
    assert "sk_test_4243x" == word

@pytest.mark.parametrize("url", [f"x://{KEY}@db", KEY.encode() + b"!"])
def test_c(url, request):
    assert "4242x" not in request.node.name

def test_b():
    assert KEY in "sk_test"
"""


def test_a_secret_is_in_no_id_and_in_no_comparison(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SOURCE)
    result = pytester.runpytest_inprocess(
        "-v", "-p", "no:cacheprovider", "--tb=short", "--junitxml=x"
    )
    text = result.stdout.str()
    assert result.parseoutcomes() == {"failed": 3, "passed": 2}
    assert "test_c[url0]" in text
    assert "test_a[1-word]" in text
    assert "test_a[2-word]" in text
    assert "assert a str == <secret>" in text
    assert "assert <secret> in a str" in text
    assert "4242x" not in Path(pytester.path, "x").read_text().replace(
        'secret("sk_test_4242x")', ""
    )
    assert "4242x" not in text.replace('secret("sk_test_4242x")', "")
