"""OpenTelemetry: spans over OTLP/HTTP. Only imported where `telemetry.otlp_endpoint` is set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, TraceFlags, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from driftline import __version__

# A batch has up to a thousand changes, each of a trace of its own; the first ones are linked.
_LINKS = 32


class OtelTracer:
    """Exports from a thread of its own; a collector that is down loses spans, never work."""

    def __init__(self, service: str, endpoint: str) -> None:
        resource = Resource.create({"service.name": f"driftline-{service}", "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("driftline", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(
        self, name: str, traceparent: str, links: Sequence[str], attributes: dict[str, str | int]
    ) -> Iterator[str]:  # fmt: skip
        parent = self._propagator.extract({"traceparent": traceparent})
        linked = [Link(context) for link in links[:_LINKS] if (context := _context(link)) is not None]
        with self._tracer.start_as_current_span(name, parent, links=linked, attributes=attributes) as current:
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier, set_span_in_context(current))
            yield carrier.get("traceparent", traceparent)

    def close(self) -> None:
        """Send what is waiting."""
        self._provider.shutdown()


def _context(traceparent: str) -> SpanContext | None:
    parts = traceparent.split("-")
    try:
        return SpanContext(int(parts[1], 16), int(parts[2], 16), True, TraceFlags(1))
    except (IndexError, ValueError):
        return None
