"""Closes descriptors in forked children: a copy that stays open hides the end of file from whoever reads the other end.

A child has no thread of ours that would close them. This module knows nothing of what is closed.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def close_in_forked_children(owner: T, abandon: Callable[[T], object]) -> None:
    """Have every child that is forked from now on close its copies; the hook keeps nothing alive.

    Args:
        owner: What holds descriptors.
        abandon: Closes those of `owner`, without a lock, which some thread of the parent may hold.
    """
    reference = weakref.ref(owner)

    def close_copies() -> None:
        if (alive := reference()) is not None:
            abandon(alive)

    os.register_at_fork(after_in_child=close_copies)
