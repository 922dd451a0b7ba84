"""The words that `unrouted=`, `dns=` and `link=` take, as types and as values.

This module imports nothing that pytest has not imported: the plugin reads it in runs without containers too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

Policy = Literal["fail", "block", "passthrough"]
POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)
"""What `unrouted=` takes: what an attempt means that no route claims."""

NamePolicy = Literal["synthetic", "strict"]
NAME_POLICIES: Final[tuple[NamePolicy, ...]] = get_args(NamePolicy)
"""What `dns=` takes: what DNS says of a name that no route names."""

LinkKind = Literal["descriptor", "stream"]
LinkChoice = Literal["auto", LinkKind]
LINKS: Final[tuple[LinkChoice, ...]] = get_args(LinkChoice)
"""What `--egress-link` takes: how a sidecar is reached. "auto" tries the others in order."""


def alternatives(words: Sequence[str]) -> str:
    """What an option takes, in words: "a, b or c"."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def union(words: Iterable[str]) -> str:
    """What an option takes, as a signature has it: `"a"|"b"`."""
    return "|".join(f'"{word}"' for word in words)
