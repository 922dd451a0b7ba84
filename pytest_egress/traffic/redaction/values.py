"""Known values: the forms in which programs write a secret, and the search for all of them at once.

The search takes time linear in the text, whatever that is, and however many values there are.
"""

from __future__ import annotations

import base64
import html
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Final
from urllib.parse import quote, quote_plus

from pytest_egress.traffic.redaction.index import Index, Indexes, Span
from pytest_egress.traffic.redaction.variables import LONG

IN_HOSTS: Final = re.compile(r"[A-Za-z0-9_.-]+")
ESCAPES: Final = re.compile(
    r"(?:%|\\x)([2-9A-Fa-f][0-9A-Fa-f])|\\u(?!00[01])([0-9A-Fa-f]{4})|\\([^\w\s])"
)
"""A character of a URL, of Python's bytes, of JSON, and of any string or pattern; a control character stays escaped."""

MOST_UNESCAPED: Final = 1 << 20  # characters of a text that are searched without their escapes
ESCAPED: Final = 4  # times over: the repr of JSON in JSON

HEX_OF_PERCENT: Final = re.compile("%[0-9A-F]{2}")
OF_BASE64: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_")
"""The characters of both alphabets, and the last of a line that quoted-printable has broken."""


FEW_SECRETS: Final = 32  # that are indexed beside the others, until there are more

LONG_NAMES: Final = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{16,63}(?:\.[A-Za-z0-9_-]{1,63})+")
"""What may be a name of DNS in a text, such as a log, whose labels are pieces of a secret."""

PLAIN_WORDS: Final = re.compile(r"[a-z]+(?:[_.:-][a-z]+)*")


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
    for separator in (":", " "):
        yield data.hex(separator), "in hex"
        yield data.hex(separator).upper(), "in hex"
    for separator in (",", ", "):  # as JSON has a Buffer of Node.js
        yield separator.join(map(str, data)), "as a list of bytes"
    yield quoted_printable(data), "quoted-printable"
    for each in base64_forms(data):
        yield each, "in base64"
    for each in twice_in_base64(data):
        yield each, "in base64 twice"
    for each in base32_forms(data):
        yield each, "in base32"
        yield each.lower(), "in base32"
    wide = value.encode("utf-16-le", "surrogatepass")[:-1]  # of ASCII, in either order of bytes
    yield wide.decode("latin-1"), "in UTF-16"
    for each in dict.fromkeys(base64_forms(wide)):
        yield each, "in base64 of UTF-16"
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


def twice_in_base64(data: bytes) -> Iterator[str]:
    """At each of the three offsets of the outer one and of the inner one, whose characters neighbours decide too."""
    for inner in {each for each in base64_forms(data) if "\\" not in each}:
        yield from {each for each in base64_forms(inner.encode()) if "\\" not in each}


def base32_forms(data: bytes) -> Iterator[str]:
    """At each of five offsets, as programs write it that put data into names of hosts."""
    for before in range(5):
        whole = base64.b32encode(bytes(before) + data).decode()
        yield whole[-(-8 * before // 5) : 8 * (before + len(data)) // 5]


def as_latin_1(form: str) -> str:
    """A form as it is read where bytes are taken for characters."""
    return form.encode("utf-8", "surrogatepass").decode("latin-1")


class KnownValues:
    """Secrets by the names that are shown in their place. No form is made before the first search.

    Args:
        secrets: Pairs of a name and a value.
        before: Those of a moment ago. Where these begin with them, their index is searched further on: each container
            of a run with a password of its own would have all of them indexed anew.
    """

    def __init__(
        self, secrets: Iterable[tuple[str, str]], before: KnownValues | None = None
    ) -> None:
        self.secrets = tuple(secrets)
        self._many: KnownValues | None = None if before is None else (before._many or before)
        many = () if self._many is None else self._many.secrets
        if len(self.secrets) - len(many) > FEW_SECRETS or self.secrets[: len(many)] != many:
            self._many, many = None, ()
        self._few = self.secrets[len(many) :]

    @cached_property
    def _forms(self) -> dict[str, str]:
        """The forms of those that no other index has."""
        return {form: next(iter(ways)) for form, ways in ways_of(self._few).items()}

    @cached_property
    def _ways(self) -> dict[str, dict[str, str]]:
        return ways_of(self.secrets)

    @cached_property
    def _ways_in_hosts(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for form, ways in self._ways.items():
            for name, how in ways.items():
                found.setdefault(form.lower(), {}).setdefault(name, how)
        return found

    @cached_property
    def _index(self) -> Index | Indexes:
        index = Index(self._forms)
        many = None if self._many is None else self._many._index
        return index if many is None else Indexes(many, index)

    @cached_property
    def _of_hosts(self) -> Index | Indexes:
        index = Index({form.lower(): name for form, name in self._forms.items()})
        many = None if self._many is None else self._many._of_hosts
        return index if many is None else Indexes(many, index)

    @cached_property
    def longest(self) -> int:
        """Characters of the longest form."""
        many = 0 if self._many is None else self._many.longest
        return max(many, max(map(len, self._forms), default=0))

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
        if is_host and "." in text:
            text = self._without_labels(text, instead)
        if not is_host:
            text = LONG_NAMES.sub(lambda found: self._without_labels(found[0], instead), text)
            text = self._without_wrapped(text, instead)
            text = self._without_escaped(text, instead)
        if not is_host and ("..." in text or "\u2026" in text):
            text = put(text, self._index.at_marks(text), instead)
        end = self._index.broken(text) if is_cut else None
        return put(text, [end], instead) if end is not None else text

    def _without_labels(self, name: str, instead: Callable[[str], str]) -> str:
        """A secret that is longer than a label (RFC 1035 section 2.3.4) is written over several."""
        at = [position for position, each in enumerate(name) if each != "."]
        plain = "".join(name[position] for position in at).lower()
        if len(plain) != len(at):  # as of a name that is none of DNS
            return name
        found = self._of_hosts.spans(plain)
        return put(
            name, (Span(at[start], at[end - 1] + 1, of) for start, end, of in found), instead
        )

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
        """A secret may have more characters escaped than have to be. The rest of its line stays escaped."""
        if "%" not in text and "\\" not in text:  # as a rule
            return text
        if not any(self._index.spans(plain) for plain in unescaped(text)):
            return text
        lines = []
        for line in text.splitlines(keepends=True):
            if not any(self._index.spans(plain) for plain in unescaped(line)):
                lines.append(line)
                continue
            found = ((self._index.spans(plain), at) for plain, at in unescaped_at(line))
            spans, at = next((each for each in found if each[0]), ([], []))
            origins = [Span(at[start], at[end], name) for start, end, name in spans]
            lines.append(put(line, origins, instead))
        return "".join(lines)


def ways_of(secrets: Iterable[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """For each form the names of the secrets that it is one of, each with how it is written."""
    found: dict[str, dict[str, str]] = {}
    for name, value in secrets:
        for form, how in forms(value):
            found.setdefault(form, {}).setdefault(name, how)
            if not form.isascii():
                found.setdefault(as_latin_1(form), {}).setdefault(name, how)
    return found


def unwrapped(text: str) -> tuple[str, list[int], list[int]]:
    """Without the breaks of lines that base64 (RFC 2045 section 6.8) and quoted-printable (section 6.7) make.

    A line that ends as base64 does goes on in the next one, after its indent, or after what both begin with, as lines
    of a log do. Lines that are none of an encoding are joined too, which is no harm: a secret is found across a break
    only where all of it is there.

    Returns:
        The text, and where its lines begin in it, and where they began.
    """
    lines, starts, origins = [], [], []
    begins = began = 0
    before = ""  # the line that goes on
    for line in text.splitlines(keepends=True):
        said = line.rstrip("\r\n")
        skipped = indent_of(said, before) if before else 0
        starts.append(begins)
        origins.append(began + skipped)
        began += len(line)
        goes_on = len(said) > skipped and said[-1] in OF_BASE64
        before = said if goes_on else ""
        line = said[skipped:].removesuffix("=") if goes_on else line[skipped:]
        begins += len(line)
        lines.append(line)
    return "".join(lines), starts, origins


def indent_of(line: str, before: str) -> int:
    """How many characters a line of an encoding begins with that are none of it, such as those of a log's line."""
    if line[:1].isspace():
        return len(line) - len(line.lstrip())
    differs = (
        at for at, (one, other) in enumerate(zip(line, before, strict=False)) if one != other
    )
    common = next(differs, min(len(line), len(before)))
    while common and line[common - 1] in OF_BASE64:
        common -= 1
    return common


def unescaped(text: str) -> Iterator[str]:
    """Without escapes, one layer after the other: a parameter of a parameter has them twice."""
    for _ in range(ESCAPED):
        plain = ESCAPES.sub(lambda found: found[3] or chr(int(found[1] or found[2], 16)), text)
        if plain == text:
            return
        yield plain
        text = plain


def unescaped_at(text: str) -> Iterator[tuple[str, list[int]]]:
    """As `unescaped`, with where each character begins in the text, and where that ends."""
    at = [*range(len(text) + 1)]
    for _ in range(ESCAPED):
        plain, begins, position = [], [], 0
        for found in ESCAPES.finditer(text):
            start, end = found.span()
            plain += [text[position:start], found[3] or chr(int(found[1] or found[2], 16))]
            begins += [*at[position:start], at[start]]
            position = end
        if not position:
            return
        plain.append(text[position:])
        text, at = "".join(plain), [*begins, *at[position:]]
        yield text, at


def put(text: str, spans: Iterable[Span], instead: Callable[[str], str]) -> str:
    shown, position = [], 0
    for start, end, name in spans:
        shown += [text[position:start], instead(name)]
        position = end
    return "".join([*shown, text[position:]]) if shown else text
