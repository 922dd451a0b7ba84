"""What only asks for TLS, in the protocols that begin it in mid-connection, and what is more than that."""

from __future__ import annotations

import pytest

from pytest_egress.traffic.tls.asked import MAX_ASKED_BYTES, asks_alone

OF_LDAP = b"\x77\x18\x80\x161.3.6.1.4.1.1466.20037"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"EHLO [198.18.0.2]\r\nSTARTTLS\r\n",
        b"ehlo shop.test\nstarttls\n",
        b"a1 CAPABILITY\r\na2 STARTTLS\r\n",
        b"CAPA\r\nSTLS\r\n",
        b"AUTH TLS\r\n",
        b"CAPABILITIES\r\nSTARTTLS\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"\0\0\0\x08\x04\xd2\x16\x30\0\0\0\x08\x04\xd2\x16\x2f",
        b"\x20\0\0\x01" + b"\x0d\x8a\xff\xff\0\0\0\x01\x21" + bytes(23),
        b"\x30\x1d\x02\x01\x01" + OF_LDAP,
        b"\x30\x84\0\0\0\x1d\x02\x01\x01" + OF_LDAP,
        b"AMQP\x02\x01\0\0",
        b"<?xml version='1.0'?><stream:stream to='chat.test' xmlns='jabber:client'>"
        b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    ],
)
def test_a_wish_for_tls_is_no_data(data: bytes) -> None:
    assert asks_alone(data)


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO shop.test\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\nSTARTTLS\r\n",
        b"EHLO shop.test\r\nMAIL FROM:<a@x.test>\r\nRSET\r\nSTARTTLS\r\n",
        b"EHLO shop test\r\nSTARTTLS\r\n",
        b"AUTH PLAIN\r\n",
        b"a1 LOGIN ann secret\r\na2 STARTTLS\r\n",
        b"USER ann\r\nPASS secret\r\nSTLS\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2fp\0\0\0\x0bsecret\0",
        b"\x20\0\0\x01" + bytes(9) + bytes(19) + b"root\0",
        b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0" + OF_LDAP,
        b"<stream:stream to='chat.test'><auth>AGFubgBzZWNyZXQ=</auth><starttls />",
        b"EHLO x\r\n" * (MAX_ASKED_BYTES // 8 + 1),
        b"SELECT 1",
        b"\x16\x03\x01",
    ],
)
def test_anything_else_is_data(data: bytes) -> None:
    assert not asks_alone(data)


def test_blanks_take_no_time() -> None:
    assert not asks_alone(b" " * (MAX_ASKED_BYTES - 1) + b"<")
