"""Paths of a container, or of an engine's machine: compared as texts, since they are on another machine."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable


def normal(path: str) -> str:
    return posixpath.normpath(f"/{path.lstrip('/')}")


def is_within(path: str, folders: Iterable[str]) -> bool:
    return any(is_under(path, folder) for folder in folders)


def touches(path: str, others: Iterable[str]) -> bool:
    """Whether a path is one of others, has one in it, or is in one."""
    return any(is_under(path, each) or is_under(each, path) for each in others)


def is_under(path: str, folder: str) -> bool:
    """Whether a path is a folder, or in it."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")
