"""Spans reach a collector, under the trace that the request or the record came with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from driftline.adapters.otel import OtelTracer
from driftline.core import tracing
from driftline.core.health import Health
from driftline.core.logs import current_traceparent
from driftline.core.settings import HttpSettings
from driftline.core.tracing import span
from driftline.web import app as web

TRACE, PARENT = "1" * 32, "2" * 16
HEADER = f"00-{TRACE}-{PARENT}-01"


class Collector:
    def __init__(self) -> None:
        self.spans: list = []  # type: ignore[type-arg]
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[tuple[Collector, OtelTracer]]:
    made = Collector()
    tracer = OtelTracer("test", made.url)
    tracing.install(tracer)
    yield made, tracer
    tracing.install(None)
    made.server.shutdown()


def test_a_span_continues_its_trace_and_links_the_others(collector: tuple[Collector, OtelTracer]) -> None:
    made, tracer = collector
    other = f"00-{'3' * 32}-{'4' * 16}-01"
    with span("encode process", HEADER, [other, "rubbish"], records=2):
        inside = current_traceparent()
    tracer.close()
    (sent,) = made.spans
    assert (sent.trace_id.hex(), sent.parent_span_id.hex(), sent.name) == (TRACE, PARENT, "encode process")
    assert [link.trace_id.hex() for link in sent.links] == ["3" * 32]
    assert inside == f"00-{TRACE}-{sent.span_id.hex()}-01"


def test_a_request_is_a_span_of_its_caller(collector: tuple[Collector, OtelTracer]) -> None:
    made, tracer = collector
    client = TestClient(web.create("test", "", Health(), HttpSettings()))
    assert client.get("/livez", headers={"traceparent": HEADER}).status_code == 200
    tracer.close()
    assert [s.trace_id.hex() for s in made.spans] == [TRACE]


def test_without_an_endpoint_the_trace_still_travels() -> None:
    with span("anything", HEADER):
        assert current_traceparent() == HEADER
    with span("anything", "not a header"):
        assert current_traceparent().split("-")[1] != TRACE
