"""Answer, forbid and inspect what a Docker container sends out, from the test that starts it.

The words that everything here uses:

* **target**: a container under test. It runs unchanged.
* **sidecar**: the container whose network namespace a target shares. That namespace has no way
  out; rules in it bring every connection, name lookup and packet to the test process.
* **agent**: the program in the sidecar that sets this up. It copies no data.
* **link**: what hands the sidecar's sockets to the test process.
* **gateway**: the server in the test process that accepts what the link brings, and gives every
  attempt an answer.
* **egress**: what targets send out; and the object (`Egress`) with which a test declares what
  becomes of it.
* **route**: one declaration, an address and what answers it.
* **handler**: the function of the `Request`, or the static answer, that a route answers with.
* **intercept**: to terminate a connection, TLS included, and answer it.
* **leaf certificate**: what an intercepted TLS connection is shown, issued for the name that the
  client asked for by a certificate authority that targets trust.
* **passthrough**: to let a connection reach its **upstream**, the real server, through the test process.
* **exchange**: a request and the response to it.
* **ledger**: all that targets attempted, in order.
* **outcome**: what became of an attempt: routed, passthrough, unrouted, blocked or recorded.
* **unrouted**: attempted, and claimed by no route. It never gets out, and fails the test.
* **recorded**: in the ledger only: neither answered by a route nor unrouted, such as a name lookup, a
  packet that the kernel sent by itself, or a TLS handshake that failed.
* **policy**: what happens to an attempt that no route claims (`unrouted=`) and to a name that no
  route names (`dns=`).
* **scope**: how long an egress, its routes and its containers last: one test, or all tests of a
  class, a module or the session.
* **window**: the attempts that are judged together: those of one test, of the start of a shared
  container, or between tests.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_egress.egress import Egress
    from pytest_egress.errors import (
        AcceptedError,
        AddressError,
        CallError,
        CommandError,
        ContainerError,
        ContainerTimeoutError,
        ContentError,
        EgressError,
        EngineError,
        HandlerError,
        HandshakeError,
        ImageError,
        LinkError,
        NeverCalledError,
        TamperingError,
        UnroutedError,
        UpstreamError,
        WebSocketClosedError,
    )
    from pytest_egress.gateway.raw_socket import RawSocket, RawTlsSocket
    from pytest_egress.routes.answers import forward, sequence
    from pytest_egress.routes.asgi import asgi
    from pytest_egress.routes.async_websocket import AsyncWebSocket
    from pytest_egress.routes.certificates import BAD_CERTIFICATES, BadCertificate
    from pytest_egress.routes.faults import (
        blackhole,
        delayed,
        disconnect,
        raw,
        refuse,
        reset,
        silence,
        throttled,
        truncated,
    )
    from pytest_egress.routes.grpc import grpc_server
    from pytest_egress.routes.open_websocket import WebSocket
    from pytest_egress.routes.route import Route
    from pytest_egress.routes.smtp import smtp
    from pytest_egress.routes.websocket import websocket
    from pytest_egress.routes.wsgi import wsgi
    from pytest_egress.targets.handle import Container
    from pytest_egress.targets.readiness import http_ok, log_line, port_open
    from pytest_egress.targets.results import CompletedContainer
    from pytest_egress.traffic.entries import (
        DnsQuery,
        Exchange,
        Mail,
        PacketAttempt,
        TcpConnection,
        TlsFailure,
    )
    from pytest_egress.traffic.events import Event
    from pytest_egress.traffic.forms import FormFile, MultiDict
    from pytest_egress.traffic.grpc import GrpcCall
    from pytest_egress.traffic.messages import UNSET, Headers, Request, Response
    from pytest_egress.traffic.websocket import WebSocketMessage

__all__ = [
    "AcceptedError",
    "AddressError",
    "AsyncWebSocket",
    "BAD_CERTIFICATES",
    "BadCertificate",
    "CallError",
    "CommandError",
    "CompletedContainer",
    "Container",
    "ContainerError",
    "ContainerTimeoutError",
    "ContentError",
    "DnsQuery",
    "Egress",
    "EgressError",
    "EngineError",
    "Event",
    "Exchange",
    "FormFile",
    "GrpcCall",
    "HandlerError",
    "HandshakeError",
    "Headers",
    "ImageError",
    "LinkError",
    "Mail",
    "MultiDict",
    "NeverCalledError",
    "PacketAttempt",
    "RawSocket",
    "RawTlsSocket",
    "Request",
    "Response",
    "Route",
    "TamperingError",
    "TcpConnection",
    "TlsFailure",
    "UNSET",
    "UnroutedError",
    "UpstreamError",
    "WebSocket",
    "WebSocketClosedError",
    "WebSocketMessage",
    "asgi",
    "blackhole",
    "delayed",
    "disconnect",
    "forward",
    "grpc_server",
    "http_ok",
    "log_line",
    "port_open",
    "raw",
    "refuse",
    "reset",
    "sequence",
    "silence",
    "smtp",
    "throttled",
    "truncated",
    "websocket",
    "wsgi",
]

_HOMES = {
    "BAD_CERTIFICATES": "routes.certificates",
    "UNSET": "traffic.messages",
    "AsyncWebSocket": "routes.async_websocket",
    "BadCertificate": "routes.certificates",
    "CompletedContainer": "targets.results",
    "Container": "targets.handle",
    "DnsQuery": "traffic.entries",
    "Egress": "egress",
    "Event": "traffic.events",
    "Exchange": "traffic.entries",
    "FormFile": "traffic.forms",
    "GrpcCall": "traffic.grpc",
    "Headers": "traffic.messages",
    "Mail": "traffic.entries",
    "MultiDict": "traffic.forms",
    "PacketAttempt": "traffic.entries",
    "RawSocket": "gateway.raw_socket",
    "RawTlsSocket": "gateway.raw_socket",
    "Request": "traffic.messages",
    "Response": "traffic.messages",
    "Route": "routes.route",
    "TcpConnection": "traffic.entries",
    "TlsFailure": "traffic.entries",
    "WebSocket": "routes.open_websocket",
    "WebSocketMessage": "traffic.websocket",
    "asgi": "routes.asgi",
    "blackhole": "routes.faults",
    "delayed": "routes.faults",
    "disconnect": "routes.faults",
    "forward": "routes.answers",
    "grpc_server": "routes.grpc",
    "http_ok": "targets.readiness",
    "log_line": "targets.readiness",
    "port_open": "targets.readiness",
    "raw": "routes.faults",
    "refuse": "routes.faults",
    "reset": "routes.faults",
    "sequence": "routes.answers",
    "silence": "routes.faults",
    "smtp": "routes.smtp",
    "throttled": "routes.faults",
    "truncated": "routes.faults",
    "websocket": "routes.websocket",
    "wsgi": "routes.wsgi",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562): every run of pytest imports this package."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(
        import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name
    )
    import_module(f"{__name__}.base.callers").hide_from_tracebacks()
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
