"""The host that a request names: whether it is the one that its connection is for, and how a message quotes both."""

from __future__ import annotations

from functools import lru_cache

from pytest_egress.errors import AddressError
from pytest_egress.gateway.destination import Destination
from pytest_egress.gateway.http.incoming import Incoming
from pytest_egress.traffic.address import is_ip_address, normalise_host
from pytest_egress.traffic.http.head import MULTIPLEXED, Head, split_authority
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.redaction.redactor import Redactor
from pytest_egress.traffic.shown import SCHEME_PORTS, host_port, shown


def is_misdirected(incoming: Incoming) -> bool:
    """Whether the request names another server than the one that it is recorded, matched and forwarded for.

    Three cases are allowed. A client that dialled an address, without SNI, may name any host, since several hosts can
    share an address. A client that dialled a name may name the address that the name resolved to. And one whose name
    has a CNAME may use that name, though the request is for the one that the CNAME leads to.
    """
    to, request, head = incoming.attempt.destination, incoming.request, incoming.head
    if head.authority is None or request.method == "CONNECT":
        return False
    if head.authority == request.host and head.scheme is None:  # as a rule
        return False
    # A dialled name may be one that `named_by` refuses: DNS allows more than routes do.
    literally = head.authority == request.host
    named = (request.host, None) if literally else named_by(head.authority)
    if named is None or head.scheme not in (None, request.scheme):
        return True
    host, port = named
    by_address = to.host == to.address and to.sni is None
    if by_address and names_another_port(to, head):
        return True
    is_dialled = host == to.address and to.sni is None  # the client has resolved the name itself
    is_named = host in (request.host, incoming.called)
    same = is_named or is_dialled or (by_address and not is_ip_address(host))
    return not same or port not in (None, request.port)


def names_another_port(to: Destination, head: Head) -> bool:
    """Whether an absolute request-target is for another port than the dialled one; without a port, its scheme's."""
    if head.scheme not in SCHEME_PORTS or head.http_version in MULTIPLEXED:
        return False
    _, port = named_by(head.authority or "") or ("", None)
    return (port or SCHEME_PORTS[head.scheme]) != to.port


@lru_cache(maxsize=1024)
def named_by(authority: str) -> tuple[str, int | None] | None:
    """The host is normalised; None where the authority is malformed."""
    parts = split_authority(authority)
    try:
        return None if parts is None else (normalise_host(parts[0]), parts[1])
    except AddressError:
        return None


def authority_of_other(incoming: Incoming) -> str:
    """The authority in a request that is for another host than its connection; "" where it is for the same."""
    return incoming.head.authority or "" if is_misdirected(incoming) else ""


def said(head: Head, redactor: Redactor) -> str:
    """The part of a message that quotes what a request names: its field Host, its :authority, or absolute target."""
    named = redactor.authority(head.authority or "")
    if head.http_version in MULTIPLEXED:
        return f":authority is {shown(named)}"
    if head.scheme is None:
        return f"Host is {shown(named)}"
    return f"request-target begins with {shown(f'{head.scheme}://{named}')}"


def meant(request: Request, head: Head) -> str:
    """The part of a message that quotes what the request's connection is for, in the same form as `said`."""
    is_absolute = head.scheme is not None and head.http_version not in MULTIPLEXED
    scheme = f"{request.scheme}://" if is_absolute else ""
    named = named_by(head.authority or "")
    port = request.port if named is not None and named[1] is not None else None
    return repr(f"{scheme}{host_port(request.host, port)}")
