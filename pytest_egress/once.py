"""What is made when it is first needed, and made once, whichever threads need it at the same time.

Each property has a lock of its own, which is held while its value is made. A user's fixture may make it (`egress_ca`,
`egress_docker_client`): it may not wait for another thread that needs the same.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    once_property = functools.cached_property
else:

    class once_property(functools.cached_property):
        """`functools.cached_property` with the lock that Python 3.12 took from it."""

        def __init__(self, make: Callable[[Any], Any]) -> None:
            super().__init__(make)
            self._making = threading.RLock()

        def __get__(self, instance: object, owner: type | None = None) -> Any:
            """What was made; once it is there, the instance has it without asking here."""
            with self._making:
                return super().__get__(instance, owner)
