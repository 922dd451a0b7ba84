"""Requests, as a target may send them."""

from __future__ import annotations

import struct
from typing import Any

from pytest_egress.traffic.http.request import Request


def quic_initial(version: int = 1, kind: int = 0, size: int = 1200) -> bytes:
    """A datagram with an Initial packet of QUIC (RFC 9000 section 17.2.2), whose payload nobody can decrypt."""
    head = bytes([0xC0 | kind << 4]) + version.to_bytes(4, "big") + b"\x08" + b"d" * 8 + b"\x00\x00"
    return (head + (0x4000 | size - len(head) - 2).to_bytes(2, "big")).ljust(size, b"\x55")


def request(url: str = "https://api.test/", method: str = "GET", **fields: Any) -> Request:
    scheme, _, rest = url.partition("://")
    authority, slash, target = rest.partition("/")
    host, _, port = authority.partition(":")
    path, _, query = target.partition("?")
    return Request(
        method=method,
        scheme=scheme,
        host=host,
        port=int(port or {"https": 443, "http": 80}[scheme]),
        path=slash + path,
        query_string=query,
        **fields,
    )


def dtls_hello(legacy: int = 0xFEFD, *supported: int) -> bytes:
    """The ClientHello of a client of DTLS (RFC 6347, section 4.2.1), with one suite and no cookie."""
    versions = struct.pack(f"!B{len(supported)}H", 2 * len(supported), *supported)
    extension = struct.pack("!HH", 43, len(versions)) + versions if supported else b""
    lists = b"\0\0" + b"\0\2\xc0\x2b" + b"\1\0" + struct.pack("!H", 4 + len(extension))
    body = struct.pack("!H", legacy) + bytes(32) + lists + b"\0\x17\0\0" + extension
    message = b"\1" + len(body).to_bytes(3, "big") + bytes(5) + len(body).to_bytes(3, "big") + body
    return b"\x16\xfe\xff" + bytes(8) + struct.pack("!H", len(message)) + message
