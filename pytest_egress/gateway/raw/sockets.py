"""The sockets that raw handlers get: one of TCP that can become TLS in mid-connection, and one of TLS.

Both are the standard library's, with `readexactly`. Neither reads ahead: what a handler has not read is still the
client's next byte, as a handshake needs it.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from pytest_egress.base.relay import relay
from pytest_egress.base.sockets import Socket, pair, shut
from pytest_egress.gateway.raw.ends import Ends, telling
from pytest_egress.gateway.raw.hearing import unheard
from pytest_egress.gateway.recorder import Heard
from pytest_egress.gateway.tls.sockets import TlsSocket
from pytest_egress.routes.declarations import check_protocols


class ClientEndedError(ConnectionResetError):
    """A client closed in the middle of a message. It is no error of the handler that waits for the rest."""


def read_exactly(receive: Callable[[int], bytes], size: int) -> bytes:
    """Read so many bytes, and not one more, by the `recv` of a socket.

    Raises:
        ClientEndedError: The client closed before.
        OSError: It broke off, or the socket's timeout is over.
    """
    data = bytearray()
    while len(data) < size:
        if not (piece := receive(size - len(data))):
            raise ClientEndedError(f"the client closed after {len(data)} of {size} bytes")
        data += piece
    return bytes(data)


@telling
class RawTlsSocket(TlsSocket):
    """The TLS socket of a handler: `ssl.SSLSocket`, and `readexactly`.

    Attributes:
        ends: Notes what the socket raises.
        heard: Gets what is read from the client.
        said: Gets what is written to the client.
    """

    ends: Ends
    heard: Heard = staticmethod(unheard)
    said: Heard = staticmethod(unheard)

    def readexactly(self, size: int) -> bytes:
        """Read so many bytes, and not one more.

        Raises:
            ConnectionResetError: The client closed before; that is no error of the handler's.
            OSError: It broke off, or the socket's timeout is over.
        """
        return read_exactly(self.recv, size)


@telling
class RawSocket(Socket):
    """A connected socket: `socket.socket`, and `starttls` and `readexactly`.

    Attributes:
        ends: Notes what the socket raises.
        heard: Gets what is read from the client.
        said: Gets what is written to the client.
        secure: Makes the handshake for `starttls`.
        when_closed: Called when the socket is closed by a handler, or by a library that it was given to.
    """

    ends: Ends
    heard: Heard = staticmethod(unheard)
    said: Heard = staticmethod(unheard)
    secure: Callable[[tuple[str, ...]], RawTlsSocket]
    when_closed: Callable[[], object] | None = None

    def starttls(self, alpn: Sequence[str] = ()) -> RawTlsSocket:
        """Make the TLS handshake as its server, and return the TLS socket, with this socket's timeout.

        The certificate is for the name that the client asks for (SNI), else for what it dialled. Go on with what is
        returned: this object is detached, and so are the files that `makefile` made of it.

        Read exactly what comes before the handshake (`readexactly`, or a byte at a time): a ClientHello that a buffered
        file or a large `recv` has read is lost for the handshake.

        Args:
            alpn: The protocols to agree on, the preferred one first.

        Raises:
            OSError: There was no handshake: the client does not trust the CA, or sent no ClientHello. It is in the
                ledger, like every failed handshake, and is no error of the handler's.
            ValueError: The socket is closed, or is TLS already; or `alpn` is no list of names.
        """
        check_protocols(alpn)
        if self.fileno() < 0:
            raise ValueError(
                "starttls() on a socket that is closed, or is TLS already: go on with the socket that the first "
                "starttls() returned"
            )
        return self.secure(tuple(alpn))

    def readexactly(self, size: int) -> bytes:
        """Read so many bytes, and not one more: the next may be of a ClientHello.

        Raises:
            ConnectionResetError: The client closed before; that is no error of the handler's.
            OSError: It broke off, or the socket's timeout is over.
        """
        return read_exactly(self.recv, size)

    def dup(self) -> RawSocket:
        """A second socket object for the same connection."""
        other = super().dup()
        other.ends, other.secure = self.ends, self.secure
        other.heard, other.said = self.heard, self.said
        return other

    def detach(self) -> int:
        """Give the descriptor away, and be closed without closing that."""
        # `SSLContext.wrap_socket`, by which `starttls` works too, detaches what it wraps. Its TLS socket still raises
        # what is about the client, so that an error raised without a socket is about something else.
        if sys._getframe(1).f_globals.get("__name__") != ssl.__name__:
            self.ends.note_detached()
        return super().detach()

    def close(self) -> None:
        """Close the socket."""
        super().close()
        if self.when_closed is not None:
            self.when_closed()


def for_handler(
    sock: socket.socket, ends: Ends, heard: Heard = unheard, said: Heard = unheard
) -> RawSocket | RawTlsSocket:
    """The socket as a handler gets it, for the same descriptor."""
    handed: RawSocket | RawTlsSocket
    if isinstance(sock, TlsSocket):
        sock.__class__ = RawTlsSocket  # its session cannot move to another object
        assert isinstance(sock, RawTlsSocket)
        handed = sock
    else:
        handed = RawSocket(fileno=sock.detach())
    handed.ends, handed.heard, handed.said = ends, heard, said
    return handed


@contextmanager
def decrypted(tls: RawTlsSocket) -> Iterator[RawSocket]:
    """A socket of the bytes within TLS, for what cannot read from a TLS socket; a thread copies them, both ways.

    At the end, what was written to it has been sent.
    """
    inner, outer = pair()
    copying = threading.Thread(
        target=copy_decrypted, args=(tls, outer), name="egress TLS", daemon=True
    )
    copying.start()
    sock = RawSocket(fileno=inner.detach())
    sock.ends = tls.ends
    try:
        yield sock
    finally:
        sock.close()
        copying.join()
        outer.close()


def copy_decrypted(tls: ssl.SSLSocket, outer: Socket) -> None:
    """Copy both ways until one side has ended. The handler sees a client that broke off as an end."""
    with suppress(OSError):
        relay(tls, outer)
    shut(outer)
