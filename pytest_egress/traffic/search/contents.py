"""Bodies and texts as pieces: each as it was sent, and as a reader of its format sees it, with its place.

The rule: any bytes become pieces, or an `Unread` that says why they cannot be read, and no error. What is decoded is
bounded: `MAX_PARSED_BYTES` of a body, and the `Room` of its entry.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from pytest_egress.base.account import MAX_HELD_BYTES
from pytest_egress.errors import ContentError
from pytest_egress.traffic.http.content_coding import MismatchError, decoded
from pytest_egress.traffic.http.forms import (
    charset_of,
    decode_text,
    is_multipart,
    media_type,
    multipart_parts,
    parse_query,
)
from pytest_egress.traffic.http.request import room_for_json
from pytest_egress.traffic.redaction.names import is_secret
from pytest_egress.traffic.search.pieces import (
    MAX_PARSED_BYTES,
    Piece,
    PieceStream,
    Room,
    Unread,
    spent,
    too_deep,
    wire_bytes,
)
from pytest_egress.traffic.shown import SHOWN_VALUE, cut, shown

ENVELOPE: Final = "application/x-sentry-envelope"


# Texts.

PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
TO_STANDARD: Final = str.maketrans("-_", "+/")


def readings(place: str, text: str, room: Room, name: str = "") -> PieceStream:
    """What is encoded in a text: percent-encoding, JSON, a token (JWT), or base64 as a whole; and the text as it is."""
    inner = beyond(place, text, room) if room.is_deepest else encoded_in(place, text, room)
    yield from under(name, inner)
    yield Piece(place=place, value=text, name=name, is_raw=True)


def under(name: str, pieces: PieceStream) -> PieceStream:
    """All that is in a secret is one."""
    for piece in pieces:
        if isinstance(piece, Piece) and (is_secret(name) or not piece.name):
            piece = replace(piece, name=name)
        yield piece


def encoded_in(place: str, text: str, room: Room) -> PieceStream:
    if PERCENT.search(text) is not None:
        if room.take(len(text)):
            decoded_bytes = unquote_to_bytes(wire_bytes(text))
            where = f"{place.removesuffix(DECODED)}{DECODED}"
            inner = decoded_bytes.decode("utf-8", "surrogateescape")
            yield from readings(where, inner, room.within())
        else:
            yield spent(place)
    if text.lstrip()[:1] in OPENING:
        yield from json_pieces(f"{place} json", wire_bytes(text), room.within())
    yield from base64_pieces(place, text, room)


def beyond(place: str, text: str, room: Room) -> PieceStream:
    """What is in a text whose formats are not looked for: base64 is decoded once, since any word may be some."""
    if PERCENT.search(text) is not None or text.lstrip()[:1] in OPENING:
        yield too_deep(place)
    yield from base64_pieces(place, text, room)


DECODED: Final = ", percent-decoded"
OPENING: Final = ("{", "[")


def base64_pieces(place: str, text: str, room: Room) -> PieceStream:
    for data in base64_parts(text):
        if room.take(len(data)):
            yield from content_pieces(f"{place}, base64-decoded", data, "", room.within())
        else:
            yield spent(place)


def base64_parts(text: str) -> list[bytes]:
    """What is in a text that is base64 as a whole, or in the parts of a token; none for any other text."""
    is_token = text.startswith("eyJ") and text.count(".") == 2
    parts = map(from_base64, text.split(".") if is_token else [text])
    return [part for part in parts if part is not None]


def from_base64(text: str) -> bytes | None:
    """Lines are joined: MIME has 76 characters on each, PEM 64."""
    bare = text.replace("\r", "").replace("\n", "")
    if BASE64.fullmatch(bare) is None:
        return None
    bare = bare.rstrip("=").translate(TO_STANDARD)
    return b64decode(bare + "=" * (-len(bare) % 4)) if len(bare) % 4 != 1 else None


# Bodies.

MAGIC: Final = {
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"%PDF-": "a PDF, whose texts are compressed",
    b"PAR1": "Parquet, which is compressed",
    b"\x04\x22\x4d\x18": "compressed by lz4",
    b"\xff\x06\x00\x00sNaPpY": "compressed by snappy",
    **{b"BZh%d" % level: "compressed by bzip2" for level in range(1, 10)},
}
"""What is compressed and not decompressed here, by its first bytes."""

GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"


def content_pieces(place: str, data: bytes, content_type: str, room: Room) -> PieceStream:
    """The pieces of a body, of a part or of a message: as its format has them first, and at last as they are."""
    if not data:
        return
    if len(data) > MAX_PARSED_BYTES:
        yield Unread(place=place, why=f"has {len(data)} bytes, and {MAX_PARSED_BYTES} are decoded")
    elif not room.is_deepest:
        yield from formatted(place, data, content_type, room)
    elif may_be_encoded(data, content_type):
        yield too_deep(place)
    charset = charset_of(content_type).lower().replace("_", "-")
    if charset not in ("utf-8", "utf8"):
        yield Piece(place=place, value=decode_text(data, content_type), is_raw=True)
    if PERCENT_BYTES.search(data) is not None:
        if room.take(len(data)):
            inner = unquote_to_bytes(data)
            yield Piece(place=f"{place}{DECODED}", value=inner, is_raw=True)
        else:
            yield spent(place)
    yield Piece(place=place, value=data, is_raw=True)


PERCENT_BYTES: Final = re.compile(rb"%[0-9A-Fa-f]{2}")


def may_be_encoded(data: bytes, content_type: str) -> bool:
    """Whether `formatted` would find anything. A word that passes for base64 decodes to bytes that are no text."""
    if content_type or magic_of(data) or compressed_by(data):
        return True
    if data.lstrip()[:1] in (b"{", b"[", b"<"):
        return is_text(data)
    if not data.isascii():
        return False
    return b"=" in data or bool(base64_parts(data.decode("ascii").strip()))


def is_text(data: bytes) -> bool:
    """In UTF-8; or in UTF-16 or UTF-32, whose ASCII has zeros."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return b"\0" in data[:4]
    return True


def magic_of(data: bytes) -> str | None:
    return next((what for magic, what in MAGIC.items() if data.startswith(magic)), None)


def formatted(place: str, data: bytes, content_type: str, room: Room) -> PieceStream:
    kind = media_type(content_type)
    if (what := magic_of(data)) is not None:
        yield Unread(place=place, why=f"is {what}")
    elif (coding := compressed_by(data)) is not None:
        yield from unzipped(place, data, coding, content_type, room)
    elif kind == ENVELOPE:
        yield from envelope_pieces(place, data, room)
    elif is_multipart(content_type):
        yield from form_pieces(place, data, content_type, room)
    elif kind.startswith("multipart/"):
        head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
        yield from mail_pieces(place, head + data, room)
    elif kind == "application/x-www-form-urlencoded":
        if data.lstrip()[:1] in (b"{", b"["):  # as `curl -d` sends JSON
            yield from json_pieces(f"{place} json", data, room.within())
            if b"=" not in data:
                return
        yield from query_pieces(f"{place} form", decode_text(data, content_type), room)
    elif "json" in kind or data.lstrip()[:1] in (b"{", b"["):
        yield from json_pieces(f"{place} json", data, room.within(), is_declared="json" in kind)
    elif "xml" in kind or "html" in kind or data.lstrip()[:1] == b"<":
        yield Piece(
            place=f"{place}, entities decoded", value=html.unescape(decode_text(data, content_type))
        )
    elif base64_parts(text := data.decode("latin-1").strip()):
        yield from base64_pieces(place, text, room)
    elif kind in ("", "text/plain") and b"=" in data and data.isascii():  # as beacons send forms
        yield from query_pieces(f"{place} form", data.decode("ascii"), room)


def compressed_by(data: bytes) -> str | None:
    """The coding of bytes that no Content-Encoding tells of."""
    if data.startswith(GZIP):
        return "gzip"
    if data.startswith(ZSTD):
        return "zstd"
    is_zlib = len(data) > 6 and data[0] == 0x78 and int.from_bytes(data[:2], "big") % 31 == 0
    return "deflate" if is_zlib else None


def unzipped(place: str, data: bytes, coding: str, content_type: str, room: Room) -> PieceStream:
    inner = bytearray()
    try:
        for piece in decoded([data], coding, MAX_PARSED_BYTES):
            if not room.take(len(piece)):
                yield spent(place)
                return
            inner += piece
    except ContentError as error:
        # Two bytes alone say that it is deflate, and may begin anything.
        if coding != "deflate" or not isinstance(error, MismatchError):
            yield Unread(place=place, why=f"begins as {coding}: {error}")
        return
    yield from content_pieces(f"{place}, unzipped", bytes(inner), content_type, room.within())


def query_pieces(place: str, text: str, room: Room) -> PieceStream:
    """The names and values of a query or of a urlencoded form."""
    for name, value in parse_query(text).raw:
        yield Piece(place=f"{place} (a name)", value=name)
        yield from readings(f"{place} {quoted(name)}", value, room.within(), name)


def quoted(name: str) -> str:
    return shown(name)


def form_pieces(place: str, data: bytes, content_type: str, room: Room) -> PieceStream:
    try:
        parts = multipart_parts(data, content_type)
    except ContentError as error:
        yield Unread(place=place, why=f"cannot be decoded: {error}")
        return
    for part, is_file in parts:
        kind = "file" if is_file else "form"
        where = f"{place} {kind} {quoted(part.name)}"
        yield Piece(place=f"{place} {kind} (a name)", value=part.name)
        if is_file:
            named = f"{where} header Content-Disposition (filename)"
            yield Piece(place=named, value=part.filename)
            for field, value in part.headers:
                yield Piece(place=f"{where} header {field}", value=value, is_raw=True)
        inner = content_pieces(where, part.content, part.content_type, room.within())
        yield from inner if is_file else under(part.name, inner)


def mail_pieces(place: str, data: bytes, room: Room) -> PieceStream:
    """The decoded fields and parts of a mail, or of a body of `multipart/mixed` and its like."""
    from email import message_from_bytes, policy

    if not room.take(len(data)):
        yield spent(place)
        return
    try:
        message = message_from_bytes(data.replace(b"\r\n", b"\n"), policy=policy.default)
        yield from parts_of(place, message, room)
    except (
        Exception
    ) as error:  # the standard library's parser raises what it likes for malformed fields
        yield Unread(place=place, why=f"cannot be parsed: {type(error).__name__}: {error}")


def parts_of(place: str, message: Any, room: Room) -> PieceStream:
    for number, part in enumerate(message.walk()):
        where = f"{place} part {number}" if number else place
        for name, value in part.items():
            yield Piece(place=f"{where} header {name}", value=str(value), name=name)
        if part.get_filename():
            yield Piece(place=f"{where} (filename)", value=str(part.get_filename()))
        if not part.is_multipart():
            content = part.get_payload(decode=True) or b""
            body = where if number else f"{place} body"
            if room.take(len(content)):
                kind = str(part.get("Content-Type", ""))
                yield from content_pieces(body, content, kind, room.within())
            else:
                yield spent(body)


def envelope_pieces(place: str, data: bytes, room: Room) -> PieceStream:
    """The items of a Sentry envelope: https://develop.sentry.dev/sdk/data-model/envelopes/."""
    head, at = line_at(data, 0)
    yield from json_pieces(f"{place} envelope", head, room.within(), is_declared=True)
    number, end = 0, len(data.rstrip())
    while at < end:
        head, at = line_at(data, at)
        where = f"{place} envelope item {number}"
        yield from json_pieces(f"{where} header", head, room.within(), is_declared=True)
        length = length_in(head)
        if length is None:
            content, at = line_at(data, at)
        else:
            content, at = data[at : at + length], at + length
            at += data.startswith(b"\n", at)
        for piece in content_pieces(where, content, "", room.within()):
            yield of_item(where, piece)
        number += 1


def line_at(data: bytes, at: int) -> tuple[bytes, int]:
    """The line that begins at a position, and where the next one does."""
    end = data.find(b"\n", at)
    end = len(data) if end < 0 else end
    return data[at:end], end + 1


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


def json_pieces(place: str, data: bytes, room: Room, *, is_declared: bool = False) -> PieceStream:
    """The names and values of JSON: one document, or several, of which each may have a line of its own."""
    if room_for_json(data) > MAX_HELD_BYTES:
        yield Unread(place=place, why="has more values than are decoded")
        return
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
                place, text[at:], f"{error}", room, is_declared=is_declared, is_first=not number
            )
            return
        at = SPACE.match(text, end).end()  # type: ignore[union-attr]
        several = several or at < len(text)
        number += 1
        yield from leaves(f"{place} {number}" if several else place, value, room)


def not_json(
    place: str, rest: str, why: str, room: Room, *, is_declared: bool, is_first: bool
) -> PieceStream:
    if is_declared or "recursion" in why:
        yield Unread(place=place, why=f"is no JSON that can be decoded: {cut(why, SHOWN_VALUE)}")
    elif not is_first:  # such as bytes after a line of JSON
        data = rest.encode("utf-8", "surrogateescape")
        yield from content_pieces(f"{place}, what follows it", data, "", room.within())


def leaves(place: str, value: Any, room: Room) -> PieceStream:
    """The names and values at any depth, in their order. It calls itself for none, however deep they are.

    A path is made for what is looked at, and none is kept for each item: together they are many times what was sent.
    """
    if isinstance(value, str):
        yield from readings(place, value, room)
        return
    levels = [(steps_in(value), "", "")]  # with the path to it, and the name of its value
    while levels:
        steps, path, name = levels[-1]
        if (member := next(steps, None)) is None:
            levels.pop()
            continue
        step, each = member
        if isinstance(step, str):
            yield from readings(f"{at_path(place, path)} (a name)", step, room)
            name = step
        if isinstance(each, list):
            levels.append((steps_in(each), longer(path, step), name))
        elif isinstance(each, str):
            yield from readings(at_path(place, longer(path, step)), each, room, name)


def steps_in(value: Any) -> Iterator[tuple[str | int, Any]]:
    """The members of an object by their names, or the items of a list by their numbers; a number has none."""
    if isinstance(value, Pairs):
        return iter(value)
    return enumerate(value) if isinstance(value, list) else iter(())


SHOWN_PATH: Final = 300  # characters of the path to a value


def at_path(place: str, path: str) -> str:
    return f"{place}: {path}" if path else place


def longer(path: str, step: str | int) -> str:
    """The path to a member, as `user.emails[0]`, cut in the middle."""
    if isinstance(step, int):
        path = f"{path}[{step}]"
    elif IDENTIFIER.fullmatch(step) is None:
        path = f"{path}[{quoted(step)}]"
    else:
        path = f"{path}.{step}" if path else step
    return cut(path, SHOWN_PATH)
