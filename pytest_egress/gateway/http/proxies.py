"""Requests that a client sends to a proxy and that none takes: what they ask for, and which variables led here."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import urlsplit

from pytest_egress.errors import AddressError
from pytest_egress.gateway.http.incoming import Incoming
from pytest_egress.gateway.http.named_hosts import named_by
from pytest_egress.routes.table import proxy_route
from pytest_egress.traffic.address import normalise_host
from pytest_egress.traffic.entries import AskedProxy
from pytest_egress.traffic.http.head import MULTIPLEXED
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import SHOWN_TARGET, cut, host_port

TUNNEL: Final = (
    "a tunnel to {target} through the proxy {proxy}, which the target took from {source}"
)
WHOLE_URL: Final = "it asks the proxy {proxy} for {target}, and the target took that from {source}"
NOT_SO: Final = (
    "A route of proxy() takes tunnels and the URLs of plain HTTP, by HTTP/1.1 without TLS: as of "
    "HTTPS_PROXY=http://..., and not of https://..."
)
USUAL: Final = {"https": "HTTPS_PROXY", "http": "http_proxy"}
"""The variable that clients read, by the scheme of what they ask a proxy for; curl reads no HTTP_PROXY."""


def note_of_proxy(incoming: Incoming, proxies: Collection[tuple[str, str]]) -> str:
    """A sentence about a request that its client sends to a proxy; "" for any other request.

    A client asks a proxy for a tunnel by CONNECT (RFC 9110 section 9.3.6), and for plain HTTP by a whole URL (RFC 9112
    section 3.2.2). Where no route is the proxy, `Incoming.asked_proxy` is set.

    Args:
        proxies: The names and values of the container's variables that name a proxy.
    """
    request, head = incoming.request, incoming.head
    is_tunnel, scheme = head.asks_for_tunnel, "https"
    if not is_tunnel:
        scheme = head.scheme or ""
        named = named_by(head.authority or "")
        if head.http_version in MULTIPLEXED or scheme not in USUAL or named is None:
            return ""
        if named[0] in (request.host, incoming.called):
            return ""  # another port or scheme of the same host, and no proxy of others
    address = host_port(request.host, request.port)
    found = tuple(sorted(variables_for(proxies, request.host, request.port)))
    asked = AskedProxy(address, found or (USUAL[scheme],))
    source = " and ".join(asked.variables) + ("" if found else " or its like")
    text = TUNNEL if is_tunnel else WHOLE_URL
    named_target = request.path if is_tunnel else head.authority or ""
    target = redactor_of(request).authority(named_target)
    note = text.format(
        target=cut(target if is_tunnel else f"{scheme}://{target}", SHOWN_TARGET),
        proxy=address,
        source=source,
    )
    tables = incoming.attempt.context.tables
    if proxy_route(tables, request.host, request.port) is not None:
        return f"{note}. {NOT_SO}"
    incoming.asked_proxy = asked
    return note


def variables_for(proxies: Collection[tuple[str, str]], host: str, port: int) -> Iterator[str]:
    """The names of the variables whose value is a proxy at this host and port."""
    for name, value in proxies:
        try:
            url = urlsplit(value if "://" in value else f"//{value}")
            if normalise_host(url.hostname or "") == host and url.port in (None, port):
                yield name
        except (AddressError, ValueError):  # it names no proxy
            continue
