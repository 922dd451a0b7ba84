"""Whose code a frame runs, wherever in the package a module stands."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import pytest_egress
from pytest_egress.base.callers import ROOT, caller, is_ours, is_plumbing, is_users, where_stands
from pytest_egress.routes.matching import Match
from tests.support.stage import SECONDS, eventually

FOLDER = Path(pytest_egress.__file__).parent


def defined_in(path: Path, source: str, **names: Any) -> dict[str, Any]:
    """What a module at a path defines."""
    module = {"__file__": str(path), "__name__": path.stem, **names}
    exec(compile(source, str(path), "exec"), module)
    return module


def frame_in(path: Path) -> FrameType:
    frame: FrameType = defined_in(path, "import sys\nframe = sys._getframe()")["frame"]
    return frame


@pytest.mark.parametrize(
    "path",
    [
        FOLDER / "egress.py",
        FOLDER / "agent" / "mux.py",
        FOLDER / "gateway" / "server.py",
        FOLDER / "plugin" / "__init__.py",
    ],
)
def test_what_stands_in_the_package_is_ours_however_deep(path: Path) -> None:
    frame = frame_in(path)
    assert (is_ours(frame), is_plumbing(frame), is_users(frame)) == (True, True, False)


@pytest.mark.parametrize(
    "path",
    [
        Path(__file__),
        FOLDER.parent / "agent" / "main.py",
        FOLDER.parent / "tests" / "test_shop.py",
        FOLDER.parent / "pytest_egress_of_ours" / "test_shop.py",
        FOLDER.with_suffix(".py"),
        FOLDER.parent / "shop" / "pytest_egress" / "test_shop.py",
    ],
)
def test_what_stands_beside_the_package_is_the_users(path: Path) -> None:
    frame = frame_in(path)
    assert (is_ours(frame), is_plumbing(frame)) == (False, False)
    assert is_users(frame) is ("site-packages" not in str(path))


def test_what_is_in_no_file_is_the_users() -> None:
    module: dict[str, Any] = {}
    exec("import sys\nframe = sys._getframe()", module)
    assert is_users(module["frame"])


def test_what_dataclasses_made_for_a_class_of_ours_is_ours() -> None:
    with pytest.raises(TypeError) as raised:
        Match(method=1)  # type: ignore[arg-type]
    traceback = raised.tb.tb_next
    assert traceback is not None
    assert traceback.tb_frame.f_code.co_filename == "<string>"
    assert is_ours(traceback.tb_frame)


def test_a_library_is_neither_ours_nor_the_users() -> None:
    for path in (Path(threading.__file__), Path(pytest.__file__)):
        assert (is_ours(frame_in(path)), is_users(frame_in(path))) == (False, False)


def test_the_root_is_the_packages_folder() -> None:
    assert f"{FOLDER}{os.sep}" == ROOT


def through_rooms() -> Callable[[Callable[..., Any]], Any]:
    """A function of ours that calls another, by one that stands in a room of the package."""
    in_room = defined_in(FOLDER / "routes" / "route.py", "def call(function): return function()")
    source = "def call(function): return inner(function)"
    call: Callable[..., Any] = defined_in(FOLDER / "egress.py", source, inner=in_room["call"])[
        "call"
    ]
    return call


def test_the_caller_is_the_nearest_that_is_not_ours() -> None:
    call, line = through_rooms(), sys._getframe().f_lineno
    assert call(caller) == f"{os.path.basename(__file__)}:{line + 1}"


def test_a_thread_stands_where_the_users_code_does() -> None:
    go_on, call = threading.Event(), through_rooms()

    def handler() -> None:
        call(go_on.wait)

    thread = threading.Thread(target=handler)
    thread.start()
    line = handler.__code__.co_firstlineno + 1
    try:
        assert eventually(
            lambda: where_stands(thread.ident) == f"{__file__}:{line} in handler: call(go_on.wait)"
        )
    finally:
        go_on.set()
        thread.join(SECONDS)
    assert where_stands(thread.ident) == ""
