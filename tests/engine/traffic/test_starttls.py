"""STARTTLS, raw ALPN and servers of libraries, asked by real clients in containers, over either link."""

from __future__ import annotations

import contextlib
import runpy
import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP
from fakeredis import TcpFakeServer

from pytest_egress import Egress, HandshakeError
from pytest_egress.session import Session
from pytest_egress.traffic.entries import TcpConnection
from tests.support.project import ROOT

LINKS = ["descriptor", "stream"]
Postgres = runpy.run_path(str(ROOT / "examples/test_postgres.py"))["Postgres"]
"""The server of the example, a handler of the socket."""


@pytest.fixture(params=LINKS)
def either(request: pytest.FixtureRequest) -> Iterator[Egress]:
    """An egress of a session of its own, over either link."""
    session = Session(link=request.param)
    with contextlib.closing(session), Egress(session=session) as egress:
        yield egress


def python(egress: Egress, image: str, code: str) -> str:
    return egress.run(image, ["python3", "-c", code], timeout=120).stdout


# IMAP: the server speaks first, and lines are read one by one.


def imap(sock: Any) -> None:
    sock.sendall(b"* OK ready\r\n")
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(sock.makefile("rb", buffering=0))
        while line := lines.readline():
            tag, verb, *_ = line.decode().upper().split()
            if verb == "CAPABILITY":
                sock.sendall(b"* CAPABILITY IMAP4rev1 STARTTLS\r\n")
            sock.sendall(f"{tag} OK done\r\n".encode())
            if verb == "STARTTLS":
                sock = sock.starttls()
                lines = stack.enter_context(sock.makefile("rb", buffering=0))
            if verb == "LOGOUT":
                return


def test_imaplib_logs_in_over_tls(either: Egress, services_image: str) -> None:
    route = either.intercept_tcp("mail.test:143", imap)
    code = """
import imaplib, ssl
client = imaplib.IMAP4("mail.test")
client.starttls(ssl.create_default_context())
print(client.login("ann", "secret"), client.logout()[0])
"""
    assert python(either, services_image, code) == "('OK', [b'done']) OK\n"
    call = route.assert_called_once()
    assert (call.sni, call.tls is not None) == ("mail.test", True)


# PostgreSQL: a request of eight bytes, or TLS from the begin with ALPN.

WHERE = "host=db.test user=ann sslmode=verify-full sslrootcert=system"
QUERY = "SELECT 1 AS one"


@pytest.mark.parametrize("program", ["psql", "psycopg"])
def test_libpq_asks_for_tls_and_verifies_it(
    either: Egress, services_image: str, program: str
) -> None:
    route = either.intercept_tcp("db.test:5432", Postgres({QUERY: [{"one": 1}]}))
    if program == "psql":
        command = ["psql", WHERE, "-Atc", QUERY]
        assert either.run(services_image, command).stdout == "1\n"
    else:
        code = f"import psycopg; print(psycopg.connect('{WHERE}').execute('{QUERY}').fetchone())"
        assert python(either, services_image, code) == "(1,)\n"
    call = route.assert_called_once()
    assert call.tls is not None
    assert call.tls.alpn is None


def test_libpq_negotiates_tls_directly_where_the_route_agrees_on_its_protocol(
    either: Egress, services_image: str
) -> None:
    command = ["psql", f"{WHERE} sslnegotiation=direct", "-Atc", QUERY]
    database = Postgres({QUERY: [{"one": 1}]})
    without = either.intercept_tls("db.test:5432", database)
    refused = either.run(services_image, command, check=False)
    assert "without ALPN protocol negotiation extension" in refused.stderr
    without.remove()
    route = either.intercept_tls("db.test:5432", database, alpn=("postgresql",))
    assert either.run(services_image, command).stdout == "1\n"
    call = route.assert_called_once()
    assert call.tls is not None
    assert call.tls.alpn == "postgresql"


# MySQL: the client sends its ClientHello right behind the 32 bytes that ask for TLS, and waits for nothing.

GREETING = b"\x0a8.0.0\0%b12345678\0\x00\xaa\x21\x02\x00\x08\x00\x15%b123456789012\0mysql_native_password\0"
OK = b"\0\0\0\x02\0\0\0"


def mysql(sock: Any) -> None:
    greeting = GREETING % (bytes(4), bytes(10))
    sock.sendall(struct.pack("<I", len(greeting)) + greeting)
    assert sock.readexactly(36)[3] == 1
    tls = sock.starttls()
    while True:
        head = tls.readexactly(4)
        body = tls.readexactly(int.from_bytes(head[:3], "little"))
        if body == b"\x01":  # COM_QUIT
            return
        tls.sendall(len(OK).to_bytes(3, "little") + bytes([head[3] + 1]) + OK)


def test_pymysql_does_not_wait_before_its_handshake(either: Egress, services_image: str) -> None:
    route = either.intercept_tcp("db.test:3306", mysql)
    code = """
import pymysql, ssl
db = pymysql.connect(host="db.test", user="ann", password="secret", ssl=ssl.create_default_context())
print(db.ping(), db._sock.version())
db.close()
"""
    assert python(either, services_image, code) == "None TLSv1.3\n"
    assert route.assert_called_once().tls is not None


# A client that does not trust the CA.


@pytest.mark.parametrize("link", LINKS)
def test_a_client_that_distrusts_the_certificate_fails_the_test_with_its_library(
    services_image: str, link: str
) -> None:
    code = """
import imaplib, ssl
strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # with no roots at all
try:
    imaplib.IMAP4("mail.test").starttls(strict)
except ssl.SSLCertVerificationError:
    print("distrusts")
"""

    def use() -> None:
        session = Session(link=link)
        with contextlib.closing(session), Egress(session=session) as egress:
            egress.intercept_tcp("mail.test:143", imap)
            assert python(egress, services_image, code) == "distrusts\n"

    with pytest.raises(HandshakeError) as caught:
        use()
    text = " ".join(str(caught.value).split())
    assert "(OpenSSL, by its ClientHello) does not trust the CA of this run for 'mail.test'" in text
    assert 'claimed by: intercept_tcp("mail.test:143")' in text


# Servers of libraries.


def test_redis_clients_of_a_container_share_fakeredis(either: Egress, services_image: str) -> None:
    server = TcpFakeServer(("127.0.0.1", 0), bind_and_activate=False)
    server.server_close()
    route = either.intercept_tcp("cache.test:6379", server)
    code = """
import redis
one, other = redis.Redis("cache.test"), redis.Redis("cache.test")
one.rpush("list", "a")
print(other.blpop("list", 5), one.incr("n"), other.incr("n"))
"""
    assert python(either, services_image, code) == "(b'list', b'a') 1 2\n"
    assert route.call_count == 2


def test_aiosmtpd_is_a_protocol(either: Egress, services_image: str) -> None:
    senders = []

    class Keep(Sink):
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            senders.append(envelope.mail_from)
            return "250 OK"

    route = either.intercept_tcp("mail.test:25", partial(SMTP, Keep(), hostname="mail.test"))
    code = "import smtplib; smtplib.SMTP('mail.test').sendmail('a@x.test', 'b@x.test', 'hi')"
    python(either, services_image, code)
    call = route.wait_for_call(timeout=60)
    assert isinstance(call, TcpConnection)
    assert senders == ["a@x.test"]
