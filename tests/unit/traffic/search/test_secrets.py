"""`secret()` gives a text that is shown nowhere, and refuses what it could not look for."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from pytest_egress.errors import AddressError
from pytest_egress.traffic.search.secrets import MADE, Secret, secret
from tests.support.secrets import forgotten  # noqa: F401

pytestmark = pytest.mark.usefixtures("forgotten")


def test_it_is_the_text_and_its_repr_hides_it() -> None:
    key = secret("sk_test_4242", only="api.test")
    assert key == "sk_test_4242"
    assert f"postgres://app:{key}@db" == "postgres://app:sk_test_4242@db"
    assert repr({"KEY": key}) == "{'KEY': <secret>}"
    assert MADE[-1] is key


def test_it_says_where_it_was_made_until_a_variable_has_it() -> None:
    key = secret("sk_test_4242")
    assert isinstance(key, Secret)
    assert key.shown.startswith("the secret of test_secrets.py:")
    key.name = "STRIPE_KEY"
    assert key.shown == "STRIPE_KEY"


def test_a_copy_is_hidden_too() -> None:
    key = secret("sk_test_4242", only="api.test")
    assert repr(copy.deepcopy(key)) == repr(pickle.loads(pickle.dumps(key))) == "<secret>"


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("short12",), {}, ValueError),
        (("x" * 16_385,), {}, ValueError),
        ((b"sk_test_4242",), {}, TypeError),
        (("sk_test_4242", "https://api.test/"), {}, AddressError),
        (("sk_test_4242", [4]), {}, AddressError),
        (("sk_test_4242",), {"cleartext": "yes"}, TypeError),
    ],
)
def test_a_bad_argument_is_refused_without_the_value(
    arguments: Any, options: Any, error: type[Exception]
) -> None:
    count = len(MADE)
    with pytest.raises(error) as caught:
        secret(*arguments, **options)
    assert str(arguments[0]) not in str(caught.value)
    assert len(MADE) == count
