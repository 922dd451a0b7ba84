"""`Destination`: what a connection of a target is for, as far as it is known."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_egress.traffic.clienthello import ClientHello, client_of
from pytest_egress.traffic.messages import TlsInfo


@dataclass(frozen=True, kw_only=True)
class Destination:
    """What was dialled, and what the client's TLS says of it. Replaced by another one as more is known.

    Attributes:
        address: The IP address that was dialled.
        port: The port that was dialled.
        name: The name that this address was given out for, or else the address.
        host: What routes are keyed on: the SNI where there is one, else `name`.
        sni: The server name on the wire, or None.
        hello: The ClientHello, or None.
        greeted: When what brought the ClientHello began, as entries have it.
        tls: What the handshake settled on, or None.
    """

    address: str = ""
    port: int = 0
    name: str = ""
    host: str = ""
    sni: str | None = None
    hello: ClientHello | None = None
    greeted: float = 0.0
    tls: TlsInfo | None = None

    @property
    def hosts(self) -> tuple[str, str, str]:
        """Every host that it is known to be for: the name that was dialled, its address, the SNI."""
        return self.name, self.address, self.host

    def tls_client(self, reason: str = "") -> str:
        """Tell the TLS client from the container's others; "" where there is no ClientHello.

        Args:
            reason: Of a handshake that failed. A client that offered no protocol of ours comes back with others.
        """
        return "" if self.hello is None else client_of(self.hello, alpn=reason != "alpn")
