"""Which paths of another machine are one, or in another."""

from __future__ import annotations

import pytest

from pytest_egress.base import paths


@pytest.mark.parametrize("path", ["/a/b", "a/b", "//a//b/", "/a/./b", "/a/c/../b", "/../a/b"])
def test_a_path_has_one_form(path: str) -> None:
    assert paths.normal(path) == "/a/b"


@pytest.mark.parametrize(
    ("path", "folder", "is_so"),
    [
        ("/a", "/a", True),
        ("/a/b", "/a", True),
        ("/a", "/", True),
        ("/", "/", True),
        ("/ab", "/a", False),
        ("/a", "/a/b", False),
    ],
)
def test_a_path_is_under_a_folder_by_whole_names(path: str, folder: str, is_so: bool) -> None:
    assert paths.is_under(path, folder) is is_so
    assert paths.is_within(path, ["/other", folder]) is is_so


def test_a_path_touches_what_it_is_in_and_what_is_in_it() -> None:
    assert all(paths.touches(path, ["/other", "/a/b"]) for path in ("/", "/a", "/a/b", "/a/b/c"))
    assert not paths.touches("/ab", ["/other", "/a/b"])
