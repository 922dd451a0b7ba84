"""`Settings`: the arguments of `@pytest.mark.egress_sweep`, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pytest_egress.base.choices import AcceptedKeywords, alternatives, check_keywords
from pytest_egress.base.clock import is_seconds
from pytest_egress.sweep.calls import matches
from pytest_egress.sweep.faults import FAULTS, USUAL
from pytest_egress.traffic.shown import shown


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a test is swept.

    Attributes:
        faults: The ways in which calls fail, in the order of `FAULTS`.
        only: A glob for the calls that fail.
        tolerates: Globs for the calls that the test has to pass without.
        retries: Globs for the calls that have to be tried again.
        patience: Seconds that a run may take beyond the time of the happy path.
        limit: How many cells are run.
    """

    faults: Sequence[str] = USUAL
    only: str = "*"
    tolerates: Sequence[str] = ()
    retries: Sequence[str] = ()
    patience: float = 10
    limit: int = 200

    def unmatched(self, calls: Sequence[str]) -> Iterator[str]:
        """The globs that are for none of these calls, each as it is written."""
        for name in ("only", "tolerates", "retries"):
            value = getattr(self, name)
            for pattern in [value] if isinstance(value, str) else value:
                if not any(matches(pattern, call) for call in calls):
                    yield f"{name}={shown(value)}: {shown(pattern)}"

    def has_to_pass(self, call: str, *, is_tried_once_more: bool) -> bool:
        """Whether a test has to pass where a call fails, and the next, if there is one, works."""
        globs = [*self.tolerates, *(self.retries if is_tried_once_more else ())]
        return any(matches(pattern, call) for pattern in globs)


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def are_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(is_text, value))


def are_faults(value: object) -> bool:
    is_list = isinstance(value, (list, tuple)) and bool(value)
    return is_list and all(isinstance(each, str) and each in FAULTS for each in value)  # type: ignore[attr-defined]


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


GLOBS: Final = 'a list of globs, such as ["*.stripe.com/*"]'
ACCEPTED: Final[AcceptedKeywords] = {
    "faults": (are_faults, f"a list of {alternatives([*map(repr, FAULTS)])}"),
    "only": (is_text, 'a glob, such as "*.stripe.com/*"'),
    "tolerates": (are_texts, GLOBS),
    "retries": (are_texts, GLOBS),
    "patience": (is_seconds, "a number of seconds"),
    "limit": (is_count, "a number of cells over 0"),
}


def settings_of(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Settings:
    """The settings of a marker. A malformed one raises TypeError or ValueError with the value, and what is accepted."""
    check_keywords(arguments, options, ACCEPTED, shown)
    settings = Settings(**options)
    chosen = tuple(fault for fault in FAULTS if fault in settings.faults)
    return Settings(**{**options, "faults": chosen})
