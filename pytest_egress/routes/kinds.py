"""The table of route kinds: each value says how routes of one kind differ from those of the others.

Other modules read an attribute of `route.kind`, and compare no names of kinds. A new kind takes a value here, a place
in `KINDS`, and the method of `Egress` that it names. This module imports nothing that pytest has not imported, because
the plugin takes its markers from here in runs without containers too.
"""

from __future__ import annotations

from typing import Final, Literal

Carries = Literal["requests", "bytes", "datagrams", "names", "tunnels", "nothing"]


class Kind:
    """The properties that routes of one kind have in common.

    Each request looks at some of them, so they are worked out once; and every run of pytest imports this, so it is no
    dataclass, which would take a quarter of a millisecond of it.

    Attributes:
        method: The method of `Egress` that declares such a route. Reports show the route by it.
        marker: The marker that declares such a route.
        usage: The text of that marker in `pytest --markers`.
        carries: What the route's answer is given: requests, the bytes of a connection, datagrams, or the names of DNS
            queries.
            "tunnels" of a proxy: other routes answer what is within. "nothing" where no function of the test answers:
            such a route claims every attempt at its address.
        default_port: The port of an address without one; None is any port.
        ends_tls: Whether TLS is terminated, with a leaf certificate.
        passes_through: Whether the real upstream answers.
        has_handler: A call counts when the handler has returned; without one, when the route claims the attempt.
        must_be_called: Whether such a route of a test fails it when it is never called.
        reads_bytes: Whether it is a raw route, which answers a whole connection, as bytes.
        reads_datagrams: Whether it answers datagrams of UDP, and no connections.
        is_for_connections: Whether it claims connections.
        answers_names: Whether it answers DNS queries, and no connections.
        is_proxy: Whether it leads its connections to other hosts, as their clients ask.
        claims_all: Whether it claims every attempt at its address, and no function of the test answers.
        refuses: Whether attempts that it claims are refused.
        answers_https: Whether it answers requests within TLS, to which a client of QUIC falls back.
        takes_unread: Whether it answers a connection from its first byte on, whatever that is.
        needs_tls: Whether it accepts only TLS connections: its handler gets the bytes within.
        client_speaks_first: Whether its clients send before the server does, as those of TLS and HTTP do.
        scheme: "https", "http", "tcp" or "udp"; None where it answers none of these.
    """

    def __init__(
        self,
        *,
        method: str,
        marker: str,
        usage: str,
        carries: Carries,
        default_port: int | None = None,
        ends_tls: bool = False,
        passes_through: bool = False,
        has_handler: bool = True,
        must_be_called: bool = True,
    ) -> None:
        self.method, self.marker, self.usage = method, marker, usage
        self.carries, self.default_port, self.ends_tls = carries, default_port, ends_tls
        self.passes_through, self.has_handler = passes_through, has_handler
        self.must_be_called = must_be_called
        self.reads_requests, self.reads_bytes = carries == "requests", carries == "bytes"
        self.answers_names, self.reads_datagrams = carries == "names", carries == "datagrams"
        self.is_for_connections = not (self.answers_names or self.reads_datagrams)
        self.is_proxy, self.claims_all = carries == "tunnels", carries == "nothing"
        self.refuses = self.claims_all and not passes_through
        self.answers_https = self.reads_requests and ends_tls
        self.takes_unread = self.reads_bytes and not ends_tls
        self.needs_tls = self.reads_bytes and ends_tls
        self.client_speaks_first = ends_tls or self.reads_requests or self.is_proxy
        self.scheme = "tcp" if self.reads_bytes else None
        if self.reads_datagrams:
            self.scheme = "udp"
        if self.reads_requests:
            self.scheme = "https" if ends_tls else "http"

    def claims_requests(self, scheme: str) -> bool:
        return self.scheme == scheme or self.claims_all


INTERCEPT_HTTPS: Final = Kind(
    method="intercept_https",
    marker="intercept_https",
    usage="(address, answer=None, **match): answer HTTPS requests to host[:port], as `egress.intercept_https` does",
    carries="requests",
    default_port=443,
    ends_tls=True,
)
INTERCEPT_HTTP: Final = Kind(
    method="intercept_http",
    marker="intercept_http",
    usage="(address, answer=None, **match): the same for plain HTTP",
    carries="requests",
    default_port=80,
)
INTERCEPT_TCP: Final = Kind(
    method="intercept_tcp",
    marker="intercept_tcp",
    usage="(address, answer=None, *, times=None, optional=False, name=None): answer TCP connections to host[:port] as "
    "bytes; the handler gets the socket",
    carries="bytes",
)
INTERCEPT_TLS: Final = Kind(
    method="intercept_tls",
    marker="intercept_tls",
    usage="(address, answer=None, *, alpn=(), ...): the same for what is in TLS, by the protocols of `alpn`",
    carries="bytes",
    ends_tls=True,
)
INTERCEPT_UDP: Final = Kind(
    method="intercept_udp",
    marker="intercept_udp",
    usage="(address, answer=None, *, match=None, times=None, optional=False, name=None): answer datagrams of UDP to "
    "host[:port]; the handler gets each",
    carries="datagrams",
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
PROXY: Final = Kind(
    method="proxy",
    marker="egress_proxy",
    usage="(address, *, optional=False, name=None): be the HTTP proxy at host[:port]; what comes through it is "
    "answered as if its host had been dialled",
    carries="tunnels",
    has_handler=False,
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
    INTERCEPT_UDP,
    PROXY,
    PASSTHROUGH,
    BLOCK,
    DNS,
)
"""All kinds of routes, in the order in which `pytest --markers` lists them."""
