"""What a run under a fault means: `letters_of` judges it, and `text_of` says what is wrong, and what to do.

A run is right where the test passes all the same, or where it fails and its container says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from pytest_egress.errors import EgressError, UnroutedError
from pytest_egress.traffic.shown import cut

Letters = Literal[
    "-", "HUNG", "STRAY", "CRASH", "ok", "ok?", "FAILS", "LIES", "MUTE", "err", "err?", "skip"
]

BAD: Final[Collection[str]] = ("HUNG", "STRAY", "CRASH", "FAILS", "LIES", "MUTE")
"""The letters of cells that fail."""

OF_SIGNAL: Final = 128
"""An exit code over this is that of a signal, and this."""

SHOWN_ERROR: Final = 200


class ContainerEnd(NamedTuple):
    """The end of a container."""

    exit_code: int
    has_spoken: bool


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """What came of a run under a fault.

    Attributes:
        met: How many calls met the fault.
        error: Why the test fails; None where it passes.
        offence: Why it fails for what its containers attempted, whatever it says by itself; None for no such reason.
        late: The containers that still ran when the time was over.
        waits: Whether a call that got no answer was still waited for.
        ended: The containers that have ended, by name.
        running: Those that still run.
        usual: The exit codes of the containers that ended on the happy path, by name.
        has_to_pass: Whether the test says that it has to pass, or judges by itself.
        is_unsure: Whether a call of an earlier run may have met the fault in place of one of this run.
    """

    met: int
    error: BaseException | None
    offence: EgressError | None
    late: Sequence[str]
    waits: bool
    ended: Mapping[str, ContainerEnd]
    running: Sequence[str]
    usual: Mapping[str, int]
    has_to_pass: bool
    is_unsure: bool = False


def letters_of(outcome: Aftermath) -> Letters:
    """The first that applies."""
    if not outcome.met:
        return "-" if outcome.error is None and outcome.offence is None else "FAILS"
    if outcome.late or outcome.waits:
        return "HUNG"
    if outcome.offence is not None:
        return "STRAY" if isinstance(outcome.offence, UnroutedError) else "FAILS"
    if crashed(outcome):
        return "CRASH"
    if outcome.error is None:
        return "ok?" if outcome.is_unsure else "ok"
    return "FAILS" if outcome.has_to_pass else letters_of_failure(outcome)


def letters_of_failure(outcome: Aftermath) -> Letters:
    """Those of a test that may fail, by what its containers have said."""
    if failed := failed_of(outcome):
        return "err" if any(ended.has_spoken for ended in failed) else "MUTE"
    if outcome.ended:
        return "LIES"
    return "err?" if outcome.running else "FAILS"


def failed_of(outcome: Aftermath) -> list[ContainerEnd]:
    """The ends of the containers that failed, and not as on the happy path."""
    return [
        ended
        for name, ended in outcome.ended.items()
        if ended.exit_code and ended.exit_code != outcome.usual.get(name)
    ]


def crashed(outcome: Aftermath) -> list[str]:
    """The containers that ended by a signal which did not end them on the happy path."""
    return [
        name
        for name, ended in outcome.ended.items()
        if ended.exit_code > OF_SIGNAL and ended.exit_code != outcome.usual.get(name)
    ]


def text_of(letters: Letters, outcome: Aftermath, seconds: float) -> str:
    """What is wrong, and what to do; "" where the error of the run says it.

    Args:
        seconds: How long the run was allowed to take.
    """
    names = ", ".join(outcome.ended)
    said = cut(f"{outcome.error}".partition("\n")[0], SHOWN_ERROR)
    why = f"{type(outcome.error).__name__}: {said}" if said else type(outcome.error).__name__
    if letters == "HUNG":
        late = ", ".join(outcome.late)
        what = f"{late} had not ended" if late else "its client still waited for an answer"
        return (
            f"{what} when the time was over: {seconds:.1f} s, of the happy path and patience=. Give its client a "
            "time-out, or, where it is meant to wait so long, raise patience="
        )
    if letters == "CRASH":
        codes = ", ".join(
            f"{name} exited with {outcome.ended[name][0]}" for name in crashed(outcome)
        )
        return f"{codes}, which is that of a signal"
    if letters == "LIES":
        is_zero = not any(ended.exit_code for ended in outcome.ended.values())
        code = "0" if is_zero else "that of the happy path"
        return (
            f"the exit code of {names} is {code}, and the test fails: {why}\nHave the image end with another code "
            "where the call fails; or, where this is meant, have the test ask egress.fault and judge it by itself"
        )
    if letters == "MUTE":
        return (
            f"{names} failed, and wrote nothing on stdout or stderr: whoever runs it cannot know why. The test fails: "
            f"{why}"
        )
    return ""
