"""A service whose database is canned answers: PostgreSQL's protocol, as much of it as drivers need, and its TLS.

A database that has to understand SQL is a container: see test_databases.py.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from pytest_egress import Egress

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
TYPES, TEXT = {bool: 16, int: 20, float: 701}, 25
ALL = -1  # a type without a modifier
SETTINGS = {"server_version": "17.0", "client_encoding": "UTF8", "DateStyle": "ISO, MDY"}


def message(kind: bytes, payload: bytes = b"") -> bytes:
    return kind + struct.pack(">I", len(payload) + 4) + payload


def text(value: object) -> bytes:
    return str(value).encode() + b"\0"


READY = message(b"Z", b"I")


class Postgres:
    """A handler: knows the rows of some queries. Any other statement succeeds, and has no rows."""

    def __init__(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self.rows = rows
        self.asked: list[str] = []

    def __call__(self, sock: Any) -> None:
        """Serve one connection, to its end."""
        sock, query = self.start(sock), ""
        while (kind := sock.readexactly(1)) != b"X":
            (size,) = struct.unpack(">I", sock.readexactly(4))
            body = sock.readexactly(size - 4)
            if kind == b"Q":
                query = body[:-1].decode()
                sock.sendall(self.columns(query) + self.result(query) + READY)
            elif kind == b"P":
                query = body.split(b"\0")[1].decode()
                sock.sendall(message(b"1"))
            elif kind == b"B":
                sock.sendall(message(b"2"))
            elif kind == b"D":
                sock.sendall(self.columns(query) or message(b"n"))
            elif kind == b"E":
                sock.sendall(self.result(query))
            elif kind == b"S":
                sock.sendall(READY)

    def start(self, sock: Any) -> Any:
        """Answer what comes before the first query; a client that asks for TLS gets it."""
        while True:
            size, code = struct.unpack(">II", sock.readexactly(8))
            if code == SSL_REQUEST:
                sock.sendall(b"S")
                sock = sock.starttls()
            elif code == GSS_REQUEST:
                sock.sendall(b"N")
            else:
                sock.readexactly(size - 8)
                break
        settings = b"".join(message(b"S", text(key) + text(SETTINGS[key])) for key in SETTINGS)
        sock.sendall(message(b"R", bytes(4)) + settings + message(b"K", bytes(8)) + READY)
        return sock

    def columns(self, query: str) -> bytes:
        """The names and types of the columns; nothing for a statement without rows."""
        if query not in self.rows:
            return b""
        first = self.rows[query][0]
        columns = b"".join(
            text(name) + struct.pack(">IhIhih", 0, 0, TYPES.get(type(value), TEXT), -1, ALL, 0)
            for name, value in first.items()
        )
        return message(b"T", struct.pack(">h", len(first)) + columns)

    def result(self, query: str) -> bytes:
        """The rows, and the tag that says which statement they are of."""
        self.asked.append(query)
        rows = self.rows.get(query, ())
        tag = f"SELECT {len(rows)}" if rows else query.split()[0]
        return b"".join(row(each.values()) for each in rows) + message(b"C", text(tag))


def row(values: Iterable[object]) -> bytes:
    cells = [cell(value) for value in values]
    return message(b"D", struct.pack(">h", len(cells)) + b"".join(cells))


def cell(value: object) -> bytes:
    if value is None:
        return struct.pack(">i", -1)
    data = ("ft"[value] if isinstance(value, bool) else str(value)).encode()
    return struct.pack(">i", len(data)) + data


STOCK = "SELECT sku, pieces, sold_out FROM stock"
ROWS = [
    {"sku": "chair", "pieces": 3, "sold_out": False},
    {"sku": "lamp", "pieces": 0, "sold_out": True},
]
REPORT = f"""
import psycopg

with psycopg.connect("host=db.internal user=shop sslmode=verify-full sslrootcert=system") as db:
    for sku, pieces, sold_out in db.execute("{STOCK}"):
        print(sku, "sold out" if sold_out else pieces + 1)
"""


def test_a_report_reads_the_stock_over_a_verified_connection(egress: Egress, services: str) -> None:
    database = Postgres({STOCK: ROWS})
    route = egress.intercept_tcp("db.internal:5432", database)

    result = egress.run(services, ["python3", "-c", REPORT])

    assert result.stdout == "chair 4\nlamp sold out\n"
    assert database.asked == ["BEGIN", STOCK]
    call = route.assert_called_once()
    assert call.tls is not None  # psycopg asked for TLS, and trusts the certificate
    assert call.sni == "db.internal"


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_psql_begins_with_tls_or_asks_for_it(
    egress: Egress, services: str, negotiation: str
) -> None:
    database = Postgres({"TABLE stock": ROWS})
    if negotiation == "direct":
        egress.intercept_tls("db.internal:5432", database, alpn=("postgresql",))
    else:
        egress.intercept_tcp("db.internal:5432", database)
    where = f"host=db.internal user=shop sslnegotiation={negotiation} sslmode=verify-full sslrootcert=system"

    result = egress.run(services, ["psql", where, "--csv", "--command", "TABLE stock"])

    assert result.stdout == "sku,pieces,sold_out\nchair,3,f\nlamp,0,t\n"
