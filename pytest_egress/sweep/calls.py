"""The name of a call: its method, scheme, host, port and path, without what differs from run to run, and no secret.

A raw connection is a call too, which has a host and a port alone: `tcp://db.test:5432`. So is a dial, whatever is then
spoken. The look-up of a name is one, too: `dns://db.test`.

What a target sends may be anything, and a name becomes that of a test. So what is unusual or long is a `*` in it.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Final, Literal

from pytest_egress.traffic.grpc import is_grpc
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.websocket import asks_for_websocket

METHOD: Final = re.compile(r"[A-Z-]{1,20}")
ID: Final = re.compile(r"[0-9]+|[0-9a-fA-F]{8,}|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}")
SEGMENT: Final = re.compile(r"[A-Za-z0-9._~%!$&'()+,;=@-]{0,40}")
MAX_SEGMENTS: Final = 12
HOST: Final = re.compile(r"[A-Za-z0-9._:*-]{1,253}")
TCP, DNS = "tcp://", "dns://"
CallKind = Literal["http", "grpc", "websocket", "tcp", "dial", "name"]
"""What a call is. A "dial" is that of a request; a raw connection, "tcp", stands for its own too."""

REQUESTS: Final[frozenset[CallKind]] = frozenset({"http", "grpc", "websocket"})
DEFAULT_PORTS: Final = {"https": 443, "http": 80}


def call_of(request: Request) -> str:
    """The name of the call that a request is; its query and its body are no part of it."""
    redactor = redactor_of(request)
    method = request.method if METHOD.fullmatch(request.method) else "*"
    port = "" if request.port == DEFAULT_PORTS[request.scheme] else f":{request.port}"
    parts = redactor.glob(request.path).split("/")
    path = "/".join(part_of(part) for part in parts[:MAX_SEGMENTS])
    rest = "/*" if len(parts) > MAX_SEGMENTS else ""
    host = redactor.host_glob(request.host)
    host = f"[{host}]" if ":" in host else host
    return f"{method} {request.scheme}://{host}{port}{path}{rest}"


def connection_call(host: str, port: int) -> str:
    """The name of the call that a raw connection is; its host comes without secrets."""
    host = host if HOST.fullmatch(host) else "*"
    return f"{TCP}[{host}]:{port}" if ":" in host else f"{TCP}{host}:{port}"


def name_call(host: str) -> str:
    """The name of the call that the look-up of a host is, which comes without secrets."""
    return f"{DNS}{host if HOST.fullmatch(host) else '*'}"


def is_request(call: str) -> bool:
    """Whether a call is a request, and no connection or look-up."""
    return not call.startswith((TCP, DNS))


def kinds_of(call: str) -> frozenset[CallKind]:
    """What a call with this name may be."""
    if is_request(call):
        return REQUESTS
    return frozenset({"name"}) if call.startswith(DNS) else frozenset({"tcp", "dial"})


def part_of(segment: str) -> str:
    """A segment of a path; `*` where it is a number or an id, or nothing that a name should have."""
    is_plain = SEGMENT.fullmatch(segment) and not ID.fullmatch(segment)
    return segment if is_plain else "*"


def kind_of(request: Request) -> CallKind:
    if is_grpc(request):
        return "grpc"
    return "websocket" if asks_for_websocket(request) else "http"


def host_of(call: str) -> str:
    """The scheme, host and port of a call."""
    scheme, _, rest = url_of(call).partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def url_of(call: str) -> str:
    return call.partition(" ")[2] if is_request(call) else call


def matches(pattern: str, call: str) -> bool:
    """Whether a glob is for a call: for all of its name, for its URL, or for what follows the scheme."""
    url = url_of(call)
    return any(fnmatchcase(text, pattern) for text in (call, url, url.partition("://")[2]))
