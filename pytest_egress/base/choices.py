"""The words that options take which have a few values, as types and as values, and the check of a marker's keywords.

This module imports nothing that pytest has not imported: the plugin reads it in runs without containers too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

AcceptedKeywords: TypeAlias = "Mapping[str, tuple[Callable[[object], bool], str]]"
"""For each keyword: a function that accepts its values, and the values in words."""

Policy = Literal["fail", "block", "passthrough"]
POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)
"""The values of `unrouted=`: what happens to an attempt that no route claims."""

NamePolicy = Literal["synthetic", "strict"]
NAME_POLICIES: Final[tuple[NamePolicy, ...]] = get_args(NamePolicy)
"""The values of `dns=`: how DNS answers a name that no route names."""

LinkKind = Literal["descriptor", "stream"]
LinkChoice = Literal["auto", LinkKind]
LINKS: Final[tuple[LinkChoice, ...]] = get_args(LinkChoice)
"""The values of `--egress-link`: how a sidecar is reached. "auto" tries the others in order."""

RecordMode = Literal["none", "once", "new_episodes", "rewrite"]
RECORD_MODES: Final[tuple[RecordMode, ...]] = get_args(RecordMode)
"""The values of `--egress-record-mode`: when a cassette is recorded."""

SWITCH: Final = ("on", "off")
"""The values of `--egress-sidecar-reuse`: whether a sidecar serves several targets, one after the other."""

LOCK_MODES: Final = ("check", "update", "off")
"""The values of `--egress-lock`: whether what is not in `egress.lock` fails its test, or is written there."""


def alternatives(words: Sequence[str]) -> str:
    """For a sentence: "a, b or c"."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def union(words: Iterable[str]) -> str:
    """For a signature: `"a"|"b"`."""
    return "|".join(f'"{word}"' for word in words)


def check_keywords(
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
    accepted: AcceptedKeywords,
    shown: Callable[[object], str] = repr,
) -> None:
    """What is malformed raises TypeError or ValueError with the value, as `shown` has it, and what is accepted."""
    takes = f"it takes the keywords {', '.join(accepted)}"
    if args:
        raise TypeError(f"{shown(args[0])} needs a name; {takes}")
    for name, value in keywords.items():
        if name not in accepted:
            raise TypeError(f"it does not take {name}=; {takes}")
        accepts, words = accepted[name]
        if not accepts(value):
            raise ValueError(f"{name}={shown(value)}: it takes {words}")
