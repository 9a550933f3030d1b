"""The tracer of a service. OpenTelemetry is an extra: it is imported where an endpoint is set, and only there."""

from __future__ import annotations

import atexit

from driftline.core.errors import ConfigError
from driftline.core.tracing import Tracer


def otel_tracer(service: str, endpoint: str) -> Tracer:
    """Raises ConfigError when the extra is not installed."""
    try:
        from driftline.adapters.otel import OtelTracer
    except ImportError as error:
        raise ConfigError(
            f"telemetry.otlp_endpoint is set, and {error.name} is missing: install driftline[otel]"
        ) from error
    tracer = OtelTracer(service, endpoint)
    atexit.register(tracer.close)
    return tracer
