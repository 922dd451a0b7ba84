"""Which part of a traceback is the user's: what a report shows, and where a debugger stands.

Values of the interpreter only: knows neither pytest nor a debugger.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any

from pytest_egress.base.callers import is_plumbing


def is_of(entry: TracebackType, *packages: str) -> bool:
    """Whether a frame is of one of some packages."""
    module = str(entry.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in packages


def entries_of(traceback: TracebackType | None) -> Iterator[TracebackType]:
    """Its entries, the outermost first."""
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def from_user(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame of the user's on; None where there is none."""
    return next((entry for entry in entries_of(traceback) if not is_plumbing(entry.tb_frame)), None)


def last_of_user(traceback: TracebackType | None) -> TracebackType | None:
    """The innermost entry that is the user's, or of what the user's code called; None where there is none."""
    return next(
        (e for e in reversed([*entries_of(traceback)]) if not is_plumbing(e.tb_frame)), None
    )


def users_part(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the first to the last frame of the user's; what follows is cut off."""
    if (last := last_of_user(traceback)) is not None:
        last.tb_next = None
    return from_user(traceback)


def at_frame(frame: FrameType) -> TracebackType:
    """A traceback that ends where a frame is, or has ended: its variables outlive it."""
    return TracebackType(None, frame, frame.f_lasti, frame.f_lineno or 0)


def code_of(function: object) -> CodeType | None:
    """The code of a function, under its decorators; None where it is written in no Python, or is no function."""
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    return code if isinstance(code, CodeType) else None


class first_frame:  # used as a statement; a generator's frames would show in tracebacks
    """Remember the first frame in which a code runs meanwhile on this thread, for a look at its variables afterwards.

    By `sys.setprofile`, until that frame begins. A profiler that runs is put back. One that cannot be, as cProfile up
    to Python 3.11, is left alone, and no frame is found.

    Attributes:
        found: The frame, or None.
    """

    def __init__(self, code: CodeType | None) -> None:
        self._code = code
        self._before: Callable[..., Any] | None = None
        self.found: FrameType | None = None

    def __enter__(self) -> first_frame:
        self._before = sys.getprofile()
        if self._code is not None and (self._before is None or callable(self._before)):
            sys.setprofile(self._note)
        return self

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is self._code:
            self.found = frame
            sys.setprofile(self._before)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(AttributeError):
            if sys.getprofile() == self._note:
                sys.setprofile(self._before)
