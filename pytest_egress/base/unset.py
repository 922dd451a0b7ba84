"""`UNSET`: the value of an argument that was not given, where None means something."""

from __future__ import annotations

from typing import Final


class Unset:
    """The type of `UNSET`, which tells "not given" from None (JSON's null)."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
