"""The table of route kinds: each value says how routes of one kind differ from those of the others.

Other modules read an attribute of `route.kind`, and compare no names of kinds. A new kind takes a value here, a place
in `KINDS`, and the method of `Egress` that it names. This module imports nothing that pytest has not imported, because
the plugin takes its markers from here in runs without containers too.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, Literal

Content = Literal["requests", "bytes", "names", "nothing"]


class Kind:  # no dataclass, which would take a third of a millisecond of every run of pytest
    """A kind of route: the properties that its routes have in common.

    Attributes:
        method: The method of `Egress` that declares such a route. Reports show the route by it.
        marker: The marker that declares such a route.
        usage: The text of that marker in `pytest --markers`.
        carries: What the route's answer is given: requests, the bytes of a connection, or the names of DNS queries.
            "nothing" where no function of the test answers: such a route claims every attempt at its address.
        default_port: The port of an address without one; None is any port.
        ends_tls: Whether TLS is terminated, with a leaf certificate.
        passes_through: Whether the real upstream answers.
        has_handler: Whether the route has a handler. A call counts when the handler has returned; without one, when
            the route claims the attempt.
        must_be_called: Whether such a route of a test fails it when it is never called.
    """

    def __init__(
        self,
        *,
        method: str,
        marker: str,
        usage: str,
        carries: Content,
        default_port: int | None = None,
        ends_tls: bool = False,
        passes_through: bool = False,
        has_handler: bool = True,
        must_be_called: bool = True,
    ) -> None:
        self.method: Final = method
        self.marker: Final = marker
        self.usage: Final = usage
        self.carries: Final = carries
        self.default_port: Final = default_port
        self.ends_tls: Final = ends_tls
        self.passes_through: Final = passes_through
        self.has_handler: Final = has_handler
        self.must_be_called: Final = must_be_called

    @cached_property
    def reads_requests(self) -> bool:
        """Whether routes of this kind answer HTTP requests."""
        return self.carries == "requests"

    @cached_property
    def reads_bytes(self) -> bool:
        """Whether this is a kind of raw route, which answers a whole connection, as bytes."""
        return self.carries == "bytes"

    @cached_property
    def answers_names(self) -> bool:
        """Whether routes of this kind answer DNS queries, and no connections."""
        return self.carries == "names"

    @cached_property
    def refuses(self) -> bool:
        """Whether attempts that such a route claims are refused."""
        return self.carries == "nothing" and not self.passes_through

    @cached_property
    def answers_https(self) -> bool:
        """Whether routes of this kind answer requests within TLS, to which a client of QUIC falls back."""
        return self.reads_requests and self.ends_tls

    @cached_property
    def takes_unread(self) -> bool:
        """Whether such a route answers a connection from its first byte on, whatever that is."""
        return self.reads_bytes and not self.ends_tls

    @cached_property
    def needs_tls(self) -> bool:
        """Whether such a route accepts only TLS connections: its handler gets the bytes within."""
        return self.reads_bytes and self.ends_tls

    @cached_property
    def client_speaks_first(self) -> bool:
        """Whether clients of such a route send before the server does, as those of TLS and HTTP do."""
        return self.ends_tls or self.reads_requests

    @property
    def scheme(self) -> str | None:
        """The scheme of the connections that it answers: "https", "http" or "tcp"; None where it answers none."""
        if self.reads_requests:
            return "https" if self.ends_tls else "http"
        return "tcp" if self.reads_bytes else None

    def claims_requests(self, scheme: str) -> bool:
        """Whether a route of this kind can claim requests of a scheme.

        Args:
            scheme: "https" or "http".
        """
        return self.scheme == scheme or self.carries == "nothing"


INTERCEPT_HTTPS: Final = Kind(
    method="intercept_https",
    marker="intercept_https",
    usage="(address, handler=None, **match): answer HTTPS requests to host[:port], as `egress.intercept_https` does",
    carries="requests",
    default_port=443,
    ends_tls=True,
)
INTERCEPT_HTTP: Final = Kind(
    method="intercept_http",
    marker="intercept_http",
    usage="(address, handler=None, **match): the same for plain HTTP",
    carries="requests",
    default_port=80,
)
INTERCEPT_TCP: Final = Kind(
    method="intercept_tcp",
    marker="intercept_tcp",
    usage="(address, handler=None, *, times=None, optional=False, name=None): answer TCP connections to host[:port] as "
    "bytes; the handler gets the socket",
    carries="bytes",
)
INTERCEPT_TLS: Final = Kind(
    method="intercept_tls",
    marker="intercept_tls",
    usage="(address, handler=None, *, alpn=(), ...): the same for what is in TLS, by the protocols of `alpn`",
    carries="bytes",
    ends_tls=True,
)
PASSTHROUGH: Final = Kind(
    method="passthrough",
    marker="egress_passthrough",
    usage="(address): let TCP to host[:port] through to the real upstream",
    carries="nothing",
    passes_through=True,
    has_handler=False,
    must_be_called=False,
)
BLOCK: Final = Kind(
    method="block",
    marker="egress_block",
    usage="(address): expect attempts of any protocol to host[:port], and refuse them",
    carries="nothing",
    has_handler=False,
    must_be_called=False,
)
DNS: Final = Kind(
    method="dns",
    marker="egress_dns",
    usage='(name, answer, **records): answer the DNS questions about a name with IP addresses, "NXDOMAIN", "SERVFAIL", '
    '"REFUSED", "silence", "truncated" or "synthetic", or with records: SRV=, TXT=, MX=, ...',
    carries="names",
    has_handler=False,
    must_be_called=False,
)

KINDS: Final = (
    INTERCEPT_HTTPS,
    INTERCEPT_HTTP,
    INTERCEPT_TCP,
    INTERCEPT_TLS,
    PASSTHROUGH,
    BLOCK,
    DNS,
)
"""All kinds of routes, in the order in which `pytest --markers` lists them."""
