"""Requests, as a target may send them."""

from __future__ import annotations

from typing import Any

from pytest_egress.traffic.messages import Request


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
