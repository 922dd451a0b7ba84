"""Tells what an exception is about: who claims to have raised it, and what the function that raised it had at hand."""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType
from typing import Final

from pytest_egress.base.callers import package_of

MARK: Final = "_egress_mark"
"""The attribute of an exception for the mark of who raised it."""


def claim(error: BaseException, mark: object) -> None:
    """`mark` is a bare `object()` of the claimant: an exception can be pickled, and keeps nothing alive."""
    setattr(error, MARK, mark)


def is_claimed(error: BaseException, mark: object) -> bool:
    return getattr(error, MARK, None) is mark


def at_hand(error: BaseException) -> Iterator[object]:
    """The local variables of the function that raised an exception, and the attributes of its `self`.

    Of asyncio's functions those that called it count too: a protocol has lost its transport by then, and its stream has
    not.
    """
    for frame in raising(error):
        yield from frame.f_locals.values()
        yield from attributes(frame.f_locals.get("self"))


def attributes(value: object) -> list[object]:
    """A value that stands for another one, as a proxy does, has none."""
    try:
        return list(object.__getattribute__(value, "__dict__").values())
    except AttributeError:
        return []


def raising(error: BaseException) -> list[FrameType]:
    """The frames of the functions that raised an exception, the innermost first; one, but for asyncio's."""
    frames: list[FrameType] = []
    trace = error.__traceback__
    while trace is not None:
        frames.insert(0, trace.tb_frame)
        trace = trace.tb_next
    outer = (at for at, frame in enumerate(frames) if package_of(frame) != "asyncio")
    return frames[: max(next(outer, len(frames)), 1)]


def said_of(value: object) -> str:
    """The text of an exception, or of another value that a test has made.

    Its `__str__` may raise, or return lone surrogates, which cannot be encoded.
    """
    try:
        said = str(value)
    except Exception as failure:
        said = f"its __str__ raised {type(failure).__name__}"
    return said.encode(errors="backslashreplace").decode()
