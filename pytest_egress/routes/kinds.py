"""The kinds of routes, as one table: each says in what its routes differ from those of other kinds.

Other modules ask an attribute of `route.kind`, and compare no names. A new kind is a value here, its place in `KINDS`,
and the method of `Egress` that it names. This module imports nothing that pytest has not imported: the plugin takes its
markers from here, in runs without containers too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Content = Literal["requests", "bytes", "names", "nothing"]


@dataclass(frozen=True, kw_only=True, eq=False)  # a value is itself alone: one of `KINDS`
class Kind:
    """What the routes of one kind have in common.

    Attributes:
        method: The method of `Egress` that declares one, by which it is shown.
        marker: The marker that declares one.
        usage: What `pytest --markers` says of that marker.
        carries: What it brings to its answer: requests, the bytes of a connection, or the names of DNS questions.
            Nothing where the test does not answer: such a route claims whatever is attempted at its address.
        default_port: The port of an address that has none; None is any.
        ends_tls: Whether TLS ends here, under a leaf certificate.
        passes_through: Whether the real upstream answers.
        has_handler: Whether it has a handler, whose end makes a call; else what it claims is a call at once.
        must_be_called: Whether one of a test that is never called fails the test.
    """

    method: str
    marker: str
    usage: str
    carries: Content
    default_port: int | None = None
    ends_tls: bool = False
    passes_through: bool = False
    has_handler: bool = True
    must_be_called: bool = True

    @property
    def reads_requests(self) -> bool:
        """Whether it answers HTTP requests."""
        return self.carries == "requests"

    @property
    def reads_bytes(self) -> bool:
        """Whether it takes a connection whole, as bytes: a raw route."""
        return self.carries == "bytes"

    @property
    def answers_names(self) -> bool:
        """Whether it answers questions of DNS, and no connection."""
        return self.carries == "names"

    @property
    def refuses(self) -> bool:
        """Whether what it claims is refused."""
        return self.carries == "nothing" and not self.passes_through

    @property
    def answers_https(self) -> bool:
        """Whether it answers requests within TLS: what a client of QUIC falls back to."""
        return self.reads_requests and self.ends_tls

    @property
    def takes_unread(self) -> bool:
        """Whether a connection is its from the first byte on, whatever that is."""
        return self.reads_bytes and not self.ends_tls

    @property
    def needs_tls(self) -> bool:
        """Whether its connections can be nothing but TLS: what it hands out is within."""
        return self.reads_bytes and self.ends_tls

    @property
    def client_speaks_first(self) -> bool:
        """Whether its clients send something before they wait for the server: TLS and HTTP do."""
        return self.ends_tls or self.reads_requests

    @property
    def scheme(self) -> str | None:
        """The scheme of what it answers: "https", "http" or "tcp"; None where it answers no connection."""
        if self.reads_requests:
            return "https" if self.ends_tls else "http"
        return "tcp" if self.reads_bytes else None

    def claims_requests(self, scheme: str) -> bool:
        """Whether requests of a scheme may be its.

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
    usage="(address, handler=None, ...): the same for what is in TLS",
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
    usage='(name, answer): answer the DNS questions about a name with IP addresses, "NXDOMAIN", "SERVFAIL", "REFUSED" '
    'or "silence"',
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
"""All of them, in the order in which `pytest --markers` lists them."""
