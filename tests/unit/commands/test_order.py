"""What a user has asked to be run, read from the command line."""

from __future__ import annotations

import pytest

from pytest_egress.commands.order import order_of, without_secrets


def test_a_variable_without_a_value_has_the_one_that_it_has_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STRIPE_KEY", "sk_test_4242")
    order = order_of("shop", ["--", "sh", "-c", "true"], ["STRIPE_KEY", "MODE=a=b"], 5)
    assert order.env == {"STRIPE_KEY": "sk_test_4242", "MODE": "a=b"}
    assert order.named == {"STRIPE_KEY"}
    assert order.command == ("sh", "-c", "true")


@pytest.mark.parametrize(
    ("variable", "said"),
    [("NOT_SET_HERE", "-e NOT_SET_HERE: it is not set here"), ("=value", "-e takes NAME=VALUE")],
)
def test_a_variable_that_is_none_is_refused(variable: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        order_of("shop", [], [variable], 5)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="timeout=nan"):
        order_of("shop", [], [], float("nan"))


def test_a_text_about_it_has_no_secret_of_it() -> None:
    order = order_of("shop", [], ["API_KEY=Zx81-ab-cdef-0123"], 5)
    said = without_secrets(order, "cannot run ['--key', 'Zx81-ab-cdef-0123'], token=abcdefghijk")
    assert "Zx81" not in said
    assert "<API_KEY>" in said
    assert "abcdefghijk" not in said
