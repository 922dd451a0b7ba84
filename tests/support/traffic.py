"""Requests, as a target may send them."""

from __future__ import annotations

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
