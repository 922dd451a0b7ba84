"""Masks secrets in texts: their first characters and their length are shown, enough to tell one from another.

A value is a secret where the name of its field, parameter or key says so. Reports go into CI logs, which more people
read than may know a key; the values themselves stay in `call.request`. Every function takes time linear in its input.
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
"""Parts that make a name a secret's wherever they stand in it: "accesstoken", "client_secret", "X-Amz-Signature"."""

WORDS_OF_NAMES: Final = frozenset({"auth", "key", "pass", "pwd", "sig"})
"""Words that make a name a secret's only as a whole word: "api_key", "accessKey", not "author" or "monkey"."""

WORDS: Final = re.compile(r"[A-Z]*[a-z]+|[A-Z]+")
READ: Final = 4096  # characters of a text that are searched for names; no more of it is shown
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
"""A parameter within a parameter's value, which may be a URL itself, percent-encoded or not."""

PARTS: Final = re.compile(
    r'(; name="?([^"\r\n;]{1,64})"?[^\r\n]{0,256}\r\n(?:[^\r\n]{1,256}\r\n){0,8}\r\n)(.*?)(?=\r\n--|\Z)',
    re.DOTALL,
)
"""A part of a `multipart/form-data` body: its head with its name, and its value."""

SCHEME: Final = re.compile(r"[A-Za-z0-9_-]{1,32} ")


@lru_cache(maxsize=1024)
def is_secret(name: str) -> bool:
    lower = name.lower()
    if any(part in lower for part in WITHIN_NAMES):
        return True
    words = [word.lower() for word in WORDS.findall(name)]
    return any({word, word.removesuffix("s")} & WORDS_OF_NAMES for word in words)


def mask(secret: str) -> str:
    return f"{beginning(secret)}... ({len(secret)} character{'s' * (len(secret) != 1)})"


def mask_in_url(secret: str) -> str:
    return f"{beginning(secret)}...({len(secret)})"


def beginning(secret: str) -> str:
    return secret[: min(SHOWN, len(secret) // 4)]


def masked(name: str, value: Any) -> Any:
    return mask(value) if isinstance(value, str) and is_secret(name) else value


def masked_field(name: str, value: Any) -> Any:
    """The scheme of credentials stays, and so do the names of cookies."""
    if not isinstance(value, str):  # a test's own object, which compares as it likes
        return value
    lower = name.lower()
    if lower in ("cookie", "set-cookie"):
        pairs = value.split(";")
        last = 1 if lower == "set-cookie" else len(pairs)  # the rest of Set-Cookie are attributes
        return ";".join([*map(masked_cookie, pairs[:last]), *pairs[last:]])
    if not is_secret(name):
        return masked_text(value)
    scheme = SCHEME.match(value)
    return f"{scheme[0]}{mask(value[scheme.end() :])}" if scheme else mask(value)


def masked_cookie(pair: str) -> str:
    name, equals, value = pair.partition("=")
    return f"{name}={mask(value)}" if equals else mask(pair)


def masked_json(value: Any, *, secret: bool = False) -> Any:
    """Every string is masked that is at any depth under the name of a secret; numbers stay."""
    if isinstance(value, Mapping):
        return {k: masked_json(v, secret=secret or is_secret(str(k))) for k, v in value.items()}
    if isinstance(value, list):
        return [masked_json(item, secret=secret) for item in value]
    return mask(value) if secret and isinstance(value, str) else value


def masked_query(query_string: str) -> str:
    """The query stays percent-encoded."""
    return "&".join(map(masked_parameter, query_string.split("&"))) if query_string else ""


def masked_parameter(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if equals and is_secret(unquote_plus(name)):
        return f"{name}={mask_in_url(value)}"
    return f"{name}{equals}{WITHIN_VALUES.sub(masked_within, value)}"


def masked_within(found: re.Match[str]) -> str:
    before, name, equals, value = found.groups()
    return f"{before}{name}{equals}{mask_in_url(value)}" if is_secret(name) else found[0]


def masked_authority(authority: str) -> str:
    """User information is masked (RFC 3986 section 3.2.1)."""
    user, at, host = authority.rpartition("@")
    return f"{mask_in_url(user)}@{host}" if at else authority


def masked_url(url: str) -> str:
    """A URL, or an authority alone, with its user information and the secrets of its query masked."""
    scheme, mark, rest = url.partition("://")
    authority, slash, target = (rest if mark else url).partition("/")
    path, question, query = target.partition("?")
    begins = f"{scheme}{mark}" if mark else ""
    return f"{begins}{masked_authority(authority)}{slash}{path}{question}{masked_query(query)}"


def masked_text(text: str) -> str:
    """The beginning of a text, with its secrets masked: a form, in parts or not, JSON, a head, or anything else."""
    if len(text) > READ:
        text = f"{text[:READ]}..."
    text = PARTS.sub(masked_part, text)
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


def masked_part(found: re.Match[str]) -> str:
    head, name, value = found.groups()
    return f"{head}{mask(value)}" if value and is_secret(name) else found[0]


def end_of_value(text: str, start: int, sign: str) -> int:
    """`sign` is the character before the value: an opening quote or bracket, "=" or ":"."""
    if sign in ("[", "{"):
        return end_of_brackets(text, start)
    in_quotes = sign.endswith('"')
    values = IN_QUOTES if in_quotes else AFTER_EQUALS if sign == "=" else AFTER_COLON
    value = values.match(text, start)
    assert value is not None  # it may be empty
    return value.end()


def end_of_brackets(text: str, start: int) -> int:
    """The position of the bracket that closes the one before `start`, or the end of the text."""
    depth = 1
    for mark in MARKS.finditer(text, start):
        depth += (mark[0] in ("[", "{")) - (mark[0] in ("]", "}"))
        if not depth:
            return mark.start()
    return len(text)


def masked_bytes(data: bytes) -> bytes:
    return masked_text(data[: READ + 1].decode("latin-1")).encode("latin-1")
