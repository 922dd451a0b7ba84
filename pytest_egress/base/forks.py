"""Closes inherited descriptors in forked children: a copy that stays open keeps the other end from seeing end of file.

A forked child has none of the threads that would close them. This module does not know what the descriptors are.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def close_in_forked_children(owner: T, abandon: Callable[[T], object]) -> None:
    """Close the copies of an owner's descriptors in every child forked from now on; the hook does not keep it alive.

    `abandon` closes them. It takes no lock: a thread of the parent may have held that at the fork.
    """
    reference = weakref.ref(owner)

    def close_copies() -> None:
        if (alive := reference()) is not None:
            abandon(alive)

    os.register_at_fork(after_in_child=close_copies)
