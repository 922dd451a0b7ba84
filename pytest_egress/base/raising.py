"""Tells what an exception is about: who claims to have raised it, and what the function that raised it had at hand."""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType
from typing import Final

OWNER: Final = "_egress_owner"
"""The attribute of an exception for the object that raised it."""


def claim(error: BaseException, owner: object) -> None:
    """Note the object that has raised an exception."""
    setattr(error, OWNER, owner)


def is_claimed(error: BaseException, owner: object) -> bool:
    """Whether an object has raised an exception, by `claim`."""
    return getattr(error, OWNER, None) is owner


def at_hand(error: BaseException) -> Iterator[object]:
    """The local variables of the function that raised an exception, and the attributes of its `self`.

    Of asyncio's functions those that called it count too: a protocol has lost its transport by then, and its stream has
    not.
    """
    for frame in raising(error):
        yield from frame.f_locals.values()
        yield from attributes(frame.f_locals.get("self"))


def attributes(value: object) -> list[object]:
    """The values of an object's own attributes. Nothing of a value that stands for another one, as a proxy does."""
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
    outer = (at for at, frame in enumerate(frames) if not is_asyncio(frame))
    return frames[: max(next(outer, len(frames)), 1)]


def is_asyncio(frame: FrameType) -> bool:
    """Whether a frame runs code of asyncio."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "asyncio"
