"""Spans that a service exports by OTLP over gRPC, to a collector made of OpenTelemetry's own generated code."""

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from pytest_egress import Egress, grpc_server

SERVICE = """
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource({"service.name": "shop"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("shop")
with tracer.start_as_current_span("order"), tracer.start_as_current_span("charge") as charge:
    charge.set_attribute("amount", 4200)
provider.shutdown()
"""
COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://otel.example.test:4317"}


class Collector(TraceServiceServicer):
    """Takes all spans, after it was busy so many times."""

    def __init__(self, busy: int = 0) -> None:
        self.busy = busy

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Answer one batch of spans."""
        if self.busy:
            self.busy -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        return ExportTraceServiceResponse()


def test_a_charge_is_a_span_within_its_order(egress: Egress, grpc_clients: str) -> None:
    server = grpc_server((add_TraceServiceServicer_to_server, Collector()))
    collector = egress.intercept_https("otel.example.test:4317", server)

    egress.run(grpc_clients, ["python", "-c", SERVICE], env=COLLECTOR)

    (resource,) = collector.assert_called_once().grpc.request.resource_spans
    charge, order = resource.scope_spans[0].spans
    assert (order.name, charge.name) == ("order", "charge")
    assert charge.parent_span_id == order.span_id
    assert [(each.key, each.value.int_value) for each in charge.attributes] == [("amount", 4200)]


def test_spans_reach_a_collector_that_is_busy_at_first(egress: Egress, grpc_clients: str) -> None:
    server = grpc_server((add_TraceServiceServicer_to_server, Collector(busy=1)))
    collector = egress.intercept_https("otel.example.test:4317", server)

    egress.run(grpc_clients, ["python", "-c", SERVICE], env=COLLECTOR)

    assert [call.grpc.status for call in collector.calls] == ["UNAVAILABLE", "OK"]
    first, second = collector.calls
    assert first.grpc.request == second.grpc.request
