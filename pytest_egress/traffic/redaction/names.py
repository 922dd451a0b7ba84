"""The names of fields, parameters, keys and variables that say that their value is a secret."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

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

NO_SECRETS: Final = frozenset(
    {
        "cachekey",
        "foreignkey",
        "idempotencykey",
        "partitionkey",
        "primarykey",
        "secwebsocketkey",
        "sortkey",
        "surrogatekey",
    }
)
"""Names with a secret's word that are none, without their marks. A test of retries looks at an Idempotency-Key."""

COUNTS: Final = frozenset(
    {
        *(
            "cache",
            "cached",
            "completion",
            "input",
            "max",
            "maximum",
            "min",
            "new",
            "num",
            "number",
        ),
        *("output", "prompt", "read", "reasoning", "total", "used", "usage"),
    }
)
"""Words that make `tokens` a number of a language model's: `max_tokens`, `prompt_tokens`."""

OF_S3: Final = "Key"
"""The name of an object, spelled so in the JSON and XML of S3; `key` of a query is a secret, as Google has it."""

WORDS: Final = re.compile(r"[A-Z]*[a-z]+|[A-Z]+")

PLACES: Final = frozenset(
    {
        *("algorithm", "audience", "dir", "directory", "domain", "enabled", "endpoint", "file"),
        *("header", "host", "hostname", "issuer", "length", "method", "mode", "name", "path"),
        *("port", "prefix", "provider", "realm", "server", "size", "sock", "socket", "suffix"),
        *("timeout", "ttl", "type", "uri", "url", "user", "username", "version"),
        *("addr", "address", "backend", "class", "converter", "deserializer", "driver", "engine"),
        *("lifetime", "model", "plugin", "plugins", "serializer", "service", "store", "svc"),
    }
)
"""Last words of variables that tell where a secret is, or what it is like: TOKEN_URL, PASSWORD_FILE, AUTH_TYPE."""


@lru_cache(maxsize=1024)
def is_secret(name: str) -> bool:
    words = words_of(name)
    if name == OF_S3 or (words[-1:] == ["tokens"] and COUNTS & {*words}):
        return False
    if "".join(words).removeprefix("x").removesuffix("s") in NO_SECRETS:
        return False
    lower = name.lower()
    if any(part in lower for part in WITHIN_NAMES):
        return True
    return any({word, word.removesuffix("s")} & WORDS_OF_NAMES for word in words)


def words_of(name: str) -> list[str]:
    return [word.lower() for word in WORDS.findall(name)]


def is_of_a_place(variable: str) -> bool:
    """Whether the value of a variable says where a secret is, and is none."""
    return bool({*words_of(variable)[-1:]} & PLACES)
