"""Tells whose code a frame runs: this package's, a library's or the user's.

Code is this package's where its module is in the package's folder, at any depth. Frames of other threads are read
while those threads go on running.
"""

from __future__ import annotations

import gc
import inspect
import linecache
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from types import AsyncGeneratorType, CoroutineType, FrameType
from typing import Any, Final

ROOT: Final = os.path.join(sys.modules[__name__.partition(".")[0]].__path__[0], "")
STANDARD_LIBRARY: Final = os.path.dirname(os.__file__)
FRAMEWORKS: Final = tuple(f"{os.sep}{name}{os.sep}" for name in ("_pytest", "pluggy"))


def is_ours(frame: FrameType) -> bool:
    """A method that `dataclasses` generated, which is in no file, is ours too."""
    return str(frame.f_globals.get("__file__", "")).startswith(ROOT)


def is_users(frame: FrameType) -> bool:
    path = frame.f_code.co_filename
    is_of_library = path.startswith(STANDARD_LIBRARY) or "site-packages" in path
    return not is_of_library and not is_ours(frame)


def is_plumbing(frame: FrameType) -> bool:
    """A handler's event loop runs in asyncio, the pool that starts sidecars in concurrent.futures."""
    return is_ours(frame) or package_of(frame) in ("asyncio", "concurrent")


def package_of(frame: FrameType) -> str:
    """The top-level package, or module, whose code a frame runs."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def hide_from_tracebacks() -> None:
    """Have pytest's tracebacks end at the user's line, unless `--full-trace` is given.

    The hooks and fixtures of the plugin stay visible: an error of a fixture has no line of the user's.
    """
    package = __name__.partition(".")[0]
    for name, module in [*sys.modules.items()]:
        if name.startswith(f"{package}.") and not name.startswith(f"{package}.plugin"):
            vars(module).setdefault("__tracebackhide__", True)


def caller() -> str:
    """The nearest calling line outside of this package, `file.py:12`; "" where it is a test framework's (a marker)."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_ours(frame):
        frame = frame.f_back
    path = frame.f_code.co_filename
    if any(part in path for part in FRAMEWORKS):
        return ""
    return f"{os.path.basename(path)}:{frame.f_lineno}"


def sources_of_users() -> Iterator[str]:
    """The texts of the files of the user's code that has called, each once; "" for what is in no file."""
    calling = (frame for frame, _ in traceback.walk_stack(sys._getframe(1)))
    paths = {frame.f_code.co_filename for frame in calling if is_users(frame)}
    return ("".join(linecache.getlines(path)) for path in paths)


def where_stands(ident: int | None) -> str:
    """The innermost line of the user's code that a thread runs, or else of any code; "" when the thread has ended."""
    frame = sys._current_frames().get(ident or 0)
    if frame is None:
        return ""
    stack = [*traceback.walk_stack(frame)]  # the innermost first
    inner = (place for place in (*stack, *awaited_on(stack)) if is_users(place[0]))
    (line,) = traceback.StackSummary.extract([next(inner, stack[0])])
    return f"{line.filename}:{line.lineno} in {line.name}: {line.line or ''}".rstrip(": ")


Place = tuple[FrameType, int]
"""A frame, and its line."""


def awaited_on(stack: Iterable[Place]) -> Iterator[Place]:
    """Where the tasks of ours on an event loop are suspended, of each task the innermost frame first.

    The loop is the thread's own, or another thread's on whose task it waits by a future that has it as `task`.
    """
    import asyncio  # whoever waits on a loop has it

    packages = {"asyncio", "concurrent.futures"}
    frames_of_loops = (f for f, _ in stack if f.f_globals.get("__package__") in packages)
    selves = [frame.f_locals.get("self") for frame in frames_of_loops]
    loop = next((each for each in selves if isinstance(each, asyncio.AbstractEventLoop)), None)
    tasks = set() if loop is None else asyncio.all_tasks(loop)
    awaited = {getattr(each, "task", None) for each in selves}
    for task in tasks | {each for each in awaited if isinstance(each, asyncio.Task)}:
        frames = [*suspended_frames(task.get_coro())]
        if frames and is_ours(frames[0]):  # else the user has begun it beside
            yield from ((frame, frame.f_lineno) for frame in reversed(frames))


def suspended_frames(awaitable: Any) -> Iterator[FrameType]:
    """The frames of a coroutine or an async generator, and of what it awaits; the innermost last."""
    while awaitable is not None:
        if isinstance(awaitable, CoroutineType):
            frame, inner = awaitable.cr_frame, awaitable.cr_await
        elif isinstance(awaitable, AsyncGeneratorType):
            frame, inner = awaitable.ag_frame, awaitable.ag_await
        else:  # what `__anext__` gives does not tell its generator in any other way
            parts = gc.get_referents(awaitable) if inspect.isawaitable(awaitable) else ()
            frame, inner = None, next((p for p in parts if isinstance(p, AsyncGeneratorType)), None)
        if frame is not None:
            yield frame
        awaitable = inner
