"""The server side of a TLS handshake: the ClientHello, the name that it asks for, the handshake itself.

Everything runs on the connection's thread. This module records failures; `dispatch` decides what serves the decrypted
bytes.
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import Final

from pytest_egress.base.clock import monotonic
from pytest_egress.base.sockets import receive_timeout
from pytest_egress.errors import AddressError, ClientHelloError
from pytest_egress.gateway.connection import PEEK_ALL, Connection
from pytest_egress.gateway.connections import Connections
from pytest_egress.gateway.tls.failures import (
    broken_after_handshake,
    left_after_handshake,
    silent_after_handshake,
)
from pytest_egress.gateway.tls.sockets import TlsSocket
from pytest_egress.traffic.address import normalise_host
from pytest_egress.traffic.http.request import TlsInfo
from pytest_egress.traffic.tls.hello import (
    MAX_HELLO_BYTES,
    ClientHello,
    bytes_needed,
    parse_client_hello,
)

HANDSHAKE_SECONDS: Final = 10.0  # for a whole ClientHello, and as long again for the handshake
REJECTION_SECONDS: Final = 4.0
"""For a client to reject a bad certificate after the handshake: some verify it only then."""


def read_hello(connection: Connection) -> ClientHello | None:
    """Leave the ClientHello unread, for the handshake or an upstream; None where none came, which has been recorded."""
    try:
        if (hello := peek_hello(connection)) is not None:
            if connection.note is not None:
                connection.note.hello = connection.ledger.now()
            return hello
    except ClientHelloError as error:
        connection.fail_tls("protocol", f"it sent no ClientHello: {error}")
        return None
    except OSError:
        pass
    connection.fail_tls("incomplete", "it ended, or stopped, within its ClientHello")
    return None


def peek_hello(connection: Connection) -> ClientHello | None:
    """Wait for the whole ClientHello, whose first byte has come; None where it does not come.

    As a rule all of it has come with that byte. Otherwise the kernel wakes this thread when the rest has.

    Raises:
        ClientHelloError: What comes is none.
    """
    deadline, data = monotonic() + HANDSHAKE_SECONDS, connection.peek(MAX_HELLO_BYTES)
    while (hello := parse_client_hello(data)) is None:
        needed = bytes_needed(data)
        if (left := deadline - monotonic()) <= 0:
            return None
        receive_timeout(connection.sock, left)
        data = connection.peek(needed, PEEK_ALL)
        if len(data) < needed:
            return None
    return hello


def set_host(connection: Connection, hello: ClientHello) -> bool:
    """Make the SNI, where there is one, the host of routes; False where it is no host name, which has been recorded."""
    to = connection.destination._replace(hello=hello, sni=hello.sni, greeted=connection.started)
    try:
        host = to.host if hello.sni is None else normalise_host(hello.sni)
    except AddressError as error:
        connection.destination = to
        connection.fail_tls("sni", f"its server name is no host name: {error}")
        return False
    server_name = "" if hello.sni is None else host
    connection.destination = to._replace(host=host, server_name=server_name)
    return True


def handshake(connection: Connection, context: ssl.SSLContext, connections: Connections) -> None:
    """Make the TLS handshake. Afterwards `connection.sock` is the TLS socket, and the destination has its `TlsInfo`.

    The socket keeps the time limit of the handshake. Whoever serves it sets another one.

    Raises:
        OSError: The handshake failed, or the connection was cut before it.
    """
    connection.sock.settimeout(HANDSHAKE_SECONDS)  # SO_RCVTIMEO does nothing under ssl
    tls = context.wrap_socket(connection.sock, server_side=True, do_handshake_on_connect=False)
    # wrap_socket() has detached the first socket object. A cut between that and this swap reached the detached object
    # and had no effect, so that both signs of an end are checked again.
    with connections.lock:
        connection.sock = tls
        if connections.stopping:
            return
        if connection.is_cut:
            raise ConnectionAbortedError("it was cut before its handshake")
    tls.do_handshake()
    cipher = tls.cipher()
    settled = agreed(
        tls.version() or "",
        cipher[0] if cipher else "",
        tls.selected_alpn_protocol(),
        tls.getpeercert(binary_form=True),
    )
    connection.destination = connection.destination._replace(tls=settled)
    if connection.note is not None:
        connection.note.secured = connection.ledger.now()


def stays(connection: Connection) -> bool:
    """Wait for a byte within the TLS of a raw route, left for its handler, or for the client to reject.

    False where the client has left without a byte, which has been recorded.
    """
    sock, to = connection.sock, connection.destination
    assert isinstance(sock, TlsSocket)
    assert to.tls is not None
    sock.settimeout(REJECTION_SECONDS)
    try:
        if not sock.look_ahead():
            failure = left_after_handshake(to.host, to.hello, to.tls.version, to.presented)
            connection.fail_tls(*failure)
            return False
    except TimeoutError:
        pass  # it waits for the server to speak
    except OSError as error:
        connection.fail_tls(
            *broken_after_handshake(error, to.host, to.hello, to.tls.version, to.presented)
        )
        return False
    sock.settimeout(None)
    return True


def record_silence(connection: Connection) -> None:
    """Record a client that has closed after the handshake, before its first byte. Its end has been read."""
    sock, to = connection.sock, connection.destination
    assert isinstance(sock, TlsSocket)
    assert to.tls is not None
    failure = silent_after_handshake(
        to.host,
        to.hello,
        to.tls.version,
        to.presented,
        said_goodbye=sock.has_said_goodbye(),
    )
    connection.fail_tls(*failure)


@lru_cache(maxsize=64)
def agreed(version: str, cipher: str, alpn: str | None, certificate: bytes | None) -> TlsInfo:
    """What a handshake agreed on: one value for all connections that agree on the same, since entries keep it."""
    return TlsInfo(version=version, cipher=cipher, alpn=alpn, client_certificate=certificate)
