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


EXPLICIT = """
import pytest
from pytest_egress import secret

KEY = secret("sk_test_4242x/y")

@pytest.mark.parametrize("word", [1, 2], ids=[KEY, "fine"])
def test_list(word): ...

@pytest.mark.parametrize("word", [f"a {KEY}"], ids=str)
def test_function(word): ...

@pytest.fixture(params=[pytest.param(3, id=f"x-{KEY}-y")])
def given(request): ...

def test_fixture(given): ...
"""


@pytest.mark.plugins("xdist")
@pytest.mark.parametrize("options", [(), ("-n1",)], ids=["one process", "workers"])
def test_an_id_that_is_given_and_has_a_secret_is_refused(
    pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    pytester.makepyfile(EXPLICIT)
    result = pytester.runpytest_subprocess(
        "-v", "-p", "no:cacheprovider", "--continue-on-collection-errors", "--junitxml=x", *options
    )
    text = result.stdout.str()
    assert result.parseoutcomes() == {"errors": 3, "passed": 1}
    assert ": test_list[<SECRET>]: its id has a secret() in it" in text
    for name in ("test_function[a <SECRET>]", "test_fixture[x-<SECRET>-y]"):
        assert f"{name}: its id has" in text
    assert "4242x" not in text.replace('secret("sk_test_4242x/y")', "")
    assert "4242x" not in Path(pytester.path, "x").read_text()
