"""`Lock`: the destinations of images that a suite's owners have reviewed, as the file `egress.lock` lists them.

A lock is a set of lines, each an image, a kind and a destination. It is written in one order, a line each, so that
changes of two branches merge. What somebody has written by hand stays: patterns, which are never made, and comments.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, Final, NamedTuple

from pytest_egress.errors import AddressError, LockFileError
from pytest_egress.traffic.address import Address, parse_address
from pytest_egress.traffic.shown import host_port, shown

DIALLED: Final = ("https", "http", "tcp", "udp")
"""The kinds of what an image reaches, as `host:port`."""

KINDS: Final = (*DIALLED, "blocked", "names")
"""All kinds: besides, what a route or `unrouted="block"` refuses, and names that are looked up and never dialled."""

HEAD: Final = (
    "# Written by pytest --egress-lock=update. A new line is a new dependency: review it.\n"
)
CONFLICT: Final = re.compile(r"(?:<{7}|\|{7}|={7}|>{7})(?: |$)")
TABLE: Final = re.compile(r'\s*\[\s*(?:"([^"\\]*)"|([\w-]+))\s*\]')
KEY: Final = re.compile(r"\s*(\w+)\s*=\s*\[")
VALUE: Final = re.compile(r'\s*"([^"\\]*)"\s*,?\s*(#.*)?$')


class LockLine(NamedTuple):
    """One destination of one image."""

    image: str
    kind: str
    where: str

    def __str__(self) -> str:
        return f"{self.image}  {self.kind} {self.where}"


END: Final = LockLine("", "", "")
"""For the comments below the last line."""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What is listed.

    Attributes:
        lines: All lines, those with patterns too.
        comments: Of a line, of an image (its kind and destination are "") or of a kind of one (its destination is ""):
            the comments above it, and the one behind it.
    """

    lines: frozenset[LockLine] = frozenset()
    comments: Mapping[LockLine, tuple[str, ...]] = field(default_factory=dict, compare=False)

    @classmethod
    def read(cls, text: str) -> Lock:
        """The lock that a file has.

        Raises:
            LockFileError: It is none.
        """
        text = text.removeprefix("\ufeff")  # some editors begin a file with it
        for number, line in enumerate(text.splitlines(), 1):
            if CONFLICT.match(line):
                raise LockFileError(f"line {number} has a merge conflict: {shown(line)}")
        lines = frozenset(lines_in(loaded(text), text))
        return cls(lines=lines, comments=dict(comments_in(text, lines)))

    def text(self) -> str:
        """The content of the file. That of `Lock.read(lock.text())` is the same."""
        parts = [HEAD]
        for image in sorted({line.image for line in self.lines}):
            parts += ["\n", *self._above(LockLine(image, "", "")), f"[{quoted(image)}]\n"]
            for kind in sorted({line.kind for line in self.lines if line.image == image}):
                parts += [*self._above(LockLine(image, kind, "")), f"{kind} = [\n"]
                parts += self._values(image, kind)
                parts.append("]\n")
        below = self._above(END)
        return "".join([*parts, "\n", *below] if below else parts)

    def _values(self, image: str, kind: str) -> Iterator[str]:
        for line in sorted(self.lines):
            if (line.image, line.kind) == (image, kind):
                *above, behind = self.comments.get(line, ("",))
                yield from (f"    {comment}\n" for comment in above)
                yield f"    {quoted(line.where)},{f'  {behind}' if behind else ''}\n"

    def _above(self, at: LockLine) -> list[str]:
        return [f"{comment}\n" for comment in self.comments.get(at, ()) if comment]

    def covers(self, line: LockLine) -> bool:
        """Whether a destination is listed, by itself or by a pattern. A name that is dialled may be looked up too."""
        if line in self.lines:
            return True
        patterns = self._patterns.get(line.image, {})
        if line.kind == "names":
            return any(
                matches_name(address, line.where) for each in patterns.values() for address in each
            )
        host, port = host_and_port(line.where)
        return any(address.matches(host, port) for address in patterns.get(line.kind, ()))

    @cached_property
    def _patterns(self) -> dict[str, dict[str, list[Address]]]:
        """The addresses of an image by kind; a name that is no host is covered by itself alone."""
        found: dict[str, dict[str, list[Address]]] = {}
        for line in self.lines:
            address = address_in(line)
            if address is not None:
                found.setdefault(line.image, {}).setdefault(line.kind, []).append(address)
        return found

    def is_by_hand(self, line: LockLine) -> bool:
        """Whether a line is a pattern: none is ever made, so that somebody has written it."""
        address = address_in(line)
        return address is not None and (
            not address.is_exact or (line.kind in DIALLED and address.port is None)
        )

    def updated(
        self, found: Iterable[LockLine], *, is_whole: bool, new: Iterable[LockLine] = ()
    ) -> Lock:
        """With what a run has found.

        Args:
            new: Lines that were listed while the run went on, by another one or by hand: they stay.
            is_whole: Whether the run was of all tests, and green: then what nothing reached is taken out.
        """
        found = set(found)
        added = {line for line in found if not self.covers(line)}
        kept = self.lines - self.stale({*found, *new}) if is_whole else self.lines
        lines = kept | added
        dialled = {
            (line.image, host_and_port(line.where)[0]) for line in lines if line.kind in DIALLED
        }
        lines -= {
            line for line in lines if line.kind == "names" and (line.image, line.where) in dialled
        }
        return Lock(lines=frozenset(lines), comments=self.comments)

    def stale(self, found: Iterable[LockLine]) -> frozenset[LockLine]:
        """The lines that nothing has reached, without those by hand."""
        return frozenset(line for line in self.lines - set(found) if not self.is_by_hand(line))


def differences(old: Lock, new: Lock) -> list[str]:
    """What one lock has and the other has not, by image; empty where they are equal."""
    lines: list[str] = []
    changed = old.lines ^ new.lines
    for image in sorted({line.image for line in changed}):
        lines += ["", image] if lines else [image]
        lines += [
            f"{'+' if line in new.lines else '-'} {line.kind} {line.where}"
            for line in sorted(changed)
            if line.image == image
        ]
    return lines


# Reading.


def loaded(text: str) -> dict[str, Any]:
    toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        tables: dict[str, Any] = toml.loads(text)
    except toml.TOMLDecodeError as error:
        raise LockFileError(f"it is no TOML: {error}") from None
    except RecursionError:
        raise LockFileError("it is no lock: its lists are nested too deeply") from None
    return tables


def lines_in(tables: Mapping[str, Any], text: str) -> Iterator[LockLine]:
    for image, kinds in tables.items():
        if not image.isprintable():  # a line end in it would be a rule of its own in an export
            raise LockFileError(f"{shown(image)} is no name of an image")
        if ":" in image or "@" in image:
            raise LockFileError(
                f"{at(text, image)}[{quoted(image)}] has to be [{quoted(plain_name(image))}]: an image is listed "
                "without registry, tag and digest"
            )
        if not isinstance(kinds, dict):
            raise LockFileError(
                f"{at(text, image)}{shown(image)} is no table; an image is one, as [{quoted('acme/shop')}]"
            )
        for kind, values in kinds.items():
            if kind not in KINDS or not isinstance(values, list):
                raise LockFileError(
                    f"{at(text, kind)}{shown(kind)} of {shown(image)}: an image has lists named {', '.join(KINDS)}"
                )
            yield from (checked(image, kind, value, text) for value in values)


def plain_name(image: str) -> str:
    """The name of an image without registry, tag and digest: an update of it is no other image."""
    name = image.partition("@")[0]
    registry, slash, rest = name.partition("/")
    if slash and ("." in registry or ":" in registry or registry == "localhost"):
        name = rest
    folder, slash, short = name.rpartition("/")
    return f"{folder}{slash}{short.partition(':')[0]}".removeprefix("library/")


def checked(image: str, kind: str, value: Any, text: str) -> LockLine:
    """A line of the file; one that could never be reached raises."""
    where = f"{at(text, str(value))}{shown(value)} in {kind} of {shown(image)}"
    if not isinstance(value, str):
        raise LockFileError(f"{where} is no text, as {quoted('api.test:443')} is one")
    line = LockLine(image, kind, value)
    try:
        address = None if kind == "names" else parse_address(value, default_port=None)
    except AddressError as error:
        raise LockFileError(f"{where}: {error}") from None
    if address is not None and value not in (forms := forms_of(kind, address)):
        raise LockFileError(f"{where} has to be {quoted(forms[0])}, as the wire has it")
    return line


def forms_of(kind: str, address: Address) -> tuple[str, ...]:
    """How a destination may be written, the usual way first."""
    if kind == "blocked" and address.port is None:  # a packet has no port
        return host_port(address.host, None), str(address)
    return (str(address),)


def address_in(line: LockLine) -> Address | None:
    """None of a name that is no host, such as a target may look up."""
    try:
        return parse_address(line.where, default_port=None)
    except AddressError:
        return None


def matches_name(address: Address, name: str) -> bool:
    return address.matches(name, 0 if address.port is None else address.port)


def host_and_port(where: str) -> tuple[str, int]:
    """Those of `host:port`, as the ledger has them; 0 for none."""
    host, colon, port = where.rpartition(":")
    if not colon or not port.isdecimal() or (":" in host and not host.endswith("]")):
        return where.strip("[]"), 0
    return host.strip("[]"), int(port)


def at(text: str, word: str) -> str:
    """The number of the line that has a word, as the beginning of a sentence; "" where none has it."""
    numbers = (number for number, line in enumerate(text.splitlines(), 1) if word in line)
    number = next(numbers, None)
    return "" if number is None else f"line {number}: "


def comments_in(
    text: str, lines: frozenset[LockLine]
) -> Iterator[tuple[LockLine, tuple[str, ...]]]:
    """What somebody has written beside lines, as far as these are written as we do: one value a line."""
    image = kind = ""
    above: list[str] = []
    for each in text.splitlines():
        said = each.strip()
        if said.startswith("#"):
            above += [said] if f"{said}\n" != HEAD else []
            continue
        behind = ""
        if found := TABLE.match(each):
            image, kind = found[1] or found[2], ""
            line = LockLine(image, "", "")
        elif found := KEY.match(each):
            kind = found[1]
            line = LockLine(image, kind, "")
        elif found := VALUE.match(each):
            line, behind = LockLine(image, kind, found[1]), found[2] or ""
            if line not in lines:
                continue
        else:
            continue
        if above or behind:
            yield line, (*above, behind)
        above = []
    if above:
        yield END, tuple(above)


def quoted(text: str) -> str:
    """A basic string of TOML."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
