"""Logins in the first bytes of connections that are no HTTP."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pytest_egress.ledger.details import detail_lines
from pytest_egress.traffic.entries import TcpConnection, transcript_of
from pytest_egress.traffic.redaction.redactor import BY_NAMES

PASSWORD = b"hunter22hunter22"


def resp(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def postgres(content: bytes) -> bytes:
    return b"p" + struct.pack("!I", len(content) + 4) + content


LOGINS = {
    "Redis": resp(b"AUTH", PASSWORD),
    "Redis with a name": resp(b"auth", b"default", PASSWORD),
    "Redis HELLO": resp(b"HELLO", b"3", b"AUTH", b"default", PASSWORD, b"SETNAME", b"shop"),
    "Redis within a pipeline": resp(b"PING") + resp(b"AUTH", PASSWORD) + resp(b"GET", b"a"),
    "Redis in a line": b"AUTH " + PASSWORD + b"\r\nGET a\r\n",
    "Redis with a name in a line": b"AUTH default " + PASSWORD + b"\r\n",
    "Redis HELLO in a line": b"HELLO 3 AUTH default " + PASSWORD + b"\r\n",
    "Redis CONFIG": resp(b"CONFIG", b"SET", b"requirepass", PASSWORD),
    "SMTP": b"EHLO shop\r\nAUTH PLAIN " + PASSWORD + b"\r\n",
    "SMTP LOGIN": b"AUTH LOGIN " + PASSWORD + b"\r\n",
    "FTP": b"USER joe\r\nPASS " + PASSWORD + b"\r\n",
    "IMAP": b"a1 LOGIN joe " + PASSWORD + b"\r\n",
    "IMAP in quotes": b'a1 LOGIN "joe doe" "' + PASSWORD + b'"\r\n',
    "IMAP AUTHENTICATE": b"a1 AUTHENTICATE PLAIN " + PASSWORD + b"\r\n",
    "NATS": b'CONNECT {"verbose":false,"user":"joe","pass":"' + PASSWORD + b'","lang":"go"}\r\n',
    "NATS token": b'CONNECT {"auth_token":"' + PASSWORD + b'"}\r\nPING\r\n',
    "AMQP": b"\x05PLAIN\x00\x00\x00\x16\x00guest\x00" + PASSWORD + b"\x05en_US",
    "memcached": b"\x80\x21\x00\x05PLAIN\x00joe\x00" + PASSWORD,
    "PostgreSQL": postgres(PASSWORD + b"\0"),
    "PostgreSQL SCRAM": postgres(b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=" + PASSWORD),
}


def connection(**fields: Any) -> TcpConnection:
    about: dict[str, Any] = {"container": "shop", "started": 1.0, "outcome": "unrouted"}
    return TcpConnection(**about, host="db.test", port=6379, address="", **fields)


@pytest.mark.parametrize("first", LOGINS.values(), ids=LOGINS)
def test_a_login_is_not_shown(first: bytes) -> None:
    entry = connection(first_bytes=first[:64])
    transcript_of(entry).add(first, from_client=True)
    told = "\n".join([str(entry), *detail_lines(entry)])
    assert "characters)" in told
    assert "hunter" not in told[len("hunt") :].replace("hunt... (16 characters)", "")


@pytest.mark.parametrize("size", range(14, 64))
def test_a_login_is_not_shown_wherever_its_bytes_end(size: int) -> None:
    first = resp(b"AUTH", b"default", PASSWORD)[:size]
    assert b"hunter" not in BY_NAMES.first_bytes(first)


@pytest.mark.parametrize(
    "first",
    [
        b"\x00\x00\x00\x29\x00\x03\x00\x00user\x00postgres\x00database\x00app\x00\x00",
        resp(b"SET", b"a", b"PASS") + resp(b"GET", b"AUTHOR"),
        b"EHLO shop\r\nMAIL FROM:<a@shop.test>\r\nAUTHOR x\r\nPASSIVE y\r\n",
        b"AUTH PLAIN\r\n",
        b"AUTH CRAM-MD5\r\n",
        b"p\x00\x00",
        b"",
    ],
)
def test_what_is_no_login_is_shown(first: bytes) -> None:
    assert BY_NAMES.first_bytes(first) == first


@pytest.mark.parametrize(
    ("asks", "answers"),
    [
        (b"334 UGFzc3dvcmQ6\r\n", True),
        (b"+ \r\n", True),
        (b"+\r\n", True),
        (b"250 OK\r\n", False),
        (b"+OK\r\n", False),
    ],
)
def test_what_a_server_has_asked_for_in_a_login_is_not_shown(asks: bytes, answers: bool) -> None:
    entry = connection()
    transcript = transcript_of(entry)
    transcript.add(b"AUTH LOGIN\r\n", from_client=True)
    transcript.add(asks, from_client=False)
    transcript.add(b"aHVudGVyMjJodW50ZXIyMg==\r\n", from_client=True)
    assert ("aHVudGVyMjJ" in "\n".join(detail_lines(entry))) is not answers
