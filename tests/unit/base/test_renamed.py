"""Old names of arguments, and what their callers are told."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from pytest_egress import Egress, reset
from pytest_egress.base.renamed import renamed
from pytest_egress.routes.declarations import declaring
from pytest_egress.routes.kinds import KINDS, PASSTHROUGH
from tests.support.routes import Routes


@renamed(handler="answer=")
def declare(address: str, answer: object = None) -> tuple[str, object]:
    """What is declared."""
    return address, answer


def test_a_function_with_an_old_name_is_what_it_was_but_for_that_name() -> None:
    assert declare("a.test", answer=503) == ("a.test", 503)
    assert (declare.__name__, declare.__doc__) == ("declare", "What is declared.")
    assert [*inspect.signature(declare).parameters] == ["address", "answer"]


def test_a_name_that_nobody_knows_is_refused_by_python() -> None:
    wrong: Any = declare
    with pytest.raises(TypeError, match="unexpected keyword argument 'status'"):
        wrong("a.test", status=503)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: wrong(declare)("a.test", handler=503), "handler= is answer= now"),
        (lambda: wrong(reset)(stream=True), "stream= is reset_stream() now"),
        (lambda: wrong(Routes().https().respond)(handler=503), "handler= is answer= now"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == text


def wrong(function: Any) -> Any:
    """A function, called as no type checker lets it be."""
    return function


@pytest.mark.parametrize("kind", [k for k in KINDS if k.has_handler], ids=lambda kind: kind.method)
def test_methods_and_markers_refuse_a_handler_by_its_old_name(kind: Any) -> None:
    with Egress() as egress:
        for declares in (getattr(egress, kind.method), declaring(kind)):
            with pytest.raises(TypeError, match=r"\Ahandler= is answer= now\Z"):
                declares("a.test", handler=503)


def test_a_kind_without_an_answer_takes_none_by_any_name() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        wrong(declaring(PASSTHROUGH))("a.test", handler=503)
