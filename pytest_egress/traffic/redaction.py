"""Secrets in texts: their first characters and their length, enough to tell one from another and no use to a reader.

What names them is the field, the parameter or the key that they are the value of. Reports go into logs of CI, which
more people read than may know a key; the values themselves stay in `call.request`. Everything here is linear in what it
reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_plus

SHOWN: Final = 4  # characters of a secret: of most keys their kind ("sk_l", "ghp_", "AKIA"); of a short one a quarter
WITHIN_NAMES: Final = (
    "authorization",
    "apikey",
    "cookie",
    "credential",
    "jwt",
    "passphrase",
    "passwd",
    "password",
    "secret",
    "session",
    "signature",
    "token",
)
"""Say so wherever they stand in a name: "accesstoken", "client_secret", "X-Amz-Signature"."""

WORDS_OF_NAMES: Final = frozenset({"auth", "key", "pass", "pwd", "sig"})
"""Say so as a word of a name only: "api_key", "accessKey", and neither "author" nor "monkey"."""

WORDS: Final = re.compile(r"[A-Z]*[a-z]+|[A-Z]+")
READ: Final = 4096  # characters of a text in which names are looked for: more are never shown
NAMES: Final = re.compile(
    r'\\?"([^"\\]{1,64})\\?"\s{0,9}:\s{0,9}(\\?"|[\[{])|([\w.%\[\]-]{1,64})(="?| ?: {0,9})'
)
IN_QUOTES: Final = re.compile(r'(?:[^"\\]|\\.)*')
AFTER_EQUALS: Final = re.compile(r'[^&\s"]*')
AFTER_COLON: Final = re.compile(r"[^\r\n']*")
MARKS: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{\]}]')
WITHIN_VALUES: Final = re.compile(
    r"(?i)((?:%[0-9A-F]{2})?)([\w.-]{1,64})(=|%3D)((?:%(?!26)|[^%&])*)"
)
"""Of a parameter's value, which may be a URL itself, encoded or not."""

SCHEME: Final = re.compile(r"[A-Za-z0-9_-]{1,32} ")


@lru_cache(maxsize=1024)
def is_secret(name: str) -> bool:
    """Whether a name says that its value is a secret."""
    lower = name.lower()
    if any(part in lower for part in WITHIN_NAMES):
        return True
    words = [word.lower() for word in WORDS.findall(name)]
    return any({word, word.removesuffix("s")} & WORDS_OF_NAMES for word in words)


def mask(secret: str) -> str:
    """A secret as it is shown: `sk_l... (32 characters)`."""
    return f"{beginning(secret)}... ({len(secret)} character{'s' * (len(secret) != 1)})"


def mask_in_url(secret: str) -> str:
    """The same without spaces: `sk_l...(32)`."""
    return f"{beginning(secret)}...({len(secret)})"


def beginning(secret: str) -> str:
    """As much of a secret as may be shown."""
    return secret[: min(SHOWN, len(secret) // 4)]


def masked(name: str, value: Any) -> Any:
    """The value of a query parameter or a key, as it is shown."""
    return mask(value) if isinstance(value, str) and is_secret(name) else value


def masked_field(name: str, value: Any) -> Any:
    """The value of a header field, as it is shown: of credentials the scheme stays, of cookies the names."""
    if not isinstance(value, str):  # a test's own object, which compares as it likes
        return value
    lower = name.lower()
    if lower in ("cookie", "set-cookie"):
        pairs = value.split(";")
        last = 1 if lower == "set-cookie" else len(pairs)  # what follows are attributes
        return ";".join([*map(masked_cookie, pairs[:last]), *pairs[last:]])
    if not is_secret(name):
        return masked_text(value)
    scheme = SCHEME.match(value)
    return f"{scheme[0]}{mask(value[scheme.end() :])}" if scheme else mask(value)


def masked_cookie(pair: str) -> str:
    """`name=value` without its value."""
    name, equals, value = pair.partition("=")
    return f"{name}={mask(value)}" if equals else mask(pair)


def masked_json(value: Any, *, secret: bool = False) -> Any:
    """A JSON value as it is shown: no texts under a name that says so, however deep; a number is no secret.

    Args:
        secret: Whether it stands under such a name.
    """
    if isinstance(value, Mapping):
        return {k: masked_json(v, secret=secret or is_secret(str(k))) for k, v in value.items()}
    if isinstance(value, list):
        return [masked_json(item, secret=secret) for item in value]
    return mask(value) if secret and isinstance(value, str) else value


def masked_query(query_string: str) -> str:
    """A query as it is shown; it stays encoded."""
    return "&".join(map(masked_parameter, query_string.split("&"))) if query_string else ""


def masked_parameter(pair: str) -> str:
    """`name=value` of a query."""
    name, equals, value = pair.partition("=")
    if equals and is_secret(unquote_plus(name)):
        return f"{name}={mask_in_url(value)}"
    return f"{name}{equals}{WITHIN_VALUES.sub(masked_within, value)}"


def masked_within(found: re.Match[str]) -> str:
    """`name=value` of a query within a query."""
    before, name, equals, value = found.groups()
    return f"{before}{name}{equals}{mask_in_url(value)}" if is_secret(name) else found[0]


def masked_authority(authority: str) -> str:
    """`host:port`, and nothing of who logs in there (RFC 3986 section 3.2.1)."""
    user, at, host = authority.rpartition("@")
    return f"{mask_in_url(user)}@{host}" if at else authority


def masked_text(text: str) -> str:
    """The beginning of any text, in which names stand before their values: a form, JSON, or the head of a request."""
    if len(text) > READ:
        text = f"{text[:READ]}..."
    shown, position = [], 0
    while (named := NAMES.search(text, position)) is not None:
        quoted, opening, name, sign = named.groups()
        start = end = named.end()
        shown.append(text[position:end])
        if is_secret(quoted or unquote_plus(name)):
            end = end_of_value(text, start, opening or sign)
            value = text[start:end]
            masks = mask(value) if opening in ("[", "{") else masked_field(quoted or name, value)
            shown.append(masks if value else "")
        position = end
    return "".join([*shown, text[position:]])


def end_of_value(text: str, start: int, sign: str) -> int:
    """Where a value ends.

    Args:
        sign: What is before it: an opening quote or bracket, "=" or ":".
    """
    if sign in ("[", "{"):
        return end_of_brackets(text, start)
    in_quotes = sign.endswith('"')
    values = IN_QUOTES if in_quotes else AFTER_EQUALS if sign == "=" else AFTER_COLON
    value = values.match(text, start)
    assert value is not None  # it may be empty
    return value.end()


def end_of_brackets(text: str, start: int) -> int:
    """Where the bracket that was opened before is closed, or the end of the text."""
    depth = 1
    for mark in MARKS.finditer(text, start):
        depth += (mark[0] in ("[", "{")) - (mark[0] in ("]", "}"))
        if not depth:
            return mark.start()
    return len(text)


def masked_bytes(data: bytes) -> bytes:
    """The same of bytes."""
    return masked_text(data[: READ + 1].decode("latin-1")).encode("latin-1")
