"""The user's part of a traceback: the part that a report shows, and where a debugger starts.

This module reads the interpreter's own values, and knows neither pytest nor a debugger.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any

from pytest_egress.base.callers import is_plumbing, is_users, package_of


def with_lines(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback, where an entry without a line has the last one before it in its code.

    Python 3.11 has instructions without a line, such as the jump at the end of many loops. An interrupt may come there.
    """
    entries = [*entries_of(traceback)]
    if all(entry.tb_lineno is not None for entry in entries):
        return traceback
    mended: TracebackType | None = None
    for entry in reversed(entries):
        line = entry.tb_lineno or last_line(entry.tb_frame.f_code, entry.tb_lasti)
        mended = TracebackType(mended, entry.tb_frame, entry.tb_lasti, line)
    return mended


def last_line(code: CodeType, offset: int) -> int:
    """The line of the last instruction up to an offset that has one, or else the first line of the code."""
    last = code.co_firstlineno
    for start, _, line in code.co_lines():
        if line and start <= offset:
            last = line
    return last


def is_of(entry: TracebackType, *packages: str) -> bool:
    return package_of(entry.tb_frame) in packages


def entries_of(traceback: TracebackType | None) -> Iterator[TracebackType]:
    """The outermost entry comes first."""
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def from_user(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the user's first frame on; None where it has no frame of the user's."""
    return next((entry for entry in entries_of(traceback) if not is_plumbing(entry.tb_frame)), None)


def last_of_user(traceback: TracebackType | None) -> TracebackType | None:
    """The innermost entry outside of this package: the user's, or of a library that the user called; else None."""
    return next(
        (e for e in reversed([*entries_of(traceback)]) if not is_plumbing(e.tb_frame)), None
    )


def raised_at(error: BaseException | None) -> str:
    """The innermost line of the user's that an exception has come through, `file.py:12`; "" where there is none."""
    entries = [*entries_of(error.__traceback__)] if error is not None else []
    entry = next((each for each in reversed(entries) if is_users(each.tb_frame)), None)
    if entry is None:
        return ""
    return f"{os.path.basename(entry.tb_frame.f_code.co_filename)}:{entry.tb_lineno}"


def users_part(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the user's first frame to the last; the entries after that are cut off, in place."""
    if (last := last_of_user(traceback)) is not None:
        last.tb_next = None
    return from_user(traceback)


def at_frame(frame: FrameType) -> TracebackType:
    """The frame's variables can still be read."""
    return TracebackType(None, frame, frame.f_lasti, frame.f_lineno or 0)


def code_of(function: object) -> CodeType | None:
    """The code object of a function, under its decorators; None for anything not written in Python as a function."""
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    return code if isinstance(code, CodeType) else None


class first_frame:  # used as a statement; a generator's frames would show in tracebacks
    """Records the first frame that runs a code object within the `with` block, on this thread, for debuggers.

    `sys.setprofile` finds it; a profiler that was set before is set again as soon as the frame begins. One that cannot
    be set again, as cProfile up to Python 3.11, is left alone, and no frame is found.
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
