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
    from pytest_egress.base.unset import UNSET as UNSET
    from pytest_egress.egress import Egress as Egress
    from pytest_egress.endpoint.server import EngineEndpoint as EngineEndpoint
    from pytest_egress.endpoint.stack import Stack as Stack
    from pytest_egress.errors import (
        AddressError as AddressError,
        CallError as CallError,
        CassetteError as CassetteError,
        CertificateAcceptedError as CertificateAcceptedError,
        CommandError as CommandError,
        ContainerError as ContainerError,
        ContainerTimeoutError as ContainerTimeoutError,
        ContentError as ContentError,
        EgressError as EgressError,
        EngineError as EngineError,
        HandlerError as HandlerError,
        HandshakeError as HandshakeError,
        ImageError as ImageError,
        LeakError as LeakError,
        LinkError as LinkError,
        LockError as LockError,
        NeverCalledError as NeverCalledError,
        OpenApiError as OpenApiError,
        SweepError as SweepError,
        TamperingError as TamperingError,
        UnroutedError as UnroutedError,
        UpstreamError as UpstreamError,
        WebSocketClosedError as WebSocketClosedError,
    )
    from pytest_egress.gateway.raw.sockets import (
        RawSocket as RawSocket,
        RawTlsSocket as RawTlsSocket,
    )
    from pytest_egress.routes.answers import forward as forward, sequence as sequence
    from pytest_egress.routes.applications.asgi import asgi as asgi
    from pytest_egress.routes.applications.wsgi import wsgi as wsgi
    from pytest_egress.routes.cassette import cassette as cassette
    from pytest_egress.routes.certificates import (
        BAD_CERTIFICATES as BAD_CERTIFICATES,
        BadCertificate as BadCertificate,
    )
    from pytest_egress.routes.faults import (
        blackhole as blackhole,
        delayed as delayed,
        disconnect as disconnect,
        raw as raw,
        refuse as refuse,
        reset as reset,
        reset_stream as reset_stream,
        silence as silence,
        throttled as throttled,
        truncated as truncated,
    )
    from pytest_egress.routes.grpc.server import grpc_server as grpc_server
    from pytest_egress.routes.openapi.answer import openapi as openapi
    from pytest_egress.routes.partials import partial as partial
    from pytest_egress.routes.raw.kafka import kafka as kafka
    from pytest_egress.routes.raw.smtp import smtp as smtp
    from pytest_egress.routes.route import Route as Route
    from pytest_egress.routes.services import (
        ntp as ntp,
        statsd as statsd,
        syslog as syslog,
    )
    from pytest_egress.routes.table import SweptFault as SweptFault
    from pytest_egress.routes.websocket.answer import websocket as websocket
    from pytest_egress.routes.websocket.asynchronous import AsyncWebSocket as AsyncWebSocket
    from pytest_egress.routes.websocket.open import WebSocket as WebSocket
    from pytest_egress.targets.handle import Container as Container
    from pytest_egress.targets.readiness import (
        http_ok as http_ok,
        log_line as log_line,
        port_open as port_open,
    )
    from pytest_egress.targets.results import CompletedContainer as CompletedContainer
    from pytest_egress.traffic.entries import (
        Datagram as Datagram,
        DatagramFlow as DatagramFlow,
        DnsQuery as DnsQuery,
        Entry as Entry,
        Exchange as Exchange,
        KafkaRecord as KafkaRecord,
        Mail as Mail,
        PacketAttempt as PacketAttempt,
        ProxyCall as ProxyCall,
        TcpConnection as TcpConnection,
        TlsFailure as TlsFailure,
    )
    from pytest_egress.traffic.grpc import GrpcCall as GrpcCall
    from pytest_egress.traffic.http.events import Event as Event
    from pytest_egress.traffic.http.forms import FormFile as FormFile, MultiDict as MultiDict
    from pytest_egress.traffic.http.headers import Headers as Headers
    from pytest_egress.traffic.http.model_turns import (
        anthropic_turn as anthropic_turn,
        openai_turn as openai_turn,
    )
    from pytest_egress.traffic.http.request import Request as Request
    from pytest_egress.traffic.http.response import Response as Response
    from pytest_egress.traffic.redaction.declared import Redaction as Redaction
    from pytest_egress.traffic.search.secrets import secret as secret
    from pytest_egress.traffic.statsd import Metric as Metric
    from pytest_egress.traffic.syslog import SyslogMessage as SyslogMessage
    from pytest_egress.traffic.websocket import WebSocketMessage as WebSocketMessage

_NAMES = {
    "base.unset": "UNSET",
    "egress": "Egress",
    "errors": (
        "AddressError CallError CassetteError CertificateAcceptedError CommandError ContainerError "
        "ContainerTimeoutError ContentError EgressError EngineError HandlerError "
        "HandshakeError ImageError LeakError LinkError LockError NeverCalledError OpenApiError "
        "SweepError TamperingError UnroutedError UpstreamError WebSocketClosedError"
    ),
    "endpoint.server": "EngineEndpoint",
    "endpoint.stack": "Stack",
    "gateway.raw.sockets": "RawSocket RawTlsSocket",
    "routes.answers": "forward sequence",
    "routes.applications.asgi": "asgi",
    "routes.applications.wsgi": "wsgi",
    "routes.cassette": "cassette",
    "routes.certificates": "BAD_CERTIFICATES BadCertificate",
    "routes.faults": "blackhole delayed disconnect raw refuse reset reset_stream "
    "silence throttled truncated",
    "routes.grpc.server": "grpc_server",
    "routes.openapi.answer": "openapi",
    "routes.partials": "partial",
    "routes.raw.kafka": "kafka",
    "routes.raw.smtp": "smtp",
    "routes.route": "Route",
    "routes.services": "ntp statsd syslog",
    "routes.table": "SweptFault",
    "routes.websocket.answer": "websocket",
    "routes.websocket.asynchronous": "AsyncWebSocket",
    "routes.websocket.open": "WebSocket",
    "targets.handle": "Container",
    "targets.readiness": "http_ok log_line port_open",
    "targets.results": "CompletedContainer",
    "traffic.entries": (
        "Datagram DatagramFlow DnsQuery Entry Exchange KafkaRecord Mail PacketAttempt ProxyCall "
        "TcpConnection TlsFailure"
    ),
    "traffic.grpc": "GrpcCall",
    "traffic.http.events": "Event",
    "traffic.http.forms": "FormFile MultiDict",
    "traffic.http.headers": "Headers",
    "traffic.http.model_turns": "anthropic_turn openai_turn",
    "traffic.http.request": "Request",
    "traffic.http.response": "Response",
    "traffic.redaction.declared": "Redaction",
    "traffic.search.secrets": "secret",
    "traffic.statsd": "Metric",
    "traffic.syslog": "SyslogMessage",
    "traffic.websocket": "WebSocketMessage",
}
"""The public names by module. `__getattr__` imports a module at the first use of one of its names."""

_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

_RENAMED = {"AcceptedError": "CertificateAcceptedError"}
"""The new name of each old one."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562): every run of pytest imports this package."""
    if name in _RENAMED:  # no AttributeError: `from pytest_egress import ...` would lose its text
        raise ImportError(
            f"pytest_egress.{name} is pytest_egress.{_RENAMED[name]} now", name=__name__
        )
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    import_module(f"{__name__}.base.callers").hide_from_tracebacks()
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
