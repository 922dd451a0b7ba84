"""Old names of arguments: refused, with the new name in the message."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def refuse_renamed(given: Iterable[str], names: Mapping[str, str]) -> None:
    """Raise TypeError for an old name among those given; `names` has for each old name the code that replaces it."""
    for name in given:
        if name in names:
            raise TypeError(f"{name}= is {names[name]} now")


def renamed(
    **names: str,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Make a decorator that refuses old names of a function's keyword arguments; see `refuse_renamed`."""

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            refuse_renamed(kwargs, names)
            return function(*args, **kwargs)

        return called

    return decorate
