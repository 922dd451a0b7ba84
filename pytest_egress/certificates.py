"""Certificates in the forms that runtimes keep their roots in: PEM bundles, Java keystores, OpenSSL's hashed names.

Pure functions over bytes; this module never touches a socket, and leaves what a certificate says to `cryptography`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Final

PEM: Final = re.compile(rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----(.*?)-----END ", re.DOTALL)
JKS_MAGIC: Final = bytes.fromhex("feedfeed")
JKS_VERSION: Final = 2
TRUSTED_ENTRY: Final = 2
PASSWORD: Final = "changeit"  # every JDK's own; a Java keystore is not encrypted by it, only sealed
STRING_TAGS: Final = (0x0C, 0x13, 0x14, 0x16, 0x1E)  # UTF8, Printable, T61, IA5, BMP (X.680)


def append(bundle: bytes, pem: bytes) -> bytes:
    """A PEM bundle with one more certificate at its end, on a line of its own."""
    return bundle + (b"\n" if bundle and not bundle.endswith(b"\n") else b"") + pem


def from_pem(bundle: bytes) -> list[bytes]:
    """The certificates of a PEM bundle in DER, each once; what cannot be decoded is left out."""
    found: dict[bytes, None] = {}
    for match in PEM.finditer(bundle):
        try:
            found[base64.b64decode(b"".join(match[1].split()), validate=True)] = None
        except binascii.Error:
            continue
    return list(found)


# Java keystores: the format JKS of sun.security.provider.JavaKeyStore, which every JDK reads.


def java_keystore(certificates: Sequence[bytes]) -> bytes:
    """A keystore that trusts these certificates, given in DER; sealed with `PASSWORD`."""
    data = JKS_MAGIC + JKS_VERSION.to_bytes(4, "big") + len(certificates).to_bytes(4, "big")
    entries = [_java_entry(f"root-{index}", der) for index, der in enumerate(certificates)]
    data = b"".join([data, *entries])
    return data + _java_seal(data)


def from_java_keystore(data: bytes) -> list[bytes]:
    """The certificates in DER that a keystore trusts: JKS, or PKCS #12 as newer JDKs have it.

    Raises:
        ValueError: It is neither, or has another password.
    """
    if data.startswith(JKS_MAGIC):
        return list(_java_entries(data))
    return _from_pkcs12(data)


def _java_text(text: str) -> bytes:
    encoded = text.encode("ascii")
    return len(encoded).to_bytes(2, "big") + encoded


def _java_entry(alias: str, der: bytes) -> bytes:
    head = TRUSTED_ENTRY.to_bytes(4, "big") + _java_text(alias) + bytes(8)  # made in 1970
    return head + _java_text("X.509") + len(der).to_bytes(4, "big") + der


def _java_seal(data: bytes) -> bytes:
    return hashlib.sha1(PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + data).digest()


def _java_entries(data: bytes) -> Iterator[bytes]:
    offset = 12
    for _ in range(int.from_bytes(data[8:12], "big")):
        if int.from_bytes(data[offset : offset + 4], "big") != TRUSTED_ENTRY:
            raise ValueError("a Java keystore with private keys is no truststore")
        offset += 4
        offset += 2 + int.from_bytes(data[offset : offset + 2], "big") + 8  # alias, date
        offset += 2 + int.from_bytes(data[offset : offset + 2], "big")  # "X.509"
        size = int.from_bytes(data[offset : offset + 4], "big")
        yield data[offset + 4 : offset + 4 + size]
        offset += 4 + size


def _from_pkcs12(data: bytes) -> list[bytes]:
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

    for password in (None, PASSWORD.encode()):
        try:
            store = pkcs12.load_pkcs12(data, password)
        except ValueError:
            continue
        return [each.certificate.public_bytes(Encoding.DER) for each in store.additional_certs]
    raise ValueError("neither a Java keystore nor one of PKCS #12 that can be read")


# The name under which OpenSSL finds a CA in a directory (X509_NAME_hash, openssl-rehash(1)).


def hashed_name(subject: bytes) -> str:
    """The file name, without the number after it, of a CA with this subject.

    Args:
        subject: The Name (RFC 5280 section 4.1.2.4) in DER.
    """
    canonical = b"".join(_canonical(der) for tag, der in _elements(_elements(subject)[0][1]))
    return f"{int.from_bytes(hashlib.sha1(canonical).digest()[:4], 'little'):08x}"


def _canonical(relative_name: bytes) -> bytes:
    """One SET of the name, with its texts in UTF-8, in lower case, and single spaces."""
    parts = []
    for _, attribute in _elements(relative_name):
        (_, kind), (tag, value) = _elements(attribute)
        if tag in STRING_TAGS:
            text = value.decode("utf-16-be" if tag == 0x1E else "utf-8", "replace")
            tag, value = 0x0C, " ".join(text.split()).lower().encode()
        parts.append(_element(0x30, _element(0x06, kind) + _element(tag, value)))
    return _element(0x31, b"".join(parts))


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """The tags and contents of DER elements, one after the other (X.690)."""
    found, offset = [], 0
    while offset < len(data):
        tag, size, offset = data[offset], data[offset + 1], offset + 2
        if size & 0x80:
            count = size & 0x7F
            size, offset = int.from_bytes(data[offset : offset + count], "big"), offset + count
        found.append((tag, data[offset : offset + size]))
        offset += size
    return found


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    encoded = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(encoded)]) + encoded + content
