"""What to type: the line of code that declares a route for an attempt, or lets it reach a real server."""

from __future__ import annotations

from typing import Final

from pytest_egress.errors import AddressError
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import BLOCK, INTERCEPT_TCP, INTERCEPT_UDP, Kind
from pytest_egress.routes.patterns import BRACES
from pytest_egress.traffic.address import parse_address
from pytest_egress.traffic.dns.answers import RECORD_EXAMPLES
from pytest_egress.traffic.dns.resolver import reversed_address
from pytest_egress.traffic.entries import (
    NO_QUIC,
    NOT_ANSWERABLE,
    UNREADABLE,
    UNREADABLE_WEBSOCKET,
    DnsQuery,
    Entry,
    Exchange,
    KafkaRecord,
    Mail,
    PacketAttempt,
    ProxyCall,
    TcpConnection,
    TlsFailure,
    needs_server,
    speaks_http2,
)
from pytest_egress.traffic.grpc import GrpcCall, registering
from pytest_egress.traffic.parts import UNREADABLE_PART
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import SCHEME_PORTS, SHOWN_TARGET, cut, host_port

MAIL_PORTS: Final = (25, 587)  # where a client says nothing before its server has greeted it


def remedy(entry: Entry) -> str:
    """The line of code that declares a route for an attempt."""
    if isinstance(entry, Exchange):
        request, redactor = entry.request, redactor_of(entry.request)
        address = host_port(
            redactor.host_glob(request.host),
            None if request.port == SCHEME_PORTS[request.scheme] else request.port,
        )
        if entry.grpc is not None and entry.grpc.service:
            return f'egress.intercept_{request.scheme}("{address}", {servicer_of(entry.grpc)})'
        path = (
            ""
            if request.method == "CONNECT"
            else f", path={string_literal(glob_of(redactor.glob(request.path)))}"
        )
        return f'egress.intercept_{request.scheme}("{address}", method="{request.method}"{path})'
    if isinstance(entry, DnsQuery):
        return declaring(entry)
    if needs_server(entry):
        where = host_port(typed(entry), entry.port)
        return f'egress.intercept_tcp("{where}", forward("tcp://127.0.0.1:{entry.port}"))'
    if isinstance(entry, TlsFailure):
        return f'egress.intercept_https("{host_port(typed(entry), None if entry.port == 443 else entry.port)}")'
    if isinstance(entry, TcpConnection) and speaks_http2(entry):
        return f'egress.intercept_http("{host_port(typed(entry), entry.port)}")'
    if isinstance(entry, TcpConnection) and entry.port in MAIL_PORTS and not entry.first_bytes:
        return f'egress.intercept_tcp("{host_port(typed(entry), entry.port)}", smtp())'
    kind = INTERCEPT_TCP if isinstance(entry, TcpConnection) else BLOCK
    if isinstance(entry, PacketAttempt) and entry.protocol == "UDP" and is_answerable(entry):
        kind = INTERCEPT_UDP
        if (route := passed_over(entry)) is not None:
            return f'egress.{kind.method}("{route.address}")'
    return f'egress.{kind.method}("{host_port(typed(entry), entry.port)}")'


def purpose(entry: Entry) -> str:
    """What the line of `remedy` is for, and where it is to stand."""
    if not remedy(entry).startswith(("egress.intercept", "egress.dns")):
        return "to expect it"
    if (route := passed_over(entry)) is None:
        return "to answer it"
    return f"to answer it, above the route declared at {route.declared_at or route}"


def passed_over(entry: Entry) -> InnerRoute | None:
    """The last route that was offered a datagram and has not taken it; None where there was none.

    A route of the same address that is declared before it leaves it, and those that come earlier, what they take.
    """
    if not isinstance(entry, PacketAttempt):
        return None
    offered = (miss.route for miss in reversed(entry.near))
    return next((r for r in offered if r.takes_datagrams(entry.host, entry.port or 0)), None)


def is_answerable(packet: PacketAttempt) -> bool:
    """Whether `intercept_udp` could answer it: no QUIC, of a known server, and of a port that rules match."""
    if packet.is_quic or packet.note.startswith(NOT_ANSWERABLE):
        return False
    return bool(packet.address) and 0 < (packet.port or 0) < 65535


def has_remedy(entry: Entry) -> bool:
    """Whether a route would help an attempt that no route claims: none does where its form was refused."""
    if isinstance(entry, (Exchange, Mail, KafkaRecord, ProxyCall)) and entry.note:
        return False
    if entry.note.startswith((UNREADABLE, UNREADABLE_WEBSOCKET, UNREADABLE_PART, NO_QUIC)):
        return False  # a block would refuse the HTTPS beside QUIC
    return not isinstance(entry, DnsQuery) or is_host(entry.host)


def is_host(name: str) -> bool:
    """Whether a route takes it as a name of a host."""
    try:
        return parse_address(name, default_port=None).is_exact
    except AddressError:
        return False


def typed(entry: Entry) -> str:
    """The host of an attempt as a test is to type it: with `*` in place of a secret."""
    return redactor_of(entry).host_glob(entry.host)


def declaring(query: DnsQuery) -> str:
    """The line of code that declares the name of a query: by the record that it asks for, else by a route."""
    address, record = reversed_address(query.host), RECORD_EXAMPLES.get(query.type)
    if record is None or query.type in ("HTTPS", "SVCB"):  # asked for to connect, beside addresses
        return f'egress.intercept_https("{typed(query)}")'
    name = address if address and query.type == "PTR" else typed(query)
    return f'egress.dns("{name}", {query.type}={string_literal(record)})'


def servicer_of(call: GrpcCall) -> str:
    service = call.service.rpartition(".")[2]
    return f"grpc_server(({registering(call.service)}, {service}()))"


def naming(kind: Kind | None, address: str, scheme: str, host: str, port: int) -> str:
    """The line of code that lets a container reach a real server, by naming exactly that host.

    Args:
        kind: The kind of the route that would let it through; None where a handler called `request.forward`.
        address: The address that the route is declared for.
        scheme: "https", "http" or "tcp".
    """
    where = host_port(host, port)
    if kind is None:
        return f'request.forward("{scheme}://{where}")'
    try:
        parse_address(where, default_port=port)
    except AddressError:  # such as 0x7f000001, for which no route can be declared
        method = INTERCEPT_TCP.method if kind.passes_through else kind.method
        return f'egress.{method}("{address}", forward("{scheme}://{where}"))'
    answer = "" if kind.passes_through else ", forward()"
    return f'egress.{kind.method}("{where}"{answer})'


def glob_of(path: str) -> str:
    """Braces of a path would be read as a part of a template."""
    return cut(BRACES.sub("*", path), SHOWN_TARGET, "*")


def string_literal(text: str) -> str:
    """A string literal in the double quotes that formatters prefer."""
    return repr(text) if '"' in text or "\\" in text else f'"{text}"'
