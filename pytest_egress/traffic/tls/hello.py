"""Parses the ClientHello of a TLS client, before the handshake: its length, and what the client offers.

Rule: this module is given bytes and never touches a socket. `bytes_needed` and `parse_client_hello`
take all bytes from the start of the connection. They return an answer, ask for more (`None` or a
number), or raise `ClientHelloError`, and never anything else. A hello may span any number of TLS
records and TCP segments.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import lru_cache

from pytest_egress.errors import ClientHelloError

MAX_HELLO_BYTES = 32768
"""The longest hello, with its record headers. With post-quantum key shares, real ones have some 1,800
bytes; a session ticket or padding may add a few thousand. Without a limit, a client could make this
process read until it runs out of memory."""

_KEPT_LISTS = 64
"""Lists of numbers that are kept: a client sends the same ones each time, and they are most of what a hello takes."""

_RECORD_HEADER_BYTES = 5
_MAX_FRAGMENT_BYTES = 2**14  # RFC 8446, section 5.1
_MESSAGE_HEADER_BYTES = 4

_HANDSHAKE_RECORD = 22
_CLIENT_HELLO = 1

_SERVER_NAME = 0
SESSION_TICKET = 35
_HOST_NAME = 0
_SUPPORTED_GROUPS, _SIGNATURE_ALGORITHMS = 10, 13
_ALPN = 16
SUPPORTED_VERSIONS = 43
_KEY_SHARE = 51
X25519 = 29
"""The number of the group of key exchange that costs least (RFC 8446, section 4.2.7)."""

_KIND_AND_LENGTH = struct.Struct(">HH")

_VARYING = frozenset({SESSION_TICKET, 21, 41, 42, 44, 45, 51})
"""Extensions that differ between the attempts of one client: session tickets (RFC 5077), padding
(RFC 7685), and pre-shared keys, early data, cookies and key shares (RFC 8446, section 4.2)."""

_SIGNALS = frozenset({0x00FF, 0x5600})
"""Numbers among the cipher suites that are signals: renegotiation (RFC 5746), retry with an older TLS (RFC 7507)."""


@dataclass(frozen=True, kw_only=True)
class ClientHello:
    """What a client offers at the start of TLS (RFC 8446, section 4.1.2), by preference, and its extensions, in order.

    Attributes:
        sni: The name on the wire, not normalised (RFC 6066, section 3); bytes beyond ASCII are
            backslash-escaped. None where the client sent none.
        alpn: Protocols (RFC 7301, section 3.1), escaped like `sni`.
        versions: 0x0304 is TLS 1.3: its supported_versions (RFC 8446, section 4.2.1), or the one legacy version.
        groups: Those of its key exchange (RFC 8446, section 4.2.7).
        signatures: The signature algorithms it accepts (RFC 8446, section 4.2.3).
        key_shares: The groups for which it sends a key share (RFC 8446, section 4.2.8).
    """

    sni: str | None
    alpn: tuple[str, ...]
    versions: tuple[int, ...]
    cipher_suites: tuple[int, ...]
    extensions: tuple[int, ...]
    groups: tuple[int, ...] = ()
    signatures: tuple[int, ...] = ()
    key_shares: tuple[int, ...] = ()


def newest_version(hello: ClientHello) -> str:
    """The newest version that a client offers, by OpenSSL's name."""
    return VERSION_NAMES.get(
        max(filter(VERSION_NAMES.__contains__, hello.versions), default=0), "SSLv3"
    )


VERSION_NAMES = {0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}


def bytes_needed(data: bytes) -> int:
    """How many bytes, from the start of the connection, to wait for before asking again.

    Returns:
        0 when `data` holds a whole ClientHello. Else more than `len(data)`, and never more than the
        hello has, so that the caller never waits for bytes that the client will not send.

    Raises:
        ClientHelloError: The bytes cannot begin a ClientHello, or it is longer than
            `MAX_HELLO_BYTES`.
    """
    if not data:
        return 1  # one byte tells TLS from most protocols; a client may wait after it
    _, missing = _begun(data)
    return len(data) + missing if missing > 0 else 0


def _begun(data: bytes) -> tuple[bytes, int]:
    """The handshake message so far, and how many more bytes to wait for: none where that is 0 or less."""
    message, end = _read_records(data)
    missing = max(_message_length(message) - len(message), end - len(data))
    _check_length(max(end, len(data) + missing))
    return message, missing


def parse_client_hello(data: bytes) -> ClientHello | None:
    """The ClientHello that a connection begins with; what follows it is ignored. None where more is to come.

    Raises:
        ClientHelloError: The bytes are no ClientHello, or it is longer than `MAX_HELLO_BYTES`.
    """
    if not data:
        return None
    message, missing = _begun(data)
    if missing > 0:
        return None
    return _parse_message(message[_MESSAGE_HEADER_BYTES : _message_length(message)])


def client_of(hello: ClientHello, *, alpn: bool = True) -> str:
    """A digest of a ClientHello that tells one TLS client of a container from another; retries of a client share it.

    It leaves out what differs between attempts: GREASE (RFC 8701), the order of extensions, session tickets, key shares
    and padding. Two programs that use a library in the same way count as one client. ALPN must not count where the
    client may retry with other protocols.
    """
    lists = hello.versions, hello.cipher_suites, hello.groups, hello.signatures
    return _digest(lists, hello.extensions, hello.alpn if alpn else None)


@lru_cache(maxsize=256)
def _digest(
    lists: tuple[tuple[int, ...], ...], extensions: tuple[int, ...], alpn: tuple[str, ...] | None
) -> str:
    """Cached, since a client opens many connections."""
    left_out = _VARYING if alpn is not None else {*_VARYING, _ALPN}
    traits = [
        *([n for n in numbers if not is_grease(n) and n not in _SIGNALS] for numbers in lists),
        sorted(n for n in {*extensions} - left_out if not is_grease(n)),
        "whatever it offers" if alpn is None else alpn,
    ]
    return hashlib.sha256(repr(traits).encode()).hexdigest()[:16]


def is_grease(number: int) -> bool:
    """A GREASE value has no meaning (RFC 8701)."""
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 0xFF


# Records: RFC 8446, section 5.1.


def _read_records(data: bytes) -> tuple[bytes, int]:
    """The handshake bytes so far, and the offset at which the last record, or its header, will end."""
    message = bytearray()
    offset = 0
    while True:
        header = data[offset : offset + _RECORD_HEADER_BYTES]
        _check_record_header(header)
        offset += _RECORD_HEADER_BYTES
        if offset > len(data):
            return bytes(message), offset
        end = offset + int.from_bytes(header[3:], "big")
        message += data[offset:end]
        if message and message[0] != _CLIENT_HELLO:
            raise ClientHelloError(
                f"no ClientHello: handshake type {message[0]}, not {_CLIENT_HELLO}"
            )
        if end > len(data) or len(message) >= _message_length(message):
            return bytes(message), end
        offset = end


def _check_record_header(header: bytes) -> None:
    """Refuse a record header, or the part of it that has arrived, as soon as it is wrong."""
    if header and header[0] != _HANDSHAKE_RECORD:
        raise ClientHelloError(
            f"no TLS handshake: record type {header[0]}, not {_HANDSHAKE_RECORD}"
        )
    if len(header) > 1 and header[1] != 3:
        raise ClientHelloError(f"no TLS handshake: major version {header[1]}, not 3")
    if len(header) == _RECORD_HEADER_BYTES:
        length = int.from_bytes(header[3:], "big")
        if not 1 <= length <= _MAX_FRAGMENT_BYTES:
            raise ClientHelloError(
                f"no TLS handshake: a record of {length} bytes, not 1 to {_MAX_FRAGMENT_BYTES}"
            )


def _message_length(message: bytes | bytearray) -> int:
    """The length of the message with its header, or that of the header while it is incomplete."""
    if len(message) < _MESSAGE_HEADER_BYTES:
        return _MESSAGE_HEADER_BYTES
    return _MESSAGE_HEADER_BYTES + int.from_bytes(message[1:4], "big")


def _check_length(length: int) -> None:
    if length > MAX_HELLO_BYTES:
        raise ClientHelloError(
            f"a ClientHello of {length} bytes or more; the limit is {MAX_HELLO_BYTES}"
        )


# The message: RFC 8446, section 4.1.2.


def _parse_message(data: bytes) -> ClientHello:
    _, offset = _vector_at(data, 34, 1)  # legacy_session_id, after the version and the random
    cipher_suites, offset = _vector_at(data, offset, 2)
    _, offset = _vector_at(data, offset, 1)  # legacy_compression_methods
    extensions = _parse_extensions(_last_vector(data, offset, 2)) if offset < len(data) else {}
    return ClientHello(
        sni=_parse_server_name(extensions.get(_SERVER_NAME)),
        alpn=_parse_alpn(extensions.get(_ALPN)),
        versions=_parse_versions(extensions.get(SUPPORTED_VERSIONS)) or _numbers(data[:2]),
        cipher_suites=_numbers(cipher_suites),
        extensions=tuple(extensions),
        groups=_pairs(extensions.get(_SUPPORTED_GROUPS)),
        signatures=_pairs(extensions.get(_SIGNATURE_ALGORITHMS)),
        key_shares=_parse_key_shares(extensions.get(_KEY_SHARE)),
    )


def _parse_extensions(data: bytes) -> dict[int, bytes]:
    extensions: dict[int, bytes] = {}
    offset, end = 0, len(data)
    while offset < end:
        if offset + 4 > end:
            raise _runs_past()
        kind, length = _KIND_AND_LENGTH.unpack_from(data, offset)
        begin, offset = offset + 4, offset + 4 + length
        if offset > end:
            raise _runs_past()
        if kind in extensions:  # RFC 8446, section 4.2: which of the two would OpenSSL take?
            raise ClientHelloError(f"malformed ClientHello: extension {kind} occurs twice")
        extensions[kind] = data[begin:offset]
    return extensions


def _parse_server_name(extension: bytes | None) -> str | None:
    """The first host name of the extension. RFC 6066, section 3, has no other type and no way to skip one."""
    if extension is None:
        return None
    names = _last_vector(extension, 0, 2)
    if not names:
        raise _runs_past()
    return _text(_vector_at(names, 1, 2)[0]) if names[0] == _HOST_NAME else None


def _parse_alpn(extension: bytes | None) -> tuple[str, ...]:
    if extension is None:
        return ()
    names, offset = _last_vector(extension, 0, 2), 0
    protocols = []
    while offset < len(names):
        protocol, offset = _vector_at(names, offset, 1)
        protocols.append(_text(protocol))
    return tuple(protocols)


def _parse_versions(extension: bytes | None) -> tuple[int, ...]:
    return () if extension is None else _numbers(_last_vector(extension, 0, 1))


def _parse_key_shares(extension: bytes | None) -> tuple[int, ...]:
    """The groups of the key shares, as far as they can be read: OpenSSL checks them."""
    groups, offset, end = [], 2, len(extension or b"")
    while offset + 4 <= end:
        assert extension is not None
        group, length = _KIND_AND_LENGTH.unpack_from(extension, offset)
        groups.append(group)
        offset += 4 + length
    return tuple(groups)


@lru_cache(maxsize=_KEPT_LISTS)
def _pairs(extension: bytes | None) -> tuple[int, ...]:
    """The numbers are unchecked: here they only tell clients apart, and OpenSSL checks them."""
    body = (extension or b"")[2:]
    return struct.unpack(f">{len(body) // 2}H", body[: len(body) & ~1])


@lru_cache(maxsize=_KEPT_LISTS)
def _numbers(data: bytes) -> tuple[int, ...]:
    if len(data) % 2:
        raise _runs_past()
    return struct.unpack(f">{len(data) // 2}H", data)


def _text(wire: bytes) -> str:
    return wire.decode("ascii", "backslashreplace")


# Structures: RFC 8446, section 3.


def _vector_at(data: bytes, offset: int, width: int) -> tuple[bytes, int]:
    """The vector at an offset whose length takes `width` bytes, and the offset of what follows it."""
    begin = offset + width
    end = begin + int.from_bytes(data[offset:begin], "big")
    if begin > len(data) or end > len(data):
        raise _runs_past()
    return data[begin:end], end


def _last_vector(data: bytes, offset: int, width: int) -> bytes:
    """Anything after it is an error."""
    vector, end = _vector_at(data, offset, width)
    if end < len(data):
        raise ClientHelloError("malformed ClientHello: bytes after the end of a structure")
    return vector


def _runs_past() -> ClientHelloError:
    return ClientHelloError("malformed ClientHello: a field runs past the end of its structure")
