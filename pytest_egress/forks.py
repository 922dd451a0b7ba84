"""Forked children: they have no thread of ours, and a descriptor that they keep hides its end from its reader.

This module knows nothing of what is closed.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_children(owner: T, abandon: Callable[[T], object]) -> None:
    """Have every child that is forked from now on close its copies; a hook that keeps nothing alive.

    Args:
        owner: What holds descriptors.
        abandon: Closes those of `owner`, without a lock, which some thread of the parent may hold.
    """
    reference = weakref.ref(owner)

    def close_copies() -> None:
        if (alive := reference()) is not None:
            abandon(alive)

    os.register_at_fork(after_in_child=close_copies)
