"""`once_property`: a property whose value is made at its first use, and once, whichever threads ask at the same time.

Each property has a lock of its own, which is held while its value is made. A user's fixture may be what makes it
(`egress_ca`, `egress_docker_client`), and must not wait for another thread that needs the same value.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    once_property = functools.cached_property
else:

    class once_property:
        """`functools.cached_property` with a lock, which Python 3.12 removed, and without a frame in tracebacks."""

        def __init__(self, make: Callable[[Any], Any]) -> None:
            self._make = make
            self._making = threading.RLock()
            self.__doc__ = make.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: object, owner: type | None = None) -> Any:
            """The value, made under the lock at the first use. Later reads find it in the instance itself."""
            if instance is None:
                return self
            made = vars(instance)
            with self._making:
                if self._name not in made:
                    made[self._name] = self._make(instance)
                return made[self._name]
