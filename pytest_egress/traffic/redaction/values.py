"""Known values: the forms in which programs write a secret, and the search for all of them at once.

The search takes time linear in the text, whatever that is, and however many values there are.
"""

from __future__ import annotations

import base64
import html
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Final, NamedTuple
from urllib.parse import quote, quote_plus, unquote, urlsplit

from pytest_egress.traffic.redaction.names import is_of_a_place

SHORT: Final = (
    8  # characters of a value that is hidden where it has two kinds of them; no form is shorter
)
PIECE: Final = 5  # characters that are looked up at once
STRIDE: Final = SHORT - PIECE + 1  # from one piece to the next
LONG: Final = 16  # of a value that is hidden whatever its characters
KINDS: Final = tuple(map(re.compile, ("[a-z]", "[A-Z]", "[0-9]", "[^a-zA-Z0-9]")))
BROKEN: Final = (
    6  # characters at the end of a text that was cut which may be the beginning of a form
)
LONGEST_BROKEN: Final = 4096  # and so many of them are looked at
IN_HOSTS: Final = re.compile(r"[A-Za-z0-9_.-]+")
URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
ESCAPES: Final = re.compile(
    r"(?:%|\\x)([2-9A-Fa-f][0-9A-Fa-f])|\\u(?!00[01])([0-9A-Fa-f]{4})|\\([^\w\s])"
)
"""A character of a URL, of Python's bytes, of JSON, and of any string or pattern; a control character stays escaped."""

MOST_UNESCAPED: Final = 1 << 20  # characters of a text that are searched without their escapes
ESCAPED: Final = 4  # times over: the repr of JSON in JSON

HEX_OF_PERCENT: Final = re.compile("%[0-9A-F]{2}")
FILE: Final = re.compile(r"/(?:run/secrets/\S+|(?:[\w@-][\w.@-]*/)+[\w@-][\w.@-]*\.\w{1,5})")
"""A file with a secret, such as that of GOOGLE_APPLICATION_CREDENTIALS; no base64 has a dot."""

ARMOUR: Final = re.compile(r"[A-Za-z0-9+/=]{32,}")  # a whole line of base64
KEY_LINE: Final = re.compile(r"[A-Za-z0-9+/=]{8,}")  # of a key in PEM (RFC 7468), the last one too
CODE: Final = re.compile(r"[A-Za-z_]{1,40}(?:\.[A-Za-z_]{1,40})+")
"""The name of a class or module, such as a setting has: "django.contrib.sessions.backends.db"."""

PLAIN_WORDS: Final = re.compile(r"[a-z]+(?:[_.:-][a-z]+)*")


def is_worth_hiding(value: str) -> bool:
    """Whether a value is no common word: `POSTGRES_PASSWORD=postgres` hides no host of that name."""
    kinds = sum(kind.search(value) is not None for kind in KINDS)
    return len(value) >= LONG or (len(value) >= SHORT and kinds > 1)


def secrets_of(variable: str, value: str, *, is_named: bool) -> Iterator[str]:
    """The parts of a variable's value that are secrets.

    The password in a URL is one whatever the variable is called. The rest of the URL before its path is none, so that
    a report still says which host was asked.

    Args:
        is_named: Whether the name says that the value is a secret.
    """
    if URL.match(value):
        yield from password_in(value)
        if not is_named or is_of_a_place(variable):
            return
        value = value.partition("://")[2].partition("/")[2]
    elif not is_named or is_of_a_place(variable):
        return
    if FILE.fullmatch(value) or CODE.fullmatch(value):
        return
    value = value.strip()
    yield value
    if "\n" in value:  # programs print a key in PEM line by line
        yield from (line.strip() for line in value.splitlines() if KEY_LINE.fullmatch(line.strip()))


def password_in(url: str) -> Iterator[str]:
    try:
        password = urlsplit(url).password
    except ValueError:
        return
    if password:
        yield from {password: None, unquote(password): None}


def forms(value: str) -> Iterator[tuple[str, str]]:
    """A value as programs write it, each with how: "" as it is, percent-encoded, escaped, in hex, in base64, ..."""
    data = value.encode("utf-8", "surrogatepass")
    yield value, ""
    for each in percent_forms(data):
        yield each, "percent-encoded"
    for each in escaped_forms(value):
        yield each, ESCAPED_SOMEHOW
    yield data.hex(), "in hex"
    yield data.hex().upper(), "in hex"
    yield quoted_printable(data), "quoted-printable"
    for each in base64_forms(data):
        yield each, "in base64"
    if IN_HOSTS.fullmatch(value):  # a name of DNS is told in lower case
        yield value.lower(), ""


ESCAPED_SOMEHOW: Final = "escaped"


def percent_forms(data: bytes) -> Iterator[str]:
    of_javascript = quote_plus(data, safe="*").replace(
        "~", "%7E"
    )  # URLSearchParams, and Java's URLEncoder
    for encoded in {
        *(quote(data, safe=""), quote(data), quote_plus(data), quote(data, "!'()*"), of_javascript)
    }:
        yield encoded
        yield HEX_OF_PERCENT.sub(lambda found: found[0].lower(), encoded)


def quoted_printable(data: bytes) -> str:
    return "".join(f"={byte:02X}" if byte > 126 or byte == ord("=") else chr(byte) for byte in data)


def escaped_forms(value: str) -> Iterator[str]:
    r"""In JSON, whose encoders escape more or less (`\/` of PHP, `\u003c` of Go, `\u003d` of Gson), Python and XML."""
    for ascii_alone in (True, False):
        inner = json.dumps(value, ensure_ascii=ascii_alone)[1:-1]
        yield inner
        yield inner.replace("/", "\\/")
        yield by_codes(inner, "<>&")
        yield by_codes(inner, "<>&='")
    yield repr(value)[1:-1]
    yield html.escape(value, quote=False)
    yield html.escape(value)


def by_codes(text: str, characters: str) -> str:
    return text.translate({ord(each): f"\\u{ord(each):04x}" for each in characters})


def base64_forms(data: bytes) -> Iterator[str]:
    """In both alphabets (RFC 4648), at each of three offsets, without the characters that neighbours decide too."""
    for before, skipped in ((0, 0), (1, 2), (2, 3)):
        whole = base64.b64encode(bytes(before) + data).decode()
        bits = 8 * (before + len(data))
        inner = whole[skipped : bits // 6]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")
        yield inner.replace("/", "\\/")


def as_latin_1(form: str) -> str:
    """A form as it is read where bytes are taken for characters."""
    return form.encode("utf-8", "surrogatepass").decode("latin-1")


class Span(NamedTuple):
    start: int
    end: int
    name: str


class Index:
    """Texts that are searched for at once, each with the name of its secret. None is shorter than `SHORT`.

    One piece of every few of the searched text is looked up, so that the number of texts costs nothing: each of them
    has such a piece near its beginning.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        lengths: dict[str, set[int]] = {}
        offsets: dict[str, set[int]] = {}
        for text in names:
            lengths.setdefault(text[:SHORT], set()).add(len(text))
            for offset in range(STRIDE):
                offsets.setdefault(text[offset : offset + PIECE], set()).add(offset)
        self._lengths = {head: sorted(each, reverse=True) for head, each in lengths.items()}
        self._offsets = offsets

    def spans(self, text: str) -> list[Span]:
        """Where the texts are, in order; those that overlap are one span."""
        found: list[Span] = []
        begun, until = 0, -1  # the span that may still be made longer
        for start in sorted(self._starts(text)):
            if start < 0 or (end := self._end(text, start)) <= until:
                continue
            if start >= until >= 0:
                found.append(self._span(text, begun, until))
            begun, until = (begun if start < until else start), end
        return found if until < 0 else [*found, self._span(text, begun, until)]

    def _starts(self, text: str) -> list[int]:
        """Where one of the texts may begin; what is below 0 is none."""
        offsets = self._offsets
        return [
            at - offset
            for at in range(0, len(text) - PIECE + 1, STRIDE)
            if (piece := text[at : at + PIECE]) in offsets
            for offset in offsets[piece]
        ]

    def all_in(self, text: str) -> set[str]:
        """All of the texts that are in it, those within a longer one too."""
        names, lengths = self._names, self._lengths
        return {
            each
            for start in self._starts(text)
            if start >= 0
            for length in lengths.get(text[start : start + SHORT], ())
            if (each := text[start : start + length]) in names
        }

    def _end(self, text: str, start: int) -> int:
        """The end of the longest of the texts that begins there; -1 for none."""
        for length in self._lengths.get(text[start : start + SHORT], ()):
            if text[start : start + length] in self._names:
                return start + length
        return -1

    def _span(self, text: str, start: int, end: int) -> Span:
        return Span(start, end, self._names[text[start : self._end(text, start)]])

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self._names)

    def broken(self, text: str) -> Span | None:
        """Where a text that was cut ends in the beginning of one that is searched for."""
        for length in range(min(len(text), LONGEST_BROKEN), BROKEN - 1, -1):
            end = text[-length:]
            at = bisect_left(self._sorted, end)
            if at < len(self._sorted) and self._sorted[at].startswith(end):
                return Span(len(text) - length, len(text), self._names[self._sorted[at]])
        return None


class KnownValues:
    """Secrets by the names that are shown in their place. No form is made before the first search."""

    def __init__(self, secrets: Iterable[tuple[str, str]]) -> None:
        self.secrets = tuple(secrets)  # pairs of a name and a value

    @cached_property
    def _forms(self) -> dict[str, str]:
        return {form: next(iter(ways)) for form, ways in self._ways.items()}

    @cached_property
    def _ways(self) -> dict[str, dict[str, str]]:
        """For each form the names of the secrets that it is one of, each with how it is written."""
        found: dict[str, dict[str, str]] = {}
        for name, value in self.secrets:
            for form, how in forms(value):
                found.setdefault(form, {}).setdefault(name, how)
                if not form.isascii():
                    found.setdefault(as_latin_1(form), {}).setdefault(name, how)
        return found

    @cached_property
    def _ways_in_hosts(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for form, ways in self._ways.items():
            for name, how in ways.items():
                found.setdefault(form.lower(), {}).setdefault(name, how)
        return found

    @cached_property
    def _index(self) -> Index:
        return Index(self._forms)

    @cached_property
    def _of_hosts(self) -> Index:
        return Index({form.lower(): name for form, name in self._forms.items()})

    @cached_property
    def longest(self) -> int:
        """Characters of the longest form."""
        return max(map(len, self._forms), default=0)

    def found(self, text: str, *, is_host: bool = False) -> set[tuple[str, str]]:
        """The names of the secrets in a text, each with how it is written; those within a longer one too.

        Args:
            is_host: Whether it is a name of a host, whose case tells nothing, and whose labels may be pieces of one.
        """
        if is_host:
            lower, ways = text.lower(), self._ways_in_hosts
            forms = self._of_hosts.all_in(lower) | self._of_hosts.all_in(lower.replace(".", ""))
            return {way for form in forms for way in ways[form].items()}
        forms = self._index.all_in(text)
        if "\n" in text and (joined := unwrapped(text)[0]) != text:
            forms |= self._index.all_in(joined)
        found = {way for form in forms for way in self._ways[form].items()}
        if ("%" in text or "\\" in text) and len(text) <= MOST_UNESCAPED:
            for plain in unescaped(text):
                names = {name for form in self._index.all_in(plain) for name in self._ways[form]}
                found |= {(name, ESCAPED_SOMEHOW) for name in names - {name for name, _ in found}}
        return found

    def replaced(
        self,
        text: str,
        instead: Callable[[str], str],
        *,
        is_cut: bool = False,
        is_host: bool = False,
    ) -> str:
        """The text with what `instead` gives for a secret's name in its place.

        Args:
            is_cut: Whether more followed, so that its end may be the beginning of a secret.
            is_host: Whether its case tells nothing.
        """
        if not self.secrets or not text:
            return text
        lower = text.lower() if is_host else text
        index = self._of_hosts if is_host and len(lower) == len(text) else self._index
        searched = lower if index is not self._index else text
        spans = index.spans(searched)
        if self._words and not is_host:
            spans = [span for span in spans if not self._is_within_a_word(text, span)]
        text = put(text, spans, instead)
        if not is_host:
            text = self._without_wrapped(text, instead)
            text = self._without_escaped(text, instead)
        end = self._index.broken(text) if is_cut else None
        return put(text, [end], instead) if end is not None else text

    @cached_property
    def _words(self) -> frozenset[str]:
        """Short secrets of plain words, such as "test_key": part of a longer word, they are none."""
        values = (value for _, value in self.secrets if len(value) < LONG)
        return frozenset(value for value in values if PLAIN_WORDS.fullmatch(value))

    def _is_within_a_word(self, text: str, span: Span) -> bool:
        if text[span.start : span.end] not in self._words:
            return False
        around = text[max(span.start - 1, 0) : span.start] + text[span.end : span.end + 1]
        return any(each.isalnum() or each == "_" for each in around)

    def _without_wrapped(self, text: str, instead: Callable[[str], str]) -> str:
        """A text whose encoding has broken the lines is shown without the breaks, where they are within a secret."""
        if "\n" not in text:
            return text
        plain, starts, origins = unwrapped(text)
        if plain == text:
            return text

        def origin(position: int) -> int:
            line = bisect_right(starts, position) - 1
            return origins[line] + position - starts[line]

        spans = [
            Span(origin(start), origin(end - 1) + 1, name)
            for start, end, name in self._index.spans(plain)
        ]
        return put(text, spans, instead)

    def _without_escaped(self, text: str, instead: Callable[[str], str]) -> str:
        """A line is shown unescaped, where a secret in it has more characters escaped than have to be."""
        if "%" not in text and "\\" not in text:  # as a rule
            return text
        if not any(self._index.spans(plain) for plain in unescaped(text)):
            return text
        lines = []
        for line in text.splitlines(keepends=True):
            found = ((plain, self._index.spans(plain)) for plain in unescaped(line))
            plain, spans = next((each for each in found if each[1]), (line, []))
            lines.append(put(plain, spans, instead))
        return "".join(lines)


def unwrapped(text: str) -> tuple[str, list[int], list[int]]:
    """Without the breaks of lines that base64 (RFC 2045 section 6.8) and quoted-printable (section 6.7) make.

    Returns:
        The text, and where its lines begin in it, and where they began.
    """
    lines, starts, origins = [], [], []
    begins = began = 0
    for line in text.splitlines(keepends=True):
        starts.append(begins)
        origins.append(began)
        began += len(line)
        said = line.rstrip("\r\n")
        if said.endswith("="):
            line = said[:-1]
        elif ARMOUR.fullmatch(said):
            line = said
        begins += len(line)
        lines.append(line)
    return "".join(lines), starts, origins


def unescaped(text: str) -> Iterator[str]:
    """Without escapes, one layer after the other: a parameter of a parameter has them twice."""
    for _ in range(ESCAPED):
        plain = ESCAPES.sub(lambda found: found[3] or chr(int(found[1] or found[2], 16)), text)
        if plain == text:
            return
        yield plain
        text = plain


def put(text: str, spans: Iterable[Span], instead: Callable[[str], str]) -> str:
    shown, position = [], 0
    for start, end, name in spans:
        shown += [text[position:start], instead(name)]
        position = end
    return "".join([*shown, text[position:]]) if shown else text
