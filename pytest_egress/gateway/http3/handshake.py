"""The handshake of a connection of QUIC, on the connection's thread: TLS 1.3 in packets of QUIC (RFC 9001)."""

from __future__ import annotations

import select
import ssl
from typing import Final

from pytest_egress.base.clock import monotonic
from pytest_egress.base.sockets import BLOCKED, READ_BYTES, await_ready
from pytest_egress.gateway.connection import Connection
from pytest_egress.gateway.tls.handshake import HANDSHAKE_SECONDS, agreed
from pytest_egress.traffic.http.http3 import Http3

QUIET_SECONDS: Final = 1.5
"""A client that gives up within its handshake says nothing: curl does, of the two addresses that it dials. One that
waits sends again within a second (RFC 9002 section 6.2.2)."""

ALERT: Final = 0x100  # and the number of an alert, as a code of QUIC (RFC 9001 section 4.8)
REASONS: Final = {
    40: "SSLV3_ALERT_HANDSHAKE_FAILURE",
    42: "SSLV3_ALERT_BAD_CERTIFICATE",
    43: "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    44: "SSLV3_ALERT_CERTIFICATE_REVOKED",
    45: "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    46: "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    48: "TLSV1_ALERT_UNKNOWN_CA",
    49: "TLSV1_ALERT_ACCESS_DENIED",
    71: "TLSV1_ALERT_INSUFFICIENT_SECURITY",
    80: "TLSV1_ALERT_INTERNAL_ERROR",
}
"""The numbers of a client's alerts (RFC 8446 section 6), as OpenSSL names them."""


def shake_hands(connection: Connection, http: Http3) -> None:
    """Make the handshake. Afterwards the destination has its `TlsInfo`.

    Raises:
        OSError: It has failed: an `ssl.SSLError` with the client's alert, where it has sent one.
    """
    sock, deadline, heard = connection.sock, monotonic() + HANDSHAKE_SECONDS, monotonic()
    connection.activity.is_abandoned = lambda: monotonic() - heard > QUIET_SECONDS
    sock.settimeout(0)
    try:
        while not http.is_secured:
            if http.closing is not None:
                raise ended_by(*http.closing)
            if (left := deadline - monotonic()) <= 0:
                raise TimeoutError("the handshake did not end in time")
            if read(connection, http, left):
                heard = monotonic()
            sock.send(http.outgoing())
    except OSError:
        sock.send(http.close(is_error=True))
        raise
    finally:
        connection.activity.rest()
    settled = agreed("TLSv1.3", http.cipher, "h3", None)
    connection.destination = connection.destination._replace(tls=settled)
    if connection.note is not None:
        connection.note.secured = connection.ledger.now()


def read(connection: Connection, http: Http3, seconds: float) -> bool:
    """Read what comes within some seconds, or do what the time asks for; return whether something has come."""
    await_ready(connection.sock, select.POLLIN, min(seconds, http.seconds_left))
    try:
        data = connection.sock.recv(READ_BYTES)
    except BLOCKED:
        http.tick()
        return False
    if not data:
        raise ConnectionAbortedError("it was cut before its handshake")
    http.take(data)
    return True


def ended_by(code: int, why: str) -> OSError:
    """The error of a handshake that has ended by a code of QUIC."""
    reason = REASONS.get(code - ALERT)
    if reason is None:
        return OSError(f"QUIC ended by the code {code:#x}{f' ({why})' if why else ''}")
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error
