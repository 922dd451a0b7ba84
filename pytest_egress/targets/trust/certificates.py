"""Reads and writes the formats in which runtimes keep roots: PEM bundles, Java keystores, OpenSSL's hashed names.

Pure functions over bytes. This module never touches a socket, and leaves the content of certificates to `cryptography`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

PEM: Final = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----([^-]*)-----END ")
JKS_MAGIC: Final = bytes.fromhex("feedfeed")
JKS_VERSION: Final = 2
TRUSTED_ENTRY: Final = 2
PASSWORD: Final = "changeit"  # that of every JDK; it does not encrypt a keystore, it only seals it
SEAL_BYTES: Final = 20  # a SHA-1 digest
SEQUENCE, SET, OBJECT_IDENTIFIER, UTF8_STRING = 0x30, 0x31, 0x06, 0x0C  # X.690
OCTET_STRING, NULL, INDEFINITE = 0x04, 0x05, b"\x30\x80"
DATA: Final = bytes.fromhex("2a864886f70d010701")  # of RFC 5652 section 4
CERTIFICATE_BAG: Final = bytes.fromhex("2a864886f70d010c0a0103")  # of RFC 7292 section 4.2.3
UNREADABLE: Final = "neither a Java keystore nor one of PKCS #12 that can be read"
ROUNDS: Final = 200_000  # of hashing take a tenth of a second; a JDK makes 10,000
READ_SECONDS: Final = 10.0  # for a keystore with a password; a JDK's own take milliseconds
READER: Final = """
import sys, warnings
password, *paths = sys.argv[1:]
sys.path += paths
warnings.simplefilter("ignore")
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12
data = sys.stdin.buffer.read()
for each in (password.encode(), None):
    try:
        store = pkcs12.load_pkcs12(data, each)
    except ValueError:
        continue
    for found in store.additional_certs:
        sys.stdout.buffer.write(found.certificate.public_bytes(Encoding.PEM))
    sys.exit(0)
sys.exit(1)
"""
ENCODINGS: Final = {  # of texts in names: Printable, T61, IA5, Universal, BMP, as OpenSSL reads them
    UTF8_STRING: "utf-8",
    **dict.fromkeys((0x13, 0x14, 0x16), "latin-1"),
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}


def append(bundle: bytes, pem: bytes) -> bytes:
    return bundle + (b"\n" if bundle and not bundle.endswith(b"\n") else b"") + pem


def merge(bundles: Iterable[bytes]) -> bytes:
    """Merge PEM bundles into one: the first as it is, then the certificates that only the others have."""
    first, *others = [*bundles] or [b""]
    found = dict.fromkeys(der for bundle in others for der in from_pem(bundle))
    for der in from_pem(first) if found else ():
        found.pop(der, None)
    return append(first, b"".join(map(to_pem, found))) if found else first


def to_pem(der: bytes) -> bytes:
    """PEM is RFC 7468 section 5."""
    text = base64.b64encode(der)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    marks = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    return b"\n".join([marks[0], *lines, marks[1], b""])


def from_pem(bundle: bytes) -> list[bytes]:
    """The certificates of a PEM bundle in DER, each once. Blocks that cannot be decoded are left out.

    The data that OpenSSL appends to a TRUSTED CERTIFICATE is left out too.
    """
    found: dict[bytes, None] = {}
    for match in PEM.finditer(bundle):
        try:
            decoded = base64.b64decode(b"".join(match[1].split()), validate=True)
            tag, _, end = _read_element(decoded, 0)
        except ValueError:
            continue
        if tag == SEQUENCE:
            found[decoded[:end]] = None
    return list(found)


# Java keystores: the format JKS of sun.security.provider.JavaKeyStore, which every JDK reads.


def java_keystore(certificates: Sequence[bytes]) -> bytes:
    """A keystore that trusts these certificates, given in DER; sealed with `PASSWORD`."""
    data = JKS_MAGIC + JKS_VERSION.to_bytes(4, "big") + len(certificates).to_bytes(4, "big")
    entries = [_java_entry(f"root-{index}", der) for index, der in enumerate(certificates)]
    data = b"".join([data, *entries])
    return data + _java_seal(data)


def extend_java_keystore(data: bytes, certificate: bytes) -> bytes:
    """The certificate is in DER. PKCS #12 becomes JKS, which every JDK reads; ValueError where it cannot be read."""
    if not data.startswith(JKS_MAGIC):
        return java_keystore([*from_java_keystore(data), certificate])
    count = len(list(_java_entries(data))) + 1
    entries = data[12:-SEAL_BYTES] + _java_entry("pytest-egress", certificate)
    extended = data[:8] + count.to_bytes(4, "big") + entries
    return extended + _java_seal(extended)


def check_seal(data: bytes) -> None:
    """Raise ValueError for a JKS with another password than `PASSWORD`: it could not be sealed again after a change."""
    if data.startswith(JKS_MAGIC) and data[-SEAL_BYTES:] != _java_seal(data[:-SEAL_BYTES]):
        raise ValueError(f"a Java keystore whose password is not {PASSWORD!r}")


def from_java_keystore(data: bytes) -> list[bytes]:
    """The certificates in DER of a JKS, or of PKCS #12 as newer JDKs use it; ValueError for any other data."""
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
    reader = io.BytesIO(data[len(JKS_MAGIC) :])

    def read(size: int) -> bytes:
        if len(content := reader.read(size)) < size:
            raise ValueError("a Java keystore that is cut off")
        return content

    def number(size: int = 4) -> int:
        return int.from_bytes(read(size), "big")

    if number() != JKS_VERSION:
        raise ValueError("a Java keystore of an unknown version")
    for _ in range(number()):
        if number() != TRUSTED_ENTRY:
            raise ValueError("a Java keystore with private keys is no truststore")
        read(number(2))  # alias
        read(8)  # date
        read(number(2))  # "X.509"
        yield read(number())


# PKCS #12 (RFC 7292). One with a password says itself how often its key is hashed, and nothing interrupts that.


def _from_pkcs12(data: bytes) -> list[bytes]:
    if not _is_quick(data):
        return _in_own_process(data)
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

    for password in (None, PASSWORD.encode()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the JVM accepts BER as well as DER
            try:
                store = pkcs12.load_pkcs12(data, password)
            except ValueError:
                continue
        return [each.certificate.public_bytes(Encoding.DER) for each in store.additional_certs]
    raise ValueError(UNREADABLE)


def _is_quick(data: bytes) -> bool:
    """Whether nothing in a PKCS #12 is encrypted, and its seal is of few rounds; ValueError where it is no PKCS #12."""
    if data.startswith(INDEFINITE):
        return False  # BER, in which little can be told by reading on
    tag, content, _ = _read_element(data, 0)
    parts = _elements(content)
    if tag != SEQUENCE or len(parts) not in (2, 3):
        raise ValueError(UNREADABLE)
    try:
        ((_, infos),) = _elements(_plain_data(parts[1][1]))
        contents = [_elements(_plain_data(info)) for _, info in _elements(infos)]
        bags = [bag for ((_, listed),) in contents for _, bag in _elements(listed)]
        return all(map(_is_certificate, bags)) and all(_rounds(s) <= ROUNDS for _, s in parts[2:])
    except (ValueError, IndexError):
        return False


def _rounds(seal: bytes) -> int:
    """How often the password is hashed (MacData, RFC 7292 section 4); ValueError for a seal of RFC 9579."""
    (_, digest), _salt, *counts = _elements(seal)
    _, *parameters = _elements(_elements(digest)[0][1])
    if parameters not in ([], [(NULL, b"")]):
        raise ValueError("no plain digest")
    return sum(int.from_bytes(count, "big") for _, count in counts)


def _plain_data(info: bytes) -> bytes:
    """The content of a ContentInfo; ValueError where it is encrypted or signed."""
    (_, kind), (_, explicit) = _elements(info)
    ((tag, octets),) = _elements(explicit)
    if kind != DATA or tag != OCTET_STRING:
        raise ValueError("no plain data")
    return octets


def _is_certificate(bag: bytes) -> bool:
    """A SafeBag of any other kind may be encrypted."""
    return _elements(bag)[0] == (OBJECT_IDENTIFIER, CERTIFICATE_BAG)


def _in_own_process(data: bytes) -> list[bytes]:
    """The certificates of a PKCS #12 with a password, read by a process that is ended where it takes too long."""
    paths = [path for path in sys.path if os.path.isabs(path)]
    command = [sys.executable, "-I", "-S", "-c", READER, PASSWORD, *paths]
    try:
        read = subprocess.run(
            command,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=READ_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"a PKCS #12 keystore that cannot be read within {READ_SECONDS:g} s: its password is hashed too often"
        ) from None
    except (OSError, subprocess.SubprocessError):
        raise ValueError(UNREADABLE) from None
    return from_pem(read.stdout)


# The name under which OpenSSL finds a CA in a directory (X509_NAME_hash, openssl-rehash(1)).


def hashed_name(subject: bytes) -> str:
    """The file name of a CA, without the number after it, by its subject in DER (a Name, RFC 5280 section 4.1.2.4)."""
    canonical = b"".join(_canonical(der) for _, der in _elements(_elements(subject)[0][1]))
    return f"{int.from_bytes(hashlib.sha1(canonical).digest()[:4], 'little'):08x}"


def _canonical(relative_name: bytes) -> bytes:
    """The canonical form of one SET of a name: texts in UTF-8, ASCII in lower case, spaces single."""
    parts = []
    for _, attribute in _elements(relative_name):
        (_, kind), (tag, value) = _elements(attribute)
        if tag in ENCODINGS:
            text = value.decode(ENCODINGS[tag], "replace").encode()
            tag, value = UTF8_STRING, b" ".join(text.split()).lower()
        parts.append(_element(SEQUENCE, _element(OBJECT_IDENTIFIER, kind) + _element(tag, value)))
    return _element(SET, b"".join(sorted(parts)))


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """The tags and contents of DER elements, one after the other (X.690)."""
    found, offset = [], 0
    while offset < len(data):
        tag, content, offset = _read_element(data, offset)
        found.append((tag, content))
    return found


def _read_element(data: bytes, offset: int) -> tuple[int, bytes, int]:
    """Return an element's tag, its content and the offset of its end; raise ValueError where it is cut off."""
    head = data[offset : offset + 2]
    start, size = offset + 2, head[-1] if head else 0
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[offset + 2 : start], "big")
    if len(head) < 2 or start + size > len(data):
        raise ValueError("a DER element that is cut off")
    return head[0], data[start : start + size], start + size


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    encoded = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(encoded)]) + encoded + content
