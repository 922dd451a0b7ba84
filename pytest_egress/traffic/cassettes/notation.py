"""The notation of a cassette: YAML in which a value is what JSON has, and every other text is a text.

`RESOLVERS` alone says what a text without quotes is. Reading and writing both ask it, so that `no`, `2026-12-01`,
`12:30:45`, `1_000` and `=` stay the texts that they look like. There are no aliases, no tags, and no second document.

What is written is made here, not by PyYAML: its C library and its Python code write different lines, and the same
recording has to give the same bytes on every machine. `yaml` is imported when a file is read.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.shown import shown

WIDTH: Final = 90  # of a value on one line, with what is before it
MAX_ALIASED: Final = 1_000_000  # values that the aliases of a file stand for
MAX_DEPTH: Final = 64  # of a value: a body of JSON that is deeper is written as text
LONGEST_KEY: Final = 100  # of a key without a mark of its own, of which YAML allows 1,024

INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,1000})\Z")
NUMBER: Final = re.compile(
    r"-?(?:0|[1-9][0-9]{0,1000})(?:\.[0-9]{1,1000})?(?:[eE][+-]?[0-9]{1,4})?\Z"
)
RESOLVERS: Final[tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...]] = (
    (re.compile(r"null\Z"), lambda _: None),
    (re.compile(r"true\Z"), lambda _: True),
    (re.compile(r"false\Z"), lambda _: False),
    (INTEGER, int),
    (NUMBER, float),
)
"""What a text without quotes is, where it is no text: the first that matches counts."""

PLAIN: Final = re.compile(
    r"[A-Za-z0-9_/<.(+$^=](?:[A-Za-z0-9_/<>.()+$^=~@;*&!%|' -]|:(?=[^ :]))*\Z"
)
ESCAPED: Final = re.compile(
    '[\x00-\x1f"\\\\\x7f-\xa0\xad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ud800-\udfff\ufeff\ufff0-\uffff'
    "\U000e0000-\U000e0fff]"
)
"""What is escaped in quotes: controls, what turns the direction of a text, and what is not seen."""

NOT_IN_BLOCKS: Final = re.compile(
    ESCAPED.pattern.replace('"\\\\', "").replace("\x00-\x1f", "\x00-\x08\x0b-\x1f")
)
SHORT_ESCAPES: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
CONFLICT: Final = re.compile(r"^(?:<{7}|={7}|>{7}|\|{7})(?: |$)", re.MULTILINE)
BINARY: Final = "tag:yaml.org,2002:binary"
TEXTS: Final = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:python/unicode")


class Table(dict[Any, Any]):
    """A mapping that was read, with the line where it begins, and those of its keys."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[Any, int] = {}


# Reading.


def load(text: str, name: str, *, of_others: bool = False) -> Any:
    """The value of a text; mappings are a `Table`.

    Args:
        name: Of the file, for errors.
        of_others: Whether another tool has written it: then aliases, and bytes with the tag `!!binary`, are read.

    Raises:
        CassetteError: The text is none of this notation; the error has the line.
    """
    if (conflict := CONFLICT.search(text)) is not None:
        line = text.count("\n", 0, conflict.start()) + 1
        raise CassetteError(
            f"{name}: line {line} has a merge conflict ({conflict[0].strip()}): keep the interactions of both "
            "sides, or record it again"
        )
    yaml = library(name)
    try:
        return Builder(name, of_others=of_others).build(yaml.parse(text, Loader=loader(yaml)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise CassetteError(f"{name}: {where}this is no YAML: {problem}") from None


def library(name: str) -> Any:
    """PyYAML. Where it is not installed, a CassetteError says what to type."""
    try:
        import yaml
    except ImportError:
        raise CassetteError(
            f"{name}: cassettes are read by PyYAML, which is not installed: pip install 'pytest-egress[cassettes]'"
        ) from None
    return yaml


def loader(yaml: Any) -> Any:
    """The parser, by libyaml where there is one: it takes a fifth of the time."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Builder:
    """Makes a value of the events of a parser. Nesting is no recursion."""

    def __init__(self, name: str, *, of_others: bool) -> None:
        self._name, self._of_others = name, of_others
        self._open: list[Any] = []
        self._keys: list[Any] = []
        self._anchors: dict[str, Any] = {}
        self._sizes: dict[
            str, int
        ] = {}  # of what has an anchor and has ended, with what its own aliases stand for
        self._begun: list[tuple[str | None, int]] = []
        self._size = 0
        self._aliased = 0
        self._root: list[Any] = []

    def build(self, events: Iterator[Any]) -> Any:
        for event in events:
            take = getattr(self, f"_take_{type(event).__name__}", None)
            if take is not None:
                take(event)
        return self._root[0] if self._root else None

    def _fail(self, event: Any, what: str) -> CassetteError:
        return CassetteError(f"{self._name}: line {event.start_mark.line + 1}: {what}")

    def _take_DocumentStartEvent(self, event: Any) -> None:
        if self._root:
            raise self._fail(event, "a second document begins here, and a cassette is one")

    def _take_AliasEvent(self, event: Any) -> None:
        if not self._of_others:
            raise self._fail(event, f"an alias, *{event.anchor}: a cassette has none; write it out")
        if event.anchor not in self._anchors:
            raise self._fail(event, f"*{event.anchor} is used before &{event.anchor}")
        if event.anchor not in self._sizes:
            raise self._fail(event, f"*{event.anchor} is used within &{event.anchor}")
        self._size += self._sizes[event.anchor]
        self._aliased += self._sizes[event.anchor]
        if self._aliased > MAX_ALIASED:
            raise self._fail(event, f"its aliases stand for more than {MAX_ALIASED:,} values")
        self._put(event, self._anchors[event.anchor])

    def _take_ScalarEvent(self, event: Any) -> None:
        value: Any = event.value
        if event.tag is not None:
            value = self._of_tag(event)
        elif event.implicit[0] and not event.style:
            value = resolved(event.value)
            if isinstance(value, float) and not math.isfinite(value):
                raise self._fail(event, f"the number {event.value} is too large: put it in quotes")
        self._note_anchor(event, value)
        self._put(event, value)

    def _of_tag(self, event: Any) -> Any:
        if self._of_others and event.tag == BINARY:
            try:
                return base64.b64decode("".join(event.value.split()), validate=True)
            except ValueError:
                raise self._fail(event, "what has the tag !!binary is no base64") from None
        if self._of_others and event.tag in TEXTS:
            return event.value
        raise self._fail(event, f"the tag {event.tag}: a cassette has none")

    def _note_anchor(self, event: Any, value: Any) -> None:
        if event.anchor is None:
            return
        if not self._of_others:
            raise self._fail(event, f"an anchor, &{event.anchor}: a cassette has none")
        self._anchors[event.anchor] = value
        if isinstance(value, (dict, list)):
            self._sizes.pop(event.anchor, None)  # until it has ended
        else:
            self._sizes[event.anchor] = 1

    def _take_MappingStartEvent(self, event: Any) -> None:
        self._begin(event, Table(event.start_mark.line + 1))

    def _take_SequenceStartEvent(self, event: Any) -> None:
        self._begin(event, [])

    def _begin(self, event: Any, container: Any) -> None:
        if event.tag is not None:
            raise self._fail(event, f"the tag {event.tag}: a cassette has none")
        if len(self._open) == MAX_DEPTH + 8:
            raise self._fail(event, f"this is nested more than {MAX_DEPTH} deep")
        self._note_anchor(event, container)
        self._put(event, container)
        self._begun.append((event.anchor, self._size))
        self._open.append(container)
        self._keys.append(NO_KEY)

    def _take_MappingEndEvent(self, event: Any) -> None:
        anchor, before = self._begun.pop()
        if anchor is not None:
            self._sizes[anchor] = self._size - before + 1
        self._open.pop()
        self._keys.pop()

    _take_SequenceEndEvent = _take_MappingEndEvent

    def _put(self, event: Any, value: Any) -> None:
        self._size += 1
        if not self._open:
            self._root.append(value)
        elif isinstance(self._open[-1], list):
            self._open[-1].append(value)
        elif self._keys[-1] is NO_KEY:
            self._take_key(event, value)
        else:
            self._open[-1][self._keys[-1]] = value
            self._keys[-1] = NO_KEY

    def _take_key(self, event: Any, key: Any) -> None:
        table = self._open[-1]
        if isinstance(key, (dict, list)):
            raise self._fail(event, "a key is a text, and not a list or a mapping")
        if not isinstance(key, str):
            key = event.value  # the names of JSON are texts
        if key in table:
            raise self._fail(event, f"the key {shown(key)} is there twice")
        table.lines[key] = event.start_mark.line + 1
        self._keys[-1] = key


NO_KEY: Final = object()


def resolved(text: str) -> Any:
    """What a text without quotes is: null, true, false, a number as JSON writes it, or this text."""
    for pattern, make in RESOLVERS:
        if pattern.match(text):
            return make(text)
    return text


# Writing.


def dump(value: Any) -> str:
    """The lines of a value; a mapping keeps the order of its keys.

    Raises:
        ValueError: A text has a surrogate alone, or a number is infinite or none, which JSON has not.
    """
    lines: list[str] = []
    put_value(lines, "", value, 0)
    return "".join(f"{line}\n" for line in lines)


def put_value(lines: list[str], prefix: str, value: Any, column: int) -> None:
    """Write a value after `prefix`: a key with its colon, a dash, or nothing.

    Args:
        column: Where that key or dash begins.
    """
    space = " " if prefix.strip() else ""
    if isinstance(value, str) and is_block(value):
        put_block(lines, f"{prefix}{space}", value, column)
    elif isinstance(value, dict) and len(value) == 1 and prefix.endswith("-"):
        put_mapping(lines, prefix, value, column)
    elif (text := on_one_line(value, WIDTH - len(prefix) - 1)) is not None:
        lines.append(f"{prefix}{space}{text}")
    elif not isinstance(value, (dict, list)):
        lines.append(f"{prefix}{space}{scalar(value)}")
    elif isinstance(value, dict):
        put_mapping(lines, prefix, value, column)
    else:
        put_list(lines, prefix, value, column)


def put_mapping(lines: list[str], prefix: str, value: dict[Any, Any], column: int) -> None:
    lead = f"{prefix} " if prefix.endswith("-") else ""
    if prefix and not lead:
        lines.append(prefix)
    inner = len(lead) if lead else column + 2 if prefix else column
    for key, each in value.items():
        begin = lead or " " * inner
        lead = ""
        name = scalar(str(key))
        if len(name) > LONGEST_KEY:
            lines.append(f"{begin}? {name}")
            put_value(lines, f"{' ' * inner}:", each, inner)
        else:
            put_value(lines, f"{begin}{name}:", each, inner)


def put_list(lines: list[str], prefix: str, value: list[Any], column: int) -> None:
    lead = f"{prefix} " if prefix.endswith("-") else ""
    if prefix and not lead:
        lines.append(prefix)
    inner = len(lead) if lead else column
    for each in value:
        put_value(lines, f"{lead or ' ' * inner}-", each, inner)
        lead = ""


def is_block(text: str) -> bool:
    """Whether a text is written line by line: it has several, and nothing that only quotes keep."""
    inner = text.removesuffix("\n")
    return "\n" in inner and not inner.endswith("\n") and not NOT_IN_BLOCKS.search(text)


def put_block(lines: list[str], prefix: str, text: str, column: int) -> None:
    mark = "|" if text.endswith("\n") else "|-"
    if text[0] in " \n\t":
        mark = mark.replace("|", "|2")
    lines.append(f"{prefix}{mark}")
    margin = " " * (column + 2)
    lines.extend(margin + line if line else "" for line in text.removesuffix("\n").split("\n"))


def on_one_line(value: Any, room: int) -> str | None:
    """None where there is no room for it, or it has texts of several lines."""
    if isinstance(value, str):
        if len(value) > room or is_block(value):
            return None
        text = scalar(value)
    elif isinstance(value, dict):
        return joined("{", (pair_on_one_line(*pair, room) for pair in value.items()), "}", room)
    elif isinstance(value, list):
        return joined("[", (on_one_line(each, room) for each in value), "]", room)
    else:
        text = scalar(value)
    return text if len(text) <= room else None


def pair_on_one_line(key: Any, value: Any, room: int) -> str | None:
    text = on_one_line(value, room)
    return None if text is None else f"{scalar(str(key))}: {text}"


def joined(begin: str, parts: Iterator[str | None], end: str, room: int) -> str | None:
    found, size = [], len(begin) + len(end)
    for part in parts:
        if part is None or (size := size + len(part) + 2) > room + 2:
            return None
        found.append(part)
    return f"{begin}{', '.join(found)}{end}"


def scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if value in (float("inf"), float("-inf")) or value != value:
            raise ValueError(f"{value!r} is no number of JSON")
        return repr(value)
    return quoted(value)


def quoted(text: str) -> str:
    """A text, in quotes where it would be read as anything else without."""
    is_plain = PLAIN.match(text) and not text.endswith((" ", ":")) and not CONFLICT.match(text)
    if is_plain and isinstance(resolved(text), str):
        return text
    if "'" not in text and not NOT_IN_BLOCKS.search(text) and not {"\n", "\t"} & {*text}:
        return f"'{text}'" if {'"', "\\"} & {*text} else f'"{text}"'
    return f'"{ESCAPED.sub(lambda found: escape(found[0]), text)}"'


def escape(character: str) -> str:
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        raise ValueError("a surrogate alone cannot be written")
    if character in SHORT_ESCAPES:
        return SHORT_ESCAPES[character]
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
