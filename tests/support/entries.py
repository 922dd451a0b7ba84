"""Entries of a ledger, of which a case names the fields that it is about."""

from __future__ import annotations

from typing import Any

from pytest_egress.traffic.entries import (
    Datagram,
    DatagramFlow,
    DnsQuery,
    Exchange,
    PacketAttempt,
    TcpConnection,
    TlsFailure,
)
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request


def about(**fields: Any) -> dict[str, Any]:
    """The fields of an entry that a case does not name."""
    common = {"container": "shop", "started": 100.0, "outcome": "unrouted", "host": "api.test"}
    return {**common, **fields}


def http_exchange(method: str = "GET", path: str = "/", **fields: Any) -> Exchange:
    secure = fields.pop("secure", True)
    headers = Headers(fields.pop("headers", {}))
    fields = about(port=443 if secure else 80) | fields
    request = Request(
        method=method,
        scheme="https" if secure else "http",
        host=fields["host"],
        port=fields["port"],
        path=path,
        headers=headers,
    )
    return Exchange(**fields, request=request)


def tcp(**fields: Any) -> TcpConnection:
    return TcpConnection(**about(port=5432, address="198.18.0.1") | fields)


def tls(**fields: Any) -> TlsFailure:
    return TlsFailure(**about(port=443, address="198.18.0.1") | fields)


def packet(**fields: Any) -> PacketAttempt:
    return PacketAttempt(**about(port=123, protocol="UDP", address="198.18.0.1", size=56) | fields)


def datagrams(*contents: bytes, **fields: Any) -> DatagramFlow:
    """Those of one client to one server, each without an answer."""
    common = about(port=8125, address="198.18.0.1", client=("10.213.0.2", 4000)) | fields
    return DatagramFlow(**common, datagrams=[Datagram(**common, content=each) for each in contents])


def datagram(content: bytes) -> Datagram:
    return datagrams(content, host="a.test", port=9, address="198.18.0.1").datagrams[0]


def dns_query(**fields: Any) -> DnsQuery:
    return DnsQuery(**about(outcome="recorded", type="A", answer=("198.18.0.1",)) | fields)
