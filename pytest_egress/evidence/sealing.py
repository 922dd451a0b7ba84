"""Notes that the processes of one run alone can read: a worker's secrets, in a file beside what it has written.

The key is in the memory of these processes and goes with them. A note is what `secrets` of the standard library and a
keystream of SHAKE-256 make of its text: nobody who has the file alone learns more than its length.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 16


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def sealed(text: str, key: bytes) -> str:
    """A text as one that tells nothing without the key."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return (nonce + mixed(text.encode("utf-8", "surrogatepass"), key, nonce)).hex()


def unsealed(note: str, key: bytes) -> str:
    """The text that `sealed` was given, with the same key.

    Raises:
        ValueError: It is none of these.
    """
    data = bytes.fromhex(note)
    nonce = data[:NONCE_BYTES]
    return mixed(data[NONCE_BYTES:], key, nonce).decode("utf-8", "surrogatepass")


def mixed(data: bytes, key: bytes, nonce: bytes) -> bytes:
    stream = hashlib.shake_256(key + nonce).digest(len(data))
    return bytes(one ^ other for one, other in zip(data, stream, strict=True))
