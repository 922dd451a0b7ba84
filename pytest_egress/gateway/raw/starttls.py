"""`StartTls`: the handshake that a raw handler asks for in mid-connection (`RawSocket.starttls`).

What fails is recorded as on connections that begin with TLS: with the client's library, and what to give it. A route
that presents a bad certificate, or an old version of TLS, presents it here. Everything runs on the thread that the
handler calls it on.
"""

from __future__ import annotations

import select
from typing import Final

from pytest_egress.base.sockets import await_ready, receive_timeout
from pytest_egress.gateway.connection import Connection
from pytest_egress.gateway.connections import Connections
from pytest_egress.gateway.raw.ends import Ends
from pytest_egress.gateway.raw.hearing import Hearing
from pytest_egress.gateway.raw.sockets import RawTlsSocket, for_handler
from pytest_egress.gateway.recorder import accepted
from pytest_egress.gateway.tls.authority import Authority
from pytest_egress.gateway.tls.failures import broken_handshake
from pytest_egress.gateway.tls.handshake import (
    HANDSHAKE_SECONDS,
    handshake,
    read_hello,
    set_host,
    stays,
)
from pytest_egress.traffic.entries import TcpConnection

NO_HELLO: Final = (
    "starttls() got no ClientHello for {host!r} within {seconds:g} s: the client sent none, or the handler has read it "
    "already. A buffered file, and a recv() of more than the command, read ahead; sock.readexactly(size) does not"
)
"""The note of a handshake for which nothing came."""


class StartTls:
    """Makes one connection of a raw handler TLS.

    Args:
        entry: Its entry, which gets the server name and what the handshake agreed on.
        ends: Notes what the handler is told when the handshake fails, and what its TLS socket raises.
        hearing: Gets what is read from that, and written.
    """

    def __init__(
        self,
        connection: Connection,
        entry: TcpConnection,
        authority: Authority,
        connections: Connections,
        ends: Ends,
        hearing: Hearing,
    ) -> None:
        self.connection, self.entry = connection, entry
        self.authority, self.connections = authority, connections
        self.ends, self.hearing = ends, hearing

    def __call__(self, alpn: tuple[str, ...]) -> RawTlsSocket:
        """Raise OSError where the handshake has failed, which has been recorded."""
        connection, dialled = self.connection, self.connection.destination.host
        timeout = connection.sock.gettimeout()
        connection.sock.settimeout(None)  # peeking waits in the kernel
        asked = self.name_asked_for(dialled)
        self.present()
        presented = connection.destination.presented
        try:
            context = self.authority.context(asked, alpn=alpn, presented=presented)
            handshake(connection, context, self.connections)
        except OSError as error:
            hello = connection.destination.hello
            failure = broken_handshake(error, asked, hello, presented=presented)
            connection.fail_tls(*failure)
            self.ends.failure = error
            raise
        if presented.is_bad and not stays(connection):
            raise self.failed("the client has rejected what it was shown")
        hearing, to = self.hearing, connection.destination
        self.entry.accepted = accepted(to)
        tls = for_handler(connection.sock, self.ends, hearing.heard, hearing.said)
        assert isinstance(tls, RawTlsSocket)
        hearing.secured()
        self.entry.sni, self.entry.tls = to.sni, to.tls
        connection.note_trust()
        tls.settimeout(timeout)
        return tls

    def name_asked_for(self, dialled: str) -> str:
        """The name that the ClientHello asks for, else what was dialled. The host of the connection stays what it was.

        Raises:
            ConnectionAbortedError: There is no ClientHello, or it asks for no host name; that has been recorded.
        """
        connection = self.connection
        if not await_ready(connection.sock, select.POLLIN, HANDSHAKE_SECONDS):
            note = NO_HELLO.format(host=dialled, seconds=HANDSHAKE_SECONDS)
            connection.fail_tls("incomplete", note)
            raise self.failed(note)
        hello = read_hello(connection)
        if hello is None or not set_host(connection, hello):
            raise self.failed("starttls() got no ClientHello that can be answered")
        receive_timeout(connection.sock, 0)
        asked = connection.destination.host
        connection.destination = connection.destination._replace(host=dialled)
        return asked

    def present(self) -> None:
        """Have the handshake present what the route of the connection says."""
        route = self.entry.route
        if route is not None and not route.presented.is_usual:
            to = self.connection.destination
            self.connection.destination = to._replace(presented_by=route)

    def failed(self, text: str) -> OSError:
        self.ends.failure = failure = ConnectionAbortedError(text)
        return failure
