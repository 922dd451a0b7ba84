"""Spans that a service exports by OTLP over HTTP, read with the classes of OpenTelemetry itself."""

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pytest_egress import Egress, sequence

SERVICE = """
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
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
COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://otel.example.test"}


def test_a_charge_is_a_span_within_its_order(egress: Egress, sdks: str) -> None:
    collector = egress.intercept_https("otel.example.test", path="/v1/traces")

    egress.run(sdks, ["python3", "-c", SERVICE], env=COLLECTOR)

    content = collector.assert_called_once().request.content
    (resource,) = ExportTraceServiceRequest.FromString(content).resource_spans
    charge, order = resource.scope_spans[0].spans
    assert (order.name, charge.name) == ("order", "charge")
    assert charge.parent_span_id == order.span_id
    assert [(each.key, each.value.int_value) for each in charge.attributes] == [("amount", 4200)]


def test_spans_reach_a_collector_that_is_busy_at_first(egress: Egress, sdks: str) -> None:
    collector = egress.intercept_https("otel.example.test", sequence(503, b""))

    egress.run(sdks, ["python3", "-c", SERVICE], env=COLLECTOR)

    first, second = collector.calls
    assert first.request.content == second.request.content
