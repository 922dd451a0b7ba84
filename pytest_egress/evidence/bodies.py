"""Bodies as values of JSON, without their secrets and within limits.

A body is `{"size", "text" | "base64", "cut"?, "coding"?}`. Known values are replaced in its bytes, before it is cut and
before it becomes base64, in which nobody would find them. Then names decide: JSON is read, masked and written again, a
form is masked as a query, and other text is searched for what looks like a name and a value.
"""

from __future__ import annotations

import base64
import json
import re
from codecs import utf_8_decode
from collections.abc import Callable
from typing import Any, Final

from pytest_egress.errors import ContentError
from pytest_egress.traffic.http.content_coding import MAX_BEGINNING, codings, decoded
from pytest_egress.traffic.redaction.redactor import Redactor

SHOWN_BODY: Final = 64 << 10  # bytes of a body
SHOWN_BODIES: Final = 4 << 20  # bytes of all bodies of a test
SHOWN_MESSAGE: Final = 2000  # characters of a message
MARGIN: Final = 8 << 10  # bytes behind the limit in which a value may end that begins before it
LOOKED_AT: Final = 2000  # characters of a text, which tell whether it is one
CONTROLS: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f]")  # ESC is in many a log
FORM: Final = "application/x-www-form-urlencoded"


class Bodies:
    """Makes the bodies of one test, which share a limit."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor, self._left = redactor, SHOWN_BODIES

    def whole(
        self, read: Callable[[], bytes], *, coding: str = "", type: str = ""
    ) -> dict[str, Any] | None:
        """A body without its content coding; None where there is none. One that is not kept has its size, or nothing.

        Args:
            read: Returns the body as it was sent. It may raise: some are not kept.
            coding: The value of Content-Encoding.
            type: The value of Content-Type.
        """
        try:
            raw = read()
        except (
            Exception
        ):  # RuntimeError of one that was streamed, ContentError of one that cannot be decoded
            return {"size": None}
        return self.of(raw, coding=coding, type=type) if raw else None

    def of(
        self,
        raw: bytes,
        *,
        coding: str = "",
        type: str = "",
        is_raw: bool = False,
        has_more: bool = False,
    ) -> dict[str, Any]:
        """As `whole`, of a body that is there.

        Args:
            is_raw: Whether it is the bytes of a protocol that may have logins.
            has_more: Whether more may have followed that is not kept: its end may be the beginning of a secret.
        """
        made: dict[str, Any] = {"size": len(raw)}
        content = raw
        if codings(coding):
            made["coding"] = self._redactor.hidden(coding)
            content = beginning_of(raw, coding)
        shown, is_cut = self._shown(content, is_raw=is_raw, has_more=has_more)
        if is_cut:
            made["cut"] = len(shown)
        text = text_in(shown, is_cut=is_cut)
        if text is None:
            return made | {"base64": base64.b64encode(shown).decode()}
        return made | {"text": masked(text, type, self._redactor, is_cut=is_cut)}

    def _shown(self, content: bytes, *, is_raw: bool, has_more: bool) -> tuple[bytes, bool]:
        """The beginning of a body without known values, and whether more of it followed."""
        size = min(SHOWN_BODY, self._left)
        is_cut = len(content) > size
        self._left -= min(size, len(content))
        # A value that is cut by the limit is replaced as a whole, before.
        beginning = content[: size + MARGIN]
        has_more = has_more or len(content) > size + MARGIN
        if is_raw:
            shown = self._redactor.whole_content(beginning, is_cut=has_more)
        else:
            shown = known_in(beginning, self._redactor, is_cut=has_more)
        return shown[:size] if is_cut else shown, is_cut


def known_in(content: bytes, redactor: Redactor, *, is_cut: bool) -> bytes:
    """Bytes without known values. One that is not ASCII is found in UTF-8."""
    shown = redactor.known(content.decode("latin-1"), is_cut=is_cut)
    return shown.encode("latin-1", "replace")


def beginning_of(raw: bytes, coding: str) -> bytes:
    """The beginning of a body without its coding; as it was sent where it is not in that."""
    found = bytearray()
    try:
        for piece in decoded([raw], coding, MAX_BEGINNING):
            found += piece
            if len(found) > SHOWN_BODY:
                break
    except ContentError:
        pass
    return bytes(found) or raw


def text_in(content: bytes, *, is_cut: bool) -> str | None:
    """The text that bytes are; None where they are none. What is cut may end within a character."""
    try:
        text, _ = utf_8_decode(content, "strict", not is_cut)
    except UnicodeDecodeError:
        return None
    return None if CONTROLS.search(text, 0, LOOKED_AT) else text


def masked(text: str, type: str, redactor: Redactor, *, is_cut: bool = False) -> str:
    """A text without what its names say is a secret."""
    if text[:1] in ("{", "[") and not is_cut:
        try:
            value = DECODER.decode(text)
            hidden = redactor.json(value)
        except (ValueError, RecursionError):
            pass
        else:
            return text if hidden == value else json.dumps(hidden, ensure_ascii=False)
    if type.lower().startswith(FORM):
        return redactor.query(text)
    return redactor.whole_text(text, is_cut=is_cut)


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Of two members with one name the first would be read by nobody, and stay in the text."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("two members of an object have one name")
    return found


DECODER: Final = json.JSONDecoder(object_pairs_hook=each_once)


def message_text(
    content: bytes, redactor: Redactor, *, is_asked: bool = False, is_cut: bool = False
) -> str:
    """A message: its text, or the literal of its bytes. It may be long.

    Args:
        is_asked: Whether its server has just asked for a part of a login.
    """
    shown = redactor.whole_content(content, is_asked=is_asked, is_cut=is_cut)
    text = text_in(shown, is_cut=is_cut)
    if text is None:
        return repr(shown)[2:-1]
    return masked(text, "", redactor, is_cut=is_cut)
