"""Forms and cookies: `multipart/form-data` (RFC 7578), `application/x-www-form-urlencoded`, and Cookie (RFC 6265).

The rule: any bytes are values or a `ContentError`. `python_multipart` is imported when a multipart body is read.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import parse_qsl, unquote

from pytest_egress.base.account import OBJECT_BYTES
from pytest_egress.base.escaping import escaped
from pytest_egress.errors import ContentError
from pytest_egress.traffic.absent import absent
from pytest_egress.traffic.shown import counted

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS: Final = 10_000  # of a multipart body: each is an object, however little it has
MAX_PART_FIELDS: Final = 64  # header fields of a part; clients send three
MAX_FIELD_BYTES: Final = 16 * 1024  # of a header field of a part, which has its file's name

SILENT: Final = logging.Logger(__name__, logging.CRITICAL)
"""In place of the parser's own, which warns of all that its errors say."""

Value = TypeVar("Value")


class MultiDict(dict[str, Value]):
    """A dict of names and values in which a name may repeat: it has the last value, and `get_all` has every one.

    Attributes:
        raw: All pairs, in their order.
    """

    def __init__(self, pairs: Iterable[tuple[str, Value]] = ()) -> None:
        self.raw: tuple[tuple[str, Value], ...] = tuple(pairs)
        super().__init__(self.raw)

    def get_all(self, name: str) -> list[Value]:
        """Every value of the name, in order; empty where there is none."""
        return [value for key, value in self.raw if key == name]

    def __missing__(self, name: object) -> Value:
        raise absent("key", name, self)


@dataclass(frozen=True, kw_only=True)
class FormFile:
    """A file of a `multipart/form-data` body: a part that has a filename, which may be empty.

    Attributes:
        name: The name of its field in the form.
        filename: The filename as sent. It may have any characters, such as those of a path; of a path of Windows, such
            as one that begins with a drive, it has the last part.
        content_type: Its Content-Type, or "".
        content: Its bytes.
        headers: All header fields of the part, as pairs.
    """

    name: str
    filename: str
    content_type: str
    content: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        about = (repr(self.name), repr(self.filename), escaped(self.content_type))
        return f"<FormFile {' '.join(filter(None, about))}, {counted(len(self.content), 'byte')}>"


@dataclass(frozen=True, kw_only=True)
class Form:
    """Parts without a filename are `fields`, the others `files`."""

    fields: MultiDict[str]
    files: MultiDict[FormFile]


def parse_query(text: str) -> MultiDict[str]:
    """A pair without "=" has the value ""."""
    return MultiDict(parse_qsl(text, keep_blank_values=True))


def charset_of(content_type: str) -> str:
    charset = "utf-8"
    for part in content_type.split(";")[1:]:
        key, _, value = part.strip().partition("=")
        if key.lower() == "charset" and value:
            charset = value.strip("\"'")
    return charset


NO_CHARSETS: Final = ("idna", "punycode", "raw-unicode-escape", "unicode-escape")
"""Python's codecs that are no charset of a body. Punycode takes minutes for a megabyte, an escape warns."""


def decode_text(content: bytes, content_type: str) -> str:
    """Bytes as text, in the charset of a Content-Type, else UTF-8; undecodable bytes are replaced."""
    try:
        charset = codecs.lookup(charset_of(content_type)).name
        return content.decode("utf-8" if charset in NO_CHARSETS else charset, "replace")
    except (LookupError, ValueError):  # no such charset, or one that cannot replace
        return content.decode("utf-8", "replace")


def parse_form(content: bytes, content_type: str) -> Form:
    """The parts of a `multipart/form-data` body, or the pairs of a urlencoded one; a body of another type has none.

    One without a type is urlencoded, as forms were before they had types.

    Raises:
        ContentError: The body is malformed, breaks off, or is over `MAX_PARTS` or another limit.
    """
    if is_multipart(content_type):
        return parse_multipart(content, content_type)
    is_form = is_urlencoded(content_type)
    pairs = parse_query(decode_text(content, content_type)) if is_form else MultiDict[str]()
    return Form(fields=pairs, files=MultiDict())


def room_for(content: bytes, content_type: str) -> int:
    """As an `Account` counts memory."""
    if is_multipart(content_type):  # of which `MAX_PARTS` bounds the number
        return len(content)
    pairs = content.count(b"&") + 1
    return len(content) + pairs * OBJECT_BYTES if is_urlencoded(content_type) else 0


def is_urlencoded(content_type: str) -> bool:
    return media_type(content_type) in ("", "application/x-www-form-urlencoded")


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def is_multipart(content_type: str) -> bool:
    return media_type(content_type) == "multipart/form-data"


def parse_multipart(content: bytes, content_type: str) -> Form:
    """No bytes are no parts; otherwise as `parse_form`."""
    parts = multipart_parts(content, content_type)
    return Form(
        fields=MultiDict(
            (part.name, decode_text(part.content, part.content_type))
            for part, is_file in parts
            if not is_file
        ),
        files=MultiDict((part.name, part) for part, is_file in parts if is_file),
    )


def multipart_parts(content: bytes, content_type: str) -> list[tuple[FormFile, bool]]:
    """The parts of a body, each as a file, and whether it is one; the errors are those of `parse_form`."""
    from python_multipart.multipart import MultipartParser, parse_options_header

    try:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise ValueError(f"its Content-Type has no boundary: {content_type!r}")
        reader = PartReader()
        limits = {"max_header_count": MAX_PART_FIELDS, "max_header_size": MAX_FIELD_BYTES}
        parser = MultipartParser(boundary, reader.callbacks(), **limits)
        parser.logger = SILENT
        parser.write(without_preamble(content, boundary))
        if content and not reader.is_whole:
            raise ValueError("it breaks off before its last boundary")
        return [*map(part_of, reader.parts)]
    except ValueError as error:
        raise ContentError(f"the body is no multipart/form-data: {error}") from None


def without_preamble(content: bytes, boundary: bytes) -> bytes:
    """What comes before the first boundary is to be ignored (RFC 2046 section 5.1.1)."""
    delimiter = rb"--%b(?:--|[ \t]*\r\n)" % re.escape(boundary)
    if re.match(delimiter, content):  # as a rule
        return content
    begin = re.search(rb"\r\n" + delimiter, content)
    return content[begin.start() + 2 :] if begin else content


class Part:
    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []


class PartReader:
    """Collects the parts that the parser finds; `is_whole` once the last boundary was read."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.is_whole = False
        self._name, self._value = b"", b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_field,
            "on_part_data": self._add_data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise ValueError(f"it has more than {MAX_PARTS} parts")
        self.parts.append(Part())

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_field(self) -> None:
        self.parts[-1].headers.append((self._name, self._value))
        self._name, self._value = b"", b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].pieces.append(data[start:end])

    def _end(self) -> None:
        self.is_whole = True


def part_of(part: Part) -> tuple[FormFile, bool]:
    """A part as a file, and whether it is one. One without a name raises ValueError (RFC 7578 section 4.2)."""
    from python_multipart.multipart import parse_options_header

    headers = tuple((wire_text(name), wire_text(value)) for name, value in part.headers)
    known = {name.lower(): value for name, value in part.headers}
    disposition = known.get(b"content-disposition", b"").decode("latin-1")
    options = parse_options_header(disposition)[1]
    if b"name" not in options:
        raise ValueError(f"a part has no name: its Content-Disposition is {disposition!r}")
    filename = options.get(b"filename")
    extended = EXTENDED_FILENAME.search(IN_QUOTES.sub('""', disposition))
    if extended is not None and filename is None:
        shown = unquote(extended[2], encoding=extended[1], errors="replace")
    else:
        shown = unescaped(filename or b"")
    file = FormFile(
        name=unescaped(options[b"name"]),
        filename=shown,
        content_type=wire_text(known.get(b"content-type", b"")),
        content=b"".join(part.pieces),
        headers=headers,
    )
    return file, filename is not None or extended is not None


EXTENDED_FILENAME: Final = re.compile(
    r"(?i);\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^\s;]*)"
)
"""RFC 7578 forbids it, and urllib3 before 2.0 sends it (RFC 8187)."""

IN_QUOTES: Final = re.compile(r'(?s)"(?:[^"\\]|\\.)*(?:"|\\?\Z)')
"""A value in quotes, or what begins as one: no quote is looked from twice."""

ESCAPES: Final = re.compile("%(?:22|0D|0A)")
"""What browsers escape in names, and nothing else (HTML, "Multipart form data")."""


def unescaped(name: bytes) -> str:
    return ESCAPES.sub(lambda found: unquote(found[0]), wire_text(name))


def wire_text(data: bytes) -> str:
    """Clients write UTF-8 into a field, else latin-1."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse_cookies(fields: Iterable[str]) -> MultiDict[str]:
    """The cookies of a request, by the rules of servers, which are wider than RFC 6265 section 4.2.1.

    Pairs are separated by ";" and nothing else. A value in quotes is without them. A pair without "=" is a value whose
    name is empty, as for browsers. HTTP/2 clients send several Cookie fields (RFC 9113 section 8.2.3).
    """
    pairs = []
    for pair in ";".join(fields).split(";"):
        name, equals, value = pair.partition("=")
        name, value = (name.strip(), value.strip()) if equals else ("", name.strip())
        if name or value:
            pairs.append((cookie_text(name), cookie_text(unquoted(value))))
    return MultiDict(pairs)


QUOTED: Final = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))", re.DOTALL)
"""What Python's own `http.cookies` escapes in a value in quotes: an octal number of a byte, or a character."""


def unquoted(value: str) -> str:
    if len(value) < 2 or not value[0] == value[-1] == '"':
        return value
    return QUOTED.sub(lambda found: found[2] or chr(int(found[1], 8)), value[1:-1])


def cookie_text(text: str) -> str:
    """Header fields are decoded as latin-1, and clients write UTF-8."""
    try:
        return wire_text(text.encode("latin-1"))
    except UnicodeEncodeError:  # of a request that a test has made
        return text
