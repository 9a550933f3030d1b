"""The tracer of a service. OpenTelemetry is an extra: it is imported where an endpoint is set, and only there."""

from __future__ import annotations

import atexit
import sys

from driftline.core.tracing import Tracer


def otel_tracer(service: str, endpoint: str) -> Tracer:
    """Ends the start with one clear line when the extra is not installed."""
    try:
        from driftline.adapters.otel import OtelTracer
    except ImportError as error:
        print(
            f"driftline: telemetry.otlp_endpoint is set, and {error.name} is missing: install driftline[otel]",
            file=sys.stderr,
        )
        raise SystemExit(78) from error
    tracer = OtelTracer(service, endpoint)
    atexit.register(tracer.close)
    return tracer
