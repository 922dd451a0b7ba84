"""`pytest-egress diff OLD NEW`: what differs between two locks, two images, or a lock and an image.

An image is run as `audit` runs it. Of two images all is compared that an audit says: whom they ask and how, where their
secrets go, and what they accept. Of a lock and an image the destinations are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pytest_egress.base.escaping import one_line
from pytest_egress.commands.order import Order
from pytest_egress.errors import LockFileError
from pytest_egress.evidence.lock import Lock, LockLine
from pytest_egress.evidence.summary import cell, code
from pytest_egress.traffic.shown import counted

DIFFERENT: Final = 1  # the exit code, as that of diff(1)
SHOWN: Final = 200  # changes: an image that makes names up is told of by a number
SHOWN_HOW: Final = 400  # characters of how something is, in a table
PLAIN: Final = ""
"""The value of what is there or not, and no more."""

Sides = tuple[Mapping[str, str], Mapping[str, str]]
"""What the old side and the new one have: how something is, by what it is."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A difference.

    Attributes:
        part: Where it belongs: an image, or a part of an audit.
        what: What is new, gone or changed.
        old: How it was; None where it was not.
        new: How it is; None where it is not any more.
    """

    part: str
    what: str
    old: str | None = None
    new: str | None = None

    @property
    def sign(self) -> str:
        return "+" if self.old is None else "-" if self.new is None else "!"

    @property
    def how(self) -> str:
        if self.old is not None and self.new is not None:
            return f"{self.old or 'yes'} -> {self.new or 'yes'}"
        return self.new or self.old or ""


def diff(old: str, new: str, order: Order, *, markdown: bool = False) -> int:
    """Print what has changed; return the exit code of the command.

    Args:
        old: A file that is a lock, else an image.
        order: How an image is run; its own image counts for nothing.

    Raises:
        LockFileError, ValueError: A lock cannot be read, or no image is to be run. An image raises what `audit` does.
    """
    found = [*changes(old, new, order)]
    lines = as_markdown(old, new, found) if markdown else as_text(found)
    hidden = order.redactor.hidden
    print(*map(hidden, lines), sep="\n", end="\n" if lines else "")
    return DIFFERENT if found else 0


def changes(old: str, new: str, order: Order) -> Iterator[Change]:
    locks = [lock_in(each) if is_file(each) else None for each in (old, new)]
    before, after = locks
    if before is not None and after is not None:
        if order.command or order.env:
            raise ValueError(
                "two locks are compared, and no image is run: leave -e and COMMAND out"
            )
        yield from between_locks(before, after)
        return
    from pytest_egress.commands.sides import audits, reached

    if before is None and after is None:
        parts = audits([replace(order, image=old), replace(order, image=new)])
        for part, sides in parts.items():
            yield from between(part, sides)
    else:
        lock, is_old = (before, True) if before is not None else (after, False)
        assert lock is not None
        image, found = reached(replace(order, image=new if is_old else old))
        yield from with_lock(image, lock, found, is_old=is_old)


def between(part: str, sides: Sides) -> Iterator[Change]:
    before, after = sides
    for what in sorted({*before, *after}):
        old, new = before.get(what), after.get(what)
        if old != new:
            yield Change(part=part, what=what, old=old, new=new)


def between_locks(old: Lock, new: Lock) -> Iterator[Change]:
    for line in sorted(old.lines ^ new.lines):
        yield in_lock(line, is_new=line in new.lines)


def with_lock(
    image: str, lock: Lock, found: Sequence[LockLine], *, is_old: bool
) -> Iterator[Change]:
    """What an image reaches that a lock does not list, and the other way round; its patterns cover what they match.

    What a lock lists as blocked is compared by its address: in an audit nothing is answered.
    """
    blocked = {line.where for line in lock.lines if (line.image, line.kind) == (image, "blocked")}
    extra = [each for each in found if not lock.covers(each) and each.where not in blocked]
    places = {each.where for each in found}
    gone = [
        each
        for each in lock.stale(found)
        if each.image == image and not (each.kind == "blocked" and each.where in places)
    ]
    for line in sorted({*extra, *gone}):
        yield in_lock(line, is_new=(line in extra) is is_old)


def in_lock(line: LockLine, *, is_new: bool) -> Change:
    what = f"{line.kind} {line.where}"
    old, new = (None, PLAIN) if is_new else (PLAIN, None)
    return Change(part=line.image, what=what, old=old, new=new)


def is_file(name: str) -> bool:
    return Path(name).is_file() or name.endswith((".lock", ".toml"))


def lock_in(file: str) -> Lock:
    """Raise LockFileError where it is none, which names the file."""
    try:
        return Lock.read(Path(file).read_text("utf-8"))
    except (LockFileError, OSError, UnicodeDecodeError) as error:
        raise LockFileError(f"{file}: {error}") from None


# Text.


def as_text(found: Sequence[Change]) -> list[str]:
    """A line for each change, below its part."""
    lines: list[str] = []
    part = None
    for change in found[:SHOWN]:
        if change.part != part:
            part = change.part
            lines += [*([""] if lines else []), one_line(part)]
        how = f"  {change.how}" if change.how else ""
        lines.append(one_line(f"{change.sign} {change.what}{how}"))
    if len(found) > SHOWN:
        lines.append(f"... {len(found) - SHOWN} more")
    return lines


def as_markdown(old: str, new: str, found: Sequence[Change]) -> list[str]:
    """A table for a comment on a pull request."""
    lines = [f"### Egress: {counted(len(found), 'change')} from {code(old)} to {code(new)}", ""]
    if not found:
        return lines[:1]
    lines += ["| | | what | how |", "|---|---|---|---|"]
    words = {"+": "new", "-": "gone", "!": "changed"}
    for change in found[:SHOWN]:
        how = cell(change.how, SHOWN_HOW)
        lines.append(
            f"| {words[change.sign]} | {cell(change.part)} | {code(change.what)} | {how} |"
        )
    if len(found) > SHOWN:
        lines.append(f"| | | and {len(found) - SHOWN} more | |")
    return lines
