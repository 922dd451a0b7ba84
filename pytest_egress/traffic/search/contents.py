"""Bodies and texts as pieces: each as it was sent, and as a reader of its format sees it, with its place.

The rule: any bytes become pieces, or an `Unread` that says why they cannot be read, and no error. What is decoded is
bounded: `MAX_PARSED_BYTES` of a body, and `MAX_DEPTH` formats one within the other.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from pytest_egress.errors import ContentError
from pytest_egress.traffic.http.content_coding import decode
from pytest_egress.traffic.http.forms import (
    charset_of,
    decode_text,
    is_multipart,
    media_type,
    parse_multipart,
    parse_query,
)
from pytest_egress.traffic.redaction import is_secret
from pytest_egress.traffic.shown import SHOWN_VALUE, cut

MAX_PARSED_BYTES: Final = (
    64 << 20
)  # of a body; the bytes themselves are searched whatever their number
MAX_DEPTH: Final = 6  # JSON in base64 in a form in a gzip is 4

ENVELOPE: Final = "application/x-sentry-envelope"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of what a target has sent.

    Attributes:
        place: Where it is, such as `body json: user.email`.
        value: Its text, or its bytes.
        name: The name of the field, parameter or key whose value it is; "" for none.
        is_raw: Whether other pieces have the same decoded: what is found in one of those is not told of this one.
        is_name: Whether it is the name of a host, which has no case.
    """

    place: str
    value: str | bytes
    name: str = ""
    is_raw: bool = False
    is_name: bool = False

    @cached_property
    def text(self) -> str:
        value = self.value
        return value if isinstance(value, str) else value.decode("utf-8", "replace")

    @cached_property
    def data(self) -> bytes:
        value = self.value
        return value if isinstance(value, bytes) else wire_bytes(value)


@dataclass(frozen=True, kw_only=True)
class Unread:
    """A part of what a target has sent that cannot be searched; `why` is a sentence without its subject's article."""

    place: str
    why: str


def wire_bytes(text: str) -> bytes:
    """Bytes that were no UTF-8 are surrogates in a text that was decoded, as half of a pair in JSON is."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


PieceStream = Iterator["Piece | Unread"]


# Texts.

PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
TO_STANDARD: Final = str.maketrans("-_", "+/")


def readings(place: str, text: str, name: str = "", depth: int = 0) -> PieceStream:
    """What is encoded in a text: percent-encoding, JSON, a token (JWT), or base64 as a whole; and the text as it is."""
    inner = encoded_in(place, text, depth) if depth < MAX_DEPTH else beyond(place, text)
    yield from under(name, inner)
    yield Piece(place=place, value=text, name=name, is_raw=True)


def under(name: str, pieces: PieceStream) -> PieceStream:
    """All that is in a secret is one."""
    for piece in pieces:
        if isinstance(piece, Piece) and (is_secret(name) or not piece.name):
            piece = replace(piece, name=name)
        yield piece


def encoded_in(place: str, text: str, depth: int) -> PieceStream:
    if PERCENT.search(text) is not None:
        decoded = unquote_to_bytes(wire_bytes(text))
        where = f"{place.removesuffix(DECODED)}{DECODED}"
        yield from readings(where, decoded.decode("utf-8", "surrogateescape"), "", depth + 1)
    if text.lstrip()[:1] in OPENING:
        yield from json_pieces(f"{place} json", wire_bytes(text), depth + 1)
    parts = text.split(".") if text.startswith("eyJ") and text.count(".") == 2 else [text]
    for part in parts:
        if (data := from_base64(part)) is not None:
            yield from content_pieces(f"{place}, base64-decoded", data, "", depth + 1)


def beyond(place: str, text: str) -> PieceStream:
    if PERCENT.search(text) is not None or text.lstrip()[:1] in OPENING:
        yield too_deep(place)


DECODED: Final = ", percent-decoded"
OPENING: Final = ("{", "[")


def too_deep(place: str) -> Unread:
    return Unread(place=place, why=f"is encoded more than {MAX_DEPTH} times over")


def from_base64(text: str) -> bytes | None:
    if BASE64.fullmatch(text) is None:
        return None
    bare = text.rstrip("=").translate(TO_STANDARD)
    return b64decode(bare + "=" * (-len(bare) % 4)) if len(bare) % 4 != 1 else None


# Bodies.

MAGIC: Final = {
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"%PDF-": "a PDF, whose texts are compressed",
    b"PAR1": "Parquet, which is compressed",
}
"""What is compressed and not decompressed here, by its first bytes."""

GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"


def content_pieces(place: str, data: bytes, content_type: str, depth: int = 0) -> PieceStream:
    """The pieces of a body, of a part or of a message: as its format has them first, and at last as they are."""
    if not data:
        return
    if depth >= MAX_DEPTH:
        yield too_deep(place)
    elif len(data) > MAX_PARSED_BYTES:
        yield Unread(place=place, why=f"has {len(data)} bytes, and {MAX_PARSED_BYTES} are decoded")
    else:
        yield from formatted(place, data, content_type, depth)
    charset = charset_of(content_type).lower().replace("_", "-")
    if charset not in ("utf-8", "utf8"):
        yield Piece(place=place, value=decode_text(data, content_type), is_raw=True)
    if PERCENT_BYTES.search(data) is not None:
        yield Piece(place=f"{place}, percent-decoded", value=unquote_to_bytes(data), is_raw=True)
    yield Piece(place=place, value=data, is_raw=True)


PERCENT_BYTES: Final = re.compile(rb"%[0-9A-Fa-f]{2}")


def formatted(place: str, data: bytes, content_type: str, depth: int) -> PieceStream:
    kind = media_type(content_type)
    what = next((what for magic, what in MAGIC.items() if data.startswith(magic)), None)
    if what is not None:
        yield Unread(place=place, why=f"is {what}")
    elif (coding := compressed_by(data)) is not None:
        yield from unzipped(place, data, coding, content_type, depth)
    elif kind == ENVELOPE:
        yield from envelope_pieces(place, data, depth)
    elif is_multipart(content_type):
        yield from form_pieces(place, data, content_type, depth)
    elif kind.startswith("multipart/"):
        head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
        yield from mail_pieces(place, head + data, depth)
    elif kind == "application/x-www-form-urlencoded":
        if data.lstrip()[:1] in (b"{", b"["):  # as `curl -d` sends JSON
            yield from json_pieces(f"{place} json", data, depth + 1)
            if b"=" not in data:
                return
        yield from query_pieces(f"{place} form", decode_text(data, content_type), depth)
    elif "json" in kind or data.lstrip()[:1] in (b"{", b"["):
        yield from json_pieces(f"{place} json", data, depth + 1, is_declared="json" in kind)
    elif "xml" in kind or "html" in kind or data.lstrip()[:1] == b"<":
        yield Piece(
            place=f"{place}, entities decoded", value=html.unescape(decode_text(data, content_type))
        )
    elif inner := from_base64(data.decode("latin-1").strip()):
        yield from content_pieces(f"{place}, base64-decoded", inner, "", depth + 1)
    elif kind in ("", "text/plain") and b"=" in data and data.isascii():  # as beacons send forms
        yield from query_pieces(f"{place} form", data.decode("ascii"), depth)


def compressed_by(data: bytes) -> str | None:
    """The coding of bytes that no Content-Encoding tells of."""
    if data.startswith(GZIP):
        return "gzip"
    if data.startswith(ZSTD):
        return "zstd"
    is_zlib = len(data) > 6 and data[0] == 0x78 and int.from_bytes(data[:2], "big") % 31 == 0
    return "deflate" if is_zlib else None


def unzipped(place: str, data: bytes, coding: str, content_type: str, depth: int) -> PieceStream:
    try:
        inner = decode(data, coding, MAX_PARSED_BYTES)
    except ContentError as error:
        if coding != "deflate":  # whose two bytes may begin anything
            yield Unread(place=place, why=f"begins as {coding}: {error}")
        return
    yield from content_pieces(f"{place}, unzipped", inner, content_type, depth + 1)


def query_pieces(place: str, text: str, depth: int = 0) -> PieceStream:
    """The names and values of a query or of a urlencoded form."""
    for name, value in parse_query(text).raw:
        yield Piece(place=f"{place} (a name)", value=name)
        yield from readings(f"{place} {quoted(name)}", value, name, depth + 1)


def quoted(name: str) -> str:
    return cut(repr(name), SHOWN_VALUE)


def form_pieces(place: str, data: bytes, content_type: str, depth: int) -> PieceStream:
    try:
        form = parse_multipart(data, content_type)
    except ContentError as error:
        yield Unread(place=place, why=f"cannot be decoded: {error}")
        return
    for name, value in form.fields.raw:
        yield Piece(place=f"{place} form (a name)", value=name)
        yield from readings(f"{place} form {quoted(name)}", value, name, depth + 1)
    for name, file in form.files.raw:
        where = f"{place} file {quoted(name)}"
        yield Piece(place=f"{place} file (a name)", value=name)
        yield Piece(place=f"{where} header Content-Disposition (filename)", value=file.filename)
        for field, value in file.headers:
            yield Piece(place=f"{where} header {field}", value=value, is_raw=True)
        yield from content_pieces(where, file.content, file.content_type, depth + 1)


def mail_pieces(place: str, data: bytes, depth: int = 0) -> PieceStream:
    """The decoded fields and parts of a mail, or of a body of `multipart/mixed` and its like."""
    from email import message_from_bytes, policy

    try:
        message = message_from_bytes(data.replace(b"\r\n", b"\n"), policy=policy.default)
        yield from [*parts_of(place, message, depth)]
    except (
        Exception
    ) as error:  # the standard library's parser raises what it likes for malformed fields
        yield Unread(place=place, why=f"cannot be parsed: {type(error).__name__}: {error}")


def parts_of(place: str, message: Any, depth: int) -> PieceStream:
    for number, part in enumerate(message.walk()):
        where = f"{place} part {number}" if number else place
        for name, value in part.items():
            yield Piece(place=f"{where} header {name}", value=str(value), name=name)
        if part.get_filename():
            yield Piece(place=f"{where} (filename)", value=str(part.get_filename()))
        if not part.is_multipart():
            content = part.get_payload(decode=True) or b""
            body = where if number else f"{place} body"
            yield from content_pieces(body, content, str(part.get("Content-Type", "")), depth + 1)


def envelope_pieces(place: str, data: bytes, depth: int) -> PieceStream:
    """The items of a Sentry envelope: https://develop.sentry.dev/sdk/data-model/envelopes/."""
    head, _, rest = data.partition(b"\n")
    yield from json_pieces(f"{place} envelope", head, depth + 1, is_declared=True)
    number = 0
    while rest.strip():
        head, _, rest = rest.partition(b"\n")
        where = f"{place} envelope item {number}"
        yield from json_pieces(f"{where} header", head, depth + 1, is_declared=True)
        length = length_in(head)
        if length is None:
            content, _, rest = rest.partition(b"\n")
        else:
            content, rest = rest[:length], rest[length:].removeprefix(b"\n")
        for piece in content_pieces(where, content, "", depth + 1):
            yield of_item(where, piece)
        number += 1


def of_item(where: str, piece: Piece | Unread) -> Piece | Unread:
    """An item of an envelope is JSON as a rule, which needs no word: `envelope item 0: user.email`."""
    place = f"{where}{piece.place.removeprefix(where).removeprefix(' json')}"
    return replace(piece, place=place)


def length_in(head: bytes) -> int | None:
    try:
        length = json.loads(head)["length"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return length if type(length) is int and length >= 0 else None


# JSON.


class Pairs(list[tuple[str, Any]]):
    """The members of an object: all of them, where a dict has the last one of a name alone."""


DECODER: Final = json.JSONDecoder(object_pairs_hook=Pairs, parse_int=str, parse_float=str)
SPACE: Final = re.compile(r"[ \t\r\n]*")
IDENTIFIER: Final = re.compile(r"[A-Za-z_$][\w$-]{0,63}")


def json_pieces(place: str, data: bytes, depth: int, *, is_declared: bool = False) -> PieceStream:
    """The names and values of JSON: one document, or several, of which each may have a line of its own."""
    encoding = json.detect_encoding(data)
    is_utf8 = encoding.startswith("utf-8")
    text = data.decode(encoding, "surrogateescape" if is_utf8 else "replace").lstrip("\ufeff")
    if not is_utf8:
        yield Piece(place=place, value=text, is_raw=True)
    at, number, several = SPACE.match(text).end(), 0, False  # type: ignore[union-attr]  # it may be empty
    while at < len(text):
        try:
            value, end = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield from not_json(
                place, text[at:], f"{error}", depth, is_declared=is_declared, is_first=not number
            )
            return
        at = SPACE.match(text, end).end()  # type: ignore[union-attr]
        several = several or at < len(text)
        number += 1
        yield from leaves(f"{place} {number}" if several else place, value, depth)


def not_json(
    place: str, rest: str, why: str, depth: int, *, is_declared: bool, is_first: bool
) -> PieceStream:
    if is_declared or "recursion" in why:
        yield Unread(place=place, why=f"is no JSON that can be decoded: {cut(why, SHOWN_VALUE)}")
    elif not is_first and depth < MAX_DEPTH:  # such as bytes after a line of JSON
        data = rest.encode("utf-8", "surrogateescape")
        yield from content_pieces(f"{place}, what follows it", data, "", depth + 1)


def leaves(place: str, value: Any, depth: int) -> PieceStream:
    """The names and values at any depth, in their order. It calls itself for none, however deep they are."""
    stack: list[tuple[str, str, Any]] = [("", "", value)]
    while stack:
        path, name, value = stack.pop()
        where = f"{place}: {path}" if path else place
        if isinstance(value, Pairs):
            for key, _ in value:
                yield from readings(f"{where} (a name)", key, "", depth)
            members = [(member(path, key), key, each) for key, each in value]
            stack += reversed(members)
        elif isinstance(value, list):
            stack += [(f"{path}[{i}]", name, value[i]) for i in reversed(range(len(value)))]
        elif isinstance(value, str):
            yield from readings(where, value, name, depth)


def member(path: str, key: str) -> str:
    if IDENTIFIER.fullmatch(key) is None:
        return f"{path}[{quoted(key)}]"
    return f"{path}.{key}" if path else key
