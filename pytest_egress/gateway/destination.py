"""`Destination`: what a connection of a target is for, as far as it is known."""

from __future__ import annotations

from typing import NamedTuple

from pytest_egress.routes.certificates import USUAL, Presented
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.http.request import TlsInfo
from pytest_egress.traffic.tls.hello import ClientHello, client_of


class Destination(NamedTuple):
    """What a client dialled, and what its TLS says about that. A connection replaces it when more becomes known.

    Attributes:
        name: The name that this address was given out for, or else the address.
        led: The names that the CNAMEs of this name lead to, and those of the server name.
        host: What routes are keyed on: the SNI where there is one, else `name`; where that has no route, a name that
            its CNAMEs lead to and that has one.
        sni: The server name on the wire, or None.
        server_name: The same in normal form, or "".
        greeted: When the attempt began that brought the ClientHello, in the time of entries.
        presented_by: The route whose certificate or version of TLS the handshake presents; None where they are the
            usual ones.
        through: The `host:port` of the proxy by which the client asked for it, of several with "and"; "" where it
            dialled by itself.
        proxies: The routes that are these proxies.
    """

    address: str = ""
    port: int = 0
    name: str = ""
    led: tuple[str, ...] = ()
    host: str = ""
    sni: str | None = None
    server_name: str = ""
    hello: ClientHello | None = None
    greeted: float = 0.0
    tls: TlsInfo | None = None
    presented_by: InnerRoute | None = None
    through: str = ""
    proxies: tuple[InnerRoute, ...] = ()

    @property
    def presented(self) -> Presented:
        return USUAL if self.presented_by is None else self.presented_by.presented

    @property
    def hosts(self) -> tuple[str, ...]:
        return self.name, self.address, self.server_name or self.host, *self.led

    def tls_client(self, reason: str = "") -> str:
        """A text that identifies the TLS client among those of its container; "" where there is no ClientHello.

        For the reason "alpn" it leaves ALPN out: a client whose protocols were all refused tries again with others.
        """
        return "" if self.hello is None else client_of(self.hello, alpn=reason != "alpn")
